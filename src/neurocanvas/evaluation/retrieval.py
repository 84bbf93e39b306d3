"""Retrieval: which image of the gallery does a prediction point at, and by which rule is it assigned?"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.evaluation.identification import n_way_top_k_table

# Name of the rule -> whether it is transductive, and how a trial gets its image.
ASSIGNMENT_RULES: Mapping[str, tuple[bool, str]] = MappingProxyType(
    {
        "greedy": (False, "every trial takes the image with the largest cosine (UBP, NeuroBridge, NICE, ATM)"),
        "hungarian": (True, "no two trials take the same image, and the sum of cosines is the largest [Kuhn1955]"),
        "csls": (True, "cosines less those with the 10 nearest neighbours, which hubs have high [Conneau2018]"),
    }
)

# Nearest neighbours of CSLS [Conneau2018].
NEIGHBOURS = 10

# Means that are subtracted before vectors are scaled to length one -> whether the rule is then transductive.
CENTRINGS: Mapping[str, bool] = MappingProxyType({"training mean": False, "test means": True})


def assignment_scores(cosines: np.ndarray, rule: str) -> np.ndarray:
    """Score of every image for every trial under a rule, (n_trials, n_pictures); the largest is retrieved."""
    if check_option("rule", rule, ASSIGNMENT_RULES) == "greedy":
        return cosines
    if rule == "csls":  # 2 cos(x, y) - r(x) - r(y), r the mean cosine with the nearest neighbours on the other side
        of_trials = np.sort(cosines, axis=1)[:, -NEIGHBOURS:].mean(axis=1, keepdims=True)
        of_pictures = np.sort(cosines, axis=0)[-NEIGHBOURS:].mean(axis=0, keepdims=True)
        return np.asarray(2 * cosines - of_trials - of_pictures)
    from scipy.optimize import linear_sum_assignment

    if len(cosines) > cosines.shape[1]:
        raise NeuroCanvasError(
            f"rule hungarian: every trial needs an image of its own, so at most {cosines.shape[1]} trials are "
            f"allowed; got {len(cosines)}. Average the trials of an image, or choose another rule."
        )
    # ties are broken at random: in the order of the table, the seen image of the i-th trial is often the i-th
    rng, raised = np.random.default_rng(0), cosines.copy()
    rows, columns = (rng.permutation(size) for size in cosines.shape)
    of_rows, of_columns = linear_sum_assignment(cosines[np.ix_(rows, columns)], maximize=True)
    raised[rows[of_rows], columns[of_columns]] += 2.0 + 1e-6  # cosines differ by 2 at most
    return raised


def retrieve(
    cosines: np.ndarray, true: np.ndarray, concepts: np.ndarray, gallery_concepts: np.ndarray, *, rule: str
) -> dict[str, float]:
    """Top-1, top-5, their chance, the median rank and concept accuracy under one assignment rule."""
    table = assignment_scores(np.asarray(cosines), rule)
    (n_trials, n_pictures), rows = table.shape, np.arange(len(table))
    if np.shape(concepts) != (n_trials,) or np.shape(gallery_concepts) != (n_pictures,):
        raise NeuroCanvasError(
            f"concepts: one for each of {n_trials} trials and {n_pictures} images is needed; "
            f"got {np.shape(concepts)} and {np.shape(gallery_concepts)}."
        )
    own = table[rows, true][:, None]
    ranks = 1.0 + (table > own).sum(axis=1) + ((table == own).sum(axis=1) - 1) / 2.0
    best = table == table.max(axis=1, keepdims=True)
    of_concept = np.asarray(gallery_concepts) == np.asarray(concepts)[:, None]  # whichever image of it
    return {
        **{f"top{k}": float(n_way_top_k_table(table, n_pictures, k)[rows, true].mean()) for k in (1, 5)},
        **{f"chance{k}": k / n_pictures for k in (1, 5)},
        "median_rank": float(np.median(ranks)),
        "concept_accuracy": float(((best & of_concept).sum(axis=1) / best.sum(axis=1)).mean()),
    }
