"""Controls of time and of confusions: what they compare, on small examples and on simulated recordings."""

from dataclasses import replace

import numpy as np
import pytest
from control_simulations import CLEAN, PLANTED, block_columns, clean_rapid, measure, random_walk
from numpy.random import default_rng as rng_of
from scipy.stats import binom

from neurocanvas.audit.controls.base import ControlResult
from neurocanvas.audit.controls.confusion import likeness, partial_mantel
from neurocanvas.audit.controls.inputs import COLUMNS, ControlInputs, coded
from neurocanvas.audit.controls.registry import compute_control
from neurocanvas.audit.controls.time import cyclic_shifts, distances_to_training, without_drift

SEEDS = 200
MOST_ALARMS = int(binom.ppf(0.995, SEEDS, 0.05))


def whole_blocks(inputs: ControlInputs) -> ControlInputs:
    """The same trials, the k-th blocks of all concepts tested together."""
    third = np.arange(len(inputs.order)) * 3 // len(inputs.order)
    return replace(inputs, splits=[(np.flatnonzero(third != k), np.flatnonzero(third == k)) for k in range(3)])


def test_concepts_with_one_block_only_are_left_out_and_named() -> None:
    inputs = PLANTED["blocks-come-back"](rng=rng_of(0))
    rows = np.flatnonzero((inputs.concept != 0) | (inputs.order <= np.flatnonzero(inputs.concept == 0)[9]))
    columns = {name: getattr(inputs, name)[rows] for name in COLUMNS}
    splits = [(np.arange(0, len(rows), 2), np.arange(1, len(rows), 2))]
    fewer = ControlInputs(features=inputs.features[rows], **columns, splits=splits, permutations=99)
    assert measure("leave-block-out", fewer).note.numbers == {"n": 1}


def test_leaving_blocks_out_changes_where_training_trials_come_from_but_not_how_many() -> None:
    counts: dict[bool, list[list[int]]] = {True: [], False: []}
    inputs = PLANTED["blocks-come-back"](rng=rng_of(0))
    features = np.column_stack([inputs.flat, inputs.blocks])

    def decode(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        # are the tested blocks among those that train?
        counts[bool(np.isin(new[:, -1], x[:, -1]).any())].append(np.bincount(y).tolist())
        return y[: len(new)]

    measure("leave-block-out", replace(inputs, features=features, decode=decode))
    assert counts[False] == [[20] * 8] * 3 and counts[True] == [[20] * 8] * 6


def test_splits_that_keep_blocks_whole_leave_nothing_to_ask() -> None:
    inputs = whole_blocks(PLANTED["blocks-come-back"](rng=rng_of(0)))
    for control in ("leave-block-out", "block-surrogate", "drift-removal"):
        assert measure(control, inputs).reason.code == "whole-blocks"


def test_splits_that_keep_runs_whole_leave_nothing_to_ask_in_mixed_order() -> None:
    """A run that trains nowhere cannot be what the accuracy is of, however it is held out: run, session or subject."""
    inputs = clean_rapid(rng=rng_of(0), drift_size=2.0)
    runs = np.arange(240) // 60
    folds = [(np.flatnonzero(runs != k), np.flatnonzero(runs == k)) for k in range(4)]
    whole = replace(inputs, run=runs, splits=folds)
    assert whole.keeps_runs_whole and measure("leave-block-out", whole).reason.code == "whole-runs"
    sessions = replace(inputs, run=np.zeros(240, int), session=runs, splits=folds)
    assert sessions.keeps_runs_whole, "run 0 of another session is another run"
    shared = replace(whole, splits=inputs.splits)
    found = measure("leave-block-out", shared)
    assert not shared.keeps_runs_whole and "accuracy_before" in found.details
    assert not whole_blocks(PLANTED["blocks-come-back"](rng=rng_of(0))).keeps_runs_whole


def test_block_drift_gives_nothing_when_whole_blocks_are_tested() -> None:
    fired = 0
    for seed in range(40):
        inputs = whole_blocks(PLANTED["blocks-come-back"](rng=rng_of(seed)))
        found = compute_control("drift-removal", inputs, rng=rng_of(seed))
        fired += isinstance(found, ControlResult) and found.fired
    assert fired <= 4


def test_a_response_in_blocks_without_drift_fires_no_control_of_the_block() -> None:
    fired = dict.fromkeys(("leave-block-out", "block-surrogate", "baseline-window", "distance-to-training"), 0)
    for seed in range(20):
        inputs = CLEAN["steady-blocks"](rng=rng_of(seed))
        for name in fired:
            found = compute_control(name, inputs, rng=rng_of(seed))
            fired[name] += isinstance(found, ControlResult) and found.fired
    assert max(fired.values()) <= binom.ppf(0.999, 20, 0.05), fired


def test_half_of_a_concepts_own_response_is_left_to_shifted_blocks() -> None:
    columns = block_columns(8, 1, 30, rng=rng_of(0))
    features = 5.0 * np.eye(8)[columns["concept"]] + rng_of(1).normal(size=(240, 8))
    fold = np.arange(240) % 5
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(5)]
    inputs = ControlInputs(features=features, **columns, splits=splits, permutations=199)
    found = measure("block-surrogate", inputs, 2)
    assert not found.fired
    assert found.details["surrogate_accuracy"] == pytest.approx(0.5, abs=0.08)


