"""Arrays that memory does not hold at once: written part by part."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from neurocanvas import pages, store
from neurocanvas.damage import Hashed, check_unchanged, report_damage, seal, unseal


def write_in_parts(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype | type,
    parts: Iterable[np.ndarray],
    print_of_inputs: str,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write an array as `.npy` with its card, atomically: the same bytes as `store.write_array` writes."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with store.atomic(path) as temporary, temporary.open("wb") as stream:
        hashed = Hashed(stream)
        np.lib.format.write_array_header_1_0(hashed, header)
        for part in parts:
            hashed.write(np.ascontiguousarray(part, dtype).data)
    store.finish(path, print_of_inputs, card, digest=hashed.hexdigest())


@contextmanager
def growing_array(
    path: Path,
    shape: tuple[int, ...],
    print_of_inputs: str,
    pieces: Sequence[Sequence[int]] = (),
    card: Mapping[str, Any] | None = None,
) -> Iterator[tuple[np.ndarray, int, Callable[[int], None]]]:
    """Write a large float16 `.npy` with its card piece by piece; a killed run goes on behind the last piece."""
    growing = path.with_name(f".growing-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    state = store.card_path(growing)
    array, done, written = _begun(growing, state, shape, print_of_inputs, pieces)
    if array is None:
        state.unlink(missing_ok=True)  # before the array of other inputs is gone, so that it never speaks of a new one
        array = np.lib.format.open_memmap(growing, mode="w+", dtype=np.float16, shape=shape)
    with growing.open("r+b") as stream:  # a full disk is an error here, and a crash where mapped memory is written
        os.posix_fallocate(stream.fileno(), 0, growing.stat().st_size)
    noted = done

    def note(count: int) -> None:
        nonlocal noted
        _hash(array, pieces[noted:count], written)
        array.flush()
        pages.let_go(array)
        noted = count
        store.write_text(
            state, seal({"fingerprint": print_of_inputs, "done": count, "sha256": written.hexdigest()})
        )

    yield array, done, note
    array.flush()
    digest = store.sha256(growing)
    again = hashlib.sha256()
    _hash(array, pieces[:noted], again)  # after the whole was hashed: what is right now was right then
    check_unchanged(growing, written.hexdigest(), again.hexdigest())
    state.unlink(missing_ok=True)  # first: a run that is killed behind this leaves nothing that its successor overlooks
    os.replace(growing, path)
    store.finish(path, print_of_inputs, card, digest=digest)


def _hash(array: np.ndarray, pieces: Sequence[Sequence[int]], digest: Any) -> None:
    """Add pieces to a digest, row by row: thousands of stimuli may have one caption."""
    size = 0
    for row in chain.from_iterable(pieces):
        digest.update(array[row : row + 1].data)
        size += array[row].nbytes
        if size > pages.AT_ONCE:
            pages.let_go(array)
            size = 0


def _begun(
    growing: Path, state: Path, shape: tuple[int, ...], print_of_inputs: str, pieces: Sequence[Sequence[int]]
) -> tuple[np.memmap | None, int, Any]:
    """What a run of the same inputs began, how far it came, and the digest of that; None if nothing of it is of use."""
    nothing = None, 0, hashlib.sha256()
    try:
        said = unseal(state.read_text(encoding="utf-8"))
        done = int(said["done"]) if said["fingerprint"] == print_of_inputs else 0
        array = np.load(growing, mmap_mode="r+", allow_pickle=False) if done > 0 else None
    except (OSError, ValueError, LookupError, TypeError, EOFError, SyntaxError, TokenError):
        return nothing
    if not isinstance(array, np.memmap) or array.shape != shape or array.dtype != np.float16:
        return nothing
    written = hashlib.sha256()
    _hash(array, pieces[:done], written)
    if written.hexdigest() != said.get("sha256"):
        report_damage(growing)
        return nothing
    return array, done, written
