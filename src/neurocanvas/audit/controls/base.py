"""What a control finds: effect, interval, p, whether it fires; or why it does not apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from neurocanvas.audit.controls.inputs import ControlInputs, shrinkage_lda
from neurocanvas.evaluation.statistics import (
    SIGNIFICANT,
    mean_interval,
    null_means,
    paired_permutation_p,
    permutation_p,
    permutations,
)
from neurocanvas.findings import Finding, finding

# Share of the accuracy above chance that a correction may cost before a control fires: two ways of training never reach
# quite the same accuracy, so a control for any loss at all would fire on enough clean trials.
TOLERATED_SHARE = 0.25

# Share of the accuracy above chance that a surrogate must keep to explain it. Half is also what a concept's own
# response leaves to labels shifted by half a block, so a surrogate beyond it shows time and not the image.
LARGE_SHARE = 0.5

NO_INTERVAL = (float("nan"), float("nan"))


@dataclass(frozen=True)
class ControlResult:
    """What a control found."""

    effect: float
    low: float  # 95 % interval; NaN where nothing varies
    high: float
    p: float
    fired: bool
    share: float = float("nan")  # of the accuracy above chance, explained by the confound
    details: Mapping[str, float] = field(default_factory=dict)
    note: Finding | None = None
    bound: bool = False  # had to fire wherever anything is decoded, so that other controls say more


@dataclass(frozen=True)
class NotApplicable:
    """Why a control cannot be computed."""

    reason: Finding  # a serious one alone says what the accuracy is worth


def chance_of(named: np.ndarray, true: np.ndarray) -> float:
    """Expected accuracy of the same answers, (n,), in random order: Σ over labels of share named x share true."""
    labels = np.unique(true)
    return float(np.sum((named[:, None] == labels).mean(axis=0) * (true[:, None] == labels).mean(axis=0)))


def label_p(
    named: np.ndarray, true: np.ndarray, strata: np.ndarray, units: np.ndarray, count: int, *, rng: np.random.Generator
) -> tuple[float, float]:
    """p and chance of the mean accuracy of `named`, (n,) or (n_repeats, n), by permuting the true labels."""
    labels = np.union1d(true, named)
    table = (np.atleast_2d(named)[:, :, None] == labels).mean(axis=0)
    columns = np.searchsorted(labels, true)
    null = null_means(table, columns, permutations(strata, units, count, rng=rng))
    return permutation_p(float(table[np.arange(len(true)), columns].mean()), null), float(null.mean())


def nothing_decoded(inputs: ControlInputs, named: np.ndarray, *, rng: np.random.Generator) -> NotApplicable | None:
    """A refusal where the accuracy of the control's own decoder, `named` (n_tested,), is not above chance."""
    tested = inputs.tested
    # Drift inside blocks counts as decoded here, because controls are to explain it: so trials are exchanged there.
    units = inputs.units[tested] if inputs.keeps_blocks_whole else np.arange(len(tested))
    p, _ = label_p(named, inputs.labels[tested], inputs.strata, units, inputs.permutations, rng=rng)
    decoder = "shrinkage LDA" if inputs.decode is shrinkage_lda else "the given one"
    return None if p <= SIGNIFICANT else NotApplicable(finding("nothing-decoded", decoder=decoder, p=p))


def relabelled_p(named: np.ndarray, true: np.ndarray, count: int, *, rng: np.random.Generator) -> tuple[float, float]:
    """p and chance of the mean accuracy of `named`, (n_repeats, n), by permuting the names of concepts."""
    # A decoder of arbitrary labels gives all trials of a concept much the same one, so trials are not independent
    # evidence of whether that is the right one: names are exchanged, not trials.
    from sklearn.metrics import confusion_matrix

    labels = np.arange(max(true.max(), named.max()) + 1)
    table = confusion_matrix(np.broadcast_to(true, named.shape).ravel(), named.ravel(), labels=labels) / named.size
    null = table[labels, rng.permuted(np.tile(labels, (count, 1)), axis=1)].sum(axis=1)
    return permutation_p(float(np.trace(table)), null), float(null.mean())


