"""Results from elsewhere as a case to audit: tables of predictions (CSV or parquet) and folders of images."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas.artifacts import read_text, sha256
from neurocanvas.audit.overlap import KNOWN, PARTS, AuditInput, Predictions
from neurocanvas.audit.verdict import GIVEN, MADE_ELSEWHERE, SELECTIONS
from neurocanvas.data.images import FORMATS, IMAGENET_CONCEPTS, alike, as_shown, is_one_colour, open_picture, shown_size
from neurocanvas.data.splits import COUNTED_WITHIN, blocked_trials, in_recorded_order, repeats_order
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

if TYPE_CHECKING:
    import pandas as pd

PAIR_COLUMNS = ("image", "against")
PAIR_PURPOSE = "one row per image: image, against"
OPTIONAL_PAIR_COLUMNS = ("subject", "concept", "trial", "block", "order")
REMEDY = "make it again, or leave it out"

NEEDED = ("true", "predicted")
ALIASES = {"y_true": "true", "y_pred": "predicted"}  # as scikit-learn names them
# Columns of a table of predictions that are read; a finding names the others.
READ = (
    *NEEDED, "split", "subject", "session", "run", "block", "order", "trial", "signal", "stimulus", "picture", "sha256",
    "group", "transductive", "model",
)  # fmt: skip
# In which rows of one trial differ where several models answer.
OF_MODEL = ("model", "predicted", "transductive")
PURPOSE = "predictions: one row per trial with the columns true and predicted (or y_true and y_pred)"
NO_NAME = ("nan", "none", "null", "inf", "-inf", "na", "n/a")
NOT_TRANSDUCTIVE = ("", "0", "0.0", "no", "false", "none", "nan")


@dataclass(frozen=True)
class Pairing:
    """Which images belong together."""

    images: tuple[Path, ...]  # generated, in the order of the table
    gallery: tuple[Path, ...]  # distinct seen images, by name
    seen: np.ndarray  # (n_images,), index in `gallery` of each image
    columns: Mapping[str, np.ndarray]
    findings: tuple[Finding, ...]


def read_columns(path: Path, needed: Sequence[str], purpose: str) -> pd.DataFrame:
    """Read a CSV file (UTF-8, commas) as a table of text with lower-case names; formula-like cells stay text."""
    import pandas as pd

    text = read_text(path, purpose).removeprefix("\ufeff")
    if "\0" in text:
        raise NeuroCanvasError(f"{path}: not a text file (it holds a zero byte); it should hold {purpose}.")
    try:
        # no header, as pandas would rename repeated columns and take longer rows for an index
        table = pd.read_csv(io.StringIO(text, newline=""), header=None, dtype=object, keep_default_na=False)
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except pd.errors.ParserError as error:
        raise NeuroCanvasError(
            f"{path}: not CSV ({str(error).strip()}); save it as CSV UTF-8, with quotes around cells with commas."
        ) from error
    table = table.map(lambda cell: read_csv_cell(cell.strip()))
    table = table[(table != "").any(axis=1)]
    return _check_columns(path, table[1:].set_axis(table.iloc[0] if len(table) else [], axis=1), needed, purpose)


def _check_columns(path: Path, table: pd.DataFrame, needed: Sequence[str], purpose: str) -> pd.DataFrame:
    """The table with lower-case names; raise unless it has rows, and every needed column exactly once."""
    if not len(table):
        raise NeuroCanvasError(f"{path}: no rows; it should hold {purpose}.")
    header = [str(name).strip().lower() for name in table.columns]
    header = [ALIASES.get(name, name) if ALIASES.get(name) in needed else name for name in header]
    if missing := [name for name in needed if name not in header]:
        raise NeuroCanvasError(
            f"{path}: the column {missing[0]} is missing; it has {', '.join(header[:20])}; separate cells by commas "
            "and name the columns in the first line."
        )
    if twice := [name for name in header if header.count(name) > 1]:
        raise NeuroCanvasError(f"{path}: the column {twice[0] or '(without a name)'} is there twice; keep one.")
    return table.set_axis(header, axis=1).reset_index(drop=True)


def inside(folder: Path, name: str, where: str) -> Path:
    """Path of a file in a folder; names that lead out of it are refused."""
    path = check_inside(folder, name, where)
    try:
        exists = path.is_file()
    except OSError:  # a name that is too long
        exists = False
    if not exists:
        raise NeuroCanvasError(f"{where}: no file {name!r} in {folder}; put it there, or leave the row out.")
    return path


def images_in(folder: Path) -> list[str]:
    """Relative names of all images below a folder, sorted, hidden ones excluded."""
    check_folder(folder, "pictures")
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in FORMATS]
    names = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    if not names:
        raise NeuroCanvasError(f"{folder}: no images in it; allowed are {', '.join(FORMATS)}.")
    return names


def _by_name(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Names of images as `alike` gives them -> names; raise if two are alike."""
    forms: dict[str, str] = {}
    for name in names:
        if (first := forms.setdefault(alike(name), name)) != name:
            raise NeuroCanvasError(f"{folder}: {first!r} and {name!r} are names of one image; rename one of them.")
    return forms


