"""Classification scores of trials, and their tests: against chance, against the best model, for many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.statistics import permutation_p

SIGNIFICANT = 0.05
AT_ONCE = 4_000_000  # labels dealt out at a time: tens of megabytes

# README of Promise-Z5Q2SQ/EEG-ImageNet-Dataset (MIT), table 1, in the order all (80 concepts), coarse (40), fine (8,
# mean of five tasks): accuracy, mean over 16 subjects, of the epoch that was best on the test trials.
_RELEASED = {
    "ridge": (0.286, 0.394, 0.583), "knn": (0.304, 0.401, 0.696), "rf": (0.349, 0.454, 0.729),
    "svm": (0.392, 0.506, 0.778), "mlp": (0.404, 0.534, 0.816), "eegnet": (0.260, 0.303, 0.365),
    "rgnn": (0.405, 0.470, 0.706),
}  # fmt: skip

# README of Promise-Z5Q2SQ/EEG-ImageNet-anonymous (MIT), tables 2 and 3: not accuracy but `upper_half`. Their CT, CP, PT
# are our protocols below; their WT (from the first pass of the second session to its second pass) has no equal here.
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
    """Give the published number that a cell of the table is to be read beside."""
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


def enough_draws(count: int, n_tests: int) -> int:
    """How many permutations one of many tests needs: its smallest p, times their number, is to lie well below .05."""
    return max(count, 5 * ceil(n_tests / SIGNIFICANT))


def chance_p(
    predicted: np.ndarray,
    true: np.ndarray,
    strata: np.ndarray,
    units: np.ndarray,
    *,
    count: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Test accuracies against what permuting the concepts of whole units gives."""
    shapes = [np.shape(column) for column in (true, strata, units)]
    if np.ndim(predicted) != 2 or any(shape != np.shape(predicted)[1:] for shape in shapes):
        raise NeuroCanvasError(
            f"predicted: (n_models, n_trials), and one concept, stratum and unit per trial are needed; got "
            f"{np.shape(predicted)} and {shapes}."
        )
    hits = np.zeros((len(predicted), count), dtype=np.int64)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        hits += _dealt_hits(predicted[:, rows], true[rows], units[rows], count, rng)
    as_many = hits >= (predicted == true).sum(axis=1)[:, None]
    return (1 + as_many.sum(axis=1)) / (1 + count), hits.mean(axis=1) / len(true)


def _dealt_hits(
    predicted: np.ndarray, true: np.ndarray, units: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """How many trials of one stratum every model names rightly after every deal, shape (n_models, count)."""
    members = [np.flatnonzero(units == unit) for unit in np.unique(units)]
    longest = max(map(len, members))
    labels = np.stack([np.resize(true[rows], longest) for rows in members])
    kinds, of_unit = np.unique(labels, axis=0, return_inverse=True)  # units of the same concepts are one kind
    answers = np.full((len(predicted), len(members), longest), -1)
    answers[:, np.arange(longest) < np.array([len(rows) for rows in members])[:, None]] = predicted[
        :, np.concatenate(members)
    ]
    own = of_unit.reshape(-1).astype(np.min_scalar_type(len(kinds)))
    # hits of every unit, were it given a kind: a deal is then read per unit instead of per trial
    tables = [np.stack([(answer == kind).sum(axis=1) for kind in kinds], axis=1) for answer in answers]
    hits = np.empty((len(predicted), count), dtype=np.int64)
    step = max(1, AT_ONCE // len(members))
    for start in range(0, count, step):
        dealt = rng.permuted(np.tile(own, (min(step, count - start), 1)), axis=1)
        for model, table in enumerate(tables):
            hits[model, start : start + step] = _read(table, dealt)
    return hits


def _read(table: np.ndarray, dealt: np.ndarray) -> np.ndarray:
    """Sum over units of the hits that they have with the kinds dealt to them, shape (count,)."""
    if table.sum(axis=1).max() > 1:
        return np.asarray(table[np.arange(len(table)), dealt].sum(axis=1))
    # one hit at most, as in a rapid design: comparing is ten times as fast as looking up
    right = np.where(table.any(axis=1), table.argmax(axis=1), table.shape[1]).astype(dealt.dtype)
    return np.asarray(np.count_nonzero(dealt == right, axis=1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, step down [Holm1979]."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(order), 0, -1))
    return [float(round(min(1.0, p), 12)) for p in adjusted]


def mark_best(by_model: Mapping[str, np.ndarray], *, rng: np.random.Generator, count: int) -> dict[str, float | None]:
    """Compare every model with the best one over subjects: sign-flip tests, Holm-corrected."""
    best = max(by_model, key=lambda model: float(np.mean(by_model[model])))
    others = [model for model in by_model if model != best]
    n_subjects = len(by_model[best])
    if len({len(scores) for scores in by_model.values()}) > 1:
        sizes = ", ".join(f"{model} {len(scores)}" for model, scores in by_model.items())
        raise NeuroCanvasError(f"by_model: scores of the same subjects are needed; got {sizes}.")
    if n_subjects < 2:
        return dict.fromkeys(by_model)
    signs = _signs(n_subjects, enough_draws(count, 2 * len(others)), rng)
    differences = [by_model[best] - by_model[model] for model in others]
    tested = [min(1.0, 2 * permutation_p(float(one.mean()), signs @ one / n_subjects)) for one in differences]
    return {best: None, **dict(zip(others, holm(tested), strict=True))}


def _signs(n_subjects: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Signs, shape (n, n_subjects): drawn, or all but those observed where there are no more than `count`."""
    if 2**n_subjects > count:
        return rng.integers(0, 2, size=(count, n_subjects)) * 2 - 1
    return 1 - 2 * (np.arange(1, 2**n_subjects)[:, None] >> np.arange(n_subjects) & 1)


def smallest_best_p(n_subjects: int, n_models: int) -> float:
    """The smallest p that `mark_best` can give: few subjects have few sign flips."""
    return min(1.0, 2 * (n_models - 1) / 2**n_subjects)
