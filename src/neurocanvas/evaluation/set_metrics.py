"""Scores of sets of pictures: FID, KID, inception score, and how diverse predictions are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.pretrained import batches

# Rows that are read at once: memory, not result.
AT_ONCE = 4096


@dataclass(frozen=True)
class SetScore:
    """A score of two sets of pictures, or of one, with what must be known to compare it."""

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


def fid(generated: np.ndarray, seen: np.ndarray) -> SetScore:
    """Fréchet distance of two Gaussians with the moments of the features [Heusel2017]."""
    left, right = _check_features("generated", generated), _check_features("seen", seen)
    if left.shape[1] != right.shape[1] or not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise NeuroCanvasError(
            f"fid: finite features of one width are needed; got {left.shape[1]} and {right.shape[1]}, or NaN."
        )
    means, covariances = [], []
    for rows in (left.astype(np.float64), right.astype(np.float64)):
        means.append(rows.mean(axis=0))
        covariances.append((rows - means[-1]).T @ (rows - means[-1]) / (len(rows) - 1))
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    products, shift = np.linalg.eigvalsh(root @ covariances[1] @ root), means[0] - means[1]
    value = shift @ shift + np.trace(covariances[0]) + np.trace(covariances[1])
    value -= 2 * np.sqrt(np.maximum(products, 0)).sum()
    return SetScore(max(0.0, float(value)), len(left), len(right), left.shape[1])


def kid(
    generated: np.ndarray,
    seen: np.ndarray,
    *,
    rng: np.random.Generator,
    subsets: int = 100,
    subset_size: int = 1000,
) -> SetScore:
    """Kernel inception distance: unbiased squared MMD with a cubic kernel, averaged over subsets [Binkowski2018]."""
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
    """Inception score."""
    values = _check_features("logits", logits, at_least=1)
    if not 1 <= splits <= len(values):
        raise NeuroCanvasError(f"splits: 1 to {len(values)}, the number of pictures, is allowed; got {splits}.")
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
    """Effective rank: exp of the entropy of the normalised singular values [RoyVetterli2007]."""
    values = _check_features("predictions", predictions, at_least=1).astype(np.float64)
    if not np.isfinite(values).all():
        raise NeuroCanvasError("predictions: finite numbers are needed; got NaN or infinity.")
    lengths = np.linalg.svd(values - values.mean(axis=0) if centre else values, compute_uv=False)
    # what rounding leaves of a zero matrix has no directions
    if lengths[0] <= np.finfo(float).eps * max(values.shape) * np.abs(values).max():
        return 0.0
    shares = lengths[lengths > 0] / lengths.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_pairwise_cosine(predictions: np.ndarray) -> float:
    """Mean cosine of all pairs of different predictions."""
    values = _check_features("predictions", predictions).astype(np.float64)
    norms = np.linalg.norm(values, axis=1)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise NeuroCanvasError("predictions: finite rows that are not zero are needed; got others.")
    n = len(values)
    total = (values / norms[:, None]).sum(axis=0)
    return float((total @ total - n) / (n * (n - 1)))
