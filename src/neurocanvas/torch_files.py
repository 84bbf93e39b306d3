"""Files of PyTorch: read without running what is in them, written atomically."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.store import atomic

_DENSE = {b"tensor", b"tensor_v2", b"parameter"}
_SIZED = re.compile(rb"(?:bytearray|Tensor|UntypedStorage|TypedStorage)\n")  # torch lets a file call these with a size


def read_torch(path: Path | str, purpose: str, place: Callable[[Any, str], Any] | str = "cpu") -> Any:
    """Read a PyTorch file; its tensors stay on disk until they are used, and no code in it runs."""
    import pickle

    import torch

    read_archive(path, purpose)
    try:
        return torch.load(path, mmap=True, weights_only=True, map_location=place)
    except pickle.UnpicklingError as error:
        raise NeuroCanvasError(
            f"{path}: holds more than tensors and plain values, so loading it could run code; it should hold {purpose}."
        ) from error
    except Exception as error:  # torch's unpickler lets whatever damaged data provoke pass
        raise _damaged(path, error, purpose) from error


def read_archive(path: Path | str, purpose: str) -> tuple[list[zipfile.ZipInfo], bytes]:
    """List what is in a PyTorch file, and read what is pickled in it, as bytes; reads no tensor."""
    check_file(path, purpose)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            packed = [one.filename for one in members if one.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise ValueError(f"{packed[0]!r} in it is compressed, which PyTorch never does")
            tables = [one for one in members if one.filename.endswith("data.pkl")]
            if len(tables) != 1:
                raise ValueError(f"one data.pkl is needed in it; there are {len(tables)}")
            pickled = archive.read(tables[0])
    except Exception as error:  # zipfile, too, raises many kinds
        raise _damaged(path, error, purpose) from error
    if _SIZED.search(pickled) or not _DENSE.issuperset(re.findall(rb"_rebuild_(\w+)\n", pickled)):
        raise NeuroCanvasError(f"{path}: holds more than dense tensors and plain values; it should hold {purpose}.")
    return members, pickled


def _damaged(path: Path | str, error: Exception, purpose: str) -> NeuroCanvasError:
    """The error of a file that cannot be read."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return NeuroCanvasError(f"{path}: truncated, or not a PyTorch file ({reason}); it should hold {purpose}.")


def write_torch(path: Path, value: Any) -> None:
    """Write a PyTorch file atomically."""
    # torch refuses to open a name that starts with a dot itself
    with atomic(path) as temporary, temporary.open("wb") as stream:
        save_torch(value, stream)


def save_torch(value: Any, stream: IO[bytes]) -> None:
    """Write what PyTorch can read to an open file; the same value gives the same bytes, whatever the file's name."""
    import torch

    try:
        torch.save(value, stream)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
