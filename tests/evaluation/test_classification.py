"""Scores of classifiers, tests against chance and the best model, and the corrections for many tests."""

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.classification import chance_p, holm, mark_best, released_score, trial_scores


def test_scores_of_trials_by_hand():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0], [0.0, 0.2, 0.9]])
    found = trial_scores(scores, np.array([1, 1, 0]))
    assert found["accuracy"].tolist() == [1.0, 0.0, 0.0]
    assert found["two_way"].tolist() == [1.0, 0.75, 0.0]
    assert found["upper_half"].tolist() == [1.0, 1.0, 0.0]


def test_random_scores_are_at_chance():
    rng = np.random.default_rng(0)
    found = trial_scores(rng.normal(size=(4000, 8)), rng.integers(8, size=4000))
    assert found["accuracy"].mean() == pytest.approx(1 / 8, abs=0.02)
    assert found["two_way"].mean() == pytest.approx(0.5, abs=0.02)
    assert found["upper_half"].mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("scores", "true"),
    [(np.ones((3, 1)), np.zeros(3, int)), (np.ones((3, 2)), np.zeros(2, int)), (np.ones(3), np.ones(3))],
)
def test_scores_that_do_not_fit_are_refused(scores, true):
    with pytest.raises(NeuroCanvasError, match="scores"):
        trial_scores(scores, true)


def test_holm_equals_its_definition_and_never_lowers():
    rng = np.random.default_rng(1)
    for _ in range(20):
        p = rng.uniform(size=7) ** 3
        found = holm(p)
        order = np.argsort(p)
        running = 0.0
        for rank, place in enumerate(order):
            running = max(running, min(1.0, (7 - rank) * p[place]))
            assert found[place] == pytest.approx(running)
        assert np.all(found >= p - 1e-9)


def test_block_permutations_do_not_mistake_drift_for_decoding():
    """Predictions that name one wrong or right concept for a whole block are as many guesses as there are blocks."""
    blocks = np.repeat(np.arange(8), 50)
    true = blocks.copy()
    predicted = np.repeat([0, 1, 3, 2, 5, 4, 7, 6], 50)  # two of eight blocks right, by luck
    by_block, chance = chance_p(
        predicted, true, np.zeros(400), blocks, count=999, rng=np.random.default_rng(0)
    )
    by_trial, _ = chance_p(predicted, true, np.zeros(400), np.arange(400), count=999, rng=np.random.default_rng(0))
    assert by_block > 0.2 and by_trial == 0.001
    assert chance == pytest.approx(1 / 8, abs=0.02)


def test_p_is_uniform_without_any_link():
    rng = np.random.default_rng(2)
    true, one = np.repeat(np.arange(6), 20), np.zeros(120)
    found = [
        chance_p(rng.integers(6, size=120), true, one, np.arange(120), count=99, rng=rng)[0] for _ in range(200)
    ]
    assert np.mean(np.array(found) <= 0.05) < 0.1
    assert 0.4 < np.mean(found) < 0.65


def test_models_are_compared_with_the_best_over_subjects():
    rng = np.random.default_rng(3)
    base = rng.normal(0.4, 0.1, 16)
    models = {"best": base + 0.1, "close": base + 0.1 + rng.normal(0, 0.05, 16) - 0.005, "worse": base}
    found = mark_best(models, rng=rng, count=2000)
    best = max(models, key=lambda name: models[name].mean())
    assert found[best] is None
    assert found["worse"] < 0.01
    other = "close" if best == "best" else "best"
    assert found[other] > 0.05
    assert set(mark_best({name: values[:1] for name, values in models.items()}, rng=rng, count=99).values()) == {None}


def test_published_numbers_stand_only_beside_their_own_task():
    assert released_score("rgnn", "all", "released", 80) == ("accuracy", 0.405)
    assert released_score("svm", "fine", "pretrain-finetune", 8) == ("upper_half", 0.606)
    assert released_score("svm", "all", "leave-session-out", 80) is None
    assert released_score("dt", "all", "released", 80) is None
    assert released_score("svm", "all", "within-block-gap", 80) is None
    assert released_score("svm", "all", "released", 79) is None
