"""Continuous recordings to Trials: Muse CSV files, and anything that MNE reads."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas.artifacts import fingerprint, sha256
from neurocanvas.config import DataSettings, RecordingSettings
from neurocanvas.data.images import Images
from neurocanvas.data.trials import Trials, TrialSpec, make_metadata, unique_names
from neurocanvas.errors import NeuroCanvasError, check_folder, check_option

if TYPE_CHECKING:
    import pandas as pd

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
    files: tuple[Path, ...]  # all files of the recording: headers and signal may be apart


def _open_muse(path: Path, sources: list[str]) -> Run:
    """Open a Muse CSV: `timestamps`, a column per channel in µV, and `Marker*`, 0 between events."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        header = [name.strip() for name in stream.readline().split(",")]
    if header[0] != "timestamps":
        raise NeuroCanvasError(
            f"{path}: not a Muse CSV file: the first column must be 'timestamps'; it is {header[0][:40]!r}. "
            f"Match only the recordings with data.recording.files."
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


# Standard deviation of EEG over a run, µV: outside this range the file's unit is not what it says.
PLAUSIBLE = (0.1, 1e4)

# Order of the Butterworth filters.
FILTER_ORDER = 2


def open_recordings(root: Path | str, settings: DataSettings) -> Trials:
    """Open a folder of continuous recordings as trials in µV: every file is one run; reads only headers and markers."""
    recording = settings.recording
    folder = check_folder(root, "continuous recordings (data.root)")
    try:
        paths = sorted(path for path in folder.glob(recording.files) if path.is_file())
    except (NotImplementedError, ValueError, IndexError) as error:
        raise NeuroCanvasError(
            f"data.recording.files: a pattern below {folder} is needed; got {recording.files!r} ({error})."
        ) from error
    if not paths:
        raise NeuroCanvasError(f"{folder}: no file matches data.recording.files = {recording.files!r}.")
    if not recording.events:
        raise NeuroCanvasError("data.recording.events: at least one source of onsets is needed; got none.")
    # the first source gives the onsets, all of them the values
    sources = list(recording.events)
    runs = [(_open_muse if path.suffix.lower() == ".csv" else _open_mne)(path, sources) for path in paths]
    prints = [fingerprint([sha256(path) for path in run.files]) for run in runs]
    _check_alike(runs)
    shown = [_shown(run, recording) for run in runs]
    image = [name for _, names in shown for name in names]
    if not image:
        raise NeuroCanvasError(f"{folder}: no image onset in {len(runs)} files; see data.recording.events.")
    starts = [_starts(run, events, recording) for run, (events, _) in zip(runs, shown, strict=True)]
    number = np.repeat(np.arange(len(runs)), [len(run_starts) for run_starts in starts])
    images = Images.from_gratings() if recording.pictures == "gratings" else Images.from_folder(recording.pictures)
    sfreq, tmin = runs[0].sfreq, round(recording.tmin * runs[0].sfreq) / runs[0].sfreq
    onset = np.concatenate([events for events, _ in shown]) / sfreq
    spec = TrialSpec(_kept(runs[0], recording)[1], sfreq, tmin, _n_times(sfreq, recording))
    trials = Trials(
        _metadata([_place(folder, run.path) for run in runs], number, onset, image, images),
        spec,
        _reader(runs, recording, number, np.concatenate(starts)),
        fingerprint(prints, recording),
        images,
    )
    present = unique_names(trials.column("subject"))
    for one in settings.subjects:
        check_option("subject", one, present)
    return trials[np.isin(trials.column("subject"), settings.subjects or present)]


def _check_alike(runs: list[Run]) -> None:
    """Raise if the runs differ in sampling rate or channels."""
    first = runs[0]
    for run in runs[1:]:
        compared = ("sampling rate", first.sfreq, run.sfreq), ("channels", first.ch_names, run.ch_names)
        for name, wanted, came in compared:
            if wanted != came:
                raise NeuroCanvasError(
                    f"{run.path}: all runs need the same {name}; {first.path.name} has {wanted}, "
                    f"this one {came}. Leave files out with data.recording.files."
                )


def _shown(run: Run, recording: RecordingSettings) -> tuple[np.ndarray, list[str]]:
    """Onset samples and stimulus names of the images; events mapped to '' are left out."""
    samples, names = [], []
    for index, sample in enumerate(run.events):
        parts = {}
        for source, words in recording.events.items():
            value = run.values[source][index]
            if value not in words:
                raise NeuroCanvasError(
                    f"{run.path}: {source} is {value!r} at {sample / run.sfreq:.3f} s; data.recording.events "
                    f"allows {', '.join(words)}. Add it, with '' if it is not the onset of an image."
                )
            parts[source] = words[value]
            if not words[value]:
                break
        else:
            samples.append(sample)
            names.append(_name(recording.stimulus, parts))
    return np.array(samples, dtype=np.int64), names


def _name(template: str, parts: dict[str, str]) -> str:
    try:
        return template.format_map(parts)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise NeuroCanvasError(
            f"data.recording.stimulus: allowed in braces are {', '.join(parts)}; got {template!r} ({error})."
        ) from error


def _n_times(sfreq: float, recording: RecordingSettings) -> int:
    return round(recording.tmax * sfreq) - round(recording.tmin * sfreq)


def _starts(run: Run, events: np.ndarray, recording: RecordingSettings) -> np.ndarray:
    """First sample of every trial; raise if a trial leaves the recording."""
    starts, n_times = events + round(recording.tmin * run.sfreq), _n_times(run.sfreq, recording)
    if n_times < 1:
        raise NeuroCanvasError(
            f"{run.path}: no sample, at {run.sfreq:g} Hz, from data.recording.tmin = {recording.tmin} s to tmax = "
            f"{recording.tmax} s; tmax must be later."
        )
    outside = (starts < 0) | (starts + n_times > run.n_samples)
    if outside.any():
        raise NeuroCanvasError(
            f"{run.path}: {recording.tmin} to {recording.tmax} s around the onset at "
            f"{events[outside][0] / run.sfreq:.3f} s leaves the recording (0 to "
            f"{run.n_samples / run.sfreq:.3f} s); shorten data.recording.tmin or tmax."
        )
    return starts


def _kept(run: Run, recording: RecordingSettings) -> tuple[list[int], tuple[str, ...]]:
    """Indices and new names of the channels to keep."""
    names = [recording.rename.get(name, name) for name in run.ch_names]
    unknown = [name for name in recording.rename if name not in run.ch_names]
    unknown += [name for name in recording.channels if name not in names]
    if unknown:
        there = ", ".join(run.ch_names)
        raise NeuroCanvasError(f"{run.path}: no channel {unknown[0]!r}; there are {there}.")
    kept = recording.channels or tuple(names)
    return [names.index(name) for name in kept], kept


def _metadata(
    places: list[tuple[str, str]], number: np.ndarray, onset: np.ndarray, image: list[str], images: Images
) -> pd.DataFrame:
    """Metadata from subject and session of each run (`places`) and the run of each trial (`number`)."""
    for name in dict.fromkeys(image):
        if name not in images.ids:
            raise NeuroCanvasError(
                f"stimulus {name!r} has no image; there are {len(images.ids)}, such as "
                f"{', '.join(images.ids[:8])}. See data.recording.stimulus and data.recording.pictures."
            )
    subjects, sessions = (np.array(column) for column in zip(*places, strict=True))
    run = np.array([subjects[:index].tolist().count(subject) for index, subject in enumerate(subjects)])
    return make_metadata({
        "subject": subjects[number], "session": sessions[number], "run": run[number], "onset": onset, "image": image,
        "concept": [images.concepts[name] for name in image],
    })  # fmt: skip


def _place(folder: Path, path: Path) -> tuple[str, str]:
    """Subject and session of a file, from `sub-<name>` and `ses-<name>` in its path below the folder, else "0"."""
    inside = path.relative_to(folder).with_suffix("").as_posix()
    found = (re.search(rf"(?:^|[/_]){word}-([^/_]+)", inside) for word in ("sub", "ses"))
    subject, session = (match[1] if match else "0" for match in found)
    return subject, session


def _reader(
    runs: list[Run], recording: RecordingSettings, number: np.ndarray, starts: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Make the function that cuts trials out: rows -> (n, n_chans, n_times); the last four runs stay in memory."""
    n_times, n_chans = _n_times(runs[0].sfreq, recording), len(_kept(runs[0], recording)[0])

    @lru_cache(maxsize=4)
    def signal_of(run: int) -> np.ndarray:
        return _signal(runs[run], recording)

    def read(indices: np.ndarray) -> np.ndarray:
        signal = np.empty((len(indices), n_chans, n_times), dtype=np.float32)
        for row, index in enumerate(indices):
            signal[row] = signal_of(int(number[index]))[:, starts[index] : starts[index] + n_times]
        return signal

    return read


def _signal(run: Run, recording: RecordingSettings) -> np.ndarray:
    """Read, check and filter the selected channels of a run: float32, (n_chans, n_samples), µV."""
    indices, names = _kept(run, recording)
    signal = run.read()[indices]
    if not np.isfinite(signal).all():
        channel, sample = np.argwhere(~np.isfinite(signal))[0]
        raise NeuroCanvasError(
            f"{run.path}: channel {names[channel]} is not finite at {sample / run.sfreq:.3f} s; leave it out "
            f"(data.recording.channels)."
        )
    if (flat := np.ptp(signal, axis=1) == 0).any():
        raise NeuroCanvasError(
            f"{run.path}: channel {names[flat.argmax()]} is flat; leave it out (data.recording.channels)."
        )
    spread = float(np.median(signal.std(axis=1)))
    if not PLAUSIBLE[0] <= spread <= PLAUSIBLE[1]:
        raise NeuroCanvasError(
            f"{run.path}: the channels' standard deviation must be {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} µV; "
            f"got {spread:.3g}. The unit is not what the file says (CSV files hold µV): correct it."
        )
    for kind, edge in (("highpass", recording.high_pass), ("lowpass", recording.low_pass)):
        if edge is not None:
            signal = _filter(signal, run.sfreq, kind, edge)
    return signal.astype(np.float32)


def _filter(signal: np.ndarray, sfreq: float, kind: str, edge: float) -> np.ndarray:
    """Filter forward in time only, from the steady state of the first sample."""
    # A zero-phase filter would carry the response back before the onset, where the pre-onset control would decode it.
    # By default nothing is filtered: on the real grating recordings high-passes of .5 and 1 Hz decoded no better.
    from scipy.signal import butter, sosfilt, sosfilt_zi

    if edge >= sfreq / 2:
        raise NeuroCanvasError(
            f"data.recording: a {kind} must lie below half the sampling rate, {sfreq / 2:g} Hz; got {edge}."
        )
    sections = butter(FILTER_ORDER, edge, kind, fs=sfreq, output="sos")
    state = sosfilt_zi(sections)[:, None, :] * signal[None, :, :1]
    return np.asarray(sosfilt(sections, signal, axis=-1, zi=state)[0])
