"""The audit: what training, validation and test share, how models were selected, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from neurocanvas.audit.verdict import conclude
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.statistics import (
    SIGNIFICANT,
    bootstrap_interval,
    holm,
    permutation_p,
    permutations,
    smallest_p,
    smallest_significant_count,
)
from neurocanvas.findings import CODES, Finding
from neurocanvas.targets.pretrained import batches

# Parts that a model has seen before it is tested.
KNOWN = ("pretrain", "train", "val")

FEW_ERRORS = 10


def block_answers(
    columns: Mapping[str, np.ndarray], splits: Sequence[Mapping[str, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Name test trials by the most frequent training concept of their block: rows, names (-1: block untrained),
    and the share of test trials whose block trains."""
    block, concept = columns["block"], columns["concept"]
    tested, named = [], []
    for split in splits:
        test = split["test"]
        known = np.concatenate([np.empty(0, np.int64), *(split[part] for part in KNOWN if part in split)])
        known = known[(block[known] >= 0) & (concept[known] >= 0)]
        pairs, counts = np.unique(np.stack([block[known], concept[known]]), axis=1, return_counts=True)
        most = {int(pairs[0, place]): int(pairs[1, place]) for place in np.argsort(counts, kind="stable")}
        tested.append(test)
        named.append(np.array([most.get(int(one), -1) for one in block[test]], dtype=np.int64))
    rows, answers = np.concatenate(tested), np.concatenate(named)
    return rows, answers, float(np.mean(answers >= 0))


def neighbour_errors(
    columns: Mapping[str, np.ndarray],
    rows: np.ndarray,
    predicted: np.ndarray,
    *,
    rng: np.random.Generator,
    count: int = 499,
) -> dict[str, float] | None:
    """Test by cyclic shifts whether wrong answers name concepts recorded nearby; None with too few errors."""
    # Shifts keep what makes neighbouring answers alike. They cannot tell apart errors between concepts that are alike
    # and were recorded one after the other: those are near for either reason.
    concept = columns["concept"]
    if "order" not in columns or (predicted != concept[rows]).sum() < FEW_ERRORS:
        return None
    order, session = columns["order"], columns.get("session", np.zeros(len(concept), np.int64))
    ranked = np.lexsort([order[rows], session[rows]])
    rows, named = rows[ranked], predicted[ranked]
    # trials from each row to the nearest trial of every concept in its session; NaN if none
    apart = np.full((len(rows), max(concept.max(), named.max()) + 1), np.nan)
    for number in np.unique(session[rows]):
        own = np.flatnonzero((session == number) & (concept >= 0))
        own = own[np.argsort(order[own], kind="stable")]
        place = np.full(len(concept), -1)
        place[own] = np.arange(len(own))
        asked = np.flatnonzero(session[rows] == number)
        for one in np.unique(concept[own]):
            there, at = place[own[concept[own] == one]], place[rows[asked]]
            after = np.searchsorted(there, at)
            beside = np.stack([there[np.maximum(after - 1, 0)], there[np.minimum(after, len(there) - 1)]])
            apart[asked, one] = np.abs(beside - at).min(axis=0)
    shifts = rng.permutation(np.arange(1, len(rows)))[:count]

    def mean_distance(shift: int) -> float:
        shifted = np.roll(named, shift)
        wrong = apart[np.arange(len(rows)), shifted][(shifted != concept[rows]) & (shifted >= 0)]
        return float(np.nanmean(wrong)) if np.isfinite(wrong).any() else np.nan

    null, near = np.array([mean_distance(int(shift)) for shift in shifts]), mean_distance(0)
    null = null[np.isfinite(null)]
    if not len(null) or not np.isfinite(near):
        return None
    errors = int((named != concept[rows]).sum())
    return {"distance": near, "expected": float(null.mean()), "p": permutation_p(-near, -null), "errors": errors}


PARTS = ("pretrain", "train", "val", "test", "gallery")
# Columns by which parts are compared; `picture` stands for the bytes of the file, whatever its name.
SHARED = ("subject", "session", "run", "block", "stimulus", "concept", "picture")

# The columns of a gallery, which was not recorded.
OF_PICTURES = ("stimulus", "concept", "picture")