def above_chance(
    inputs: ControlInputs, named: np.ndarray, p: float, chance: float, *, rng: np.random.Generator
) -> ControlResult:
    """Accuracy above chance of answers, (n_tested,) or (n_repeats, n_tested), with its interval, for a known p."""
    above = (np.atleast_2d(named) == inputs.labels[inputs.tested]).mean(axis=0) - chance
    units, resamples = inputs.units[inputs.tested], inputs.permutations + 1
    low, high = mean_interval(above, units, rng=rng, resamples=resamples) or NO_INTERVAL
    effect, real = float(above.mean()), float(inputs.hits.mean()) - chance
    share = effect / real if real > 0 else float("nan")
    return ControlResult(effect, low, high, p, p <= SIGNIFICANT, share, {"accuracy": effect + chance, "chance": chance})


def lost(
    before: np.ndarray, after: np.ndarray, chance: float, units: np.ndarray, count: int, *, rng: np.random.Generator
) -> ControlResult:
    """Test whether a correction costs more than `TOLERATED_SHARE` of the accuracy above chance; hits, (n,)."""
    p = paired_permutation_p(before - after, TOLERATED_SHARE * (before - chance), units, rng=rng, count=count)
    low, high = mean_interval(before - after, units, rng=rng, resamples=count + 1) or NO_INTERVAL
    effect, excess = float(np.mean(before - after)), float(np.mean(before) - chance)
    details = {"accuracy_before": float(np.mean(before)), "accuracy_after": float(np.mean(after)), "chance": chance}
    return ControlResult(
        effect, low, high, p, p <= SIGNIFICANT, effect / excess if excess > 0 else float("nan"), details
    )


def survives(
    real: np.ndarray,
    surrogate: np.ndarray,
    chances: tuple[float, float],
    above_chance_p: float,
    units: np.ndarray,
    count: int,
    *,
    rng: np.random.Generator,
) -> ControlResult:
    """Test whether a surrogate is above chance and keeps more than `LARGE_SHARE` of the real excess; scores, (n,)."""
    excess, preserved = real - chances[0], surrogate - chances[1]
    p = paired_permutation_p(preserved, LARGE_SHARE * excess, units, rng=rng, count=count)
    low, high = mean_interval(preserved, units, rng=rng, resamples=count + 1) or NO_INTERVAL
    p = max(p, above_chance_p)
    share = float(preserved.mean() / excess.mean()) if excess.mean() > 0 else float("nan")
    return ControlResult(float(preserved.mean()), low, high, p, p <= SIGNIFICANT, share, {
        "accuracy": float(real.mean()), "surrogate_accuracy": float(surrogate.mean()),
        "chance": chances[0], "surrogate_chance": chances[1], "p_above_chance": above_chance_p,
    })  # fmt: skip


def surrogate_labels_survive(
    inputs: ControlInputs, draw: Callable[[], np.ndarray], units: np.ndarray, *, rng: np.random.Generator
) -> ControlResult:
    """Decode labels that `draw` makes, (n_trials,), under the same splits, and test whether they `survive`."""
    tested = inputs.tested
    hits, chances = np.zeros(len(tested)), []
    for _ in range(inputs.repeats):
        labels = draw()
        named = inputs.predict(inputs.flat, labels)
        hits += (named == labels)[tested] / inputs.repeats
        chances.append(chance_of(named[tested], labels[tested]))
    chance, units = float(np.mean(chances)), units[tested]
    above = paired_permutation_p(hits, np.full(len(hits), chance), units, rng=rng, count=inputs.permutations)
    real = chance_of(inputs.named, inputs.labels[tested])
    return survives(inputs.hits, hits, (real, chance), above, units, inputs.permutations, rng=rng)
