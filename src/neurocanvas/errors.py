"""The one exception that a user can cause, and the checks that every module shares."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any


class NeuroCanvasError(Exception):
    """Bad input: the message says which argument or file, what is allowed, what came, what to do.

    The command line prints it as one line and exits with code 2.
    """


def check_option(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """Return `value` if it is one of `allowed`, else raise.

    Parameters
    ----------
    name : str
        What the value is, as the user knows it ("granularity", "--model").
    value : object
        What came.
    allowed : iterable
        What may come; take it from the object that is checked, so the message is never stale.

    Returns
    -------
    object
        `value`, unchanged.

    Raises
    ------
    NeuroCanvasError
        If `value` is not allowed.

    Examples
    --------
    >>> check_option("arm", "eeg", ["eeg", "mean"])
    'eeg'
    """
    options = list(allowed)
    if value in options:
        return value
    listed = ", ".join(str(option) for option in options)
    raise NeuroCanvasError(f"{name}: allowed are {listed}; got {value!r}.")


def check_file(path: Path | str, purpose: str) -> Path:
    """Return `path` as a Path if it is a file, else raise.

    Parameters
    ----------
    path : path-like
        The file.
    purpose : str
        What it is for and how to get it: the end of the message's sentence.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    NeuroCanvasError
        If there is no such file.
    """
    found = Path(path)
    if not found.is_file():
        raise NeuroCanvasError(f"{found}: no such file; it should hold {purpose}.")
    return found


def check_folder(path: Path | str, purpose: str) -> Path:
    """Return `path` as a Path if it is a folder, else raise.

    Parameters
    ----------
    path : path-like
        The folder.
    purpose : str
        What it should hold: the end of the message's sentence.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    NeuroCanvasError
        If there is no such folder.
    """
    found = Path(path)
    if not found.is_dir():
        raise NeuroCanvasError(f"{found}: no such folder; it should hold {purpose}.")
    return found


def require(package: str, purpose: str, extra: str) -> ModuleType:
    """Import an optional package, or say what it is for and how to install it.

    Parameters
    ----------
    package : str
        Import name.
    purpose : str
        What needs it.
    extra : str
        The extra of neurocanvas that installs it.

    Returns
    -------
    module
        The imported package.

    Raises
    ------
    NeuroCanvasError
        If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise NeuroCanvasError(
            f"{purpose} needs the package {package.partition('.')[0]}: pip install 'neurocanvas[{extra}]' ({error})."
        ) from error
