"""Intervals and p-values over exchangeable units: images, trials, whole blocks, names of concepts, subjects."""

# The null hypothesis is that the image seen has nothing to do with the prediction: labels are permuted among
# exchangeable units of the same subject and fold (`data.splits.exchangeable_units`), and the score is computed again.

from __future__ import annotations

from collections.abc import Sequence
from math import exp, lgamma

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.pretrained import batches

# Level below which a result counts as above chance.
SIGNIFICANT = 0.05

# Numbers drawn at once; sets memory, not results.
AT_ONCE = 2_000_000

# Number of other images that PixCorr and SSIM compare a generated one with, where all pairs would be too many.
OTHERS = 20

# With fewer units than this nothing is resampled, as a percentile interval of few units is too narrow.
ENOUGH_TO_RESAMPLE = 100

# Folds of a cross-validation train on one another's test trials, so scores of different folds depend on one another:
# a null distribution with fixed predictions is too narrow. For a linear decoder of noise the variance of the mean score
# is twice that of independent scores, and 1 + 2 / π times for correct answers of two classes (0 or 1).
CROSS_VALIDATED = {"score": 2**0.5, "correct": (1 + 2 / np.pi) ** 0.5}

# Two scores that differ by less are equal: sums in another order differ in their last digits.
TOLERANCE = 1e-9


def _members(strata: np.ndarray, units: np.ndarray) -> list[list[np.ndarray]]:
    """Per stratum, the row numbers of each of its units, in order."""
    strata, units = np.asarray(strata), np.asarray(units)
    if strata.shape != units.shape or units.ndim != 1:
        raise NeuroCanvasError(f"strata: one for each of {len(units)} trials is needed; got {strata.shape}.")
    units = np.unique(units, return_inverse=True)[1]
    grouped = [
        [rows[units[rows] == unit] for unit in np.unique(units[rows])]
        for rows in (np.flatnonzero(strata == stratum) for stratum in np.unique(strata))
    ]
    if sum(map(len, grouped)) != units.max() + 1:
        raise NeuroCanvasError("units: each must lie in one stratum (a block belongs to one subject).")
    return grouped


