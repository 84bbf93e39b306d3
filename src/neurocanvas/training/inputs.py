"""What classifiers are trained on: trials, standardised as they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from neurocanvas.config import ClassifySettings
from neurocanvas.datasets.splits import Split
from neurocanvas.models.base import standardisation

MICROVOLTS_PER_VOLT = 1e6

# Trials that are read or evaluated at once.
AT_ONCE = 400


class Indexed(Protocol):
    """An array of trials, or what gives trials like one."""

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Inputs:
    """Trials, standardised when they are asked for: the whole signal is never copied."""

    x: np.ndarray
    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def make(cls, x: np.ndarray, split: Split, takes: str, settings: ClassifySettings) -> Inputs:
        """Fit the standardisation on training trials; the released recipe has none, and signal in volts."""
        rows = np.concatenate([split.pretrain, split.train])
        if settings.recipe == "released":
            unit = 1 if takes == "features" else MICROVOLTS_PER_VOLT
            return cls(x, np.zeros(1, np.float32), np.array([unit], np.float32))
        if takes == "features":
            mean, sd = standardisation(x[rows].reshape(len(rows), -1))
            return cls(x, mean.reshape(x.shape[1:]), sd.reshape(x.shape[1:]))
        sums = np.zeros((2, x.shape[1]))
        for part in np.array_split(rows, -(-len(rows) // AT_ONCE)):
            signal = x[part]
            sums += signal.sum(axis=(0, 2), dtype=np.float64), np.square(signal, dtype=np.float64).sum(axis=(0, 2))
        mean, square = sums / (len(rows) * x.shape[2])
        sd = np.sqrt(np.maximum(square - mean**2, 1e-12))
        return cls(x, mean.astype(np.float32)[:, None], sd.astype(np.float32)[:, None])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        standardised: np.ndarray = (self.x[rows] - self.mean) / self.sd
        return standardised
