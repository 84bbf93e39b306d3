"""Intervals and p-values over what can be exchanged: trials in a rapid design, whole blocks, subjects.

The null hypothesis is always the same: which picture was seen has nothing to do with what was generated. So
the pictures are dealt out anew among exchangeable units of the same subject, and the score is read again.
"""

from __future__ import annotations

from math import exp, lgamma

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.families import batches

AT_ONCE = 2_000_000
"""Numbers that are drawn at once: memory, not result."""

TOLERANCE = 1e-9
"""Two scores that differ by less are equal: sums in another order differ in their last digits."""


def _codes(name: str, values: np.ndarray, n_trials: int) -> np.ndarray:
    """Number the distinct values of a column from 0."""
    column = np.asarray(values)
    if column.shape != (n_trials,):
        raise NeuroCanvasError(
            f"{name}: one value for each of {n_trials} trials is needed; got {column.shape}."
        )
    return np.unique(column, return_inverse=True)[1]


def _values(name: str, values: np.ndarray) -> np.ndarray:
    """Return one finite score per trial, or say what is wrong."""
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
        raise NeuroCanvasError(
            f"{name}: finite numbers, shape (n,), are needed; got {scores.shape}, or NaN in it."
        )
    return scores


def _members(strata: np.ndarray, units: np.ndarray) -> list[list[np.ndarray]]:
    """For every stratum, the trials of each of its units, in the order in which they stand."""
    strata, units = _codes("strata", strata, len(units)), _codes("units", units, len(units))
    grouped = [
        [rows[units[rows] == unit] for unit in np.unique(units[rows])]
        for rows in (np.flatnonzero(strata == stratum) for stratum in range(strata.max() + 1))
    ]
    if sum(map(len, grouped)) != units.max() + 1:
        raise NeuroCanvasError("units: each must lie in one stratum (a block belongs to one subject).")
    return grouped


