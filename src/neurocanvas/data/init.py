"""What a folder of recordings holds, and settings that cut trials out of it: the verb `init`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas.config import RecordingSettings, load_settings
from neurocanvas.data.events import Run, open_run
from neurocanvas.data.images import FORMATS
from neurocanvas.data.recordings import find_recordings, open_recordings
from neurocanvas.data.splits import choose_protocol
from neurocanvas.data.trials import unique_names
from neurocanvas.errors import NeuroCanvasError, check_folder

# A value of a marker with fewer events than this is not taken for a condition.
FEWEST_EVENTS = 8
# More different values than this are names of images, not conditions.
MANY_VALUES = 40
# Columns of a table of events that hold no conditions.
NO_SOURCE = ("onset", "duration", "sample", "response_time", "value")
# The trials that are proposed, s from onset: the window of the features must fit in.
TMIN, SHORTEST, LONGEST = -0.2, 0.45, 1.0

Tables = list[tuple[str, list[str], list[list[str]]]]


def look_into(path: Path, unit: str = "auto") -> tuple[Tables, list[Run], dict[str, Counter[str]]]:
    """Tables of the recordings in a folder (or of one file), the opened files, and the values of every source."""
    folder = path.parent if path.is_file() else check_folder(path, "recordings")
    paths = [path] if path.is_file() else find_recordings(folder, "")
    runs = [open_run(one, RecordingSettings(), unit) for one in paths]
    rows, values = [], dict[str, Counter[str]]()
    for run in runs:
        eeg = [name for name in run.raw.ch_names if name not in run.others]
        rows.append([
            run.path.relative_to(folder).as_posix(), f"{run.raw.info['sfreq']:g} Hz", f"{run.raw.times[-1]:.0f} s",
            f"{len(eeg)}: {', '.join(eeg[:6])}{', ...' if len(eeg) > 6 else ''}",
            ", ".join(f"{name} ({kind})" for name, kind in list(run.others.items())[:6]),
            ", ".join(run.raw.info["bads"]),
        ])  # fmt: skip
        for source in run.sources:
            if source.lower() in NO_SOURCE:
                continue
            settings = RecordingSettings(events={source: {"*": "{}"}})
            found = open_run(run.path, settings, unit).events[source]
            values.setdefault(source, Counter()).update(found.tolist())
    markers = [
        [source, value, f"{count}"]
        for source, counts in values.items() for value, count in counts.most_common(MANY_VALUES)
    ]  # fmt: skip
    header = ["file", "rate", "length", "EEG channels", "other channels", "bad"]
    return [("Recordings", header, rows), ("Events", ["source", "value", "events"], markers)], runs, values


def propose(
    path: Path, runs: list[Run], values: Mapping[str, Counter[str]], unit: str = "auto"
) -> tuple[Tables, str]:
    """Settings as TOML with which trials of a folder can be classified, and a table of these trials."""
    folder = path.parent if path.is_file() else path
    source, counts, images = _best_source(values, folder)
    if not counts:
        raise NeuroCanvasError(
            f"{path}: too few events: no source has 2 conditions or more with {FEWEST_EVENTS} events each that make up "
            "most of its events. Nothing is written. Events may also be in a table beside a recording: NAME_events.tsv."
        )
    recording = {
        "files": path.name if path.is_file() else "", "events": {source: counts}, "tmin": TMIN, "tmax": LONGEST,
        "pictures": images,
    }  # fmt: skip
    onsets = [np.unique(open_run(run.path, RecordingSettings(events={source: {"*": "{}"}}), unit).events.index)
              / run.raw.info["sfreq"] for run in runs]  # fmt: skip
    steps = np.concatenate([np.diff(one) for one in onsets])
    between = float(np.quantile(steps, 0.1)) if len(steps) else LONGEST
    recording["tmax"] = float(np.clip(np.floor(between * 20) / 20, SHORTEST, LONGEST))
    settings = load_settings(None, data={
        "name": "recordings", "root": str(folder.resolve()), "unit": unit, "recording": recording,
    })  # fmt: skip
    trials = open_recordings(folder, settings.data)
    protocol, reason = choose_protocol(trials, settings.split)
    present = {name: ", ".join(unique_names(trials.column(name))) for name in ("subject", "session", "run")}
    rows = [[name, text] for name, text in present.items()]
    rows += [["trials", f"{len(trials)}"], *([name, f"{n}"] for name, n in Counter(trials.y.tolist()).most_common())]
    text = _toml(folder, unit, source, counts, values[source], recording, protocol, reason)
    return [("Trials", ["what", "found"], rows)], text


def _best_source(values: Mapping[str, Counter[str]], folder: Path) -> tuple[str, dict[str, str], str]:
    """The source of conditions or of images, its values ('' for those that are no onsets), and the folder of images."""
    images = _image_folder(folder)
    of_images = {
        source: sorted({Path(value).suffix for value in counts if Path(value).suffix.lower() in FORMATS})
        for source, counts in values.items()
    }
    shown = [source for source, suffixes in of_images.items() if suffixes]
    conditions = [source for source in sorted(values, key=lambda name: name != "trial_type") if source not in shown]
    for source in (*(shown if images else ()), *conditions, *shown):
        counts = values[source]
        frequent = [value for value, count in counts.items() if count >= FEWEST_EVENTS]
        share = sum(counts[value] for value in frequent) / max(1, counts.total())
        if source in shown:
            entries = {f"*{suffix}": "{}" for suffix in of_images[source]}
            others = any(Path(value).suffix.lower() not in FORMATS for value in counts)
        elif 2 <= len(frequent) <= MANY_VALUES and share > 0.5:  # else a line of noise
            entries, others = {value: value for value in sorted(frequent)}, len(frequent) < len(counts)
        else:
            continue
        return source, entries | ({"*": ""} if others else {}), images if source in shown else ""
    return "", {}, ""


def _image_folder(folder: Path) -> str:
    """A folder of images beside the recordings."""
    for name in ("stimuli", "images", "pictures"):
        if any(path.suffix.lower() in FORMATS for path in (folder / name).glob("*/*")):
            return str((folder / name).resolve())
    return ""


def _toml(
    folder: Path, unit: str, source: str, counts: Mapping[str, str], found: Counter[str], recording: Mapping[str, Any],
    protocol: str, reason: str,
) -> str:  # fmt: skip
    """Settings with comments, as TOML."""
    entries = "\n".join(
        f"{json.dumps(value, ensure_ascii=False)} = {json.dumps(text, ensure_ascii=False)}"
        + (f"  # {found[value]} events" if value in found else "  # all others are no onsets" if not text else "")
        for value, text in counts.items()
    )
    lines = [
        f"# Trials from {folder.name}; made by `neurocanvas init`. Classify them:",
        "#   neurocanvas classify -c THIS_FILE -o runs/first -m ridge,svm",
        f"name = {json.dumps(folder.name or 'recordings')}", "", "[data]", 'name = "recordings"',
        f"root = {json.dumps(str(folder.resolve()), ensure_ascii=False)}",
        f'unit = "{unit}"  # of the values in the files: auto, V, mV or uV', "", "[data.recording]",
        f"files = {json.dumps(recording['files'])}  # a pattern such as \"**/*.edf\"; empty: all recordings",
        f"tmin = {recording['tmin']}  # s from onset", f"tmax = {recording['tmax']}",
        "# reject = { eeg = 100e-6 }  # largest peak-to-peak amplitude of a trial, V",
        "# l_freq = 0.1  # band-pass, Hz", "# h_freq = 40",
        f"pictures = {json.dumps(recording['pictures'], ensure_ascii=False)}  # folder of images; empty: none", "",
        f"[data.recording.events.{json.dumps(source, ensure_ascii=False)}]",
        "# value in the file = name of the condition; \"\" if it is not the onset of one", entries, "", "[split]",
        f'protocol = "{protocol}"  # '
        + (reason or "the first that these data allow"),
        "",
    ]  # fmt: skip
    return "\n".join(lines)
