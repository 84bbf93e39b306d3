"""Retrieval: which picture of the gallery does a prediction point at, and by which rule is it assigned?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.evaluation.identification import check_table, cosine_similarity, n_way_top_k, ranks

# Nearest neighbours of CSLS [Conneau2018].
NEIGHBOURS = 10

# Share of the covariance that whitening replaces by its mean eigenvalue: there are fewer trials than dimensions.
SHRINKAGE = 0.1


def _hungarian(predictions: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Cosines, the picture that the best one-to-one assignment gives a trial put above all others."""
    from scipy.optimize import linear_sum_assignment

    cosines = cosine_similarity(predictions, gallery)
    if len(cosines) > cosines.shape[1]:
        raise NeuroCanvasError(
            f"rule hungarian: every trial needs a picture of its own, so at most {cosines.shape[1]} trials are "
            f"allowed; got {len(cosines)}. Average the trials of a picture, or choose another rule."
        )
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    cosines[rows, columns] += 2.0 + 1e-6  # cosines differ by 2 at most
    return cosines


def _csls(predictions: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """2 cos(x, y) - r(x) - r(y), r the mean cosine with the nearest neighbours on the other side [Conneau2018]."""
    cosines = cosine_similarity(predictions, gallery)
    of_trial = np.sort(cosines, axis=1)[:, -NEIGHBOURS:].mean(axis=1, keepdims=True)
    of_picture = np.sort(cosines, axis=0)[-NEIGHBOURS:].mean(axis=0, keepdims=True)
    return np.asarray(2 * cosines - of_trial - of_picture)


def _whiten(values: np.ndarray) -> np.ndarray:
    """Centre rows and multiply by the inverse square root of their shrunk covariance, axes kept (ZCA)."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
        raise NeuroCanvasError(f"rule whitening: (2 or more trials, n_features) without NaN; got {values.shape}.")
    centred = values - values.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    eigenvalues = lengths**2 / (len(values) - 1)
    shrunk = (1 - SHRINKAGE) * eigenvalues + SHRINKAGE * eigenvalues.sum() / values.shape[1]
    # directions without any spread have no coordinate either, so leaving them out loses nothing
    return np.asarray((centred @ axes.T / np.sqrt(np.maximum(shrunk, np.finfo(float).tiny))) @ axes)


def _whitened(predictions: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Cosines after predictions and gallery were whitened, each by its own mean and covariance."""
    return cosine_similarity(_whiten(predictions), _whiten(gallery))


@dataclass(frozen=True)
class AssignmentRule:
    """How a prediction is assigned a picture of the gallery."""

    score: Callable[[np.ndarray, np.ndarray], np.ndarray]
    transductive: bool
    reference: str


# Name of the rule -> how it scores and whether it is transductive.
ASSIGNMENT_RULES: Mapping[str, AssignmentRule] = MappingProxyType(
    {
        "greedy": AssignmentRule(
            cosine_similarity, False, "every trial takes the picture with the largest cosine (UBP, NeuroBridge, NICE)"
        ),
        "hungarian": AssignmentRule(
            _hungarian, True, "no two trials take the same picture, and the sum of cosines is the largest [Kuhn1955]"
        ),
        "csls": AssignmentRule(
            _csls, True, "cosines less those with the 10 nearest neighbours, which hubs have high [Conneau2018]"
        ),
        "whitening": AssignmentRule(
            _whitened, True, "cosines after predictions and gallery were whitened by their own covariance (SATTC)"
        ),
    }
)


@dataclass(frozen=True)
class Retrieval:
    """Retrieval scores with what must be known to read them."""

    rule: str
    transductive: bool
    n_trials: int
    n_pictures: int
    top_k: Mapping[int, float]
    chance: Mapping[int, float]
    median_rank: float


def retrieval_table(predictions: np.ndarray, gallery: np.ndarray, rule: str = "greedy") -> np.ndarray:
    """Score every picture of the gallery for every trial by an assignment rule."""
    return ASSIGNMENT_RULES[check_option("rule", rule, ASSIGNMENT_RULES)].score(predictions, gallery)


def retrieve(
    predictions: np.ndarray,
    gallery: np.ndarray,
    true: np.ndarray,
    *,
    rule: str = "greedy",
    ks: Sequence[int] = (1, 5),
) -> Retrieval:
    """Find pictures in a gallery and count how often the right one is among the first k."""
    table = retrieval_table(predictions, gallery, rule)
    true, n_pictures = np.asarray(true), table.shape[1]
    return Retrieval(
        rule=rule,
        transductive=ASSIGNMENT_RULES[rule].transductive,
        n_trials=len(table),
        n_pictures=n_pictures,
        top_k={k: float(n_way_top_k(table, true, n_pictures, k).mean()) for k in ks},
        chance={k: k / n_pictures for k in ks},
        median_rank=float(np.median(ranks(table, true))),
    )


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


def per_concept(scores: Mapping[str, np.ndarray], concepts: np.ndarray) -> list[dict[str, Any]]:
    """Average scores of trials within every concept."""
    names, codes = np.unique(np.asarray(concepts), return_inverse=True)
    wrong = {name: np.shape(values) for name, values in scores.items() if np.shape(values) != codes.shape}
    if wrong:
        raise NeuroCanvasError(f"scores: one value for each of {len(codes)} trials is needed; got {wrong}.")
    counts = np.bincount(codes)
    means = {name: np.bincount(codes, weights=np.asarray(values)) / counts for name, values in scores.items()}
    return [
        {"concept": name.item(), "n": int(counts[i]), **{score: float(mean[i]) for score, mean in means.items()}}
        for i, name in enumerate(names)
    ]
