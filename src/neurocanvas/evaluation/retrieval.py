"""Retrieval: which picture of the gallery does a prediction point at, and by which rule is it assigned?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.evaluation.identification import check_table, n_way_top_k_table, ranks

# Nearest neighbours of CSLS [Conneau2018].
NEIGHBOURS = 10


def _hungarian(cosines: np.ndarray) -> np.ndarray:
    """Cosines, each trial's picture in the best one-to-one assignment raised above all others."""
    from scipy.optimize import linear_sum_assignment

    if len(cosines) > cosines.shape[1]:
        raise NeuroCanvasError(
            f"rule hungarian: every trial needs a picture of its own, so at most {cosines.shape[1]} trials are "
            f"allowed; got {len(cosines)}. Average the trials of a picture, or choose another rule."
        )
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    raised = cosines.copy()
    raised[rows, columns] += 2.0 + 1e-6  # cosines differ by 2 at most
    return raised


@dataclass(frozen=True)
class AssignmentRule:
    """How cosines become scores of every picture for every trial."""

    score: Callable[[np.ndarray], np.ndarray]
    transductive: bool
    reference: str


# Name of the rule -> how it scores and whether it is transductive.
ASSIGNMENT_RULES: Mapping[str, AssignmentRule] = MappingProxyType(
    {
        "greedy": AssignmentRule(
            np.asarray, False, "every trial takes the picture with the largest cosine (UBP, NeuroBridge, NICE, ATM)"
        ),
        "hungarian": AssignmentRule(
            _hungarian, True, "no two trials take the same picture, and the sum of cosines is the largest [Kuhn1955]"
        ),
        "csls": AssignmentRule(
            # 2 cos(x, y) - r(x) - r(y), r the mean cosine with the nearest neighbours on the other side
            lambda cosines: (
                2 * cosines
                - np.sort(cosines, axis=1)[:, -NEIGHBOURS:].mean(axis=1, keepdims=True)
                - np.sort(cosines, axis=0)[-NEIGHBOURS:].mean(axis=0, keepdims=True)
            ),
            True,
            "cosines less those with the 10 nearest neighbours, which hubs have high [Conneau2018]",
        ),
    }
)

# Means that are subtracted before vectors are scaled to length one -> whether the rule is then transductive.
CENTRINGS: Mapping[str, bool] = MappingProxyType({"none": False, "both sides": True})


def retrieve(
    cosines: np.ndarray, true: np.ndarray, concepts: np.ndarray, gallery_concepts: np.ndarray, *, rule: str
) -> dict[str, float]:
    """Top-1, top-5, their chance, the median rank and concept accuracy under one assignment rule."""
    table = ASSIGNMENT_RULES[check_option("rule", rule, ASSIGNMENT_RULES)].score(np.asarray(cosines))
    n_pictures, rows = table.shape[1], np.arange(len(table))
    return {
        **{f"top{k}": float(n_way_top_k_table(table, n_pictures, k)[rows, true].mean()) for k in (1, 5)},
        **{f"chance{k}": k / n_pictures for k in (1, 5)},
        "median_rank": float(np.median(ranks(table, true))),
        "concept_accuracy": float(concept_accuracy(table, concepts, gallery_concepts).mean()),
    }


def concept_accuracy(table: np.ndarray, concepts: np.ndarray, gallery_concepts: np.ndarray) -> np.ndarray:
    """Does the retrieved picture show the right concept, whichever picture of it?"""
    values, shown, held = check_table(table, "table"), np.asarray(concepts), np.asarray(gallery_concepts)
    if shown.shape != (len(values),) or held.shape != (values.shape[1],):
        raise NeuroCanvasError(
            f"concepts: one for each of {values.shape[0]} trials and {values.shape[1]} pictures is needed; "
            f"got {shown.shape} and {held.shape}."
        )
    best = values == values.max(axis=1, keepdims=True)
    return np.asarray((best & (held == shown[:, None])).sum(axis=1) / best.sum(axis=1))
