"""Trials: a table with one row per image presentation, and the signal on demand."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas.artifacts import fingerprint
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.findings import Finding

if TYPE_CHECKING:
    import pandas as pd

    from neurocanvas.data.images import Images

# Columns of `Trials.metadata` that the package knows. `order` counts a subject's trials as they were recorded, `block`
# numbers the contiguous stretches of one concept, `onset` is in s from the start of the run.
COLUMNS: Mapping[str, type] = {
    "subject": str,
    "session": str,
    "run": str,
    "block": np.int64,
    "order": np.int64,
    "onset": np.float64,
    "image": str,
    "concept": str,
    "granularity": str,
}

# Columns whose values name files and folders.
NAMING = ("subject", "session", "run")
# Characters in such a name, or in that of an image or concept: file systems allow 255 bytes.
LONGEST_NAME = 100


def natural_key(name: str) -> tuple[list[Any], str]:
    """Sort key for natural order."""
    return [int(text) if number % 2 else text for number, text in enumerate(re.split(r"([0-9]+)", name))], name


def unique_names(values: Iterable[Any]) -> list[str]:
    """Distinct names in natural order."""
    return sorted({str(value) for value in values}, key=natural_key)


def ranks(values: np.ndarray) -> np.ndarray:
    """Code of every value, from 0, in natural order."""
    import pandas as pd

    unique = unique_names(values) if values.dtype.kind in "US" else np.unique(values)
    return np.asarray(pd.Index(unique).get_indexer(pd.Index(values)), dtype=np.int64)


def seed_of(name: str) -> int:
    """The number that stands for a subject in a seed: its name if that is a number, else a hash."""
    return int(name) if re.fullmatch(r"0|[1-9][0-9]{0,8}", name) else int(fingerprint(name), 16)


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
    lowpass : float, optional
        Upper edge of the recorded frequencies, Hz, where it is below half the sampling rate.

    Examples
    --------
    >>> TrialSpec(("O1", "O2"), sfreq=250.0, tmin=-0.2, n_times=200).n_times
    200
    """

    ch_names: tuple[str, ...]
    sfreq: float
    tmin: float
    n_times: int
    bands: tuple[str, ...] = ()
    lowpass: float | None = None


class Rows(np.ndarray):
    """Row numbers with the names of the trials that they count in; what is computed from them has no names."""

    names: np.ndarray | None = None

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(part, Rows):
            part.names = self.names
        return part


