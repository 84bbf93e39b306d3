"""Tables behind the page: CSV files of a run folder, and the numbers of a figure as a link that downloads them."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.safe_text import csv_text, read_csv_cell
from neurocanvas.store import read_text


def read_csv(path: Path, verb: str, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read a CSV file with a header."""
    header, *cells = _cells(path, verb)
    if any(len(row) != len(header) for row in cells):
        raise NeuroCanvasError(f"{path}: columns {', '.join(columns) or 'of one length'} are needed; run {verb} again.")
    rows = [dict(zip(header, row, strict=True)) for row in cells]
    missing = [name for name in columns if rows and rows[0].get(name) is None]
    if missing:
        raise NeuroCanvasError(f"{path}: columns {', '.join(columns) or 'of one length'} are needed; run {verb} again.")
    return rows


def _cells(path: Path, verb: str) -> list[list[str]]:
    """Rows of a CSV file, the header first."""
    text = read_text(path, f"a table; run the verb {verb}")
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise NeuroCanvasError(f"{path}: not CSV ({error}); run {verb} again.") from error
    return [list(map(read_csv_cell, row)) for row in rows] or [[]]


def number_in(row: Mapping[str, str], column: str, path: Path, verb: str) -> float:
    """Read a number of a row."""
    try:
        return float(row[column] or "nan")
    except ValueError as error:
        raise NeuroCanvasError(f"{path}: {column} must be a number; got {row[column]!r}; run {verb} again.") from error


def csv_link(name: str, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> Markup:
    """Put a table into a link that saves it as a CSV file, in which no text is a formula."""
    content = csv_text([columns, *rows])
    link = Markup('<a class="csv" download="{0}" href="data:text/csv;charset=utf-8;base64,{1}">{0}</a>')
    return link.format(name, base64.b64encode(content.encode("utf-8", "replace")).decode())


def file_link(path: Path, verb: str) -> Markup:
    """Put a CSV file of the run folder into a link that saves it."""
    header, *rows = _cells(path, verb)
    return csv_link(path.name, header, rows)
