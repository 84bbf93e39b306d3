"""Whether wrong answers go to concepts recorded nearby, or to concepts of similar meaning."""

from __future__ import annotations

from itertools import chain

import numpy as np

from neurocanvas.audit.controls.base import NO_INTERVAL, SIGNIFICANT, ControlResult, NotApplicable
from neurocanvas.audit.controls.inputs import ControlInputs, coded
from neurocanvas.audit.controls.time import cyclic_shifts, distances_to_training
from neurocanvas.evaluation.statistics import permutation_p
from neurocanvas.findings import finding

# Drift leaves a trace in the mean of a concept's training trials even in mixed order; it explains correlations up to
# this one. A block design with nothing but drift gives about one half.
TOLERATED_CORRELATION = 0.1


def confusions_in_time(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Correlate wrong answers with nearness of training trials in time, likeness of embeddings held constant."""
    # Rows are blocks (trials in mixed order), columns the other concepts; rows are shifted cyclically within sessions,
    # columns are not. Distances between concepts do not change when all shift along the recording, so the usual Mantel
    # test has no cyclic null for them.
    near = -np.log2(distances_to_training(inputs))  # NaN where nothing of the concept trains in the session
    units = coded(inputs.units[inputs.tested])
    first = np.unique(units, return_index=True)[1]
    recorded = np.argsort(first, kind="stable")  # of units
    first = inputs.tested[first[recorded]]
    true, session = inputs.labels[first], np.asarray(inputs.session)[first]
    orders = float(np.prod(np.unique(session, return_counts=True)[1].astype(float)))
    if orders < 1 / SIGNIFICANT:
        return NotApplicable(finding("few-shifts", blocks=len(true), ways=orders))
    answers = _by_unit(inputs.named[:, None] == np.arange(inputs.n_concepts), units)[recorded]
    near_units = _by_unit(near, units)[recorded]
    others = np.arange(inputs.n_concepts) != true[:, None]
    if not answers[others].any():
        return NotApplicable(finding("no-errors"))
    alike = None if inputs.embeddings is None else likeness(inputs)[true]
    effect = _correlation(answers, near_units, alike, others)
    starts = np.unique(session, return_index=True)[1]  # where a session begins tells by how much it was shifted
    computed: dict[bytes, float] = {}
    null = []
    for shift in chain.from_iterable(cyclic_shifts(session, inputs.permutations, rng=rng)):
        key = shift[starts].tobytes()
        if key not in computed:
            computed[key] = _correlation(answers, near_units[shift], alike, others & others[shift])
        null.append(computed[key])
    p = permutation_p(effect - TOLERATED_CORRELATION, np.array(null))
    details = {} if alike is None else _semantic(inputs, near, rng)
    note = finding("semantic-errors", r=details["r_semantic"], p=details["p_semantic"]) if details else None
    return ControlResult(effect, *NO_INTERVAL, p, fired=p <= SIGNIFICANT, details=details, note=note)


def _semantic(inputs: ControlInputs, near: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Partial correlation of confusions with the likeness of concepts, nearness in time held constant, and its p."""
    n_concepts, true = inputs.n_concepts, inputs.labels[inputs.tested]
    if len(np.unique(true)) < n_concepts:
        return {}
    order = np.argsort(_by_unit(np.argsort(inputs.recorded)[:, None], inputs.labels)[:, 0])  # of concepts, in time
    confusion = _by_unit(inputs.named[:, None] == np.arange(n_concepts), true)
    near = np.nan_to_num(_by_unit(near, true), nan=-np.log2(len(inputs.labels)))
    confusion, alike, near = (table[np.ix_(order, order)] for table in (confusion, likeness(inputs), near))
    orders = np.concatenate([*cyclic_shifts(np.zeros(n_concepts), inputs.permutations, rng=rng)])
    r, p = partial_mantel(confusion, alike, near, orders)
    return {"r_semantic": r, "p_semantic": p}


def likeness(inputs: ControlInputs) -> np.ndarray:
    """Cosines between the concepts' embeddings, around their mean: (n_concepts, n_concepts)."""
    from sklearn.metrics.pairwise import cosine_similarity

    vectors = np.asarray(inputs.embeddings, dtype=np.float64)[np.unique(inputs.labels, return_index=True)[1]]
    return np.asarray(cosine_similarity(vectors - vectors.mean(axis=0)))


def partial_mantel(x: np.ndarray, y: np.ndarray, z: np.ndarray, orders: np.ndarray) -> tuple[float, float]:
    """Partial Mantel correlation of x and y given z, (n, n), and its one-sided p from `orders` of y [Smouse1986]."""
    # Where tables are autocorrelated along the recording, `orders` must be cyclic shifts in recorded order: free
    # permutations break the autocorrelation of y and then find unrelated tables related [GuillotRousset2013].
    above = np.triu(np.ones(x.shape, dtype=bool), 1)
    x, y, z = ((table + table.T) / 2 for table in (x, y, z))
    values = [_partial(x[above], y[np.ix_(order, order)][above], z[above]) for order in (np.arange(len(x)), *orders)]
    return values[0], permutation_p(values[0], np.array(values[1:]))


def _by_unit(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Mean over the trials of each unit: (n_trials, k) -> (n_units, k); NaN where any trial has one."""
    sums = np.zeros((units.max() + 1, values.shape[1]))
    np.add.at(sums, units, values)
    return np.asarray(sums / np.bincount(units)[:, None])


def _correlation(x: np.ndarray, y: np.ndarray, z: np.ndarray | None, mask: np.ndarray) -> float:
    """Correlation within rows over the entries of a mask, a third table partialled out."""
    mask = mask & np.isfinite(y)
    counts = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    tables = [np.where(mask, table, 0.0) for table in (x, y, z) if table is not None]
    tables = [np.where(mask, table - table.sum(axis=1, keepdims=True) / counts, 0.0) for table in tables]
    return _partial(*(table.ravel() for table in tables))


def _partial(x: np.ndarray, y: np.ndarray, z: np.ndarray | None = None) -> float:
    """Correlation of two vectors, a third regressed out of both; 0 where one is constant."""
    x, y = x - x.mean(), y - y.mean()
    if z is not None:
        z = z - z.mean()
        size = float(z @ z)
        x, y = (v - z * (float(z @ v) / size) if size > 1e-12 else v for v in (x, y))
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 1e-12 else 0.0