# Name of a pair of parts -> the parts on its first side, and the part whose values and trials are counted.
PAIRS: Mapping[str, tuple[tuple[str, ...], str]] = MappingProxyType(
    {
        "train/val": (("train",), "val"),
        "train/test": (("train",), "test"),
        "val/test": (("val",), "test"),
        "pretrain/test": (("pretrain",), "test"),
        "known/test": (KNOWN, "test"),
        "train/gallery": (("train",), "gallery"),
        "val/gallery": (("val",), "gallery"),
        "test/gallery": (("test",), "gallery"),
    }
)


@dataclass(frozen=True)
class Predictions:
    """What one model answered to test trials."""

    model: str
    rows: np.ndarray  # (n_test,), in the table of the case
    predicted: np.ndarray  # (n_test,), codes as in the column `concept`
    strata: np.ndarray
    units: np.ndarray  # concepts are exchanged among units of one stratum
    selection: str = "unknown"  # one of `verdict.SELECTIONS`
    transductive: tuple[str, ...] = ()  # names of steps that used test trials together


@dataclass(frozen=True)
class AuditInput:
    """What was tested under one protocol, or one table of predictions."""

    name: str
    columns: Mapping[str, np.ndarray]  # codes, (n_trials,); below 0: not compared (no block, no image file)
    splits: Sequence[Mapping[str, np.ndarray]]  # rows of every part, one mapping per fold and subject
    blocked: np.ndarray | None  # (n_trials,), whether the session came in blocks; None: unknown
    answers: Sequence[Predictions] = ()
    scores: Sequence[Mapping[str, Any]] = ()  # results tested elsewhere, with the keys of `answer_scores`
    findings: tuple[Finding, ...] = ()
    transductive: Mapping[str, str] = field(default_factory=dict)  # `rules` that are so beside the results, `alone`
    other_split: Mapping[str, Any] = field(default_factory=dict)  # what was made on another split than `splits`
    made_elsewhere: bool = False  # only images are there, so nobody can add the training trials


