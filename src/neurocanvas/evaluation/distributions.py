"""Scores of sets of pictures: FID, KID, inception score, and how diverse predictions are.

They say how alike two sets are, not whether a picture is the right one: dealing the generated pictures out anew among
the trials leaves them unchanged. The number of pictures goes with the value, because FID and the inception score
depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.families import batches

AT_ONCE = 4096
"""Rows that are read at once: memory, not result."""


@dataclass(frozen=True)
class SetScore:
    """A score of two sets of pictures, or of one, with what must be known to compare it.

    Parameters
    ----------
    value : float
    n_generated, n_seen : int
        Pictures; `n_seen` is 0 where only generated ones are scored.
    n_features : int
        Width of the features: FID of 64 and of 2048 features are two metrics.
    spread : float or None
        Standard deviation over subsets (KID) or splits (inception score); None where there is one value.
    """

    value: float
    n_generated: int
    n_seen: int
    n_features: int
    spread: float | None = None


def _check_features(name: str, features: np.ndarray, at_least: int = 2) -> np.ndarray:
    """Return features as an array of rows, or say what is wrong."""
    values = np.asarray(features)
    if values.ndim != 2 or len(values) < at_least or not values.shape[1]:
        raise NeuroCanvasError(
            f"{name}: shape (n_pictures >= {at_least}, n_features) is needed; got {values.shape}. Add pictures."
        )
    return values


class FeatureMoments:
    """Mean and covariance of features that come in batches; none of them is kept.

    Parameters
    ----------
    n_features : int
        Width of the features.

    Attributes
    ----------
    n : int
        Rows so far.
    mean : array, shape (n_features,)

    Examples
    --------
    >>> moments = FeatureMoments(2)
    >>> moments.update(np.array([[0.0, 1.0], [2.0, 1.0]]))
    >>> moments.update(np.array([[4.0, 4.0]]))
    >>> moments.n, moments.mean.tolist(), moments.covariance().tolist()
    (3, [2.0, 2.0], [[4.0, 3.0], [3.0, 3.0]])
    """

    def __init__(self, n_features: int) -> None:
        self.n = 0
        self.mean = np.zeros(n_features)
        self._scatter = np.zeros((n_features, n_features))

    def update(self, features: np.ndarray) -> None:
        """Add rows.

        Parameters
        ----------
        features : array, shape (n, n_features)

        Raises
        ------
        NeuroCanvasError
            If the width is another one or a value is not finite.
        """
        rows = _check_features("features", features, at_least=1).astype(np.float64)
        if rows.shape[1] != len(self.mean) or not np.isfinite(rows).all():
            raise NeuroCanvasError(
                f"features: {len(self.mean)} finite numbers per picture are needed; got {rows.shape}, "
                f"{int((~np.isfinite(rows)).sum())} not finite."
            )
        mean = rows.mean(axis=0)
        centred, shift, total = rows - mean, mean - self.mean, self.n + len(rows)
        # moments around the two means are joined without a large sum of squares that would cost digits
        self._scatter += centred.T @ centred + np.outer(shift, shift) * (self.n * len(rows) / total)
        self.mean += shift * (len(rows) / total)
        self.n = total

    def covariance(self) -> np.ndarray:
        """Unbiased covariance of the rows so far.

        Returns
        -------
        array, shape (n_features, n_features)

        Raises
        ------
        NeuroCanvasError
            If there are fewer than two rows.
        """
        if self.n < 2:
            raise NeuroCanvasError(f"features: two pictures or more are needed for a covariance; got {self.n}.")
        return self._scatter / (self.n - 1)


def fid(generated: FeatureMoments, seen: FeatureMoments) -> SetScore:
    """Fréchet distance of two Gaussians with the moments of the features [Heusel2017].

    Parameters
    ----------
    generated, seen : FeatureMoments

    Returns
    -------
    SetScore
        0 or more, less is better. Biased upwards, the more so the fewer pictures: with 200 to 2,000 of them only
        values of equal N can be compared, and `kid` is the better choice.

    Raises
    ------
    NeuroCanvasError
        If the widths differ, or one of the sets has fewer than two pictures.

    Notes
    -----
    ``|m - n|² + tr(C + D - 2 (C D)^½)``; the last trace is the sum of the roots of the eigenvalues of C^½ D C^½.

    References
    ----------
    .. [Heusel2017] Heusel et al.: GANs trained by a two time-scale update rule. NeurIPS 2017.

    Examples
    --------
    >>> a, b = FeatureMoments(1), FeatureMoments(1)
    >>> a.update(np.array([[0.0], [2.0]]))
    >>> b.update(np.array([[3.0], [5.0]]))
    >>> round(fid(a, b).value, 6)
    9.0
    """
    if len(generated.mean) != len(seen.mean):
        raise NeuroCanvasError(
            f"fid: features of one width are needed; got {len(generated.mean)} and {len(seen.mean)}."
        )
    first, second = generated.covariance(), seen.covariance()
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    products = np.linalg.eigvalsh(root @ second @ root)
    shift = generated.mean - seen.mean
    value = shift @ shift + np.trace(first) + np.trace(second) - 2 * np.sqrt(np.maximum(products, 0)).sum()
    return SetScore(max(0.0, float(value)), generated.n, seen.n, len(seen.mean))


def kid(
    generated: np.ndarray,
    seen: np.ndarray,
    *,
    rng: np.random.Generator,
    subsets: int = 100,
    subset_size: int = 1000,
) -> SetScore:
    """Kernel inception distance: unbiased squared MMD with a cubic kernel, averaged over subsets [Binkowski2018].

    Parameters
    ----------
    generated, seen : array, shape (n, n_features), (m, n_features)
        May be memory-mapped: only the rows of one subset are read at a time.
    rng : numpy.random.Generator
        Where subsets are drawn from.
    subsets : int
        How many; one of everything where both sets are no larger than a subset.
    subset_size : int
        Pictures of each set in a subset; fewer if one of the sets is smaller.

    Returns
    -------
    SetScore
        0 in expectation for two samples of one distribution, whatever N, and so sometimes below 0; less is better.
        `spread` is the standard deviation over subsets.

    Raises
    ------
    NeuroCanvasError
        If the widths differ, a set has fewer than two pictures, or a subset is empty.

    Notes
    -----
    ``k(x, y) = (x·y / n_features + 1)³``; the mean of k over pairs within each set, without pairs of a picture with
    itself, less twice the mean over pairs across.

    References
    ----------
    .. [Binkowski2018] Bińkowski et al.: Demystifying MMD GANs. ICLR 2018.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> near, far = rng.normal(size=(2, 60, 4))
    >>> kid(far + 2, near, rng=rng).value > 5 > kid(far, near, rng=rng).value
    True
    """
    left, right = _check_features("generated", generated), _check_features("seen", seen)
    if left.shape[1] != right.shape[1] or subsets < 1 or subset_size < 2:
        raise NeuroCanvasError(
            f"kid: one width, 1 subset and 2 pictures in it, or more, are needed; got widths {left.shape[1]} and "
            f"{right.shape[1]}, {subsets} subsets of {subset_size}."
        )
    size = min(subset_size, len(left), len(right))
    once = size == len(left) == len(right)
    values = []
    for _ in range(1 if once else subsets):
        rows = [np.sort(rng.choice(len(stack), size, replace=False)) for stack in (left, right)]
        x, y = (np.asarray(stack[some], dtype=np.float64) for stack, some in zip((left, right), rows, strict=True))
        within = sum(float(kernel.sum() - np.trace(kernel)) for kernel in (_cubic(x, x), _cubic(y, y)))
        values.append(within / (size * (size - 1)) - 2 * float(_cubic(x, y).mean()))
    if not np.isfinite(values).all():
        raise NeuroCanvasError("kid: features without NaN or infinity are needed; got some.")
    spread = None if once else float(np.std(values))
    return SetScore(float(np.mean(values)), len(left), len(right), left.shape[1], spread)


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The kernel of KID between all rows of x and y."""
    return np.asarray((x @ y.T / x.shape[1] + 1.0) ** 3)


