"""EEG-ImageNet as Trials: the released files or a converted store, by subject and granularity."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas.artifacts import fingerprint, read_archive, read_torch
from neurocanvas.config import STAGE2_SUBJECTS, DataSettings
from neurocanvas.data.images import FINE_GROUP, IMAGENET_CONCEPTS, N_FINE, Images
from neurocanvas.data.montage import CH_NAMES
from neurocanvas.data.trials import LONGEST_NAME, Trials, TrialSpec, is_name, make_metadata, unique_names
from neurocanvas.errors import NeuroCanvasError, check_folder

if TYPE_CHECKING:
    import pandas as pd

# All subjects of stage 1 in one file, or as released: subjects 0-7 and 8-15; and the second day of five of them.
WHOLE, HALVES, STAGE2 = "EEG-ImageNet.pth", ("EEG-ImageNet_1.pth", "EEG-ImageNet_2.pth"), "EEG-ImageNet_stage2.pth"

# Field `stage` of the stage-2 file -> run: the pass of 30 pictures of every concept came before that of 20.
STAGE2_RUNS: Mapping[int, int] = MappingProxyType({30: 0, 20: 1})

LARGEST_SUBJECT = 9999

SPEC = TrialSpec(CH_NAMES, sfreq=1000.0, tmin=0.0, n_times=501)
# Unit of `eeg_data`, as `DataSettings.unit` names it -> µV.
MICROVOLTS: Mapping[str, float] = MappingProxyType({"auto": 1e6, "V": 1e6, "mV": 1e3, "uV": 1.0})

# Range in which the standard deviation of scalp EEG lies.
PLAUSIBLE_MICROVOLTS = (1.0, 500.0)

PURPOSE = "the trials of EEG-ImageNet; get the released file"

_FIELDS: Mapping[str, type] = {"granularity": str, "subject": int, "label": str, "image": str}
_SAMPLED = 9


@dataclass(frozen=True)
class Source:
    """An opened data set, before any selection of trials."""

    paths: Sequence[Path]
    trials: Trials
    unit: str  # a key of `MICROVOLTS`
    file: np.ndarray  # (n_trials,): which of `paths` holds each trial

    def check_unit(self, rows: np.ndarray) -> None:
        """Read a few trials of every file; raise if no unit was named and their size is not that of EEG in volts."""
        low, high = PLAUSIBLE_MICROVOLTS
        typical = {}
        for number in np.unique(self.file[rows]).tolist():
            held = rows[self.file[rows] == number]
            some = np.unique(held[np.linspace(0, len(held) - 1, _SAMPLED).astype(int)])
            typical[self.paths[number]] = float(np.median(self.trials.read(some).std(axis=(1, 2)))) / MICROVOLTS["auto"]
        if self.unit != "auto":
            return
        named = list(MICROVOLTS)[1:]
        units = {
            path: next((unit for unit in named if low <= found * MICROVOLTS[unit] <= high), None)
            for path, found in typical.items()
        }
        path = next((path for path, unit in units.items() if unit != "V"), None)
        if path is None:
            return
        unit, question = units[path], f"is it in {units[path]}? " if units[path] else "no unit of voltage fits; "
        others = [f"{one.name} seems to be in {its or 'none'}" for one, its in units.items() if its != unit]
        if others:
            question += f"--unit holds for all files, and {others[0]}: bring them to one unit, or keep them apart"
        else:
            question += f"Then pass --unit {unit}" if unit else f"if you know it, pass --unit {', '.join(named)}"
        raise NeuroCanvasError(
            f"{path}: eeg_data must be in volts (standard deviation {low * 1e-6:g} to {high * 1e-6:g}); "
            f"got {typical[path]:.3g}: {question}."
        )


def find_released(root: Path) -> list[Path]:
    """The released files in a folder: stage 1 whole or in halves, then stage 2; may be empty."""
    first = [WHOLE] if (root / WHOLE).is_file() else HALVES
    return [root / name for name in (*first, STAGE2) if (root / name).is_file()]


def released_print(paths: Sequence[Path]) -> str:
    """Fingerprint of the files: the trial table, and name, size and checksum of every signal; reads no signal."""
    parts: list[Any] = []
    for path in paths:
        members, pickled = read_archive(path, PURPOSE)
        parts += [path.name, path.stat().st_size, [(one.filename, one.file_size, one.CRC) for one in members], pickled]
    return fingerprint(*parts)


def open_released(root: Path, unit: str) -> Source:
    """Open the released files of a folder; reads no signal."""
    paths = find_released(root)
    if not paths:
        raise NeuroCanvasError(
            f"{root}: no {WHOLE} (or {' and '.join(HALVES)}, or {STAGE2}) in it; "
            "download it there or make one (`simulate`)."
        )
    parts = [_load(path) for path in paths]
    _check_apart(paths, parts)
    records = [record for part in parts for record in part]
    file = np.repeat(np.arange(len(paths)), [len(part) for part in parts])
    metadata = _metadata(records, np.array([path.name == STAGE2 for path in paths])[file])
    factor = np.float32(MICROVOLTS[unit])

    def read(indices: np.ndarray) -> np.ndarray:
        signal = np.empty((len(indices), len(CH_NAMES), SPEC.n_times), dtype=np.float32)
        for place, index in enumerate(indices):
            signal[place] = records[index]["eeg_data"].detach().float().numpy()
            _check_signal(signal[place], records[index], int(index), paths[file[index]])
        signal *= factor
        return signal

    return Source(paths, Trials(metadata, SPEC, read, released_print(paths)), unit, file)


def _load(path: Path) -> list[dict[str, Any]]:
    """Load the records of a file, their signal still on disk; refuse everything but plain data."""
    content = read_torch(path, PURPOSE)
    records, labels = (content.get(key) if isinstance(content, dict) else None for key in ("dataset", "labels"))
    if not isinstance(records, list) or not isinstance(labels, list) or not records:
        found = f"the keys {list(content)[:5]!r:.200}" if isinstance(content, dict) else type(content).__name__
        raise NeuroCanvasError(
            f"{path}: not an EEG-ImageNet file; it needs lists of trials in dataset and of concepts in labels, "
            f"and has {found}."
        )
    known = frozenset(label for label in labels if isinstance(label, str) and is_name(label))
    for place, record in enumerate(records):
        _check_record(record, known, place, path)
    return records


def _check_record(record: Any, labels: frozenset[str], place: int, path: Path) -> None:
    """Raise unless the record has the released fields and the signal the released shape."""
    import torch

    wrong = [
        name for name, kind in _FIELDS.items() if not isinstance(record, dict) or not isinstance(record.get(name), kind)
    ]
    if wrong:
        raise NeuroCanvasError(
            f"{path}: trial {place}: {', '.join(wrong)} missing or of the wrong type; not an EEG-ImageNet file."
        )
    if not 0 <= record["subject"] <= LARGEST_SUBJECT:
        raise NeuroCanvasError(f"{path}: trial {place}: subject must be 0 to {LARGEST_SUBJECT}.")
    where, signal = f"{path}: trial {place} of subject {record['subject']}", record.get("eeg_data")
    shape = tuple(signal.shape) if isinstance(signal, torch.Tensor) else None
    if shape != (len(CH_NAMES), SPEC.n_times) or not signal.is_floating_point():
        raise NeuroCanvasError(
            f"{where}: eeg_data must be floating-point, ({len(CH_NAMES)} channels, {SPEC.n_times} samples); got "
            f"{shape}."
        )
    if record["label"] not in labels:
        raise NeuroCanvasError(f"{where}: label {record['label']!r} is not among the file's {len(labels)} labels.")
    if record["granularity"] not in ("coarse", "fine"):
        raise NeuroCanvasError(f"{where}: granularity must be coarse or fine; got {record['granularity']!r}.")
    image = record["image"]
    if not is_name(image):
        raise NeuroCanvasError(f"{where}: image must be a file name without a folder; got {image[:LONGEST_NAME]!r}.")
    if path.name != STAGE2:
        return
    for name, allowed in (("subject", STAGE2_SUBJECTS), ("stage", STAGE2_RUNS)):
        if record.get(name) not in list(allowed):  # a list, because what the file says need not be hashable
            raise NeuroCanvasError(
                f"{where}: {name} must be one of {', '.join(map(str, allowed))} in a stage-2 file; "
                f"got {record.get(name)!r}."
            )


def _check_apart(paths: Sequence[Path], parts: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Raise if two files hold the same subject: its trials would count twice and land on both sides of a split."""
    held = [{record["subject"] for record in part} for part in parts]
    for place, one in enumerate(held):
        both = one & set().union(*held[:place])
        if both:
            raise NeuroCanvasError(
                f"{paths[place]}: subject {min(both)} is in {paths[0].name} too; {' and '.join(HALVES)} hold "
                "subjects 0-7 and 8-15, so get the right one."
            )


