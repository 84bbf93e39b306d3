"""Splits: what each protocol promises, what is refused, what is marked."""

import numpy as np
import pytest

from neurocanvas.config import SplitSettings
from neurocanvas.datasets.splits import (
    BLOCK_WARNING,
    PROTOCOLS,
    REPEAT_WARNING,
    Split,
    is_blocked,
    make_splits,
    prove_disjoint,
)
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.trials import Trials


def make_trials(concept, stimulus=None, run=None, order=None, subject=None, session=None):
    """A table of trials without signal; blocks follow from the order."""
    n = len(concept)
    concept = np.asarray(concept)
    order = np.arange(n) if order is None else np.asarray(order)
    recorded = np.argsort(order)
    block = np.empty(n, dtype=np.int64)
    block[recorded] = np.cumsum(np.r_[0, concept[recorded][1:] != concept[recorded][:-1]])
    table = {
        "subject": np.zeros(n, int) if subject is None else np.asarray(subject),
        "session": np.zeros(n, int) if session is None else np.asarray(session),
        "run": np.zeros(n, int) if run is None else np.asarray(run),
        "block": block,
        "order": order,
        "stimulus": np.array([f"{c}_{i}" for i, c in enumerate(concept)] if stimulus is None else stimulus),
        "concept": concept,
        "granularity": np.full(n, "coarse"),
    }
    return Trials(table, ("O1",), 1000.0, 0.0, lambda rows: np.zeros((len(rows), 1, 1), np.float32), "none")


@pytest.fixture
def rapid():
    """Six concepts x 50 pictures, random order."""
    return make_trials(np.random.default_rng(0).permutation(np.repeat(list("abcdef"), 50)))


@pytest.fixture
def blocked():
    """The same in one block per concept; rows in another order than recorded."""
    return make_trials(np.repeat(list("abcdef"), 50))


@pytest.fixture
def gratings():
    """Eight gratings, ten times in each of three runs, in random order."""
    rng = np.random.default_rng(1)
    ids = [f"grating{number}" for number in range(8)]
    names = np.concatenate([rng.permutation(np.repeat(ids, 10)) for _ in range(3)])
    return make_trials(names, stimulus=names, run=np.repeat([1, 2, 3], 80))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_gives_parts_that_share_no_trial_and_is_repeatable(protocol, rapid, gratings):
    trials = gratings if protocol == "leave-run-out" else rapid
    settings = SplitSettings(protocol=protocol)
    first, second = make_splits(trials, settings), make_splits(trials, settings)
    assert [split.fingerprint() for split in first] == [split.fingerprint() for split in second]
    for split in first:
        rows = np.concatenate(list(split.parts().values()))
        assert len(rows) == len(np.unique(rows)) == len(trials)


def test_by_stimulus_holds_out_pictures_of_every_concept(rapid):
    (split,) = make_splits(rapid, SplitSettings())
    concept = rapid.column("concept")
    assert np.unique(concept[split.test], return_counts=True)[1].tolist() == [5] * 6
    assert np.unique(concept[split.val], return_counts=True)[1].tolist() == [7] * 6
    assert split.warnings == ()


def test_by_stimulus_keeps_all_trials_of_a_picture_on_one_side():
    rng = np.random.default_rng(2)
    numbers = rng.permutation(np.repeat(np.arange(40), 3))
    trials = make_trials([f"c{n % 4}" for n in numbers], stimulus=[f"s{n}" for n in numbers])
    (split,) = make_splits(trials, SplitSettings(test_fraction=0.2))
    for parts in (("train", "test"), ("val", "test"), ("train", "val")):
        prove_disjoint(split, trials, "stimulus", parts)
    assert len(split.test) == 4 * 2 * 3


def test_another_seed_holds_out_other_pictures(rapid):
    (one,), (other,) = (make_splits(rapid, SplitSettings(seed=seed)) for seed in (0, 1))
    assert set(one.test) != set(other.test)