# Permutations within cells are a subgroup of those within strata, and the partition is drawn without looking at scores.
# So the permutation test within cells is exact: it reads few pairs and allows any number of permutations.
def draw_cells(
    strata: np.ndarray, units: np.ndarray, *, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the units of every stratum at random into cells of at most `OTHERS` + 1, in which labels are exchanged."""
    # Of every trial: its cell; the trials whose labels it can get, (n_trials, width), -1 where its cell is smaller; and
    # the column of these in which its own unit stands.
    cells, n_cells = np.empty(len(units), np.int64), 0
    for members in _members(strata, units):
        for part in np.array_split(rng.permutation(len(members)), -(-len(members) // (OTHERS + 1))):
            cells[np.concatenate([members[unit] for unit in part])] = n_cells
            n_cells += 1
    in_cells, columns = _members(cells, units), np.empty(len(units), np.int64)
    partners = np.full((len(units), max(map(len, in_cells))), -1)
    for members in in_cells:
        longest = max(map(len, members))
        for column, rows in enumerate(members):
            columns[rows] = column
            labels = [np.resize(other, longest)[: len(rows)] for other in members]
            partners[rows, : len(members)] = np.stack(labels, axis=1)
    return cells, partners, columns


def permutations(strata: np.ndarray, units: np.ndarray, count: int, *, rng: np.random.Generator) -> np.ndarray:
    """Permute labels among units within strata: (count, n_trials); `true[permuted[i]]` are the i-th labels."""
    # A unit takes the labels of another in order, from the start again where they run out: exact with units of one
    # length, otherwise nearly so.
    drawn = np.empty((count, len(np.asarray(units))), dtype=np.int32)
    for members in _members(strata, units):
        labels = np.stack([np.resize(rows, max(map(len, members))) for rows in members]).astype(np.int32)
        taken = np.arange(labels.shape[1]) < np.array([len(rows) for rows in members])[:, None]
        columns = np.concatenate(members)
        for some in batches(count, max(1, AT_ONCE // labels.size)):
            order = np.tile(np.arange(len(members), dtype=np.int32), (some.stop - some.start, 1))
            drawn[some, columns] = labels[rng.permuted(order, axis=1, out=order)][:, taken]
    return drawn


def null_means(table: np.ndarray, true: np.ndarray, permuted: np.ndarray) -> np.ndarray:
    """Mean score under each permutation, (count,), from `table`, (n_trials, n_pictures): score if each was seen."""
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
        raise NeuroCanvasError("null: a permutation reads NaN or infinity; the table needs every exchangeable pair.")
    return np.asarray(means)


def permutation_p(value: float, null: np.ndarray, *, two_sided: bool = False, widening: float = 1.0) -> float:
    """p-value of a score from its permutation null, (n,): (1 + b) / (1 + n) [PhipsonSmyth2010]."""
    permuted = np.asarray(null)
    if widening != 1:
        permuted = permuted.mean() + widening * (permuted - permuted.mean())
    if not len(permuted) or not np.isfinite(permuted).all() or not np.isfinite(value):
        raise NeuroCanvasError(f"permutation p: a finite score and null are needed; got {value}, {len(permuted)}.")
    above = float((1 + (permuted >= value - TOLERANCE).sum()) / (1 + len(permuted)))
    below = float((1 + (permuted <= value + TOLERANCE).sum()) / (1 + len(permuted)))
    return min(1.0, 2 * min(above, below)) if two_sided else above


def smallest_p(strata: np.ndarray, units: np.ndarray, labels: np.ndarray, count: int) -> float:
    """Smallest p-value that a permutation test can reach: few units, or few kinds of units, have few labelings."""
    labels, log_labelings = np.unique(labels, return_inverse=True)[1].reshape(-1), 0.0
    for members in _members(strata, units):
        longest = max(map(len, members))
        _, alike = np.unique([np.resize(labels[rows], longest) for rows in members], axis=0, return_counts=True)
        log_labelings += lgamma(len(members) + 1) - sum(lgamma(number + 1) for number in alike)
    return max(1 / (1 + count), exp(-log_labelings))


def expected_score(table: np.ndarray, true: np.ndarray, strata: np.ndarray) -> float:
    """Mean score if labels are drawn from those of the trial's stratum, whatever the prediction: the exact chance."""
    # `table`, (n_trials, n_labels): the score of every trial if each label were true
    table, total = np.asarray(table, dtype=np.float64), 0.0
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        shares = np.bincount(true[rows], minlength=table.shape[1]) / len(rows)
        total += float((table[rows].sum(axis=0)[shares > 0] * shares[shares > 0]).sum())
    return total / len(table)


def mean_interval(
    values: np.ndarray,
    units: np.ndarray,
    *,
    rng: np.random.Generator,
    strata: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    share: bool = False,
    widening: float = 1.0,
) -> tuple[float, float] | None:
    """Interval of the mean over whole units within strata; None where the units do not vary or no stratum has two."""
    # From `ENOUGH_TO_RESAMPLE` units on a percentile bootstrap, below it a t interval; for shares (0 to 1) the exact
    # binomial one of as many trials as would give the observed standard error [KornGraubard1998]. It speaks of other
    # units of the same kind (blocks of these subjects, or other subjects), images and encoder fixed.
    from scipy.stats import beta, t

    scores = np.asarray(values, dtype=np.float64)
    if scores.shape != np.shape(units) or not np.isfinite(scores).all():
        raise NeuroCanvasError(
            f"interval: finite scores, one unit for each, are needed; got {scores.shape}, {np.shape(units)}, or NaN."
        )
    grouped = _members(np.zeros(len(scores)) if strata is None else strata, units)
    if max(map(len, grouped)) < 2:
        return None
    mean, tail, n_units = float(scores.mean()), (1 - level) / 2, sum(map(len, grouped))
    sums = [np.array([scores[rows].sum() for rows in members]) for members in grouped]
    sizes = [np.array([len(rows) for rows in members]) for members in grouped]
    # of a ratio, linearised: units may hold different numbers of trials
    residuals = [total - mean * size for total, size in zip(sums, sizes, strict=True)]
    variance = sum(of_stratum.var(ddof=1) * len(of_stratum) for of_stratum in residuals if len(of_stratum) > 1)
    error, reach = float(np.sqrt(variance)) / len(scores), float(t.isf(tail, max(1, n_units - len(grouped))))
    if error < TOLERANCE and not share:
        return None
    if share and (n_units < ENOUGH_TO_RESAMPLE or error < TOLERANCE):
        n_trials = float(n_units)
        if error >= TOLERANCE and 0 < mean < 1:
            n_trials = mean * (1 - mean) / error**2
            n_trials *= (float(t.isf(tail, max(1.0, n_trials - 1))) / reach) ** 2
        right = mean * n_trials
        low = 0.0 if mean < TOLERANCE else float(beta.ppf(tail, right, n_trials - right + 1))
        high = 1.0 if mean > 1 - TOLERANCE else float(beta.isf(tail, right + 1, n_trials - right))
    elif n_units < ENOUGH_TO_RESAMPLE:
        low, high = mean - reach * error, mean + reach * error
    else:
        drawn_sums, drawn_sizes = np.zeros(resamples), np.zeros(resamples)
        for total, size in zip(sums, sizes, strict=True):
            for some in batches(resamples, max(1, AT_ONCE // len(total))):
                drawn = rng.integers(len(total), size=(some.stop - some.start, len(total)), dtype=np.int32)
                drawn_sums[some] += total[drawn].sum(axis=1)
                drawn_sizes[some] += size[drawn].sum(axis=1)
        low, high = map(float, np.quantile(drawn_sums / drawn_sizes, [tail, 1 - tail]))
    low, high = mean - widening * (mean - low), mean + widening * (high - mean)
    return (max(0.0, low), min(1.0, high)) if share else (low, high)


def draw_signs(n_units: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Signs of units, (n, n_units): all but those observed where there are no more than `count`, else drawn."""
    if 2**n_units > count:
        return rng.integers(0, 2, size=(count, n_units), dtype=np.int8) * 2 - 1
    return 1 - 2 * (np.arange(1, 2**n_units)[:, None] >> np.arange(n_units) & 1).astype(np.int8)


def paired_permutation_p(
    a: np.ndarray,
    b: np.ndarray,
    units: np.ndarray,
    *,
    rng: np.random.Generator,
    count: int = 2000,
    widening: float = 1.0,
) -> float:
    """One-sided p for a > b on the same trials, (n_trials,): signs of whole units are flipped, (1 + b) / (1 + n)."""
    if not len(a) == len(b) == len(units):
        raise NeuroCanvasError(f"paired test: both need the same number of scores; got {len(a)} and {len(b)}.")
    differences = np.bincount(np.unique(units, return_inverse=True)[1], weights=np.asarray(a) - np.asarray(b))
    if 2 ** len(differences) <= count:
        null = np.asarray(draw_signs(len(differences), count, rng) @ differences, dtype=np.float64)
        if not len(null):
            return 1.0
    else:
        null = np.empty(count)
        for some in batches(count, 4 * max(1, AT_ONCE // 4 // len(differences))):  # one random number makes four draws
            null[some] = draw_signs(len(differences), some.stop - some.start, rng) @ differences
    return permutation_p(float(differences.sum()) / len(a), widening * null / len(a))


def signed_rank(differences: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """One-sided p of Wilcoxon's test for differences above 0, exact up to 50 (13 with ties); rank-biserial r."""
    from scipy.stats import rankdata, wilcoxon

    some = np.round(differences, 12)
    some = some[some != 0]
    if not len(some):
        return 1.0, 0.0
    signed = rankdata(np.abs(some)) * np.sign(some)
    if len(np.unique(np.abs(some))) < len(some):  # tied ranks: the same test by its signs
        p = paired_permutation_p(signed, np.zeros(len(some)), np.arange(len(some)), rng=rng, count=2**13)
    else:
        p = float(wilcoxon(some, alternative="greater").pvalue)
    return p, float(signed.sum() / np.abs(signed).sum())


def smallest_significant_count(n_trials: int, chance: float, level: float = 0.05) -> int | None:
    """Smallest number of correct trials with an exact binomial p of at most `level`; None if not even all suffice."""
    # Only for independent trials: top-k of one trial per image, or a classifier in a rapid design. Not for two-way
    # and n-way scores (comparisons share a gallery), trials of one block, repeated images or transductive rules:
    # there `permutation_p` is the test.
    from scipy.stats import binom

    if n_trials < 1 or not 0 < chance < 1 or not 0 < level < 1:
        raise NeuroCanvasError(
            f"chance threshold: n_trials >= 1 and chance, level between 0 and 1 are needed; got n_trials={n_trials}, "
            f"chance={chance}, level={level}."
        )
    counts = np.arange(n_trials + 1)
    enough = binom.sf(counts - 1, n_trials, chance) <= level
    return int(counts[enough][0]) if enough.any() else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, step down [Holm1979]."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(order), 0, -1))
    return [float(round(min(1.0, p), 12)) for p in adjusted]