@dataclass(frozen=True, eq=False, repr=False)
class Trials:
    """Trials of one or many subjects: `X` of scikit-learn, indexed by rows.

    Parameters
    ----------
    metadata : pandas.DataFrame
        One row per trial, indexed by the trial's name, as `make_metadata` makes it. Columns as in `COLUMNS`: subject,
        session and run are strings; a column that is not known is absent.
    spec : TrialSpec
        Channels, rate and window.
    read : callable
        `read(rows)` gives the signal of those rows, float32, shape (n, n_chans, n_times), in µV; row numbers refer
        to the full table of the reader.
    source : str
        Fingerprint of the files that the signal comes from.
    images : Images, optional
        The images that were shown.
    rows : array of int, optional
        Which rows of the reader's table these trials are; all of them by default.
    findings : tuple of Finding
        What every result of these trials must report, as how many events became no trial.

    Notes
    -----
    Opening reads the table. `trials[rows]` gives Trials that are still unread, `signal` reads.

    Examples
    --------
    >>> import neurocanvas as nc
    >>> trials = nc.from_arrays(np.ones((4, 2, 50)), ["cat", "dog", "cat", "dog"], ch_names=["O1", "O2"], sfreq=100)
    >>> trials[trials.y == "cat"].shape
    (2, 2, 50)
    """

    metadata: pd.DataFrame
    spec: TrialSpec
    read: Callable[[np.ndarray], np.ndarray]
    source: str
    images: Images | None = None
    rows: np.ndarray | None = None
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", np.arange(len(self)))

    def __len__(self) -> int:
        return len(self.metadata)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_trials, n_chans, n_times)."""
        return len(self), len(self.spec.ch_names), self.spec.n_times

    @property
    def names(self) -> np.ndarray:
        """Trial names; selecting trials does not change them."""
        return np.array(self.metadata.index, dtype=str)

    @property
    def y(self) -> np.ndarray:
        """Concept of every trial."""
        return self.column("concept")

    def column(self, name: str) -> np.ndarray:
        """Return one column of the metadata, shape (n_trials,)."""
        if name not in self.metadata:
            raise NeuroCanvasError(
                f"trials: the column {name} is needed; they have {', '.join(self.metadata)}. Add it to the metadata, "
                "or do without it."
            )
        values = self.metadata[name].to_numpy()
        return values if values.dtype.kind in "biuf" else np.array(values, dtype=str)

    def __getitem__(self, rows: Any) -> Trials:
        """Select trials by an integer, a slice, a mask or integers; `trials[rows, ...]` is the same."""
        if isinstance(rows, tuple):
            rows, *others = rows
            if any(other is not Ellipsis for other in others):
                raise NeuroCanvasError("trials can be indexed by rows only; slice trials.signal() instead.")
        if isinstance(rows, Rows) and rows.names is not None and not np.array_equal(rows.names, self.names):
            made_for = f"split made for {rows.names[0]} to {rows.names[-1]}"
            raise NeuroCanvasError(f"trials: these rows belong to other trials ({made_for}); index those.")
        chosen = np.atleast_1d(np.arange(len(self))[rows])
        return replace(self, metadata=self.metadata.iloc[chosen], rows=np.asarray(self.rows)[chosen])

    def signal(self, rows: Any = slice(None)) -> np.ndarray:
        """Read the signal of some trials: float32, shape (n, n_chans, n_times), µV."""
        return self.read(np.asarray(self[rows].rows))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.signal().astype(np.float32 if dtype is None else dtype, copy=False)  # read anew every time

    def fingerprint(self) -> str:
        """Hash the metadata, the channels, the timing and the source files into 16 hex digits."""
        columns = {name: self.column(name).tolist() for name in self.metadata.columns}
        return fingerprint(columns, astuple(self.spec), self.source, np.asarray(self.rows))

    def _facts(self) -> dict[str, str]:
        spec, subjects = self.spec, unique_names(self.metadata.get("subject", ()))
        columns = self.metadata.columns.intersection(["concept", "image"])
        return {
            "subjects": ", ".join(subjects[:8]) + (f", … ({len(subjects)})" if len(subjects) > 8 else ""),
            "trials": f"{len(self):,}",
            **{f"{name}s": f"{self.metadata[name].nunique():,}" for name in columns},
            "channels": f"{len(spec.ch_names)}",
            "rate": f"{spec.sfreq:g} Hz",
            "window": f"{spec.tmin:g} to {spec.tmin + spec.n_times / spec.sfreq:g} s",
        }

    def __repr__(self) -> str:
        return f"<Trials | {', '.join(f'{name} {value}' for name, value in self._facts().items())}>"

    def _repr_html_(self) -> str:
        return html_table(self._facts())


def html_table(facts: Mapping[str, str]) -> str:
    """A small table for notebooks."""
    rows = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in facts.items())
    return f"<table>{''.join(rows)}</table>"


def is_name(text: str) -> bool:
    """Whether a text can be the name of a file, and is no path."""
    return text.isprintable() and not set("/\\") & set(text) and bool(text.strip(".")) and len(text) <= LONGEST_NAME


def make_metadata(columns: Mapping[str, Any] | pd.DataFrame, names: Iterable[str] | None = None) -> pd.DataFrame:
    """Check a table of trials, and add the derived columns: subject "0", `order` of the rows, `block`; and names."""
    import pandas as pd

    columns, table = dict(columns), pd.DataFrame()
    n = len(next(iter(columns.values())))
    for name, values in columns.items():
        if np.shape(values) != (n,):
            raise NeuroCanvasError(
                f"metadata: every column needs one value per trial, {n}; {name} has the shape {np.shape(values)}."
            )
        kind, series = COLUMNS.get(name), pd.Series(list(values), dtype=None if n else object)
        numeric, empty = series.dtype.kind in "biuf", series.isna()
        if empty.any() and (kind or not numeric):
            raise NeuroCanvasError(f"metadata: column {name} has no value in row {int(empty.argmax())}; give it one.")
        if kind is None:
            table[name] = np.asarray(values)
        elif kind is str:  # numbers that name something become their text
            whole = series.dtype.kind == "f" and (series == series.round()).all()
            table[name] = np.array([str(value) for value in (series.astype(np.int64) if whole else series)], dtype=str)
        else:
            numbers = series if numeric else pd.to_numeric(series.astype(str), errors="coerce")
            if not np.isfinite(numbers).all() or (numbers.astype(kind) != numbers).any():
                form, first = "seconds" if kind is np.float64 else "whole numbers", np.asarray(values)[:3].tolist()
                raise NeuroCanvasError(f"metadata: column {name} must hold {form}; got {first}; convert it.")
            table[name] = numbers.astype(kind)
    if "subject" not in table:
        table["subject"] = "0"
    for name in set(NAMING) & set(table):
        for value in table[name].unique():
            if not is_name(value) or not re.match(r"\w", value) or set(value) & set(", "):
                raise NeuroCanvasError(
                    f"metadata: {name} {value!r}: used in file names: at most {LONGEST_NAME} letters, digits, _ . + -, "
                    "starting with a letter or digit."
                )
    if "order" not in table:
        table["order"] = table.groupby("subject").cumcount()
    if "block" not in table and "concept" in table:
        # a new block begins where a subject's concept, session or run changes, as recorded
        recorded = table.sort_values(["subject", "order"], kind="stable")
        shown = recorded[[name for name in (*NAMING, "concept") if name in table]]
        table["block"] = (shown != shown.shift()).any(axis=1).groupby(recorded["subject"]).cumsum() - 1
    if names is None:
        session = table["session"] if "session" in table else ["0"] * n
        names = [f"{who}/{day}/{order:04d}" for who, day, order in zip(table["subject"], session, table["order"])]
    index = pd.Index(list(map(str, names)), dtype=object, name="trial")
    if not index.is_unique:
        raise NeuroCanvasError(
            f"metadata: every trial needs a name of its own (subject/session/order, or the index); got "
            f"{index[index.duplicated()][0]!r} twice."
        )
    return table[sorted(table, key=lambda name: [*COLUMNS, name].index(name))].set_index(index)


def without_signal(columns: Mapping[str, Any], names: Iterable[str] | None = None) -> Trials:
    """Trials without signal, of which only the table is known; names default to row numbers."""
    metadata = make_metadata(columns, names or map(str, range(len(next(iter(columns.values()))))))
    spec = TrialSpec((), 1.0, 0.0, 0)
    return Trials(metadata, spec, lambda rows: np.empty((len(rows), 0, 0), np.float32), "table")
