"""The benchmark table: models by granularities and protocols, over subjects; as text, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from statistics import mode
from typing import Any

import numpy as np

from neurocanvas.data.trials import natural_key, ranks, unique_names
from neurocanvas.errors import NeuroCanvasError, csv_text
from neurocanvas.evaluation.statistics import (
    CROSS_VALIDATED,
    SIGNIFICANT,
    draw_signs,
    expected_score,
    holm,
    paired_permutation_p,
    permutation_p,
)
from neurocanvas.findings import Finding, finding, listed, read_findings
from neurocanvas.targets.pretrained import batches

AT_ONCE = 4_000_000  # labels permuted at a time: tens of megabytes

# README of Promise-Z5Q2SQ/EEG-ImageNet-Dataset (MIT), table 1, in the order all (80 concepts), coarse (40), fine (8,
# mean of five tasks): accuracy, mean over 16 subjects, of the epoch that was best on the test trials.
_RELEASED = {
    "ridge": (0.286, 0.394, 0.583), "knn": (0.304, 0.401, 0.696), "rf": (0.349, 0.454, 0.729),
    "svm": (0.392, 0.506, 0.778), "mlp": (0.404, 0.534, 0.816), "eegnet": (0.260, 0.303, 0.365),
    "rgnn": (0.405, 0.470, 0.706),
}  # fmt: skip

# README of Promise-Z5Q2SQ/EEG-ImageNet-anonymous (MIT), tables 2 and 3: not accuracy but `upper_half`. Their CT, CP, PT
# are our protocols below; their WT (from the first pass of the second session to its second pass) has no equivalent.
_CROSSPT_PROTOCOLS = ("leave-session-out", "leave-subject-out", "pretrain-finetune")
_CROSSPT = {
    "coarse": {
        "ridge": (0.509, 0.501, 0.508), "knn": (0.517, 0.491, 0.521), "rf": (0.511, 0.507, 0.524),
        "svm": (0.536, 0.506, 0.544), "mlp": (0.552, 0.524, 0.570), "eegnet": (0.519, 0.509, 0.524),
        "rgnn": (0.566, 0.526, 0.585),
    },
    "fine": {
        "ridge": (0.549, 0.495, 0.543), "knn": (0.554, 0.505, 0.551), "rf": (0.587, 0.511, 0.595),
        "svm": (0.592, 0.509, 0.606), "mlp": (0.617, 0.563, 0.636), "eegnet": (0.566, 0.522, 0.579),
        "rgnn": (0.601, 0.573, 0.634),
    },
}  # fmt: skip


def released_score(model: str, granularity: str, protocol: str, n_concepts: int) -> tuple[str, float] | None:
    """The published metric and number to compare a cell of the table with."""
    if n_concepts != {"all": 80, "coarse": 40, "fine": 8}[granularity]:
        return None
    if protocol == "released" and model in _RELEASED:
        return "accuracy", _RELEASED[model][("all", "coarse", "fine").index(granularity)]
    if protocol in _CROSSPT_PROTOCOLS and model in _CROSSPT.get(granularity, {}):
        return "upper_half", _CROSSPT[granularity][model][_CROSSPT_PROTOCOLS.index(protocol)]
    return None


def trial_scores(scores: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    """Score every trial."""
    scores, true = np.asarray(scores), np.asarray(true)
    if scores.ndim != 2 or scores.shape[1] < 2 or true.shape != (len(scores),):
        raise NeuroCanvasError(
            f"scores: (n_trials, 2 or more concepts) and one concept per trial are needed; got {scores.shape} "
            f"and {true.shape}."
        )
    own = scores[np.arange(len(true)), true][:, None]
    won = ((own > scores).sum(axis=1) + ((own == scores).sum(axis=1) - 1) / 2) / (scores.shape[1] - 1)
    return {
        "accuracy": (scores.argmax(axis=1) == true).astype(np.float64),
        "two_way": won,
        "upper_half": (won > 0.5).astype(np.float64),
    }


def describe_answers(scores: np.ndarray, true: np.ndarray, folds: np.ndarray) -> dict[str, float]:
    """Chance under the test set's own frequencies, the largest class, balanced accuracy and AUC of some answers."""
    from sklearn.metrics import roc_auc_score

    predicted, n_concepts = scores.argmax(axis=1), scores.shape[1]
    right = predicted == true
    areas = []  # scores of different folds have different scales; two classes have one area
    for fold in np.unique(folds):
        of_fold, seen = scores[folds == fold], true[folds == fold]
        for concept in range(1 if n_concepts == 2 else 0, n_concepts):
            if 0 < np.sum(seen == concept) < len(seen):
                margin = of_fold[:, 1] - of_fold[:, 0] if n_concepts == 2 else of_fold[:, concept]
                areas.append(float(roc_auc_score(seen == concept, margin)))
    return {
        "n": len(true), "chance": expected_score(predicted[:, None] == np.arange(n_concepts), true, folds),
        "largest_class": float(np.bincount(true).max() / len(true)),
        "balanced_accuracy": float(np.mean([right[true == concept].mean() for concept in np.unique(true)])),
        "auc": float(np.mean(areas)) if areas else float("nan"),
    }  # fmt: skip


