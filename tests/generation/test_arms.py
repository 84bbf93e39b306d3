"""The arms: each condition is what its name says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neurocanvas.generation.arms import (
    ARMS,
    LARGEST_GAIN,
    ArmInputs,
    derangement,
    gain,
    likeness,
    match_norms,
    rescale,
    token_norms,
)


@pytest.fixture
def inputs():
    """Seven trials of two folds, told apart by their values; six stimuli of three concepts."""
    rng = np.random.default_rng(0)
    predicted, rescaled, true = rng.standard_normal((3, 7, 4, 5)).astype(np.float32)
    means = rng.standard_normal((2, 4, 5)).astype(np.float32)
    fold = np.array([0, 1, 0, 1, 0, 0, 1])
    targets = rng.standard_normal((6, 4, 5)).astype(np.float16)
    trained = np.array([[1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]], bool)[fold]
    concepts = np.array(["cat", "dog", "cat", "dog", "fox", "fox"])
    return ArmInputs(
        predicted, rescaled, means[fold], true, np.arange(7), targets, targets + 1, trained,
        concepts, np.array(list("abcdef")), lambda named: np.stack([np.full((4, 5), len(name)) for name in named]),
        lambda: np.arange(7, dtype=np.uint8)[:, None, None, None] + np.zeros((2, 2, 3), np.uint8),
    )  # fmt: skip


def condition(arm, inputs):
    """The conditions of an arm."""
    return ARMS[arm].condition(inputs)


def test_each_arm_gives_what_it_says(inputs):
    for arm in ("eeg", "shuffled", "retrieved-start", "sketched-start", "best-of"):
        np.testing.assert_array_equal(condition(arm, inputs), inputs.rescaled)
    assert {arm for arm, how in ARMS.items() if how.deranged} == {"shuffled"}
    np.testing.assert_array_equal(condition("mean", inputs), inputs.mean)
    np.testing.assert_array_equal(condition("oracle", inputs), inputs.true)
    np.testing.assert_array_equal(condition("retrieval", inputs), inputs.embeddings[inputs.nearest])
    drawn = condition("random", inputs)
    rows = [np.flatnonzero((inputs.embeddings == one).all(axis=(1, 2))).item() for one in drawn.astype(np.float16)]
    assert inputs.trained[np.arange(7), rows].all() and len(set(rows)) > 1
    np.testing.assert_array_equal(condition("class-name", inputs), np.full((7, 4, 5), 3.0))


def test_arms_start_from_what_they_say(inputs):
    assert {arm for arm, how in ARMS.items() if how.start} == {"retrieved-start", "sketched-start"}
    assert ARMS["retrieved-start"].start(inputs) == ["abcdef"[row] for row in inputs.nearest]
    assert [int(small.mean()) for small in ARMS["sketched-start"].start(inputs)] == list(range(7))


def test_arms_of_predictions_are_told_from_the_others():
    others = {arm for arm, how in ARMS.items() if how.space != "encoder"}
    assert others == {"random", "oracle", "retrieval", "class-name", "caption"}


def test_the_nearest_is_the_known_target_in_the_most_similar_direction(inputs):
    for trial, row in enumerate(inputs.nearest):
        cosines = [
            likeness(inputs.predicted[trial], target.astype(np.float32), inputs.mean[trial]) if known else -2
            for target, known in zip(inputs.targets, inputs.trained[trial], strict=True)
        ]
        assert row == np.argmax(cosines)
    assert inputs.trained[np.arange(7), inputs.nearest].all()


def test_a_prediction_that_is_a_training_target_finds_it_however_weak(inputs):
    rows = np.array([0, 5, 3, 2, 1, 0, 4])
    predicted = inputs.mean + 0.1 * (inputs.targets[rows].astype(np.float32) - inputs.mean)
    exact = replace(inputs, predicted=predicted)
    np.testing.assert_array_equal(exact.nearest, rows)


def test_the_named_concept_is_the_one_whose_known_targets_lie_nearest(inputs):
    targets, means = inputs.targets.astype(np.float32), {}
    for fold, concepts in ((0, ["cat", "dog"]), (1, ["cat", "dog", "fox"])):
        rows = {name: inputs.trained[fold] & (inputs.target_concept == name) for name in concepts}
        means[fold] = {name: targets[row].mean(axis=0) for name, row in rows.items()}
    expected = [
        max(means[fold], key=lambda name: likeness(inputs.predicted[trial], means[fold][name], inputs.mean[trial]))
        for trial, fold in enumerate([0, 1, 0, 1, 0, 0, 1])
    ]
    assert inputs.named.tolist() == expected


@pytest.mark.parametrize("count", [2, 3, 10, 200])
def test_a_derangement_has_no_fixed_point(count):
    for seed in range(20):
        concept = np.random.default_rng([seed, 1]).integers(0, 1 + count // 3, count)
        order = derangement(concept, rng=np.random.default_rng(seed))
        assert sorted(order) == list(range(count))
        assert not np.any(order == np.arange(count))


def test_derangements_are_all_equally_likely():
    """Of four there are nine; 3600 draws, so each count has standard deviation 19."""
    rng = np.random.default_rng(0)
    drawn = [tuple(derangement(np.arange(4), rng=rng)) for _ in range(3600)]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 9 and np.all(np.abs(counts - 400) < 80)


def test_every_concept_gets_an_even_mix_of_predictions():
    """Eight gratings of 30 trials: 3.75 predictions of each for each."""
    concept = np.random.default_rng(0).permutation(np.repeat(np.arange(8), 30))
    for seed in range(5):
        given = concept[derangement(concept, rng=np.random.default_rng(seed))]
        table = np.zeros((8, 8), int)
        np.add.at(table, (concept, given), 1)
        assert table.min() >= 2 and table.max() <= 5


def test_gain_restores_the_targets_spread_within_limits():
    target = np.array([3.0, 4.0])
    assert gain(target, target / 2) == pytest.approx(2.0)
    assert gain(target, target * 2) == 1.0
    assert gain(target, target * 1e-6) == LARGEST_GAIN
    assert gain(target, target * 0) == 1.0


def test_rescale_stretches_around_the_mean():
    rng = np.random.default_rng(2)
    predicted, mean = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    gains = np.array([1.0, 2.0, 0.0])
    stretched = rescale(predicted, mean, gains)
    assert stretched.dtype == np.float32
    np.testing.assert_allclose(stretched[0], predicted[0], atol=1e-6)
    np.testing.assert_allclose(stretched[1] - mean[1], 2 * (predicted[1] - mean[1]), atol=1e-5)
    np.testing.assert_allclose(stretched[2], mean[2], atol=1e-6)


def test_tokens_get_the_norms_of_training_targets_and_keep_their_directions(inputs):
    known = np.array([0, 2, 5])
    norms = token_norms(inputs.targets, known)
    expected = np.linalg.norm(inputs.targets[known].astype(float), axis=2).mean(axis=0)
    np.testing.assert_allclose(norms, expected, rtol=1e-5)
    matched = match_norms(inputs.predicted, np.tile(norms, (7, 1)))
    np.testing.assert_allclose(np.linalg.norm(matched, axis=2), np.tile(norms, (7, 1)), rtol=1e-5)
    cosine = np.sum(matched * inputs.predicted, axis=2) / norms / np.linalg.norm(inputs.predicted, axis=2)
    np.testing.assert_allclose(cosine, 1, rtol=1e-5)
    assert np.isfinite(match_norms(np.zeros((1, 4, 5)), norms[None])).all()
