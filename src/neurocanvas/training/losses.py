"""Training losses with their selection of epochs, and scores in principal coordinates (zero is the mean target)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neurocanvas.encoders.target_pca import TargetPCA
from neurocanvas.targets.pretrained import batches

# Pairs of trial and target per batch; sets memory, not results.
AT_ONCE = 4_000_000


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
    # exp(predicted @ direction / temperature) ∝ p(target | EEG) / p(target), which `posterior_mean` needs.
    unit = functional.normalize(true, dim=1)
    logits = predicted @ unit.T / temperature
    # Trials of the same target, as of an image shown twice, count as correct for one another.
    same = ((unit @ unit.T > 1 - 1e-5) | torch.eye(len(true), dtype=torch.bool, device=true.device)).to(logits.dtype)
    probability = same / same.sum(dim=1, keepdim=True)
    return (functional.cross_entropy(logits, probability) + functional.cross_entropy(logits.T, probability)) / 2


@dataclass(frozen=True)
class ConceptLoss:
    """Cross-entropy; the epoch with the lowest validation loss is selected."""

    def loss(self, output: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The objective, and the loss that the history shows."""
        loss = functional.cross_entropy(output, codes)
        return loss, loss

    def validate(self, output: Tensor, codes: Tensor) -> tuple[dict[str, float], list[tuple[float, ...]]]:
        """Scores; and the quality that selects the epoch, then another that must stall too before patience runs out."""
        loss = functional.cross_entropy(output, codes).item()
        accuracy = float(np.mean((output.argmax(dim=1) == codes).cpu().numpy()))
        return {"val_loss": loss, "val_accuracy": accuracy}, [(-loss,), (accuracy, -loss)]


@dataclass(frozen=True)
class EmbeddingLoss:
    """Weighted sum of squared, cosine and contrastive error of (n, k) with targets of RMS length one."""

    mse: float = 1.0
    cosine: float = 0.0
    contrastive: float = 10.0
    temperature: float = 0.1
    batch_size: int = 80
    seed: int = 0

    def loss(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """The objective, and the loss that the history shows."""
        error = squared_error(predicted, true)
        loss = self.mse * error
        if self.cosine:
            loss = loss + self.cosine * cosine_error(predicted, true)
        if self.contrastive:
            loss = loss + self.contrastive * contrastive_error(predicted, true, self.temperature)
        return loss, error

    def validate(self, predicted: Tensor, true: Tensor) -> tuple[dict[str, float], list[tuple[float, ...]]]:
        """Squared error, and the objective in shuffled batches, as in training, which selects the epoch."""
        # The contrastive error depends on the batch: same size as in training, and the same batches in every epoch.
        shuffled = torch.randperm(len(true), generator=torch.Generator().manual_seed(self.seed)).to(true.device)
        parts = shuffled.tensor_split(-(-len(true) // self.batch_size))
        objective = sum(self.loss(predicted[rows], true[rows])[0].item() * len(rows) for rows in parts) / len(true)
        return {"val_loss": squared_error(predicted, true).item(), "val_objective": objective}, [(-objective,)]


def mse_per_element(predicted: np.ndarray, true: np.ndarray, squared_distance: np.ndarray, basis: TargetPCA) -> float:
    """Mean squared error over trials and all numbers of the target, from coordinates (n, k) alone; token-weighted."""
    inside = np.sum((predicted.astype(np.float64) - true) ** 2, axis=1)
    return float(np.mean(inside + squared_distance) / basis.mean.size)


def two_way_of_trials(
    predicted: np.ndarray, true: np.ndarray, squared_distance: np.ndarray, stimulus: np.ndarray
) -> np.ndarray:
    """Share of *other* stimuli less like each prediction than the true one: (n, k) -> (n,); chance .5, ties half."""
    from sklearn.preprocessing import normalize

    # Cosine around the mean training target, in the whole target space: hence the distances of targets from the axes.
    gallery, first, index = np.unique(stimulus, return_index=True, return_inverse=True)
    if len(gallery) < 2:  # there is no other
        return np.full(len(predicted), np.nan)
    length = np.sqrt(np.sum(true[first].astype(np.float64) ** 2, axis=1) + squared_distance[first])
    directions = (true[first] / np.maximum(length, np.finfo(np.float64).tiny)[:, None]).T
    shares = np.empty(len(predicted))
    for rows in batches(len(predicted), max(1, AT_ONCE // len(gallery))):
        similarity = normalize(predicted[rows].astype(np.float64)) @ directions
        difference = np.take_along_axis(similarity, index.reshape(-1, 1)[rows], axis=1) - similarity
        wins = np.where(np.abs(difference) < 1e-6, 0.5, difference > 0)
        shares[rows] = (wins.sum(axis=1) - 0.5) / (len(gallery) - 1)
    return shares
