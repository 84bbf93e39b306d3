"""Pictures made elsewhere: paired by a table or by equal names, never by sorted listings; and CSV tables of others."""

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
# Optional columns of a pairing table.
KNOWN_OF_PAIRS = ("subject", "concept", "trial", "block", "order")


@dataclass(frozen=True)
class Pairing:
    """Which pictures belong together."""

    images: tuple[Path, ...]  # generated, in the order of the table
    gallery: tuple[Path, ...]  # distinct seen pictures, by name
    seen: np.ndarray  # (n_images,), place in `gallery` of each image
    columns: Mapping[str, np.ndarray]
    notes: tuple[str, ...]


def read_columns(path: Path, needed: Sequence[str], purpose: str) -> dict[str, np.ndarray]:
    """Read a CSV file (UTF-8, commas) as text columns by lower-case name; formula-like cells stay text."""
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
    """Raise unless every needed column is there exactly once."""
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
    """Path of a file in a folder; names that lead out of it are refused."""
    path = check_inside(folder, name, where)
    try:
        is_there = path.is_file()
    except OSError:  # a name that is too long
        is_there = False
    if not is_there:
        raise NeuroCanvasError(f"{where}: no file {name!r} in {folder}; put it there, or leave the row out.")
    return path


def pictures_in(folder: Path) -> list[str]:
    """Relative names of all pictures below a folder, sorted, hidden ones excluded."""
    check_folder(folder, "pictures")
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in FORMATS]
    names = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    if not names:
        raise NeuroCanvasError(f"{folder}: no pictures in it; allowed are {', '.join(FORMATS)}.")
    return names


def read_pairing(images: Path, against: Path, table: Path | None = None) -> Pairing:
    """Pair generated with seen pictures by a table (columns image, against) or, without one, by equal names."""
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
    """Files of some names; raise unless each is a picture inside the folder."""
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
    """Raise if a picture of the folder is in no row or, with `once`, in two."""
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
    """Note on seen pictures that are the same file under two names, which cannot be told apart."""
    by_bytes: dict[str, list[str]] = {}
    for path in gallery:
        by_bytes.setdefault(sha256(path), []).append(path.relative_to(folder).as_posix())
    equal = [names for names in by_bytes.values() if len(names) > 1]
    if not equal:
        return []
    said = f"{equal[0][0]} and {equal[0][1]}"
    return [f"{sum(map(len, equal))} seen pictures are equal to another one, as {said}: they cannot be told apart."]


def choose_size(pairing: Pairing) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Size for the comparison: that of the images if they agree, else a square of their shortest side; and notes."""
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
    """Read pictures in one size, (n, height, width, 3), uint8: largest centred part of that shape, Lanczos."""
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
    with open_picture(path, REMEDY) as image:
        return int(image.size[0]), int(image.size[1])
