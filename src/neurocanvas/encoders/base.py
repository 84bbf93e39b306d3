"""The mapper interface: what goes in, what comes out, and what every mapper shares."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neurocanvas.encoders.target_pca import TargetBasis
from neurocanvas.errors import NeuroCanvasError

# Tokens by width, the output of the CLIP text encoder of Stable Diffusion 1.
TARGET_SHAPE = (77, 768)


@dataclass(frozen=True)
class EEGSpec:
    """What goes into a mapper and what comes out.

    Parameters
    ----------
    ch_names : tuple of str
        Channel names, in the order of the features.
    bands : tuple of str
        Band names, in the order of the features.
    target_shape : tuple of int
        Shape of one target.

    Examples
    --------
    >>> EEGSpec(("O1", "O2"), ("alpha", "beta", "gamma")).n_features
    6
    """

    ch_names: tuple[str, ...]
    bands: tuple[str, ...]
    target_shape: tuple[int, ...] = TARGET_SHAPE

    @property
    def n_features(self) -> int:
        """Features per trial: channels times bands, channel-major when flattened."""
        return len(self.ch_names) * len(self.bands)

    @property
    def n_outputs(self) -> int:
        return math.prod(self.target_shape)

    def check(self, features: np.ndarray) -> np.ndarray:
        """Return features as (n, n_features), channel-major, or say what is wrong with them.

        Parameters
        ----------
        features : array, shape (n, n_chans, n_bands)

        Returns
        -------
        array, shape (n, n_features)

        Raises
        ------
        NeuroCanvasError
            If the shape is another or a value is not finite.
        """
        allowed = (len(self.ch_names), len(self.bands))
        if features.ndim != 3 or features.shape[1:] != allowed:
            raise NeuroCanvasError(
                f"features: shape (n, {allowed[0]} channels, {allowed[1]} bands) is needed; got "
                f"{features.shape}; use the features that this mapper was trained on."
            )
        bad = np.argwhere(~np.isfinite(features))
        if len(bad):
            trial, chan, band = bad[0]
            raise NeuroCanvasError(
                f"features: NaN or infinite at trial {trial}, channel {self.ch_names[chan]}, "
                f"band {self.bands[band]}; drop that trial or channel and make the features again."
            )
        return features.reshape(len(features), -1)


def standardisation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of (n, n_features), to be fitted on training trials; constant features get sd 1."""
    values = features.astype(np.float64)
    mean, sd = values.mean(axis=0), values.std(axis=0)
    constant = sd <= 1e-6 * np.maximum(1e-6, np.abs(mean))
    return mean.astype(np.float32), np.where(constant, 1.0, sd).astype(np.float32)


class Mapper(ABC):
    """EEG features to targets. Standardisation, basis and weights travel together.

    Parameters
    ----------
    spec : EEGSpec
        Channels, bands and target shape.
    basis : TargetBasis
        Principal coordinates of the training targets.
    feature_mean, feature_sd : array, shape (n_features,)
        Standardisation, fitted on training trials.
    prediction_sd : array, shape (k,), optional
        Standard deviation of the predicted coordinates over *validation* trials: beside `basis.target_sd`
        it says how far predictions are shrunk. Zeros until it is known.
    """

    def __init__(
        self,
        spec: EEGSpec,
        basis: TargetBasis,
        feature_mean: np.ndarray,
        feature_sd: np.ndarray,
        prediction_sd: np.ndarray | None = None,
    ) -> None:
        self.spec = spec
        self.basis = basis
        self.feature_mean = feature_mean
        self.feature_sd = feature_sd
        self.prediction_sd = np.zeros(len(basis.target_sd), np.float32) if prediction_sd is None else prediction_sd

    def standardise(self, features: np.ndarray) -> np.ndarray:
        """Check, flatten and standardise features.

        Parameters
        ----------
        features : array, shape (n, n_chans, n_bands)

        Returns
        -------
        array, shape (n, n_features), float32

        Raises
        ------
        NeuroCanvasError
            If the shape is another or a value is not finite.
        """
        return ((self.spec.check(features) - self.feature_mean) / self.feature_sd).astype(np.float32)

    def coordinates(self, features: np.ndarray) -> np.ndarray:
        """Predict in principal coordinates.

        Parameters
        ----------
        features : array, shape (n, n_chans, n_bands)

        Returns
        -------
        array, shape (n, k), float32
        """
        return self._map(self.standardise(features)).astype(np.float32)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Predict targets.

        Parameters
        ----------
        features : array, shape (n, n_chans, n_bands)

        Returns
        -------
        array, shape (n, 77, 768), float32
        """
        return self.basis.inverse(self.coordinates(features))

    @abstractmethod
    def weights(self) -> dict[str, np.ndarray]:
        """Return what was learned, by name; together with the parameters above it is the whole mapper.

        Returns
        -------
        dict of str to array
        """

    @abstractmethod
    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take weights as `weights` gave them.

        Parameters
        ----------
        weights : mapping of str to array

        Raises
        ------
        NeuroCanvasError
            If one is missing or does not fit the spec and the basis.
        """

    @abstractmethod
    def _map(self, standardised: np.ndarray) -> np.ndarray:
        """Map (n, n_features) to (n, k)."""
