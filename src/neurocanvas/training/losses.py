"""What training minimises, and what a mapper is scored by; all in principal coordinates of the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neurocanvas.families import batches
from neurocanvas.models.basis import TargetBasis

if TYPE_CHECKING:
    import torch


AT_ONCE = 4_000_000
"""Pairs of a trial and a target that are compared at once: memory, not result."""


def spread(coordinates: np.ndarray) -> float:
    """Root mean squared distance of targets from the mean training target: the unit in which networks are trained.

    Parameters
    ----------
    coordinates : array, shape (n, k)
        Of the training trials' targets.

    Returns
    -------
    float
    """
    return float(np.sqrt(np.mean(np.sum(coordinates.astype(np.float64) ** 2, axis=1))))


def squared_error(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Squared distance in coordinates, mean over trials: the MSE of the target up to a factor and a constant.

    Parameters
    ----------
    predicted, true : tensor, shape (n, k)

    Returns
    -------
    tensor, scalar
    """
    return ((predicted - true) ** 2).sum(dim=1).mean()


def cosine_error(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """One minus the cosine between prediction and target, both around the mean training target; mean over trials.

    Around zero, what a prediction shares with the mean target would count too, whatever was seen. What of a target lies
    outside the axes would shorten its cosine by a factor that no prediction changes, so it is left out. The error does
    not know how long a prediction is.

    Parameters
    ----------
    predicted, true : tensor, shape (n, k)
        Coordinates, which have the mean training target at zero.

    Returns
    -------
    tensor, scalar
        From 0 to 2.
    """
    from torch.nn import functional

    return 1 - functional.cosine_similarity(predicted, true, dim=1).mean()


def contrastive_error(predicted: torch.Tensor, true: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy of finding the true target among the batch's, both ways: InfoNCE [vandenOord2018]_.

    Targets are compared by direction, predictions with their length, so that a short one can say that it is not sure.
    At the minimum, exp(predicted @ direction / temperature) is proportional to the probability of a target given the
    EEG over that of the target alone, which is what `models.mlp.TargetPosterior` needs.

    Parameters
    ----------
    predicted, true : tensor, shape (n, k)
        Trials of one target, as of a picture that was shown twice, all count as right for one another.
    temperature : float
        Divides the products.

    Returns
    -------
    tensor, scalar

    References
    ----------
    .. [vandenOord2018] van den Oord, Li, Vinyals. Representation learning with contrastive predictive coding.
       arXiv:1807.03748, 2018.
    """
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
    """Mean squared error over trials and over all numbers of the target, from coordinates alone.

    With weights of tokens, whose mean is 1, it is the weighted mean.

    Parameters
    ----------
    predicted, true : array, shape (n, k)
        Coordinates.
    squared_distance : array, shape (n,)
        `TargetBasis.squared_distance` of the targets.
    basis : TargetBasis
        Whose coordinates they are.

    Returns
    -------
    float
    """
    inside = np.sum((predicted.astype(np.float64) - true) ** 2, axis=1)
    return float(np.mean(inside + squared_distance) / basis.mean.size)


def two_way_of_trials(
    predicted: np.ndarray, true: np.ndarray, squared_distance: np.ndarray, stimulus: np.ndarray
) -> np.ndarray:
    """Two-way identification of every trial among targets, by the cosine of what differs from the mean training target.

    For every trial, the share of the *other* stimuli whose target is less similar to the prediction than
    the true one; ties, as between two stimuli of one caption, count one half. Chance is 0.5.

    Parameters
    ----------
    predicted, true : array, shape (n, k)
        Coordinates, which have the mean training target at zero.
    squared_distance : array, shape (n,)
        `TargetBasis.squared_distance` of the targets, which a cosine in the whole target space needs.
    stimulus : array, shape (n,)
        Which stimulus each trial showed; the gallery holds each one once.

    Returns
    -------
    array, shape (n,)
        NaN if all trials show one stimulus.
    """
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
    """Mean of `two_way_of_trials`, whose parameters it has.

    Parameters
    ----------
    predicted, true, squared_distance, stimulus : array
        See `two_way_of_trials`.

    Returns
    -------
    float
        NaN if all trials show one stimulus.
    """
    return float(np.mean(two_way_of_trials(predicted, true, squared_distance, stimulus)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to length one; zero rows stay zero."""
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(length > 0, length, 1.0)
