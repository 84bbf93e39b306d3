"""The feature files of the released EEG-ImageNet code, `{subject}_{granularity}_de.npy`: band after band."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.montage import BANDS
from neurocanvas.store import atomic


def read_released(path: Path | str, n_chans: int = 62) -> np.ndarray:
    """Read a released feature file, band-major (n_trials, n_bands·n_chans), as (n_trials, n_chans, n_bands) float64."""
    path, n_bands = check_file(path, "released features"), len(BANDS)
    try:
        columns = np.lib.format.open_memmap(path, mode="r")  # maps, and so never unpickles
    except Exception as error:  # NumPy's header parser raises much more than ValueError
        raise NeuroCanvasError(
            f"{path}: allowed is an undamaged .npy array of numbers; this one is cut off, pickled or something else. "
            "Copy or make it again."
        ) from error
    if columns.ndim != 2 or columns.shape[1] != n_bands * n_chans:
        raise NeuroCanvasError(
            f"{path}: allowed is the shape (n_trials, {n_bands * n_chans}), {n_bands} bands of {n_chans} channels; "
            f"got {columns.shape}. Say how many channels it has, or make it again."
        )
    if columns.dtype.kind not in "iuf":
        raise NeuroCanvasError(f"{path}: allowed are real numbers; got the type {columns.dtype}. Make it again.")
    _check_finite(columns, str(path))
    return columns.reshape(len(columns), n_bands, n_chans).transpose(0, 2, 1).astype(np.float64, order="C")


def write_released(path: Path | str, features: np.ndarray) -> None:
    """Write (n_trials, n_chans, n_bands) atomically; channel c of band b is column b·n_chans + c."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 3 or features.shape[2] != len(BANDS):
        raise NeuroCanvasError(
            f"features: allowed is the shape (n_trials, n_chans, {len(BANDS)}); got {features.shape}."
        )
    _check_finite(features, "features")
    columns = features.transpose(0, 2, 1).reshape(len(features), features.shape[1] * len(BANDS))
    with atomic(Path(path)) as temporary, temporary.open("wb") as stream:
        np.save(stream, columns, allow_pickle=False)


def _check_finite(values: np.ndarray, name: str) -> None:
    bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if bad.any():
        raise NeuroCanvasError(
            f"{name}: allowed are finite numbers; {bad.sum()} of {len(values)} trials hold others, the first is "
            f"trial {bad.argmax()}. Leave them out or make the features again."
        )
