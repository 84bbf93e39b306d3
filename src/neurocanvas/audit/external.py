"""Results from elsewhere as a case to audit: tables of predictions (CSV or parquet) and folders of images."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas.artifacts import read_text, sha256
from neurocanvas.audit.overlap import PARTS, AuditInput, Predictions
from neurocanvas.audit.verdict import GIVEN, MADE_ELSEWHERE, SELECTIONS
from neurocanvas.data.images import FORMATS, open_picture
from neurocanvas.data.splits import COUNTED_WITHIN, blocked_trials, in_recorded_order
from neurocanvas.data.trials import ranks, without_signal
from neurocanvas.errors import (
    NeuroCanvasError,
    check_file,
    check_folder,
    check_inside,
    check_option,
    read_csv_cell,
    require,
)
from neurocanvas.findings import Finding, finding, read_findings

PAIR_COLUMNS = ("image", "against")
REMEDY = "make it again, or leave it out"
# Optional columns of a pairing table.
KNOWN_OF_PAIRS = ("subject", "concept", "trial", "block", "order")


@dataclass(frozen=True)
class Pairing:
    """Which images belong together."""

    images: tuple[Path, ...]  # generated, in the order of the table
    gallery: tuple[Path, ...]  # distinct seen images, by name
    seen: np.ndarray  # (n_images,), place in `gallery` of each image
    columns: Mapping[str, np.ndarray]
    findings: tuple[Finding, ...]


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
    """Relative names of all images below a folder, sorted, hidden ones excluded."""
    check_folder(folder, "pictures")
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in FORMATS]
    names = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    if not names:
        raise NeuroCanvasError(f"{folder}: no images in it; allowed are {', '.join(FORMATS)}.")
    return names


def read_pairing(images: Path, against: Path, table: Path | None = None) -> Pairing:
    """Pair generated with seen images by a table (columns image, against) or, without one, by equal names."""
    made, shown = pictures_in(images), pictures_in(against)
    if table is None:
        _check_same_names(images, made, against, shown)
        rows: dict[str, np.ndarray] = {name: np.array(made) for name in PAIR_COLUMNS}
        found = [finding("paired-by-name", n=len(made))]
    else:
        rows = read_columns(table, PAIR_COLUMNS, "one row per image: image, against")
        found = [finding("paired-by-table", table=table.name, n=len(rows["image"]))]
        unread = [name for name in rows if name not in (*PAIR_COLUMNS, *KNOWN_OF_PAIRS)]
        found += [finding("columns-unread", columns=", ".join(unread))] if unread else []
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
    by_bytes: dict[str, list[str]] = {}
    for path in gallery:
        by_bytes.setdefault(sha256(path), []).append(path.relative_to(against).as_posix())
    equal = [names for names in by_bytes.values() if len(names) > 1]
    if equal:
        found.append(finding("equal-pictures", n=sum(map(len, equal)), first=equal[0][0], second=equal[0][1]))
    return Pairing(tuple(made_paths), tuple(gallery), seen, columns, tuple(found))


def _found(folder: Path, names: np.ndarray, where: str) -> list[Path]:
    """Files of some names; raise unless each is an image inside the folder."""
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
            f"{folder}: {name!r} has no file of the same name in the other folder, nor have {len(alone) - 1} more; "
            "pair the images by a table (CSV with the columns image and against)."
        )


def _check_complete(table: Path, folder: Path, names: Sequence[str], paths: Sequence[Path], *, once: bool) -> None:
    """Raise if an image of the folder is in no row or, with `once`, in two."""
    given = [path.relative_to(folder).as_posix() for path in paths]
    first: dict[str, int] = {}
    for row, name in enumerate(given, 1):
        if once and name in first:
            raise NeuroCanvasError(
                f"{table}: rows {first[name]} and {row} both name {name!r} of {folder}; one image belongs in one row."
            )
        first.setdefault(name, row)
    extra = [name for name in names if name not in first]
    if extra:
        raise NeuroCanvasError(
            f"{table}: {len(extra)} images of {folder} are in no row, the first {extra[0]!r}; add rows, or take "
            "the images out of the folder."
        )


def choose_size(pairing: Pairing) -> tuple[tuple[int, int], tuple[Finding, ...]]:
    """Size for the comparison: that of the images if they agree, else a square of their shortest side."""
    made = [_opened_size(path) for path in pairing.images]
    shortest = min(min(size) for size in made)
    size = made[0] if len(set(made)) == 1 else (shortest, shortest)
    others = sum(one != size for one in [*made, *map(_opened_size, pairing.gallery)])
    if not others:
        return size, ()
    n = len(made) + len(pairing.gallery)
    return size, (finding("resized", n=others, of=n, width=size[0], height=size[1]),)


def read_pictures(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    """Read images in one size, (n, height, width, 3), uint8: largest centred part of that shape, Lanczos."""
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


NEEDED = ("true", "predicted")
# Columns that are read; a finding names the others.
READ = (
    *NEEDED, "split", "subject", "session", "run", "block", "order", "stimulus", "picture", "sha256", "transductive",
)  # fmt: skip

PURPOSE = "predictions: one row per trial with the columns true and predicted"
NOT_TRANSDUCTIVE = frozenset({"", "0", "0.0", "no", "false", "none", "nan"})


def table_case(
    path: Path, *, selection: str = "unknown", transductive: Sequence[str] = (), pictures: Path | None = None
) -> AuditInput:
    """Read a table of predictions."""
    check_option("--selection", selection, SELECTIONS)
    table = _read(path)
    n = len(table["true"])
    part = np.char.lower(table["split"]) if "split" in table else np.full(n, "test")
    for row in np.flatnonzero(~np.isin(part, PARTS))[:1]:
        raise NeuroCanvasError(
            f"{path}: row {row + 1}: split: allowed are {', '.join(PARTS)}; got {str(table['split'][row])!r}."
        )
    test = np.flatnonzero(part == "test")
    if not len(test):
        raise NeuroCanvasError(f"{path}: no row has split = test; there is nothing to audit.")
    _check_filled(path, table, part)
    names, concept, predicted = _concepts(path, table, test)
    columns = {"concept": concept, **_codes(table)}
    if hashes := _picture_prints(path, table, pictures):
        columns["picture"] = _numbered(np.array(hashes))
    blocked, extra = _blocks(path, table, columns, recorded=part != "gallery")
    columns |= extra
    units = np.arange(n)
    if blocked is not None and "block" in columns:
        units = np.where(blocked & (columns["block"] >= 0), n + columns["block"], units)
    strata = columns.get("subject", np.zeros(n, np.int64))[test]
    steps = tuple(dict.fromkeys([*transductive, *_steps(table)]))
    answers = Predictions("the table", test, predicted[test], strata, units[test], selection, steps)
    splits = [{name: np.flatnonzero(part == name) for name in PARTS if (part == name).any()}]
    return AuditInput(path.name, columns, splits, blocked, [answers], findings=_findings(table, names, concept, test))


def pictures_case(
    folder: Path, summary: Mapping[str, Any] | None, pairs: Path | None, scores: Sequence[Mapping[str, Any]]
) -> AuditInput:
    """Read what is known of images that were made elsewhere and scored by `evaluate --images A --against B`."""
    found = list(read_findings(summary["findings"])) if summary else []
    if pairs is not None and not pairs.is_file():
        found.append(finding("pairs-missing", path=str(pairs)))
    table, source = _paired(folder, pairs if pairs is not None and pairs.is_file() else None)
    n, scored = len(table["stimulus"]), summary.get("n_trials") if summary else None
    if scored is not None and n and n != scored:
        found.append(finding("rows-differ", source=str(source), rows=n, scored=scored))
    columns = _codes(table)
    if "concept" in table and (table["concept"] != "").any():
        columns["concept"] = _numbered(table["concept"])
    blocked = None
    if "concept" in columns and {"order", "block"} & table.keys():
        blocked, extra = _blocks(source, table, columns, recorded=np.ones(n, dtype=bool))
        columns |= extra
    elif n and summary and summary.get("exchanged") == "blocks":
        blocked = np.ones(n, dtype=bool)
    splits = [{"test": np.arange(n), "gallery": np.unique(columns["stimulus"], return_index=True)[1]}] if n else []
    return AuditInput(
        MADE_ELSEWHERE, columns, splits, blocked, findings=tuple(found), made_elsewhere=True, scores=scores
    )


def _paired(folder: Path, pairs: Path | None) -> tuple[dict[str, np.ndarray], Path]:
    """What is known of every generated image, and the file that says it; no rows where nothing is known."""
    if pairs is not None:
        table = read_columns(pairs, PAIR_COLUMNS, "one row per image: image, against")
        known = {name: table[name] for name in KNOWN_OF_PAIRS if name in table}
        return {**known, "stimulus": table["against"]}, pairs
    path = folder / "scores" / "trials.csv"
    if not path.is_file():
        return {"stimulus": np.empty(0, np.str_)}, path
    table = read_columns(path, ("arm", "stimulus", "concept"), "scores; `neurocanvas evaluate` makes them")
    given = table["arm"] == GIVEN
    return {name: table[name][given] for name in ("stimulus", "concept")}, path


def _read(path: Path) -> dict[str, np.ndarray]:
    """Columns as text, by lower-case name."""
    if path.suffix.lower() == ".csv":
        return read_columns(path, NEEDED, PURPOSE)
    if path.suffix.lower() != ".parquet":
        check_file(path, f"a run folder, or a .csv or .parquet file of {PURPOSE}")
        raise NeuroCanvasError(f"{path}: a run folder, or a .csv or .parquet file of predictions is needed.")
    check_file(path, PURPOSE)
    parquet = require("pyarrow.parquet", f"reading {path.name}", "parquet")
    try:
        read = parquet.read_table(path)
        header = [str(name).strip().lower() for name in read.column_names]
        columns = {name: column.to_pylist() for name, column in zip(header, read.columns, strict=True)}
    except (OSError, ValueError, TypeError, NotImplementedError, MemoryError) as error:  # bases of pyarrow's
        reason = " ".join(str(error).split())
        raise NeuroCanvasError(f"{path}: damaged, or not a parquet file ({reason}); write it again.") from error
    check_header(path, header, NEEDED)
    if not columns["true"]:
        raise NeuroCanvasError(f"{path}: no rows; it should hold {PURPOSE}.")
    return {name: np.array([_text(value) for value in values]) for name, values in columns.items()}


def _text(value: object) -> str:
    """A value of a parquet file as a CSV file has it; a whole number is the same in a column with gaps and without."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _check_filled(path: Path, table: Mapping[str, np.ndarray], part: np.ndarray) -> None:
    """Raise unless every row has what its part needs."""
    for name, needs in (("true", part != "gallery"), ("predicted", part == "test")):
        for row in np.flatnonzero(needs & (table[name] == ""))[:1]:
            raise NeuroCanvasError(
                f"{path}: row {row + 1}: {name} is empty, which a row of {part[row]} needs; fill it in, or leave "
                "the row out."
            )


