"""Files of PyTorch: read without running what is in them, written atomically."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.store import atomic


def read_torch(path: Path | str, purpose: str, place: Callable[[Any, str], Any] | str = "cpu") -> Any:
    """Read a PyTorch file; its tensors stay on disk until they are used, and no code in it runs.

    Parameters
    ----------
    path : path-like
        Where from.
    purpose : str
        What the file should hold, for the error.
    place : callable or str
        torch.load's `map_location`; a callable sees every storage.

    Returns
    -------
    object
        Tensors on the CPU, and plain values.

    Raises
    ------
    NeuroCanvasError
        If it is missing, truncated, no PyTorch file, or holds more than tensors and plain values.
    """
    import pickle

    import torch

    try:
        return torch.load(check_file(path, purpose), mmap=True, weights_only=True, map_location=place)
    except pickle.UnpicklingError as error:
        raise NeuroCanvasError(
            f"{path}: holds more than tensors and plain values, so loading it could run code; it should hold {purpose}."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise NeuroCanvasError(
            f"{path}: truncated, or not a PyTorch file ({reason}); it should hold {purpose}."
        ) from error


def write_torch(path: Path, value: Any) -> None:
    """Write a PyTorch file atomically.

    Parameters
    ----------
    path : Path
        Where to.
    value : object
        Tensors and plain values.
    """
    import torch

    # torch refuses to open a name that starts with a dot itself
    with atomic(path) as temporary, temporary.open("wb") as stream:
        torch.save(value, stream)
