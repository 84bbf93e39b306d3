"""The benchmark table: models by granularities and protocols, over subjects; as text, CSV and LaTeX."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import mode
from typing import Any

import numpy as np

from neurocanvas.evaluation.classification import (
    SIGNIFICANT,
    chance_p,
    enough_draws,
    holm,
    mark_best,
    released_score,
    smallest_best_p,
    trial_scores,
)
from neurocanvas.safe_text import csv_text, latex, printable

WIDTH = 120
# Table -> what stands below it.
EXPLAINED = {
    "scores": "Mean ± sd over subjects of the accuracy on test trials, the epoch or penalty chosen on validation "
    "trials; fine is the mean of its tasks. "
    "† differs from the best model (sign-flip test over subjects, Holm-corrected, p < .05); "
    "° not above chance (permutation of whole blocks, or of trials in a rapid design, Holm-corrected over all rows). "
    "* sees the signal instead of features.",
    "selection": "Selection: accuracy on test trials, fine again the mean of its tasks. Selected is the result: the "
    "epoch or penalty chosen on validation trials. Final is the last epoch (for models without epochs, the selected "
    "one).",
    "diagnosis": "Best on test (diagnostic, not a result) is the highest accuracy of any epoch or penalty, chosen with "
    "the labels of the test trials after all predictions were made; gap is what choosing that way would have added "
    "to selected.",
}
BEST_ON_TEST = "best on test (diagnostic, not a result)"


def explanation(rows: Iterable[Mapping[str, Any]]) -> str:
    """Say what the columns of both tables mean."""
    return " ".join(EXPLAINED[name] for name in EXPLAINED if name != "diagnosis" or _diagnosed(rows))


def _diagnosed(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether selection on the test trials was diagnosed (`--diagnose-selection`)."""
    return all("best_on_test" in row for row in rows)


@dataclass(frozen=True)
class Cell:
    """What one model answered to one subject's test trials."""

    protocol: str
    granularity: str
    model: str
    title: str
    subject: int
    scores: np.ndarray
    true: np.ndarray
    folds: np.ndarray
    units: np.ndarray
    accuracy: Mapping[str, float]
    seconds: float
    warnings: tuple[str, ...]


def summarise_cells(cells: Sequence[Cell], *, count: int, seed: int) -> list[dict[str, Any]]:
    """Make one row for every protocol, granularity and model."""
    rng = np.random.default_rng(seed)
    ordered = sorted(cells, key=lambda cell: (*_row_key(cell), cell.subject, cell.granularity))
    groups = [list(group) for _, group in groupby(ordered, key=_row_key)]
    rows = [_row(group) for group in groups]
    _test_against_chance(rows, groups, enough_draws(count, len(rows)), rng)
    for _, together in groupby(rows, key=lambda row: (row["protocol"], row["granularity"])):
        same = list(together)
        compared = mark_best({row["model"]: np.array(row["accuracy"]) for row in same}, rng=rng, count=count)
        for row in same:
            row["p_best"] = compared[row["model"]]
            row["warnings"] = sorted({*row["warnings"], *_out_of_reach(len(row["subjects"]), len(same))})
    first_seen = {cell.model: place for place, cell in reversed(list(enumerate(cells)))}
    return sorted(rows, key=lambda row: (row["protocol"], row["granularity"], first_seen[row["model"]]))


def _row_key(cell: Cell) -> tuple[str, str, str]:
    """Cells of one row; the fine tasks belong together."""
    return cell.protocol, cell.granularity.rstrip("01234"), cell.model


