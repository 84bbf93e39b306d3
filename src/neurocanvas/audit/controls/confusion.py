"""Whether wrong answers go to concepts recorded nearby, or to concepts of similar meaning."""

from __future__ import annotations

import numpy as np

from neurocanvas.audit.controls.base import SIGNIFICANT, ControlResult, NotApplicable
from neurocanvas.audit.controls.inputs import ControlInputs, coded
from neurocanvas.audit.controls.time import cyclic_shifts, distances_to_training
from neurocanvas.audit.overlap import neighbour_errors
from neurocanvas.evaluation.statistics import permutation_p
from neurocanvas.findings import finding


def confusions_in_time(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Compare the share of errors that name the concept of an adjacent block with that under shifts of whole blocks."""
    if not inputs.is_blocked:
        return NotApplicable(finding("no-blocks"))
    recorded, session = inputs.recorded, np.asarray(inputs.session)
    of_session = np.unique(np.stack([coded(session), inputs.blocks])[:, inputs.tested], axis=1)[0]  # tested blocks
    if (ways := float(np.prod(np.bincount(of_session)[np.unique(of_session)]))) < 1 / SIGNIFICANT:
        return NotApplicable(finding("few-shifts", blocks=len(of_session), ways=ways))
    predicted = np.full(len(inputs.labels), -1)
    predicted[inputs.tested] = inputs.named
    near = neighbour_errors(
        inputs.labels[recorded], inputs.blocks[recorded], session[recorded], predicted[recorded], rng=rng,
        count=inputs.permutations,
    )  # fmt: skip
    if near is None:
        return NotApplicable(finding("no-errors"))
    details = {} if inputs.embeddings is None else _semantic(inputs, -np.log2(distances_to_training(inputs)), rng)
    note = finding("semantic-errors", r=details["r_semantic"], p=details["p_semantic"]) if details else None
    return ControlResult(
        near["share"] - near["expected"], near["low"] - near["expected"], near["high"] - near["expected"], near["p"],
        fired=near["p"] <= SIGNIFICANT,
        details={**details, "share": near["share"], "expected": near["expected"], "errors": near["errors"]}, note=note,
    )  # fmt: skip


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


def _partial(x: np.ndarray, y: np.ndarray, z: np.ndarray | None = None) -> float:
    """Correlation of two vectors, a third regressed out of both; 0 where one is constant."""
    x, y = x - x.mean(), y - y.mean()
    if z is not None:
        z = z - z.mean()
        size = float(z @ z)
        x, y = (v - z * (float(z @ v) / size) if size > 1e-12 else v for v in (x, y))
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 1e-12 else 0.0
