"""A converted store: EEG-ImageNet as one memory-mapped array with its trial table, sorted by subject."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from neurocanvas.artifacts import (
    atomic_write,
    fingerprint,
    is_cached,
    read_array,
    read_sidecar,
    read_text,
    sha256,
    torch_fingerprint,
    write_sidecar,
    write_text,
)
from neurocanvas.config import DataSettings
from neurocanvas.data.eeg_imagenet import CONVERTED as ARRAY
from neurocanvas.data.eeg_imagenet import PURPOSE, SPEC, check_volts, find_released, open_released
from neurocanvas.data.montage import CH_NAMES
from neurocanvas.data.trials import COLUMNS, Trials, make_metadata, ranks
from neurocanvas.errors import NeuroCanvasError, check_folder, check_option, csv_text, read_csv_cell

# (n_trials, 62, 501), float32, µV; and the columns of Trials, a line per row of the array. The array's sidecar is
# written last: without it the store is unfinished.
TABLE = "EEG-ImageNet.csv"

_BATCH = 200
_PART = 2000  # trials per task
_VERSION = 4  # of the store: raise it when the same file gives another store


def convert(
    settings: DataSettings,
    target: Path | str,
    *,
    spread: Callable[[Callable[[Part], int], Sequence[Part]], Iterable[int]] = map,
    track: Callable[[str, int], Callable[[int], None]] = lambda *_: lambda _: None,
) -> Path:
    """Write the released files as one array, sorted by subject, that opens at once."""
    check_option("convert: data set", settings.name, ["eeg-imagenet"])
    root, folder = check_folder(settings.root, "EEG-ImageNet files to convert"), Path(target)
    path, listing = folder / ARRAY, folder / TABLE
    inputs = fingerprint("converted", _VERSION, torch_fingerprint(find_released(root), PURPOSE), settings.unit)
    if is_cached(path, inputs) and listing.is_file() and sha256(listing) == read_sidecar(path).get("table"):
        return path
    paths, trials, file = open_released(root, settings.unit)
    rows = np.argsort(ranks(trials.column("subject")), kind="stable")
    if settings.unit == "auto":
        check_volts(paths, trials, file, rows)
    advance, shape = track("convert", len(rows)), (len(rows), len(CH_NAMES), SPEC.n_times)
    with atomic_write(path) as temporary:
        with temporary.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
            begin = stream.tell()
            stream.truncate(begin + int(np.prod(shape)) * 4)
        whole = Part(temporary.absolute(), begin, root.absolute(), settings.unit, 0, len(rows))
        cuts = range(0, len(rows), _PART)
        parts = [replace(whole, start=cut, stop=min(cut + _PART, len(rows))) for cut in cuts]
        for written in spread(write_part, parts):
            advance(written)
    table = trials.metadata.iloc[rows]
    write_text(listing, csv_text([list(table), *table.itertuples(index=False)]))
    sidecar = {
        "table": sha256(listing), "source": trials.source, "unit": settings.unit,
        "sfreq": SPEC.sfreq, "ch_names": list(CH_NAMES), "shape": list(shape), "stored": "µV",
    }  # fmt: skip
    write_sidecar(path, inputs, sidecar)
    return path


@dataclass(frozen=True)
class Part:
    """Some rows of the array that is being written."""

    path: Path
    begin: int
    root: Path
    unit: str
    start: int
    stop: int


def write_part(part: Part) -> int:
    """Write some rows of the array."""
    _, trials, _ = open_released(part.root, part.unit)  # anew for each part: what was read of a mapped file stays
    rows = np.argsort(ranks(trials.column("subject")), kind="stable")[part.start : part.stop]
    with part.path.open("r+b") as stream:
        stream.seek(part.begin + part.start * len(CH_NAMES) * SPEC.n_times * 4)
        for start in range(0, len(rows), _BATCH):
            stream.write(trials.signal(rows[start : start + _BATCH]).astype("<f4", copy=False).data)
    return len(rows)


def open_converted(root: Path, unit: str) -> Trials:
    """Open a converted store; reads its table and no signal."""
    path, again = root / ARRAY, f"run `convert` again, or delete {ARRAY} and its card"
    sidecar = read_sidecar(path)
    made = sidecar.get("unit")
    if unit not in ("auto", made) and (unit, made) != ("V", "auto"):
        raise NeuroCanvasError(f"{path}: made with other settings, unit {made} where {unit} is asked for; {again}.")
    beside = find_released(root)
    if beside and torch_fingerprint(beside, PURPOSE) != sidecar.get("source"):
        raise NeuroCanvasError(f"{path}: made from other files than {', '.join(p.name for p in beside)}; {again}.")
    text = read_text(root / TABLE, "the trials of the converted store")
    signal = read_array(path, "the signal of the converted store")
    shape = signal.shape
    if signal.dtype != np.float32:
        raise NeuroCanvasError(f"{path}: float32 is needed; got {signal.dtype}; {again}.")
    if sha256(root / TABLE) != sidecar.get("table") or list(shape) != sidecar.get("shape"):
        raise NeuroCanvasError(f"{path}: array, table and sidecar do not belong together; {again}.")
    try:
        names, *lines = csv.reader(io.StringIO(text))
        cells = dict(zip(names, zip(*lines, strict=True)))
        metadata = make_metadata({
            name: np.array([read_csv_cell(cell) for cell in cells[name]]).astype(kind)
            for name, kind in COLUMNS.items() if name != "onset"
        })  # fmt: skip
    except (ValueError, LookupError, OverflowError, csv.Error, NeuroCanvasError) as error:
        raise NeuroCanvasError(f"{root / TABLE}: not the table of a converted store ({error}); {again}.") from error
    if shape != (len(lines), len(CH_NAMES), SPEC.n_times):
        raise NeuroCanvasError(
            f"{path}: shape ({len(lines)}, {len(CH_NAMES)}, {SPEC.n_times}) belongs to its table; got {shape}; {again}."
        )

    def read(indices: np.ndarray) -> np.ndarray:
        return np.asarray(signal[indices], dtype=np.float32)

    return Trials(metadata, SPEC, read, str(sidecar.get("fingerprint")))
