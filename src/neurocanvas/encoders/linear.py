"""The two baselines: ridge regression, and the mean training target."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neurocanvas.encoders.base import Mapper
from neurocanvas.errors import NeuroCanvasError

# Penalties that are tried, in units of the mean squared singular value of the training features.
PENALTIES = np.logspace(-3, 4, 29)


class MeanMapper(Mapper):
    """Predicts the mean training target whatever the EEG: it knows the data set, not the trial."""

    def weights(self) -> dict[str, np.ndarray]:
        """Nothing: the mean is part of the basis."""
        return {}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        if weights:
            raise NeuroCanvasError(f"mean mapper: has no weights; got {', '.join(weights)}.")

    def _map(self, standardised: np.ndarray) -> np.ndarray:
        return np.zeros((len(standardised), len(self.basis.target_sd)), np.float32)


class RidgeMapper(Mapper):
    """Ridge regression without intercept: features and coordinates both have mean zero over training trials."""

    coefficients: np.ndarray
    penalty: float

    def fit(self, train: np.ndarray, coordinates: np.ndarray, val: np.ndarray, val_coordinates: np.ndarray) -> None:
        """Solve for all `PENALTIES` by one SVD, (n, n_features) -> (n, k); keep the best on validation trials."""
        left, singular, right = np.linalg.svd(train.astype(np.float64), full_matrices=False)
        rotated, val_rotated = left.T @ coordinates, val @ right.T
        lowest = np.inf
        for penalty in PENALTIES * np.mean(singular**2):
            gain = singular / (singular**2 + penalty)
            error = np.mean(np.sum(((val_rotated * gain) @ rotated - val_coordinates) ** 2, axis=1))
            if error < lowest:
                lowest, self.penalty = error, float(penalty)
                self.coefficients = ((right.T * gain) @ rotated).astype(np.float32)

    def weights(self) -> dict[str, np.ndarray]:
        """Coefficients, (n_features, k), and the chosen penalty, (1,)."""
        return {"coefficients": self.coefficients, "penalty": np.array([self.penalty])}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        needed = (self.spec.n_features, len(self.basis.target_sd))
        if set(weights) != {"coefficients", "penalty"} or weights["coefficients"].shape != needed:
            shapes = {name: array.shape for name, array in weights.items()}
            raise NeuroCanvasError(
                f"ridge mapper: coefficients of shape {needed} and a penalty are needed; got {shapes}."
            )
        self.coefficients, self.penalty = weights["coefficients"], float(weights["penalty"][0])

    def _map(self, standardised: np.ndarray) -> np.ndarray:
        return standardised @ self.coefficients
