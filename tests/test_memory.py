"""What memory may cost: the arrays that are asked for and a few pieces of work, however many trials there are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from neurocanvas.audit.controls import confusion as confusions
from neurocanvas.audit.controls import inputs as control_inputs
from neurocanvas.audit.controls import time as time_controls
from neurocanvas.audit.controls.inputs import ControlInputs
from neurocanvas.encoders import target_pca
from neurocanvas.evaluation import identification, statistics
from neurocanvas.training import losses

MB = 1_000_000
N_TRIALS = 4000


def peak_mb(function: Callable[[], object]) -> float:
    """Most memory that arrays take while a function runs for the second time, when all that it needs is loaded."""
    function()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / MB
    finally:
        tracemalloc.stop()


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces so small that a table of all trials by all trials, 128 MB, stands out."""
    for module in (identification, statistics, control_inputs, time_controls, losses):
        monkeypatch.setattr(module, "AT_ONCE", 200_000)
    monkeypatch.setattr(target_pca, "PAIRS_AT_ONCE", 200_000)


@pytest.fixture
def inputs() -> ControlInputs:
    """Many trials in mixed order, one fold."""
    rng, rows = np.random.default_rng(0), np.arange(N_TRIALS)
    splits = [(rows[rows % 2 == 0], rows[rows % 2 == 1])]
    return ControlInputs(
        rng.normal(size=(N_TRIALS, 4)), rng.integers(0, 4, N_TRIALS), rows, rows, np.zeros_like(rows),
        np.zeros_like(rows), rows, splits, permutations=199,
    )  # fmt: skip


@pytest.mark.parametrize("control", [time_controls.distance_to_training, confusions.confusions_in_time])
def test_controls_of_time_hold_no_table_of_all_pairs_of_trials(small_pieces, inputs, control) -> None:
    """2,000 x 2,000 trials would be 32 MB in each of several tables, 199 shifts of them 6 MB."""
    assert peak_mb(lambda: control(inputs, rng=np.random.default_rng(0))) < 12


def test_permutations_and_resamples_take_little_more_than_what_they_give(small_pieces) -> None:
    rng, trials, values = np.random.default_rng(0), np.arange(N_TRIALS), np.random.default_rng(1).random(N_TRIALS)
    strata = np.zeros(N_TRIALS)
    drawn = 1000 * N_TRIALS * 4 / MB
    assert peak_mb(lambda: statistics.permutations(strata, trials, 1000, rng=rng)) < drawn + 8
    assert peak_mb(lambda: statistics.mean_interval(values, trials, rng=rng, resamples=1000)) < 8
    assert peak_mb(lambda: statistics.paired_permutation_p(values, 1 - values, trials, rng=rng, count=1000)) < 8


@pytest.mark.parametrize(
    "table", [identification.two_way_table, lambda sim: identification.n_way_top_k_table(sim, 50)], ids=["2", "50"]
)
def test_tables_of_scores_take_little_more_than_themselves(small_pieces, table) -> None:
    sim = np.random.default_rng(0).random((1000, 1000))
    assert peak_mb(lambda: table(sim)) < sim.nbytes / MB + 18


def test_similarities_are_of_float64_a_few_rows_at_a_time(small_pieces) -> None:
    features = np.random.default_rng(0).random((150, 20_000), dtype=np.float32)
    assert peak_mb(lambda: identification.similarity(features, features)) < 20  # all in float64: 24 MB, some times over


def test_what_a_mapper_makes_of_many_trials_is_looked_at_a_few_trials_at_a_time(small_pieces) -> None:
    targets = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    posterior = targets, np.ones(3000, np.float32), 1.0
    assert peak_mb(lambda: target_pca.posterior_mean(targets, *posterior)) < 8
    assert peak_mb(lambda: losses.two_way_of_trials(targets, targets, np.ones(3000), np.arange(3000))) < 12
