"""Trials: a table with one row per stimulus shown once to one subject, and the signal on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurocanvas.artifacts import fingerprint
from neurocanvas.errors import NeuroCanvasError

# The columns of every trial table; see GLOSSARY.md for the words. `order` counts a subject's trials as they were
# recorded; `block` numbers the contiguous stretches of one concept.
COLUMNS: Mapping[str, type] = {
    "subject": np.int64,
    "session": np.int64,
    "run": np.int64,
    "block": np.int64,
    "order": np.int64,
    "stimulus": np.str_,
    "concept": np.str_,
    "granularity": np.str_,
}


@dataclass(frozen=True)
class TrialSpec:
    """What an encoder must know about trials.

    Parameters
    ----------
    ch_names : tuple of str
        Channel names, in the order of the signal.
    sfreq : float
        Sampling rate, Hz.
    tmin : float
        Time of the first sample relative to image onset, s.
    n_times : int
        Samples per trial.
    bands : tuple of str
        Names of the frequency bands, for encoders of features; else empty.
    """

    ch_names: tuple[str, ...]
    sfreq: float
    tmin: float
    n_times: int
    bands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trials:
    """Trials of one or many subjects.

    Parameters
    ----------
    table : dict of str to array, shape (n_trials,)
        The columns of `COLUMNS`.
    ch_names : tuple of str
        Channel names, in the order of the signal.
    sfreq : float
        Sampling frequency, Hz.
    tmin : float
        Time of the first sample relative to picture onset, s.
    read : callable
        `read(indices)` gives the signal of those rows, float32, shape (n, n_chans, n_times), in µV; indices
        count in the table the reader was made for.
    source : str
        Fingerprint of the files the signal comes from.
    rows : array of int, optional
        Which rows of the reader's table these trials are; all of them by default.

    Notes
    -----
    Opening reads the table, indexing reads signal: `signal` touches only the rows that are asked for.
    """

    table: Mapping[str, np.ndarray]
    ch_names: tuple[str, ...]
    sfreq: float
    tmin: float
    read: Callable[[np.ndarray], np.ndarray]
    source: str
    rows: np.ndarray | None = None

    def __post_init__(self) -> None:
        missing = [name for name in COLUMNS if name not in self.table]
        if missing:
            raise NeuroCanvasError(f"trial table: the columns {', '.join(COLUMNS)} are needed; {missing} is missing.")
        lengths = {name: len(column) for name, column in self.table.items()}
        if len(set(lengths.values())) > 1:
            raise NeuroCanvasError(f"trial table: every column needs one value per trial; got lengths {lengths}.")
        if self.rows is None:
            object.__setattr__(self, "rows", np.arange(len(self)))

    def __len__(self) -> int:
        return len(self.table["subject"])

    def column(self, name: str) -> np.ndarray:
        """Return one column of the table.

        Parameters
        ----------
        name : str
            A name in `COLUMNS`.

        Returns
        -------
        array, shape (n_trials,)
        """
        return np.asarray(self.table[name])

    def signal(self, indices: Any = slice(None)) -> np.ndarray:
        """Read the signal of some trials.

        Parameters
        ----------
        indices : slice, array of int or array of bool
            Which trials of this table; all by default.

        Returns
        -------
        array, shape (n, n_chans, n_times), float32, µV
        """
        rows = np.asarray(self.rows)[indices]
        return self.read(np.atleast_1d(rows))

    def select(self, indices: Any) -> Trials:
        """Return some of the trials, still unread.

        Parameters
        ----------
        indices : slice, array of int or array of bool
            Which trials.

        Returns
        -------
        Trials
        """
        table = {name: np.asarray(column)[indices] for name, column in self.table.items()}
        rows = np.asarray(self.rows)[indices]
        return Trials(table, self.ch_names, self.sfreq, self.tmin, self.read, self.source, rows)

    def fingerprint(self) -> str:
        """Hash the table, the channels, the timing and the source files.

        Returns
        -------
        str
            16 hex digits.
        """
        columns = {name: np.asarray(self.table[name]).tolist() for name in COLUMNS}
        return fingerprint(columns, self.ch_names, self.sfreq, self.tmin, self.source, np.asarray(self.rows))
