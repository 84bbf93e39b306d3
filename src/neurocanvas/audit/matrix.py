"""A similarity or logit matrix, test trials by gallery, as a case to audit: retrieval by the usual rule and others."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from neurocanvas.artifacts import read_text, read_torch
from neurocanvas.audit.external import ALIASES, NEEDED, one_spelling
from neurocanvas.audit.overlap import AuditInput
from neurocanvas.audit.verdict import SELECTIONS
from neurocanvas.data.trials import ranks
from neurocanvas.errors import NeuroCanvasError, check_file, check_option, read_csv_cell
from neurocanvas.evaluation.identification import n_way_top_k_table, read_true
from neurocanvas.evaluation.retrieval import assignment_scores
from neurocanvas.evaluation.statistics import holm, mean_interval, null_means, permutation_p, permutations, smallest_p
from neurocanvas.findings import finding

SUFFIXES = (".npy", ".pt", ".csv")
PURPOSE = "a matrix of numbers: one row per test trial, one column per item of the gallery"
# Header of the first column where it holds true names; text in this column says the same.
CORNERS = ("", "true", "y_true", "name")
# One-to-one assignments that are averaged, as ties are broken at random.
DRAWS = 20


def is_matrix(path: Path) -> bool:
    """Whether a file is a matrix, not a table of predictions."""
    if path.suffix.lower() != ".csv":
        return path.suffix.lower() in (*SUFFIXES, ".npz")
    rows = _cells(path) or [[]]
    numbers, header = rows[-1][1:], {cell.lower() for cell in rows[0][1:]}
    return bool(numbers) and all(map(_is_number, numbers)) and not header & {*NEEDED, *ALIASES}


def _cells(path: Path) -> list[list[str]]:
    """The cells of a CSV file, without empty lines."""
    text = read_text(path, PURPOSE).removeprefix("\ufeff").replace("\0", "?")
    try:
        rows = [[read_csv_cell(cell.strip()) for cell in row] for row in csv.reader(io.StringIO(text, newline=""))]
    except csv.Error as error:
        raise NeuroCanvasError(f"{path}: not CSV ({error}); separate cells by commas.") from error
    return [row for row in rows if any(row)]


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        return isinstance(float(text), float)
    return False


def _read_csv(path: Path) -> tuple[np.ndarray, list[str], list[str]]:
    """Numbers, names of rows in the first column, and names of the gallery in the header, where they are there."""
    rows = _cells(path) or [["0"]]
    corner = rows[0][0].lower() in CORNERS
    header = corner or not all(map(_is_number, rows[0][1:]))
    named = corner or not all(_is_number(row[0]) for row in rows[header:])
    for number, row in enumerate(rows[header:], 1):
        if len(row) != len(rows[0]) or not all(map(_is_number, row[named:])):
            what = f"{len(rows[0]) - named} numbers are needed, separated by commas"
            raise NeuroCanvasError(f"{path}: row {number}: {what}; got {', '.join(row)[:80]!r}.")
    values = np.array([row[named:] for row in rows[header:]], dtype=np.float64)
    return values, [row[0] for row in rows[header:] if named], rows[0][named:] if header else []


def read_matrix(path: Path) -> tuple[np.ndarray, list[str], list[str]]:
    """A matrix as float64; names of its rows and columns, which only a CSV file may have."""
    suffix, of_rows, of_columns = path.suffix.lower(), list[str](), list[str]()
    if suffix not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        raise NeuroCanvasError(f"{path}: a matrix: allowed are {allowed}; got {suffix!r}; save one array (`np.save`).")
    check_file(path, PURPOSE)
    try:
        if suffix == ".csv":
            values, of_rows, of_columns = _read_csv(path)
        elif suffix == ".pt":
            tensor = read_torch(path, PURPOSE).detach().to_dense()
            values = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
        else:
            values = np.load(path, allow_pickle=False)
        numeric = values.dtype.kind in "fiub"
    except (ValueError, OSError, EOFError, SyntaxError, TokenError, AttributeError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        reason = "it holds pickled objects, which could run code" if "pickle" in reason else reason
        raise NeuroCanvasError(f"{path}: not one array of numbers ({reason}); it should hold {PURPOSE}.") from error
    if not numeric or values.ndim != 2 or not len(values) or values.shape[1] < 2:
        came = f"at least 1 row and 2 columns; got {values.dtype} {values.shape}"
        raise NeuroCanvasError(f"{path}: it should hold {PURPOSE}, {came}.")
    values = values.astype(np.float64)
    for row in np.flatnonzero(~np.isfinite(values).all(axis=1))[:1]:
        raise NeuroCanvasError(f"{path}: row {row + 1} holds NaN or infinity; write finite numbers, or leave it out.")
    return values, of_rows, of_columns


def _read_names(option: str, path: Path | None, inside: list[str], matrix: Path, count: int) -> list[str]:
    """One name per line, as many as there are rows or columns; without a file those inside the matrix."""
    if path is None:
        return inside
    if inside:
        raise NeuroCanvasError(f"{option}: {matrix} has these names itself; leave {option} out.")
    names = [line.strip() for line in read_text(path, "one name per line").removeprefix("\ufeff").rstrip().split("\n")]
    if len(names) != count or "" in names:
        came = f"line {names.index('') + 1} is empty" if "" in names else f"got {len(names)}"
        raise NeuroCanvasError(f"{path}: {option} needs {count} names, one per line, as {matrix} has them; {came}.")
    return names


def _true_columns(
    path: Path, shape: tuple[int, ...], rows: list[str], columns: list[str], sources: tuple[Path, Path]
) -> tuple[np.ndarray, np.ndarray]:
    """The column of every row's item, and the unit of every row: rows with one true name are one unit."""
    alike, gallery = one_spelling(rows, columns)
    if not columns and shape[0] == shape[1]:
        return np.arange(shape[0]), ranks(np.array(alike)) if rows else np.arange(shape[0])
    if not (rows and columns):
        option, kind = ("--names", "row") if columns else ("--gallery", "column")
        raise NeuroCanvasError(
            f"{option}: a file with one name per {kind} of {path} is needed; only a square matrix ({shape[0]} x "
            f"{shape[1]} came) whose columns have no names needs none."
        )
    place = {name: number for number, name in enumerate(gallery)}
    for name in [columns[number] for number, name in enumerate(gallery) if place[name] != number][:1]:
        raise NeuroCanvasError(f"{sources[1]}: {name!r} is in the gallery twice; give every column its own name.")
    for number in [number for number, name in enumerate(alike) if name not in place][:1]:
        raise NeuroCanvasError(
            f"{sources[0]}: row {number + 1}: allowed are the {len(gallery)} names of {sources[1]}, such as "
            f"{columns[0]!r}; got {rows[number]!r}; spell it as there, or leave the row out."
        )
    true = np.array([place[name] for name in alike])
    return true, true