def test_distances_count_trials_to_the_nearest_training_trial_of_the_concept_in_the_session() -> None:
    inputs = ControlInputs(
        features=np.zeros((8, 1)), concept=np.array(list("aabbaabb")), stimulus=np.arange(8), block=np.arange(8),
        run=np.zeros(8), session=np.array([0] * 6 + [1] * 2), order=np.array([0, 1, 2, 3, 4, 5, 0, 1]),
        splits=[(np.array([0, 2, 5, 6]), np.array([1, 3, 4, 7]))],
    )  # fmt: skip
    assert inputs.tested.tolist() == [1, 3, 4, 7]
    np.testing.assert_array_equal(distances_to_training(inputs), [[1, 1], [2, 1], [1, 2], [np.nan, 1]])


def test_what_changes_slowly_is_removed_and_what_changes_fast_stays() -> None:
    inputs = clean_rapid(rng=rng_of(0))
    place = np.arange(240)
    slow = np.stack([place * 0.1, np.cos(2 * np.pi * place / 60), place // 60 * 5.0], axis=1)
    fast = np.tile([1.0, -1.0], 120)[:, None]
    assert np.abs(without_drift(replace(inputs, features=slow))).max() < 0.25
    assert np.std(without_drift(replace(inputs, features=fast))) > 0.9


def test_drift_removal_gains_where_drift_is_only_noise() -> None:
    found = measure("drift-removal", clean_rapid(rng=rng_of(0), drift_size=3.0))
    assert found.effect < 0 and not found.fired


def test_baseline_decoding_with_another_decoder_is_tested_by_exchanging_test_labels() -> None:
    inputs = PLANTED["drift-in-blocks"](rng=rng_of(0))
    calls = []

    def decode(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        calls.append(len(new))
        return y[((new[:, None] - x) ** 2).sum(axis=2).argmin(axis=1)]

    found = measure("baseline-window", replace(inputs, decode=decode))
    assert found.fired and len(calls) == 10


def test_cyclic_shifts_stay_in_their_stretch_and_keep_its_order() -> None:
    stretch = np.array([0, 0, 0, 0, 1, 1, 1])
    drawn = np.concatenate([*cyclic_shifts(stretch, 200, rng=rng_of(0))])
    assert (stretch[drawn] == stretch).all()
    steps = np.diff(drawn[:, :4], axis=1) % 4
    assert (steps == 1).all() and len({tuple(row) for row in drawn.tolist()}) == 12


def test_partial_mantel_is_the_formula_of_partial_correlation() -> None:
    x, y, z = (table + table.T for table in rng_of(0).normal(size=(3, 10, 10)))
    above = np.triu_indices(10, 1)
    xy, xz, yz = (np.corrcoef(a[above], b[above])[0, 1] for a, b in ((x, y), (x, z), (y, z)))
    r, p = partial_mantel(x, y, z, np.array([rng_of(seed).permutation(10) for seed in range(99)]))
    assert r == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    assert 0.01 <= p <= 1


def test_rows_and_columns_are_reordered_together() -> None:
    """Distances on a circle are the same after every cyclic shift, so no shift is below the observed order."""
    place = np.arange(12)
    around = np.minimum((place[:, None] - place) % 12, (place - place[:, None]) % 12).astype(float)
    (orders,) = cyclic_shifts(np.zeros(12), 99, rng=rng_of(0))
    x, z = rng_of(1).normal(size=(2, 12, 12))
    assert partial_mantel(x + around, around, z, orders)[1] == 1.0


def test_free_permutation_is_anticonservative_under_autocorrelation() -> None:
    """Confusions that follow drift, and meanings that follow the order of concepts for reasons of their own."""
    n, alarms = 40, {"free": 0, "cyclic": 0}
    place = np.arange(n, dtype=float)
    near = -np.log2(np.abs(place[:, None] - place) + np.eye(n))
    for seed in range(SEEDS):
        rng = rng_of(seed)
        drift, meaning = (random_walk(n, 3, 6.0, rng=rng) for _ in range(2))
        confusion, alike = (-((a[:, None] - a) ** 2).sum(axis=2) for a in (drift, meaning))
        shifts = np.concatenate([*cyclic_shifts(np.zeros(n), 199, rng=rng)])
        for kind, drawn in (("free", np.array([rng.permutation(n) for _ in range(199)])), ("cyclic", shifts)):
            alarms[kind] += partial_mantel(confusion, alike, near, drawn)[1] <= 0.05
    assert alarms["cyclic"] <= MOST_ALARMS, alarms
    assert alarms["free"] > 1.5 * MOST_ALARMS, alarms


def test_errors_among_neighbours_in_time_and_among_alike_concepts_are_told_apart() -> None:
    inputs = PLANTED["ordered-blocks"](rng=rng_of(0))
    found = measure("confusions-in-time", inputs)
    assert found.fired and found.details["p_semantic"] > 0.05
    assert found.note.numbers["p"] > 0.05

    embeddings = rng_of(2).normal(size=(40, 3))[inputs.concept]
    like = embeddings @ embeddings.T + 0.5 * rng_of(3).normal(size=(400, 400))
    like[inputs.labels[:, None] == inputs.labels] = -np.inf
    features = np.eye(40)[inputs.labels[like.argmax(axis=1)]]  # the decoder below names what is most alike
    decode = lambda x, y, new: new.argmax(axis=1)  # noqa: E731
    found = measure("confusions-in-time", replace(inputs, features=features, embeddings=embeddings, decode=decode), 4)
    assert not found.fired and found.details["p_semantic"] <= 0.05


def test_what_cannot_be_asked_is_refused_with_a_reason() -> None:
    one_block, inputs = PLANTED["drift-in-blocks"](rng=rng_of(0)), clean_rapid(rng=rng_of(0))
    assert measure("leave-block-out", one_block).reason.code == "one-block-only"
    assert measure("confusions-in-time", one_block).reason.numbers == {"blocks": 8, "ways": 8.0}
    assert measure("confusions-in-time", inputs).reason.code == "no-blocks"
    assert measure("distance-to-training", inputs).reason.code == "no-blocks"
    ordered = PLANTED["ordered-blocks"](rng=rng_of(0))
    known = replace(ordered, features=np.eye(40)[ordered.labels], decode=lambda x, y, new: new.argmax(axis=1))
    assert measure("confusions-in-time", known).reason.code == "no-errors"
    halves = [(np.arange(0, 40, 2), np.arange(1, 40, 2))]
    columns = dict.fromkeys(("concept", "block"), np.arange(40) // 20)
    equal = dict.fromkeys(COLUMNS, np.arange(40)) | dict.fromkeys(("run", "session"), np.zeros(40)) | columns
    inputs = ControlInputs(features=rng_of(0).normal(size=(40, 2)), **equal, splits=halves)
    assert measure("distance-to-training", inputs).reason.code == "equal-distances"


def test_likeness_is_the_cosine_around_the_mean() -> None:
    inputs = replace(clean_rapid(rng=rng_of(0)), embeddings=None)
    codes = rng_of(1).normal(size=(8, 4))
    got = likeness(replace(inputs, embeddings=codes[inputs.labels]))
    centred = codes - codes.mean(axis=0)
    expected = centred[2] @ centred[5] / np.linalg.norm(centred[2]) / np.linalg.norm(centred[5])
    assert got[2, 5] == pytest.approx(expected) and coded(inputs.concept).tolist() == inputs.labels.tolist()
