"""Continuous recordings to Trials: Muse CSV files, and anything that MNE reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from neurocanvas.config import DataSettings, RecordingSettings
from neurocanvas.datasets.continuous import Run, open_run
from neurocanvas.datasets.stimuli import Stimuli
from neurocanvas.errors import NeuroCanvasError, check_folder
from neurocanvas.store import fingerprint, sha256
from neurocanvas.trials import Trials

# Standard deviation of EEG over a run, µV: outside this range the file's unit is not what it says.
PLAUSIBLE = (0.1, 1e4)

# Of a subject or session.
LARGEST_NUMBER = 10**9

# Order of the Butterworth filters.
FILTER_ORDER = 2


def open_recordings(root: Path | str, settings: DataSettings) -> tuple[Trials, Stimuli]:
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
    runs = [open_run(path, recording.events) for path in paths]
    prints = [_print_of(run) for run in runs]
    _check_alike(runs)
    shown = [_shown(run, recording) for run in runs]
    stimulus = [name for _, names in shown for name in names]
    if not stimulus:
        raise NeuroCanvasError(f"{folder}: no picture onset in {len(runs)} files; see data.recording.events.")
    starts = [_starts(run, events, recording) for run, (events, _) in zip(runs, shown, strict=True)]
    number = np.repeat(np.arange(len(runs)), [len(run_starts) for run_starts in starts])
    gratings = recording.pictures == "gratings"
    stimuli = Stimuli.from_gratings() if gratings else Stimuli.from_folder(Path(recording.pictures))
    trials = Trials(
        table=_table([_place(folder, run.path) for run in runs], number, stimulus, stimuli),
        ch_names=_kept(runs[0], recording)[1],
        sfreq=runs[0].sfreq,
        tmin=round(recording.tmin * runs[0].sfreq) / runs[0].sfreq,
        read=_reader(runs, recording, number, np.concatenate(starts)),
        source=fingerprint(prints, recording),
    )
    return _subjects(trials, settings), stimuli


def _check_alike(runs: list[Run]) -> None:
    """Raise if the runs differ in sampling rate or channels."""
    first = runs[0]
    for run in runs[1:]:
        for name, wanted, came in (
            ("sampling rate", first.sfreq, run.sfreq),
            ("channels", first.ch_names, run.ch_names),
        ):
            if wanted != came:
                raise NeuroCanvasError(
                    f"{run.path}: all runs need the same {name}; {first.path.name} has {wanted}, "
                    f"this one {came}. Leave files out with data.recording.files."
                )


def _shown(run: Run, recording: RecordingSettings) -> tuple[np.ndarray, list[str]]:
    """Onset samples and stimulus names of the pictures; events mapped to '' are left out."""
    samples, names = [], []
    for index, sample in enumerate(run.events):
        parts = {}
        for source, words in recording.events.items():
            value = run.values[source][index]
            if value not in words:
                raise NeuroCanvasError(
                    f"{run.path}: {source} is {value!r} at {sample / run.sfreq:.3f} s; data.recording.events "
                    f"allows {', '.join(words)}. Add it, with '' if it is not the onset of a picture."
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


def _table(
    places: list[tuple[int, int]], number: np.ndarray, stimulus: list[str], stimuli: Stimuli
) -> dict[str, np.ndarray]:
    """Build the trial table from subject and session of each run (`places`) and the run of each trial (`number`)."""
    for name in dict.fromkeys(stimulus):
        if name not in stimuli.ids:
            raise NeuroCanvasError(
                f"stimulus {name!r} has no picture; there are {len(stimuli.ids)}, such as "
                f"{', '.join(stimuli.ids[:8])}. See data.recording.stimulus and data.recording.pictures."
            )
    subjects = [subject for subject, _ in places]
    run = [subjects[:index].count(subject) for index, subject in enumerate(subjects)]
    subject = np.array(subjects)[number]
    concept = np.array([stimuli.concept(name) for name in stimulus])
    new_block = np.ones(len(concept), dtype=bool)
    new_block[1:] = (concept[1:] != concept[:-1]) | (number[1:] != number[:-1])
    order = np.zeros(len(concept), dtype=np.int64)
    for one in set(subjects):
        order[subject == one] = np.arange((subject == one).sum())
    return {
        "subject": subject,
        "session": np.array([session for _, session in places])[number],
        "run": np.array(run)[number],
        "block": np.cumsum(new_block) - 1,
        "order": order,
        "stimulus": np.array(stimulus),
        "concept": concept,
        "granularity": np.full(len(concept), "all"),
    }


def _place(folder: Path, path: Path) -> tuple[int, int]:
    """Subject and session of a file, from `sub-<n>` and `ses-<n>` in its path below the folder."""
    inside = path.relative_to(folder).as_posix()
    found = (re.search(rf"{word}-(\d+)", inside) for word in ("sub", "ses"))
    subject, session = (int(match[1]) if match else 0 for match in found)
    if max(subject, session) > LARGEST_NUMBER:
        raise NeuroCanvasError(f"{path}: numbers of subjects and sessions up to {LARGEST_NUMBER} are allowed.")
    return subject, session


def _subjects(trials: Trials, settings: DataSettings) -> Trials:
    if not settings.subjects:
        return trials
    subject = trials.column("subject")
    for one in settings.subjects:
        if one not in subject:
            allowed = ", ".join(map(str, np.unique(subject)))
            raise NeuroCanvasError(f"subject: allowed are {allowed}; got {one}.")
    return trials.select(np.isin(subject, settings.subjects))


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


def _print_of(run: Run) -> str:
    return fingerprint([sha256(path) for path in run.files])


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
    if (np.ptp(signal, axis=1) == 0).any():
        flat = names[int(np.argmin(np.ptp(signal, axis=1)))]
        raise NeuroCanvasError(f"{run.path}: channel {flat} is flat; leave it out (data.recording.channels).")
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
