"""Controls that ask whether time is decoded: blocks, the baseline, distance to training trials, drift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from neurocanvas.audit.controls.base import (
    NO_INTERVAL,
    SIGNIFICANT,
    ControlResult,
    NotApplicable,
    above_chance,
    chance_of,
    label_p,
    lost,
    surrogate_labels_survive,
)
from neurocanvas.audit.controls.inputs import ControlInputs, coded, flattened, pieces, shrinkage_lda
from neurocanvas.evaluation.statistics import AT_ONCE, permutation_p, permutations
from neurocanvas.findings import finding
from neurocanvas.targets.pretrained import batches

# Parts of a single run in mixed order that are held out in turn.
STRETCHES = 5

# Trials per period: slower changes count as drift. With blocks of fewer than ten trials it is two blocks.
DRIFT_PERIOD = 20

# Most permutations for which the decoder of the baseline is trained anew.
RETRAINED = 199

# Share of the accuracy above chance that a doubling of the distance to training trials may cost: drift leaves a trace
# in the mean of a concept's training trials even in mixed order.
TOLERATED_SLOPE = 0.1


def leave_block_out(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Compare training on other blocks alone with as many trials that include half of the tested blocks' trials."""
    # k-th blocks of all concepts are tested together; in mixed order runs, or fifths of one run. Each concept has the
    # same number of training trials on both sides, so that only where they come from differs.
    if inputs.keeps_blocks_whole:
        return NotApplicable(finding("whole-blocks"))
    if inputs.keeps_runs_whole:
        return NotApplicable(finding("whole-runs"))
    turn = _turns(inputs)
    if turn.max() < 1:
        return NotApplicable(finding("one-block-only"))
    used = np.flatnonzero(turn >= 0)
    within, apart = np.full(len(turn), -1), np.full(len(turn), -1)
    for number in range(turn.max() + 1):
        test, others = used[turn[used] == number], used[turn[used] != number]
        apart[test] = inputs.answers(others, test)
        shuffled = rng.permutation(test)
        dealt = shuffled[np.argsort(inputs.units[shuffled], kind="stable")]  # every block evenly to the two halves
        for tested, trained in ((dealt[::2], dealt[1::2]), (dealt[1::2], dealt[::2])):
            rest = make_room(others, trained, inputs.labels, rng)
            within[tested] = inputs.answers(np.concatenate([rest, trained]), tested)
    true = inputs.labels[used]
    before, after = ((named[used] == true).astype(float) for named in (within, apart))
    chance = chance_of(within[used], true)
    result = lost(before, after, chance, inputs.units[used], inputs.permutations, rng=rng)
    if not inputs.is_blocked:
        return replace(result, note=finding("mixed-order") if result.fired else None)
    left_out = inputs.n_concepts - len(np.unique(true))
    return replace(result, note=finding("concepts-left-out", n=left_out) if left_out else None)


def _turns(inputs: ControlInputs) -> np.ndarray:
    """Number of the part of the recording held out with each row, (n_trials,); -1 for concepts with one block."""
    import pandas as pd

    if inputs.is_blocked:
        recorded = pd.DataFrame({"concept": inputs.labels, "block": inputs.blocks}).iloc[inputs.recorded]
        blocks = recorded.groupby("concept")["block"]
        turn = blocks.transform(lambda block: pd.factorize(block)[0])
        return turn.where(blocks.transform("nunique") > 1, -1).sort_index().to_numpy(np.int64)
    if inputs.runs.max() > 0:
        return inputs.runs
    turn = np.empty(len(inputs.labels), dtype=np.int64)
    turn[inputs.recorded] = np.arange(len(turn)) * STRETCHES // len(turn)
    return turn