def inception_score(logits: np.ndarray, *, splits: int = 1, rng: np.random.Generator | None = None) -> SetScore:
    """Inception score: exp of the mean divergence of a picture's class probabilities from the mean ones [Salimans2016].

    Parameters
    ----------
    logits : array, shape (n, n_classes)
        Of a classifier, for the generated pictures. May be memory-mapped: `AT_ONCE` rows are read at a time.
    splits : int
        Parts that are scored by themselves and averaged.
    rng : numpy.random.Generator, optional
        Shuffles the pictures before they are split; in the order in which they stand without.

    Returns
    -------
    SetScore
        1 to n_classes, more is better; `spread` is the standard deviation over splits. It knows nothing of what was
        seen, and grows with N.

    Raises
    ------
    NeuroCanvasError
        If there are fewer pictures than splits, or a value is not finite.

    References
    ----------
    .. [Salimans2016] Salimans et al.: Improved techniques for training GANs. NeurIPS 2016.

    Examples
    --------
    >>> round(inception_score(50 * np.eye(4)).value, 6), inception_score(np.zeros((5, 4))).value
    (4.0, 1.0)
    """
    values = _check_features("logits", logits, at_least=1)
    if not 1 <= splits <= len(values):
        raise NeuroCanvasError(
            f"splits: 1 to {len(values)}, the number of pictures, is allowed; got {splits}."
        )
    order = np.arange(len(values)) if rng is None else rng.permutation(len(values))
    scores = [_exp_divergence(values, part) for part in np.array_split(order, splits)]
    if not np.isfinite(scores).all():
        raise NeuroCanvasError("logits: finite numbers are needed; got NaN or infinity.")
    spread = float(np.std(scores)) if splits > 1 else None
    return SetScore(float(np.mean(scores)), len(values), 0, values.shape[1], spread)


