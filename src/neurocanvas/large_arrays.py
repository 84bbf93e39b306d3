"""Arrays that memory does not hold at once: written part by part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store


def write_in_parts(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype | type,
    parts: Iterable[np.ndarray],
    print_of_inputs: str,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write an array as `.npy` with its card, atomically: the same bytes as `store.write_array` writes.

    Parameters
    ----------
    path : Path
        Ends in `.npy`.
    shape : tuple of int
        Of the whole array.
    dtype : dtype
    parts : iterable of array
        Its rows, in order.
    print_of_inputs : str
        `fingerprint` of everything that it depends on.
    card : mapping, optional
        What else a reader should know.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with store.atomic(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(np.ascontiguousarray(part, dtype).data)
    store.finish(path, print_of_inputs, card)
