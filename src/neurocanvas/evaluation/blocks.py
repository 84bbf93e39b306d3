"""What block and order of trials tell: what the block alone names, and whether errors fall on neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from neurocanvas.evaluation.statistics import permutation_p

# Parts that a model has seen before it is tested.
KNOWN = ("pretrain", "train", "val")

FEW_ERRORS = 10


def block_answers(
    columns: Mapping[str, np.ndarray], splits: Sequence[Mapping[str, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Name every test trial's concept from nothing but its block."""
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
    """Do wrong answers name concepts that were recorded nearby? Tested by shifting answers along the recording."""
    concept = columns["concept"]
    if "order" not in columns or (predicted != concept[rows]).sum() < FEW_ERRORS:
        return None
    order, session = columns["order"], columns.get("session", np.zeros(len(concept), np.int64))
    ranked = np.lexsort([order[rows], session[rows]])
    rows, named = rows[ranked], predicted[ranked]
    apart = _trials_apart(concept, order, session, rows, max(concept.max(), named.max()) + 1)
    shifts = rng.permutation(np.arange(1, len(rows)))[:count]

    def mean_distance(shift: int) -> float:
        """Mean distance of the wrong ones among shifted answers."""
        shifted = np.roll(named, shift)
        wrong = apart[np.arange(len(rows)), shifted][(shifted != concept[rows]) & (shifted >= 0)]
        return float(np.nanmean(wrong)) if np.isfinite(wrong).any() else np.nan

    null, near = np.array([mean_distance(int(shift)) for shift in shifts]), mean_distance(0)
    null = null[np.isfinite(null)]
    if not len(null) or not np.isfinite(near):
        return None
    errors = int((named != concept[rows]).sum())
    return {"distance": near, "expected": float(null.mean()), "p": permutation_p(-near, -null), "errors": errors}


def _trials_apart(
    concept: np.ndarray, order: np.ndarray, session: np.ndarray, rows: np.ndarray, n_concepts: int
) -> np.ndarray:
    """How many trials lie from each of some rows to the nearest trial of every concept in its session; NaN if none."""
    apart = np.full((len(rows), n_concepts), np.nan)
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
    return apart