def _metadata(records: Sequence[Mapping[str, Any]], again: np.ndarray) -> pd.DataFrame:
    """Metadata of Trials, one row per record; `again` says which are of stage 2."""
    subject = np.array(
        [STAGE2_SUBJECTS[record["subject"]] if late else record["subject"] for record, late in zip(records, again)],
        dtype=np.int64,
    )
    run = np.array([STAGE2_RUNS[record["stage"]] if late else 0 for record, late in zip(records, again)])
    order = np.zeros_like(subject)
    for one in np.unique(subject):
        rows = np.flatnonzero(subject == one)
        order[rows[np.lexsort((run[rows], again[rows]))]] = np.arange(
            len(rows)
        )  # stable: else in the order of the file
    shown = {"image": "image", "concept": "label", "granularity": "granularity"}
    columns = {name: [record[field] for record in records] for name, field in shown.items()}
    return make_metadata({"subject": subject, "session": again.astype(int), "run": run, "order": order, **columns})


def _check_signal(signal: np.ndarray, record: Mapping[str, Any], index: int, path: Path) -> None:
    """Raise if a trial has missing values or a flat channel."""
    where = f"{path}: trial {index} of the file (subject {record['subject']}, {record['image']})"
    bad = ~np.isfinite(signal).all(axis=1)
    if bad.any():
        raise NeuroCanvasError(
            f"{where}: NaN or infinite values in channel {CH_NAMES[bad.argmax()]}; leave the trial out of the file."
        )
    flat = np.ptp(signal, axis=1) == 0
    if flat.any():
        raise NeuroCanvasError(
            f"{where}: channel {CH_NAMES[flat.argmax()]} is flat; repair the channel or leave the trial out."
        )


