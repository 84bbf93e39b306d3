"""Identification: is the picture that was seen more similar to what was generated than other pictures are?

Every metric has a table form, (n_trials, n_pictures): the score each trial would have if each picture of the
gallery were the one that was seen. The score is the table read at the true picture, and a permutation test
reads the same table at permuted pictures (`statistics.null_means`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.families import batches

AT_ONCE = 4_000_000
"""Numbers that are worked on at once: memory, not result."""


def check_table(table: np.ndarray, name: str) -> np.ndarray:
    """Return a table of similarities or scores as float64, or say what is wrong with it.

    Parameters
    ----------
    table : array, shape (n_trials, n_pictures)
        What came.
    name : str
        What it is, as the message calls it.

    Returns
    -------
    array, shape (n_trials, n_pictures), float64

    Raises
    ------
    NeuroCanvasError
        If it is not two-dimensional, has no trials or fewer than two columns, or holds NaN or infinity.
    """
    values = np.asarray(table, dtype=np.float64)
    if values.ndim != 2 or len(values) < 1 or values.shape[1] < 2:
        raise NeuroCanvasError(
            f"{name}: needs shape (n_trials, n_pictures) with at least 1 trial and 2 pictures; "
            f"got {values.shape}. Evaluate more trials."
        )
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).any(axis=1).sum())
        raise NeuroCanvasError(f"{name}: NaN and infinity are not allowed; {bad} of {len(values)} trials have them.")
    return values


def read_true(table: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Read each trial's score at the picture that was really seen.

    Parameters
    ----------
    table : array, shape (n_trials, n_pictures)
        Scores of every trial for every picture.
    true : array of int, shape (n_trials,)
        Column of the picture that was seen.

    Returns
    -------
    array, shape (n_trials,)

    Raises
    ------
    NeuroCanvasError
        If `true` has another length or points outside the table.

    Examples
    --------
    >>> read_true(np.array([[0.1, 0.9], [0.4, 0.6]]), np.array([1, 0])).tolist()
    [0.9, 0.4]
    """
    columns = np.asarray(true)
    if columns.shape != (len(table),) or not np.issubdtype(columns.dtype, np.integer):
        raise NeuroCanvasError(
            f"true: {len(table)} column numbers, one per trial, needed; got {columns.dtype} {columns.shape}."
        )
    if columns.min() < 0 or columns.max() >= table.shape[1]:
        raise NeuroCanvasError(
            f"true: columns 0 to {table.shape[1] - 1} are allowed; got {columns.min()} to {columns.max()}."
        )
    return np.asarray(table[np.arange(len(table)), columns])


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of every row of `a` with every row of `b`.

    Parameters
    ----------
    a : array, shape (n, n_features)
        Embeddings of generated pictures, or predictions.
    b : array, shape (m, n_features)
        Embeddings of the gallery.

    Returns
    -------
    array, shape (n, m), from -1 to 1

    Raises
    ------
    NeuroCanvasError
        If the widths differ, a value is not finite, or a row is constant (it has no correlation).

    Examples
    --------
    >>> similarity(np.array([[1, 2, 3]]), np.array([[2, 4, 6], [3, 2, 1]])).round(6).tolist()
    [[1.0, -1.0]]
    """
    return _products(a, b, centred=True)


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of every row of `a` with every row of `b`.

    Parameters
    ----------
    a : array, shape (n, n_features)
        Predictions, or embeddings of generated pictures.
    b : array, shape (m, n_features)
        Embeddings of the gallery.

    Returns
    -------
    array, shape (n, m), from -1 to 1

    Raises
    ------
    NeuroCanvasError
        If the widths differ, a value is not finite, or a row is zero.

    Examples
    --------
    >>> cosine_similarity(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 3.0]])).tolist()
    [[1.0, 0.0]]
    """
    return _products(a, b, centred=False)


