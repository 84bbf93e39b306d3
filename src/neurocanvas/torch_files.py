"""Files of PyTorch: read without running what is in them, written atomically."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.store import atomic


def read_torch(path: Path | str, purpose: str) -> Any:
    """Read a PyTorch file; its tensors stay on disk until they are used, and no code in it runs."""
    import pickle

    import torch

    check_file(path, purpose)
    try:
        return torch.load(path, mmap=True, weights_only=True, map_location="cpu")
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
            pickled = archive.read(next(one for one in members if one.filename.endswith("data.pkl")))
    except Exception as error:  # zipfile, too, raises many kinds
        raise _damaged(path, error, purpose) from error
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
