"""Losses and scores of mappers, all in principal coordinates: zero is the mean training target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neurocanvas.encoders.target_pca import TargetBasis
from neurocanvas.targets.pretrained import batches

if TYPE_CHECKING:
    import torch


# Pairs of trial and target per batch; sets memory, not results.
AT_ONCE = 4_000_000


def spread(coordinates: np.ndarray) -> float:
    """RMS distance of targets, (n, k), from the mean training target: the unit in which networks are trained."""
    return float(np.sqrt(np.mean(np.sum(coordinates.astype(np.float64) ** 2, axis=1))))


def squared_error(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Squared distance of (n, k), mean over trials: the MSE of the target up to a factor and a constant."""
    return ((predicted - true) ** 2).sum(dim=1).mean()


def cosine_error(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """One minus the cosine of prediction and target, (n, k), around the mean training target; mean over trials."""
    # Around zero, sharing the mean target would count too. The part of a target outside the axes would only shorten its
    # cosine by a factor that no prediction changes, so it is left out.
    from torch.nn import functional

    return 1 - functional.cosine_similarity(predicted, true, dim=1).mean()


def contrastive_error(predicted: torch.Tensor, true: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy of finding the true target among the batch's, both ways: InfoNCE [vandenOord2018]."""
    # Targets count by direction, predictions with their length, so that a short one can express doubt. At the minimum,
    # exp(predicted @ direction / temperature) ∝ p(target | EEG) / p(target), which `models.mlp.TargetPosterior` needs.
    import torch
    from torch.nn import functional

    unit = functional.normalize(true, dim=1)
    logits = predicted @ unit.T / temperature
    # Trials of the same target, as of a picture shown twice, count as right for one another.
    right = ((unit @ unit.T > 1 - 1e-5) | torch.eye(len(true), dtype=torch.bool)).to(logits.dtype)
    right = right / right.sum(dim=1, keepdim=True)
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


def mse_per_element(predicted: np.ndarray, true: np.ndarray, squared_distance: np.ndarray, basis: TargetBasis) -> float:
    """Mean squared error over trials and all numbers of the target, from coordinates (n, k) alone; token-weighted."""
    inside = np.sum((predicted.astype(np.float64) - true) ** 2, axis=1)
    return float(np.mean(inside + squared_distance) / basis.mean.size)


def two_way_of_trials(
    predicted: np.ndarray, true: np.ndarray, squared_distance: np.ndarray, stimulus: np.ndarray
) -> np.ndarray:
    """Share of *other* stimuli less like each prediction than the true one: (n, k) -> (n,); chance .5, ties half."""
    # Cosine around the mean training target, in the whole target space: hence the distances of targets from the axes.
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
    """Mean of `two_way_of_trials`; NaN if all trials show one stimulus."""
    return float(np.mean(two_way_of_trials(predicted, true, squared_distance, stimulus)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to length one; zero rows stay zero."""
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(length > 0, length, 1.0)