def read_pairing(images: Path, against: Path, table: Path | None = None) -> Pairing:
    """Pair generated with seen images by a table (columns image, against) or, without one, by equal names."""
    import pandas as pd

    generated, seen = images_in(images), images_in(against)
    named = [_by_name(images, generated), _by_name(against, seen)]
    if table is None:
        unpaired = [(images, name) for form, name in named[0].items() if form not in named[1]]
        unpaired += [(against, name) for form, name in named[1].items() if form not in named[0]]
        for folder, name in unpaired[:1]:
            raise NeuroCanvasError(
                f"{folder}: {name!r} has no file of the same name in the other folder, nor have {len(unpaired) - 1} "
                "more; pair the images by a table (CSV with the columns image and against)."
            )
        rows = pd.DataFrame({"image": generated, "against": [named[1][alike(name)] for name in generated]})
        findings = [finding("paired-by-name", n=len(rows))]
    else:
        rows = read_columns(table, PAIR_COLUMNS, PAIR_PURPOSE)
        findings = [finding("paired-by-table", table=table.name, n=len(rows))]
        if unread := [name for name in rows if name not in (*PAIR_COLUMNS, *OPTIONAL_PAIR_COLUMNS)]:
            findings.append(finding("columns-unread", columns=", ".join(unread)))
    paths = {}
    for column, folder, names, forms in zip(PAIR_COLUMNS, (images, against), (generated, seen), named, strict=True):
        where = f"{table or images}: {column}"
        rows[column] = [forms.get(alike(name), name) for name in rows[column]]
        paths[column] = [inside(folder, name, f"{where}, row {row}") for row, name in enumerate(rows[column], 1)]
        for row, path in enumerate(paths[column], 1):
            if path.suffix.lower() not in FORMATS:
                raise NeuroCanvasError(f"{where}, row {row}: allowed are {', '.join(FORMATS)}; got {path.name!r}.")
        rows[column] = [path.relative_to(folder).as_posix() for path in paths[column]]
        first = rows[column].drop_duplicates()
        if column == "image" and len(first) < len(rows):
            row = rows.index.difference(first.index)[0]
            name = rows[column][row]
            raise NeuroCanvasError(
                f"{table}: rows {first[first == name].index[0] + 1} and {row + 1} both name {name!r} of {folder}; one "
                "image belongs in one row."
            )
        if unnamed := sorted({*names} - {*first}):
            raise NeuroCanvasError(
                f"{table}: {len(unnamed)} images of {folder} are in no row, the first {unnamed[0]!r}; add rows, or "
                "take the images out of the folder."
            )
    index, gallery = pd.factorize(rows["against"], sort=True)
    hashes = pd.Series([sha256(against / name) for name in gallery], index=gallery)
    twins = hashes[hashes.duplicated(keep=False)]
    if len(twins):
        first, second, *_ = twins.index[twins == twins.iloc[0]]
        findings.append(finding("equal-pictures", n=len(twins), first=first, second=second))
    columns = {name: rows[name].to_numpy(str) for name in OPTIONAL_PAIR_COLUMNS if name in rows}
    return Pairing(tuple(paths["image"]), tuple(against / name for name in gallery), index, columns, tuple(findings))


