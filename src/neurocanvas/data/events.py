"""Recording files as MNE opens them, and the events in them: markers, trigger channels, annotations, tables."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from neurocanvas.config import ChannelType, RecordingSettings
from neurocanvas.data.arrays import UNITS, read_table
from neurocanvas.errors import NeuroCanvasError

if TYPE_CHECKING:
    import pandas as pd

# Files that `files = ""` finds; tables of events and channels beside them are none.
SUFFIXES = (".csv", ".edf", ".bdf", ".gdf", ".vhdr", ".set", ".fif", ".fif.gz", ".cnt", ".mff", ".nxe")
# Longest time between two rows of a CSV file, s. Stamps of 12 samples sent at once jitter by .034 s.
LONGEST_STEP = 0.05
# Hz; a higher rate means that the time stamps are wrong.
HIGHEST_RATE = 1e6
# A code of a trigger line that lasts no longer than this, s, or one sample, beside another: its bits settle.
SETTLING = 0.002
# Cells of a marker column where nothing happens.
NO_MARKER = ("", "0", "nan", "none", "n/a")
# How texts of annotations begin that mark bad stretches, unless the settings name them as events.
BAD = ("bad", "edge", "boundary")
# MNE's warnings about a file that ends too early.
TRUNCATED = r".*(does not match the file size|outside data range)"
# Name of a channel -> its type, where the format has none (EDF, BDF, CSV); the first that fits counts.
KINDS: Mapping[str, str] = {
    r"eog": "eog", r"ecg|ekg|heart": "ecg", r"emg": "emg",
    r"^stat(us)?\b|trig|^sti ?\d*$|^stim|marker|^events?\b": "stim",
    r"photo|light|diode|^acc|acceler|gyro|aux|resp|gsr|\beda\b|temp|ppg|pulse|spo2|battery|counter": "misc",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One recording file."""

    path: Path
    raw: Any  # mne.io.BaseRaw; channels have their types, and annotations are bad segments only
    events: pd.DataFrame  # index: samples from the first one; columns: sources of events, whose values are text
    others: Mapping[str, str]  # channel -> type, of those that are not EEG
    doubled: int  # events that the file holds twice
    in_gaps: int  # events at a time of which the file has no samples
    sources: tuple[str, ...]  # what `events` could name


