"""The benchmark table: models by granularities and protocols, over subjects; as text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from neurocanvas.evaluation.classification import chance_p, holm, mark_best, released_score, trial_scores

SIGNIFICANT = 0.05
EXPLANATION = (
    "Mean ± sd over subjects of the accuracy on test trials, the epoch or penalty chosen on validation trials. "
    "† differs from the best model (sign-flip test over subjects, Holm-corrected, p < .05); "
    "° not above chance (permutation of whole blocks, or of trials in a rapid design, Holm-corrected over all rows). "
    "* sees the signal instead of features."
)


@dataclass(frozen=True)
class Cell:
    """What one model answered to one subject's test trials.

    Parameters
    ----------
    protocol, granularity, model : str
        Granularity "all", "coarse" or "fine0" to "fine4".
    title : str
        The model's name in tables.
    subject : int
    scores : array, shape (n_test, n_concepts)
        Of the epoch or candidate chosen on validation trials.
    true, folds, units : array of int, shape (n_test,)
        The concept; the fold; and what is exchanged as a whole under the null hypothesis.
    accuracy : mapping of str to float
        `selected`, `final`, `best_on_test`.
    seconds : float
        Time of training.
    warnings : tuple of str
        Of the split.
    """

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
    """Make one row for every protocol, granularity and model.

    Parameters
    ----------
    cells : sequence of Cell
    count : int
        Permutations of the test against chance, and sign flips of the test against the best model.
    seed : int
        Of both.

    Returns
    -------
    list of dict
        protocol, granularity, model, title; subjects and, for each, accuracy, final, best_on_test, two_way, upper_half,
        seconds; their mean and sd; gap (best_on_test - accuracy, of the means); chance, p, p_holm (over all
        rows); p_best (against the best model of the same protocol and granularity, Holm-corrected; None for the
        best); released (metric, value) or None; warnings. For "fine" a subject's score is the mean of its tasks.
    """
    rng = np.random.default_rng(seed)
    rows = []
    ordered = sorted(cells, key=_row_key)
    for key, group in groupby(ordered, key=_row_key):
        rows.append(_row(key, list(group), count, rng))
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
    for _, together in groupby(rows, key=lambda row: (row["protocol"], row["granularity"])):
        same = list(together)
        compared = mark_best({row["model"]: np.array(row["accuracy"]) for row in same}, rng=rng, count=count)
        for row in same:
            row["p_best"] = compared[row["model"]]
    first_seen = {cell.model: place for place, cell in reversed(list(enumerate(cells)))}
    return sorted(rows, key=lambda row: (row["protocol"], row["granularity"], first_seen[row["model"]]))


def _row_key(cell: Cell) -> tuple[str, str, str]:
    """Cells of one row; the fine tasks belong together."""
    return cell.protocol, cell.granularity.rstrip("01234"), cell.model


def _row(key: tuple[str, str, str], cells: Sequence[Cell], count: int, rng: np.random.Generator) -> dict[str, Any]:
    """One row but for what compares it with others."""
    protocol, granularity, model = key
    subjects = sorted({cell.subject for cell in cells})
    per_subject: dict[str, list[float]] = {}
    for subject in subjects:
        own = [cell for cell in cells if cell.subject == subject]
        scored = [trial_scores(cell.scores, cell.true) for cell in own]
        values = {name: float(np.mean([scores[name].mean() for scores in scored])) for name in scored[0]}
        values |= {name: float(np.mean([cell.accuracy[name] for cell in own])) for name in ("final", "best_on_test")}
        values["seconds"] = sum(cell.seconds for cell in own)
        for name, value in values.items():
            per_subject.setdefault(name, []).append(value)
    strata = np.concatenate([np.full(len(cell.true), place) for place, cell in enumerate(cells)])
    folds, units = (np.concatenate([getattr(cell, name) for cell in cells]) for name in ("folds", "units"))
    strata = np.unique(np.stack([strata, folds], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    units = np.unique(np.stack([strata, units], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    predicted = np.concatenate([cell.scores.argmax(axis=1) for cell in cells])
    p, chance = chance_p(
        predicted, np.concatenate([cell.true for cell in cells]), strata, units, count=count, rng=rng
    )
    accuracy = np.array(per_subject["accuracy"])
    return {
        "protocol": protocol, "granularity": granularity, "model": model, "title": cells[0].title,
        "subjects": subjects, **per_subject,
        "mean": float(accuracy.mean()), "sd": float(accuracy.std(ddof=1)) if len(subjects) > 1 else None,
        "gap": float(np.mean(per_subject["best_on_test"]) - accuracy.mean()), "chance": chance, "p": p,
        "released": released_score(model, granularity, protocol, cells[0].scores.shape[1]),
        "warnings": sorted({warning for cell in cells for warning in cell.warnings}),
    }  # fmt: skip


def cell_text(row: Mapping[str, Any]) -> str:
    """Say a row's accuracy as the paper's table does.

    Parameters
    ----------
    row : mapping
        From `summarise_cells`.

    Returns
    -------
    str
        Mean ± sd, with the marks that `EXPLANATION` explains.

    Examples
    --------
    >>> cell_text({"mean": 0.5, "sd": 0.0712, "p_best": 0.01, "p_holm": 0.2})
    '.500±.071 †°'
    """
    text = _short(row["mean"]) + (f"±{_short(row['sd'])}" if row["sd"] is not None else "")
    marks = ("†" if row["p_best"] is not None and row["p_best"] < SIGNIFICANT else "") + (
        "°" if row["p_holm"] >= SIGNIFICANT else ""
    )
    return f"{text} {marks}".rstrip()


def _short(value: float) -> str:
    """Three decimals without the zero before the point."""
    return f"{value:.3f}".removeprefix("0")


def paper_tables(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Arrange rows as the paper does: one table per protocol, models by granularities.

    Parameters
    ----------
    rows : sequence of mapping
        From `summarise_cells`.

    Returns
    -------
    list of dict
        protocol, title, warnings, header (words) and lines (of words). After every granularity stands the published
        number where there is one; then what selection does, and the seconds of training per subject, all
        granularities together.
    """
    tables = []
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        own = [row for row in rows if row["protocol"] == protocol]
        granularities = list(dict.fromkeys(row["granularity"] for row in own))
        published = [name for name in granularities if any(r["released"] for r in own if r["granularity"] == name)]
        header = ["model"]
        for name in granularities:
            header += [name, "published"] if name in published else [name]
        header += ["final", "best on test", "gap", "s/subject"]
        lines = []
        for model in dict.fromkeys(row["model"] for row in own):
            of_model = {row["granularity"]: row for row in own if row["model"] == model}
            line = [next(iter(of_model.values()))["title"]]
            for name in granularities:
                line.append(cell_text(of_model[name]) if name in of_model else "")
                if name in published:
                    line.append(_published(of_model.get(name)))
            lines.append(line + _selection(list(of_model.values())))
        n_subjects = max(len(row["subjects"]) for row in own)
        title = f"{protocol}, {n_subjects} subject{'s' if n_subjects > 1 else ''}"
        warnings = sorted({warning for row in own for warning in row["warnings"]})
        tables.append({"protocol": protocol, "title": title, "header": header, "lines": lines, "warnings": warnings})
    return tables