def open_eeg_imagenet(root: Path | str, settings: DataSettings) -> Trials:
    """Open a converted store or the released files, and the images beside them."""
    from neurocanvas.data.store import is_converted, open_converted

    # All 501 samples at 1000 Hz, the first at image onset. `order` and `block` count in the subject's whole
    # recording, before `granularity` selects. The files do not say where runs begin: `run` is 0 but in stage 2.
    folder = check_folder(root, f"{WHOLE}, or {' and '.join(HALVES)}, or a converted store")
    opener = open_converted if is_converted(folder) else open_released
    source = opener(folder, settings.unit)
    rows = _choose(source, settings)
    source.check_unit(rows)
    trials = source.trials[rows]
    return replace(trials, images=Images.from_folder(settings.pictures or root, trials.column("image").tolist()))


def fine_groups(concepts: np.ndarray, granularities: np.ndarray) -> dict[str, int]:
    """Fine concept -> the number of its group of eight."""
    # Copies with fewer concepts get the released groups too, so that fine1 is fish everywhere. Other concepts are
    # grouped by eights in the order of their wnids, where relatives are neighbours.
    fine = np.unique(concepts[granularities == "fine"]).tolist()
    released = list(IMAGENET_CONCEPTS)[:N_FINE]
    order = released if set(fine) <= set(released) else fine
    return {concept: order.index(concept) // FINE_GROUP for concept in fine}


def granularity_rows(trials: Trials, granularity: str) -> np.ndarray:
    """Which trials belong to "coarse", "fine0" to "fine4" or "all": bool, (n_trials,)."""
    if granularity == "all":
        return np.ones(len(trials), dtype=bool)
    granularities = trials.column("granularity")
    if granularity == "coarse":
        return granularities == granularity
    group = int(granularity.removeprefix("fine"))
    chosen = [concept for concept, number in fine_groups(trials.y, granularities).items() if number == group]
    return (granularities == "fine") & np.isin(trials.y, chosen)


def _choose(source: Source, settings: DataSettings) -> np.ndarray:
    """Rows of the settings' subjects and granularity."""
    subject = source.trials.column("subject")
    present = unique_names(subject)
    unknown = [one for one in settings.subjects if one not in present]
    if unknown:
        raise NeuroCanvasError(
            f"subject: {source.paths[0]} holds {', '.join(present)}; got {', '.join(unknown)}"
            f"{_where_it_is(unknown[0], source.paths[0])}."
        )
    kept = np.isin(subject, settings.subjects or present) & granularity_rows(source.trials, settings.granularity)
    if not kept.any():
        raise NeuroCanvasError(
            f"granularity: {source.paths[0]} holds no trial of {settings.granularity} for these subjects; "
            "choose another, or all."
        )
    return np.flatnonzero(kept)


def _where_it_is(name: str, path: Path) -> str:
    """Hint for a missing subject: stage 2 renumbers subjects, and the released halves hold eight each."""
    subject = int(name) if re.fullmatch(r"[0-9]{1,2}", name) else -1
    if subject in STAGE2_SUBJECTS:
        return f"; {subject} in {STAGE2} is session 1 of subject {STAGE2_SUBJECTS[subject]}"
    half = HALVES[subject >= 8]
    if path.name in (*HALVES, STAGE2) and 0 <= subject < 16 and not (path.parent / half).is_file():
        return f"; {half} holds {'8-15' if subject >= 8 else '0-7'}, put it beside"
    return ""