def one_to_one(values: np.ndarray, true: np.ndarray, rng: np.random.Generator) -> float:
    """Share of right rows where no two take one column and the sum is largest; ties are broken at random."""
    from scipy.optimize import linear_sum_assignment

    right = []
    for _ in range(DRAWS):  # in random order, which decides among assignments that are equally good
        rows, columns = (rng.permutation(size) for size in values.shape)
        taken = columns[linear_sum_assignment(values[np.ix_(rows, columns)], maximize=True)[1]]
        right.append(np.mean(taken == true[rows]))
    return float(np.mean(right))


def matrix_case(
    path: Path, names: Path | None = None, gallery: Path | None = None, *, selection: str = "unknown",
    transductive: Sequence[str] = (), count: int = 1999,
) -> tuple[AuditInput, dict[str, Any]]:  # fmt: skip
    """A matrix as a case, and its retrieval by every rule; only the usual rule is tested."""
    check_option("--selection", selection, SELECTIONS)
    rng, (values, rows, columns) = np.random.default_rng(0), read_matrix(path)
    (n, size), constant = values.shape, np.ptp(values, axis=1) == 0
    rows = _read_names("--names", names, rows, path, n)
    columns = _read_names("--gallery", gallery, columns, path, size)
    true, units = _true_columns(path, values.shape, rows, columns, (names or path, gallery or path))
    strata, n_units, results = np.zeros(n, np.int64), len(np.unique(units)), []
    permuted, ks = permutations(strata, units, count, rng=rng), [k for k in (1, 5) if k < size]
    for k in ks:
        table = n_way_top_k_table(values, size, k)  # of ties the mean over all orders
        score, chance = read_true(table, true), k / size
        low, high = mean_interval(score, units, rng=rng, share=True) or (None, None)
        value, p = float(score.mean()), permutation_p(float(score.mean()), null_means(table, true, permuted))
        results.append({
            "model": "the matrix", "metric": f"top-{k}", "n": n, "correct": None, "value": value, "chance": chance,
            "low": low, "high": high, "p": p, "needed": None, "majority": None, "n_units": n_units,
            "least_p": smallest_p(strata, units, true, count), "selection": selection,
            "transductive": list(transductive),
        })  # fmt: skip
    for result, p in zip(results, holm([result["p"] for result in results]), strict=True):
        result["p_holm"] = p
    corrected = assignment_scores(values, "csls")
    corrected[constant] = 0.0  # hubs decide nothing for a row without a preference
    csls = {f"top{k}": float(read_true(n_way_top_k_table(corrected, size, k), true).mean()) for k in ks}
    alone = len(np.unique(true)) == n  # else no assignment is right in two rows of one item
    rules = {
        "greedy": {"transductive": False, **{f"top{k}": row["value"] for k, row in zip(ks, results, strict=True)}},
        "csls": {"transductive": True, **csls},
        "hungarian": {"transductive": True, "top1": one_to_one(values, true, rng) if alone else None},
    }
    facts = {"n": n, "gallery": size, "n_units": n_units, "rules": rules, **{f"chance{k}": k / size for k in ks}}
    if rows and not columns:
        best, alike = values == values.max(axis=1, keepdims=True), units == units[:, None]
        accuracy = float(((best & alike).sum(axis=1) / best.sum(axis=1)).mean())
        facts["concepts"] = {"accuracy": accuracy, "chance": float(alike.mean())}
    findings = [finding("matrix-alone")] + [finding("rows-are-columns")] * (not columns)
    findings += [finding("no-one-to-one", rows=n, names=len(np.unique(true)))] * (not alone)
    findings += [finding("constant-rows", n=int(constant.sum()), of=n)] * bool(constant.any())
    return AuditInput(path.name, {}, [], None, scores=results, findings=tuple(findings)), facts
