"""Splits: what each protocol promises, what is refused, what is marked."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from neurocanvas.config import SplitSettings
from neurocanvas.data import splits
from neurocanvas.data.splits import (
    PROTOCOLS,
    Fold,
    Protocol,
    Split,
    blocked_trials,
    choose_protocol,
    groups,
    make_split,
    prove_disjoint,
)
from neurocanvas.data.trials import make_metadata, without_signal
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.findings import finding


def make_trials(concept, image=None, run=None, order=None, subject=None):
    """A table of trials without signal; blocks follow from the order."""
    n = len(concept)
    concept = np.asarray(concept)
    order = np.arange(n) if order is None else np.asarray(order)
    recorded = np.argsort(order)
    block = np.empty(n, dtype=np.int64)
    block[recorded] = np.cumsum(np.r_[0, concept[recorded][1:] != concept[recorded][:-1]])
    image = [f"{c}_{i}" for i, c in enumerate(concept)] if image is None else image
    return table(concept=concept, image=image, order=order, block=block, run=run, subject=subject)


def table(**columns):
    """Trials without signal; columns that are None are zero."""
    n = len(columns["concept"])
    filled = {name: np.zeros(n, int) if values is None else np.array(values) for name, values in columns.items()}
    return without_signal({"session": np.zeros(n, int), **filled})


def folds_of(trials, settings, subject=None):
    """Split with the settings; subjects may be numbers."""
    return make_split(trials, settings=settings, subject=None if subject is None else str(subject))


OF_OTHERS = {"leave-subject-out", "pretrain-finetune"}


@pytest.fixture
def rapid():
    """Six concepts x 50 images, random order."""
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
    return make_trials(names, image=names, run=np.repeat([1, 2, 3], 80))


def concatenate(*recordings):
    """One table of (subject, session, run, concepts in recorded order); order and block count within a subject."""
    columns = {name: [] for name in ("subject", "session", "run", "order", "block", "concept", "image")}
    last: dict[str, tuple[int, int]] = {}  # trials and blocks of a subject so far
    for subject, session, run, concepts in recordings:
        n, (before, block) = len(concepts), last.get(subject, (0, 0))
        blocks = block + np.cumsum(np.r_[0, concepts[1:] != concepts[:-1]])
        last[subject] = (before + n, blocks[-1] + 1)
        nth = [np.sum(concepts[:place] == concepts[place]) for place in range(n)]
        shown = [f"{concept}_{session}{run}{number}" for concept, number in zip(concepts, nth)]
        values = ([subject] * n, [session] * n, [run] * n, range(before, before + n), blocks, concepts, shown)
        for column, added in zip(columns.values(), values):
            column.extend(added)
    return table(**columns)


def in_blocks(names, n, rng):
    """Blocks of n trials of every concept, concepts in random order."""
    return np.repeat(rng.permutation(list(names)), n)


def people(rng, design="block", n_subjects=5, returning=(1, 3), concepts="abcdefgh"):
    """Subjects of one session with 50 trials a concept, some with a second of 30 and 20, all rows mixed up."""
    recordings = []
    for subject in range(n_subjects):
        parts = [(0, 0, 50), (1, 0, 30), (1, 1, 20)] if subject in returning else [(0, 0, 50)]
        for session, run, n in parts:
            shown = in_blocks(concepts, n, rng)
            recordings.append((subject, session, run, shown if design == "block" else rng.permutation(shown)))
    trials = concatenate(*recordings)
    return trials[rng.permutation(len(trials))]


def alone(trials, subject):
    """Trials of one subject."""
    return trials[trials.column("subject") == str(subject)]


PROMISES = {
    "by-stimulus": ("image",),
    "kfold-by-stimulus": ("image",),
    "kfold-by-time": (),
    "kfold-by-group": ("run", "block"),
    "leave-run-out": ("run", "block"),
    "leave-block-out": ("block",),
    "leave-session-out": ("session", "run", "block"),
    "leave-subject-out": ("subject", "session", "block"),
    "pretrain-finetune": ("session", "block"),
    "within-block-gap": (),
    "released": (),
}
"""What the test part shares with no other part; proved here in another way than in the package."""

BLOCKLESS = ("leave-block-out", "rapid")
"""Refused."""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("protocol", "design"),
    [(name, design) for name in PROTOCOLS for design in ("block", "rapid") if (name, design) != BLOCKLESS],
)
def test_every_protocol_keeps_its_promises_on_random_tables(protocol, design, seed):
    rng = np.random.default_rng(seed)
    trials = people(rng, design, n_subjects=int(rng.integers(4, 7)))
    settings = SplitSettings(protocol=protocol, accept_block_confound=True, seed=seed, folds=3)
    splits, again = (folds_of(trials, settings, 3) for _ in range(2))
    assert [split.fingerprint() for split in splits] == [split.fingerprint() for split in again]
    key = list(zip(*(trials.column(name).tolist() for name in ("subject", "session", "run", "block", "image"))))
    depth = {"subject": 1, "session": 2, "run": 3}

    def values(rows, column):
        if column == "block":
            return {(key[row][0], key[row][1], key[row][3]) for row in rows}
        return {key[row][4] if column == "image" else key[row][: depth[column]] for row in rows}

    for split in splits:
        rows = np.concatenate(list(split.parts().values()))
        assert len(rows) == len(np.unique(rows))
        assert set(trials.column("subject")[split.test]) == {"3"}
        assert (len(set(trials.column("subject")[rows])) > 1) == (protocol in OF_OTHERS)
        for column in PROMISES[protocol]:
            for part in split.parts().keys() - {"test"}:
                assert not values(split.test, column) & values(split.parts()[part], column)
        assert split.selection
    tested = np.concatenate([split.test for split in splits])
    assert len(tested) == len(np.unique(tested))
    if protocol in ("kfold-by-stimulus", "leave-run-out", "leave-block-out", "leave-session-out", "leave-subject-out"):
        assert np.array_equal(np.sort(tested), np.flatnonzero(trials.column("subject") == "3"))


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name not in OF_OTHERS])
def test_the_others_change_nothing_within_a_subject(protocol):
    rng = np.random.default_rng(5)
    trials = people(rng)
    own = np.flatnonzero(trials.column("subject") == "1")
    settings = SplitSettings(protocol=protocol, accept_block_confound=True, folds=2)
    together, apart = folds_of(trials, settings, 1), folds_of(alone(trials, 1), settings)
    for one, other in zip(together, apart, strict=True):
        for part, rows in other.parts().items():
            assert np.array_equal(one.parts()[part], np.sort(own[rows]))


def test_by_image_holds_out_pictures_of_every_concept(rapid):
    (split,) = folds_of(rapid, SplitSettings())
    concept = rapid.column("concept")
    assert np.unique(concept[split.test], return_counts=True)[1].tolist() == [5] * 6
    assert np.unique(concept[split.validation], return_counts=True)[1].tolist() == [7] * 6
    assert split.findings == ()
    (other,) = folds_of(rapid, SplitSettings(seed=1))
    assert set(split.test) != set(other.test)


def test_leave_run_out_tests_each_run_once_and_validates_at_the_end_of_the_others(gratings):
    splits = folds_of(gratings, SplitSettings(protocol="leave-run-out", val_fraction=0.25))
    assert [len(split.test) for split in splits] == [80, 80, 80]
    assert np.array_equal(np.sort(np.concatenate([split.test for split in splits])), np.arange(240))
    assert splits[0].validation.tolist() == [*range(140, 160), *range(220, 240)]
    assert all(split.findings == (finding("pictures-repeat"),) for split in splits)
    for split in splits:
        prove_disjoint(split, gratings, "run")


def test_released_takes_the_first_30_of_50_in_recorded_order(blocked):
    backwards = make_trials(blocked.column("concept")[::-1], order=np.arange(300)[::-1])
    settings = SplitSettings(protocol="released", accept_block_confound=True)
    (split,) = folds_of(backwards, settings)
    position = backwards.column("order") % 50
    assert position[split.test].min() == 30
    assert np.array_equal(np.sort(position[np.r_[split.train, split.validation]]), np.repeat(np.arange(30), 6))
    assert split.findings == (finding("block-on-both-sides"),)


def test_kfold_deals_the_stimuli_of_every_concept_evenly(rapid):
    splits = folds_of(rapid, SplitSettings(protocol="kfold-by-stimulus", folds=4))
    concept = rapid.column("concept")
    for split in splits:
        assert set(np.unique(concept[split.test], return_counts=True)[1]) <= {12, 13}
    assert len(splits) == 4 and splits[2].name == "kfold-by-stimulus, fold 2"
    other = folds_of(rapid, SplitSettings(protocol="kfold-by-stimulus", folds=4, seed=1))
    assert set(other[2].test) != set(splits[2].test)


def test_the_gap_lies_before_the_test_part_and_validation_before_the_gap(blocked):
    settings = SplitSettings(protocol="within-block-gap", accept_block_confound=True, gap=7)
    (split,) = folds_of(blocked, settings)
    place = blocked.column("order") % 50
    assert np.unique(place[split.train]).tolist() == list(range(20))
    assert np.unique(place[split.validation]).tolist() == [20, 21, 22]
    assert np.unique(place[split.test]).tolist() == list(range(30, 50))
    assert split.findings == (finding("gap-on-both-sides", gap=7),)


def test_in_longer_blocks_a_gap_lies_on_both_sides_of_a_test_part():
    trials = make_trials(np.repeat(list("abc"), 100))
    settings = SplitSettings(protocol="within-block-gap", accept_block_confound=True, gap=7)
    (split,) = folds_of(trials, settings)
    place = trials.column("order") % 100
    known = np.unique(place[np.r_[split.train, split.validation]])
    assert known.tolist() == [*range(23), *range(57, 73)]
    assert np.unique(place[split.validation]).tolist() == [20, 21, 22, 70, 71, 72]
    assert np.unique(place[split.test]).tolist() == [*range(30, 50), *range(80, 100)]


def test_a_second_visit_is_split_by_passes_as_released(visits):
    (split,) = folds_of(visits[visits.column("session") == "1"], SplitSettings(protocol="released"), 1)
    run = visits.column("run")[visits.column("session") == "1"]
    assert set(run[split.test]) == {"1"} and set(run[np.r_[split.train, split.validation]]) == {"0"}
    assert finding("block-on-both-sides") not in split.findings


def test_places_are_counted_anew_in_every_session():
    trials = concatenate(*((0, session, 0, np.repeat(list("ab"), n)) for session, n in enumerate((40, 50))))
    (split,) = folds_of(trials, SplitSettings(protocol="released", accept_block_confound=True))
    assert split.test.tolist() == [*range(30, 40), *range(70, 80), *range(110, 130), *range(160, 180)]


@pytest.fixture
def visits():
    """Five subjects in blocks, of whom 1 and 3 came back; in recorded order."""
    trials = people(np.random.default_rng(7))
    return trials[np.lexsort([trials.column(name) for name in ("order", "subject")])]


def test_leave_block_out_tests_the_kth_block_of_every_concept(visits):
    splits = folds_of(visits, SplitSettings(protocol="leave-block-out", val_fraction=0.2), 1)
    session, run = visits.column("session"), visits.column("run")
    assert [len(split.test) for split in splits] == [400, 240, 160]
    for split, pair in zip(splits, [("0", "0"), ("1", "0"), ("1", "1")]):
        assert set(zip(session[split.test].tolist(), run[split.test].tolist())) == {pair}
        assert finding("block-on-both-sides") not in split.findings
    assert len(splits[0].validation) == 8 * (6 + 4)
    order, block = visits.column("order"), groups(visits, "block")
    for number in np.unique(block[splits[0].validation]):
        inside = [np.sort(order[part[block[part] == number]]) for part in (splits[0].train, splits[0].validation)]
        assert inside[0].max() + 1 == inside[1].min()


def test_leave_session_out_is_cross_time(visits):
    splits = folds_of(visits, SplitSettings(protocol="leave-session-out"), 3)
    assert [split.name for split in splits] == ["leave-session-out, session 0", "leave-session-out, session 1"]
    assert [set(visits.column("session")[split.test]) for split in splits] == [{"0"}, {"1"}]
    assert splits[0].selection == "the last 15% of the trials of each training block"


def test_concepts_that_never_train_are_left_out_and_said(visits):
    kept = ~((visits.column("session") == "1") & np.isin(visits.column("concept"), ["a", "b"]))
    first, second = folds_of(visits[kept], SplitSettings(protocol="leave-session-out"), 1)
    assert len(first.test) == 6 * 50 and first.findings[0] == finding("untrained-concepts", n=100)
    assert len(second.test) == 6 * 50 and all(one.code != "untrained-concepts" for one in second.findings)


def test_leave_subject_out_validates_on_whole_others(visits):
    (split,) = folds_of(visits, SplitSettings(protocol="leave-subject-out", val_fraction=0.5), 2)
    whole = visits.column("subject")
    chosen = set(whole[split.validation])
    assert len(chosen) == 2 and set(whole[split.train]) | chosen == {"0", "1", "3", "4"}
    assert len(split.validation) == np.isin(whole, whole[split.validation]).sum()
    assert split.selection.startswith("all trials of subjects ")


def test_pretrain_finetune_goes_from_others_through_the_first_visit_to_the_second(visits):
    (split,) = folds_of(visits, SplitSettings(protocol="pretrain-finetune"), 3)
    subject, session = visits.column("subject"), visits.column("session")
    assert set(subject[split.pretrain]) == {"0", "1", "2", "4"} and set(session[split.pretrain]) == {"0"}
    assert len(split.pretrain) == 4 * 400
    assert set(session[np.r_[split.train, split.validation]]) == {"0"} and set(session[split.test]) == {"1"}
    together = split.joined()
    assert len(together.train) == len(split.pretrain) + len(split.train) and len(together.pretrain) == 0
    assert together.test is not None and together.joined() is together
    assert split.fingerprint() != together.fingerprint() and "pretrain" not in together.parts()


@pytest.mark.parametrize("part", ["pretrain", "train", "validation"])
def test_a_picture_known_from_any_part_is_marked(part, visits):
    settings = SplitSettings(protocol="pretrain-finetune")
    (split,) = folds_of(visits, settings, 3)
    assert finding("pictures-repeat") not in split.findings
    shown = visits.column("image").copy()
    shown[split.parts()[part][0]] = shown[split.test[0]]
    changed = replace(visits, metadata=visits.metadata.assign(image=shown))
    assert finding("pictures-repeat") in folds_of(changed, settings, 3)[0].findings


def test_a_rapid_session_does_not_hide_a_blocked_one():
    rng = np.random.default_rng(0)
    rapid = rng.permutation(np.repeat(list("abcdef"), 200))
    trials = concatenate((0, 0, 0, rapid), (0, 1, 0, in_blocks("abcdef", 10, rng)))
    assert blocked_trials(trials).any() and not blocked_trials(trials[trials.column("session") == "0"]).any()
    assert blocked_trials(trials).tolist() == [False] * 1200 + [True] * 60
    with pytest.raises(NeuroCanvasError, match="accept_block_confound"):
        folds_of(trials, SplitSettings(protocol="by-stimulus"))
    with pytest.raises(NeuroCanvasError, match="mixed order"):
        folds_of(trials, SplitSettings(protocol="leave-block-out"))


def test_block_and_run_numbers_mean_nothing_across_subjects(visits):
    (split,) = folds_of(visits, SplitSettings(protocol="leave-subject-out"), 0)
    block = visits.column("block")
    assert np.isin(block[split.test], block[split.train]).all()
    for column in ("block", "run", "session", "subject"):
        prove_disjoint(split, visits, column)
    with pytest.raises(NeuroCanvasError, match="share the concept a"):
        prove_disjoint(split, visits, "concept")
    assert finding("block-on-both-sides") not in split.findings


def test_one_order_of_blocks_in_several_recordings_is_marked():
    rng = np.random.default_rng(3)
    order = rng.permutation(list("abcdefghijkl"))
    near = order[[1, 0, 2, 3, 5, 4, 6, 7, 8, 9, 11, 10]]
    other = order[[6, 1, 11, 4, 0, 9, 2, 7, 10, 3, 8, 5]]
    same, mixed = ([np.repeat(names, 10) for names in three] for three in ((order, near, order), (order, near, other)))
    for shown, marked in ((same, True), (mixed, False)):
        subjects = concatenate(*((subject, 0, 0, names) for subject, names in enumerate(shown)))
        (split,) = folds_of(subjects, SplitSettings(protocol="leave-subject-out"), 2)
        assert (finding("order-repeats") in split.findings) == marked
        sessions = concatenate((0, 0, 0, shown[0]), (0, 1, 0, shown[2]))
        splits = folds_of(sessions, SplitSettings(protocol="leave-session-out"))
        assert [finding("order-repeats") in split.findings for split in splits] == [marked] * 2
    rapid = concatenate(*((subject, 0, 0, rng.permutation(same[0])) for subject in range(3)))
    (split,) = folds_of(rapid, SplitSettings(protocol="leave-subject-out"), 0)
    assert finding("order-repeats") not in split.findings


def test_random_orders_are_hardly_ever_marked():
    marked = 0
    for seed in range(40):
        trials = people(np.random.default_rng(seed), n_subjects=3, returning=())
        (split,) = folds_of(trials, SplitSettings(protocol="leave-subject-out"), 0)
        marked += finding("order-repeats") in split.findings
    assert marked <= 3


@pytest.mark.parametrize("protocol", ["by-stimulus", "kfold-by-stimulus", "within-block-gap", "released"])
def test_the_refusal_names_what_the_data_allow(protocol, blocked, visits):
    settings = SplitSettings(protocol=protocol)
    with pytest.raises(NeuroCanvasError) as refused:
        folds_of(blocked, settings)
    message = str(refused.value)
    assert message.endswith("for these trials; with 3 subjects or more, leave-subject-out could.")
    assert ("best under within-block-gap" in message) == (protocol != "within-block-gap")
    with pytest.raises(NeuroCanvasError, match="leave-run-out or leave-session-out or leave-subject-out can be used"):
        folds_of(visits, settings, 1)


def test_block_designs_are_told_from_random_order(rapid, blocked, gratings):
    assert blocked_trials(blocked).any()
    assert not blocked_trials(rapid).any()
    assert not blocked_trials(gratings).any()
    assert not blocked_trials(make_trials(["a"] * 20)).any()
    two_sessions = np.concatenate([np.repeat(list("abcd"), 30), np.repeat(list("cadb"), 20)])
    assert blocked_trials(make_trials(two_sessions)).any()


@pytest.mark.parametrize("protocol", ["by-stimulus", "kfold-by-stimulus", "released"])
def test_a_split_inside_blocks_is_refused_unless_accepted_and_then_marked(protocol, blocked):
    with pytest.raises(NeuroCanvasError, match="accept_block_confound"):
        folds_of(blocked, SplitSettings(protocol=protocol))
    for split in folds_of(blocked, SplitSettings(protocol=protocol, accept_block_confound=True)):
        assert finding("block-on-both-sides") in split.findings


def test_whole_blocks_in_other_runs_are_no_confound():
    names = np.concatenate([np.repeat(list(order), 10) for order in ("abcd", "cadb")])
    trials = make_trials(names, run=np.repeat([1, 2], 40))
    splits = folds_of(trials, SplitSettings(protocol="leave-run-out"))
    assert [split.findings for split in splits] == [(), ()]


REFUSED = {
    "one subject": (lambda of: make_trials(["a", "b"] * 4, subject=[0, 1] * 4), "by-stimulus", None),
    "at least 2 runs": (lambda of: of("rapid"), "leave-run-out", None),
    "leave-run-out or kfold-by-time can be used": (lambda of: of("gratings"), "by-stimulus", None),
    "by-stimulus or kfold-by-time can be": (lambda of: make_trials(["a", "b"] * 10), "released", None),
    "subject: allowed are 0; got '4'": (lambda of: of("rapid"), "by-stimulus", 4),
    "mixed order": (lambda of: of("rapid"), "leave-block-out", None),
    "fewer than 5 folds": (lambda of: of("gratings"), "kfold-by-stimulus", None),
    "a has one block only. For these trials, leave-subject-out": (lambda of: of("visits"), "leave-block-out", 0),
    "subject 0 has one. Subjects with more: 1, 3.": (lambda of: of("visits"), "leave-session-out", 0),
    "0 has one. Subjects with more: 1, 3.": (lambda of: of("visits"), "pretrain-finetune", 0),
    "No subject that is open has more": (lambda of: of("blocked"), "leave-session-out", None),
    "other subjects are needed": (lambda of: alone(of("visits"), 1), "pretrain-finetune", None),
    "at least 3 subjects": (lambda of: people(np.random.default_rng(7), n_subjects=2), "leave-subject-out", 0),
}


@pytest.mark.parametrize("says", REFUSED)
def test_data_that_lack_what_a_protocol_needs_are_refused(says, request):
    trials, protocol, subject = REFUSED[says]
    with pytest.raises(NeuroCanvasError, match=re.escape(says)):
        folds_of(trials(request.getfixturevalue), SplitSettings(protocol=protocol), subject)


def test_a_split_that_shares_trials_or_pictures_cannot_pass(gratings):
    fold = Fold("x", np.array([1]), np.array([2]), np.array([3]), "none")
    assert list(fold.parts()) == ["train", "validation", "test"]
    for says, parts in {
        "trial 3 is in train and test": ([1, 3], [2], [3]), "trial 1 is in train and train": ([1, 1], [2], [3]),
        "validation has none": ([1], [], [3]), "trial 3 is in test and pretrain": ([1], [2], [3], [4, 3]),
    }.items():  # fmt: skip
        train, val, test, *pretrain = (np.array(rows, int) for rows in parts)
        with pytest.raises(NeuroCanvasError, match=says):
            Fold("x", train, val, test, "none", **({"pretrain": pretrain[0]} if pretrain else {}))
    (split, *_) = folds_of(gratings, SplitSettings(protocol="leave-run-out"))
    with pytest.raises(NeuroCanvasError, match="share the image grating0"):
        prove_disjoint(split, gratings, "image")


def test_a_split_is_written_by_names_and_read_for_trials_in_any_order(visits):
    visits = replace(visits, metadata=make_metadata({name: visits.column(name) for name in visits.metadata}))
    split = make_split(visits, "pretrain-finetune", subject="3")
    content = json.loads(json.dumps(split.to_dict()))
    assert content["folds"][0]["test"][0].startswith("3/1/")
    mixed = visits[np.random.default_rng(0).permutation(len(visits))]
    (again,) = Split.from_dict(content, mixed)
    for part, rows in split[0].parts().items():
        assert set(mixed.names[again.parts()[part]]) == set(visits.names[rows])
    assert (again.name, again.selection, again.findings) == (split[0].name, split[0].selection, split[0].findings)
    assert "pretrain-finetune" in split._repr_html_()
    with pytest.raises(NeuroCanvasError, match=r"test names trial 3/1/\d+, which is not among the 2000 trials"):
        Split.from_dict(content, visits[visits.column("session") == "0"])
    with pytest.raises(NeuroCanvasError, match="not what to_dict gives"):
        Split.from_dict({"folds": [{"name": "x"}]}, visits)


def test_subjects_are_counted_as_people_count():
    trials = people(np.random.default_rng(0), n_subjects=12, returning=(1, 3, 11))
    assert splits.testable_subjects(trials, "leave-session-out") == ["1", "3", "11"]
    first = groups(trials, "subject")[trials.column("subject") == "2"]
    assert set(first) == {2}


def test_a_protocol_is_one_row(monkeypatch, tiny_data, tmp_path, call):
    """A toy row splits from Python and from the command line."""

    def halves(trials, own, settings):
        return [Fold("halves", own[::3], own[1::3], own[2::3], "every third trial")]

    monkeypatch.setitem(PROTOCOLS, "halves", Protocol(halves))
    asked = ("features", "-d", tiny_data, "-o", tmp_path / "run", "--protocol")
    assert call(*asked, "halves")[::2] == (0, "")
    code, _, said = call(*asked, "thirds")
    assert code == 2 and "--protocol" in said and "halves; got 'thirds'" in said
    trials = make_trials(["a", "b"] * 6)
    assert make_split(trials, "halves")[0].test.tolist() == [2, 5, 8, 11]


def test_stretches_of_a_run_are_contiguous_and_training_keeps_its_distance():
    rng = np.random.default_rng(0)
    trials = make_trials(rng.permutation(np.repeat(["a", "b"], 60)))
    folds = folds_of(trials, SplitSettings(protocol="kfold-by-time", gap=3))
    order = trials.column("order")
    assert sorted(np.concatenate([order[fold.test] for fold in folds]).tolist()) == list(range(120))
    for fold in folds:
        tested, fitted = order[fold.test], order[np.concatenate([fold.train, fold.validation])]
        assert np.ptp(tested) == len(tested) - 1 == 23
        assert min(np.abs(fitted - tested.min()).min(), np.abs(fitted - tested.max()).min()) == 4


def test_the_default_protocol_is_the_first_that_the_data_allow(rapid, blocked, gratings):
    assert make_split(rapid).protocol == "by-stimulus" and make_split(gratings).protocol == "leave-run-out"
    one_run = gratings[gratings.column("run") == "1"]
    assert make_split(one_run).protocol == "kfold-by-time"
    assert choose_protocol(one_run, SplitSettings()) == (
        "kfold-by-time", "split: concept grating0 has 1 stimuli, too few to hold out 10% and train on the rest.",
    )  # fmt: skip
    with pytest.raises(NeuroCanvasError, match="split by-stimulus: concepts came in blocks"):
        make_split(blocked)
