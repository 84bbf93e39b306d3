"""Pictures made elsewhere: which of two folders belong together, by a table and never by listings; tables of others."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_folder
from neurocanvas.store import read_text, sha256

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP", ".tif": "TIFF",
        ".tiff": "TIFF",
    }
)  # fmt: skip
"""Suffixes of pictures -> what Pillow may decode; nothing else is tried, whatever a file is."""

NEEDED = ("image", "against")
KNOWN_OF_PAIRS = ("subject", "concept", "trial", "block", "order")
"""Columns that a pairing table may have beside `NEEDED`."""

MANY_PIXELS = 50_000_000
"""A picture of more pixels is refused: a few bytes of a file can claim to be any size."""


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
                header = [cell.strip().lower() for cell in cells]
                check_header(path, header, needed)
            elif len(cells) != len(header):
                raise NeuroCanvasError(
                    f"{path}: line {reader.line_num}: {len(header)} cells are needed, as in the header; got "
                    f"{len(cells)}; put cells with commas into quotes."
                )
            else:
                rows.append([cell.strip() for cell in cells])
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
    parts = PurePosixPath(name).parts
    outside = PureWindowsPath(name).drive or "\\" in name or name.startswith("/") or ".." in parts
    if not parts or outside or any(ord(letter) < 32 for letter in name):
        raise NeuroCanvasError(f"{where}: a name inside {folder} is needed, as a.png or part/a.png; got {name!r}.")
    path = folder.joinpath(*parts)
    try:
        stays = path.resolve().is_relative_to(folder.resolve())
        is_there = stays and path.is_file()
    except (OSError, RuntimeError):  # a name too long, or links in a circle
        stays, is_there = True, False
    if not stays:
        raise NeuroCanvasError(f"{where}: {name!r} is a link that leaves {folder}; put the file itself there.")
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
        with _open(path) as image:
            try:
                colour = image.convert("RGB")
            except (OSError, SyntaxError, ValueError, EOFError) as error:
                raise NeuroCanvasError(f"{path}: damaged ({error}); make it again, or leave it out.") from error
        if colour.size != size:
            colour = ImageOps.fit(colour, size, Image.Resampling.LANCZOS)
        pictures[row] = np.asarray(colour)
    return pictures


def _opened_size(path: Path) -> tuple[int, int]:
    """Width and height, from the file's head."""
    with _open(path) as image:
        return int(image.size[0]), int(image.size[1])


def _open(path: Path) -> Any:
    """Open a picture without decoding it, if it is one of the formats and of a plausible size."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is the stricter one
            image = Image.open(path, formats=sorted(set(FORMATS.values())))
    except Image.DecompressionBombError as error:
        raise NeuroCanvasError(f"{path}: claims to have too many pixels ({error}); leave it out.") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise NeuroCanvasError(f"{path}: not a picture ({error}); allowed are {', '.join(FORMATS)}.") from error
    if image.size[0] * image.size[1] > MANY_PIXELS:
        image.close()
        raise NeuroCanvasError(
            f"{path}: claims {image.size[0]} x {image.size[1]} pixels, {MANY_PIXELS:,} are allowed; make it smaller."
        )
    if image.mode.startswith(("I", "F")):
        image.close()
        raise NeuroCanvasError(f"{path}: 8 bits per channel are needed; it has the mode {image.mode}; convert it.")
    return image