def permutations(
    strata: np.ndarray, units: np.ndarray, count: int, *, rng: np.random.Generator
) -> np.ndarray:
    """Draw ways to deal the pictures out anew: ``true[permutations[i]]`` are the labels of the i-th.

    Parameters
    ----------
    strata : array, shape (n_trials,)
        Labels move within these only: the subject, or subject and fold.
    units : array, shape (n_trials,)
        What moves as a whole: the trial's own number in a rapid design, its block in a blocked one.
    count : int
        How many.
    rng : numpy.random.Generator
        Where they are drawn from.

    Returns
    -------
    array of int32, shape (count, n_trials)

    Raises
    ------
    NeuroCanvasError
        If the lengths differ, or a unit lies in two strata.

    Notes
    -----
    A unit takes the labels of the unit that it is given in order, from the start again where they run out.
    With units of one length this is a permutation, and the test is exact; otherwise nearly so.
    """
    drawn = np.empty((count, len(np.asarray(units))), dtype=np.int32)
    for members in _members(strata, units):
        longest = max(map(len, members))
        labels = np.stack([np.resize(rows, longest) for rows in members]).astype(np.int32)
        taken = np.arange(longest) < np.array([len(rows) for rows in members])[:, None]
        columns = np.concatenate(members)
        for some in batches(count, max(1, AT_ONCE // labels.size)):
            order = np.tile(np.arange(len(members), dtype=np.int32), (some.stop - some.start, 1))
            drawn[some, columns] = labels[rng.permuted(order, axis=1, out=order)][:, taken]
    return drawn


def null_means(table: np.ndarray, true: np.ndarray, permuted: np.ndarray) -> np.ndarray:
    """Mean score under every permutation of which picture was seen.

    Parameters
    ----------
    table : array, shape (n_trials, n_pictures)
        The score of each trial if each picture were the true one. NaN is allowed where no permutation reads.
    true : array of int, shape (n_trials,)
        Column of the picture that was seen.
    permuted : array of int, shape (count, n_trials)
        From `permutations`.

    Returns
    -------
    array, shape (count,)

    Raises
    ------
    NeuroCanvasError
        If the shapes do not fit, or a permutation reads NaN.
    """
    table, true, permuted = np.asarray(table), np.asarray(true), np.asarray(permuted)
    if table.ndim != 2 or true.shape != (len(table),) or permuted.shape[1:] != (len(table),):
        raise NeuroCanvasError(
            f"null: a table of {len(true)} trials and permutations of as many are needed; "
            f"got shapes {table.shape} and {permuted.shape}."
        )
    rows = np.arange(len(table))
    parts = batches(len(permuted), max(1, AT_ONCE // len(table)))
    means = np.concatenate([table[rows, true[permuted[part]]].mean(axis=1) for part in parts])
    if not np.isfinite(means).all():
        raise NeuroCanvasError(
            "null: a permutation reads NaN; compute all pairs that `exchangeable_pairs` names."
        )
    return np.asarray(means)


def exchangeable_pairs(strata: np.ndarray, true: np.ndarray, n_pictures: int) -> np.ndarray:
    """Which (trial, picture) entries a permutation test within strata can read.

    Parameters
    ----------
    strata : array, shape (n_trials,)
        Labels move within these only.
    true : array of int, shape (n_trials,)
        Column of the picture that was seen.
    n_pictures : int
        Size of the gallery.

    Returns
    -------
    array of bool, shape (n_trials, n_pictures)

    Examples
    --------
    >>> exchangeable_pairs(np.array([0, 0, 1]), np.array([0, 1, 2]), 3).astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    codes = _codes("strata", strata, len(np.asarray(true)))
    seen = np.zeros((codes.max() + 1, n_pictures), dtype=bool)
    seen[codes, true] = True
    return seen[codes]


def permutation_p(value: float, null: np.ndarray, *, two_sided: bool = False) -> float:
    """p-value of a score from its permutation null, (1 + b) / (1 + n) [PhipsonSmyth2010].

    Parameters
    ----------
    value : float
        The observed score.
    null : array, shape (n,)
        The same score under n permutations.
    two_sided : bool
        Ask for any difference, twice the smaller tail, instead of for a larger score.

    Returns
    -------
    float, from 1 / (1 + n) to 1

    Raises
    ------
    NeuroCanvasError
        If a value is not finite, or there are no permutations.

    Examples
    --------
    >>> permutation_p(0.9, np.array([0.4, 0.5, 0.6]))
    0.25
    """
    permuted = _values("null", null)
    if not np.isfinite(value):
        raise NeuroCanvasError(f"permutation p: a finite score is needed; got {value}.")
    above = float((1 + (permuted >= value - TOLERANCE).sum()) / (1 + len(permuted)))
    below = float((1 + (permuted <= value + TOLERANCE).sum()) / (1 + len(permuted)))
    return min(1.0, 2 * min(above, below)) if two_sided else above


def smallest_p(strata: np.ndarray, units: np.ndarray, count: int) -> float:
    """The smallest p-value that a permutation test can give: few units can be ordered in few ways.

    Parameters
    ----------
    strata, units : array, shape (n_trials,)
        As in `permutations`.
    count : int
        How many permutations are drawn.

    Returns
    -------
    float, from 1 / (1 + count) to 1

    Examples
    --------
    >>> round(smallest_p(np.zeros(3), np.arange(3), 999), 3)
    0.167
    """
    log_orders = sum(lgamma(len(members) + 1) for members in _members(strata, units))
    return max(1 / (1 + count), exp(-log_orders))


def bootstrap_interval(
    values: np.ndarray,
    units: np.ndarray,
    *,
    rng: np.random.Generator,
    strata: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean, resampling whole units within strata.

    Parameters
    ----------
    values : array, shape (n_trials,)
        One score per trial.
    units : array, shape (n_trials,)
        What is resampled as a whole: trials, blocks or subjects.
    rng : numpy.random.Generator
        Where the resamples are drawn from.
    strata : array, shape (n_trials,), optional
        Units are resampled within these (the subject, where trials or blocks are resampled); one by default.
    resamples : int
        How many.
    level : float
        Coverage.

    Returns
    -------
    (low, high), or None where no stratum has two units: then nothing varies.

    Raises
    ------
    NeuroCanvasError
        If a value is not finite, the lengths differ, or a unit lies in two strata.

    Notes
    -----
    The interval speaks of other units of the same kind: trials or blocks of these subjects, with pictures and
    mapper held fixed, or other subjects.

    Examples
    --------
    >>> bootstrap_interval(np.ones(4), np.arange(4), rng=np.random.default_rng(0))
    (1.0, 1.0)
    """
    scores = _values("bootstrap", values)
    _codes("units", units, len(scores))
    grouped = _members(np.zeros(len(scores)) if strata is None else strata, units)
    if max(map(len, grouped)) < 2:
        return None
    sums, sizes = np.zeros(resamples), np.zeros(resamples)
    for members in grouped:
        of_units = np.array([scores[rows].sum() for rows in members]), np.array([len(rows) for rows in members])
        for some in batches(resamples, max(1, AT_ONCE // len(members))):
            drawn = rng.integers(len(members), size=(some.stop - some.start, len(members)), dtype=np.int32)
            for found, of_unit in zip((sums, sizes), of_units, strict=True):
                found[some] += of_unit[drawn].sum(axis=1)
    low, high = np.quantile(sums / sizes, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_permutation_p(
    a: np.ndarray, b: np.ndarray, units: np.ndarray, *, rng: np.random.Generator, count: int = 2000
) -> float:
    """Is `a` larger than `b` on the same trials? Sign-flip test over units, (1 + b) / (1 + n).

    Parameters
    ----------
    a, b : array, shape (n_trials,)
        Scores of two arms, trial by trial.
    units : array, shape (n_trials,)
        Whose difference changes sign as a whole: trials, blocks or subjects.
    rng : numpy.random.Generator
        Where the signs are drawn from.
    count : int
        How many draws.

    Returns
    -------
    float

    Raises
    ------
    NeuroCanvasError
        If the lengths differ or a value is not finite.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> paired_permutation_p(np.ones(9), np.zeros(9), np.arange(9), rng=rng, count=99) < 0.05
    True
    """
    first, second = _values("a", a), _values("b", b)
    if first.shape != second.shape:
        raise NeuroCanvasError(
            f"paired test: as many scores of both are needed; got {len(first)} and {len(second)}."
        )
    codes = _codes("units", units, len(first))
    differences = np.bincount(codes, weights=first - second)
    null = np.empty(count)
    for some in batches(count, 4 * max(1, AT_ONCE // 4 // len(differences))):  # four draws come of one random number
        signs = rng.integers(0, 2, size=(some.stop - some.start, len(differences)), dtype=np.int8) * 2 - 1
        null[some] = signs @ differences
    return permutation_p(float(differences.sum()) / len(first), null / len(first))


def smallest_significant_count(n_trials: int, chance: float, level: float = 0.05) -> int | None:
    """The smallest number of correct trials whose exact binomial p-value is at most `level`.

    Parameters
    ----------
    n_trials : int
        Independent trials.
    chance : float
        Probability that one is correct without information, for instance k / n_pictures of retrieval top-k.
    level : float
        Largest p-value that counts.

    Returns
    -------
    int, or None where even all trials correct is not enough

    Raises
    ------
    NeuroCanvasError
        If a number is out of range.

    Notes
    -----
    Only for trials that succeed or fail independently of one another: top-k of one trial per picture, or a classifier's
    answers in a rapid design. Not for two-way and n-way scores, whose comparisons share a gallery (n trials are not
    n (n - 1) trials), not for trials of one block or several showings of one picture, and not for rules that are
    transductive: there `permutation_p` is the test.

    Examples
    --------
    Of 200 pictures, chance is .5 %: 4 of 200 right have p = .019, 5 of 200 have p = .0035.

    >>> smallest_significant_count(200, 1 / 200), smallest_significant_count(200, 1 / 200, level=0.01)
    (4, 5)
    """
    from scipy.stats import binom

    if n_trials < 1 or not 0 < chance < 1 or not 0 < level < 1:
        raise NeuroCanvasError(
            f"chance threshold: n_trials >= 1 and chance, level between 0 and 1 are needed; got n_trials={n_trials}, "
            f"chance={chance}, level={level}."
        )
    counts = np.arange(n_trials + 1)
    enough = binom.sf(counts - 1, n_trials, chance) <= level
    return int(counts[enough][0]) if enough.any() else None


def place(value: float, floor: float, ceiling: float) -> float | None:
    """Where a score lies between the floor (0, the shuffled arm) and the ceiling (1, the oracle arm).

    Parameters
    ----------
    value, floor, ceiling : float
        Scores of an arm, of `shuffled` and of `oracle`.

    Returns
    -------
    float, or None where floor and ceiling are equal

    Examples
    --------
    >>> place(0.75, 0.5, 1.0)
    0.5
    """
    if abs(ceiling - floor) < TOLERANCE:
        return None
    return (value - floor) / (ceiling - floor)
