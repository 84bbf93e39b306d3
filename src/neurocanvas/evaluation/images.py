"""Pixel metrics, as MindEye defines them, on pictures that already have the size they are compared at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neurocanvas.errors import NeuroCanvasError

# Weights of red, green and blue in the grey picture (ITU-R BT.709, as scikit-image's rgb2gray has them).
LUMA = (0.2125, 0.7154, 0.0721)

# Pixels that SSIM works on at once: memory, not result.
AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Window:
    """Over what SSIM takes local moments, and of what."""

    size: int = 11
    sigma: float = 1.5
    sample_covariance: bool = False
    grey: bool = True


# MindEye's settings; `Window(7, 0, True, False)` is what scikit-image does where nothing is said.
MINDEYE_WINDOW = Window()


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
    """PixCorr of every picture of one stack with every picture of another."""
    left, right = _check_pictures(images, others)
    return np.asarray(np.clip(_unit_rows(left) @ _unit_rows(right).T, -1.0, 1.0))


def pixcorr(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pearson correlation of all RGB pixels of each pair of pictures."""
    left, right = _check_pictures(images, others)
    _check_pairs(left, right)
    # pair by pair: large pictures are then read from the cache
    found = [(_unit_rows(one[None]) @ _unit_rows(other[None]).T).item() for one, other in zip(left, right, strict=True)]
    return np.clip(np.array(found), -1.0, 1.0)


def _check_pairs(images: np.ndarray, others: np.ndarray) -> None:
    """Raise unless both stacks hold equally many pictures."""
    if len(images) != len(others):
        raise NeuroCanvasError(
            f"pairs of pictures: as many of both are needed; got {len(images)} and {len(others)}."
        )


def _smooth(pictures: np.ndarray, window: Window) -> np.ndarray:
    """Mean around every pixel whose window lies inside the picture, (..., h - size + 1, w - size + 1)."""
    from scipy.ndimage import correlate1d

    radius = window.size // 2
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / window.sigma) ** 2) if window.sigma else np.ones(window.size)
    weights /= weights.sum()
    rows = correlate1d(pictures, weights, axis=-2)[..., radius:-radius, :]
    return np.asarray(correlate1d(rows, weights, axis=-1)[..., radius:-radius])


def ssim_table(
    images: np.ndarray, others: np.ndarray, pairs: np.ndarray | None = None, window: Window = MINDEYE_WINDOW
) -> np.ndarray:
    """SSIM of every picture of one stack with every picture of another."""
    left, right = _check_pictures(images, others)
    if min(left.shape[1:3]) < window.size or window.size % 2 == 0:
        raise NeuroCanvasError(
            f"ssim: at least {window.size} x {window.size} pixels, an odd number, are needed; got {left.shape[1:3]}."
        )
    wanted = np.ones((len(left), len(right)), bool) if pairs is None else np.asarray(pairs, bool)
    if wanted.shape != (len(left), len(right)):
        raise NeuroCanvasError(f"pairs: shape {(len(left), len(right))} is needed; got {wanted.shape}.")
    if window.grey:
        return _ssim_of_channel(left @ LUMA, right @ LUMA, wanted, window)
    channels = [_ssim_of_channel(left[..., c], right[..., c], wanted, window) for c in range(3)]
    return np.asarray(np.mean(channels, axis=0))


def _ssim_of_channel(left: np.ndarray, right: np.ndarray, wanted: np.ndarray, window: Window) -> np.ndarray:
    """SSIM of every wanted pair of pictures of one channel; NaN elsewhere."""
    count = window.size**2
    unbiased = count / (count - 1) if window.sample_covariance else 1.0
    means = _smooth(right, window)
    variances = unbiased * (_smooth(right * right, window) - means**2)
    at_once = max(1, AT_ONCE // left[0].size)
    table = np.full(wanted.shape, np.nan)
    for row, picture in enumerate(left):
        columns = np.flatnonzero(wanted[row])
        mean = _smooth(picture, window)
        variance = unbiased * (_smooth(picture * picture, window) - mean**2)
        for start in range(0, len(columns), at_once):
            some = columns[start : start + at_once]
            covariance = unbiased * (_smooth(picture * right[some], window) - mean * means[some])
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


def ssim(images: np.ndarray, others: np.ndarray, window: Window = MINDEYE_WINDOW) -> np.ndarray:
    """Structural similarity of each pair of pictures, of their grey versions unless `window` says otherwise."""
    _check_pairs(np.asarray(images), np.asarray(others))
    return np.diagonal(ssim_table(images, others, np.eye(len(images), dtype=bool), window)).copy()


def lpips_distance(
    features: Sequence[np.ndarray], others: Sequence[np.ndarray], heads: Sequence[np.ndarray]
) -> np.ndarray:
    """Learned perceptual distance of each pair of pictures from features of several layers [Zhang2018]."""
    shapes = [[np.shape(layer) for layer in layers] for layers in (features, others)]
    fits = shapes[0] == shapes[1] and len(shapes[0]) == len(heads) > 0
    if not fits or any(len(s) != 4 or s[1:2] != np.shape(head) for s, head in zip(shapes[0], heads, strict=True)):
        raise NeuroCanvasError(
            "lpips: layers (n, n_channels, height, width), equal of both, and a head (n_channels,) for each, are "
            f"needed; got {shapes[0]}, {shapes[1]} and {[np.shape(head) for head in heads]}."
        )
    total = np.zeros(shapes[0][0][0])
    for left, right, head in zip(features, others, heads, strict=True):
        squared = (_unit_channels(left) - _unit_channels(right)) ** 2
        total += np.einsum("nchw,c->nhw", squared, head).mean(axis=(1, 2))
    return total


def _unit_channels(layer: np.ndarray) -> np.ndarray:
    """Scale features to length 1 over channels at every place."""
    values = np.asarray(layer, dtype=np.float64)
    return np.asarray(values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-10))
