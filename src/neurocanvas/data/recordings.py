"""Continuous recordings to Trials: Muse CSV files, and anything that MNE reads."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
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

# µV per volt: MNE holds volts.
MICROVOLTS = 1e6

# Longest time between two rows of a CSV file, s. Stamps of 12 samples sent at once jitter by .034 s.
LONGEST_STEP = 0.05

# Hz; a higher rate means that the time stamps are wrong.
HIGHEST_RATE = 1e6

# MNE's warnings about a file that ends too early.
TRUNCATED = r".*(does not match the file size|outside data range)"

# Standard deviation of EEG over a run, µV: outside this range the unit is not the one that the file states.
PLAUSIBLE = (0.1, 1e4)

# Order of the Butterworth filters.
FILTER_ORDER = 2


@dataclass(frozen=True)
class Run:
    """One recording file, opened by MNE."""

    path: Path
    raw: Any  # mne.io.BaseRaw with EEG channels only
    events: pd.DataFrame  # index: samples; columns: sources of events, whose values are strings


def _open_muse(path: Path, sources: list[str]) -> Run:
    """Open a Muse CSV: `timestamps`, a column per channel in µV, and `Marker*`, 0 between events."""
    import mne
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pandas only warns about rows with too many cells
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding_errors="replace")
            table.columns = table.columns.str.strip()
            if table.columns[0] != "timestamps":
                raise NeuroCanvasError(
                    f"{path}: not a Muse CSV file: the first column must be 'timestamps'; it is "
                    f"{table.columns[0][:40]!r}. Match only the recordings with data.recording.files."
                )
            table = table.astype(np.float64)
    except (ValueError, OSError, Warning) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NeuroCanvasError(f"{path}: damaged or truncated ({reason}); get the file again.") from error
    channels = [name for name in table.columns[1:] if not name.startswith("Marker")]
    _check_sources(path, sources, [name for name in table if name.startswith("Marker")])
    info = mne.create_info(channels, _sampling_rate(path, table["timestamps"].to_numpy()), "eeg")
    raw = mne.io.RawArray(table[channels].to_numpy().T / MICROVOLTS, info, verbose="error")
    marker = table[sources[0]].to_numpy()
    samples = np.flatnonzero((marker != 0) & (np.diff(marker, prepend=0) != 0))
    return Run(path, raw, table[sources].iloc[samples].map("{:g}".format))


def _sampling_rate(path: Path, times: np.ndarray) -> float:
    """Sampling rate in Hz from jittering time stamps; raise where samples are missing."""
    if len(times) < 2 or not times[-1] > times[0]:
        raise NeuroCanvasError(
            f"{path}: at least 2 rows are needed, with time stamps in s that increase; got {len(times)} rows. "
            "Get the file again."
        )
    steps, rate = np.diff(times), float((len(times) - 1) / (times[-1] - times[0]))
    drift = times - times[0] - np.arange(len(times)) / rate
    worst = max(np.abs(steps).max(), np.abs(drift).max())
    # a step of at most 50 ms means 20 Hz or more, so that round(rate) is never 0
    if not (worst <= LONGEST_STEP and rate <= HIGHEST_RATE) or abs(rate / round(rate) - 1) > 0.005:
        row = int(np.argmax(np.where(np.isfinite(steps), np.abs(steps), np.inf)))
        raise NeuroCanvasError(
            f"{path}: the time stamps must be evenly spaced, give or take {LONGEST_STEP} s; they give "
            f"{rate:.3f} Hz and a step of {steps[row]:.3f} s after row {row + 1}. Samples are missing: cut the "
            f"file there."
        )
    return float(round(rate))


def _open_mne(path: Path, sources: list[str]) -> Run:
    """Open a file that MNE reads; the signal stays on disk."""
    import mne

    with _readable(path):
        if path.suffix.lower() == ".fif":
            _check_tags(path)
        raw = mne.io.read_raw(path, preload=False, verbose="warning")
        eeg = [raw.ch_names[index] for index in mne.pick_types(raw.info, eeg=True, exclude=[])]
        stim = [raw.ch_names[index] for index in mne.pick_types(raw.info, meg=False, stim=True)]
    if not eeg:
        raise NeuroCanvasError(f"{path}: no EEG channel; the channels are {', '.join(raw.ch_names[:8])}.")
    if not 0 < raw.info["sfreq"] <= HIGHEST_RATE:
        raise NeuroCanvasError(f"{path}: a sampling rate up to {HIGHEST_RATE:g} Hz is needed; got {raw.info['sfreq']}.")
    _check_sources(path, sources, [*stim, "annotations"])
    if "annotations" in sources[1:]:
        raise NeuroCanvasError("data.recording.events: 'annotations' can only be the first source.")
    with _readable(path):
        events = _mne_events(raw, sources)
        return Run(path, raw.pick(eeg), events)


def _mne_events(raw: Any, sources: list[str]) -> pd.DataFrame:
    """Samples of the events of the first source, and the value of every source at each of them."""
    import mne
    import pandas as pd

    if sources[0] == "annotations":
        events, codes = mne.events_from_annotations(raw, verbose="error")
        texts = {code: text for text, code in codes.items()}
        values = [texts[code] for code in events[:, 2]]
    else:
        events = mne.find_events(raw, sources[0], shortest_event=1, initial_event=True, verbose="error")
        values = [str(code) for code in events[:, 2]]
    samples = events[:, 0] - raw.first_samp
    others = {name: [f"{value:g}" for value in raw.get_data(picks=[name])[0, samples]] for name in sources[1:]}
    return pd.DataFrame({sources[0]: values, **others}, index=samples)


def _check_tags(path: Path) -> None:
    """Raise if a tag of a FIF file points back, because MNE would loop forever."""
    with path.open("rb") as stream:
        position = 0
        while len(head := stream.read(16)) == 16:
            size, pointer = struct.unpack(">Ii", head[8:])
            if pointer < 0:
                return
            following = pointer or position + 16 + size
            if following <= position:
                raise ValueError(f"the tag at byte {position} points back to {following}")
            position = stream.seek(following)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn every error of MNE's readers into one line, and their warnings about truncated files too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=TRUNCATED)
            yield
    except Exception as error:  # every format raises its own kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NeuroCanvasError(f"{path}: MNE cannot read it ({reason}); get the file again.") from error


def _check_sources(path: Path, sources: list[str], present: Collection[str]) -> None:
    for name in sources:
        if name not in present:
            raise NeuroCanvasError(
                f"{path}: data.recording.events names {name!r}; the file has {', '.join(present) or 'none'}."
            )


def open_recordings(root: Path | str, settings: DataSettings) -> Trials:
    """Open a folder of continuous recordings as trials in µV: every file is one run; reads only headers and markers."""
    import pandas as pd

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
    sfreq, ch_names = runs[0].raw.info["sfreq"], runs[0].raw.ch_names
    for run in runs:
        for what, first, other in (
            ("sampling rate", sfreq, run.raw.info["sfreq"]), ("channels", ch_names, run.raw.ch_names)
        ):  # fmt: skip
            if first != other:
                raise NeuroCanvasError(
                    f"{run.path}: all runs need the same {what}; {paths[0].name} has {first}, this one {other}. "
                    "Leave files out with data.recording.files."
                )
    picks, names = _channels(paths[0], ch_names, recording)
    window = round(recording.tmin * sfreq), round(recording.tmax * sfreq)
    onsets = pd.concat([_onsets(run, recording, *window) for run in runs], keys=range(len(runs)))
    if onsets.empty:
        raise NeuroCanvasError(f"{folder}: no image onset in {len(runs)} files; see data.recording.events.")
    images = Images.from_gratings() if recording.pictures == "gratings" else Images.from_folder(recording.pictures)
    for name in onsets["image"].unique():
        if name not in images.ids:
            raise NeuroCanvasError(
                f"stimulus {name!r} has no image; there are {len(images.ids)}, such as "
                f"{', '.join(images.ids[:8])}. See data.recording.stimulus and data.recording.pictures."
            )
    number, sample = onsets.index.get_level_values(0), onsets["sample"].to_numpy(dtype=np.int64)
    files = pd.DataFrame({name: [_entity(folder, path, name[:3]) for path in paths] for name in ("subject", "session")})
    files["run"] = files.groupby("subject").cumcount()
    metadata = make_metadata({
        **files.iloc[number], "onset": sample / sfreq, "image": onsets["image"],
        "concept": onsets["image"].map(images.concepts),
    })  # fmt: skip
    hashes = [
        fingerprint([sha256(file) for file in dict.fromkeys((run.path, *(Path(f) for f in run.raw.filenames if f)))])
        for run in runs
    ]
    spec = TrialSpec(names, sfreq, window[0] / sfreq, window[1] - window[0])
    read = _reader(runs, recording, picks, spec, number.to_numpy(), sample + window[0])
    trials = Trials(metadata, spec, read, fingerprint(hashes, recording), images)
    present = unique_names(trials.column("subject"))
    for subject in settings.subjects:
        check_option("subject", subject, present)
    return trials[np.isin(trials.column("subject"), settings.subjects or present)]


def _entity(folder: Path, path: Path, key: str) -> str:
    """The value of `<key>-<value>` in a path below the folder, as in BIDS, else "0"."""
    match = re.search(rf"(?:^|[/_]){key}-([^/_]+)", path.relative_to(folder).with_suffix("").as_posix())
    return match[1] if match else "0"


def _onsets(run: Run, recording: RecordingSettings, start: int, stop: int) -> pd.DataFrame:
    """Onset samples and stimulus names of the images; events mapped to '' are left out."""
    import pandas as pd

    sfreq, rows = run.raw.info["sfreq"], []
    if stop <= start:
        raise NeuroCanvasError(
            f"{run.path}: no sample, at {sfreq:g} Hz, from data.recording.tmin = {recording.tmin} s to tmax = "
            f"{recording.tmax} s; tmax must be later."
        )
    for sample, values in zip(run.events.index, run.events.to_dict("records"), strict=True):
        names: dict[str, str] = {}
        for source, allowed in recording.events.items():
            value = values[source]
            if value not in allowed:
                raise NeuroCanvasError(
                    f"{run.path}: {source} is {value!r} at {sample / sfreq:.3f} s; data.recording.events "
                    f"allows {', '.join(allowed)}. Add it, with '' if it is not the onset of an image."
                )
            if not allowed[value]:
                break
            names[source] = allowed[value]
        else:
            try:
                rows.append((sample, recording.stimulus.format_map(names)))
            except (LookupError, ValueError, AttributeError, TypeError) as error:
                raise NeuroCanvasError(
                    f"data.recording.stimulus: allowed in braces are {', '.join(names)}; got {recording.stimulus!r} "
                    f"({error})."
                ) from error
            if sample + start < 0 or sample + stop > run.raw.n_times:
                raise NeuroCanvasError(
                    f"{run.path}: {recording.tmin} to {recording.tmax} s around the onset at {sample / sfreq:.3f} s "
                    f"leaves the recording (0 to {run.raw.n_times / sfreq:.3f} s); shorten data.recording.tmin or tmax."
                )
    return pd.DataFrame(rows, columns=["sample", "image"])


def _channels(path: Path, ch_names: list[str], recording: RecordingSettings) -> tuple[list[int], tuple[str, ...]]:
    """Indices and new names of the selected channels."""
    names = [recording.rename.get(name, name) for name in ch_names]
    unknown = [name for name in recording.rename if name not in ch_names]
    unknown += [name for name in recording.channels if name not in names]
    if unknown:
        raise NeuroCanvasError(f"{path}: no channel {unknown[0]!r}; there are {', '.join(ch_names)}.")
    selected = recording.channels or tuple(names)
    return [names.index(name) for name in selected], selected


def _reader(
    runs: list[Run], recording: RecordingSettings, picks: list[int], spec: TrialSpec, number: np.ndarray,
    start: np.ndarray,
) -> Callable[[np.ndarray], np.ndarray]:  # fmt: skip
    """Make the function that cuts trials out: rows -> (n, n_chans, n_times); the last four runs stay in memory."""
    signal_of = lru_cache(maxsize=4)(lambda index: _read_signal(runs[index], recording, picks, spec.ch_names))

    def read(rows: np.ndarray) -> np.ndarray:
        signal = np.empty((len(rows), len(picks), spec.n_times), dtype=np.float32)
        for trial, row in zip(signal, rows, strict=True):
            trial[:] = signal_of(int(number[row]))[:, start[row] : start[row] + spec.n_times]
        return signal

    return read


def _read_signal(run: Run, recording: RecordingSettings, picks: list[int], names: tuple[str, ...]) -> np.ndarray:
    """Read, check and filter the selected channels of a run: float32, (n_chans, n_samples), µV."""
    from scipy.signal import butter, sosfilt, sosfilt_zi

    sfreq = run.raw.info["sfreq"]
    with _readable(run.path):
        signal = run.raw.get_data(picks=picks) * MICROVOLTS
    if not np.isfinite(signal).all():
        channel, sample = np.argwhere(~np.isfinite(signal))[0]
        raise NeuroCanvasError(
            f"{run.path}: channel {names[channel]} is not finite at {sample / sfreq:.3f} s; leave it out "
            f"(data.recording.channels)."
        )
    if (flat := np.ptp(signal, axis=1) == 0).any():
        raise NeuroCanvasError(
            f"{run.path}: channel {names[flat.argmax()]} is flat; leave it out (data.recording.channels)."
        )
    deviation = float(np.median(signal.std(axis=1)))
    if not PLAUSIBLE[0] <= deviation <= PLAUSIBLE[1]:
        raise NeuroCanvasError(
            f"{run.path}: the channels' standard deviation must be {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} µV; "
            f"got {deviation:.3g}. The unit is not the one that the file states (CSV files hold µV): correct it."
        )
    for kind, edge in (("highpass", recording.high_pass), ("lowpass", recording.low_pass)):
        if edge is None:
            continue
        if edge >= sfreq / 2:
            raise NeuroCanvasError(
                f"data.recording: a {kind} must lie below half the sampling rate, {sfreq / 2:g} Hz; got {edge}."
            )
        # Forward in time only, from the steady state of the first sample: a zero-phase filter (MNE's default) would
        # carry the response back before the onset, where the pre-onset control would decode it. By default nothing is
        # filtered: on the real grating recordings high-passes of .5 and 1 Hz decoded no better.
        sections = butter(FILTER_ORDER, edge, kind, fs=sfreq, output="sos")
        signal = sosfilt(sections, signal, axis=-1, zi=sosfilt_zi(sections)[:, None, :] * signal[None, :, :1])[0]
    return np.asarray(signal, dtype=np.float32)
