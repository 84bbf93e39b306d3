"""A converted store: EEG-ImageNet as one memory-mapped array with its trial table, sorted by subject."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from neurocanvas.artifacts import (
    atomic_write,
    fingerprint,
    is_cached,
    read_array,
    read_sidecar,
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
from neurocanvas.errors import NeuroCanvasError, check_file, check_folder, check_option, csv_text, read_csv_cell

# (n_trials, 62, 501), float32, µV; and the columns of Trials, a line per row of the array. The array's sidecar is
# written last: without it the store is unfinished.
TABLE = "EEG-ImageNet.csv"

_PART = 2000  # trials per task
_VERSION = 4  # of the store: raise it when the same file gives another store


def convert(
    settings: DataSettings,
    target: Path | str,
    *,
    spread: Callable[[Callable[[range], int], Sequence[range]], Iterable[int]] = map,
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
        np.lib.format.open_memmap(temporary, mode="w+", dtype="<f4", shape=shape)
        parts = [range(start, min(start + _PART, len(rows))) for start in range(0, len(rows), _PART)]
        for n_written in spread(partial(_write_part, temporary.absolute(), root.absolute(), settings.unit), parts):
            advance(n_written)
    table = trials.metadata.iloc[rows]
    write_text(listing, csv_text([list(table), *table.itertuples(index=False)]))
    sidecar = {
        "table": sha256(listing), "source": trials.source, "unit": settings.unit,
        "sfreq": SPEC.sfreq, "ch_names": list(CH_NAMES), "shape": list(shape), "stored": "µV",
    }  # fmt: skip
    write_sidecar(path, inputs, sidecar)
    return path


def _write_part(path: Path, root: Path, unit: str, part: range) -> int:
    """Write some rows of the array."""
    _, trials, _ = open_released(root, unit)  # opened for each part: pages of a mapped file stay in memory once read
    rows, array = np.argsort(ranks(trials.column("subject")), kind="stable"), np.lib.format.open_memmap(path, mode="r+")
    for row in part:
        array[row] = trials.signal(rows[row])[0]
    return len(part)


def open_converted(root: Path, unit: str) -> Trials:
    """Open a converted store; reads its table and no signal."""
    import pandas as pd

    path, again = root / ARRAY, f"run `convert` again, or delete {ARRAY} and its sidecar"
    sidecar = read_sidecar(path)
    made = sidecar.get("unit")
    if unit not in ("auto", made) and (unit, made) != ("V", "auto"):
        raise NeuroCanvasError(f"{path}: made with other settings, unit {made} where {unit} is asked for; {again}.")
    beside = find_released(root)
    if beside and torch_fingerprint(beside, PURPOSE) != sidecar.get("source"):
        raise NeuroCanvasError(f"{path}: made from other files than {', '.join(p.name for p in beside)}; {again}.")
    table = check_file(root / TABLE, "the trials of the converted store")
    signal = read_array(path, "the signal of the converted store")
    if signal.dtype != np.float32:
        raise NeuroCanvasError(f"{path}: float32 is needed; got {signal.dtype}; {again}.")
    if sha256(table) != sidecar.get("table") or list(signal.shape) != sidecar.get("shape"):
        raise NeuroCanvasError(f"{path}: array, table and sidecar do not belong together; {again}.")
    try:
        cells = pd.read_csv(table, dtype=str, keep_default_na=False, index_col=False).map(read_csv_cell)
        metadata = make_metadata(cells[[name for name in COLUMNS if name != "onset"]])
    except (ValueError, LookupError, NeuroCanvasError) as error:
        raise NeuroCanvasError(f"{table}: not the table of a converted store ({error}); {again}.") from error
    shape = (len(metadata), len(CH_NAMES), SPEC.n_times)
    if signal.shape != shape:
        raise NeuroCanvasError(f"{path}: shape {shape} belongs to its table; got {signal.shape}; {again}.")
    return Trials(metadata, SPEC, signal.__getitem__, str(sidecar.get("fingerprint")))
