"""Pages of mapped files, given back: a kernel counts them as memory of a process until it wants them itself."""

from __future__ import annotations

import io
import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# Bytes that are read or written before their pages are given back.
AT_ONCE = 100_000_000


def let_go(array: np.ndarray) -> None:
    """Give back the pages of a mapped file that were read or written; of other arrays, do nothing."""
    mapped = getattr(array, "_mmap", None)
    is_shared = getattr(array, "mode", "c") != "c"  # what is written to a copy is nowhere else
    if mapped is not None and is_shared and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Give the bytes of an array in C order, some rows at a time."""
    if array.dtype == object:
        array = np.frombuffer(repr(array.tolist()).encode(), np.uint8)
    table = np.atleast_1d(array)
    rows = max(1, AT_ONCE * len(table) // max(1, table.nbytes))
    for start in range(0, len(table), rows):
        yield np.ascontiguousarray(table[start : start + rows]).reshape(-1).view(np.uint8)
        let_go(table)


@contextmanager
def scratch(folder: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Give an array that lies in an unnamed file, which is gone afterwards, even if the process is killed."""
    with tempfile.TemporaryFile(dir=folder) as stream:
        # a full disk is an error here, and a crash where mapped memory is written
        os.posix_fallocate(stream.fileno(), 0, max(1, 4 * math.prod(shape)))
        yield np.memmap(stream, dtype=np.float32, mode="w+", shape=shape)


class LettingGo(io.BufferedWriter):
    """A file to write to, which gives back the pages of what is written."""

    def __init__(self, path: Path, array: np.ndarray) -> None:
        super().__init__(io.FileIO(path, "w"))
        self._array, self._written = array, 0

    def write(self, content: Any) -> int:
        """Write bytes."""
        count = super().write(content)
        self._written += count
        if self._written > AT_ONCE:
            let_go(self._array)
            self._written = 0
        return count
