"""EEG-ImageNet as Trials: the released files or a converted store, by subject and granularity."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas.artifacts import read_torch, repeated_tensors, sidecar_path, torch_fingerprint
from neurocanvas.config import STAGE2_SUBJECTS, DataSettings
from neurocanvas.data.arrays import PLAUSIBLE_MICROVOLTS, UNITS
from neurocanvas.data.images import FINE_GROUP, IMAGENET_CONCEPTS, N_FINE, Images
from neurocanvas.data.montage import CH_NAMES
from neurocanvas.data.trials import LONGEST_NAME, Trials, TrialSpec, is_name, make_metadata, natural_key, unique_names
from neurocanvas.errors import NeuroCanvasError, check_folder
from neurocanvas.findings import finding

# All subjects of stage 1 in one file, or as released: subjects 0-7 and 8-15; and the second day of five of them.
WHOLE, HALVES, STAGE2 = "EEG-ImageNet.pth", ("EEG-ImageNet_1.pth", "EEG-ImageNet_2.pth"), "EEG-ImageNet_stage2.pth"
CONVERTED = "EEG-ImageNet.npy"  # the array of a converted store

# Field `stage` of the stage-2 file -> run: the pass of 30 images of every concept came before that of 20.
STAGE2_RUNS: Mapping[int, int] = {30: 0, 20: 1}

LARGEST_SUBJECT = 9999

SPEC = TrialSpec(CH_NAMES, sfreq=1000.0, tmin=0.0, n_times=501)
# Unit of `eeg_data`, as `DataSettings.unit` names it -> µV.
MICROVOLTS: Mapping[str, float] = {"auto": UNITS["V"], **UNITS}

PURPOSE = "the trials of EEG-ImageNet; get the released file"

_FIELDS: Mapping[str, type] = {"granularity": str, "subject": int, "label": str, "image": str}


def open_eeg_imagenet(root: Path | str, settings: DataSettings) -> Trials:
    """Open a converted store or the released files, and the images beside them."""
    # All 501 samples at 1000 Hz, the first at image onset. `order` and `block` count in the subject's whole
    # recording, before `granularity` selects. The files do not say where runs begin: `run` is 0 but in stage 2.
    folder = check_folder(root, f"{WHOLE}, or {' and '.join(HALVES)}, or a converted store")
    if converted := sidecar_path(folder / CONVERTED).is_file():
        from neurocanvas.data.store import open_converted

        first, trials = folder / CONVERTED, open_converted(folder, settings.unit)
    else:
        paths, trials, file = open_released(folder, settings.unit)
        first = paths[0]
    subject = trials.column("subject")
    present = unique_names(subject)
    unknown = next((name for name in settings.subjects if name not in present), None)
    if unknown is not None:
        number, hint = int(unknown) if re.fullmatch(r"[0-9]{1,2}", unknown) else -1, ""
        half = HALVES[number >= 8]
        if number in STAGE2_SUBJECTS:
            hint = f"; {number} in {STAGE2} is session 1 of subject {STAGE2_SUBJECTS[number]}"
        elif first.name in (*HALVES, STAGE2) and 0 <= number < 16 and not (folder / half).is_file():
            hint = f"; {half} contains subjects {'8-15' if number >= 8 else '0-7'}; place it in the same folder"
        raise NeuroCanvasError(f"subject: {first} holds {', '.join(present)}; got {unknown}{hint}.")
    selected = np.isin(subject, settings.subjects or present) & granularity_rows(trials, settings.granularity)
    if not selected.any():
        raise NeuroCanvasError(
            f"granularity: {first} holds no trial of {settings.granularity} for these subjects; choose another, or all."
        )
    if settings.unit == "auto" and not converted:  # a store was checked when it was made
        check_volts(paths, trials, file, np.flatnonzero(selected))
    trials = trials[selected]
    return replace(trials, images=Images.from_folder(settings.pictures or root, trials.column("image").tolist()))


def check_volts(paths: Sequence[Path], trials: Trials, file: np.ndarray, rows: np.ndarray) -> None:
    """Read a few trials of every file and subject; raise if their amplitude is not that of EEG in volts."""
    low, high = PLAUSIBLE_MICROVOLTS
    typical, units, subject = {}, {}, trials.column("subject")
    parts = {*zip(file[rows].tolist(), subject[rows].tolist())}
    for part in sorted(parts, key=lambda part: (part[0], natural_key(part[1]))):
        some = rows[(file[rows] == part[0]) & (subject[rows] == part[1])]
        sample = np.unique(some[np.linspace(0, len(some) - 1, max(3, 9 // len(parts))).astype(int)])
        typical[part] = float(np.median(trials.read(sample).std(axis=(1, 2)))) / MICROVOLTS["auto"]
        units[part] = next((unit for unit in UNITS if low <= typical[part] * UNITS[unit] <= high), None)
    wrong = next((part for part, unit in units.items() if unit != "V"), None)
    if wrong is None:
        return
    unit = units[wrong]
    mixed = {number for number, _ in parts if len({units[part] for part in parts if part[0] == number}) > 1}
    path = f"{paths[wrong[0]]}" + (f", subject {wrong[1]}" if wrong[0] in mixed else "")
    looks = f"the values look like {unit.replace('u', 'µ')}" if unit else "no unit of voltage fits"
    others = [
        (f"subject {who} of " if number in mixed else "") + f"{paths[number].name} seems to be in {its or 'none'}"
        for (number, who), its in units.items() if its != unit
    ]  # fmt: skip
    if others:
        advice = f"; --unit holds for all files, and {others[0]}: convert them to one unit, or open them separately"
    else:
        advice = f": pass --unit {unit}" if unit else f"; if you know it, pass --unit {', '.join(UNITS)}"
    raise NeuroCanvasError(
        f"{path}: eeg_data must be in volts (standard deviation {low * 1e-6:g} to {high * 1e-6:g}); "
        f"got {typical[wrong]:.3g}: {looks}{advice}."
    )


def find_released(root: Path) -> list[Path]:
    """The released files in a folder: stage 1 whole or in halves, then stage 2; may be empty."""
    first = [WHOLE] if (root / WHOLE).is_file() else HALVES
    return [root / name for name in (*first, STAGE2) if (root / name).is_file()]


def open_released(root: Path, unit: str) -> tuple[list[Path], Trials, np.ndarray]:
    """Open the released files of a folder, reading no signal: files, trials, and which file holds each: (n_trials,)."""
    import pandas as pd

    paths = find_released(root)
    if not paths:
        raise NeuroCanvasError(
            f"{root}: no {WHOLE} (or {' and '.join(HALVES)}, or {STAGE2}) in it; "
            "download it there or make one (`simulate`)."
        )
    records: list[dict[str, Any]] = []
    file: list[int] = []
    for number, path in enumerate(paths):
        loaded = _load(path)
        if twice := {record["subject"] for record in loaded} & {record["subject"] for record in records}:
            # its trials would appear in both training and test
            raise NeuroCanvasError(
                f"{path}: subject {min(twice)} is in {paths[0].name} too; {' and '.join(HALVES)} hold "
                "subjects 0-7 and 8-15, so get the right one."
            )
        records += loaded
        file += [number] * len(loaded)
    late = [paths[number].name == STAGE2 for number in file]
    table = pd.DataFrame({
        "subject": [STAGE2_SUBJECTS[r["subject"]] if again else r["subject"] for r, again in zip(records, late)],
        "session": np.array(late, dtype=int),
        "run": [STAGE2_RUNS[record["stage"]] if again else 0 for record, again in zip(records, late)],
        "image": [record["image"] for record in records],
        "concept": [record["label"] for record in records],
        "granularity": [record["granularity"] for record in records],
    })  # fmt: skip
    # The place of a trial in the file is not the order of recording. Where the file does not have that, the documented
    # design holds: one block per concept (and pass of stage 2), in the order in which the file has the concepts.
    recording, place = ["subject", "session", "run"], np.arange(len(records))
    if all(type(record.get("order")) is int for record in records):
        place = np.array([record["order"] for record in records])
    else:
        first = table.assign(place=place).groupby([*recording, "concept"])["place"].transform("min")
        place = np.lexsort([place, first]).argsort()
    ordered = table.assign(place=place).sort_values([*recording, "place"], kind="stable")
    table["order"] = ordered.groupby("subject").cumcount()
    metadata = make_metadata(table)
    factor = np.float32(MICROVOLTS[unit])

    def read(indices: np.ndarray) -> np.ndarray:
        signal = np.empty((len(indices), len(CH_NAMES), SPEC.n_times), dtype=np.float32)
        for trial, index in zip(signal, indices, strict=True):
            trial[:] = records[index]["eeg_data"].detach().float().numpy()
        low, high = signal.min(axis=2), signal.max(axis=2)  # NaN and infinity propagate to min or max
        broken = ~(np.isfinite(low) & np.isfinite(high))
        for bad, problem in ((broken, "NaN or infinite values in channel {}"), (low == high, "channel {} is flat")):
            if bad.any():
                trial, channel = np.argwhere(bad)[0]
                index = indices[trial]
                raise NeuroCanvasError(
                    f"{paths[file[index]]}: trial {index} of the file (subject {records[index]['subject']}, "
                    f"{records[index]['image']}): {problem.format(CH_NAMES[channel])}; repair the channel or leave "
                    "the trial out."
                )
        signal *= factor
        return signal

    n_trials, n_signals = repeated_tensors(paths)
    found = (finding("same-signals", trials=n_trials, signals=n_signals),) if n_trials else ()
    trials = Trials(metadata, SPEC, read, torch_fingerprint(paths, PURPOSE), findings=found)
    return paths, trials, np.array(file)


def _load(path: Path) -> list[dict[str, Any]]:
    """Load the records of a file, their signal still on disk; refuse everything but plain data as released."""
    import torch

    content = read_torch(path, PURPOSE)
    records, labels = (content.get(key) if isinstance(content, dict) else None for key in ("dataset", "labels"))
    if not isinstance(records, list) or not isinstance(labels, list) or not records:
        content_type = f"the keys {list(content)[:5]!r:.200}" if isinstance(content, dict) else type(content).__name__
        raise NeuroCanvasError(
            f"{path}: not an EEG-ImageNet file; it needs lists of trials in dataset and of concepts in labels, "
            f"and has {content_type}."
        )
    names = {label for label in labels if isinstance(label, str) and is_name(label)}
    for number, record in enumerate(records):
        fields = record if isinstance(record, dict) else {}
        wrong = [name for name, kind in _FIELDS.items() if not isinstance(fields.get(name), kind)]
        if wrong:
            raise NeuroCanvasError(
                f"{path}: trial {number}: {', '.join(wrong)} missing or of the wrong type; not an EEG-ImageNet file."
            )
        signal, subject = fields.get("eeg_data"), fields["subject"]
        shape = tuple(signal.shape) if isinstance(signal, torch.Tensor) else None
        if not 0 <= subject <= LARGEST_SUBJECT:
            problem = f"subject must be 0 to {LARGEST_SUBJECT}"
        elif signal is None or shape != (len(CH_NAMES), SPEC.n_times) or not signal.is_floating_point():
            size = f"({len(CH_NAMES)} channels, {SPEC.n_times} samples)"
            problem = f"eeg_data must be floating-point, {size}; got {shape}"
        elif fields["label"] not in names:
            problem = f"label {fields['label']!r} is not among the file's {len(names)} labels"
        elif (wnid := fields["image"].partition("_")[0]) in names and wnid != fields["label"]:
            problem = f"label {fields['label']} contradicts the image's name, {fields['image']}"
        elif fields["granularity"] not in ("coarse", "fine"):
            problem = f"granularity must be coarse or fine; got {fields['granularity']!r}"
        elif not is_name(fields["image"]):
            problem = f"image must be a file name without a folder; got {fields['image'][:LONGEST_NAME]!r}"
        elif path.name == STAGE2 and subject not in STAGE2_SUBJECTS:
            problem = f"subject must be one of {', '.join(map(str, STAGE2_SUBJECTS))} in a stage-2 file; got {subject}"
        elif path.name == STAGE2 and fields.get("stage") not in list(STAGE2_RUNS):  # which need not be hashable
            runs = ", ".join(map(str, STAGE2_RUNS))
            problem = f"stage must be one of {runs} in a stage-2 file; got {fields.get('stage')!r}"
        else:
            continue
        raise NeuroCanvasError(f"{path}: trial {number} of subject {subject}: {problem}.")
    return records


def fine_groups(concepts: np.ndarray, granularities: np.ndarray) -> dict[str, int]:
    """Fine concept -> the number of its group of eight."""
    # Reduced copies keep the released groups: fine1 is always fish. Other concepts are grouped by eights in the order
    # of their wnids, where relatives are neighbours.
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
    concepts = [concept for concept, number in fine_groups(trials.y, granularities).items() if number == group]
    return (granularities == "fine") & np.isin(trials.y, concepts)