def _exp_divergence(logits: np.ndarray, rows: np.ndarray) -> float:
    """exp of the mean over rows of Σ p log p, less Σ m log m of the mean probabilities m."""
    mean, own = np.zeros(logits.shape[1]), 0.0
    for part in batches(len(rows), AT_ONCE):
        some = np.asarray(logits[rows[part]], dtype=np.float64)
        log_shares = some - some.max(axis=1, keepdims=True)
        log_shares -= np.log(np.exp(log_shares).sum(axis=1, keepdims=True))
        shares = np.exp(log_shares)
        mean += shares.sum(axis=0) / len(rows)
        own += float((shares * log_shares).sum()) / len(rows)
    present = mean[mean > 0]
    return float(np.exp(own - (present * np.log(present)).sum())) if np.isfinite(mean).all() else float("nan")


def effective_rank(predictions: np.ndarray, *, centre: bool = False) -> float:
    """Effective rank: exp of the entropy of the normalised singular values [RoyVetterli2007].

    Parameters
    ----------
    predictions : array, shape (n, n_features)
        Or targets, to compare with.
    centre : bool
        Whether the mean prediction is subtracted first: the directions in which they differ, however little.

    Returns
    -------
    float, from 1 to min(n, n_features)
        1 where all predictions are multiples of one: the decoder has collapsed. 0 if, centred, nothing is left.

    Raises
    ------
    NeuroCanvasError
        If there are no rows, or a value is not finite.

    References
    ----------
    .. [RoyVetterli2007] Roy and Vetterli: The effective rank: a measure of effective dimensionality. EUSIPCO 2007.

    Examples
    --------
    >>> round(effective_rank(np.eye(5)), 6), round(effective_rank(np.ones((5, 3))), 6)
    (5.0, 1.0)
    """
    values = _check_features("predictions", predictions, at_least=1).astype(np.float64)
    if not np.isfinite(values).all():
        raise NeuroCanvasError("predictions: finite numbers are needed; got NaN or infinity.")
    lengths = np.linalg.svd(values - values.mean(axis=0) if centre else values, compute_uv=False)
    # what rounding leaves of a matrix that is zero has no directions
    if lengths[0] <= np.finfo(float).eps * max(values.shape) * np.abs(values).max():
        return 0.0
    shares = lengths[lengths > 0] / lengths.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_pairwise_cosine(predictions: np.ndarray) -> float:
    """Mean cosine of all pairs of different predictions.

    Parameters
    ----------
    predictions : array, shape (n >= 2, n_features)
        Or targets, to compare with.

    Returns
    -------
    float, from -1 / (n - 1) to 1
        1 where all point the same way: the decoder has collapsed.

    Raises
    ------
    NeuroCanvasError
        If there are fewer than two rows, one is zero, or a value is not finite.

    Examples
    --------
    >>> round(mean_pairwise_cosine(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])), 6)
    0.333333
    """
    values = _check_features("predictions", predictions).astype(np.float64)
    norms = np.linalg.norm(values, axis=1)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise NeuroCanvasError("predictions: finite rows that are not zero are needed; got others.")
    n = len(values)
    total = (values / norms[:, None]).sum(axis=0)
    return float((total @ total - n) / (n * (n - 1)))
