"""Identification against literal transcriptions of its definitions, and against published numbers."""

import itertools

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.identification import (
    n_way_top_k,
    n_way_top_k_table,
    read_true,
    similarity,
    two_way_table,
)


def tables_with_ties(seed: int, n: int = 7, m: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Similarities that take few values, so that many tie, and true columns."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, size=(n, m)) / 4.0, rng.integers(0, m, size=n)


def literal_n_way(row: np.ndarray, true: int, n: int, k: int) -> float:
    """Every set of distractors and every order of ties, counted one by one."""
    others = [column for column in range(len(row)) if column != true]
    successes = []
    for distractors in itertools.combinations(others, n - 1):
        above = sum(row[d] > row[true] for d in distractors)
        tied = sum(row[d] == row[true] for d in distractors)
        successes.append(np.mean([above + before < k for before in range(tied + 1)]))
    return float(np.mean(successes))


def test_similarity_is_numpys_correlation() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 9)), rng.normal(size=(5, 9))
    np.testing.assert_allclose(similarity(a, b), np.corrcoef(a, b)[:4, 4:], atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_two_way_counts_other_pictures_and_halves_ties(seed: int) -> None:
    sim, true = tables_with_ties(seed)
    expected = [
        np.mean([(row[t] > row[o]) + 0.5 * (row[t] == row[o]) for o in range(len(row)) if o != t])
        for row, t in zip(sim, true)
    ]
    np.testing.assert_allclose(read_true(two_way_table(sim), true), expected, atol=1e-12)


@pytest.mark.parametrize("n, k", [(2, 1), (3, 1), (4, 2), (6, 1), (6, 3), (6, 6)])
def test_n_way_is_the_mean_over_all_draws_of_distractors(n: int, k: int) -> None:
    sim, true = tables_with_ties(seed=n * 10 + k)
    expected = [literal_n_way(row, t, n, k) for row, t in zip(sim, true)]
    np.testing.assert_allclose(n_way_top_k(sim, true, n, k), expected, atol=1e-12)


@pytest.mark.parametrize("n, k", [(2, 1), (4, 1), (6, 5)])
def test_a_trial_scores_chance_on_average_over_all_pictures(n: int, k: int) -> None:
    sim, _ = tables_with_ties(seed=4)
    np.testing.assert_allclose(two_way_table(sim).mean(axis=1), 0.5, atol=1e-12)
    np.testing.assert_allclose(n_way_top_k_table(sim, n, k).mean(axis=1), k / n, atol=1e-12)


def test_a_gallery_of_thousands_stays_exact() -> None:
    sim = -np.arange(4000.0)[None]
    # the tenth best of 4,000 wins 50-way top-1 if none of the 9 better is drawn
    expected = np.prod([(3999 - 49 - i) / (3999 - i) for i in range(9)])
    assert n_way_top_k(sim, np.array([9]), 50, 1)[0] == pytest.approx(expected, rel=1e-9)


def test_concept_top_k_shares_a_tie_across_the_last_place() -> None:
    scores = np.array([[5.0, 4.0, 4.0, 4.0, 1.0, 0.0]])
    for k, expected in ((1, [1, 0, 0, 0, 0, 0]), (3, [1, 2 / 3, 2 / 3, 2 / 3, 0, 0]), (5, [1, 1, 1, 1, 1, 0])):
        assert n_way_top_k_table(scores, 6, k)[0] == pytest.approx(expected)
    assert n_way_top_k_table(scores[:, :3], 3, 3)[0, 2] == 1.0, "three guesses, three concepts"


@pytest.mark.parametrize(
    "sim, true, message",
    [
        (np.array([[0.1, np.nan]]), [0], "NaN"),
        (np.array([[0.1]]), [0], "2 images"),
        (np.zeros((0, 3)), [], "at least 1 trial"),
        (np.zeros((2, 3)), [0], "one per trial"),
        (np.zeros((2, 3)), [0.0, 1.0], "float64"),
        (np.zeros((2, 3)), [0, 3], "columns 0 to 2"),
        (np.zeros((2, 3)), [-1, 0], "columns 0 to 2"),
    ],
)
def test_bad_tables_are_refused(sim: np.ndarray, true: list[float], message: str) -> None:
    with pytest.raises(NeuroCanvasError, match=message):
        read_true(two_way_table(sim), np.array(true))


def test_bad_embeddings_and_numbers_of_guesses_are_refused() -> None:
    good = np.random.default_rng(0).normal(size=(3, 4))
    infinite = np.where(good == good[0, 0], np.inf, good)
    for one, other, message in (
        (good, good[:, :3], "same width"), (good, np.ones((3, 4)), "row 0 is constant"),
        (infinite, good, "1 values not finite"),
    ):  # fmt: skip
        with pytest.raises(NeuroCanvasError, match=message):
            similarity(one, other)
    for n, k in ((1, 1), (4, 1), (3, 0), (3, 4)):
        with pytest.raises(NeuroCanvasError, match=f"got n={n}, k={k}"):
            n_way_top_k(np.zeros((2, 3)), np.array([0, 1]), n, k)
