"""The arms: each condition is what its name says."""

from __future__ import annotations

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.generation.conditioning import ARMS, LARGEST_GAIN, ArmInputs, derangement, gain, rescale


@pytest.fixture
def inputs():
    """Seven trials, told apart by their values."""
    rng = np.random.default_rng(0)
    predicted, mean, true = rng.standard_normal((3, 7, 4, 5)).astype(np.float32)
    return ArmInputs(predicted, mean, true, np.arange(7), np.random.default_rng(1))


def test_each_arm_gives_what_it_says(inputs):
    assert set(ARMS) == {"eeg", "shuffled", "mean", "oracle"}
    np.testing.assert_array_equal(ARMS["eeg"](inputs), inputs.predicted)
    np.testing.assert_array_equal(ARMS["mean"](inputs), inputs.mean)
    np.testing.assert_array_equal(ARMS["oracle"](inputs), inputs.true)


def test_shuffled_gives_every_prediction_to_another_trial(inputs):
    shuffled = ARMS["shuffled"](inputs)
    origin = [int(np.flatnonzero((inputs.predicted == row).all(axis=(1, 2)))[0]) for row in shuffled]
    assert sorted(origin) == list(range(7))
    assert not np.any(np.array(origin) == np.arange(7))


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


def test_one_trial_cannot_be_shuffled():
    with pytest.raises(NeuroCanvasError, match="at least 2 trials"):
        derangement(np.zeros(1), rng=np.random.default_rng(0))


def test_the_same_seed_shuffles_alike():
    first, second = (derangement(np.arange(30) // 3, rng=np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


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
