"""Identification: is the image that was seen more similar to what was generated than other images are?"""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.pretrained import batches

# Batch size in numbers; affects memory, not results.
AT_ONCE = 4_000_000


def check_table(table: np.ndarray, name: str) -> np.ndarray:
    """Return a table of similarities or scores as float64, or say what is wrong with it."""
    values = np.asarray(table, dtype=np.float64)
    if values.ndim != 2 or len(values) < 1 or values.shape[1] < 2:
        raise NeuroCanvasError(
            f"{name}: needs shape (n_trials, n_pictures) with at least 1 trial and 2 images; "
            f"got {values.shape}. Evaluate more trials."
        )
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).any(axis=1).sum())
        raise NeuroCanvasError(f"{name}: NaN and infinity are not allowed; {bad} of {len(values)} trials have them.")
    return values


def read_true(table: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Read each trial's score at the image that was really seen."""
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
    """Pearson correlation of every row of `a` with every row of `b`."""
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 2 or b.ndim != 2 or not len(a) or not len(b) or a.shape[1] != b.shape[1] or a.shape[1] < 2:
        raise NeuroCanvasError(
            f"embeddings: a and b need the same width, (n, n_features >= 2); got {a.shape} and {b.shape}. Embed both "
            "with the same network."
        )
    found, at_once = np.empty((len(a), len(b))), max(1, 2 * AT_ONCE // a.shape[1])
    for rows, columns in product(batches(len(a), at_once), batches(len(b), at_once)):
        units = []
        for name, values, part in (("a", a, rows), ("b", b, columns)):
            some = values[part].astype(np.float64)
            if not np.isfinite(some).all():
                raise NeuroCanvasError(f"embeddings {name}: {int((~np.isfinite(some)).sum())} values not finite.")
            some -= some.mean(axis=1, keepdims=True)
            norms = np.linalg.norm(some, axis=1, keepdims=True)
            if (norms == 0).any():
                row = part.start + np.argmin(norms)
                raise NeuroCanvasError(f"embeddings {name}: row {row} is constant, it has no correlation.")
            units.append(some / norms)
        found[rows, columns] = units[0] @ units[1].T
    return np.clip(found, -1.0, 1.0, out=found)


def two_way_table(sim: np.ndarray) -> np.ndarray:
    """Two-way identification of every trial, with every image taken as the true one in turn."""
    from scipy.stats import rankdata

    table = check_table(sim, "similarities")
    found, n = np.empty(table.shape), table.shape[1]
    for rows in batches(len(table), max(1, AT_ONCE // n)):
        found[rows] = 1.0 - (n - rankdata(table[rows], axis=1)) / (n - 1)
    return found


def n_way_top_k_table(sim: np.ndarray, n: int, k: int = 1) -> np.ndarray:
    """n-way top-k identification of every trial, with every image taken as the true one in turn."""
    from scipy.stats import rankdata

    others = np.shape(sim)[-1] - 1
    if not 2 <= n <= others + 1 or not 1 <= k <= n:
        raise NeuroCanvasError(
            f"n-way top-k: 2 <= n <= {others + 1} images and 1 <= k <= n are allowed; got n={n}, k={k}."
        )
    # of a true image with so many better ones among the others: the chance that fewer than k are drawn
    draws = comb(others, n - 1)
    success = [
        sum(comb(better, j) * comb(others - better, n - 1 - j) for j in range(min(k, better + 1))) / draws
        for better in range(others + 1)
    ]
    # ties broken at random put 0, 1, ... or `tied` of the equal images before the true one, equally often
    summed = np.concatenate([[0.0], np.cumsum(success)])
    table = check_table(sim, "similarities")
    found = np.empty(table.shape)
    for rows in batches(len(table), max(1, AT_ONCE // table.shape[1])):
        lowest = rankdata(table[rows], method="min", axis=1).astype(np.int64)
        highest = rankdata(table[rows], method="max", axis=1).astype(np.int64)
        above, tied = table.shape[1] - highest, highest - lowest
        found[rows] = np.clip((summed[above + tied + 1] - summed[above]) / (tied + 1), 0, 1)
    return found


def n_way_top_k(sim: np.ndarray, true: np.ndarray, n: int, k: int = 1) -> np.ndarray:
    """n-way top-k identification, exact: the expected success over all draws of n - 1 distractors."""
    return read_true(n_way_top_k_table(sim, n, k), true)
