"""One continuous recording file: its header, its events, and its signal on demand."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError

# µV per volt: MNE returns volts.
MICROVOLTS = 1e6

# Longest time between two rows of a CSV file, s. Stamps of 12 samples sent at once jitter by .034 s.
LONGEST_STEP = 0.05

# Hz; a higher rate means that the time stamps are wrong.
HIGHEST_RATE = 1e6

# MNE's warnings about a file that ends too early.
TRUNCATED = r".*(does not match the file size|outside data range)"


@dataclass(frozen=True)
class Run:
    """One recording file, opened but not read."""

    path: Path
    ch_names: tuple[str, ...]
    sfreq: float
    n_samples: int
    events: np.ndarray  # (n_events,): samples at which the first source of events has a value
    values: Mapping[str, list[str]]  # source -> its value at every event
    read: Callable[[], np.ndarray]  # -> (n_chans, n_samples), µV
    files: tuple[Path, ...]  # all that the recording lies in, as headers and signal may be apart


def open_run(path: Path, sources: Collection[str]) -> Run:
    """Open a recording: Muse CSV if `.csv`, else MNE; the first source says when events are, all of them what."""
    return (
        _open_muse(path, list(sources)) if path.suffix.lower() == ".csv" else _open_mne(path, list(sources))
    )


def _open_muse(path: Path, sources: list[str]) -> Run:
    """Open a Muse CSV: `timestamps`, a column per channel in µV, and `Marker*`, 0 between events."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        header = [name.strip() for name in stream.readline().split(",")]
    if header[0] != "timestamps":
        raise NeuroCanvasError(
            f"{path}: not a Muse CSV file: the first column must be 'timestamps'; it is {header[0][:40]!r}. "
            f"Match the recordings alone with data.recording.files."
        )
    rows = _rows(path, len(header))
    channels = [column for column, name in enumerate(header) if column and not name.startswith("Marker")]
    markers = {name: column for column, name in enumerate(header) if name.startswith("Marker")}
    _check_sources(path, sources, markers)
    marker = rows[:, markers[sources[0]]]
    events = np.flatnonzero((marker != 0) & (np.diff(marker, prepend=0) != 0))
    return Run(
        path=path,
        ch_names=tuple(header[column] for column in channels),
        sfreq=_rate(path, rows[:, 0]),
        n_samples=len(rows),
        events=events,
        values={name: [f"{value:g}" for value in rows[events, markers[name]]] for name in sources},
        read=lambda: _rows(path, len(header))[:, channels].T,
        files=(path,),
    )