def _products(a: np.ndarray, b: np.ndarray, *, centred: bool) -> np.ndarray:
    """Products of all rows, scaled to length one; centred first, they are correlations."""
    a, b, fewest = np.asarray(a), np.asarray(b), 2 if centred else 1
    for name, values in (("a", a), ("b", b)):
        if values.ndim != 2 or not len(values) or values.shape[1] < fewest:
            raise NeuroCanvasError(f"embeddings {name}: (n, n_features >= {fewest}) is needed; got {values.shape}.")
    if a.shape[1] != b.shape[1]:
        why = f"a and b need the same width; got {a.shape[1]} and {b.shape[1]}"
        raise NeuroCanvasError(f"embeddings: {why}. Embed both with the same network.")
    found, at_once = np.empty((len(a), len(b))), max(1, 2 * AT_ONCE // a.shape[1])
    for rows in batches(len(a), at_once):
        left = _unit_rows("a", a, rows, centred=centred)
        for columns in batches(len(b), at_once):
            found[rows, columns] = left @ _unit_rows("b", b, columns, centred=centred).T
    return np.clip(found, -1.0, 1.0, out=found)


def _unit_rows(name: str, values: np.ndarray, rows: slice, *, centred: bool) -> np.ndarray:
    """Some rows as float64, scaled to length one, or what is wrong with them."""
    some = values[rows].astype(np.float64)
    if not np.isfinite(some).all():
        raise NeuroCanvasError(f"embeddings {name}: {int((~np.isfinite(some)).sum())} values not finite.")
    some = some - some.mean(axis=1, keepdims=True) if centred else some
    norms = np.linalg.norm(some, axis=1, keepdims=True)
    if (norms == 0).any():
        why = "constant, it has no correlation" if centred else "zero, it points nowhere"
        raise NeuroCanvasError(f"embeddings {name}: row {rows.start + np.argmin(norms)} is {why}.")
    return np.asarray(some / norms)


def correlation_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One minus the Pearson correlation of each row of `a` with the same row of `b`.

    Parameters
    ----------
    a, b : array, shape (n, n_features)
        Embeddings of generated pictures, and of the picture that was seen in each trial.

    Returns
    -------
    array, shape (n,), from 0 to 2; less is better

    Raises
    ------
    NeuroCanvasError
        As `similarity`, or if the numbers of rows differ.

    Examples
    --------
    >>> correlation_distance(np.array([[1, 2, 3]]), np.array([[3, 2, 1]])).round(6).tolist()
    [2.0]
    """
    if len(a) != len(b):
        raise NeuroCanvasError(f"embeddings: as many rows of both are needed; got {len(a)} and {len(b)}.")
    return 1.0 - np.array([similarity(a[i : i + 1], b[i : i + 1])[0, 0] for i in range(len(a))])


def _scored(table: np.ndarray, score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Score every entry by how many others of its row are larger, and how many are equal."""
    from scipy.stats import rankdata

    found = np.empty(table.shape)
    for rows in batches(len(table), max(1, AT_ONCE // table.shape[1])):
        lowest = rankdata(table[rows], method="min", axis=1).astype(np.int64)
        highest = rankdata(table[rows], method="max", axis=1).astype(np.int64)
        found[rows] = score(table.shape[1] - highest, highest - lowest)
    return found


def ranks(sim: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Rank of the true picture in the whole gallery: 1 is best, chance is (n_pictures + 1) / 2.

    Parameters
    ----------
    sim : array, shape (n_trials, n_pictures)
        Similarity of every trial to every picture.
    true : array of int, shape (n_trials,)
        Column of the picture that was seen.

    Returns
    -------
    array, shape (n_trials,)
        1 + the number of more similar pictures + half the number of equally similar ones.

    Raises
    ------
    NeuroCanvasError
        If the shapes do not fit or a value is not finite.

    Examples
    --------
    >>> ranks(np.array([[0.3, 0.9, 0.3]]), np.array([0])).tolist()
    [2.5]
    """
    table = check_table(sim, "similarities")
    return read_true(_scored(table, lambda above, tied: 1.0 + above + tied / 2.0), true)


def two_way_table(sim: np.ndarray) -> np.ndarray:
    """Two-way identification of every trial, for every picture that could have been the true one.

    Parameters
    ----------
    sim : array, shape (n_trials, n_pictures)
        Similarity of every trial to every *distinct* picture of the gallery.

    Returns
    -------
    array, shape (n_trials, n_pictures), from 0 to 1
        The share of the other pictures that are less similar; ties count one half.

    Raises
    ------
    NeuroCanvasError
        If there are fewer than two pictures or a value is not finite.
    """
    table = check_table(sim, "similarities")
    return _scored(table, lambda above, tied: 1.0 - (above + tied / 2.0) / (table.shape[1] - 1))


def two_way(sim: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Two-way identification: how often the true picture is more similar than another one. Chance is .5.

    Parameters
    ----------
    sim : array, shape (n_trials, n_pictures)
        Similarity of every trial to every *distinct* picture of the gallery. Other trials of the same picture
        are not columns, so they are never distractors.
    true : array of int, shape (n_trials,)
        Column of the picture that was seen.

    Returns
    -------
    array, shape (n_trials,), from 0 to 1; more is better

    Raises
    ------
    NeuroCanvasError
        If the shapes do not fit or a value is not finite.

    Notes
    -----
    MindEye2's two-way identification (``final_evaluations.ipynb``) with the trials as rows, except that a tie
    counts one half there as a failure and here as what it is, a coin toss.

    Examples
    --------
    >>> two_way(np.array([[0.5, 0.9, 0.5, 0.1]]), np.array([0])).tolist()
    [0.5]
    """
    return read_true(two_way_table(sim), true)


def n_way_top_k_table(sim: np.ndarray, n: int, k: int = 1) -> np.ndarray:
    """n-way top-k identification of every trial, for every picture that could have been the true one.

    Parameters
    ----------
    sim : array, shape (n_trials, n_pictures)
        Similarity of every trial to every *distinct* picture of the gallery.
    n : int
        Pictures to choose from, the true one included; 2 to n_pictures.
    k : int
        How many guesses; 1 to n.

    Returns
    -------
    array, shape (n_trials, n_pictures), from 0 to 1

    Raises
    ------
    NeuroCanvasError
        If `n` or `k` is out of range, or `sim` is not a finite table.
    """
    table = check_table(sim, "similarities")
    others = table.shape[1] - 1
    if not 2 <= n <= others + 1 or not 1 <= k <= n:
        raise NeuroCanvasError(
            f"n-way top-k: 2 <= n <= {others + 1} pictures and 1 <= k <= n are allowed; got n={n}, k={k}."
        )
    # of a true picture with so many better ones among the others: the chance that fewer than k are drawn
    draws = comb(others, n - 1)
    success = [
        sum(comb(better, j) * comb(others - better, n - 1 - j) for j in range(min(k, better + 1))) / draws
        for better in range(others + 1)
    ]
    # ties broken at random put 0, 1, ... or `tied` of the equal pictures before the true one, equally often
    summed = np.concatenate([[0.0], np.cumsum(success)])
    return _scored(table, lambda above, tied: np.clip((summed[above + tied + 1] - summed[above]) / (tied + 1), 0, 1))


def n_way_top_k(sim: np.ndarray, true: np.ndarray, n: int, k: int = 1) -> np.ndarray:
    """n-way top-k identification, exact: the expected success over all draws of n - 1 distractors.

    Parameters
    ----------
    sim : array, shape (n_trials, n_pictures)
        Similarity of every trial to every *distinct* picture of the gallery.
    true : array of int, shape (n_trials,)
        Column of the picture that was seen.
    n : int
        Pictures to choose from, the true one included; 2 to n_pictures.
    k : int
        How many guesses.

    Returns
    -------
    array, shape (n_trials,), from 0 to 1; more is better, chance is k / n

    Raises
    ------
    NeuroCanvasError
        If `n` or `k` is out of range, the shapes do not fit, or a value is not finite.

    Notes
    -----
    With `a` better pictures among the `m - 1` others, the number of better ones among `n - 1` distractors
    is hypergeometric, so nothing has to be drawn:
    ``sum_{j<k} C(a, j) C(m - 1 - a, n - 1 - j) / C(m - 1, n - 1)``, averaged over the ways to break ties.
    With ``n = m`` it is retrieval from the whole gallery, each trial on its own (greedy, not transductive).

    Examples
    --------
    >>> n_way_top_k(np.array([[0.8, 0.9, 0.2, 0.1]]), np.array([0]), n=2).round(3).tolist()
    [0.667]
    """
    return read_true(n_way_top_k_table(sim, n, k), true)


def concept_top_k_table(scores: np.ndarray, k: int) -> np.ndarray:
    """Top-k success of every trial, for every concept that could have been the true one.

    Parameters
    ----------
    scores : array, shape (n_trials, n_concepts)
        The judge's score of every concept for every generated picture.
    k : int
        How many guesses; as many as there are concepts, or more, always succeed.

    Returns
    -------
    array, shape (n_trials, n_concepts), from 0 to 1

    Raises
    ------
    NeuroCanvasError
        If `k` is below 1, or `scores` is not a finite table.

    Examples
    --------
    Ties are broken at random, in expectation.

    >>> concept_top_k_table(np.array([[0.7, 0.7, 0.1]]), k=1).tolist()
    [[0.5, 0.5, 0.0]]
    """
    n_concepts = check_table(scores, "concept scores").shape[1]
    return n_way_top_k_table(scores, n_concepts, min(k, n_concepts))
