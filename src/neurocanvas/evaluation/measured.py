"""What a control returns, and the three questions that controls share: above chance, lost, surviving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from neurocanvas.evaluation.control_inputs import ControlInputs
from neurocanvas.evaluation.statistics import (
    bootstrap_interval,
    null_means,
    paired_permutation_p,
    permutation_p,
    permutations,
)

SIGNIFICANT = 0.05

# Of the accuracy above chance, what a correction may cost before a control calls it out: two ways of training never
# give quite the same accuracy, so a control that asks for any loss at all would fire on enough clean trials.
TOLERATED_SHARE = 0.25

# Of the accuracy above chance, what a surrogate must keep to explain it. Half is also what a concept's own response
# leaves to labels that are shifted by half a block, so a surrogate beyond it tells of time and not of the picture.
LARGE_SHARE = 0.5


@dataclass(frozen=True)
class Measured:
    """What a control found."""

    effect: float
    low: float
    high: float
    p: float
    fired: bool
    share: float = float("nan")
    details: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    bound: bool = False


@dataclass(frozen=True)
class Refusal:
    """Why a control cannot be computed."""

    reason: str
    decisive: bool = False


def nothing_to_ask(note: str, **details: float) -> Measured:
    """Give the answer of a control whose confound the splits rule out: silent, with effect 0 and p 1."""
    return Measured(0.0, float("nan"), float("nan"), 1.0, fired=False, details=details, note=note)


def chance_of(named: np.ndarray, true: np.ndarray) -> float:
    """Accuracy that the same answers would have if they were dealt to the trials at random."""
    labels = np.unique(true)
    return float(np.sum((named[:, None] == labels).mean(axis=0) * (true[:, None] == labels).mean(axis=0)))


def label_p(
    named: np.ndarray, true: np.ndarray, strata: np.ndarray, units: np.ndarray, count: int, *, rng: np.random.Generator
) -> tuple[float, float]:
    """Test an accuracy against what dealing out the true labels anew gives."""
    known = np.unique(np.concatenate([true, np.unique(named)]))
    table = (np.atleast_2d(named)[:, :, None] == known).mean(axis=0)
    columns = np.searchsorted(known, true)
    null = null_means(table, columns, permutations(strata, units, count, rng=rng))
    return permutation_p(float(table[np.arange(len(true)), columns].mean()), null), float(null.mean())


def nothing_decoded(inputs: ControlInputs, named: np.ndarray, *, rng: np.random.Generator) -> Refusal | None:
    """Refuse to explain an accuracy that is not above chance."""
    tested = inputs.tested
    # inside blocks drift alone makes an accuracy that there is something to say of: there, trials are exchanged
    units = inputs.units[tested] if inputs.keeps_blocks_whole else np.arange(len(tested))
    p, _ = label_p(named, inputs.labels[tested], inputs.strata, units, inputs.permutations, rng=rng)
    if p <= SIGNIFICANT:
        return None
    decoder = "shrinkage LDA on single trials" if inputs.decode is None else "the given one, on single trials"
    return Refusal(f"the control's decoder ({decoder}) is not above chance (p {p:.2g}), so there is nothing to explain")


def relabelled_p(named: np.ndarray, true: np.ndarray, count: int, *, rng: np.random.Generator) -> tuple[float, float]:
    """Test an accuracy against what it would be if concepts had exchanged their names."""
    n_labels = int(max(true.max(), named.max())) + 1
    pairs = np.bincount((true * n_labels + named).ravel(), minlength=n_labels**2).reshape(n_labels, n_labels)
    table = pairs / named.size
    exchanged = rng.permuted(np.tile(np.arange(n_labels), (count, 1)), axis=1)
    null = table[np.arange(n_labels), exchanged].sum(axis=1)
    return permutation_p(float(np.trace(table)), null), float(null.mean())


def lost(
    before: np.ndarray, after: np.ndarray, chance: float, units: np.ndarray, count: int, *, rng: np.random.Generator
) -> Measured:
    """Ask whether a correction costs more than `TOLERATED_SHARE` of the accuracy above chance."""
    p = paired_permutation_p(before - after, TOLERATED_SHARE * (before - chance), units, rng=rng, count=count)
    effect, excess = float(np.mean(before - after)), float(np.mean(before) - chance)
    low, high = bootstrap_interval(before - after, units, rng=rng, resamples=count + 1) or (np.nan, np.nan)
    return Measured(
        effect, low, high, p, fired=p <= SIGNIFICANT,
        share=effect / excess if excess > 0 else float("nan"),
        details={"accuracy_before": float(np.mean(before)), "accuracy_after": float(np.mean(after)), "chance": chance},
    )  # fmt: skip


def survives(
    real: np.ndarray,
    surrogate: np.ndarray,
    chances: tuple[float, float],
    above_chance_p: float,
    units: np.ndarray,
    count: int,
    *,
    rng: np.random.Generator,
) -> Measured:
    """Ask whether a surrogate is above chance and keeps more than `LARGE_SHARE` of the real accuracy above chance."""
    excess, kept = real - chances[0], surrogate - chances[1]
    p = paired_permutation_p(kept, LARGE_SHARE * excess, units, rng=rng, count=count)
    low, high = bootstrap_interval(kept, units, rng=rng, resamples=count + 1) or (np.nan, np.nan)
    p = max(p, above_chance_p)
    return Measured(
        float(kept.mean()), low, high, p, fired=p <= SIGNIFICANT,
        share=float(kept.mean() / excess.mean()) if excess.mean() > 0 else float("nan"),
        details={
            "accuracy": float(real.mean()), "surrogate_accuracy": float(surrogate.mean()),
            "chance": chances[0], "surrogate_chance": chances[1], "p_above_chance": above_chance_p,
        },
    )  # fmt: skip