def _rows(path: Path, n_columns: int) -> np.ndarray:
    """Parse the numbers of a CSV file, (n_samples, n_columns)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file only warns; its shape is checked below
            rows = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2, encoding="utf-8")
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise NeuroCanvasError(f"{path}: damaged or truncated ({reason}); get the file again.") from error
    if rows.shape[1] != n_columns or len(rows) < 2:
        raise NeuroCanvasError(
            f"{path}: damaged or truncated: {n_columns} columns and at least 2 rows are needed; got "
            f"{rows.shape[1]} and {len(rows)}. Get the file again."
        )
    return rows


def _rate(path: Path, times: np.ndarray) -> float:
    """Sampling rate in Hz from jittering time stamps; raise where samples are missing."""
    steps = np.diff(times)
    if not times[-1] > times[0]:
        raise NeuroCanvasError(
            f"{path}: the time stamps must increase, in s; they go from {times[0]} to {times[-1]}. Get the file again."
        )
    rate = float((len(times) - 1) / (times[-1] - times[0]))
    drift = times - times[0] - np.arange(len(times)) / rate
    worst = max(np.abs(steps).max(), np.abs(drift).max())
    # a step of at most 50 ms means 20 Hz or more, so that round(rate) is never 0
    if not (worst <= LONGEST_STEP and rate <= HIGHEST_RATE) or abs(rate / round(rate) - 1) > 0.005:
        at = int(np.argmax(np.where(np.isfinite(steps), np.abs(steps), np.inf)))
        raise NeuroCanvasError(
            f"{path}: the time stamps must be evenly spaced, give or take {LONGEST_STEP} s; they give "
            f"{rate:.3f} Hz and a step of {steps[at]:.3f} s after row {at + 1}. Samples are missing: cut the "
            f"file there."
        )
    return float(round(rate))


def _open_mne(path: Path, sources: list[str]) -> Run:
    """Open what MNE reads; the signal stays on disk."""
    import mne

    raw = _read_raw(path)
    with _readable(path):
        sfreq = float(raw.info["sfreq"])
        picks = mne.pick_types(raw.info, eeg=True, exclude=[])
        stims = [raw.ch_names[index] for index in mne.pick_types(raw.info, meg=False, stim=True)]
    if not len(picks):
        raise NeuroCanvasError(f"{path}: no EEG channel; the channels are {', '.join(raw.ch_names[:8])}.")
    if not 0 < sfreq <= HIGHEST_RATE:
        raise NeuroCanvasError(f"{path}: a sampling rate up to {HIGHEST_RATE:g} Hz is needed; got {sfreq}.")
    _check_sources(path, sources, [*stims, "annotations"])
    with _readable(path):
        events, values = _mne_events(raw, sources)
    return Run(
        path=path,
        ch_names=tuple(raw.ch_names[index] for index in picks),
        sfreq=sfreq,
        n_samples=int(raw.n_times),
        events=events,
        values=values,
        read=partial(_read_signal, path, picks),
        files=tuple(dict.fromkeys((path, *(Path(part) for part in raw.filenames if part is not None)))),
    )


def _mne_events(raw: Any, sources: list[str]) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Event samples by the first source, and the value of every source at each of them."""
    import mne

    if sources[0] == "annotations":
        found, numbers = mne.events_from_annotations(raw, verbose="error")
        words = {number: word for word, number in numbers.items()}
        values = {"annotations": [words[number] for number in found[:, 2]]}
    else:
        found = mne.find_events(raw, sources[0], shortest_event=1, initial_event=True, verbose="error")
        values = {sources[0]: [str(number) for number in found[:, 2]]}
    events = found[:, 0] - raw.first_samp
    for name in sources[1:]:
        if name == "annotations":
            raise NeuroCanvasError("data.recording.events: 'annotations' can only be the first source.")
        values[name] = [f"{value:g}" for value in raw.get_data(picks=[name])[0, events]]
    return events, values


def _read_raw(path: Path) -> Any:
    """Open a file with MNE; its warnings about truncated files become errors."""
    import mne

    with warnings.catch_warnings(), _readable(path):
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=TRUNCATED)
        if path.suffix.lower() == ".fif":
            _check_tags(path)
        return mne.io.read_raw(path, preload=False, verbose="warning")


def _check_tags(path: Path) -> None:
    """Raise if a tag of a FIF file points back, because MNE would loop forever."""
    with path.open("rb") as stream:
        place = 0
        while len(head := stream.read(16)) == 16:
            size, following = struct.unpack(">Ii", head[8:])
            after = following or place + 16 + size
            if following < 0:
                return
            if after <= place:
                raise ValueError(f"the tag at byte {place} points back to {after}")
            place = stream.seek(after)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever MNE's readers raise into one line."""
    try:
        yield
    except NeuroCanvasError:
        raise
    except Exception as error:  # every format raises its own kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NeuroCanvasError(f"{path}: MNE cannot read it ({reason}); get the file again.") from error


def _read_signal(path: Path, picks: np.ndarray) -> np.ndarray:
    """Read all samples of some channels, (n_chans, n_samples), µV."""
    raw = _read_raw(path)
    with _readable(path):
        return np.asarray(raw.get_data(picks=picks)) * MICROVOLTS


def _check_sources(path: Path, sources: list[str], there: Collection[str]) -> None:
    for name in sources:
        if name not in there:
            raise NeuroCanvasError(
                f"{path}: data.recording.events names {name!r}; the file has {', '.join(there) or 'none'}."
            )
