"""Training losses with their selection of epochs, and scores in principal coordinates (zero is the mean target)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neurocanvas.encoders.target_pca import TargetPCA
from neurocanvas.targets.pretrained import batches

# Pairs of trial and target per batch; sets memory, not results.
AT_ONCE = 4_000_000


def spread(coordinates: np.ndarray) -> float:
    """RMS distance of targets, (n, k), from the mean training target: the unit in which networks are trained."""
    return float(np.sqrt(np.mean(np.sum(coordinates.astype(np.float64) ** 2, axis=1))))


def squared_error(predicted: Tensor, true: Tensor) -> Tensor:
    """Squared distance of (n, k), mean over trials: the MSE of the target up to a factor and a constant."""
    return ((predicted - true) ** 2).sum(dim=1).mean()


def cosine_error(predicted: Tensor, true: Tensor) -> Tensor:
    """One minus the cosine of prediction and target, (n, k), around the mean training target; mean over trials."""
    # Around zero, sharing the mean target would count too. The part of a target outside the axes would only shorten its
    # cosine by a factor that no prediction changes, so it is left out.
    return 1 - functional.cosine_similarity(predicted, true, dim=1).mean()


def contrastive_error(predicted: Tensor, true: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding the true target among the batch's, both ways: InfoNCE [vandenOord2018]."""
    # Targets count by direction, predictions with their length, so that a short one can express doubt. At the minimum,
    # exp(predicted @ direction / temperature) ∝ p(target | EEG) / p(target), which `TargetPosterior` needs.
    unit = functional.normalize(true, dim=1)
    logits = predicted @ unit.T / temperature
    # Trials of the same target, as of a picture shown twice, count as correct for one another.
    right = ((unit @ unit.T > 1 - 1e-5) | torch.eye(len(true), dtype=torch.bool, device=true.device)).to(logits.dtype)
    right = right / right.sum(dim=1, keepdim=True)
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


@dataclass(frozen=True)
class ConceptLoss:
    """Cross-entropy; the most accurate epoch is selected, among equals the one with the lowest loss."""

    def loss(self, output: Tensor, codes: Tensor) -> Tensor:
        return functional.cross_entropy(output, codes)

    shown = loss  # the training loss of the history

    def validate(self, output: Tensor, codes: Tensor) -> dict[str, float]:
        right = (output.argmax(dim=1) == codes).cpu().numpy()
        return {"val_loss": self.loss(output, codes).item(), "val_accuracy": float(np.mean(right))}

    def qualities(self, line: Mapping[str, Any]) -> list[tuple[float, ...]]:
        """The quality by which epochs are selected, then others that must stall too before patience runs out."""
        return [(line["val_accuracy"], -line["val_loss"]), (-line["val_loss"],)]


@dataclass(frozen=True)
class EmbeddingLoss:
    """Weighted sum of squared, cosine and contrastive error of (n, k) in units of `spread`; the lowest is selected."""

    mse: float = 1.0
    cosine: float = 0.0
    contrastive: float = 10.0
    temperature: float = 0.1
    batch_size: int = 80
    seed: int = 0

    def loss(self, predicted: Tensor, true: Tensor) -> Tensor:
        loss = self.mse * squared_error(predicted, true)
        if self.cosine:
            loss = loss + self.cosine * cosine_error(predicted, true)
        if self.contrastive:
            loss = loss + self.contrastive * contrastive_error(predicted, true, self.temperature)
        return loss

    def shown(self, predicted: Tensor, true: Tensor) -> Tensor:
        return squared_error(predicted, true)

    def validate(self, predicted: Tensor, true: Tensor) -> dict[str, float]:
        """Squared error, and the objective in shuffled batches, as in training."""
        # The contrastive error depends on the batch: same size as in training, and the same batches in every epoch.
        mixed = torch.randperm(len(true), generator=torch.Generator().manual_seed(self.seed)).to(true.device)
        parts = [
            self.loss(predicted[rows], true[rows]).item() * len(rows)
            for rows in mixed.tensor_split(-(-len(true) // self.batch_size))
        ]
        return {"val_loss": squared_error(predicted, true).item(), "val_objective": sum(parts) / len(true)}

    def qualities(self, line: Mapping[str, Any]) -> list[tuple[float, ...]]:
        return [(-line["val_objective"],)]


def mse_per_element(predicted: np.ndarray, true: np.ndarray, squared_distance: np.ndarray, basis: TargetPCA) -> float:
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
