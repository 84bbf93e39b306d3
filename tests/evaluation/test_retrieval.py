"""Retrieval against literal transcriptions of its rules, and against published numbers on real EEG."""

import itertools

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.retrieval import ASSIGNMENT_RULES, assignment_scores, retrieve


@pytest.fixture(scope="module")
def things(test_data):
    """THINGS-EEG2, subject 8: what ATM-S predicted for 200 images, and CLIP ViT-H/14 of images and names."""
    return np.load(test_data / "things_eeg2_subject8" / "things_eeg2_test200.npz")


@pytest.mark.parametrize(
    ("predictions", "gallery", "centring", "rule", "top1", "top5"),
    [
        # published: ATM's own figures for this subject
        ("eeg_atm_sub08", "img_vith14", "none", "greedy", 0.36, 0.725),
        ("eeg_atm_sub08", "text_vith14", "none", "greedy", 0.12, None),
        ("img_vith14", "text_vith14", "none", "greedy", 0.92, None),
        # measured with a script of a few lines: the rule and the centring change the score more than most models do
        ("eeg_atm_sub08", "img_vith14", "none", "csls", 0.49, 0.815),
        ("eeg_atm_sub08", "img_vith14", "none", "hungarian", 0.70, None),
        ("eeg_atm_sub08", "img_vith14", "both sides", "greedy", 0.43, 0.765),
        ("eeg_atm_sub08", "img_vith14", "both sides", "csls", 0.55, 0.835),
    ],
)
def test_things_eeg2_gives_the_published_and_the_measured_numbers(
    things, predictions, gallery, centring, rule, top1, top5
):
    sides = (things[name].astype(float) for name in (predictions, gallery))
    cosines = cosine_similarity(*(rows - rows.mean(axis=0) * (centring == "both sides") for rows in sides))
    found = retrieve(cosines, np.arange(200), np.arange(200), np.arange(200), rule=rule)
    assert found["top1"] == pytest.approx(top1, abs=1e-9) and found["top5"] == pytest.approx(top5 or found["top5"])
    assert (found["chance1"], found["chance5"], found["concept_accuracy"]) == (1 / 200, 5 / 200, found["top1"])
    assert found["median_rank"] == 3 or (rule, centring, gallery) != ("greedy", "none", "img_vith14")


def test_hungarian_is_the_best_of_all_assignments():
    rng = np.random.default_rng(1)
    predictions, gallery = rng.normal(size=(5, 3)), rng.normal(size=(6, 3))
    cosines = cosine_similarity(predictions, gallery)
    best = max(itertools.permutations(range(6), 5), key=lambda columns: cosines[range(5), columns].sum())
    table = assignment_scores(cosines, "hungarian")
    assert table.argmax(axis=1).tolist() == list(best)
    assert len(set(cosines.argmax(axis=1))) < 5, "greedy takes an image twice here"
    rest = np.ones((5, 6), bool)
    rest[range(5), best] = False
    np.testing.assert_array_equal(table[rest], cosines[rest])


def test_csls_is_its_formula():
    cosines = np.random.default_rng(2).uniform(-1, 1, size=(13, 17))
    nearest = [np.sort(cosines, axis=axis).take(range(-10, 0), axis).mean(axis, keepdims=True) for axis in (0, 1)]
    np.testing.assert_allclose(assignment_scores(cosines, "csls"), 2 * cosines - sum(nearest))


def test_csls_takes_a_hub_away():
    # the last image is near to every prediction, a little nearer than the right one
    rng = np.random.default_rng(3)
    gallery = rng.normal(size=(31, 8))
    predictions = gallery[:30] + 0.3 * rng.normal(size=(30, 8)) + 6.0
    gallery[30] = 6.0
    cosines, true = cosine_similarity(predictions, gallery + 3.0), np.arange(30)
    greedy, csls = (retrieve(cosines, true, true, np.arange(31), rule=rule)["top1"] for rule in ("greedy", "csls"))
    assert csls > greedy


@pytest.mark.parametrize("rule", ASSIGNMENT_RULES)
def test_only_transductive_rules_depend_on_other_trials(rule):
    rng = np.random.default_rng(5)
    cosines = cosine_similarity(*rng.normal(size=(2, 12, 6)))
    alone = assignment_scores(cosines[:6], rule)
    together = assignment_scores(cosines, rule)[:6]
    same_order = (np.argsort(alone, axis=1) == np.argsort(together, axis=1)).all()
    assert same_order != ASSIGNMENT_RULES[rule][0]


def test_concept_accuracy_counts_any_picture_of_the_concept_and_shares_ties():
    table = np.array([[0.9, 0.1, 0.5, 0.2, 0.0], [0.1, 0.9, 0.5, 0.2, 0.0], [0.7, 0.7, 0.7, 0.1, 0.0]])
    held, true = np.array([*"aabcd"]), np.zeros(1, int)
    for row, concept, expected in zip(table, "aba", (1, 0, 2 / 3), strict=True):
        found = retrieve(row[None], true, np.array([concept]), held, rule="greedy")
        assert found["concept_accuracy"] == pytest.approx(expected)


def test_the_median_rank_puts_ties_in_the_middle():
    sim, one = np.array([[3.0, 2.0, 2.0, 2.0, 1.0]]), np.zeros(1)
    found = [retrieve(sim, np.array([true]), one, np.zeros(5), rule="greedy")["median_rank"] for true in range(5)]
    assert found == [1.0, 3.0, 3.0, 3.0, 5.0]


GOOD, FOUR = np.random.default_rng(7).normal(size=(4, 3)), np.arange(4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retrieve(np.eye(4), FOUR, FOUR, FOUR, rule="best"), "allowed are greedy, hungarian, csls; got 'best'"),
        (lambda: retrieve(GOOD, FOUR % 3, FOUR, FOUR[:3], rule="hungarian"), "at most 3 trials are allowed; got 4"),
        (lambda: retrieve(np.eye(4), FOUR, np.arange(3), FOUR, rule="greedy"), "4 trials and 4 images"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(NeuroCanvasError, match=message):
        call()
