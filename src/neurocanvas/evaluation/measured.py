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

TOLERATED_SHARE = 0.25
"""Of the accuracy above chance, what a correction may cost before a control calls it out: two ways of training never
give quite the same accuracy, so a control that asks for any loss at all would fire on enough clean trials."""

LARGE_SHARE = 0.5
"""Of the accuracy above chance, what a surrogate must keep to explain it. Half is also what a concept's own response
leaves to labels that are shifted by half a block, so a surrogate beyond it tells of time and not of the picture."""


@dataclass(frozen=True)
class Measured:
    """What a control found.

    Parameters
    ----------
    effect, low, high : float
        In the unit that the control's row names; the interval is of 95 %, NaN where nothing varies.
    p : float
        Of what the control asks.
    fired : bool
        Whether the confound is there.
    share : float
        Of the accuracy above chance, what the confound explains; NaN where that is no question.
    details : mapping of str to float
        What else a reader may ask for, such as the two accuracies.
    note : str
        What else must be said, in a sentence.
    bound : bool
        Whether it was bound to fire wherever anything is decoded, so that other controls say more.
    """

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
    """Why a control cannot be computed.

    Parameters
    ----------
    reason : str
        The end of a sentence that begins with "cannot be computed:".
    decisive : bool
        Whether that alone says what the accuracy is worth.
    """

    reason: str
    decisive: bool = False


def nothing_to_ask(note: str, **details: float) -> Measured:
    """Give the answer of a control whose confound the splits rule out: silent, with effect 0 and p 1.

    Parameters
    ----------
    note : str
        What rules it out, in a sentence.
    **details : float
        Numbers that say so.

    Returns
    -------
    Measured
    """
    return Measured(0.0, float("nan"), float("nan"), 1.0, fired=False, details=details, note=note)


def chance_of(named: np.ndarray, true: np.ndarray) -> float:
    """Accuracy that the same answers would have if they were dealt to the trials at random.

    Parameters
    ----------
    named, true : array of int, shape (n,)

    Returns
    -------
    float
        Σ over labels of (share that is named so) x (share that is so).

    Examples
    --------
    >>> chance_of(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    0.5
    """
    labels = np.unique(true)
    return float(np.sum((named[:, None] == labels).mean(axis=0) * (true[:, None] == labels).mean(axis=0)))


def label_p(
    named: np.ndarray, true: np.ndarray, strata: np.ndarray, units: np.ndarray, count: int, *, rng: np.random.Generator
) -> tuple[float, float]:
    """Test an accuracy against what dealing out the true labels anew gives.

    Parameters
    ----------
    named : array of int, shape (n,) or (n_repeats, n)
        Labels that were named; of several repeats the mean accuracy is tested.
    true : array of int, shape (n,)
    strata, units : array, shape (n,)
        As in `statistics.permutations`.
    count : int
        Permutations.
    rng : numpy.random.Generator

    Returns
    -------
    p, chance : float
        (1 + b) / (1 + count), and the mean accuracy of the permutations.
    """
    known = np.unique(np.concatenate([true, np.unique(named)]))
    table = (np.atleast_2d(named)[:, :, None] == known).mean(axis=0)
    columns = np.searchsorted(known, true)
    null = null_means(table, columns, permutations(strata, units, count, rng=rng))
    return permutation_p(float(table[np.arange(len(true)), columns].mean()), null), float(null.mean())


def nothing_decoded(inputs: ControlInputs, named: np.ndarray, *, rng: np.random.Generator) -> Refusal | None:
    """Refuse to explain an accuracy that is not above chance.

    Parameters
    ----------
    inputs : ControlInputs
    named : array of int, shape (n_tested,)
        What the control's own decoder makes of the tested trials.
    rng : numpy.random.Generator
        Permutations.

    Returns
    -------
    Refusal or None
        None where there is something to explain.
    """
    tested = inputs.tested
    # inside blocks drift alone makes an accuracy that there is something to say of: there, trials are exchanged
    units = inputs.units[tested] if inputs.keeps_blocks_whole else np.arange(len(tested))
    p, _ = label_p(named, inputs.labels[tested], inputs.strata, units, inputs.permutations, rng=rng)
    if p <= SIGNIFICANT:
        return None
    decoder = "shrinkage LDA on single trials" if inputs.decode is None else "the given one, on single trials"
    return Refusal(f"the control's decoder ({decoder}) is not above chance (p {p:.2g}), so there is nothing to explain")


def relabelled_p(named: np.ndarray, true: np.ndarray, count: int, *, rng: np.random.Generator) -> tuple[float, float]:
    """Test an accuracy against what it would be if concepts had exchanged their names.

    A decoder of arbitrary labels gives all trials of a concept much the same one, so trials are no independent
    witnesses of whether that happens to be the right one: names are exchanged, not trials.

    Parameters
    ----------
    named : array of int, shape (n_repeats, n)
        Labels that were named, numbers from 0 to n_labels - 1.
    true : array of int, shape (n,)
    count : int
        Exchanges.
    rng : numpy.random.Generator

    Returns
    -------
    p, chance : float
        (1 + b) / (1 + count), and the mean accuracy of the exchanges.
    """
    n_labels = int(max(true.max(), named.max())) + 1
    pairs = np.bincount((true * n_labels + named).ravel(), minlength=n_labels**2).reshape(n_labels, n_labels)
    table = pairs / named.size
    exchanged = rng.permuted(np.tile(np.arange(n_labels), (count, 1)), axis=1)
    null = table[np.arange(n_labels), exchanged].sum(axis=1)
    return permutation_p(float(np.trace(table)), null), float(null.mean())


def lost(
    before: np.ndarray, after: np.ndarray, chance: float, units: np.ndarray, count: int, *, rng: np.random.Generator
) -> Measured:
    """Ask whether a correction costs more than `TOLERATED_SHARE` of the accuracy above chance.

    Parameters
    ----------
    before, after : array, shape (n,)
        Hits of the same trials without and with the correction.
    chance : float
    units : array, shape (n,)
        Whose differences change sign as a whole.
    count : int
        Sign flips, and resamples of the interval.
    rng : numpy.random.Generator

    Returns
    -------
    Measured
        The effect is the accuracy that is lost; p is of losing more than the tolerated share of what lies above chance.
    """
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
    """Ask whether a surrogate is above chance and keeps more than `LARGE_SHARE` of the real accuracy above chance.

    Parameters
    ----------
    real, surrogate : array, shape (n,)
        Scores of the same trials; the surrogate's may be means over repeats.
    chances : pair of float
        Of the real and of the surrogate score.
    above_chance_p : float
        Of the surrogate score against its own chance.
    units : array, shape (n,)
        Whose differences change sign as a whole.
    count : int
        Sign flips, and resamples of the interval.
    rng : numpy.random.Generator

    Returns
    -------
    Measured
        The effect is the surrogate score above chance; p is the larger one of both questions.
    """
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
