"""Scores of sets of images: FID, KID, inception score, and how diverse predictions are."""

from __future__ import annotations

import warnings

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.feature_networks import NotComputed, import_extra


def _scored(value: float, generated: np.ndarray, n_seen: int, sd: float | None = None) -> dict[str, float | None]:
    n, width = generated.shape
    return {"value": value, "n_generated": n, "n_seen": n_seen, "n_features": width, "spread": sd}


def _check(*features: np.ndarray) -> None:
    """Raise unless there are features of two images or more on each side, all finite."""
    if min(map(len, features)) < 2:
        raise NotComputed(f"2 images or more are needed; got {' and '.join(str(len(rows)) for rows in features)}")
    if not all(np.isfinite(rows).all() for rows in features):
        raise NeuroCanvasError("FID, KID, IS: finite features are needed; got NaN or infinity.")


def fid(generated: np.ndarray, seen: np.ndarray) -> dict[str, float | None]:
    """Fréchet distance of two Gaussians with the moments of the features [Heusel2017]."""
    # The trace of the root of the product of two covariances is the nuclear norm of the product of their factors, which
    # takes a sixteenth of the time of torchmetrics' eigenvalues.
    _check(generated, seen)
    means, factors = [], []
    for rows in (generated.astype(np.float64), seen.astype(np.float64)):
        means.append(rows.mean(axis=0))
        factors.append(np.linalg.qr(rows - means[-1], mode="r") / np.sqrt(len(rows) - 1))
    value = ((means[0] - means[1]) ** 2).sum() + (factors[0] ** 2).sum() + (factors[1] ** 2).sum()
    value -= 2 * np.linalg.norm(factors[0] @ factors[1].T, "nuc")
    return _scored(max(0.0, float(value)), generated, len(seen))


def kid(
    generated: np.ndarray, seen: np.ndarray, *, seed: int, subsets: int = 100, subset_size: int = 1000
) -> dict[str, float | None]:
    """Kernel inception distance: unbiased squared MMD with a cubic kernel, averaged over subsets [Binkowski2018]."""
    import torch

    _check(generated, seen)
    size = min(subset_size, len(generated), len(seen))
    once = size == len(generated) == len(seen)
    distance = import_extra("torchmetrics.image.kid").KernelInceptionDistance
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # that it holds all features in memory
        torch.manual_seed(seed)
        metric = distance(torch.nn.Identity(), subsets=1 if once else subsets, subset_size=size)
        metric.update(torch.from_numpy(seen).double(), real=True)
        metric.update(torch.from_numpy(generated).double(), real=False)
        mean, sd = metric.compute()
    return _scored(float(mean), generated, len(seen), None if once else float(sd))


def inception_score(logits: np.ndarray) -> dict[str, float | None]:
    """Inception score of all images together: exp of the mean of Σ p log p, less Σ m log m, m the mean of p."""
    import torch

    _check(logits)
    score = import_extra("torchmetrics.image.inception").InceptionScore
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # that it holds all logits in memory, and that one split has no sd
        metric = score(torch.nn.Identity(), splits=1)
        metric.update(torch.from_numpy(logits).double())
        value, _ = metric.compute()
    return _scored(float(value), logits, 0)


def diversity(predictions: np.ndarray) -> dict[str, float]:
    """Effective rank [RoyVetterli2007], and the mean cosine of all pairs where there are pairs and no row is zero."""
    values = np.asarray(predictions, dtype=np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise NeuroCanvasError(
            f"predictions: finite numbers, (n, n_features), are needed; got {values.shape}, NaN or infinity."
        )
    scores = {"effective_rank": 0.0}  # rounding errors around a zero matrix have no directions
    lengths = np.linalg.svd(values, compute_uv=False)
    if lengths[0] > np.finfo(float).eps * max(values.shape) * np.abs(values).max():
        shares = lengths[lengths > 0] / lengths.sum()
        scores["effective_rank"] = float(np.exp(-(shares * np.log(shares)).sum()))
    n, norms = len(values), np.linalg.norm(values, axis=1)
    if n > 1 and (norms > 0).all():
        total = (values / norms[:, None]).sum(axis=0)
        scores["mean_cosine"] = float((total @ total - n) / (n * (n - 1)))
    return scores
