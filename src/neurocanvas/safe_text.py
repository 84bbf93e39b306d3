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
    """Make text safe to print: one line that cannot steer the terminal.

    Parameters
    ----------
    text : object
        Is turned into a string.

    Returns
    -------
    str
        Line ends and tabs are blanks; other control characters, halves of surrogate pairs (names of files that are not
        UTF-8) and marks that turn the direction of writing are "?".

    Examples
    --------
    >>> printable("red \\x1b[31m\\nagain")
    'red ?[31m again'
    """
    return _CONTROL.sub(lambda found: " " if found[0] in "\t\n\r\v\f\u2028\u2029" else "?", str(text))


def csv_cell(value: object) -> object:
    """Make a cell of a CSV file that no spreadsheet program takes for a formula.

    Parameters
    ----------
    value : object
        Numbers, and texts that are numbers, stay as they are.

    Returns
    -------
    object
        Text that begins with one of ``= + - @``, a tab or a line end has an apostrophe before it; so has text that
        begins with apostrophes before one of these, and `read_csv_cell` gives every text back.

    Examples
    --------
    >>> csv_cell("=1+1"), csv_cell("-0.5"), csv_cell(-0.5), csv_cell("cat")
    ("'=1+1", '-0.5', -0.5, 'cat')
    """
    if not isinstance(value, str) or not _FORMULA.match(value) or _is_number(value):
        return value
    return f"'{value}"


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Write a CSV file in which no text is a formula.

    Parameters
    ----------
    rows : iterable of iterables
        The header first; None is written as nothing.

    Returns
    -------
    str
        With Unix line ends. A cell with a carriage return is quoted, which Python's writer leaves undone with these:
        what is behind it would be a row of its own.

    Examples
    --------
    >>> csv_text([["name", "p"], ["=1+1", 0.5], ["cat", None]]).splitlines()
    ['name,p', "'=1+1,0.5", 'cat,']
    """
    return "".join((",".join(map(_quoted, row)) or '""') + "\n" for row in rows)


def _quoted(value: object) -> str:
    """One cell."""
    text = "" if value is None else str(csv_cell(value))
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text


def read_csv_cell(cell: str) -> str:
    """Undo `csv_cell`.

    Parameters
    ----------
    cell : str
        Of a file.

    Returns
    -------
    str

    Examples
    --------
    >>> read_csv_cell("'=1+1"), read_csv_cell("'tis")
    ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _is_number(text: str) -> bool:
    """Whether a text is a number and nothing else."""
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-](inf|nan)", text) is not None


def latex(text: str) -> str:
    """Write text for LaTeX: nothing in it is a command.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
        On one line.

    Examples
    --------
    >>> latex(r"\\input{x} 50% ±1")
    '\\\\textbackslash{}input\\\\{x\\\\} 50\\\\% $\\\\pm$1'
    """
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))