def _published(row: Mapping[str, Any] | None) -> str:
    """The published number, beside our value of the same metric where that is not the accuracy."""
    if row is None or not row["released"]:
        return ""
    metric, value = row["released"]
    if metric == "accuracy":
        return _short(value)
    return f"{_short(value)} (ours {_short(float(np.mean(row[metric])))})"


def _selection(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Final and best-on-test accuracy, their gap to the selected one, and the time, over a model's granularities."""
    final, best = (float(np.mean([np.mean(row[name]) for row in rows])) for name in ("final", "best_on_test"))
    seconds = sum(float(np.mean(row["seconds"])) for row in rows)
    return [_short(final), _short(best), f"{np.mean([row['gap'] for row in rows]):+.3f}", f"{seconds:.1f}"]


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the tables as plain text.

    Parameters
    ----------
    rows : sequence of mapping
        From `summarise_cells`.

    Returns
    -------
    str
    """
    parts = []
    for table in paper_tables(rows):
        lines = [table["header"], *table["lines"]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        parts.append(table["title"])
        for line in lines:
            parts.append("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())
        parts += [*(f"Warning: {warning}" for warning in table["warnings"]), ""]
    return "\n".join([*parts, EXPLANATION, ""])


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Write every subject's scores as CSV, one line per protocol, granularity, model and subject.

    Parameters
    ----------
    rows : iterable of mapping
        From `summarise_cells`.

    Returns
    -------
    str
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    named = ("protocol", "granularity", "model")
    measured = ("accuracy", "final", "best_on_test", "two_way", "upper_half", "seconds")
    writer.writerow([*named, "subject", *measured, "chance", "p_holm", "warnings"])
    for row in rows:
        for place, subject in enumerate(row["subjects"]):
            values = [f"{row[name][place]:.6g}" for name in measured]
            shared = [f"{row['chance']:.6g}", f"{row['p_holm']:.6g}", " ".join(row["warnings"])]
            writer.writerow([*(row[name] for name in named), subject, *values, *shared])
    return stream.getvalue()


def as_latex(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the tables as LaTeX (booktabs).

    Parameters
    ----------
    rows : sequence of mapping
        From `summarise_cells`.

    Returns
    -------
    str
    """
    parts = []
    for table in paper_tables(rows):
        caption = _escape(" ".join([f"{table['title']}. {EXPLANATION}", *table["warnings"]]))
        body = [" & ".join(map(_escape, line)) + r" \\" for line in [table["header"], *table["lines"]]]
        columns = "l" + "c" * (len(table["header"]) - 1)
        parts += [r"\begin{table}", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        parts += [body[0], r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(parts)


def _escape(text: str) -> str:
    """Make text safe for LaTeX."""
    signs = {"±": r"$\pm$", "†": r"$^\dagger$", "°": r"$^\circ$", "%": r"\%", "_": r"\_", "&": r"\&", "<": "$<$"}
    return "".join(signs.get(letter, letter) for letter in text)