def open_run(path: Path, settings: RecordingSettings, unit: str) -> Run:
    """Open a recording, reading headers and events."""
    import mne

    is_csv = path.suffix.lower() == ".csv"
    with _readable(path):
        stretches = _edf_stretches(path) if path.suffix.lower() in (".edf", ".bdf") else None
    raw, markers = _read_csv(path) if is_csv else (_read_mne(path, settings, gaps=stretches is not None), None)
    sfreq = raw.info["sfreq"]
    if not 0 < sfreq <= HIGHEST_RATE:
        raise NeuroCanvasError(f"{path}: a sampling rate up to {HIGHEST_RATE:g} Hz is needed; got {sfreq}.")
    _set_types(raw, path, settings)
    kinds = np.array(raw.get_channel_types())
    with _readable(path):
        if is_csv and (kinds == "stim").any():  # codes are no voltages
            raw.apply_function(lambda x: x * UNITS["V"], picks=np.flatnonzero(kinds == "stim"))
        if unit != "auto":  # of the numbers in the file, which MNE takes for volts
            factor = UNITS[unit] / UNITS["uV" if is_csv else "V"]
            raw.load_data().apply_function(lambda x: x * factor, picks=np.flatnonzero(kinds != "stim"))
    others = {name: kind for name, kind in zip(raw.ch_names, raw.get_channel_types()) if kind != "eeg"}
    if len(others) == len(raw.ch_names):
        raise NeuroCanvasError(
            f"{path}: no EEG channel; the channels are {', '.join(raw.ch_names[:8])}. Say which are, with "
            "data.recording.channels."
        )
    notes = raw.annotations
    if stretches is not None:
        with _readable(path):  # MNE leaves out those behind the end of the samples
            notes = mne.read_annotations(path)
    labels = np.array([str(label) for label in notes.description], dtype=str)
    ids = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    if stretches is None and len(labels):
        found = mne.events_from_annotations(raw, ids, regexp=None, verbose="error")[0]
        of_notes = _by_sample(found[:, 0] - raw.first_samp, np.array(list(ids), str)[found[:, 2]])
    else:
        of_notes = _by_sample(np.round(notes.onset * sfreq), labels)
    table = _event_table(path, settings, sfreq)
    groups = {
        "columns of the table of events": [] if table is None else list(table),
        "marker columns": [] if markers is None else list(markers),
        "trigger channels": [name for name, kind in zip(raw.ch_names, raw.get_channel_types()) if kind == "stim"],
        "annotations": ["annotations"],
    }  # fmt: skip
    tables = {"columns of the table of events": table, "marker columns": markers, "annotations": of_notes}
    events = _find_events(path, raw, groups, tables, settings.events)
    onset = of_notes.index.to_numpy() / sfreq
    in_gaps = 0
    if stretches is not None:
        onset, _ = _to_samples(onset, stretches, raw)
        clocked = ("annotations", *(() if table is None else table))  # sources that count the clock's time
        if next(iter(settings.events), "") in clocked:
            seconds, inside = _to_samples(events.index.to_numpy() / sfreq, stretches, raw)
            events = events.set_axis(np.round(seconds * sfreq).astype(np.int64))[inside]
            in_gaps = int((~inside).sum())
    of_source = settings.events.get("annotations", {})
    is_bad = np.array([is_bad_stretch(label, of_source) for label in labels], dtype=bool)
    onset, lasting = onset[is_bad], np.maximum(notes.duration[is_bad], 1 / sfreq)
    bad = [f"bad {label}" for label in labels[is_bad]]
    if stretches is not None:
        onset, bad = np.append(onset, stretches[1][1:]), [*bad, *["bad gap"] * (len(stretches[1]) - 1)]
        lasting = np.append(lasting, np.full(len(stretches[1]) - 1, 1 / sfreq))
    raw.set_annotations(mne.Annotations(np.clip(onset, 0, None), lasting, bad), verbose="error")
    twice = _doubled(events)
    sources = tuple(name for names in groups.values() for name in names)
    return Run(path, raw, events[~twice], others, int(twice.sum()), in_gaps, sources)


