"""Permutation tests keep their false alarms, blocks move whole, and intervals cover."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest, kstest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.identification import two_way_table
from neurocanvas.evaluation.statistics import (
    OTHERS,
    draw_cells,
    expected_score,
    mean_interval,
    null_means,
    paired_permutation_p,
    permutation_p,
    permutations,
    smallest_p,
    smallest_significant_count,
)

SEEDS = 200
MOST_ALARMS = int(binom.ppf(0.995, SEEDS, 0.05))  # with more than this at .05 a test does not keep its level


def p_of(sim: np.ndarray, true: np.ndarray, units: np.ndarray, rng: np.random.Generator) -> float:
    """p-value of two-way identification for one subject."""
    table = two_way_table(sim)
    permuted = permutations(np.zeros(len(true)), units, 99, rng=rng)
    return permutation_p(table[np.arange(len(true)), true].mean(), null_means(table, true, permuted))


def test_random_similarity_gives_chance_and_uniform_p() -> None:
    values, ps = [], []
    for rng in map(np.random.default_rng, range(SEEDS)):
        sim, true = rng.normal(size=(20, 10)), rng.integers(0, 10, size=20)
        values.append(two_way_table(sim)[np.arange(20), true].mean())
        ps.append(p_of(sim, true, np.arange(20), rng))
    # one trial's score has a standard deviation of .32, so the mean of 4,000 has one of .005
    assert abs(np.mean(values) - 0.5) < 0.02
    alarms = (np.array(ps) <= 0.05).sum()
    assert binom.ppf(0.005, SEEDS, 0.05) <= alarms <= MOST_ALARMS
    assert kstest(ps, "uniform").pvalue > 0.001


def test_a_real_effect_is_found() -> None:
    true, found = np.arange(40), 0
    for rng in map(np.random.default_rng, range(20)):
        found += p_of(rng.normal(size=(40, 40)) + np.eye(40), true, true, rng) <= 0.05
    assert found >= 18


def test_blocks_must_move_whole_where_trials_within_them_are_alike() -> None:
    alarms = {"trials": 0, "blocks": 0}
    for rng in map(np.random.default_rng, range(SEEDS)):
        block, true = np.repeat(np.arange(8), 5), np.arange(40)
        # what is generated drifts from block to block, and the images of a block are of one concept:
        # nothing links the two, but a chance match counts five times
        drift, gallery = rng.normal(size=(2, 8, 12))[:, block] + 0.3 * rng.normal(size=(2, 40, 12))
        sim = drift @ gallery.T
        alarms["trials"] += p_of(sim, true, true, rng) <= 0.05
        alarms["blocks"] += p_of(sim, true, block, rng) <= 0.05
    assert alarms["trials"] > 2 * MOST_ALARMS and alarms["blocks"] <= MOST_ALARMS


def test_labels_stay_within_strata_and_blocks() -> None:
    strata = np.repeat([0, 1], 6)
    drawn = permutations(strata, np.repeat(np.arange(6), 2), 50, rng=np.random.default_rng(0))
    assert drawn.shape == (50, 12) and (strata[drawn] == strata).all()
    pairs = drawn.reshape(50, 6, 2)
    assert (pairs[..., 0] % 2 == 0).all() and (pairs[..., 1] == pairs[..., 0] + 1).all()
    assert all(sorted(row) == list(range(12)) for row in drawn)
    assert len({tuple(row) for row in drawn}) > 20


def test_every_order_of_the_units_comes_up_equally_often() -> None:
    drawn = permutations(np.zeros(3), np.arange(3), 6000, rng=np.random.default_rng(1))
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 6 and min(counts) > 850 and max(counts) < 1150


def test_a_longer_block_takes_the_labels_of_a_shorter_one_from_the_start_again() -> None:
    drawn = permutations(np.zeros(5), np.array([0, 0, 0, 1, 1]), 40, rng=np.random.default_rng(2))
    assert {tuple(row) for row in drawn} == {(0, 1, 2, 3, 4), (3, 4, 3, 0, 1)}


@pytest.mark.parametrize("lengths", [[1] * 50 + [1] * 13, [3, 1, 2] * 10 + [2] * 3], ids=["trials", "blocks"])
def test_cells_hold_every_pair_that_their_permutations_read(lengths) -> None:
    units, rng = np.repeat(np.arange(len(lengths)), lengths), np.random.default_rng(4)
    strata = (units >= 30).astype(int)
    cells, partners, columns = draw_cells(strata, units, rng=rng)
    trials = np.arange(len(units))
    assert partners.shape[1] <= OTHERS + 1 and (partners[trials, columns] == trials).all()
    for cell in np.unique(cells):
        members = np.unique(units[cells == cell])
        assert len(np.unique(strata[cells == cell])) == 1 and len(members) <= OTHERS + 1
    full, true = rng.normal(size=(len(units), 40)), rng.integers(0, 40, size=len(units))
    drawn = permutations(np.zeros(len(units)), trials, 30, rng=rng)
    expected = [np.mean([full[i, true[row[i]]] for i in trials]) for row in drawn]
    np.testing.assert_allclose(null_means(full, true, drawn), expected, atol=1e-12)
    table = np.where(partners < 0, np.nan, full[trials[:, None], true[partners]])
    drawn = permutations(cells, units, 30, rng=rng)
    np.testing.assert_array_equal(null_means(table, columns, drawn), null_means(full, true, drawn))
    with pytest.raises(NeuroCanvasError, match="reads NaN"):
        null_means(np.full_like(table, np.nan), columns, drawn)


def test_p_within_cells_keeps_its_level_and_finds_what_all_pairs_find() -> None:
    p, true = np.empty((SEEDS, 3)), np.arange(70)
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(70, 1)) + rng.normal(size=(1, 70)) + rng.normal(size=(70, 70))
        cells = draw_cells(np.zeros(70), true, rng=rng)[0]
        within, among = (permutations(of, true, 99, rng=rng) for of in (cells, np.zeros(70)))
        related = noise + 0.45 * np.eye(70)
        pairs = [(noise, within), (related, within), (related, among)]
        p[seed] = [permutation_p(table[true, true].mean(), null_means(table, true, null)) for table, null in pairs]
    alarms, found, among_all = (p <= 0.05).sum(axis=0)
    assert alarms <= MOST_ALARMS and alarms >= SEEDS / 100, "a p-value that never falls tests nothing"
    assert among_all > 0.8 * SEEDS and found > 0.9 * among_all


def test_p_counts_the_observed_order_and_all_ties() -> None:
    null = np.array([0.1, 0.2, 0.3, 0.4])
    assert permutation_p(0.3, null) == 3 / 5 and permutation_p(0.5, null) == 1 / 5
    assert permutation_p(0.3 + 1e-13, null) == 3 / 5, "the last digit of a sum is no evidence"
    assert permutation_p(0.0, null, two_sided=True) == 2 / 5 and permutation_p(0.25, null, two_sided=True) == 1.0
    sim = np.tile(np.random.default_rng(5).normal(size=(1, 7)), (30, 1))
    true = np.random.default_rng(6).integers(0, 7, size=30)
    assert p_of(sim, true, np.arange(30), np.random.default_rng(7)) == 1.0, "identical images say nothing"


@pytest.mark.parametrize(
    ("strata", "units", "labels", "least"),
    [
        (np.zeros(12), np.repeat(np.arange(4), 3), np.arange(12), 1 / 24),
        (np.zeros(50), np.arange(50), np.arange(50), 1 / 1000),
        (np.repeat([0, 1], 2), np.arange(4), np.arange(4), 1 / 4),
        # two concepts in 2, 3 and 4 blocks each: labelings, not orders of blocks
        *((np.zeros(4 * k), np.repeat(np.arange(2 * k), 2), np.repeat(np.arange(2 * k) % 2, 2), least)
          for k, least in ((2, 1 / 6), (3, 1 / 20), (4, 1 / 70))),
        (np.zeros(9), np.arange(9), np.zeros(9), 1.0),
    ],
)  # fmt: skip
def test_the_smallest_p_follows_from_the_labelings_there_are(strata, units, labels, least) -> None:
    assert smallest_p(strata, units, labels, 999) == pytest.approx(least)


def test_chance_follows_the_frequencies_of_the_test_set() -> None:
    true = np.array([0] * 8 + [1] * 2)
    constant = np.zeros(10, int)[:, None] == np.arange(2)
    assert expected_score(constant, true, np.zeros(10)) == pytest.approx(0.8), "the majority is no skill"
    assert expected_score(np.eye(5), np.arange(5), np.zeros(5)) == pytest.approx(1 / 5)
    assert expected_score(np.eye(5), np.arange(5), np.array([0, 0, 0, 1, 1])) == pytest.approx((3 / 3 + 2 / 2) / 5)


@pytest.mark.parametrize("n_units", [3, 5, 8, 16, 29, 40])
def test_few_units_have_intervals_that_cover(n_units: int) -> None:
    covered = 0
    for rng in map(np.random.default_rng, range(400)):
        low, high = mean_interval(rng.normal(size=n_units), np.arange(n_units), rng=rng, resamples=300) or (1, 0)
        covered += low <= 0 <= high
    assert covered / 400 >= 0.92


def test_intervals_of_shares_never_have_zero_width_and_stay_within_0_and_1() -> None:
    rng = np.random.default_rng(0)
    exact = {n: mean_interval(np.ones(n), np.arange(n), rng=rng, share=True) for n in (12, 144)}
    assert exact == {12: (pytest.approx(0.7354, abs=1e-4), 1.0), 144: (pytest.approx(0.9747, abs=1e-4), 1.0)}
    assert mean_interval(np.zeros(12), np.arange(12), rng=rng, share=True) == (0.0, pytest.approx(1 - 0.7354, abs=1e-4))
    low, high = mean_interval(np.full(20, 0.5), np.arange(20), rng=rng, share=True)
    assert low < 0.5 < high
    assert mean_interval(np.full(20, 0.5), np.arange(20), rng=rng) is None, "a constant difference has no interval"
    hits = np.repeat([1.0, 0.0], [9, 3])
    expected = binomtest(9, 12).proportion_ci(method="exact")
    assert mean_interval(hits, np.arange(12), rng=rng, share=True) == pytest.approx(
        (expected.low, expected.high), abs=0.02
    )  # one trial is spent on the standard error
    low, high = mean_interval(np.tile([0.9, 1.0], 4), np.repeat(np.arange(4), 2), rng=rng, share=True)
    assert high <= 1


@pytest.mark.parametrize("size", [1, 4])
def test_intervals_cover_the_truth_when_whole_units_are_resampled(size: int) -> None:
    covered, missed = 0, 0
    unit = np.repeat(np.arange(30), size)
    for rng in map(np.random.default_rng, range(SEEDS)):
        values = 0.5 + 0.1 * rng.normal(size=30)[unit] + 0.02 * rng.normal(size=len(unit))
        low, high = mean_interval(values, unit, rng=rng, resamples=300) or (1, 0)
        covered += low <= 0.5 <= high
        low, high = mean_interval(values, np.arange(len(unit)), rng=rng, resamples=300) or (1, 0)
        missed += not low <= 0.5 <= high
    # the percentile interval of 30 units is a little narrow: .93 or so instead of .95
    assert 0.88 <= covered / SEEDS <= 0.99
    assert size == 1 or missed / SEEDS > 0.2


def test_intervals_keep_subjects_apart() -> None:
    values = np.repeat([0.0, 1.0], 10)
    subject = np.repeat([0, 1], 10)
    rng = np.random.default_rng(8)
    values[[0, 19]] = 0.5
    low, high = mean_interval(values, np.arange(20), strata=subject, rng=rng)
    assert 0.4 < low < high < 0.6
    low, high = mean_interval(values, np.arange(20), rng=rng) or (0.5, 0.5)
    assert low < 0.4 and high > 0.6
    assert mean_interval(values, np.zeros(20), rng=rng) is None


def test_the_paired_test_keeps_its_level_and_finds_a_difference() -> None:
    alarms = found = 0
    for rng in map(np.random.default_rng, range(SEEDS)):
        unit = np.repeat(np.arange(12), 3)
        a, b = rng.normal(size=(2, 12))[:, unit] + 0.1 * rng.normal(size=(2, 36))
        alarms += paired_permutation_p(a, b, unit, rng=rng, count=199) <= 0.05
        found += paired_permutation_p(a + 2.0, b, unit, rng=rng, count=199) <= 0.05
    assert alarms <= MOST_ALARMS
    assert found >= 0.9 * SEEDS


def test_the_chance_threshold_is_the_first_count_that_scipys_exact_test_rejects() -> None:
    for n_trials, chance, level in ((200, 1 / 200, 0.05), (200, 5 / 200, 0.01), (40, 0.5, 0.05), (12, 0.1, 0.001)):
        found = smallest_significant_count(n_trials, chance, level)
        tested = [binomtest(k, n_trials, chance, alternative="greater").pvalue for k in (found - 1, found)]
        assert tested[0] > level >= tested[1]
    assert smallest_significant_count(4, 0.5) is None, "1/16 is more than .05"
    for bad in ((0, 0.5, 0.05), (5, 0.0, 0.05), (5, 1.0, 0.05), (5, 0.5, 0.0)):
        with pytest.raises(NeuroCanvasError, match="chance threshold"):
            smallest_significant_count(*bad)


def test_two_way_scores_are_no_independent_trials_so_the_binomial_threshold_fires_too_often() -> None:
    alarms = exact = 0
    threshold = smallest_significant_count(20 * 19, 0.5)
    for rng in map(np.random.default_rng, range(SEEDS)):
        sim, true = rng.normal(size=(20, 1)) + rng.normal(size=(20, 20)), np.arange(20)
        score = two_way_table(sim)[true, true].mean()
        alarms += score * 20 * 19 >= threshold
        exact += p_of(sim, true, true, rng) <= 0.05
    assert alarms > 2 * MOST_ALARMS and exact <= MOST_ALARMS


def test_intervals_by_stimulus_are_wider_where_showings_of_a_picture_are_alike() -> None:
    covered = {"stimulus": 0, "trial": 0}
    for rng in map(np.random.default_rng, range(SEEDS)):
        # 4 subjects saw the same 25 images, and some images are easier than others for all
        stimulus = np.tile(np.arange(25), 4)
        values = 0.5 + 0.1 * rng.normal(size=25)[stimulus] + 0.05 * rng.normal(size=100)
        for unit, units in (("stimulus", stimulus), ("trial", np.arange(100))):
            low, high = mean_interval(values, units, rng=rng, resamples=300) or (1, 0)
            covered[unit] += low <= 0.5 <= high
    assert 0.88 <= covered["stimulus"] / SEEDS <= 0.99
    assert covered["trial"] / SEEDS < 0.8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: permutations(np.arange(2), np.zeros(2), 5, rng=rng), "one stratum"),
        (lambda rng: permutations(np.zeros(2), np.arange(3), 5, rng=rng), "each of 3 trials"),
        (lambda rng: mean_interval(np.array([1.0, np.nan]), np.arange(2), rng=rng), "NaN"),
        (lambda rng: mean_interval(np.ones(2), np.arange(3), rng=rng), "one unit for each"),
        (lambda rng: paired_permutation_p(np.ones(2), np.ones(3), np.arange(2), rng=rng), "got 2 and 3"),
        (lambda rng: permutation_p(float("nan"), np.ones(3)), "finite score"),
        (lambda rng: permutation_p(0.5, np.array([])), "null"),
        (lambda rng: null_means(np.ones((2, 2)), np.arange(2), np.zeros((5, 3), int)), "permutations of as many"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises(NeuroCanvasError, match=message):
        call(np.random.default_rng(9))
