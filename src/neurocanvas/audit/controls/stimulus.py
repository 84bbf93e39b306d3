"""Controls that ask what is decoded: the concept, the single image, its code, its looks, or that it was trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neurocanvas.audit.controls.base import (
    ControlResult,
    NotApplicable,
    chance_of,
    lost,
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
MOST_TESTED = 160

# Groups in which images that are both trained and tested are left out of training.
STIMULUS_GROUPS = 4


def pseudo_concepts(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Decode as many pseudo-concepts, each an even mix of true ones: if that works, single images are recognised."""
    stimulus = coded(inputs.stimulus)
    first = np.unique(stimulus, return_index=True)[1]
    if len(first) < 2 * inputs.n_concepts:
        return NotApplicable(finding("too-few-pictures", images=len(first), concepts=inputs.n_concepts))
    concept = inputs.labels[first]

    def draw() -> np.ndarray:
        shuffled = rng.permutation(len(first))
        pseudo = np.empty(len(first), dtype=np.int64)
        # dealt concept by concept, so that every pseudo-concept gets as many images of each
        pseudo[shuffled[np.argsort(concept[shuffled], kind="stable")]] = np.arange(len(first)) % inputs.n_concepts
        return pseudo[stimulus]

    return surrogate_labels_survive(inputs, draw, stimulus, rng=rng)


def random_codebook(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Replace the concepts' embeddings by random codes, and retrieve those by ridge regression."""
    # Where tested concepts were trained, random codes must do well: retrieval among them is classification, whatever
    # the targets. Only concepts that were not trained can show that the embeddings' geometry is decoded.
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    embeddings = flattened(np.asarray(inputs.embeddings)[np.unique(inputs.labels, return_index=True)[1]])
    smoothers = []  # of each fold, from centred training targets to predictions of test trials, (n_test, n_train)
    for train, test in inputs.splits:
        scaler = StandardScaler().fit(inputs.flat[train])
        ridge = Ridge(RIDGE * len(train), fit_intercept=False)
        ridge.fit(scaler.transform(inputs.flat[train]), np.eye(len(train)))
        smoothers.append(ridge.predict(scaler.transform(inputs.flat[test])))
    real = _two_way(inputs, smoothers, embeddings)
    codes = [rng.standard_normal(embeddings.shape) for _ in range(inputs.repeats)]
    scores = np.mean([_two_way(inputs, smoothers, code) for code in codes], axis=0)
    scored = np.isfinite(real)
    if not scored.any():
        return NotApplicable(finding("one-concept-per-fold"))
    units = inputs.labels[inputs.tested][scored]  # a code is lucky or not for all trials of its concept
    real, scores = real[scored], scores[scored]
    above = paired_permutation_p(scores, np.full(len(scores), 0.5), units, rng=rng, count=inputs.permutations)
    result = survives(real, scores, (0.5, 0.5), above, units, inputs.permutations, rng=rng)
    trained = all(np.isin(inputs.labels[test], inputs.labels[train]).all() for train, test in inputs.splits)
    bound = result.fired and trained
    return replace(result, note=finding("codes-bound") if bound else None, bound=bound)


def _two_way(inputs: ControlInputs, smoothers: list[np.ndarray], codes: np.ndarray) -> np.ndarray:
    """Two-way identification among a fold's tested concepts, (n_tested,); ties count half, NaN with one concept."""
    from sklearn.preprocessing import normalize

    scores = np.full(len(inputs.labels), np.nan)
    for (train, test), smoother in zip(inputs.splits, smoothers, strict=True):
        targets = codes[inputs.labels[train]]
        labels, true = np.unique(inputs.labels[test], return_inverse=True)
        if len(labels) > 1:
            gallery = normalize(codes[labels] - targets.mean(axis=0))
            scores[test] = trial_scores(smoother @ (targets - targets.mean(axis=0)) @ gallery.T, true)["two_way"]
    return scores[inputs.tested]


def low_level_match(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Leave out of training the half of the tested image's concept that looks most like it, or a random half."""
    # Look-alikes of other concepts stay: a decoder of looks names those instead. The image itself never trains. Where
    # look-alikes also mean more similar things (one breed of dog), accuracy falls for that reason too.
    looks = flattened(np.asarray(inputs.low_level))
    looks = (looks - looks.mean(axis=0)) / np.maximum(looks.std(axis=0), 1e-12)
    stimulus, rows = coded(inputs.stimulus), inputs.tested
    if len(rows) > MOST_TESTED:
        rows = rng.choice(rows, MOST_TESTED, replace=False)
    named = np.full((2, len(inputs.labels)), -1)  # without a random half, and without look-alikes
    for train, test in inputs.splits:
        for row in test[np.isin(test, rows)]:
            others = train[stimulus[train] != stimulus[row]]
            same = others[inputs.labels[others] == inputs.labels[row]]
            nearest = same[np.argsort(np.sum((looks[same] - looks[row]) ** 2, axis=1), kind="stable")]
            for way, ordered in enumerate((rng.permutation(same), nearest)):
                remaining = others[~np.isin(others, ordered[: len(same) // 2])]
                named[way, row] = inputs.answers(remaining, np.array([row]))[0]
    true = inputs.labels[rows]
    before, after = (named[:, rows] == true).astype(float)
    chance = chance_of(named[0, rows], true)
    return lost(before, after, chance, inputs.units[rows], inputs.permutations, rng=rng)


def repeated_stimulus(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Leave the tested images out of training, and compare with leaving out as many trials of the same concepts."""
    stimulus, tested = coded(inputs.stimulus), inputs.tested
    named = np.full((2, len(stimulus)), -1)  # with and without the tested images in training
    is_repeated = np.zeros(len(stimulus), dtype=bool)
    for train, test in inputs.splits:
        repeated = test[np.isin(stimulus[test], stimulus[train])]
        is_repeated[repeated] = True
        images, first = np.unique(stimulus[repeated], return_index=True)
        shuffled = rng.permutation(len(images))
        dealt = images[shuffled[np.argsort(inputs.labels[repeated[first[shuffled]]], kind="stable")]]
        for group in (dealt[number::STIMULUS_GROUPS] for number in range(STIMULUS_GROUPS)):  # even in every concept
            rows = repeated[np.isin(stimulus[repeated], group)]
            if len(rows):
                shown = np.isin(stimulus[train], group)
                others = make_room(train[~shown], train[shown], inputs.labels, rng)
                named[0, rows] = inputs.answers(np.concatenate([train[shown], others]), rows)
                named[1, rows] = inputs.answers(train[~shown], rows)
    share, rows = float(is_repeated[tested].mean()), tested[is_repeated[tested]]
    if not share:
        return NotApplicable(finding("no-repeats"))
    before, after = (named[:, rows] == inputs.labels[rows]).astype(float)
    chance = chance_of(named[0, rows], inputs.labels[rows])
    result = lost(before, after, chance, stimulus[rows], inputs.permutations, rng=rng)
    return replace(result, details={**result.details, "share_of_trials": share}, note=finding("repeats", share=share))
