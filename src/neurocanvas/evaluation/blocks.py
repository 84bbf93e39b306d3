"""How well the block alone names the concept, and whether errors fall on neighbours in time."""

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
    apart = _trials_apart(concept, order, session, rows, max(concept.max(), named.max()) + 1)
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


def _trials_apart(
    concept: np.ndarray, order: np.ndarray, session: np.ndarray, rows: np.ndarray, n_concepts: int
) -> np.ndarray:
    """Trials from each row to the nearest trial of every concept in its session, (n_rows, n_concepts); NaN if none."""
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