def choose_size(pairing: Pairing) -> tuple[tuple[int, int], tuple[Finding, ...]]:
    """Size for the comparison: that of the images if they agree, else a square of their shortest side."""
    sizes = []
    for path in (*pairing.images, *pairing.gallery):
        with open_picture(path, REMEDY) as image:
            sizes.append(shown_size(image))
    generated = sizes[: len(pairing.images)]
    shortest = min(map(min, generated))
    size = generated[0] if len(set(generated)) == 1 else (shortest, shortest)
    resized = sum(other != size for other in sizes)
    if not resized:
        return size, ()
    return size, (finding("resized", n=resized, of=len(sizes), width=size[0], height=size[1]),)


def read_pictures(paths: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    """Read images in one size, (n, height, width, 3), uint8: largest centred part of that shape, Lanczos."""
    from PIL import Image, ImageOps

    images = np.empty((len(paths), size[1], size[0], 3), dtype=np.uint8)
    for row, path in enumerate(paths):
        with open_picture(path, REMEDY) as image:
            colour = as_shown(image)
        fitted = colour if colour.size == size else ImageOps.fit(colour, size, Image.Resampling.LANCZOS)
        images[row] = np.asarray(fitted)
        if is_one_colour(images[row]):
            raise NeuroCanvasError(f"{path}: all pixels have one colour, as failed generation leaves them; {REMEDY}.")
    return images


def table_case(
    path: Path, *, selection: str = "unknown", transductive: Sequence[str] = (), pictures: Path | None = None
) -> AuditInput:
    """Read a table of predictions."""
    import pandas as pd

    check_option("--selection", selection, SELECTIONS)
    table = _read_predictions(path)
    table["true"], table["predicted"] = one_spelling(table["true"], table["predicted"])
    part = table["split"].str.lower() if "split" in table else pd.Series("test", index=table.index)
    for row in np.flatnonzero(~part.isin(PARTS))[:1]:
        raise NeuroCanvasError(
            f"{path}: row {row + 1}: split: allowed are {', '.join(PARTS)}; got {table['split'][row]!r}."
        )
    rows = {name: np.flatnonzero(part == name) for name in PARTS if (part == name).any()}
    if "test" not in rows:
        raise NeuroCanvasError(f"{path}: no row has split = test; there is nothing to audit.")
    for name, needs in (("true", part != "gallery"), ("predicted", part == "test")):
        for row in np.flatnonzero(needs & (table[name] == ""))[:1]:
            raise NeuroCanvasError(
                f"{path}: row {row + 1}: {name} is empty, which a row of {part[row]} needs; fill it in, or leave "
                "the row out."
            )
    true, predicted = (table[name][rows["test"]] for name in NEEDED)
    _check_names(path, table, true, predicted)
    names = pd.Index(sorted({*table["true"], *table["predicted"]} - {""}))
    table, rows, models = _models(path, table, part, rows)
    columns = {**_codes(table), "concept": names.get_indexer(table["true"])}
    hashes = table.get("sha256")
    if hashes is None and "picture" in table:
        first = table["picture"].drop_duplicates()
        folder, where = pictures or path.parent, f"{path}: image, row"
        hashes = table["picture"].map({
            name: sha256(inside(folder, name, f"{where} {row + 1}")) if name else "" for row, name in first.items()
        })  # fmt: skip
    if hashes is not None:
        columns["picture"] = pd.factorize(hashes.str.lower().replace("", None), sort=True)[0]
    blocked, recorded, same_order = _presentations(path, table, columns, rows)
    columns |= recorded
    strata = columns.get("subject", np.zeros(len(table), np.int64))
    findings, answers, splits = [finding("order-repeats")] * same_order, [], {}
    for model, (split, answered) in models.items():
        splits[np.concatenate([*split.values()]).tobytes()] = split  # once for models with the same rows
        steps = [cell for cell in answered.get("transductive", ()) if cell.lower() not in NOT_TRANSDUCTIVE]
        steps = ["the table says so" if cell.lower() in ("1", "yes", "true") else cell for cell in steps]
        named, test = answered["predicted"][part[answered.index] == "test"], split["test"]
        used = tuple(dict.fromkeys([*transductive, *steps]))
        codes, units = names.get_indexer(named), _units(columns, split, blocked)
        answers.append(Predictions(model or "the table", test, codes, strata[test], units, selection, used))
        if named.nunique() == 1 and true.nunique() > 1:
            findings.append(finding("one-answer", name=named.iloc[0], n=len(named), model=model or None))
    test = rows["test"]
    if (n_trials := len(np.unique(columns["trial"][test]))) < len(test):
        findings.append(finding("rows-of-trials", rows=len(test), trials=n_trials))
    if unread := [name for name in table if name not in READ]:
        findings.append(finding("columns-unread", columns=", ".join(unread)))
    if unseen := {*predicted} - {*true}:
        findings.append(finding("unseen-answers", n=len(unseen)))
    if "subject" in table and table["subject"].nunique() > 1:
        findings.append(finding("pooled-training"))
    group = None
    if "group" in table:
        group, of_concept = np.full(len(names), -1), table[(table["group"] != "") & (table["true"] != "")]
        for name, groups in of_concept.groupby("true")["group"]:
            if groups.nunique() > 1:
                raise NeuroCanvasError(f"{path}: group: concept {name!r} is in {groups.nunique()} groups; keep one.")
        group[names.get_indexer(of_concept["true"])] = pd.factorize(of_concept["group"])[0]
    subjects = sorted({*table.get("subject", ())})  # in the order of their codes
    return AuditInput(
        path.name, columns, [*splits.values()], blocked, answers, group, findings=tuple(findings), subjects=subjects
    )


def one_spelling(*columns: Iterable[str]) -> list[list[str]]:
    """Columns of names; where one holds a wnid, English names of ImageNet concepts become wnids."""
    texts = [[*column] for column in columns]
    if not any(re.fullmatch(r"n\d{8}", text) for column in texts for text in column):
        return texts
    wnid_of = {name.casefold(): wnid for wnid, name in IMAGENET_CONCEPTS.items()}
    return [[wnid_of.get(text.casefold(), text) for text in column] for column in texts]


def _models(
    path: Path, table: pd.DataFrame, part: pd.Series, rows: Mapping[str, np.ndarray]
) -> tuple[pd.DataFrame, dict[str, np.ndarray], dict[str, tuple[dict[str, np.ndarray], pd.DataFrame]]]:
    """One row per trial, labelled as its first row; the rows of every part; per model its parts and its own rows."""
    import pandas as pd

    model = table["model"] if "model" in table else pd.Series("", index=table.index)
    for row in np.flatnonzero((part == "test") & (model == "") & (model != "").any())[:1]:
        raise NeuroCanvasError(f"{path}: row {row + 1}: model is empty, which a row of test needs here; fill it in.")
    shared = [name for name in READ if name in table and name not in OF_MODEL]
    again = table.groupby([model.rename("of"), *shared]).cumcount().rename("again")
    trial = table.groupby([*shared, again], sort=False).ngroup()
    trials = table[~trial.duplicated()]
    rows, models = {name: np.flatnonzero(part[trials.index] == name) for name in rows}, {}
    for name in model[part == "test"].unique():
        mine = model.isin([name, ""])
        of_part = {part: np.intersect1d(some, trial[mine]) for part, some in rows.items()}
        split = {part: some for part, some in of_part.items() if len(some)}
        if rows.keys() & {*KNOWN} and not split.keys() & {*KNOWN}:
            raise NeuroCanvasError(
                f"{path}: model {name!r} has no training rows, but others have; add them, or leave model empty in "
                "training rows that all models share."
            )
        models[name] = (split, table.loc[trial[mine].sort_values().index])
    return trials, rows, models


def _check_names(path: Path, table: pd.DataFrame, true: pd.Series, predicted: pd.Series) -> None:
    """Raise where predictions are no names of concepts, are spelt otherwise, or true contradicts the image's name."""
    known = {*table["true"]} - {""}
    for row in np.flatnonzero(~predicted.isin(known) & predicted.str.lower().isin(NO_NAME))[:1]:
        raise NeuroCanvasError(
            f"{path}: row {predicted.index[row] + 1}: predicted is {predicted.iloc[row]}; write the name of a concept, "
            "or leave the row out."
        )
    if not predicted.isin(known).any():
        numeric = predicted.str.fullmatch(r"-?\d*\.\d+(e-?\d+)?").all()
        numbers = "; these look like probabilities or scores" if numeric else ""
        raise NeuroCanvasError(
            f"{path}: predicted: none of its values is among those of true (such as {predicted.iloc[0]!r} and "
            f"{min(true)!r}){numbers}; write the name of the predicted concept, spelt as in true."
        )
    plain = {_plain(name): name for name in sorted(known)}
    for name in sorted({*predicted} - known):
        if _plain(name) in plain:
            raise NeuroCanvasError(
                f"{path}: predicted {name!r} and true {plain[_plain(name)]!r} may be one concept; spell it the same "
                "way in both columns, or rename one of them."
            )
    for column in [name for name in ("stimulus", "picture") if name in table]:
        wnid = table[column].str.extract(r"(?:^|/)(n\d{8})_")[0]
        wrong = wnid.notna() & table["true"].str.fullmatch(r"n\d{8}") & (wnid != table["true"])
        for row in np.flatnonzero(wrong)[:1]:
            raise NeuroCanvasError(
                f"{path}: row {row + 1}: true is {table['true'][row]}, but {column} names an image of {wnid[row]} "
                f"({int(wrong.sum())} rows contradict one another); correct the column that is wrong."
            )


def _plain(name: str) -> str:
    """A name without the differences that spreadsheets make: case, blanks, zeros in front, .0 behind."""
    text = name.strip().casefold()
    return text.removesuffix(".0").lstrip("0") or "0" if text.removesuffix(".0").isdigit() else text


def _units(columns: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray], blocked: np.ndarray | None) -> np.ndarray:
    """The exchangeable unit of every test row, as `data.splits.exchangeable_units` has it for a fold."""
    test, n = rows["test"], len(columns["concept"])
    fitted = np.concatenate([rows.get(part, rows["test"][:0]) for part in KNOWN])
    subject = columns.get("subject", np.zeros(n, np.int64))
    units, image = columns["trial"], columns.get("picture", columns.get("stimulus"))
    if image is not None:  # whose showings are alike, unless the image trains
        alone = (image < 0) | np.isin(image, image[fitted])
        units = np.where(alone, units, n * (2 + ranks(subject) * n + image) + columns["concept"])
    if blocked is not None and "block" in columns:
        units = np.where(blocked & (columns["block"] >= 0), -1 - columns["block"], units)
    if len(fitted):
        others = ~np.isin(subject, subject[fitted]) | ~np.isin(columns["concept"], columns["concept"][fitted])
        units = np.where(others, -1 - n * (2 + subject) - columns["concept"], units)
    return units[test]


