"""Controls that ask what is decoded: the concept, the single image, its code, its looks, or that it was trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neurocanvas.audit.controls.base import (
    ControlResult,
    NotApplicable,
    chance_of,
    lost,
    nothing_to_ask,
    surrogate_labels_survive,
    survives,
)
from neurocanvas.audit.controls.inputs import ControlInputs, coded, flattened
from neurocanvas.audit.controls.time import make_room
from neurocanvas.evaluation.benchmark import trial_scores
from neurocanvas.evaluation.statistics import paired_permutation_p
from neurocanvas.findings import finding

# Ridge penalty per training trial, for standardised features.
RIDGE = 0.1

# Most tested trials in the low-level match, which trains a decoder for each; a random draw where there are more.
LOOKED_AT = 160

# Groups in which images that are both trained and tested are left out of training.
STIMULUS_GROUPS = 4


def pseudo_concepts(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Decode as many pseudo-concepts, each an even mix of true ones: if that works, single images are recognised."""
    stimuli, first = np.unique(inputs.stimulus, return_index=True)
    if len(stimuli) < 2 * inputs.n_concepts:
        return NotApplicable(finding("too-few-pictures", pictures=len(stimuli), concepts=inputs.n_concepts))
    of_stimulus, stimulus = inputs.labels[first], coded(inputs.stimulus)

    def draw() -> np.ndarray:
        shuffled = rng.permutation(len(stimuli))
        dealt = shuffled[np.argsort(of_stimulus[shuffled], kind="stable")]  # concept by concept, as cards are dealt
        pseudo = np.empty(len(stimuli), dtype=np.int64)
        pseudo[dealt] = np.arange(len(stimuli)) % inputs.n_concepts
        return pseudo[stimulus]

    return surrogate_labels_survive(inputs, draw, stimulus, rng=rng)