def _by_sample(samples: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Labels of annotations by the sample of their onset."""
    import pandas as pd

    return pd.DataFrame({"annotations": labels}, index=samples.astype(np.int64))


def _to_samples(
    seconds: np.ndarray, stretches: tuple[np.ndarray, np.ndarray], raw: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Clock times to times in the samples of a file with gaps; and which times have samples."""
    clock, place = stretches
    stretch = np.clip(np.searchsorted(clock, seconds + 1e-6, side="right") - 1, 0, None)
    into = seconds - clock[stretch]
    return place[stretch] + into, into < np.diff(place, append=raw.n_times / raw.info["sfreq"])[stretch]


def _doubled(events: pd.DataFrame) -> np.ndarray:
    """Which events repeat another one at the same sample, or the next: bool, (n_events,)."""
    values = events.apply("\0".join, axis=1) if len(events) else events.iloc[:, 0]
    last: dict[str, int] = {}
    twice = np.zeros(len(events), dtype=bool)
    for row, (sample, value) in enumerate(zip(events.index.tolist(), values.tolist(), strict=True)):
        twice[row] = sample - last.get(value, -2) <= 1
        last[value] = sample
    return twice


def _read_csv(path: Path) -> tuple[Any, pd.DataFrame]:
    """Read a Muse CSV: `timestamps`, a column per channel in µV, and `Marker*`; the recording and its markers."""
    import mne
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pandas only warns about rows with too many cells
            table = pd.read_csv(
                path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig", encoding_errors="replace"
            )
        table.columns = table.columns.str.strip()
        if table.columns[0] != "timestamps":
            raise NeuroCanvasError(
                f"{path}: not a Muse CSV file: the first column must be 'timestamps'; it is "
                f"{table.columns[0][:40]!r}. Match only the recordings with data.recording.files."
            )
        is_marker = table.columns.str.startswith("Marker")
        markers, numbers = table.loc[:, is_marker], table.loc[:, ~is_marker]
        if len(numbers) and (numbers.iloc[-1].isna() | (numbers.iloc[-1] == "")).any():
            raise NeuroCanvasError(f"{path}: damaged or truncated: the last row has empty cells; get the file again.")
        for name in numbers:
            values = pd.to_numeric(numbers[name].str.strip().replace("", "nan"), errors="coerce")
            if (wrong := values.isna() & ~numbers[name].str.strip().str.lower().isin(("", "nan"))).any():
                row = int(np.flatnonzero(wrong)[0])
                raise NeuroCanvasError(
                    f"{path}: damaged or truncated: column {name}, row {row + 1} must be a number; got "
                    f"{numbers[name][row][:40]!r}. Get the file again, or name a column of markers Marker...."
                )
            numbers = numbers.assign(**{name: values})
    except (ValueError, OSError, Warning) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NeuroCanvasError(f"{path}: damaged or truncated ({reason}); get the file again.") from error
    channels = list(numbers.columns[1:])
    info = mne.create_info(channels, _sampling_rate(path, numbers["timestamps"].to_numpy()), "eeg")
    raw = mne.io.RawArray(numbers[channels].to_numpy().T / UNITS["V"], info, verbose="error")
    return raw, markers.apply(lambda column: column.map(_marker))


def _marker(cell: str) -> str:
    """Text of a cell: whole numbers without a point or exponent, so that long ids lose no digit."""
    text = cell.strip()
    if re.fullmatch(r"[+-]?\d+\.0*", text):
        text = text.partition(".")[0]
    elif re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", text) and float(text).is_integer():
        text = str(int(float(text)))
    return text


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
    if not (worst <= LONGEST_STEP and rate <= HIGHEST_RATE):
        row = int(np.argmax(np.where(np.isfinite(steps), np.abs(steps), np.inf)))
        raise NeuroCanvasError(
            f"{path}: the time stamps must be evenly spaced, give or take {LONGEST_STEP} s; they give "
            f"{rate:.3f} Hz and a step of {steps[row]:.3f} s after row {row + 1}. Samples are missing: cut the "
            f"file there."
        )
    # clocks of headbands drift: rates within 1 % of one that such devices have are that one
    nominal = min((100, 125, 128, 200, 250, 256, 300, 500, 512, 1000), key=lambda known: abs(rate / known - 1))
    return float(nominal if abs(rate / nominal - 1) < 0.01 else round(rate, 1))


def _read_mne(path: Path, settings: RecordingSettings, *, gaps: bool) -> Any:
    """Open a file that MNE reads; the signal stays on disk."""
    import mne

    is_edf = path.suffix.lower() in (".edf", ".bdf", ".gdf")
    options = {"encoding": settings.encoding} if is_edf and settings.encoding else {}
    with _readable(path, gaps=gaps):
        if path.name.lower().endswith(".fif"):
            _check_tags(path)
        raw = mne.io.read_raw(path, preload=False, verbose="warning", **options)
        if not is_edf or path.suffix.lower() == ".gdf":
            return raw
        # MNE resamples all channels to the fastest one: channels that are not used must not set the rate
        extras = raw._raw_extras[0]
        rates = dict(zip(raw.ch_names, np.atleast_1d(extras["n_samps"])[extras["sel"]].tolist()))
        new = settings.rename
        wanted = [
            name for name in raw.ch_names
            if (new.get(name, name) in settings.channels if settings.channels
                else settings.types.get(name, _kind_of(new.get(name, name))) == "eeg") or name in settings.events
        ]  # fmt: skip
        different = {rates[name] for name in wanted if name in rates}
        if len(different) > 1:
            raise NeuroCanvasError(
                f"{path}: EEG channels of one sampling rate are needed; {', '.join(wanted[:8])} have "
                f"{', '.join(map(str, sorted(different)))} samples per record. Select channels with "
                "data.recording.channels."
            )
        if different and different != set(rates.values()):
            raw = mne.io.read_raw(path, preload=False, verbose="warning", include=wanted, **options)
        return raw


def _kind_of(name: str) -> str:
    return next((kind for pattern, kind in KINDS.items() if re.search(pattern, name, re.IGNORECASE)), "eeg")


def _beside(path: Path, ending: str) -> Path | None:
    """The table that BIDS puts beside a recording, as `sub-1_task-a_events.tsv` of `sub-1_task-a_eeg.edf`."""
    stem = path.name.split(".")[0]
    names = [f"{base}_{ending}{suffix}" for base in (stem.removesuffix("_eeg"), stem) for suffix in (".tsv", ".csv")]
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def _set_types(raw: Any, path: Path, settings: RecordingSettings) -> None:
    """Types and bad channels: those of the settings, of a BIDS table, of the file, or guessed from the names."""
    kinds = dict(zip(raw.ch_names, raw.get_channel_types()))
    if not path.name.lower().endswith((".fif", ".fif.gz")):  # other formats call everything EEG
        kinds |= {name: _kind_of(str(settings.rename.get(name, name))) for name, kind in kinds.items() if kind == "eeg"}
    bads = set(raw.info["bads"]) | (set(settings.bads) & set(raw.ch_names))
    if (table := _beside(path, "channels")) is not None:
        rows = read_table(table)
        if "name" in rows and "type" in rows:
            words = {"heog": "eog", "veog": "eog", "trig": "stim"} | {kind: kind for kind in get_args(ChannelType)}
            of_table = {name: words.get(kind.lower(), "misc") for name, kind in zip(rows["name"], rows["type"])}
            kinds |= {name: kind for name, kind in of_table.items() if name in kinds}
        if "status" in rows:
            bads |= set(rows["name"][rows["status"].str.lower() == "bad"]) & set(raw.ch_names)
    asked = {name: "eeg" for name in kinds if settings.rename.get(name, name) in settings.channels}
    kinds |= asked | {name: kind for name, kind in settings.types.items() if name in kinds}
    raw.set_channel_types(kinds, on_unit_change="ignore", verbose="error")
    raw.info["bads"] = sorted(bads)


def _event_table(path: Path, settings: RecordingSettings, sfreq: float) -> pd.DataFrame | None:
    """The table of events beside a recording as text, by sample; None without one."""
    import pandas as pd

    if settings.events_file:
        table_path = path.parent / settings.events_file.replace("{stem}", path.name.split(".")[0])
        if not table_path.is_file():
            raise NeuroCanvasError(f"{path}: data.recording.events_file: there is no {table_path}; correct the name.")
    elif (found := _beside(path, "events")) is not None:
        table_path = found
    else:
        return None
    table = read_table(table_path)
    column = next((name for name in ("onset", "sample") if name in table), None)
    if column is None:
        raise NeuroCanvasError(
            f"{table_path}: a column onset (in s) or sample is needed; it has {', '.join(table)}. Rename one."
        )
    onsets = pd.to_numeric(table[column], errors="coerce")
    if onsets.isna().any():
        row = int(np.flatnonzero(onsets.isna())[0])
        raise NeuroCanvasError(
            f"{table_path}: {column} of row {row + 1} must be a number; got {table[column][row]!r}; correct the row."
        )
    in_samples = column == "sample" or settings.onset_unit == "samples"
    samples = np.round(onsets.to_numpy() * (1.0 if in_samples else sfreq)).astype(np.int64)
    return table.map(_marker).set_axis(samples).sort_index(kind="stable")


def _find_events(
    path: Path, raw: Any, groups: Mapping[str, Sequence[str]], tables: Mapping[str, pd.DataFrame | None],
    events: Mapping[str, Mapping[str, str]],
) -> pd.DataFrame:  # fmt: skip
    """Samples of the events of the first source, with the value of every source there."""
    import pandas as pd

    sources = list(events)
    if not sources:
        return pd.DataFrame({"": []})
    of_first = next((group for group, names in groups.items() if sources[0] in names), "")
    for name in sources:
        if not any(name in names for names in groups.values()):
            present = ", ".join(name for names in groups.values() for name in names)
            raise NeuroCanvasError(f"{path}: data.recording.events names {name!r}; the file has {present}.")
        if name not in groups[of_first]:
            raise NeuroCanvasError(
                f"data.recording.events: {name!r} cannot be read at the onsets of {sources[0]!r}: all sources must be "
                f"{of_first}."
            )
    table = tables.get(of_first)
    if table is not None:
        values = table[sources[0]]
        if of_first == "annotations":
            happens = ~values.map(lambda label: is_bad_stretch(label, events[sources[0]])).astype(bool)
        elif of_first == "marker columns":
            happens = ~values.str.lower().isin(NO_MARKER) & (values != values.shift())
        else:
            happens = ~values.str.lower().isin(set(NO_MARKER) - {"0"})
        return table.loc[happens, sources]
    with _readable(path):
        lines = {name: raw.get_data(picks=[name])[0] for name in sources}
    samples, codes = _stim_events(lines[sources[0]], raw.info["sfreq"])
    values_of = {name: codes if name == sources[0] else line[samples] for name, line in lines.items()}
    return pd.DataFrame({name: [f"{value:.0f}" for value in of_line] for name, of_line in values_of.items()}, samples)


def _stim_events(line: np.ndarray, sfreq: float) -> tuple[np.ndarray, np.ndarray]:
    """Where a trigger line takes a new code that is not 0, and that code once its bits have settled."""
    values = np.round(line).astype(np.int64)
    present, counts = np.unique(values, return_counts=True)
    if counts.max() > 0.8 * len(values):  # a line may rest at another code than 0
        values = np.where(values == present[counts.argmax()], 0, values)
    starts = np.append(0, np.flatnonzero(np.diff(values)) + 1)
    lengths, codes = np.diff(starts, append=len(values)), values[starts]
    beside = (np.append(0, codes[:-1]) != 0) | (np.append(codes[1:], 0) != 0)
    settling = (codes != 0) & (lengths <= max(1, SETTLING * sfreq)) & beside
    if not ((codes != 0) & ~settling).any():  # every code lasts one sample
        settling[:] = False
    events, state, rise = [], 0, -1
    for start, code, settles in zip(starts.tolist(), codes.tolist(), settling.tolist(), strict=True):
        if settles:
            rise = start if rise < 0 else rise
            continue
        if code not in (0, state):  # lines need not return to 0 between codes
            events.append((rise if rise >= 0 else start, code))
        state, rise = code, -1
    samples, settled = np.array(events, np.int64).reshape(-1, 2).T
    return samples, settled


def is_bad_stretch(label: str, allowed: Mapping[str, str]) -> bool:
    """Whether an annotation marks a bad stretch: its name says so, and the settings do not name it as an onset."""
    return label.lower().startswith(BAD) and not text_of(label, allowed)[0]


def text_of(value: str, allowed: Mapping[str, str]) -> tuple[str, bool]:
    """Text of a marker by its own entry, else by the first pattern that fits it; and whether there is an entry."""
    entry = value if value in allowed else next((key for key in allowed if fnmatchcase(value, key)), None)
    return ("", False) if entry is None else (allowed[entry].replace("{}", value), True)


def _edf_stretches(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Clock time and place in the samples of every stretch of an EDF+D file, s; None without gaps."""
    with path.open("rb") as stream:
        header = stream.read(256)
        kind, n_header, n_signals = header[192:197], int(header[184:192]), int(header[252:256])
        duration, n_records = float(header[244:252]), int(header[236:244])
        if kind not in (b"EDF+D", b"BDF+D") or n_records < 1:
            return None
        fields = stream.read(256 * n_signals)
        labels = [fields[16 * k : 16 * k + 16].strip() for k in range(n_signals)]
        per_record = [int(fields[216 * n_signals + 8 * k : 216 * n_signals + 8 * k + 8]) for k in range(n_signals)]
        width = 3 if kind == b"BDF+D" else 2
        notes = next(k for k, label in enumerate(labels) if label in (b"EDF Annotations", b"BDF Annotations"))
        offset, size = width * sum(per_record[:notes]), width * sum(per_record)
        clock = np.empty(n_records)
        for record in range(n_records):
            stream.seek(n_header + record * size + offset)
            clock[record] = float(stream.read(width * per_record[notes]).partition(b"\x14")[0])
    clock -= clock[0]
    place = duration * np.arange(n_records)
    first = np.append(0, 1 + np.flatnonzero(np.abs(np.diff(clock - place)) > 1e-6))
    return None if len(first) == 1 else (clock[first], place[first])


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
def _readable(path: Path, *, gaps: bool = False) -> Iterator[None]:
    """Turn every error of MNE's readers into one line, and their warnings about truncated files too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not gaps:  # of files with gaps, annotations count the clock's time
                warnings.filterwarnings("error", message=TRUNCATED)
            yield
    except NeuroCanvasError:
        raise
    except Exception as error:  # every format raises its own kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = "get the file again"
        if isinstance(error, UnicodeDecodeError) or "encoding=" in str(error):
            remedy = "its text is not UTF-8: set data.recording.encoding, e.g. \"latin1\""
        raise NeuroCanvasError(f"{path}: MNE cannot read it ({reason}); {remedy}.") from error
