"""Pictures made elsewhere: which of two folders belong together, by a table and never by listings; tables of others."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_folder, check_inside
from neurocanvas.picture_files import FORMATS, open_picture
from neurocanvas.safe_text import read_csv_cell
from neurocanvas.store import read_text, sha256

NEEDED = ("image", "against")
REMEDY = "make it again, or leave it out"
KNOWN_OF_PAIRS = ("subject", "concept", "trial", "block", "order")
"""Columns that a pairing table may have beside `NEEDED`."""


@dataclass(frozen=True)
class Pairing:
    """Which pictures belong together.

    Parameters
    ----------
    images : tuple of Path
        The pictures that were made, in the order of the table.
    gallery : tuple of Path
        The distinct pictures that were seen, in the order of their names.
    seen : array of int, shape (n_images,)
        Which of `gallery` belongs to each of `images`.
    columns : mapping of str to array of str, shape (n_images,)
        Those of `KNOWN_OF_PAIRS` that the table has.
    notes : tuple of str
        How they were paired, and what the reader should know.
    """

    images: tuple[Path, ...]
    gallery: tuple[Path, ...]
    seen: np.ndarray
    columns: Mapping[str, np.ndarray]
    notes: tuple[str, ...]


def read_columns(path: Path, needed: Sequence[str], purpose: str) -> dict[str, np.ndarray]:
    """Read a CSV file with a header, as text; a cell that looks like a formula is a cell.

    Parameters
    ----------
    path : Path
        UTF-8, separated by commas, as Excel's "CSV UTF-8" is.
    needed : sequence of str
        Columns that must be there.
    purpose : str
        What the file should hold, for errors.

    Returns
    -------
    dict of str to array of str, shape (n_rows,)
        Every column by its name in small letters, without blanks around names and cells.

    Raises
    ------
    NeuroCanvasError
        If the file is missing, not UTF-8, not CSV, has no rows, lacks a column, has one twice, or a row is
        shorter or longer than the header.
    """
    text = read_text(path, purpose).removeprefix("\ufeff")
    if "\0" in text:
        raise NeuroCanvasError(f"{path}: not a text file (it holds a zero byte); it should hold {purpose}.")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    header: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [read_csv_cell(cell.strip()).lower() for cell in cells]
                check_header(path, header, needed)
            elif len(cells) != len(header):
                raise NeuroCanvasError(
                    f"{path}: line {reader.line_num}: {len(header)} cells are needed, as in the header; got "
                    f"{len(cells)}; put cells with commas into quotes."
                )
            else:
                rows.append([read_csv_cell(cell.strip()) for cell in cells])
    except csv.Error as error:
        raise NeuroCanvasError(f"{path}: line {reader.line_num}: not CSV ({error}); save it as CSV UTF-8.") from error
    if not rows:
        raise NeuroCanvasError(f"{path}: no rows; it should hold {purpose}.")
    return {name: np.array(column, dtype=np.str_) for name, column in zip(header, zip(*rows, strict=True), strict=True)}


def check_header(path: Path, header: Sequence[str], needed: Iterable[str]) -> None:
    """Raise unless the columns that are needed are there once.

    Parameters
    ----------
    path : Path
        For the error.
    header : sequence of str
        Names of the columns.
    needed : iterable of str

    Raises
    ------
    NeuroCanvasError
        Naming the column.
    """
    missing = [name for name in needed if name not in header]
    if missing:
        said = ", ".join(header[:20]) or "none"
        raise NeuroCanvasError(
            f"{path}: the column {missing[0]} is missing; it has {said}; separate cells by commas and name the columns "
            "in the first line."
        )
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise NeuroCanvasError(f"{path}: the column {twice[0] or '(without a name)'} is there twice; keep one.")


def inside(folder: Path, name: str, where: str) -> Path:
    """Find a file by its name in a folder, and nothing outside of it.

    Parameters
    ----------
    folder : Path
    name : str
        Relative to it, with "/" between folders.
    where : str
        Which table and row names it, for the error.

    Returns
    -------
    Path

    Raises
    ------
    NeuroCanvasError
        If the name is empty, absolute, holds "..", leads out of the folder by a link, or names no file.
    """
    path = check_inside(folder, name, where)
    try:
        is_there = path.is_file()
    except OSError:  # a name that is too long
        is_there = False
    if not is_there:
        raise NeuroCanvasError(f"{where}: no file {name!r} in {folder}; put it there, or leave the row out.")
    return path


def pictures_in(folder: Path) -> list[str]:
    """List the pictures in a folder and the folders below it, hidden ones aside.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    list of str
        Names relative to the folder, in alphabetical order.

    Raises
    ------
    NeuroCanvasError
        If there is no such folder, or no picture in it.
    """
    check_folder(folder, "pictures")
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in FORMATS]
    names = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    if not names:
        raise NeuroCanvasError(f"{folder}: no pictures in it; allowed are {', '.join(FORMATS)}.")
    return names


def read_pairing(images: Path, against: Path, table: Path | None = None) -> Pairing:
    """Pair the pictures that were made with those that were seen.

    Parameters
    ----------
    images, against : Path
        Folders of the pictures that were made and that were seen.
    table : Path, optional
        CSV with the columns `image` and `against`, names relative to the folders, and any of `KNOWN_OF_PAIRS`; every
        picture of both folders in it. A seen picture may be in several rows, one that was made in one. Without
        a table both folders must hold files of the same names, which are then paired.

    Returns
    -------
    Pairing

    Raises
    ------
    NeuroCanvasError
        If a picture is missing, is in two rows or in none, a name leaves its folder, or names differ and there is
        no table.
    """
    made, shown = pictures_in(images), pictures_in(against)
    if table is None:
        _check_same_names(images, made, against, shown)
        rows: dict[str, np.ndarray] = {name: np.array(made) for name in NEEDED}
        notes = [f"Paired by name: both folders hold the same {len(made)} file names."]
    else:
        rows = read_columns(table, NEEDED, "one row per picture: image, against")
        notes = [f"Paired by {table.name}: {len(rows['image'])} rows."]
        unread = [name for name in rows if name not in (*NEEDED, *KNOWN_OF_PAIRS)]
        notes += [f"Columns that were not read: {', '.join(unread)}."] if unread else []
    source = str(table or images)
    made_paths = _found(images, rows["image"], f"{source}: image")
    shown_paths = _found(against, rows["against"], f"{source}: against")
    if table is not None:
        _check_complete(table, images, made, made_paths, once=True)
        _check_complete(table, against, shown, shown_paths, once=False)
    gallery = sorted(dict.fromkeys(shown_paths), key=lambda path: path.relative_to(against).as_posix())
    place = {path: number for number, path in enumerate(gallery)}
    columns = {name: rows[name] for name in KNOWN_OF_PAIRS if name in rows}
    seen = np.array([place[path] for path in shown_paths])
    notes += _equal_files(gallery, against)
    return Pairing(tuple(made_paths), tuple(gallery), seen, columns, tuple(notes))


def _found(folder: Path, names: np.ndarray, where: str) -> list[Path]:
    """The files of some names, every one a picture inside the folder."""
    paths = [inside(folder, str(name), f"{where}, row {row}") for row, name in enumerate(names, 1)]
    for row, path in enumerate(paths, 1):
        if path.suffix.lower() not in FORMATS:
            raise NeuroCanvasError(f"{where}, row {row}: allowed are {', '.join(FORMATS)}; got {path.name!r}.")
    return paths


def _check_same_names(images: Path, made: Sequence[str], against: Path, shown: Sequence[str]) -> None:
    """Raise unless two folders hold files of the same names."""
    alone = [(images, name) for name in made if name not in set(shown)]
    alone += [(against, name) for name in shown if name not in set(made)]
    if alone:
        folder, name = alone[0]
        raise NeuroCanvasError(
            f"{folder}: {name!r} has no file of the same name in the other folder, nor have {len(alone) - 1} more; say "
            "by a table which pictures belong together (CSV with the columns image and against)."
        )


def _check_complete(table: Path, folder: Path, names: Sequence[str], paths: Sequence[Path], *, once: bool) -> None:
    """Raise if a picture of the folder is in no row, or one that may be in one row is in two."""
    given = [path.relative_to(folder).as_posix() for path in paths]
    first: dict[str, int] = {}
    for row, name in enumerate(given, 1):
        if once and name in first:
            raise NeuroCanvasError(
                f"{table}: rows {first[name]} and {row} both name {name!r} of {folder}; one picture belongs in one row."
            )
        first.setdefault(name, row)
    extra = [name for name in names if name not in first]
    if extra:
        raise NeuroCanvasError(
            f"{table}: {len(extra)} pictures of {folder} are in no row, the first {extra[0]!r}; add rows, or take "
            "the pictures out of the folder."
        )


def _equal_files(gallery: Sequence[Path], folder: Path) -> list[str]:
    """Say it if seen pictures are the same file under two names: then they cannot be told apart."""
    by_bytes: dict[str, list[str]] = {}
    for path in gallery:
        by_bytes.setdefault(sha256(path), []).append(path.relative_to(folder).as_posix())
    equal = [names for names in by_bytes.values() if len(names) > 1]
    if not equal:
        return []
    said = f"{equal[0][0]} and {equal[0][1]}"
    return [f"{sum(map(len, equal))} seen pictures are equal to another one, as {said}: they cannot be told apart."]


def choose_size(pairing: Pairing) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Choose the size in which all pictures are compared; reads only the files' heads.

    Parameters
    ----------
    pairing : Pairing

    Returns
    -------
    size : (int, int)
        Width and height: that of the pictures that were made if they agree, else a square as wide as the shortest side
        among them.
    notes : tuple of str
        What is done to those of another size.

    Raises
    ------
    NeuroCanvasError
        If a file is not a picture, or claims more than 50 million pixels.
    """
    made = [_opened_size(path) for path in pairing.images]
    shortest = min(min(size) for size in made)
    size = made[0] if len(set(made)) == 1 else (shortest, shortest)
    others = sum(one != size for one in [*made, *map(_opened_size, pairing.gallery)])
    if not others:
        return size, ()
    return size, (
        f"{others} of {len(made) + len(pairing.gallery)} pictures had another size and were brought to "
        f"{size[0]} x {size[1]} px: the largest centred part of that shape, Lanczos.",
    )


def read_pictures(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    """Read pictures in one size.

    Parameters
    ----------
    paths : sequence of Path
    size : (int, int)
        Width and height; a picture of another size is cut to the largest centred part of that shape and resized by
        Lanczos.

    Returns
    -------
    array, shape (n, height, width, 3), uint8, RGB

    Raises
    ------
    NeuroCanvasError
        If a file is damaged, not a picture, has more than 8 bits per channel, or claims more than 50 million pixels.
    """
    from PIL import Image, ImageOps

    pictures = np.empty((len(paths), size[1], size[0], 3), dtype=np.uint8)
    for row, path in enumerate(paths):
        with open_picture(path, REMEDY) as image:
            colour = image.convert("RGB")
        if colour.size != size:
            colour = ImageOps.fit(colour, size, Image.Resampling.LANCZOS)
        pictures[row] = np.asarray(colour)
    return pictures


def _opened_size(path: Path) -> tuple[int, int]:
    """Width and height, from the file's head."""
    with open_picture(path, REMEDY) as image:
        return int(image.size[0]), int(image.size[1])
