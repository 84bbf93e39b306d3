"""What the controls take: checks, columns, the default decoder, and the questions that controls share."""

from dataclasses import replace

import numpy as np
import pytest
from control_simulations import clean_rapid, steady_blocks
from scipy.stats import binom
from sklearn.covariance import ledoit_wolf

from neurocanvas.audit.controls.base import LARGE_SHARE as LARGE
from neurocanvas.audit.controls.base import TOLERATED_SHARE as TOLERATED
from neurocanvas.audit.controls.base import chance_of, label_p, lost, relabelled_p, survives
from neurocanvas.audit.controls.inputs import ControlInputs, coded, shrinkage_lda
from neurocanvas.errors import NeuroCanvasError

SEEDS = 200
MOST_ALARMS = int(binom.ppf(0.995, SEEDS, 0.05))


def made(**changes: object) -> ControlInputs:
    """Six trials of two concepts, in two runs, each tested once."""
    given: dict[str, object] = {
        "features": np.arange(12.0).reshape(6, 2, 1), "concept": np.array(list("bababa")), "stimulus": np.arange(6),
        "block": np.arange(6), "run": np.arange(6) // 3, "session": np.zeros(6, int), "order": np.arange(6),
        "splits": [(np.array([2, 3, 4, 5]), np.array([0, 1])), (np.array([0, 1]), np.array([2, 3]))],
    }  # fmt: skip
    return ControlInputs(**{**given, **changes})  # type: ignore[arg-type]


def test_columns_are_numbered_and_tested_trials_stand_in_recorded_order() -> None:
    inputs = made(order=np.array([5, 4, 3, 2, 1, 0]))
    assert inputs.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert inputs.tested.tolist() == [3, 2, 1, 0]
    assert inputs.flat.shape == (6, 2) and not inputs.is_blocked
    assert len({*inputs.units[inputs.tested].tolist()}) == 4 and inputs.strata.tolist() == [1, 1, 0, 0]
    assert inputs.predict(inputs.flat, inputs.labels)[4:].tolist() == [-1, -1]


def test_blocks_are_told_from_mixed_order_and_whole_ones_from_cut_ones() -> None:
    blocked = steady_blocks(rng=np.random.default_rng(0))
    assert blocked.is_blocked and not blocked.keeps_blocks_whole
    assert len(np.unique(blocked.units)) == 24
    third = np.arange(240) // 80
    whole = replace(blocked, splits=[(np.flatnonzero(third != k), np.flatnonzero(third == k)) for k in range(3)])
    assert whole.keeps_blocks_whole
    assert not clean_rapid(rng=np.random.default_rng(0)).is_blocked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.full((6, 2), np.nan)}, "features: finite numbers are needed"),
        ({"baseline": np.full((6, 2), np.inf)}, "baseline: finite numbers are needed"),
        ({"concept": np.array(["a"] * 6)}, "two or more concepts are needed"),
        ({"splits": [(np.array([0, 2]), np.array([1]))]}, "fold 0 tests a alone"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(NeuroCanvasError, match=message):
        made(**changes)


def test_shrinkage_lda_is_the_rule_of_bayes_with_the_covariance_of_ledoit_and_wolf() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 40)
    x, new = rng.normal(size=(40, 6)) + y[:, None], rng.normal(size=(70, 6))
    means = np.stack([x[y == label].mean(axis=0) for label in range(3)])
    inverse = np.linalg.inv(ledoit_wolf(x - means[y], assume_centered=True)[0])
    expected = np.stack([-0.5 * np.einsum("ij,jk,ik->i", new - mean, inverse, new - mean) for mean in means], axis=1)
    np.testing.assert_array_equal(shrinkage_lda(x, 2 * y, new), 2 * expected.argmax(axis=1))


def test_combinations_are_numbered_and_untrained_concepts_may_be_tested_with_embeddings() -> None:
    assert made(splits=[(np.array([0, 2]), np.array([1]))], embeddings=np.ones((6, 3))).n_concepts == 2
    assert coded(np.array([1, 0, 1]), np.array(["x", "x", "y"])).tolist() == [1, 0, 2]


def test_chance_is_the_mean_over_permutations() -> None:
    rng = np.random.default_rng(1)
    named, true = rng.integers(0, 3, 50), rng.choice(3, 50, p=[0.6, 0.2, 0.2])
    _, mean = label_p(named, true, np.zeros(50), np.arange(50), 4000, rng=rng)
    assert chance_of(named, true) == pytest.approx(mean, abs=0.003)


def test_names_are_exchanged_where_answers_cluster_by_concept() -> None:
    """A decoder of arbitrary labels names most trials of a concept alike, by accident sometimes rightly."""
    alarms = {"trials": 0, "names": 0}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        true = np.repeat(np.arange(8), 10)
        arbitrary = rng.integers(0, 8, 8)
        named = np.where(rng.random(80) < 0.95, arbitrary[true], rng.integers(0, 8, 80))
        alarms["trials"] += label_p(named, true, np.zeros(80), np.arange(80), 99, rng=rng)[0] <= 0.05
        alarms["names"] += relabelled_p(named[None], true, 99, rng=rng)[0] <= 0.05
    assert alarms["names"] <= MOST_ALARMS < alarms["trials"] / 1.5
    right = np.repeat(np.arange(8), 10)
    assert relabelled_p(right[None], right, 99, rng=np.random.default_rng(0))[0] <= 0.02


def test_losing_the_tolerated_share_and_keeping_the_large_one_stay_within_the_level() -> None:
    """At the border between silence and firing, where the null hypothesis just holds."""
    alarms, found = {"lost": 0, "survives": 0}, {"lost": 0, "survives": 0}
    chance, accuracy, units = 0.125, 0.6, np.arange(160)
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        before = (rng.random(160) < accuracy).astype(float)
        for counts, lose, keep in ((alarms, TOLERATED, LARGE), (found, 0.7, 1.0)):
            less, stay = (chance + np.array([1 - lose, keep]) * (accuracy - chance) > rng.random((2, 160)).T).T * 1.0
            counts["lost"] += lost(before, less, chance, units, 199, rng=rng).fired
            counts["survives"] += survives(before, stay, (chance, chance), 0.001, units, 199, rng=rng).fired
    assert max(alarms.values()) <= MOST_ALARMS, alarms
    assert min(alarms.values()) >= binom.ppf(0.005, SEEDS, 0.05), "the border is where the level is used up"
    assert min(found.values()) >= 0.9 * SEEDS


def test_effects_are_what_they_say() -> None:
    before, after = np.array([1.0, 1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.0])
    found = lost(before, after, 0.25, np.arange(4), 99, rng=np.random.default_rng(0))
    assert found.effect == 0.5 and found.share == pytest.approx(1.0)
    kept = survives(before, after, (0.25, 0.0), 0.01, np.arange(4), 99, rng=np.random.default_rng(0))
    assert kept.effect == 0.25 and kept.share == pytest.approx(0.5)
    found = survives(np.zeros(40), np.ones(40), (0.5, 0.5), 0.3, np.arange(40), 199, rng=np.random.default_rng(0))
    assert found.p == 0.3 and not found.fired and np.isnan(found.share), "a surrogate must be above chance too"