def _concepts(
    path: Path, table: Mapping[str, np.ndarray], test: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names of concepts, and codes of those seen and predicted; -1 where a cell is empty."""
    names = np.unique(np.concatenate([table["true"], table["predicted"][test]]))
    names = names[names != ""]
    seen = np.unique(table["true"][test])
    if not np.isin(table["predicted"][test], table["true"]).any():
        raise NeuroCanvasError(
            f"{path}: predicted: none of its values is among those of true (such as "
            f"{str(table['predicted'][test[0]])!r} and {str(seen[0])!r}); spell concepts the same way in both."
        )
    coded = []
    for column in NEEDED:
        place = np.minimum(np.searchsorted(names, table[column]), len(names) - 1)
        coded.append(np.where(names[place] == table[column], place, -1))
    return names, coded[0], coded[1]


def _numbered(values: np.ndarray) -> np.ndarray:
    """Codes of values, -1 where there is none."""
    return np.where(values == "", -1, np.unique(values, return_inverse=True)[1].reshape(-1))


def _codes(table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Codes of the columns by which parts are compared; a run counts within its subject and session, if given."""
    found = {}
    for name in ("subject", "session", "run", "block", "stimulus"):
        if name not in table or (table[name] == "").all():
            continue
        key = [_numbered(table[one]) for one in (*COUNTED_WITHIN.get(name, ()), name) if one in table]
        codes = np.unique(np.stack(key), axis=1, return_inverse=True)[1].reshape(-1)
        found[name] = np.where(key[-1] < 0, -1, codes)
    return found


def _picture_prints(path: Path, table: Mapping[str, np.ndarray], pictures: Path | None) -> list[str]:
    """Hashes of the image files: those that the table gives, or of the files that it names."""
    if "sha256" in table:
        return [str(one).lower() for one in table["sha256"]]
    if "picture" not in table:
        return []
    folder = pictures or path.parent
    hashed: dict[str, str] = {"": ""}
    for row, name in enumerate(table["picture"].tolist(), 1):
        if name not in hashed:
            hashed[name] = sha256(inside(folder, name, f"{path}: image, row {row}"))
    return [hashed[name] for name in table["picture"].tolist()]


def _blocks(
    path: Path, table: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray], *, recorded: np.ndarray
) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """Whether each trial's session came in blocks of one concept; its order and block, as far as these are known."""
    rows, n = np.flatnonzero(recorded & (columns["concept"] >= 0)), len(recorded)
    zeros = np.zeros(n, np.int64)
    if "order" in table:
        order = _order(path, table["order"], recorded)
    elif "block" in columns:  # within a block any order may be the true one: a random one is taken
        order = np.lexsort([np.random.default_rng(0).permutation(n), columns["block"]]).argsort()
    else:
        return None, {}
    place = np.unique(order, return_inverse=True)[1].reshape(-1)
    numbers = {"subject": columns.get("subject", zeros), "session": columns.get("session", zeros), "order": place}
    filled = {name: ranks(numbers[name])[rows] for name in numbers}
    trials = without_signal({**filled, "concept": columns["concept"][rows]})
    blocked = np.zeros(n, dtype=bool)
    blocked[rows] = blocked_trials(trials)
    block = columns.get("block")
    if block is None:
        ranked = rows[in_recorded_order(trials)]
        where = np.stack([numbers["subject"], numbers["session"], columns["concept"]])[:, ranked]
        block = np.full(n, -1)
        block[ranked] = np.concatenate([[0], np.cumsum((where[:, 1:] != where[:, :-1]).any(axis=0))])
    there = (block >= 0) & (columns["concept"] >= 0)
    pairs = np.unique(np.stack([block[there], columns["concept"][there]]), axis=1)
    if len(np.unique(pairs[0])) == pairs.shape[1]:  # where a block mixes concepts, all blocks are compared
        block = np.where(blocked, block, -1)
    return blocked, {"block": block, "order": place} if "order" in table else {"block": block}