def random_codebook(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Replace the concepts' embeddings by random codes, and retrieve those by ridge regression."""
    # Where tested concepts were trained, random codes must do well: retrieval among them is classification, whatever
    # the targets. Only concepts that were not trained can show that the embeddings' geometry is decoded.
    if inputs.embeddings is None:
        return NotApplicable(finding("no-embeddings"))
    first = np.unique(inputs.labels, return_index=True)[1]
    given = flattened(np.asarray(inputs.embeddings)[first])
    smoothers = [_ridge_smoother(inputs.flat[train], inputs.flat[test]) for train, test in inputs.splits]
    real = _two_way(inputs, smoothers, given)
    codes = [rng.standard_normal(given.shape) for _ in range(inputs.repeats)]
    scores = np.mean([_two_way(inputs, smoothers, code) for code in codes], axis=0)
    kept = np.isfinite(real)
    if not kept.any():
        return NotApplicable(finding("one-concept-per-fold"))
    units = inputs.labels[inputs.tested][kept]  # a code is lucky or not for all trials of its concept
    real, scores = real[kept], scores[kept]
    above = paired_permutation_p(scores, np.full(len(scores), 0.5), units, rng=rng, count=inputs.permutations)
    found = survives(real, scores, (0.5, 0.5), above, units, inputs.permutations, rng=rng)
    trained = np.mean([np.isin(inputs.labels[test], inputs.labels[train]).mean() for train, test in inputs.splits])
    bound = found.fired and bool(trained == 1)
    return replace(found, note=finding("codes-bound") if bound else None, bound=bound)


def _ridge_smoother(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Matrix from centred training targets to predictions of test trials, (n_test, n_train)."""
    mean, scale = train.mean(axis=0), train.std(axis=0)
    scale[scale == 0] = 1.0
    x, given = (train - mean) / scale, (test - mean) / scale
    penalty = RIDGE * len(x)
    if x.shape[1] <= len(x):
        return np.asarray(given @ np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T))
    return np.asarray(given @ x.T @ np.linalg.inv(x @ x.T + penalty * np.eye(len(x))))


def _two_way(inputs: ControlInputs, smoothers: list[np.ndarray], codes: np.ndarray) -> np.ndarray:
    """Two-way identification among a fold's tested concepts, (n_tested,); ties count half, NaN with one concept."""
    scores = np.full(len(inputs.labels), np.nan)
    for (train, test), smoother in zip(inputs.splits, smoothers, strict=True):
        targets = codes[inputs.labels[train]]
        centre = targets.mean(axis=0)
        gallery, true = np.unique(inputs.labels[test], return_inverse=True)
        if len(gallery) > 1:
            known = codes[gallery] - centre
            known /= np.maximum(np.linalg.norm(known, axis=1, keepdims=True), 1e-12)
            scores[test] = trial_scores(smoother @ (targets - centre) @ known.T, true)["two_way"]
    return scores[inputs.tested]


def low_level_match(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Leave out of training the half of the tested image's concept that looks most like it, or a random half."""
    # Look-alikes of other concepts stay: a decoder of looks names those instead. The image itself never trains. Where
    # look-alikes also mean more similar things (one breed of dog), accuracy falls for that reason too.
    if inputs.low_level is None:
        return NotApplicable(finding("no-low-level"))
    looks = flattened(inputs.low_level)
    looks = (looks - looks.mean(axis=0)) / np.maximum(looks.std(axis=0), 1e-12)
    stimulus, chosen = coded(inputs.stimulus), inputs.tested
    if len(chosen) > LOOKED_AT:
        chosen = rng.choice(chosen, LOOKED_AT, replace=False)
    named = np.full((2, len(inputs.labels)), -1)
    for train, test in inputs.splits:
        for row in test[np.isin(test, chosen)]:
            rest = train[stimulus[train] != stimulus[row]]
            own = rest[inputs.labels[rest] == inputs.labels[row]]
            nearest = own[np.argsort(np.sum((looks[own] - looks[row]) ** 2, axis=1), kind="stable")]
            for side, ordered in enumerate((rng.permutation(own), nearest)):
                left = rest[~np.isin(rest, ordered[: len(own) // 2])]
                named[side, row] = inputs.answers(left, np.array([row]))[0]
    true = inputs.labels[chosen]
    before, after = (named[:, chosen] == true).astype(float)
    chance = chance_of(named[0, chosen], true)
    return lost(before, after, chance, inputs.units[chosen], inputs.permutations, rng=rng)


def repeated_stimulus(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Leave the tested images out of training, and compare with leaving out as many trials of the same concepts."""
    stimulus, tested = coded(inputs.stimulus), inputs.tested
    named, with_picture = np.full((2, len(stimulus)), -1), np.zeros(len(stimulus), dtype=bool)
    for train, test in inputs.splits:
        repeated = test[np.isin(stimulus[test], stimulus[train])]
        with_picture[repeated] = True
        pictures, first = np.unique(stimulus[repeated], return_index=True)
        shuffled = rng.permutation(len(pictures))
        dealt = pictures[shuffled[np.argsort(inputs.labels[repeated[first[shuffled]]], kind="stable")]]
        for group in (dealt[number::STIMULUS_GROUPS] for number in range(STIMULUS_GROUPS)):  # even in every concept
            rows = repeated[np.isin(stimulus[repeated], group)]
            if len(rows):
                shown = np.isin(stimulus[train], group)
                others = make_room(train[~shown], train[shown], inputs.labels, rng)
                for side, left in enumerate((np.concatenate([train[shown], others]), train[~shown])):
                    named[side, rows] = inputs.answers(left, rows)
    share = float(with_picture[tested].mean())
    if not share:
        return nothing_to_ask(finding("no-repeats"), share_of_trials=0.0)
    rows = tested[with_picture[tested]]
    before, after = (named[:, rows] == inputs.labels[rows]).astype(float)
    chance = chance_of(named[0, rows], inputs.labels[rows])
    found = lost(before, after, chance, stimulus[rows], inputs.permutations, rng=rng)
    return replace(found, details={**found.details, "share_of_trials": share}, note=finding("repeats", share=share))
