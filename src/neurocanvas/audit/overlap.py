"""The audit: what training, validation and test share, how models were selected, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import numpy as np

from neurocanvas.audit.verdict import conclude
from neurocanvas.data.trials import ranks
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.statistics import (
    SIGNIFICANT,
    TOLERANCE,
    expected_score,
    holm,
    mean_interval,
    paired_permutation_p,
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
    import pandas as pd

    table, answers = pd.DataFrame({name: columns[name] for name in ("block", "concept")}), []
    for split in splits:
        seen = table.iloc[np.concatenate([split[part] for part in KNOWN if part in split] or [split["test"][:0]])]
        counts = seen[(seen >= 0).all(axis=1)].groupby(["block", "concept"]).size().sort_values(kind="stable")
        frequent = counts.reset_index().drop_duplicates("block", keep="last").set_index("block")["concept"]
        answers.append(frequent.reindex(columns["block"][split["test"]], fill_value=-1).to_numpy(np.int64))
    named = np.concatenate(answers)
    return np.concatenate([split["test"] for split in splits]), named, float(np.mean(named >= 0))


def neighbour_errors(
    concept: np.ndarray, block: np.ndarray, session: np.ndarray, predicted: np.ndarray, *, rng: np.random.Generator,
    count: int = 999,
) -> dict[str, float] | None:  # fmt: skip
    """Whether wrong answers name the concept of the block before or after, by cyclic shifts of whole blocks."""
    # Arrays in recorded order, (n_trials,); `predicted` is -1 where a trial is not tested. None with too few errors.
    # Correct answers are dropped before blocks are shifted: each block takes the errors of another one, less those that
    # would be right there. Errors between concepts that are alike and were recorded one after the other look the same.
    starts = np.flatnonzero(np.concatenate([[True], (block[1:] != block[:-1]) | (session[1:] != session[:-1])]))
    number = np.repeat(np.arange(len(starts)), np.diff([*starts, len(block)]))
    shown, in_session = concept[starts], session[starts]
    near = np.zeros((len(starts), max(concept.max(), predicted.max()) + 1), dtype=bool)
    beside = np.flatnonzero(in_session[1:] == in_session[:-1])
    near[beside, shown[beside + 1]] = near[beside + 1, shown[beside]] = True
    near[np.arange(len(starts)), shown] = False
    wrong = (predicted >= 0) & (predicted != concept)
    errors = np.zeros(near.shape, dtype=np.int64)
    np.add.at(errors, (number[wrong], predicted[wrong]), 1)
    tested = np.flatnonzero(np.bincount(number[predicted >= 0], minlength=len(starts)))
    if wrong.sum() < FEW_ERRORS or len(tested) < 3:
        return None
    groups = [np.flatnonzero(in_session[tested] == one) for one in np.unique(in_session[tested])]

    def share(source: np.ndarray) -> float:
        moved = errors[tested[source]].copy()
        moved[np.arange(len(tested)), shown[tested]] = 0
        return float(moved[near[tested]].sum() / max(1, moved.sum()))

    ways = float(np.prod([float(len(rows)) for rows in groups]))
    single = len(groups) == 1 and ways <= count + 1
    null = []
    for shift in range(1, int(ways)) if single else range(count):
        source = np.arange(len(tested))
        for rows in groups:
            source[rows] = np.roll(rows, shift if single else int(rng.integers(len(rows))))
        null.append(share(source))
    observed = share(np.arange(len(tested)))
    hits = near[number[wrong], predicted[wrong]].astype(np.float64)
    low, high = mean_interval(hits, number[wrong], rng=rng, share=True) or (np.nan, np.nan)
    return {
        "share": observed, "low": low, "high": high, "expected": float(np.mean(null)),
        "p": permutation_p(observed, np.array(null)), "errors": int(wrong.sum()),
    }  # fmt: skip


PARTS = ("pretrain", "train", "val", "test", "gallery")
# Columns by which parts are compared; `picture` stands for the bytes of the file, whatever its name.
SHARED = ("subject", "session", "run", "block", "signal", "stimulus", "concept", "picture")

# The columns of a gallery, which was not recorded.
OF_PICTURES = ("stimulus", "concept", "picture")

# Name of a pair of parts -> the parts on its first side, and the part whose values and trials are counted.
PAIRS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "train/val": (("train",), "val"), "train/test": (("train",), "test"), "val/test": (("val",), "test"),
    "pretrain/test": (("pretrain",), "test"), "known/test": (KNOWN, "test"),
    "train/gallery": (("train",), "gallery"), "val/gallery": (("val",), "gallery"),
    "test/gallery": (("test",), "gallery"),
}  # fmt: skip


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
    group: np.ndarray | None = None  # semantic group of every concept, (n_concepts,); -1: unknown
    scores: Sequence[Mapping[str, Any]] = ()  # results tested elsewhere, with the keys of `answer_scores`
    findings: tuple[Finding, ...] = ()
    transductive: Mapping[str, str] = field(default_factory=dict)  # `rules` that are so beside the results, `alone`
    other_split: Mapping[str, Any] = field(default_factory=dict)  # what was made on another split than `splits`
    controls: Mapping[str, int] = field(default_factory=dict)  # how many were computed, and are flagged
    subjects: Sequence[str] = ()  # name of every code of the column subject
    made_elsewhere: bool = False  # only images are there, so nobody can add the training trials


def overlaps(columns: Mapping[str, np.ndarray], splits: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Per column and pair: distinct values and trials of the second part, and those that the first shares."""
    # Nothing where the first part has no values, except for blocks: there it means that none came in blocks.
    table = []
    for column, (pair, (first, second)) in product((name for name in SHARED if name in columns), PAIRS.items()):
        if second == "gallery" and column not in OF_PICTURES:
            continue
        codes, tested_rows, shared_rows = np.asarray(columns[column]), list[np.ndarray](), list[np.ndarray]()
        for split in splits:
            parts = [split[part] for part in first if len(split.get(part, ()))]
            if not parts or not len(split.get(second, ())):
                continue
            known, tested = codes[np.concatenate(parts)], codes[split[second]]
            if column == "block" or (known >= 0).any():
                tested_rows.append(split[second][tested >= 0])
                shared_rows.append(split[second][(tested >= 0) & np.isin(tested, known)])
        if sum(map(len, tested_rows)):
            tested, shared = (np.unique(np.concatenate(rows)) for rows in (tested_rows, shared_rows))
            table.append({
                "column": column, "pair": pair, "shared": len(np.unique(codes[shared])),
                "values": len(np.unique(codes[tested])), "trials": len(shared), "of": len(tested),
            })  # fmt: skip
    return table