def enough_draws(count: int, n_tests: int) -> int:
    """Permutations for each of `n_tests` tests, so that the smallest p, Holm-corrected, lies well below .05."""
    return max(count, 5 * ceil(n_tests / SIGNIFICANT))


def chance_p(
    predicted: np.ndarray,
    true: np.ndarray,
    strata: np.ndarray,
    units: np.ndarray,
    *,
    count: int,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
    cross_validated: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """p of every model's accuracy, (n_models,), by permuting the concepts of whole units; and in each group of strata
    (subject), (n_models, n_groups)."""
    shapes = [np.shape(column) for column in (true, strata, units)]
    if np.ndim(predicted) != 2 or any(shape != np.shape(predicted)[1:] for shape in shapes):
        raise NeuroCanvasError(
            f"predicted: (n_models, n_trials), and one concept, stratum and unit per trial are needed; got "
            f"{np.shape(predicted)} and {shapes}."
        )
    of_group = np.zeros(len(true), np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    correct = predicted == true
    hits, p_of_groups = np.zeros((len(predicted), count), dtype=np.int64), []
    for group in range(of_group.max() + 1):
        of_one = np.zeros_like(hits)
        for stratum in np.unique(strata[of_group == group]):
            rows = np.flatnonzero((strata == stratum) & (of_group == group))
            of_one += _permuted_hits(predicted[:, rows], true[rows], units[rows], count, rng)
        p_of_groups.append(_p_of_hits(correct[:, of_group == group], of_one, cross_validated))
        hits += of_one
    return _p_of_hits(correct, hits, cross_validated), np.stack(p_of_groups, axis=1)


def _p_of_hits(correct: np.ndarray, hits: np.ndarray, cross_validated: bool) -> np.ndarray:
    """p of every model's number of correct answers, from (n_models, n_trials) and its null, (n_models, count)."""
    widening = CROSS_VALIDATED["correct"] if cross_validated else 1.0
    observed = correct.sum(axis=1)
    return np.array([permutation_p(float(n), null, widening=widening) for n, null in zip(observed, hits, strict=True)])


def _permuted_hits(
    predicted: np.ndarray, true: np.ndarray, units: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Correct answers of every model in one stratum under every permutation, shape (n_models, count)."""
    members = [np.flatnonzero(units == unit) for unit in np.unique(units)]
    longest = max(map(len, members))
    labels = np.stack([np.resize(true[rows], longest) for rows in members])
    kinds, of_unit = np.unique(labels, axis=0, return_inverse=True)  # units of the same concepts are one kind
    answers = np.full((len(predicted), len(members), longest), -1)
    answers[:, np.arange(longest) < np.array([len(rows) for rows in members])[:, None]] = predicted[
        :, np.concatenate(members)
    ]
    own = of_unit.reshape(-1).astype(np.min_scalar_type(len(kinds)))
    # hits of every unit under every kind: permutations are then read per unit instead of per trial
    tables = [np.stack([(answer == kind).sum(axis=1) for kind in kinds], axis=1) for answer in answers]
    hits = np.empty((len(predicted), count), dtype=np.int64)
    for some in batches(count, max(1, AT_ONCE // len(members))):
        dealt = rng.permuted(np.tile(own, (some.stop - some.start, 1)), axis=1)
        for model, table in enumerate(tables):
            hits[model, some] = _read(table, dealt)
    return hits


def _read(table: np.ndarray, dealt: np.ndarray) -> np.ndarray:
    """Sum over units of the hits that they have with the kinds dealt to them, shape (count,)."""
    if table.sum(axis=1).max() > 1:
        return np.asarray(table[np.arange(len(table)), dealt].sum(axis=1))
    # one hit at most, as in a rapid design: comparing is ten times as fast as looking up
    right = np.where(table.any(axis=1), table.argmax(axis=1), table.shape[1]).astype(dealt.dtype)
    return np.asarray(np.count_nonzero(dealt == right, axis=1))


def mark_best(by_model: Mapping[str, np.ndarray], *, rng: np.random.Generator, count: int) -> dict[str, float | None]:
    """Compare every model with the best one over subjects; holds its level over all pairs of models."""
    # Which model is best depends on the same scores, so a difference is compared with the largest one between any two
    # models when the signs of subjects' deviations from their mean are flipped (symmetry is assumed).
    best = max(by_model, key=lambda model: float(np.mean(by_model[model])))
    n_subjects = len(by_model[best])
    if len({len(scores) for scores in by_model.values()}) > 1:
        sizes = ", ".join(f"{model} {len(scores)}" for model, scores in by_model.items())
        raise NeuroCanvasError(f"by_model: scores of the same subjects are needed; got {sizes}.")
    if n_subjects < 2 or len(by_model) < 2:
        return dict.fromkeys(by_model)
    scores = np.stack([by_model[model] for model in by_model], axis=1)
    signs = draw_signs(n_subjects, enough_draws(count, 2), rng)
    null = np.ptp(signs @ (scores - scores.mean(axis=1, keepdims=True)), axis=1) / n_subjects
    differences = {model: float(np.mean(by_model[best]) - np.mean(by_model[model])) for model in by_model}
    return {model: None if model == best else permutation_p(gap, null) for model, gap in differences.items()}


def smallest_best_p(n_subjects: int) -> float:
    """The smallest p that `mark_best` can give: few subjects have few sign flips."""
    return min(1.0, 2 / 2**n_subjects)


# Table -> the text below it.
EXPLAINED = {
    "scores": "Mean ± sd over subjects of the accuracy on test trials, the epoch or penalty chosen on validation "
    "trials; fine is the mean of its tasks. "
    "† differs from the best model (sign-flip test over subjects that compares all pairs of models, p < .05); "
    "° not above chance (labels permuted among exchangeable units, Holm-corrected over all rows). "
    "* sees the signal instead of features.",
    "details": "Chance is the accuracy of the same answers under the test set's own frequencies; largest class is what "
    "always naming the most frequent concept scores; balanced is the mean accuracy of concepts. AUC: area under the "
    "ROC curve, one concept against the rest, per fold. p permutes labels among exchangeable units (Holm-corrected "
    "over all rows): evidence on these subjects. Above chance are subjects whose own p, Holm-corrected over subjects, "
    "is below .05. p over subjects flips the signs of accuracies above chance, which assumes symmetry: evidence on "
    "other subjects too.",
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
    subject: str
    scores: np.ndarray
    true: np.ndarray
    folds: np.ndarray
    units: np.ndarray
    accuracy: Mapping[str, float]
    seconds: float
    findings: tuple[Finding, ...]


def summarise_cells(cells: Sequence[Cell], *, count: int, seed: int) -> list[dict[str, Any]]:
    """Make one row for every protocol, granularity and model."""
    rng = np.random.default_rng(seed)
    ordered = sorted(cells, key=lambda cell: (*_row_key(cell), natural_key(cell.subject), cell.granularity))
    groups = [list(group) for _, group in groupby(ordered, key=_row_key)]
    rows = [_row(group) for group in groups]
    _test_against_chance(rows, groups, enough_draws(count, len(rows)), rng)
    for _, together in groupby(rows, key=lambda row: (row["protocol"], row["granularity"])):
        same = list(together)
        compared = mark_best({row["model"]: np.array(row["accuracy"]) for row in same}, rng=rng, count=count)
        for row in same:
            row["p_best"] = compared[row["model"]]
            n_subjects = len(row["subjects"])
            least = smallest_best_p(n_subjects)
            if len(same) > 1 and least >= SIGNIFICANT:
                reach = finding("best-out-of-reach", models=len(same), subjects=n_subjects, least=least)
                row["findings"] = listed([*read_findings(row["findings"]), reach])
    first_seen = {cell.model: place for place, cell in reversed(list(enumerate(cells)))}
    return sorted(rows, key=lambda row: (row["protocol"], row["granularity"], first_seen[row["model"]]))


# What a row has of every subject beside its accuracy: means over the subject's fine tasks.
DESCRIBED = ("chance", "largest_class", "balanced_accuracy", "auc")


def _row_key(cell: Cell) -> tuple[str, str, str]:
    """Cells of one row; the fine tasks belong together."""
    return cell.protocol, cell.granularity.rstrip("01234"), cell.model


def _row(cells: Sequence[Cell]) -> dict[str, Any]:
    """One row without its tests."""
    protocol, granularity, model = _row_key(cells[0])
    subjects = unique_names(cell.subject for cell in cells)
    per_subject: dict[str, list[float]] = {}
    for subject in subjects:
        own = [cell for cell in cells if cell.subject == subject]
        scored = [trial_scores(cell.scores, cell.true) for cell in own]
        values = {name: float(np.mean([scores[name].mean() for scores in scored])) for name in scored[0]}
        also = own[0].accuracy.keys() - {"selected"}
        values |= {name: float(np.mean([cell.accuracy[name] for cell in own])) for name in also}
        described = [describe_answers(cell.scores, cell.true, cell.folds) for cell in own]
        values |= {name: float(np.mean([of_cell[name] for of_cell in described])) for name in DESCRIBED}
        values["n"] = sum(of_cell["n"] for of_cell in described)
        values["seconds"] = sum(cell.seconds for cell in own)
        for name, value in values.items():
            per_subject.setdefault(name, []).append(value)
    accuracy = np.array(per_subject["accuracy"])
    best = per_subject.get("best_on_test")
    n_concepts = mode(cell.scores.shape[1] for cell in cells)  # a subject may lack one
    return {
        "protocol": protocol, "granularity": granularity, "model": model, "title": cells[0].title,
        "subjects": subjects, **per_subject, "chance": float(np.mean(per_subject["chance"])),
        "chance_of_subject": per_subject["chance"],
        "mean": float(accuracy.mean()), "sd": float(accuracy.std(ddof=1)) if len(subjects) > 1 else None,
        **({"gap": float(np.mean(best) - accuracy.mean())} if best else {}),
        "released": released_score(model, granularity, protocol, n_concepts),
        "findings": listed(one for cell in cells for one in cell.findings),
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
        cells = groups[places[0]]
        names = np.repeat([cell.subject for cell in cells], [len(cell.true) for cell in cells])
        # folds of one subject train on one another's test trials, and so do subjects of leave-subject-out
        together = any(len(np.unique(cell.folds)) > 1 or cell.protocol == "leave-subject-out" for cell in cells)
        tested_p = chance_p(
            predicted, true, strata, units, count=count, rng=rng, groups=ranks(names), cross_validated=together
        )
        for place, p, p_of_subjects in zip(places, *tested_p, strict=True):
            row, n_subjects = rows[place], len(rows[place]["subjects"])
            above = np.array(row["accuracy"]) - row["chance_of_subject"]
            row |= {
                "p": float(p), "n_above": sum(value < SIGNIFICANT for value in holm(p_of_subjects.tolist())),
                "p_subjects": paired_permutation_p(
                    above, np.zeros(n_subjects), np.arange(n_subjects), rng=rng, count=count,
                    widening=CROSS_VALIDATED["correct"] if row["protocol"] == "leave-subject-out" else 1.0,
                ) if n_subjects > 1 else None,
            }  # fmt: skip
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


def cell_text(row: Mapping[str, Any]) -> str:
    """Write a row's accuracy as in the paper's table."""
    text = _short(row["mean"]) + (f"±{_short(row['sd'])}" if row["sd"] is not None else "")
    marks = ("†" if row["p_best"] is not None and row["p_best"] < SIGNIFICANT else "") + (
        "°" if row["p_holm"] >= SIGNIFICANT else ""
    )
    return f"{text} {marks}".rstrip()


def _short(value: float) -> str:
    """Three decimals without the zero before the point."""
    return f"{value:.3f}".removeprefix("0")


def paper_tables(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Arrange rows as the paper does, two tables per protocol: models by granularities; effect of selection."""
    tables = []
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        own = [row for row in rows if row["protocol"] == protocol]
        n_subjects = max(len(row["subjects"]) for row in own)
        title = f"{protocol}, {n_subjects} subject{'s' if n_subjects > 1 else ''}"
        findings = listed(one for row in own for one in read_findings(row["findings"]))
        header, *lines = _score_lines(own)
        tables.append({
            "protocol": protocol, "title": title, "explanation": EXPLAINED["scores"], "header": header, "lines": lines,
            "findings": findings,
        })  # fmt: skip
        header, *lines = _detail_lines(own)
        tables.append({
            "protocol": protocol, "title": f"{title}: details", "explanation": EXPLAINED["details"], "header": header,
            "lines": lines, "findings": [],
        })  # fmt: skip
        header, *lines = _selection_lines(own)
        told = f"{EXPLAINED['selection']} {EXPLAINED['diagnosis']}" if _diagnosed(own) else EXPLAINED["selection"]
        tables.append({
            "protocol": protocol, "title": f"{title}: selection", "explanation": told, "header": header, "lines": lines,
            "findings": [],
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


def _detail_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Header and lines: accuracy beside chance, the largest class, balanced accuracy, AUC and tests."""
    titles = ("chance", "largest class", "balanced", "AUC")
    lines = [["model", "granularity", "n", "accuracy", *titles, "p", "above chance", "p over subjects"]]
    for row in rows:
        described = [_short(float(np.nanmean(row[name]))) for name in DESCRIBED]
        lines.append([
            row["title"], row["granularity"], str(int(sum(row["n"]))), _short(row["mean"]), *described,
            _p_text(row["p_holm"]), f"{row['n_above']} of {len(row['subjects'])}",
            "–" if row["p_subjects"] is None else _p_text(row["p_subjects"]),
        ])  # fmt: skip
    return lines


def _p_text(p: float) -> str:
    """A p-value with three decimals, never 0."""
    return _short(p) if p >= 0.0005 else "< .001"


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


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write every subject's scores as CSV, one line per protocol, granularity, model and subject."""
    named = ("protocol", "granularity", "model")
    measured = ("accuracy", "balanced_accuracy", "auc", "final", "two_way", "upper_half", "n", "largest_class",
                "seconds")  # fmt: skip
    diagnosed = _diagnosed(rows)
    header = [*named, "subject", *measured, "chance", "p_holm", "findings"]
    lines: list[list[Any]] = [header + ["best_on_test_diagnostic", "gap"] * diagnosed]
    for row in rows:
        for place, subject in enumerate(row["subjects"]):
            values = [row[name][place] for name in measured] + [row["chance_of_subject"][place], row["p_holm"]]
            line = [*(row[name] for name in named), subject, *(f"{value:.6g}" for value in values)]
            line.append(" ".join(one["code"] for one in row["findings"]))
            if diagnosed:
                best = row["best_on_test"][place]
                line += [f"{best:.6g}", f"{best - row['accuracy'][place]:.6g}"]
            lines.append(line)
    return csv_text(lines)
