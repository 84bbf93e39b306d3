"""The pictures that are compared, read from their files when needed, and what earlier evaluations computed of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from neurocanvas import store
from neurocanvas.errors import check_file
from neurocanvas.evaluation.pairing import read_pictures
from neurocanvas.families import batches
from neurocanvas.stages.run import Run, read_picture


@dataclass(frozen=True)
class Pictures(Sequence[np.ndarray]):
    """Pictures in files, as they are or in one size."""

    paths: tuple[Path, ...]
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: int | slice, /) -> np.ndarray:  # type: ignore[override]
        """(n, height, width, 3), uint8; for an integer that one picture."""
        if not isinstance(rows, slice):
            return self._read([self.paths[rows]])[0]
        return self._read(self.paths[rows])

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Of each picture a hash of its file and of the size at which it is compared."""
        of_path = {
            path: store.fingerprint(check_file(path, "a picture; make it again").read_bytes(), self.size)
            for path in dict.fromkeys(self.paths)
        }
        return tuple(of_path[path] for path in self.paths)

    def parts(self, size: int) -> list[Pictures]:
        """Cut them into consecutive parts."""
        return [Pictures(self.paths[part], self.size) for part in batches(len(self), size)]

    def take(self, rows: np.ndarray) -> Pictures:
        """Select rows, some perhaps more than once; nothing is read."""
        return Pictures(tuple(self.paths[row] for row in rows.tolist()), self.size)

    def _read(self, paths: Sequence[Path]) -> np.ndarray:
        if self.size is None:
            return np.stack([read_picture(path) for path in paths])
        return read_pictures(paths, self.size)


@dataclass(frozen=True)
class Given:
    """What is compared: the pictures of every arm, the gallery of seen ones, and each trial's row in the gallery."""

    drawn: Mapping[str, Pictures]
    seen: Pictures
    shown: Mapping[str, np.ndarray]

    def pairs(self, arm: str) -> list[str]:
        """Of each trial of an arm a key of the drawn and the seen picture."""
        seen = np.array(self.seen.keys)[self.shown[arm]]
        return [f"{drawn}-{own}" for drawn, own in zip(self.drawn[arm].keys, seen, strict=True)]


def cached(
    run: Run, name: str, made_by: str, keys: Sequence[str], compute: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """One row per key: stored by the last evaluation, or from `compute`, which gets the positions of the missing ones.
    `made_by` is the fingerprint of the metric and its settings."""
    path = run.folder / "scores" / "per_image" / f"{name}.npy"
    wanted, first, own = np.unique(np.asarray(keys), return_index=True, return_inverse=True)
    stored: dict[str, int] = {}
    if store.is_done(path, made_by):
        stored = {key: row for row, key in enumerate(store.read_card(path)["keys"])}
    missing = np.sort([position for key, position in zip(wanted.tolist(), first, strict=True) if key not in stored])
    fresh = compute(missing) if len(missing) else np.empty(0)
    old = store.read_array(path, "what earlier evaluations computed") if stored else fresh
    if len(missing) or len(stored) > len(wanted):
        place = {str(keys[position]): row for row, position in enumerate(missing.tolist())}
        rows = np.stack([fresh[place[key]] if key in place else old[stored[key]] for key in wanted.tolist()])
        store.write_array(path, rows, made_by, {"keys": wanted.tolist()})
    else:
        rows = np.asarray(old)
    return rows[own]