def _order(path: Path, cells: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """Numbers of the column order; a gallery was not recorded and needs none."""
    order = np.zeros(len(cells))
    for row in np.flatnonzero(recorded):
        try:
            order[row] = float(cells[row])
        except ValueError:
            order[row] = np.nan
        if not np.isfinite(order[row]):
            raise NeuroCanvasError(
                f"{path}: row {row + 1}: order: a number is needed, larger for what was recorded later; got "
                f"{str(cells[row])!r}."
            )
    return order


def _steps(table: Mapping[str, np.ndarray]) -> list[str]:
    """What the column transductive says."""
    said = dict.fromkeys(table.get("transductive", np.empty(0, np.str_)).tolist())
    yes = [one for one in said if one.lower() not in NOT_TRANSDUCTIVE]
    return [("the table says so" if one.lower() in ("1", "yes", "true") else one) for one in yes]


def _findings(
    table: Mapping[str, np.ndarray], names: np.ndarray, concept: np.ndarray, test: np.ndarray
) -> tuple[Finding, ...]:
    """What a reader should know about the table."""
    unread = [name for name in table if name not in READ]
    found = [finding("columns-unread", columns=", ".join(unread))] if unread else []
    unseen = len(np.setdiff1d(np.unique(table["predicted"][test]), np.unique(names[concept[test]])))
    if unseen:
        found.append(finding("unseen-answers", n=unseen))
    if len(np.unique(table.get("subject", np.empty(0)))) > 1:
        found.append(finding("pooled-training"))
    return tuple(found)
