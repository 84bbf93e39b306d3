"""The one exception for bad input, and checks that modules share."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import ModuleType
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-](inf|nan)")

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
    "±": r"$\pm$", "†": r"$^\dagger$", "°": r"$^\circ$", **{sign: f"\\{sign}" for sign in "{}$&#_%"},
}  # fmt: skip


def printable(text: object) -> str:
    """Text as one line without control characters of the terminal."""
    return _CONTROL.sub(lambda match: " " if match[0] in "\t\n\r\v\f\u2028\u2029" else "?", str(text))


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Text of a CSV file; an apostrophe precedes cells that a spreadsheet would read as formulas."""
    lines = []
    for row in rows:
        cells = []
        for value in row:
            formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
            text = "" if value is None else f"'{value}" if formula else str(value)
            cells.append('"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text)
        lines.append((",".join(cells) or '""') + "\n")
    return "".join(lines)


def read_csv_cell(cell: str) -> str:
    """A cell of `csv_text` without the apostrophe."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def latex(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))


class NeuroCanvasError(Exception):
    """Bad input: the message names the argument or file, the allowed and the given value, and the remedy.

    The command line prints it as one line, without control characters, and exits with code 2.

    Parameters
    ----------
    message : str
        Description of the error.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


def check_option(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """Return `value` if it is one of `allowed`, else raise."""
    options = list(allowed)
    if value in options:
        return value
    listed = ", ".join(str(option) for option in options)
    raise NeuroCanvasError(f"{name}: allowed are {listed}; got {value!r}.")


def check_file(path: Path | str, purpose: str) -> Path:
    """Return `path` as a Path if it is a file, else raise."""
    if not Path(path).is_file():
        raise NeuroCanvasError(f"{path}: no such file; it should hold {purpose}.")
    return Path(path)


def check_folder(path: Path | str, purpose: str) -> Path:
    """Return `path` as a Path if it is a folder, else raise."""
    if not Path(path).is_dir():
        raise NeuroCanvasError(f"{path}: no such folder; it should hold {purpose}.")
    return Path(path)


def check_name(folder: Path, name: Any, where: str) -> str:
    """Return a relative file name if it stays below a folder, without reading the disk."""
    text = name if isinstance(name, str) else ""
    parts = PurePosixPath(text).parts
    leaves = text.startswith("/") or "\\" in text or ".." in parts or PureWindowsPath(text).drive
    if not parts or leaves or printable(text) != text:
        raise NeuroCanvasError(f"{where}: a name inside {folder} is needed, such as a.png or part/a.png; got {name!r}.")
    return text


def check_inside(folder: Path, name: Any, where: str) -> Path:
    """Join a folder and a name that was read from a file; raise if the path leaves the folder."""
    check_name(folder, name, where)
    path = folder.joinpath(*PurePosixPath(name).parts)
    try:
        stays = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # the name is too long, or links form a circle: no such file exists
        stays = True
    if not stays:
        raise NeuroCanvasError(f"{where}: {name!r} is a link that leaves {folder}; put the file itself there.")
    return path


def require(package: str, purpose: str, extra: str) -> ModuleType:
    """Import an optional package, or raise with its purpose and its installation."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise NeuroCanvasError(
            f"{purpose} needs the package {package.partition('.')[0]}: pip install 'neurocanvas[{extra}]' ({error})."
        ) from error
