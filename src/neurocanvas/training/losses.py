"""What training minimises, and what a mapper is scored by; all in principal coordinates of the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neurocanvas.families import batches
from neurocanvas.models.basis import TargetBasis

if TYPE_CHECKING:
    import torch


# Pairs of a trial and a target that are compared at once: memory, not result.
AT_ONCE = 4_000_000


def spread(coordinates: np.ndarray) -> float:
    """Root mean squared distance of targets from the mean training target: the unit in which networks are trained."""
    return float(np.sqrt(np.mean(np.sum(coordinates.astype(np.float64) ** 2, axis=1))))


def squared_error(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Squared distance in coordinates, mean over trials: the MSE of the target up to a factor and a constant."""
    return ((predicted - true) ** 2).sum(dim=1).mean()


def cosine_error(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """One minus the cosine between prediction and target, both around the mean training target; mean over trials."""
    from torch.nn import functional

    return 1 - functional.cosine_similarity(predicted, true, dim=1).mean()


def contrastive_error(predicted: torch.Tensor, true: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy of finding the true target among the batch's, both ways: InfoNCE [vandenOord2018]."""
    import torch
    from torch.nn import functional

    unit = functional.normalize(true, dim=1)
    logits = predicted @ unit.T / temperature
    right = ((unit @ unit.T > 1 - 1e-5) | torch.eye(len(true), dtype=torch.bool)).to(logits.dtype)
    right = right / right.sum(dim=1, keepdim=True)
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


def mse_per_element(
    predicted: np.ndarray, true: np.ndarray, squared_distance: np.ndarray, basis: TargetBasis
) -> float:
    """Mean squared error over trials and over all numbers of the target, from coordinates alone."""
    inside = np.sum((predicted.astype(np.float64) - true) ** 2, axis=1)
    return float(np.mean(inside + squared_distance) / basis.mean.size)


def two_way_of_trials(
    predicted: np.ndarray, true: np.ndarray, squared_distance: np.ndarray, stimulus: np.ndarray
) -> np.ndarray:
    """Two-way identification of every trial among targets, by the cosine of what differs from the mean training
    target."""
    gallery, first, own = np.unique(stimulus, return_index=True, return_inverse=True)
    if len(gallery) < 2:
        return np.full(len(predicted), np.nan)
    length = np.sqrt(np.sum(true[first].astype(np.float64) ** 2, axis=1) + squared_distance[first])
    directions = (true[first] / np.maximum(length, np.finfo(np.float64).tiny)[:, None]).T
    found, own = np.empty(len(predicted)), own.reshape(-1)
    for rows in batches(len(predicted), max(1, AT_ONCE // len(gallery))):
        similarity = _unit(predicted[rows]) @ directions
        difference = similarity[np.arange(len(similarity)), own[rows]][:, None] - similarity
        won = np.where(np.abs(difference) < 1e-6, 0.5, difference > 0)
        found[rows] = (won.sum(axis=1) - 0.5) / (len(gallery) - 1)
    return found


def two_way_in_targets(
    predicted: np.ndarray, true: np.ndarray, squared_distance: np.ndarray, stimulus: np.ndarray
) -> float:
    """Mean of `two_way_of_trials`, whose parameters it has."""
    return float(np.mean(two_way_of_trials(predicted, true, squared_distance, stimulus)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to length one; zero rows stay zero."""
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(length > 0, length, 1.0)