def images_case(
    folder: Path, summary: Mapping[str, Any] | None, pairs: Path | None, scores: Sequence[Mapping[str, Any]]
) -> AuditInput:
    """Read the columns of images that were made elsewhere and scored by `evaluate --images A --against B`."""
    import pandas as pd

    findings = list(read_findings(summary["findings"])) if summary else []
    if pairs is not None and not pairs.is_file():
        findings.append(finding("pairs-missing", path=str(pairs)))
    source = pairs if pairs is not None and pairs.is_file() else folder / "scores" / "trials.csv"
    table = pd.DataFrame({"stimulus": []}, dtype=object)
    if source == pairs:
        table = read_columns(source, PAIR_COLUMNS, PAIR_PURPOSE)
        table = table.filter(["against", *OPTIONAL_PAIR_COLUMNS]).rename(columns={"against": "stimulus"})
    elif source.is_file():
        table = read_columns(source, ("arm", "stimulus", "concept"), "scores; `neurocanvas evaluate` makes them")
        table = table.loc[table["arm"] == GIVEN, ["stimulus", "concept"]].reset_index(drop=True)
    n, scored = len(table), summary.get("n_trials") if summary else None
    if scored is not None and n and n != scored:
        findings.append(finding("rows-differ", source=str(source), rows=n, scored=scored))
    columns, blocked = _codes(table), None
    if "concept" in columns and {"order", "block"} & {*table}:
        blocked, recorded, _ = _presentations(source, table, columns, {"test": np.arange(n)})
        columns |= recorded
    elif n and summary and summary.get("exchanged") == "blocks":
        blocked = np.ones(n, dtype=bool)
    splits = [{"test": np.arange(n), "gallery": np.unique(columns["stimulus"], return_index=True)[1]}] if n else []
    return AuditInput(
        MADE_ELSEWHERE, columns, splits, blocked, findings=tuple(findings), made_elsewhere=True, scores=scores
    )