def answer_scores(
    answers: Sequence[Predictions],
    concept: np.ndarray,
    groups: np.ndarray,
    *,
    rng: np.random.Generator,
    count: int = 1999,
) -> list[dict[str, Any]]:
    """Score answers, and test them by permuting the concepts of whole units; resampled within `groups` (subjects)."""
    tested_alike: dict[bytes, list[int]] = {}  # models that share permutations
    for number, model in enumerate(answers):
        key = np.stack([model.rows, model.strata, model.units]).astype(np.int64).tobytes()
        tested_alike.setdefault(key, []).append(number)
    scores: dict[int, dict[str, Any]] = {}
    for numbers in tested_alike.values():
        first = answers[numbers[0]]
        true, n, n_units = concept[first.rows], len(first.rows), len(np.unique(first.units))
        predicted, subject = np.stack([answers[number].predicted for number in numbers]), ranks(groups[first.rows])
        n_subjects, n_names = int(subject.max()) + 1, int(max(true.max(), predicted.max())) + 1
        null = np.empty((count, len(numbers), n_subjects), dtype=np.int64)
        for part in batches(count, max(1, 4_000_000 // n)):  # tens of megabytes at a time
            permuted = true[permutations(first.strata, first.units, part.stop - part.start, rng=rng)]
            for column, named in enumerate(predicted):
                hits = permuted == named
                for one in range(n_subjects):
                    null[part, column, one] = hits[:, subject == one].sum(axis=1)
        least = smallest_p(first.strata, first.units, true, count)
        for column, (number, named) in enumerate(zip(numbers, predicted, strict=True)):
            correct, hits = (named == true).astype(np.float64), null[:, column].sum(axis=1)
            # every subject counts alike, as in the tables of classifiers
            weights = n / n_subjects / np.bincount(subject)[subject]
            equal = np.ptp(weights) < TOLERANCE
            interval = mean_interval(weights * correct, first.units, rng=rng, strata=subject, share=bool(equal))
            low, high = interval or (None, None)
            of_subjects = [
                expected_score(named[rows][:, None] == np.arange(n_names), true[rows], first.strata[rows])
                for rows in (subject == one for one in range(n_subjects))
            ]
            chance = float(np.mean(of_subjects))
            independent = n_units == n and 0 < chance < 1
            scores[number] = {
                "model": answers[number].model, "metric": "accuracy", "n": n, "correct": int(correct.sum()),
                "value": float((weights * correct).mean()), "chance": chance, "low": low, "high": high,
                "p": permutation_p(float(correct.sum()), hits),
                "needed": _needed(hits, n) if least < SIGNIFICANT else None,
                "needed_binomial": smallest_significant_count(n, chance) if independent else None,
                "least_p": least, "majority": float(np.unique(true, return_counts=True)[1].max() / n),
                "balanced": float(np.mean([correct[true == name].mean() for name in np.unique(true)])),
                "n_units": n_units, "selection": answers[number].selection,
                "transductive": list(answers[number].transductive),
                **_over_subjects(np.bincount(subject, correct), null[:, column], np.bincount(subject), rng),
            }  # fmt: skip
    results = [scores[number] for number in range(len(answers))]
    adjusted = holm([result["p"] for result in results])
    return [{**result, "p_holm": p} for result, p in zip(results, adjusted, strict=True)]


def _over_subjects(
    correct: np.ndarray, null: np.ndarray, sizes: np.ndarray, rng: np.random.Generator
) -> dict[str, int | float | None]:
    """Number of subjects, how many are above chance by themselves (Holm-corrected), and p over subjects."""
    if len(sizes) < 2:
        return {"n_subjects": len(sizes), "n_above": None, "p_subjects": None}
    p_of_subjects = (1 + (null >= correct).sum(axis=0)) / (1 + len(null))
    above, subjects = (correct - null.mean(axis=0)) / sizes, np.arange(len(sizes))
    return {
        "n_subjects": len(sizes), "n_above": sum(p < SIGNIFICANT for p in holm(p_of_subjects.tolist())),
        "p_subjects": paired_permutation_p(above, np.zeros(len(sizes)), subjects, rng=rng, count=len(null)),
    }  # fmt: skip


def _needed(hits: np.ndarray, n: int) -> int | None:
    """Smallest number of correct answers with a permutation p below .05."""
    allowed = int(np.ceil(SIGNIFICANT * (1 + len(hits)))) - 2  # permutations that may have as many
    needed = int(np.sort(hits)[::-1][allowed]) + 1 if allowed >= 0 else n + 1
    return needed if needed <= n else None


def group_errors(
    concept: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, rng: np.random.Generator, count: int = 999
) -> dict[str, float] | None:
    """Whether wrong answers stay within the semantic group of the concept, by permuting groups among concepts."""
    # `concept` and `predicted` are (n_trials,); `group` is that of each concept, (n_concepts,), -1 where unknown.
    wrong = np.flatnonzero((predicted != concept) & (group[concept] >= 0) & (group[predicted] >= 0))
    known = np.flatnonzero(group >= 0)
    if len(wrong) < FEW_ERRORS or len(np.unique(group[known])) < 2:
        return None
    table = np.zeros((len(group), len(group)))
    np.add.at(table, (concept[wrong], predicted[wrong]), 1)
    table = table[np.ix_(known, known)] / len(wrong)

    def share(groups: np.ndarray) -> float:
        return float(table[groups[:, None] == groups].sum())

    null = np.array([share(rng.permutation(group[known])) for _ in range(count)])
    observed = share(group[known])
    p = permutation_p(observed, null)
    return {"share": observed, "expected": float(null.mean()), "p": p, "errors": len(wrong)}


def _of_subjects(case: AuditInput, model: Predictions) -> list[dict[str, Any]]:
    """Accuracy of one model in every subject that has a name."""
    codes = case.columns.get("subject", np.full(len(case.columns["concept"]), -1))[model.rows]
    correct, rows = model.predicted == case.columns["concept"][model.rows], []
    for code in np.unique(codes[codes >= 0]) if case.subjects else ():
        right = correct[codes == code]
        rows.append({
            "subject": case.subjects[code], "n": len(right), "correct": int(right.sum()), "value": float(right.mean()),
        })  # fmt: skip
    return rows


def _next_door(case: AuditInput, model: Predictions, rng: np.random.Generator) -> dict[str, float] | None:
    """Errors next door of one model's answers; None unless the design is blocked."""
    columns = case.columns
    if case.blocked is None or not case.blocked[model.rows].all() or not {"order", "block"} <= columns.keys():
        return None
    predicted, n = np.full(len(columns["concept"]), -1), len(columns["concept"])
    predicted[model.rows] = model.predicted
    session = ranks(columns.get("session", np.zeros(n, np.int64))) + n * ranks(
        columns.get("subject", np.zeros(n, np.int64))
    )
    shown = np.flatnonzero(case.blocked & (columns["block"] >= 0))
    recorded = shown[np.lexsort([columns["order"][shown], session[shown]])]
    concept, block = columns["concept"][recorded], columns["block"][recorded]
    return neighbour_errors(concept, block, session[recorded], predicted[recorded], rng=rng)


def audit_cases(source: str, cases: Sequence[AuditInput], *, rng: np.random.Generator) -> dict[str, Any]:
    """Count, test and conclude for every case; the verdict is the gravest of them."""
    if not cases:
        raise NeuroCanvasError(f"{source}: nothing to audit.")
    audited = []
    for case in cases:
        concept, results = case.columns.get("concept", np.empty(0, np.int64)), [*case.scores]
        no_groups = np.zeros(len(concept), np.int64)
        if case.answers:
            scored = answer_scores(case.answers, concept, case.columns.get("subject", no_groups), rng=rng)
            for result, model in zip(scored, case.answers, strict=True):
                group = None if case.group is None else group_errors(
                    concept[model.rows], model.predicted, case.group, rng=rng
                )  # fmt: skip
                result |= {"neighbours": _next_door(case, model, rng), "group": group}
                results.append({**result, "subjects": _of_subjects(case, model)})
        rows = {part: [split[part] for split in case.splits if len(split.get(part, ()))] for part in PARTS}
        counts = {part: len(np.unique(np.concatenate(splits))) for part, splits in rows.items() if splits}
        tested = np.concatenate([np.empty(0, np.int64), *rows["test"]])
        design, block = "unknown", None
        if case.blocked is not None:
            design = "block" if case.blocked[tested].any() else "mixed"
        compared = [name for name in SHARED if name in case.columns and (case.columns[name][tested] >= 0).any()]
        if any(part in counts for part in KNOWN) and {"block", "concept"} <= {*compared}:
            tested, named, inside = block_answers(case.columns, case.splits)
            block = {"inside": inside, "accuracy": float(np.mean(named == concept[tested])), "chance": None, "p": None}
            if design != "block":
                by_block = Predictions("block", tested, named, np.zeros(len(tested), np.int64), np.arange(len(tested)))
                [scores] = answer_scores([by_block], concept, no_groups, rng=rng)
                block |= {"chance": scores["chance"], "p": scores["p"]}
        audited.append(conclude({
            "name": case.name, "trials": counts, "design": design, "columns": compared,
            "overlaps": overlaps(case.columns, case.splits), "block": block, "results": results,
            "findings": list(map(asdict, case.findings)), "transductive": dict(case.transductive),
            "other_split": dict(case.other_split), "made_elsewhere": case.made_elsewhere,
            "controls": dict(case.controls),
        }))  # fmt: skip
    gravest = min(audited, key=lambda case: [*CODES].index(case["verdict"]["code"]))
    return {"verdict": gravest["verdict"], "source": source, "cases": audited}
