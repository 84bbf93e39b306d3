"""The released EEG-ImageNet files as Trials: opened lazily, never unpickled as code, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas.config import DataSettings
from neurocanvas.datasets.stimuli import FINE_GROUP, N_FINE, Stimuli
from neurocanvas.errors import NeuroCanvasError, check_folder
from neurocanvas.montage import CH_NAMES
from neurocanvas.store import fingerprint
from neurocanvas.trials import COLUMNS, Trials

FILES = ("EEG-ImageNet.pth", "EEG-ImageNet_1.pth", "EEG-ImageNet_2.pth")
"""The first alone (all subjects), or the other two as released (subjects 0-7 and 8-15)."""

SFREQ, N_TIMES = 1000.0, 501
PLAUSIBLE_VOLTS = (1e-6, 1e-4)
"""Between these lies the standard deviation of scalp EEG in volts."""

_FIELDS: Mapping[str, type] = {"granularity": str, "subject": int, "label": str, "image": str}
_SAMPLED = 9


def open_eeg_imagenet(root: Path | str, settings: DataSettings) -> tuple[Trials, Stimuli]:
    """Open `EEG-ImageNet.pth` (or `_1.pth` and `_2.pth`) and the pictures beside it.

    Parameters
    ----------
    root : path-like
        The folder with the file and with `imageNet_images/<wnid>/<image id>`.
    settings : DataSettings
        `subjects` (empty = all) and `granularity` ("coarse", "fine0" to "fine4", "all") say which trials.

    Returns
    -------
    trials : Trials
        In µV (the file is in volts), all 501 samples at 1000 Hz, the first at picture onset. `session` is 1 for trials
        of stage 2 and 0 else; `order` and `block` are counted in the subject's whole recording,
        before `granularity` selects; the file does not say where runs begin, so `run` is 0.
    stimuli : Stimuli
        The pictures that these trials showed; a missing file is an error when it is asked for.

    Raises
    ------
    NeuroCanvasError
        If the folder or file is missing, truncated, not an EEG-ImageNet file or would run code; if a subject is
        unknown; if no trial has the granularity; if a trial is not (62, 501); and, for nine trials on opening and
        for the others when they are read, if signal is flat or not finite; if the unit is not volts.
    """
    paths = _find(check_folder(root, f"{FILES[0]}, or {FILES[1]} and {FILES[2]}"))
    contents = [_load(path) for path in paths]
    records = [record for content in contents for record in content["dataset"]]
    table = _table(records)
    rows = _select(table, contents[0]["labels"], settings, paths[0])
    _check_unit(records, rows[np.linspace(0, len(rows) - 1, _SAMPLED).astype(int)], paths[0])

    def read(indices: np.ndarray) -> np.ndarray:
        """Signal of some records, µV."""
        signal = np.empty((len(indices), len(CH_NAMES), N_TIMES), dtype=np.float32)
        for place, index in enumerate(indices):
            signal[place] = records[index]["eeg_data"].numpy()
            _check_signal(signal[place], records[index], int(index))
        return signal * np.float32(1e6)

    source = fingerprint([[path.name, path.stat().st_size, _first_and_last(path)] for path in paths])
    trials = Trials(table, CH_NAMES, SFREQ, 0.0, read, source).select(rows)
    return trials, Stimuli.from_folder(root, trials.column("stimulus").tolist())


def _find(root: Path) -> list[Path]:
    """The file or files of the data set in `root`."""
    present = [root / name for name in FILES if (root / name).is_file()]
    if not present:
        raise NeuroCanvasError(
            f"{root}: no {FILES[0]} (or {FILES[1]} and {FILES[2]}) in it; download it there or make one (`simulate`)."
        )
    return present[:1] if present[0].name == FILES[0] else present


def _load(path: Path) -> dict[str, Any]:
    """The content of a file, its signal still on disk; refuses everything but plain data."""
    import pickle

    import torch

    try:
        content = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise NeuroCanvasError(
            f"{path}: holds more than tensors and plain values, so loading it could run code; get the released file."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise NeuroCanvasError(f"{path}: truncated, or not a PyTorch file ({reason}); get it again.") from error
    if not isinstance(content, dict) or not {"dataset", "labels"} <= set(content) or not content["dataset"]:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise NeuroCanvasError(
            f"{path}: not an EEG-ImageNet file; it needs the keys dataset and labels and has {found}."
        )
    for place, record in enumerate(content["dataset"]):
        _check_record(record, place, path)
    return content


def _check_record(record: Any, place: int, path: Path) -> None:
    """Raise unless the record has the released fields and the signal the released shape."""
    import torch

    wrong = [
        name for name, kind in _FIELDS.items() if not isinstance(record, dict) or not isinstance(record.get(name), kind)
    ]
    if wrong:
        raise NeuroCanvasError(
            f"{path}: trial {place}: {', '.join(wrong)} missing or of the wrong type; not an EEG-ImageNet file."
        )
    signal = record.get("eeg_data")
    shape = tuple(signal.shape) if isinstance(signal, torch.Tensor) else None
    if shape != (len(CH_NAMES), N_TIMES):
        raise NeuroCanvasError(
            f"{path}: trial {place} of subject {record['subject']}: eeg_data must be "
            f"({len(CH_NAMES)} channels, {N_TIMES} samples); got {shape}."
        )


def _table(records: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The columns of Trials, one row per record, in file order."""
    subject = np.array([record["subject"] for record in records], dtype=np.int64)
    session = np.array([record.get("stage", 1) for record in records], dtype=np.int64) - 1
    concept = np.array([record["label"] for record in records])
    order, block = np.zeros_like(subject), np.zeros_like(subject)
    for one in np.unique(subject):
        rows = np.flatnonzero(subject == one)
        order[rows] = np.arange(len(rows))
        begins = (concept[rows][1:] != concept[rows][:-1]) | (session[rows][1:] != session[rows][:-1])
        block[rows[1:]] = np.cumsum(begins)
    columns = {
        "subject": subject,
        "session": session,
        "run": np.zeros_like(subject),
        "block": block,
        "order": order,
        "stimulus": np.array([record["image"] for record in records]),
        "concept": concept,
        "granularity": np.array([record["granularity"] for record in records]),
    }
    return {name: columns[name] for name in COLUMNS}


