"""Whether wrong answers go to concepts recorded nearby, or to concepts of similar meaning."""

from __future__ import annotations

from itertools import chain

import numpy as np

from neurocanvas.audit.controls.base import SIGNIFICANT, ControlResult, NotApplicable
from neurocanvas.audit.controls.inputs import ControlInputs, coded
from neurocanvas.audit.controls.time import cyclic_shifts, distances_to_training
from neurocanvas.evaluation.statistics import permutation_p
from neurocanvas.findings import finding

# Drift leaves a trace in the mean of a concept's training trials even in mixed order; it explains correlations up to
# this one. A block design with nothing but drift gives about one half.
TOLERATED_CORRELATION = 0.1

NO_INTERVAL = (float("nan"), float("nan"))


def confusions_in_time(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Correlate wrong answers with nearness of training trials in time, likeness of embeddings held constant."""
    # Rows are blocks (trials in mixed order), columns the other concepts; rows are shifted cyclically within sessions,
    # columns are not. Distances between concepts do not change when all shift along the recording, so the usual Mantel
    # test has no cyclic null for them.
    near = -np.log2(distances_to_training(inputs))  # NaN where nothing of the concept trains in the session
    tested, n_concepts = inputs.tested, inputs.n_concepts
    units, first = coded(inputs.units[tested]), np.unique(inputs.units[tested], return_index=True)[1]
    recorded = np.argsort(first, kind="stable")  # of units
    true, session = (column[tested][first][recorded] for column in (inputs.labels, np.asarray(inputs.session)))
    orders = float(np.prod(np.unique(session, return_counts=True)[1].astype(float)))
    if orders < 1 / SIGNIFICANT:
        return NotApplicable(finding("few-shifts", blocks=len(true), ways=orders))
    answers = _by_unit(inputs.named[:, None] == np.arange(n_concepts), units)[recorded]
    of_units = _by_unit(near, units)[recorded]
    others = np.arange(n_concepts) != true[:, None]
    if not answers[others].any():
        return NotApplicable(finding("no-errors"))
    alike = None if inputs.embeddings is None else likeness(inputs)[true]
    effect = _correlation(answers, of_units, alike, others)
    starts = np.unique(session, return_index=True)[1]  # where a session begins says by how much it was shifted
    found: dict[bytes, float] = {}
    null = []
    for shift in chain.from_iterable(cyclic_shifts(session, inputs.permutations, rng=rng)):
        key = shift[starts].tobytes()
        if key not in found:
            found[key] = _correlation(answers, of_units[shift], alike, others & others[shift])
        null.append(found[key])
    p = permutation_p(effect - TOLERATED_CORRELATION, np.array(null))
    details = {} if alike is None else _semantic(inputs, near, rng)
    note = finding("semantic-errors", r=details["r_semantic"], p=details["p_semantic"]) if details else None
    return ControlResult(effect, *NO_INTERVAL, p, fired=p <= SIGNIFICANT, details=details, note=note)


def _semantic(inputs: ControlInputs, near: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Partial correlation of confusions with the likeness of concepts, nearness in time held constant, and its p."""
    tested, n_concepts = inputs.tested, inputs.n_concepts
    place = np.bincount(inputs.labels[inputs.recorded], weights=np.arange(len(inputs.labels)), minlength=n_concepts)
    order = np.argsort(place / np.bincount(inputs.labels, minlength=n_concepts))
    of_concept = inputs.labels[tested]
    if len(np.unique(of_concept)) < n_concepts:
        return {}
    confusion = _by_unit(inputs.named[:, None] == np.arange(n_concepts), of_concept)
    near = np.nan_to_num(_by_unit(near, of_concept), nan=-np.log2(len(inputs.labels)))
    confusion, alike, near = (table[np.ix_(order, order)] for table in (confusion, likeness(inputs), near))
    orders = np.concatenate([*cyclic_shifts(np.zeros(n_concepts), inputs.permutations, rng=rng)])
    r, p = partial_mantel(confusion, alike, near, orders)
    return {"r_semantic": r, "p_semantic": p}


def likeness(inputs: ControlInputs) -> np.ndarray:
    """Cosines between the concepts' embeddings, around their mean: (n_concepts, n_concepts)."""
    first = np.unique(inputs.labels, return_index=True)[1]
    vectors = np.asarray(inputs.embeddings, dtype=np.float64)[first]
    vectors = vectors - vectors.mean(axis=0)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.asarray(vectors @ vectors.T)


def partial_mantel(x: np.ndarray, y: np.ndarray, z: np.ndarray, orders: np.ndarray) -> tuple[float, float]:
    """Partial Mantel correlation of x and y given z, (n, n), and its one-sided p from `orders` of y [Smouse1986]."""
    # Where tables are autocorrelated along the recording, `orders` must be cyclic shifts in recorded order: free
    # permutations break the autocorrelation of y and then find unrelated tables related [GuillotRousset2013].
    above = np.triu_indices(len(x), 1)
    x, y, z = ((table + table.T) / 2 for table in (x, y, z))
    held = z[above] - z[above].mean()
    kept = _without(x[above] - x[above].mean(), held)

    def correlation(order: np.ndarray) -> float:
        values = y[np.ix_(order, order)][above]
        return _cosine(kept, _without(values - values.mean(), held))

    r = correlation(np.arange(len(x)))
    return r, permutation_p(r, np.array([correlation(order) for order in orders]))


def _by_unit(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Mean over the trials of every unit: (n_trials, k) -> (n_units, k); NaN where any trial has one."""
    given, own = np.asarray(values, dtype=np.float64), coded(units)
    means = np.zeros((own.max() + 1, given.shape[1]))
    np.add.at(means, own, given)
    return np.asarray(means / np.bincount(own)[:, None])


def _correlation(x: np.ndarray, y: np.ndarray, z: np.ndarray | None, mask: np.ndarray) -> float:
    """Correlation within rows over the entries of a mask, a third table partialled out."""
    mask = mask & np.isfinite(y)
    x, y = _centred(x, mask), _centred(y, mask)
    if z is not None:
        held = _centred(z, mask)
        x, y = _without(x, held), _without(y, held)
    return _cosine(x, y)


def _centred(table: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Subtract row means over a mask; flattened, 0 outside."""
    inside = np.where(mask, table, 0.0)
    means = inside.sum(axis=1, keepdims=True) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.where(mask, inside - means, 0.0).reshape(-1))


def _without(values: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Residual of centred values after regression on others."""
    size = float(held @ held)
    return values - held * (float(held @ values) / size) if size > 1e-12 else values


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 1e-12 else 0.0
