"""Scores of classifiers, tests against chance and the best model, and the corrections for many tests."""

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.benchmark import (
    chance_p,
    enough_draws,
    holm,
    mark_best,
    released_score,
    smallest_best_p,
    trial_scores,
)
from neurocanvas.evaluation.statistics import expected_score, null_means, permutations


def test_scores_of_trials_by_hand():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0], [0.0, 0.2, 0.9]])
    found = trial_scores(scores, np.array([1, 1, 0]))
    assert found["accuracy"].tolist() == [1.0, 0.0, 0.0]
    assert found["two_way"].tolist() == [1.0, 0.75, 0.0]
    assert found["upper_half"].tolist() == [1.0, 1.0, 0.0]


def test_arrays_that_do_not_fit_are_refused():
    for scores, true in ((np.ones((3, 1)), np.zeros(3, int)), (np.ones((3, 2)), np.zeros(2, int)), (np.ones(3),) * 2):
        with pytest.raises(NeuroCanvasError, match="scores"):
            trial_scores(scores, true)
    five, rng = np.zeros(5, int), np.random.default_rng(0)
    for predicted, strata in ((five, five), (five[None], five[:4])):
        with pytest.raises(NeuroCanvasError, match=r"predicted: \(n_models, n_trials\)"):
            chance_p(predicted, five, strata, five, count=19, rng=rng)
    with pytest.raises(NeuroCanvasError, match="by_model: scores of the same subjects are needed; got a 2, b 3"):
        mark_best({"a": np.ones(2), "b": np.zeros(3)}, rng=rng, count=99)


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005, 0.5])) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.5])


def test_block_permutations_do_not_mistake_drift_for_decoding():
    """Predictions that name one wrong or right concept for a whole block are as many guesses as there are blocks."""
    true, one, rng = np.repeat(np.arange(8), 50), np.zeros(400), np.random.default_rng(0)
    predicted = np.repeat([0, 1, 3, 2, 5, 4, 7, 6], 50)[None]  # two of eight blocks right, by luck
    [by_block], [alone] = chance_p(predicted, true, one, true, count=999, rng=rng)
    [by_trial], _ = chance_p(predicted, true, one, np.arange(400), count=999, rng=rng)
    assert by_block > 0.2 and by_trial == 0.001
    assert alone == [by_block], "there is one subject"


def test_p_is_uniform_without_any_link():
    rng = np.random.default_rng(2)
    true, one = np.repeat(np.arange(6), 20), np.zeros(120)
    found, _ = chance_p(rng.integers(6, size=(200, 120)), true, one, np.arange(120), count=99, rng=rng)
    assert np.mean(found <= 0.05) < 0.1
    assert 0.4 < np.mean(found) < 0.65


@pytest.mark.parametrize("design", ["rapid", "blocks", "unequal blocks"])
def test_counting_hits_per_unit_equals_reading_every_trial(design, monkeypatch):
    """The null distribution is that of `statistics.permutations`, which deals out trial by trial."""
    rng = np.random.default_rng(4)
    sizes = {"rapid": np.ones(24, int), "blocks": np.full(24, 3), "unequal blocks": 1 + np.arange(24) % 3}[design]
    units, strata = np.repeat(np.arange(24), sizes), np.repeat(np.arange(24) // 8, sizes)
    true = np.repeat(np.arange(24) % 4, sizes)
    predicted = np.where(rng.uniform(size=(2, len(true))) < [[0.2], [0.5]], true, rng.integers(4, size=len(true)))
    monkeypatch.setattr("neurocanvas.evaluation.benchmark.AT_ONCE", 900)  # in several parts
    p, _ = chance_p(predicted, true, strata, units, count=8000, rng=np.random.default_rng(5))
    for model in range(2):
        null = null_means(predicted[model][:, None] == np.arange(4), true, permutations(strata, units, 8000, rng=rng))
        chance = expected_score(predicted[model][:, None] == np.arange(4), true, strata)
        assert chance == pytest.approx(null.mean(), abs=0.02 if design == "unequal blocks" else 0.005)
        assert p[model] == pytest.approx(np.mean(null >= np.mean(predicted[model] == true) - 1e-9), abs=0.02)


@pytest.mark.parametrize("n_tests", [1, 20, 101, 1000])
def test_draws_are_enough_for_holm(n_tests):
    assert n_tests / (1 + enough_draws(19, n_tests)) < 0.05 / 4
    assert enough_draws(10**6, n_tests) == 10**6


@pytest.mark.parametrize(("n_subjects", "n_models"), [(5, 2), (6, 2), (8, 8), (9, 8)])
def test_all_flips_of_few_subjects_are_read(n_subjects, n_models):
    """Drawn ones would fall below or above the smallest p by chance."""
    models = {"best": np.ones(n_subjects)} | {f"m{k}": np.zeros(n_subjects) for k in range(n_models - 1)}
    found = mark_best(models, rng=np.random.default_rng(0), count=2000)
    least = smallest_best_p(n_subjects)
    assert [p for p in found.values() if p is not None] == pytest.approx([least] * (n_models - 1))
    assert (least < 0.05) == (n_subjects > 5)


def test_sign_flips_by_hand():
    found = mark_best({"a": np.array([3.0, 3.0, 0.0]), "b": np.ones(3)}, rng=np.random.default_rng(0), count=99)
    assert found == {"a": None, "b": 0.5}  # differences 2, 2, -1: two of eight flips reach their sum, 3; two-sided


def test_few_draws_that_are_asked_for_do_not_hide_differences():
    models = {f"m{k}": np.full(16, 0.3) for k in range(7)} | {"best": np.full(16, 0.5)}
    found = mark_best(models, rng=np.random.default_rng(0), count=19)
    assert all(p < 0.05 for model, p in found.items() if model != "best")


def test_models_are_compared_with_the_best_over_subjects():
    rng = np.random.default_rng(3)
    base = rng.normal(0.4, 0.1, 16)
    models = {"best": base + 0.1, "close": base + 0.095 + rng.normal(0, 0.05, 16), "worse": base}
    found = mark_best(models, rng=rng, count=2000)
    best, other = sorted(("best", "close"), key=lambda name: -models[name].mean())
    assert found[best] is None and found["worse"] < 0.01 and found[other] > 0.05
    assert set(mark_best({name: values[:1] for name, values in models.items()}, rng=rng, count=99).values()) == {None}


@pytest.mark.parametrize(
    ("model", "granularity", "protocol", "n_concepts", "published"),
    [
        ("rgnn", "all", "released", 80, ("accuracy", 0.405)),
        ("svm", "fine", "pretrain-finetune", 8, ("upper_half", 0.606)),
        ("svm", "all", "leave-session-out", 80, None), ("dt", "all", "released", 80, None),
        ("svm", "all", "within-block-gap", 80, None), ("svm", "all", "released", 79, None),
    ],
)  # fmt: skip
def test_published_numbers_stand_only_beside_their_own_task(model, granularity, protocol, n_concepts, published):
    assert released_score(model, granularity, protocol, n_concepts) == published
