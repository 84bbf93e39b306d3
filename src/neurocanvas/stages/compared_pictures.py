"""The pictures that are compared: files, of which no more are in memory than are looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurocanvas.evaluation.pairing import read_pictures
from neurocanvas.families import batches
from neurocanvas.stages.run import read_picture


@dataclass(frozen=True)
class Pictures(Sequence[np.ndarray]):
    """Pictures in files, read when they are asked for."""

    paths: tuple[Path, ...]
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: int | slice, /) -> np.ndarray:  # type: ignore[override]
        """(n, height, width, 3), uint8; of a number the one picture."""
        if not isinstance(rows, slice):
            return self._read([self.paths[rows]])[0]
        return self._read(self.paths[rows])

    def at(self, folder: Path) -> Pictures:
        """Say where the run folder is."""
        return Pictures(tuple(folder / path for path in self.paths), self.size)

    def parts(self, size: int) -> list[Pictures]:
        """Cut them into consecutive parts."""
        return [Pictures(self.paths[part], self.size) for part in batches(len(self), size)]

    def take(self, rows: np.ndarray) -> Pictures:
        """Give some, or some more than once, still unread."""
        return Pictures(tuple(self.paths[row] for row in rows.tolist()), self.size)

    def _read(self, paths: Sequence[Path]) -> np.ndarray:
        """Pictures of files, as they are or in one size."""
        if self.size is None:
            return np.stack([read_picture(path) for path in paths])
        return read_pictures(paths, self.size)


@dataclass(frozen=True)
class Given:
    """The pictures that are compared; as `compare` takes them."""

    drawn: Mapping[str, Pictures]
    seen: Pictures
    shown: Mapping[str, np.ndarray]

    def at(self, folder: Path) -> Given:
        """Say where the run folder is."""
        drawn = {arm: pictures.at(folder) for arm, pictures in self.drawn.items()}
        return Given(drawn, self.seen.at(folder), self.shown)