def overlaps(columns: Mapping[str, np.ndarray], splits: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Per column and pair: distinct values and trials of the second part that the first shares, summed over splits."""
    # Nothing where the first part has no values, except for blocks: there it means that none came in blocks.
    found = []
    for column in (name for name in SHARED if name in columns):
        codes = np.asarray(columns[column])
        for pair, (first, second) in PAIRS.items():
            if second == "gallery" and column not in OF_PICTURES:
                continue
            counts = np.zeros(4, dtype=np.int64)
            for split in splits:
                there = [split[part] for part in first if len(split.get(part, ()))]
                if not there or not len(split.get(second, ())):
                    continue
                tested, known = codes[split[second]], codes[np.concatenate(there)]
                if column != "block" and (known < 0).all():
                    continue
                tested = tested[tested >= 0]
                is_shared = np.isin(tested, known)
                counts += len(np.unique(tested[is_shared])), len(np.unique(tested)), is_shared.sum(), len(tested)
            if counts[3]:
                named = dict(zip(("shared", "values", "trials", "of"), counts.tolist(), strict=True))
                found.append({"column": column, "pair": pair, **named})
    return found


def answer_scores(
    answers: Sequence[Predictions],
    concept: np.ndarray,
    groups: np.ndarray,
    *,
    rng: np.random.Generator,
    count: int = 1999,
) -> list[dict[str, Any]]:
    """Score answers, and test them by permuting the concepts of whole units; resampled within `groups` (subjects)."""
    alike: dict[bytes, list[int]] = {}
    for place, one in enumerate(answers):
        alike.setdefault(np.stack([one.rows, one.strata, one.units]).astype(np.int64).tobytes(), []).append(place)
    found: dict[int, dict[str, Any]] = {}
    for places in alike.values():
        first = answers[places[0]]
        true, n = concept[first.rows], len(first.rows)
        predicted = np.stack([answers[place].predicted for place in places])
        parts = []
        for some in batches(count, max(1, 4_000_000 // n)):  # tens of megabytes at a time
            dealt = permutations(first.strata, first.units, some.stop - some.start, rng=rng)
            parts.append(np.stack([(true[dealt] == one).sum(axis=1) for one in predicted], axis=1))
        hits = np.concatenate(parts)
        least, n_units = smallest_p(first.strata, first.units, count), len(np.unique(first.units))
        majority = np.unique(true, return_counts=True)[1].max() / n
        for column, place in enumerate(places):
            right = (predicted[column] == true).astype(np.float64)
            between = bootstrap_interval(right, first.units, rng=rng, strata=groups[first.rows])
            low, high = between or (None, None)
            chance = float(hits[:, column].mean() / n)
            guessed = n_units == n and 0 < chance < 1
            found[place] = {
                "model": answers[place].model, "metric": "accuracy", "n": n, "correct": int(right.sum()),
                "value": float(right.mean()), "chance": chance, "low": low, "high": high,
                "p": permutation_p(float(right.sum()), hits[:, column]),
                "needed": _needed(hits[:, column], n) if least < SIGNIFICANT else None,
                "needed_binomial": smallest_significant_count(n, chance) if guessed else None,
                "least_p": least, "majority": float(majority),
                "n_units": n_units, "selection": answers[place].selection,
                "transductive": list(answers[place].transductive),
            }  # fmt: skip
    scored = [found[place] for place in range(len(answers))]
    adjusted = holm([result["p"] for result in scored])
    return [{**result, "p_holm": p} for result, p in zip(scored, adjusted, strict=True)]


def _needed(hits: np.ndarray, n: int) -> int | None:
    """Smallest number of correct answers with a permutation p below .05."""
    allowed = int(np.ceil(SIGNIFICANT * (1 + len(hits)))) - 2  # permutations that may have as many
    if allowed < 0:
        return None
    least = int(np.sort(hits)[::-1][allowed]) + 1
    return least if least <= n else None


def audit_cases(source: str, cases: Sequence[AuditInput], *, rng: np.random.Generator) -> dict[str, Any]:
    """Count, test and conclude for every case; the verdict is the gravest of them."""
    if not cases:
        raise NeuroCanvasError(f"{source}: nothing to audit.")
    found = []
    for case in cases:
        concept, results = case.columns.get("concept", np.empty(0, np.int64)), [*case.scores]
        if case.answers:
            groups = case.columns.get("subject", np.zeros(len(concept), np.int64))
            scored = answer_scores(case.answers, concept, groups, rng=rng)
            for result, one in zip(scored, case.answers, strict=True):
                near = neighbour_errors(case.columns, one.rows, one.predicted, rng=rng)
                results.append({**result, "neighbours": near})
        rows = {part: [split[part] for split in case.splits if len(split.get(part, ()))] for part in PARTS}
        counts = {part: len(np.unique(np.concatenate(own))) for part, own in rows.items() if own}
        tested = np.concatenate([np.empty(0, np.int64), *rows["test"]])
        design, block = "unknown", None
        if case.blocked is not None:
            design = "block" if case.blocked[tested].any() else "mixed"
        known = [name for name in SHARED if name in case.columns and (case.columns[name][tested] >= 0).any()]
        if any(part in counts for part in KNOWN) and {"block", "concept"} <= {*known}:
            tested, named, inside = block_answers(case.columns, case.splits)
            block = {"inside": inside, "accuracy": float(np.mean(named == concept[tested])), "chance": None, "p": None}
            if design != "block":
                alone = Predictions("block", tested, named, np.zeros(len(tested), np.int64), np.arange(len(tested)))
                [scores] = answer_scores([alone], concept, np.zeros(len(concept), np.int64), rng=rng)
                block |= {"chance": scores["chance"], "p": scores["p"]}
        found.append(conclude({
            "name": case.name, "trials": counts, "design": design, "columns": known,
            "overlaps": overlaps(case.columns, case.splits), "block": block, "results": results,
            "findings": [asdict(one) for one in case.findings], "transductive": dict(case.transductive),
            "other_split": dict(case.other_split), "made_elsewhere": case.made_elsewhere,
        }))  # fmt: skip
    gravest = min(found, key=lambda case: [*CODES].index(case["verdict"]["code"]))
    return {"verdict": gravest["verdict"], "source": source, "cases": found}
