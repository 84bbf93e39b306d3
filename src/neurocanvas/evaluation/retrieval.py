"""Retrieval: which picture of the gallery does a prediction point at, and by which rule is it assigned?

A rule that is marked transductive looks at all test trials together: its score is no longer that of one trial on
its own, and it is not to be compared with scores of rules that do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.evaluation.identification import check_table, cosine_similarity, n_way_top_k, ranks

NEIGHBOURS = 10
"""Nearest neighbours of CSLS [Conneau2018]."""

SHRINKAGE = 0.1
"""Share of the covariance that whitening replaces by its mean eigenvalue: there are fewer trials than dimensions."""


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
    """How a prediction is assigned a picture of the gallery.

    Parameters
    ----------
    score : callable
        (predictions, gallery) to a table (n_trials, n_pictures); the larger, the sooner a picture is retrieved.
    transductive : bool
        Whether the score of a trial depends on other test trials.
    reference : str
        Where it is from, and what it does.
    """

    score: Callable[[np.ndarray, np.ndarray], np.ndarray]
    transductive: bool
    reference: str


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
"""Name of the rule -> how it scores and whether it is transductive."""


@dataclass(frozen=True)
class Retrieval:
    """Retrieval scores with what must be known to read them.

    Parameters
    ----------
    rule : str
        A key of `ASSIGNMENT_RULES`.
    transductive : bool
        Whether the rule looks at all test trials together.
    n_trials, n_pictures : int
        Trials, and size of the gallery.
    top_k : mapping of int to float
        k to share of trials with the true picture among the first k; ties are broken at random in expectation.
    chance : mapping of int to float
        k / n_pictures.
    median_rank : float
        Of the true picture; 1 is best, chance (n_pictures + 1) / 2.
    """

    rule: str
    transductive: bool
    n_trials: int
    n_pictures: int
    top_k: Mapping[int, float]
    chance: Mapping[int, float]
    median_rank: float


def retrieval_table(predictions: np.ndarray, gallery: np.ndarray, rule: str = "greedy") -> np.ndarray:
    """Score every picture of the gallery for every trial by an assignment rule.

    Parameters
    ----------
    predictions : array, shape (n_trials, n_features)
    gallery : array, shape (n_pictures, n_features)
        Embeddings of *distinct* pictures.
    rule : str
        A key of `ASSIGNMENT_RULES`.

    Returns
    -------
    array, shape (n_trials, n_pictures)
        The larger, the sooner a picture is retrieved; what the tables of `identification` and a permutation test read.

    Raises
    ------
    NeuroCanvasError
        If the rule is unknown, the widths differ or a value is not finite; for `hungarian`, if there are more trials
        than pictures.
    """
    return ASSIGNMENT_RULES[check_option("rule", rule, ASSIGNMENT_RULES)].score(predictions, gallery)


def retrieve(
    predictions: np.ndarray,
    gallery: np.ndarray,
    true: np.ndarray,
    *,
    rule: str = "greedy",
    ks: Sequence[int] = (1, 5),
) -> Retrieval:
    """Find pictures in a gallery and count how often the right one is among the first k.

    Parameters
    ----------
    predictions : array, shape (n_trials, n_features)
    gallery : array, shape (n_pictures, n_features)
        Embeddings of *distinct* pictures.
    true : array of int, shape (n_trials,)
        Row of the gallery that was seen.
    rule : str
        A key of `ASSIGNMENT_RULES`.
    ks : sequence of int
        Each from 1 to n_pictures.

    Returns
    -------
    Retrieval

    Raises
    ------
    NeuroCanvasError
        As `retrieval_table`, or if a k is out of range.

    References
    ----------
    .. [Kuhn1955] Kuhn: The Hungarian method for the assignment problem. Naval Research Logistics 2, 1955.
    .. [Conneau2018] Conneau et al.: Word translation without parallel data. ICLR 2018.

    Examples
    --------
    >>> found = retrieve(np.eye(3), np.eye(3), np.array([0, 1, 1]), ks=(1,))
    >>> round(found.top_k[1], 3), found.median_rank, found.transductive
    (0.667, 1.0, False)
    """
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
    """Does the retrieved picture show the right concept, whichever picture of it?

    Parameters
    ----------
    table : array, shape (n_trials, n_pictures)
        From `retrieval_table`, or similarities of generated and seen pictures.
    concepts : array, shape (n_trials,)
        The concept that each trial showed.
    gallery_concepts : array, shape (n_pictures,)
        The concept of each picture of the gallery.

    Returns
    -------
    array, shape (n_trials,), from 0 to 1
        The share of the pictures with the highest score that show the concept: 0 or 1 where nothing ties. Chance is
        the share of the gallery that shows it.

    Raises
    ------
    NeuroCanvasError
        If the lengths do not fit or a value is not finite.

    Examples
    --------
    >>> table = np.array([[0.9, 0.2, 0.1], [0.1, 0.2, 0.9]])
    >>> concept_accuracy(table, np.array(["cat", "cat"]), np.array(["cat", "cat", "dog"])).tolist()
    [1.0, 0.0]
    """
    values, shown, held = check_table(table, "table"), np.asarray(concepts), np.asarray(gallery_concepts)
    if shown.shape != (len(values),) or held.shape != (values.shape[1],):
        raise NeuroCanvasError(
            f"concepts: one for each of {values.shape[0]} trials and {values.shape[1]} pictures is needed; "
            f"got {shown.shape} and {held.shape}."
        )
    best = values == values.max(axis=1, keepdims=True)
    return np.asarray((best & (held == shown[:, None])).sum(axis=1) / best.sum(axis=1))


def per_concept(scores: Mapping[str, np.ndarray], concepts: np.ndarray) -> list[dict[str, Any]]:
    """Average scores of trials within every concept.

    Parameters
    ----------
    scores : mapping of str to array, shape (n_trials,)
        Name of the score to its value for every trial.
    concepts : array, shape (n_trials,)
        The concept that each trial showed.

    Returns
    -------
    list of dict
        `concept`, `n` (trials) and the mean of every score, in the order of the concepts' names.

    Raises
    ------
    NeuroCanvasError
        If a score has another length than `concepts`.

    Examples
    --------
    >>> per_concept({"top1": np.array([1.0, 0.0, 1.0])}, np.array(["cat", "cat", "dog"]))
    [{'concept': 'cat', 'n': 2, 'top1': 0.5}, {'concept': 'dog', 'n': 1, 'top1': 1.0}]
    """
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