def test_leave_run_out_tests_each_run_once_and_validates_at_the_end_of_the_others(gratings):
    splits = make_splits(gratings, SplitSettings(protocol="leave-run-out", val_fraction=0.25))
    assert [len(split.test) for split in splits] == [80, 80, 80]
    assert np.array_equal(np.sort(np.concatenate([split.test for split in splits])), np.arange(240))
    assert splits[0].val.tolist() == [*range(140, 160), *range(220, 240)]
    assert all(split.warnings == (REPEAT_WARNING,) for split in splits)
    for split in splits:
        prove_disjoint(split, gratings, "run")


def test_released_takes_the_first_30_of_50_in_recorded_order(blocked):
    backwards = make_trials(blocked.column("concept")[::-1], order=np.arange(300)[::-1])
    settings = SplitSettings(protocol="released", accept_block_confound=True)
    (split,) = make_splits(backwards, settings)
    position = backwards.column("order") % 50
    assert position[split.test].min() == 30
    assert np.array_equal(np.sort(position[np.r_[split.train, split.val]]), np.repeat(np.arange(30), 6))
    assert split.warnings == (BLOCK_WARNING,)


def test_block_designs_are_told_from_random_order(rapid, blocked, gratings):
    assert is_blocked(blocked)
    assert not is_blocked(rapid)
    assert not is_blocked(gratings)
    assert not is_blocked(make_trials(["a"] * 20))
    two_sessions = np.concatenate([np.repeat(list("abcd"), 30), np.repeat(list("cadb"), 20)])
    assert is_blocked(make_trials(two_sessions))


@pytest.mark.parametrize("protocol", ["by-stimulus", "released"])
def test_a_split_inside_blocks_is_refused_unless_accepted_and_then_marked(protocol, blocked):
    with pytest.raises(NeuroCanvasError, match="accept_block_confound"):
        make_splits(blocked, SplitSettings(protocol=protocol))
    (split,) = make_splits(blocked, SplitSettings(protocol=protocol, accept_block_confound=True))
    assert BLOCK_WARNING in split.warnings


def test_whole_blocks_in_other_runs_are_no_confound():
    names = np.concatenate([np.repeat(list(order), 10) for order in ("abcd", "cadb")])
    trials = make_trials(names, run=np.repeat([1, 2], 40))
    splits = make_splits(trials, SplitSettings(protocol="leave-run-out"))
    assert [split.warnings for split in splits] == [(), ()]


def test_bad_requests_are_refused(rapid, gratings):
    with pytest.raises(NeuroCanvasError, match="one subject"):
        make_splits(make_trials(["a", "b"] * 4, subject=[0, 1] * 4), SplitSettings())
    with pytest.raises(NeuroCanvasError, match="at least 2 runs"):
        make_splits(rapid, SplitSettings(protocol="leave-run-out"))
    with pytest.raises(NeuroCanvasError, match="leave-run-out"):
        make_splits(gratings, SplitSettings())
    with pytest.raises(NeuroCanvasError, match="by-stimulus"):
        make_splits(make_trials(["a", "b"] * 10), SplitSettings(protocol="released"))


def test_a_split_that_shares_trials_or_pictures_cannot_pass(gratings):
    with pytest.raises(NeuroCanvasError, match="trial 3 is in train and test"):
        Split("x", np.array([1, 3]), np.array([2]), np.array([3]), "none")
    with pytest.raises(NeuroCanvasError, match="trial 1 is in train and train"):
        Split("x", np.array([1, 1]), np.array([2]), np.array([3]), "none")
    with pytest.raises(NeuroCanvasError, match="val has none"):
        Split("x", np.array([1]), np.array([], int), np.array([3]), "none")
    (split, *_) = make_splits(gratings, SplitSettings(protocol="leave-run-out"))
    with pytest.raises(NeuroCanvasError, match="share the stimulus grating0"):
        prove_disjoint(split, gratings, "stimulus")
