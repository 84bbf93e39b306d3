"""Pixel metrics, as MindEye defines them, on pictures that already have the size they are compared at."""

from __future__ import annotations

import numpy as np

from neurocanvas.errors import NeuroCanvasError

LUMA = (0.2125, 0.7154, 0.0721)
"""Weights of red, green and blue in the grey picture (ITU-R BT.709, as scikit-image's rgb2gray has them)."""

SIGMA, RADIUS = 1.5, 5
"""SSIM's Gaussian window: standard deviation, and radius where it is cut off (11 x 11), pixels."""

AT_ONCE = 4_000_000
"""Pixels that SSIM works on at once: memory, not result."""


def _check_pictures(images: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both stacks as float64, or say what is wrong with them."""
    stacks = []
    for name, stack in (("images", images), ("others", others)):
        values = np.asarray(stack)
        if values.ndim != 4 or values.shape[-1] != 3 or not len(values):
            raise NeuroCanvasError(f"{name}: RGB pictures, (n, h, w, 3), are needed; got {values.shape}.")
        if not np.issubdtype(values.dtype, np.floating) or not (values.min() >= 0 and values.max() <= 1):
            raise NeuroCanvasError(
                f"{name}: floats from 0 to 1 are needed; got {values.dtype} from {values.min()} to "
                f"{values.max()}. Divide 8-bit pictures by 255."
            )
        stacks.append(values.astype(np.float64))
    if stacks[0].shape[1:] != stacks[1].shape[1:]:
        raise NeuroCanvasError(
            f"images, others: one size is needed; got {stacks[0].shape[1:3]}, {stacks[1].shape[1:3]}."
        )
    return stacks[0], stacks[1]


def _unit_rows(pictures: np.ndarray) -> np.ndarray:
    """Flatten, centre and scale every picture to length 1; a picture of one colour becomes zero."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(norms > 1e-9, rows / np.maximum(norms, 1e-9), 0.0)


def pixcorr_table(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """PixCorr of every picture of one stack with every picture of another.

    Parameters
    ----------
    images : array, shape (n, h, w, 3), from 0 to 1
        Generated pictures.
    others : array, shape (m, h, w, 3), from 0 to 1
        Pictures that were seen.

    Returns
    -------
    array, shape (n, m), from -1 to 1

    Raises
    ------
    NeuroCanvasError
        If the shapes do not fit or a value lies outside 0 to 1.
    """
    left, right = _check_pictures(images, others)
    return np.asarray(np.clip(_unit_rows(left) @ _unit_rows(right).T, -1.0, 1.0))


def pixcorr(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pearson correlation of all RGB pixels of each pair of pictures.

    Parameters
    ----------
    images : array, shape (n, h, w, 3), from 0 to 1
        Generated pictures.
    others : array, shape (n, h, w, 3), from 0 to 1
        The picture that was seen in each trial.

    Returns
    -------
    array, shape (n,), from -1 to 1
        More is better; chance is what permuted pairs give, not 0. A picture of one colour has no correlation
        and scores 0.

    Raises
    ------
    NeuroCanvasError
        If the shapes do not fit or a value lies outside 0 to 1.

    Examples
    --------
    >>> ramp = np.linspace(0, 1, 48).reshape(1, 4, 4, 3)
    >>> pixcorr(ramp, 1 - ramp).round(6).tolist()
    [-1.0]
    """
    left, right = _check_pictures(images, others)
    _check_pairs(left, right)
    return np.asarray(np.clip((_unit_rows(left) * _unit_rows(right)).sum(axis=1), -1.0, 1.0))


def _check_pairs(images: np.ndarray, others: np.ndarray) -> None:
    """Raise unless both stacks hold equally many pictures."""
    if len(images) != len(others):
        raise NeuroCanvasError(
            f"pairs of pictures: as many of both are needed; got {len(images)} and {len(others)}."
        )


def _smooth(pictures: np.ndarray) -> np.ndarray:
    """Gaussian mean around every pixel whose window lies inside the picture, (..., h - 10, w - 10)."""
    from scipy.ndimage import correlate1d

    offsets = np.arange(-RADIUS, RADIUS + 1)
    window = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    window /= window.sum()
    rows = correlate1d(pictures, window, axis=-2)[..., RADIUS:-RADIUS, :]
    return np.asarray(correlate1d(rows, window, axis=-1)[..., RADIUS:-RADIUS])


def ssim_table(images: np.ndarray, others: np.ndarray, pairs: np.ndarray | None = None) -> np.ndarray:
    """SSIM of every picture of one stack with every picture of another.

    Parameters
    ----------
    images : array, shape (n, h, w, 3), from 0 to 1
        Generated pictures, at least 11 pixels high and wide.
    others : array, shape (m, h, w, 3), from 0 to 1
        Pictures that were seen.
    pairs : array of bool, shape (n, m), optional
        Which pairs to compute; all by default. `statistics.exchangeable_pairs` names those that a permutation
        test within subjects reads.

    Returns
    -------
    array, shape (n, m), from -1 to 1; NaN where `pairs` is False

    Raises
    ------
    NeuroCanvasError
        If the shapes do not fit, a value lies outside 0 to 1, or the pictures are smaller than the window.
    """
    left, right = _check_pictures(images, others)
    if min(left.shape[1:3]) < 2 * RADIUS + 1:
        raise NeuroCanvasError(f"ssim: at least 11 x 11 pixels are needed; got {left.shape[1:3]}.")
    wanted = np.ones((len(left), len(right)), bool) if pairs is None else np.asarray(pairs, bool)
    if wanted.shape != (len(left), len(right)):
        raise NeuroCanvasError(f"pairs: shape {(len(left), len(right))} is needed; got {wanted.shape}.")
    left, right = left @ LUMA, right @ LUMA
    means = _smooth(right)
    variances = _smooth(right * right) - means**2
    at_once = max(1, AT_ONCE // left[0].size)
    table = np.full(wanted.shape, np.nan)
    for row, picture in enumerate(left):
        columns = np.flatnonzero(wanted[row])
        mean = _smooth(picture)
        variance = _smooth(picture * picture) - mean**2
        for start in range(0, len(columns), at_once):
            some = columns[start : start + at_once]
            covariance = _smooth(picture * right[some]) - mean * means[some]
            local = _ssim(mean, means[some], variance, variances[some], covariance)
            table[row, some] = local.mean(axis=(1, 2))
    return table


def _ssim(
    mean: np.ndarray, means: np.ndarray, variance: np.ndarray, variances: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """SSIM around every pixel from the local moments, for pictures from 0 to 1 [Wang2004]."""
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean * means + c1) / (mean**2 + means**2 + c1)
    structure = (2 * covariance + c2) / (variance + variances + c2)
    return np.asarray(luminance * structure)


def ssim(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Structural similarity of the grey versions of each pair of pictures.

    Parameters
    ----------
    images : array, shape (n, h, w, 3), from 0 to 1
        Generated pictures, at least 11 pixels high and wide.
    others : array, shape (n, h, w, 3), from 0 to 1
        The picture that was seen in each trial.

    Returns
    -------
    array, shape (n,), from -1 to 1
        More is better; chance is what permuted pairs give. Smooth pictures score high whatever they show: in
        published controls shuffled EEG beat real EEG on this metric.

    Raises
    ------
    NeuroCanvasError
        If the shapes do not fit, a value lies outside 0 to 1, or the pictures are smaller than the window.

    Notes
    -----
    MindEye's settings: Gaussian window of sigma 1.5 (11 x 11), population covariance, data range 1, the mean
    over all windows inside the picture [Wang2004]. Nothing is resized here; MindEye resizes to 425 px first.

    Examples
    --------
    >>> ramp = np.linspace(0, 1, 16 * 16 * 3).reshape(1, 16, 16, 3)
    >>> ssim(ramp, ramp).round(6).tolist()
    [1.0]
    """
    _check_pairs(np.asarray(images), np.asarray(others))
    return np.diagonal(ssim_table(images, others, np.eye(len(images), dtype=bool))).copy()