def _select(table: Mapping[str, np.ndarray], labels: Sequence[str], settings: DataSettings, path: Path) -> np.ndarray:
    """Rows of the subjects and the granularity that are asked for."""
    present = np.unique(table["subject"]).tolist()
    unknown = [subject for subject in settings.subjects if subject not in present]
    if unknown:
        allowed = ", ".join(map(str, present))
        raise NeuroCanvasError(f"subject: {path} holds {allowed}; got {', '.join(map(str, unknown))}.")
    kept = np.isin(table["subject"], settings.subjects or present)
    asked = settings.granularity
    if asked == "coarse":
        kept &= table["granularity"] == "coarse"
    elif asked != "all":
        first = FINE_GROUP * int(asked.removeprefix("fine"))
        kept &= (table["granularity"] == "fine") & np.isin(
            table["concept"], list(labels)[:N_FINE][first : first + FINE_GROUP]
        )
    if not kept.any():
        raise NeuroCanvasError(
            f"granularity: {path} holds no trial of {asked} for these subjects; choose another, or all."
        )
    return np.flatnonzero(kept)


def _check_signal(signal: np.ndarray, record: Mapping[str, Any], index: int) -> None:
    """Raise if a trial has missing values or a flat channel."""
    where = f"trial {index} of the file (subject {record['subject']}, {record['image']})"
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


def _check_unit(records: Sequence[Mapping[str, Any]], sampled: np.ndarray, path: Path) -> None:
    """Raise if a few trials are damaged or their typical size is not that of volts."""
    sizes = []
    for index in sampled:
        signal = records[index]["eeg_data"].numpy()
        _check_signal(signal, records[index], int(index))
        sizes.append(float(signal.std()))
    typical, (low, high) = float(np.median(sizes)), PLAUSIBLE_VOLTS
    if low <= typical <= high:
        return
    units = {"microvolts": 1e6, "millivolts": 1e3, "nanovolts": 1e9}
    fitting = [
        f"looks like {name}: divide by {factor:g}" for name, factor in units.items() if low <= typical / factor <= high
    ]
    advice = fitting[0] if fitting else "no unit of voltage fits"
    raise NeuroCanvasError(
        f"{path}: eeg_data must be in volts (standard deviation {low:g} to {high:g}); got {typical:.3g}, {advice}."
    )


def _first_and_last(path: Path) -> str:
    """Hash of the first and last megabyte: the records' table and the archive's directory with all checksums."""
    size, part = path.stat().st_size, 2**20
    with path.open("rb") as stream:
        first = stream.read(part)
        stream.seek(max(0, size - part))
        return fingerprint(first, stream.read(part))