def make_room(others: np.ndarray, joining: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Drop random rows of every label, as many as join."""
    import pandas as pd

    shuffled = rng.permutation(others)
    before = pd.Series(shuffled).groupby(labels[shuffled]).cumcount().to_numpy()  # rows of the same label before each
    leaving = np.bincount(labels[joining], minlength=labels.max() + 1)
    return shuffled[before >= leaving[labels[shuffled]]]


def block_surrogate(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Shift the blocks by half of one, give them random labels, and decode those under the same splits."""
    # A shifted block is half of one concept's trials and half of the next one's: a response to the concept alone keeps
    # half of its accuracy, drift all of it. In mixed order a block is one trial, and surrogate labels are random.
    if inputs.keeps_blocks_whole:
        return NotApplicable(finding("whole-blocks"))
    blocks, session = inputs.blocks, np.asarray(inputs.session)[inputs.recorded]
    half = int(np.median(np.bincount(blocks))) // 2
    shifted = np.empty_like(blocks)
    for number in np.unique(session):
        rows = inputs.recorded[session == number]
        shifted[rows] = np.roll(blocks[rows], half)
    concepts = inputs.labels[np.unique(blocks, return_index=True)[1]]
    return surrogate_labels_survive(inputs, lambda: rng.permutation(concepts)[shifted], inputs.units, rng=rng)


def baseline_window(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Decode the concept from before the image could have been seen: -200 to 0 ms, or (weaker) 0 to 40 ms."""
    tested = inputs.tested
    before, true = flattened(np.asarray(inputs.baseline)), inputs.labels[tested]
    named = inputs.predict(before, inputs.labels)[tested]
    if inputs.decode is shrinkage_lda and not inputs.keeps_blocks_whole:
        # Trials are exchanged even inside blocks, because drift is what this looks for. Folds learn from one another's
        # test trials, so exchanging test labels alone fires on 7 instead of 5 of 100 clean recordings: train anew.
        count = min(inputs.permutations, RETRAINED)
        permuted = inputs.labels[permutations(coded(inputs.session), np.arange(len(before)), count, rng=rng)]
        null = np.array([np.mean((inputs.predict(before, labels) == labels)[tested]) for labels in permuted])
        p, chance = permutation_p(float(np.mean(named == true)), null), float(null.mean())
    else:
        p, chance = label_p(named, true, inputs.strata, inputs.units[tested], inputs.permutations, rng=rng)
    result = above_chance(inputs, named, p, chance, rng=rng)
    return replace(result, details={
        "accuracy": float(inputs.hits.mean()), "baseline_accuracy": result.details["accuracy"], "chance": chance,
    })  # fmt: skip


def distances_to_training(inputs: ControlInputs) -> np.ndarray:
    """Trials to the nearest training trial of each concept in the session, (n_tested, n_concepts); NaN if none."""
    order, session = np.asarray(inputs.order, dtype=np.float64), np.asarray(inputs.session)
    distances = np.full((len(order), inputs.n_concepts), np.nan)
    for train, test in inputs.splits:
        by_label = train[np.argsort(inputs.labels[train], kind="stable")]
        labels, starts = np.unique(inputs.labels[by_label], return_index=True)
        for rows in pieces(test, len(train)):
            apart = np.abs(order[rows][:, None] - order[by_label])
            apart[session[rows][:, None] != session[by_label]] = np.nan
            distances[np.ix_(rows, labels)] = np.fmin.reduceat(apart, starts, axis=1)
    return distances[inputs.tested]


def distance_to_training(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Slope of accuracy on log2 of the distance to the nearest training trial of the concept."""
    # Only in blocks: in mixed order a near training trial helps, too, as it shares the drift, but time tells nothing of
    # the concept. Cyclic shifts within blocks, because hits and distances are both autocorrelated.
    if not inputs.is_blocked:
        return NotApplicable(finding("no-blocks"))
    distance = distances_to_training(inputs)[np.arange(len(inputs.tested)), inputs.labels[inputs.tested]]
    trained = np.isfinite(distance)
    if not trained.any():
        return NotApplicable(finding("no-training-in-session"))
    x, y, rows = np.log2(distance[trained]), inputs.hits[trained], inputs.tested[trained]
    x, variance = x - x.mean(), float(np.var(x))
    if variance < 1e-12:
        return NotApplicable(finding("equal-distances"))
    stretch = inputs.blocks[rows]
    slope = float(x @ y) / len(x) / variance
    null = np.concatenate([y[shifts] @ x for shifts in cyclic_shifts(stretch, inputs.permutations, rng=rng)])
    tolerated = TOLERATED_SLOPE * max(0.0, float(y.mean()) - chance_of(inputs.named[trained], inputs.labels[rows]))
    p = permutation_p(-slope - tolerated, -null / len(x) / variance)
    low, high = _slope_interval(x, y, coded(inputs.units[rows]), inputs.permutations + 1, rng)
    near = x <= np.median(x)
    return ControlResult(slope, low, high, p, fired=p <= SIGNIFICANT, details={
        "accuracy_near": float(y[near].mean()), "median_distance": float(np.median(distance[trained])),
        "accuracy_far": float(y[~near].mean()) if (~near).any() else float("nan"),
    })  # fmt: skip


def cyclic_shifts(stretch: np.ndarray, count: int, *, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield `count` random cyclic shifts within every stretch (shift 0 included), in batches of (n_shifts, n)."""
    stretches = [np.flatnonzero(stretch == number) for number in np.unique(stretch)]
    shifts = [rng.integers(len(rows), size=(count, 1)) for rows in stretches]
    for part in batches(count, max(1, AT_ONCE // len(stretch))):
        shifted = np.empty((part.stop - part.start, len(stretch)), dtype=np.int64)
        for rows, shift in zip(stretches, shifts, strict=True):
            shifted[:, rows] = rows[(np.arange(len(rows)) + shift[part]) % len(rows)]
        yield shifted


def _slope_interval(
    x: np.ndarray, y: np.ndarray, units: np.ndarray, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % bootstrap interval of the slope of y on x, resampling whole units."""
    sums = np.stack([np.bincount(units, weights=part) for part in (np.ones_like(x), x, y, x * x, x * y)], axis=1)
    n, sx, sy, sxx, sxy = np.concatenate([
        sums[rng.integers(len(sums), size=(part.stop - part.start, len(sums)))].sum(axis=1)
        for part in batches(resamples, max(1, AT_ONCE // sums.size))
    ]).T  # fmt: skip
    size = sxx - sx * sx / n
    slopes = (sxy - sx * sy / n)[size > 1e-9] / size[size > 1e-9]
    low, high = np.quantile(slopes, [0.025, 0.975]) if len(slopes) else NO_INTERVAL
    return float(low), float(high)


def drift_removal(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Take slow changes over trials out of the features and decode again."""
    # In blocks a concept's own response is slow too and goes with the drift: the two cannot be distinguished there.
    if inputs.keeps_blocks_whole:
        return NotApplicable(finding("whole-blocks"))
    cleaned = without_drift(inputs)
    tested, true = inputs.tested, inputs.labels[inputs.tested]
    after = (inputs.predict(cleaned, inputs.labels)[tested] == true).astype(float)
    chance = chance_of(inputs.named, true)
    return lost(inputs.hits, after, chance, inputs.units[tested], inputs.permutations, rng=rng)


def without_drift(inputs: ControlInputs) -> np.ndarray:
    """Features without slow changes over the trials of a run, (n_trials, n_features)."""
    # Regressed on the trial index and all cosines with a period of at least `DRIFT_PERIOD` trials; the regression sees
    # test trials but no labels.
    period: float = DRIFT_PERIOD
    if inputs.is_blocked:
        period = min(period, 2 * float(np.median(np.bincount(inputs.blocks))))
    cleaned = inputs.flat.copy()
    for run in range(inputs.runs.max() + 1):
        rows = inputs.recorded[inputs.runs[inputs.recorded] == run]
        time = (np.arange(len(rows)) + 0.5) / len(rows)
        waves = np.cos(np.pi * time[:, None] * np.arange(int(2 * len(rows) / period) + 1))
        slow = np.linalg.qr(np.column_stack([waves, time]))[0]
        cleaned[rows] -= slow @ (slow.T @ cleaned[rows])
    return cleaned