def _row(cells: Sequence[Cell]) -> dict[str, Any]:
    """One row but for its tests."""
    protocol, granularity, model = _row_key(cells[0])
    subjects = sorted({cell.subject for cell in cells})
    per_subject: dict[str, list[float]] = {}
    for subject in subjects:
        own = [cell for cell in cells if cell.subject == subject]
        scored = [trial_scores(cell.scores, cell.true) for cell in own]
        values = {name: float(np.mean([scores[name].mean() for scores in scored])) for name in scored[0]}
        also = own[0].accuracy.keys() - {"selected"}
        values |= {name: float(np.mean([cell.accuracy[name] for cell in own])) for name in also}
        values["seconds"] = sum(cell.seconds for cell in own)
        for name, value in values.items():
            per_subject.setdefault(name, []).append(value)
    accuracy = np.array(per_subject["accuracy"])
    best = per_subject.get("best_on_test")
    n_concepts = mode(cell.scores.shape[1] for cell in cells)  # a subject may lack one
    return {
        "protocol": protocol, "granularity": granularity, "model": model, "title": cells[0].title,
        "subjects": subjects, **per_subject,
        "mean": float(accuracy.mean()), "sd": float(accuracy.std(ddof=1)) if len(subjects) > 1 else None,
        **({"gap": float(np.mean(best) - accuracy.mean())} if best else {}),
        "released": released_score(model, granularity, protocol, n_concepts),
        "warnings": sorted({warning for cell in cells for warning in cell.warnings}),
    }  # fmt: skip


def _test_against_chance(
    rows: Sequence[dict[str, Any]], groups: Sequence[Sequence[Cell]], count: int, rng: np.random.Generator
) -> None:
    """Put chance, p and p_holm into rows; models that were tested on the same trials share permutations."""
    tested: dict[bytes, list[int]] = {}
    for place, cells in enumerate(groups):
        tested.setdefault(_exchanged(cells).tobytes(), []).append(place)
    for places in tested.values():
        true, strata, units = _exchanged(groups[places[0]])
        predicted = np.stack([np.concatenate([cell.scores.argmax(axis=1) for cell in groups[one]]) for one in places])
        found = chance_p(predicted, true, strata, units, count=count, rng=rng)
        for place, p, chance in zip(places, *found, strict=True):
            rows[place] |= {"chance": float(chance), "p": float(p)}
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted


def _exchanged(cells: Sequence[Cell]) -> np.ndarray:
    """Concept, stratum (cell and fold) and unit of every trial, shape (3, n_trials)."""
    true, folds, units = (
        np.concatenate([getattr(cell, name) for cell in cells]) for name in ("true", "folds", "units")
    )
    places = np.repeat(np.arange(len(cells)), [len(cell.true) for cell in cells])
    strata = np.unique(np.stack([places, folds], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    return np.stack([true, strata, units]).astype(np.int64)


def _out_of_reach(n_subjects: int, n_models: int) -> list[str]:
    """Say it where no difference from the best model can be significant."""
    least = smallest_best_p(n_subjects, n_models)
    if n_models < 2 or least < SIGNIFICANT:
        return []
    subjects = f"{n_subjects} subject{'s' if n_subjects > 1 else ''}"
    return [
        f"No † can appear: comparing {n_models} models over {subjects} gives p {_short(least)} at the least after "
        "Holm's correction, which is not below .05."
    ]


def cell_text(row: Mapping[str, Any]) -> str:
    """Say a row's accuracy as the paper's table does."""
    text = _short(row["mean"]) + (f"±{_short(row['sd'])}" if row["sd"] is not None else "")
    marks = ("†" if row["p_best"] is not None and row["p_best"] < SIGNIFICANT else "") + (
        "°" if row["p_holm"] >= SIGNIFICANT else ""
    )
    return f"{text} {marks}".rstrip()


def _short(value: float) -> str:
    """Three decimals without the zero before the point."""
    return f"{value:.3f}".removeprefix("0")


def paper_tables(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Arrange rows as the paper does, two tables per protocol: models by granularities; what selection does."""
    tables = []
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        own = [row for row in rows if row["protocol"] == protocol]
        n_subjects = max(len(row["subjects"]) for row in own)
        title = f"{protocol}, {n_subjects} subject{'s' if n_subjects > 1 else ''}"
        warnings = sorted({warning for row in own for warning in row["warnings"]})
        header, *lines = _score_lines(own)
        tables.append({
            "protocol": protocol, "title": title, "explanation": EXPLAINED["scores"], "header": header, "lines": lines,
            "warnings": warnings,
        })  # fmt: skip
        header, *lines = _selection_lines(own)
        told = f"{EXPLAINED['selection']} {EXPLAINED['diagnosis']}" if _diagnosed(own) else EXPLAINED["selection"]
        tables.append({
            "protocol": protocol, "title": f"{title}: selection", "explanation": told, "header": header, "lines": lines,
            "warnings": [],
        })  # fmt: skip
    return tables


def _score_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Header and lines: models by granularities."""
    granularities = list(dict.fromkeys(row["granularity"] for row in rows))
    published = [name for name in granularities if any(r["released"] for r in rows if r["granularity"] == name)]
    header = ["model"]
    for name in granularities:
        header += [name, "published"] if name in published else [name]
    lines = [[*header, "s/subject"]]
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = {row["granularity"]: row for row in rows if row["model"] == model}
        line = [next(iter(of_model.values()))["title"]]
        for name in granularities:
            line.append(cell_text(of_model[name]) if name in of_model else "")
            if name in published:
                line.append(_published(of_model.get(name)))
        seconds = sum(float(np.mean(row["seconds"])) for row in of_model.values())
        lines.append([*line, f"{seconds:.1f}"])
    return lines


def _selection_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Header and lines: accuracy of the selected and of the last epoch; where diagnosed, best on test and the gap."""
    diagnosed = _diagnosed(rows)
    lines = [["model", "granularity", "selected", "final", *([BEST_ON_TEST, "gap"] if diagnosed else [])]]
    for row in rows:
        line = [row["title"], row["granularity"], _short(row["mean"]), _short(float(np.mean(row["final"])))]
        if diagnosed:
            line += [_short(float(np.mean(row["best_on_test"]))), f"{row['gap']:+.3f}"]
        lines.append(line)
    return lines


def _published(row: Mapping[str, Any] | None) -> str:
    """The published number, beside our value of the same metric where that is not the accuracy."""
    if row is None or not row["released"]:
        return ""
    metric, value = row["released"]
    if metric == "accuracy":
        return _short(value)
    return f"{_short(value)} (ours {_short(float(np.mean(row[metric])))})"


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the tables as plain text."""
    parts = []
    for table in paper_tables(rows):
        lines = [list(map(printable, line)) for line in [table["header"], *table["lines"]]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        parts.append(printable(table["title"]))
        for line in lines:
            parts.append("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())
        parts += [*(textwrap.fill(printable(f"Warning: {warning}"), WIDTH) for warning in table["warnings"]), ""]
    return "\n".join([*parts, textwrap.fill(explanation(rows), WIDTH), ""])


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write every subject's scores as CSV, one line per protocol, granularity, model and subject."""
    named = ("protocol", "granularity", "model")
    measured = ("accuracy", "final", "two_way", "upper_half", "seconds")
    diagnosed = _diagnosed(rows)
    header = [*named, "subject", *measured, "chance", "p_holm", "warnings"]
    lines: list[list[Any]] = [header + ["best_on_test_diagnostic", "gap"] * diagnosed]
    for row in rows:
        for place, subject in enumerate(row["subjects"]):
            values = [row[name][place] for name in measured] + [row["chance"], row["p_holm"]]
            line = [*(row[name] for name in named), subject, *(f"{value:.6g}" for value in values)]
            line.append(" ".join(row["warnings"]))
            if diagnosed:
                best = row["best_on_test"][place]
                line += [f"{best:.6g}", f"{best - row['accuracy'][place]:.6g}"]
            lines.append(line)
    return csv_text(lines)


def as_latex(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the tables as LaTeX (booktabs)."""
    parts = []
    for table in paper_tables(rows):
        caption = latex(" ".join([f"{table['title']}. {table['explanation']}", *table["warnings"]]))
        body = [" & ".join(map(latex, line)) + r" \\" for line in [table["header"], *table["lines"]]]
        columns = "l" + "c" * (len(table["header"]) - 1)
        parts += [r"\begin{table}", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        parts += [body[0], r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(parts)
