"""Scores of sets of images: FID, KID, inception score, and how diverse predictions are."""

from __future__ import annotations

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.pretrained import batches

# Rows that are read at once: memory, not result.
AT_ONCE = 4096


def _scored(value: float, generated: np.ndarray, n_seen: int, spread: float | None = None) -> dict[str, float | None]:
    return {
        "value": value,
        "n_generated": len(generated),
        "n_seen": n_seen,
        "n_features": generated.shape[1],
        "spread": spread,
    }


def _check_features(name: str, features: np.ndarray, at_least: int = 2) -> np.ndarray:
    """Return features as an array of rows, or say what is wrong."""
    values = np.asarray(features)
    if values.ndim != 2 or len(values) < at_least or not values.shape[1]:
        raise NeuroCanvasError(
            f"{name}: shape (n_pictures >= {at_least}, n_features) is needed; got {values.shape}. Add images."
        )
    return values


def fid(generated: np.ndarray, seen: np.ndarray) -> dict[str, float | None]:
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
    return _scored(max(0.0, float(value)), left, len(right))


def kid(
    generated: np.ndarray,
    seen: np.ndarray,
    *,
    rng: np.random.Generator,
    subsets: int = 100,
    subset_size: int = 1000,
) -> dict[str, float | None]:
    """Kernel inception distance: unbiased squared MMD with a cubic kernel, averaged over subsets [Binkowski2018]."""
    left, right = _check_features("generated", generated), _check_features("seen", seen)
    if left.shape[1] != right.shape[1] or subsets < 1 or subset_size < 2:
        raise NeuroCanvasError(
            f"kid: one width, 1 subset and 2 images in it, or more, are needed; got widths {left.shape[1]} and "
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
    return _scored(float(np.mean(values)), left, len(right), spread)


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The kernel of KID between all rows of x and y."""
    return np.asarray((x @ y.T / x.shape[1] + 1.0) ** 3)


def inception_score(logits: np.ndarray) -> dict[str, float | None]:
    """Inception score of all images together: exp of the mean of Σ p log p, less Σ m log m, m the mean of p."""
    values = _check_features("logits", logits, at_least=1)
    mean, own = np.zeros(values.shape[1]), 0.0
    for part in batches(len(values), AT_ONCE):
        some = np.asarray(values[part], dtype=np.float64)
        log_shares = some - some.max(axis=1, keepdims=True)
        log_shares -= np.log(np.exp(log_shares).sum(axis=1, keepdims=True))
        shares = np.exp(log_shares)
        mean += shares.sum(axis=0) / len(values)
        own += float((shares * log_shares).sum()) / len(values)
    if not np.isfinite([own, *mean]).all():
        raise NeuroCanvasError("logits: finite numbers are needed; got NaN or infinity.")
    present = mean[mean > 0]
    return _scored(float(np.exp(own - (present * np.log(present)).sum())), values, 0)


def diversity(predictions: np.ndarray) -> dict[str, float]:
    """Effective rank [RoyVetterli2007], and the mean cosine of all pairs where there are pairs and no row is zero."""
    values = np.asarray(predictions, dtype=np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise NeuroCanvasError(
            f"predictions: finite numbers, (n, n_features), are needed; got {values.shape}, NaN or infinity."
        )
    found = {"effective_rank": 0.0}  # what rounding leaves of a zero matrix has no directions
    lengths = np.linalg.svd(values, compute_uv=False)
    if lengths[0] > np.finfo(float).eps * max(values.shape) * np.abs(values).max():
        shares = lengths[lengths > 0] / lengths.sum()
        found["effective_rank"] = float(np.exp(-(shares * np.log(shares)).sum()))
    n, norms = len(values), np.linalg.norm(values, axis=1)
    if n > 1 and (norms > 0).all():
        total = (values / norms[:, None]).sum(axis=0)
        found["mean_cosine"] = float((total @ total - n) / (n * (n - 1)))
    return found