def _read_predictions(path: Path) -> pd.DataFrame:
    """A table of predictions as text, with lower-case column names."""
    if path.suffix.lower() == ".csv":
        return read_columns(path, NEEDED, PURPOSE)
    check_file(path, f"a run folder, or a .csv or .parquet file of {PURPOSE}")
    if path.suffix.lower() != ".parquet":
        raise NeuroCanvasError(
            f"{path}: a run folder, or a .csv or .parquet file of predictions is needed, or a matrix (.npy, .pt, .csv)."
        )
    parquet = require("pyarrow.parquet", f"reading {path.name}", "parquet")
    try:
        table = parquet.read_table(path).to_pandas(ignore_metadata=True, integer_object_nulls=True).astype(object)
    except (OSError, ValueError, TypeError, NotImplementedError, MemoryError) as error:  # bases of pyarrow's
        reason = " ".join(str(error).split())
        raise NeuroCanvasError(f"{path}: damaged, or not a parquet file ({reason}); write it again.") from error
    return _check_columns(path, table.map(_text), NEEDED, PURPOSE)


def _text(value: object) -> str:
    """A value of a parquet file as a CSV file has it; a whole number is the same in a column with gaps and without."""
    if value is None or value != value:
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _codes(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Codes of the columns that parts are compared by, -1 where a cell is empty; a run counts within its session."""
    codes = {}
    for name in ("subject", "session", "run", "block", "signal", "stimulus", "concept"):
        if name in table and (table[name] != "").any():
            within = [outer for outer in COUNTED_WITHIN.get(name, ()) if outer in table]
            codes[name] = table.groupby([*within, name]).ngroup().where(table[name] != "", -1).to_numpy(np.int64)
    return codes


def concept_name(concept: str, where: str) -> str:
    """The English name of a concept that may be a wnid, for the judge's prompt."""
    if not re.fullmatch(r"n\d{8}", concept):
        return concept
    if concept not in IMAGENET_CONCEPTS:
        raise NeuroCanvasError(f"{where}: concept: no name of {concept} is known; write its English name.")
    return IMAGENET_CONCEPTS[concept]


def presentations_of(
    path: Path | None, texts: Mapping[str, np.ndarray], stimuli: np.ndarray
) -> tuple[dict[str, np.ndarray], bool]:
    """Trial and block of some images, by the columns of their pairing table, and whether concepts came in blocks."""
    import pandas as pd

    table, n = pd.DataFrame({**texts, "stimulus": stimuli}, dtype=object), len(stimuli)
    columns, zeros = _codes(table), np.zeros(n, np.int64)
    if "concept" not in columns or not {"block", "order"} & {*table}:
        named = [name for name in ("subject", "trial") if name in table]
        trial = table.groupby(named).ngroup().to_numpy() if "trial" in named else np.arange(n)
        return {"trial": trial, "block": columns.get("block", zeros)}, False
    blocked, known, _ = _presentations(path or Path("pairs"), table, columns, {"test": np.arange(n)})
    return {**known, "block": np.maximum(known["block"], 0)}, blocked is not None and bool(blocked.any())


def _presentations(
    path: Path, table: pd.DataFrame, columns: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
) -> tuple[np.ndarray | None, dict[str, np.ndarray], bool]:
    """Whether each trial's run came in blocks; trial, order and block of the rows; whether block order repeats."""
    import pandas as pd

    n, concept = len(table), columns["concept"]
    recorded = np.setdiff1d(np.arange(n), rows.get("gallery", []))  # a gallery was not recorded and needs no order
    recorded = recorded[concept[recorded] >= 0]
    known = {name: columns[name] for name in ("subject", "session", "run", "stimulus") if name in columns}
    frame = pd.DataFrame({**known, "concept": concept}).iloc[recorded]
    trial, outer = np.full(n, -1), [name for name in ("subject", "session", "run") if name in known]
    if "order" in table:
        order = pd.to_numeric(table["order"], errors="coerce").iloc[recorded]
        for row in order.index[~np.isfinite(order.astype(np.float64))][:1]:
            raise NeuroCanvasError(
                f"{path}: row {row + 1}: order: a number is needed, larger for what was recorded later; got "
                f"{table['order'][row]!r}."
            )
        frame["order"] = ranks(order.to_numpy())
    elif "block" in columns:  # within a block any order may be the true one: a random one is taken
        shuffled = np.random.default_rng(0).permutation(n)
        frame["order"] = np.lexsort([shuffled, columns["block"]]).argsort()[recorded]
    named = [name for name in (*outer, "trial", "order", "stimulus", "concept") if name in table or name in frame]
    if "trial" in table:
        frame["trial"] = pd.factorize(table["trial"].iloc[recorded])[0]
        named = [*outer, "trial"]
    elif "order" not in table:
        named = []
    trial[recorded] = frame.groupby(named).ngroup() if named else np.arange(len(recorded))
    if "order" not in frame:
        return None, {"trial": trial}, False
    first = ~pd.Series(trial[recorded]).duplicated().to_numpy()
    once, at = frame[first], recorded[first]
    trials = without_signal({name: ranks(once[name].to_numpy()) for name in (*outer, "order", "concept")})
    shown = in_recorded_order(trials)
    if "stimulus" in known and "trial" not in table:
        # windows of a trial may be counted as trials: one image after the other, of a concept that has several
        several = once.groupby("concept")["stimulus"].transform("nunique").to_numpy() > 1
        code = once[[*outer, "stimulus"]].to_numpy()[shown]
        again = np.concatenate([[False], (code[1:] == code[:-1]).all(axis=1)]) & several[shown]
        merged = trial[at[shown]][np.maximum.accumulate(np.where(again, 0, np.arange(len(shown))))]
        into = pd.Series(merged, index=trial[at[shown]])
        trial[recorded] = into.loc[trial[recorded]].to_numpy()
        single = np.sort(shown[~again])
        once, at, trials = once.iloc[single], at[single], trials[single]
        shown = in_recorded_order(trials)
    of_trial = pd.Series(np.arange(len(at)), index=trial[at])
    blocked_of, place, stretch = blocked_trials(trials), np.empty(len(at), np.int64), np.empty(len(at), np.int64)
    place[shown] = np.arange(len(at))
    code = once[[*outer, "concept"]].to_numpy()[shown]
    stretch[shown] = np.concatenate([[0], np.cumsum((code[1:] != code[:-1]).any(axis=1))])
    position = of_trial.loc[trial[recorded]].to_numpy()
    blocked, turn, block = np.zeros(n, dtype=bool), np.full(n, -1), columns.get("block")
    blocked[recorded], turn[recorded] = blocked_of[position], place[position]
    if block is None:
        block = np.full(n, -1)
        block[recorded] = stretch[position]
    filled = (block >= 0) & (concept >= 0)
    if not (pd.Series(concept[filled]).groupby(block[filled]).nunique() > 1).any():
        block = np.where(blocked, block, -1)  # where a block mixes concepts, all blocks are compared
    fitted = np.concatenate([np.empty(0, np.int64), *(rows[part] for part in KNOWN if part in rows)])
    train, test = (
        of_trial.loc[np.unique(trial[part][blocked[part]])].to_numpy(np.int64) for part in (fitted, rows["test"])
    )
    same_order = "order" in table and repeats_order(trials, np.sort(train), np.sort(test))
    return blocked, {"trial": trial, "block": block} | ({"order": turn} if "order" in table else {}), same_order
