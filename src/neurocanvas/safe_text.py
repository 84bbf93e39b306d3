"""Text from elsewhere, made harmless for where it goes: a terminal, a CSV file, LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
    "±": r"$\pm$", "†": r"$^\dagger$", "°": r"$^\circ$", **{sign: f"\\{sign}" for sign in "{}$&#_%"},
}  # fmt: skip


def printable(text: object) -> str:
    """Make text safe to print: one line that cannot steer the terminal."""
    return _CONTROL.sub(lambda found: " " if found[0] in "\t\n\r\v\f\u2028\u2029" else "?", str(text))


def csv_cell(value: object) -> object:
    """Make a cell of a CSV file that no spreadsheet program takes for a formula."""
    if not isinstance(value, str) or not _FORMULA.match(value) or _is_number(value):
        return value
    return f"'{value}"


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Write a CSV file in which no text is a formula."""
    return "".join((",".join(map(_quoted, row)) or '""') + "\n" for row in rows)


def _quoted(value: object) -> str:
    """One cell."""
    text = "" if value is None else str(csv_cell(value))
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text


def read_csv_cell(cell: str) -> str:
    """Undo `csv_cell`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _is_number(text: str) -> bool:
    """Whether a text is a number and nothing else."""
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-](inf|nan)", text) is not None


def latex(text: str) -> str:
    """Write text for LaTeX: nothing in it is a command."""
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))
