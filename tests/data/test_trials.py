"""Trials: a table, and signal that is read only where it is asked for."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GroupKFold, cross_val_score

import neurocanvas as nc
from neurocanvas.data.trials import Trials, TrialSpec, make_metadata, ranks, seed_of, unique_names
from neurocanvas.errors import NeuroCanvasError


def make_trials(n=6, source="file"):
    """Trials whose signal is their row number; `reads` collects the rows that were read."""
    reads = []

    def read(indices):
        reads.append(indices.tolist())
        return np.broadcast_to(indices[:, None, None], (len(indices), 2, 3)).astype(np.float32)

    metadata = make_metadata({"image": [f"image{i}" for i in range(n)], "concept": np.arange(n) % 2})
    return Trials(metadata, TrialSpec(("O1", "O2"), 250.0, -0.1, 3), read, source), reads


def test_opening_and_selecting_read_nothing():
    trials, reads = make_trials()
    chosen = trials[trials.column("order") > 3]
    assert chosen.shape == (2, 2, 3) and reads == []
    chosen.signal([1])
    assert reads == [[5]]


@pytest.mark.parametrize("indices", [[4, 1], np.array([4, 1]), slice(4, None), np.arange(6) > 3, 3])
def test_signal_is_that_of_the_rows_asked_for(indices):
    trials, _ = make_trials()
    signal = trials.signal(indices)
    assert signal.dtype == np.float32
    np.testing.assert_array_equal(signal[:, 0, 0], np.atleast_1d(np.arange(6)[indices]))
    np.testing.assert_array_equal(trials[indices].signal(), signal)
    np.testing.assert_array_equal(np.asarray(trials[indices, ...]), signal)


def test_a_selection_of_a_selection_keeps_table_and_signal_together():
    trials, _ = make_trials()
    chosen = trials[[5, 3, 1]][[2, 0]]
    assert chosen.column("order").tolist() == [1, 5] and chosen.names.tolist() == ["0/0/0001", "0/0/0005"]
    assert chosen.column("image").tolist() == ["image1", "image5"] and chosen.y.tolist() == ["1", "1"]
    assert chosen.signal()[:, 0, 0].tolist() == [1, 5]
    assert [len(one) for one in trials] == [1] * 6
    with pytest.raises(NeuroCanvasError, match="by rows only"):
        trials[:, 0]


def test_the_fingerprint_changes_with_whatever_the_signal_depends_on():
    trials, _ = make_trials()
    assert trials.fingerprint() == make_trials()[0].fingerprint()
    others = [trials[[0, 1]], trials[[1, 0]], make_trials(source="other")[0]]
    assert len({trials.fingerprint(), *(other.fingerprint() for other in others)}) == 4


def test_names_sort_as_people_count_and_keep_their_seeds():
    assert unique_names(["10", "2", "anna", "02", "2"]) == ["02", "2", "10", "anna"]
    assert ranks(np.array(["10", "2", "10"])).tolist() == [1, 0, 1] and ranks(np.array([7, -1])).tolist() == [1, 0]
    assert [seed_of(name) for name in ("0", "15")] == [0, 15] and len({*map(seed_of, ("anna", "01", "1"))}) == 3


class Nearest(ClassifierMixin, BaseEstimator):
    """Classify by the nearest mean of the signal."""

    def fit(self, trials, y):
        self.classes_ = np.unique(y)
        self.means_ = [trials[y == name].signal().mean() for name in self.classes_]
        return self

    def predict(self, trials):
        return self.classes_[np.abs(trials.signal().mean((1, 2))[:, None] - self.means_).argmin(axis=1)]


def from_rows(**changes):
    """Trials of an array in which the concept is the level."""
    y = np.array(["cat", "dog"] * 6)
    signal = np.where(y == "cat", 1e-5, 2e-5)[:, None, None] + np.zeros((12, 2, 50))
    metadata = {"subject": np.repeat([2, 10, "anna"], 4), "run": np.repeat(range(6), 2), "loud": np.arange(12)}
    options = {"ch_names": ["O1", "O2"], "sfreq": 100, "tmin": -0.1, "metadata": metadata}
    return nc.from_arrays(**{"X": signal, "y": y, **options, **changes})


def test_scikit_learn_indexes_trials():
    trials = from_rows()
    scores = cross_val_score(Nearest(), trials, trials.y, groups=trials.column("subject"), cv=GroupKFold(3))
    assert scores.tolist() == [1.0] * 3


def test_arrays_become_trials_in_microvolts():
    trials = from_rows()
    assert trials.names[[0, 11]].tolist() == ["2/0/0000", "anna/0/0003"]
    assert trials.column("block")[:5].tolist() == [0, 1, 2, 3, 0] and trials.column("loud")[11] == 11
    assert "session" not in trials.metadata and "image" not in trials.metadata
    np.testing.assert_allclose(trials.signal()[:2, 0, 0], [10, 20])
    assert from_rows(unit="uV", X=np.ones((12, 2, 50))).signal().max() == 1.0
    assert set(from_rows(metadata=None).column("subject")) == {"0"}
    again = pickle.loads(pickle.dumps(trials))
    assert again.fingerprint() == trials.fingerprint() and np.array_equal(again.signal(), trials.signal())
    assert "channels 2" in repr(trials) and "<td>2, 10, anna</td>" in trials._repr_html_()


BAD = {
    "X: numbers of shape": {"X": np.ones((12, 50))},
    "X: trial 1, channel O2: NaN": {"X": np.where(np.arange(1200).reshape(12, 2, 50) == 150, np.nan, 1.0)},
    "unit: allowed are V, mV, uV; got 'volts'": {"unit": "volts"},
    "y: one value for each of the 12 trials": {"y": ["cat"]},
    "2 unique names are needed, one per channel of X; got 2, of which 1": {"ch_names": ["O1", "O1"]},
    "sfreq: a finite number is needed, sfreq above 0; got 0": {"sfreq": 0},
    "got 1, of which 1 are unique": {"ch_names": "Oz"},
    "got 2, of which 1 are unique.": {"ch_names": [1, "1"]},
    "above 0; got inf": {"sfreq": np.inf},
    "above 0; got '100'": {"sfreq": "100"},
    "tmin: a finite number": {"tmin": np.nan},
    "1e+07 µV is not EEG; pass unit='uV'": {"X": 10.0 * np.resize([-1, 1], (12, 2, 50))},
    "1e-05 µV is not EEG; pass unit='V'": {"X": 1e-5 * np.resize([-1, 1], (12, 2, 50)), "unit": "uV"},
    "not EEG; convert to volts": {"X": 1e9 * np.resize([-1, 1], (12, 2, 50))},
    "column concept has no value in row 1": {"y": ["cat", np.nan] * 6},
    "column concept has no value in row 0": {"y": [None, "cat"] * 6},
    "column subject has no value in row 1": {"metadata": {"subject": ["a", np.nan] * 6}},
    "column kind has no value in row 2": {"metadata": {"kind": ["a", "b", np.nan] * 4}},
    "column concept differs from y": {"metadata": {"concept": ["dog", "cat"] * 6}},
    "column onset must hold seconds": {"metadata": {"onset": np.arange(12).astype("datetime64[s]")}},
    "column onset must hold seconds; got [inf": {"metadata": {"onset": [np.inf] * 12}},
    "column block must hold whole numbers; got ['b1', 'b1'": {"metadata": {"block": ["b1"] * 12}},
    "run: one value for each": {"metadata": {"run": [1]}},
    "subject 'a/b': used in file names": {"metadata": {"subject": ["a/b"] * 12}},
    "column run has no value in row 3": {"metadata": {"run": [1, 1, 1, None] * 3}},
    "column order must hold whole numbers": {"metadata": {"order": np.arange(12) / 2}},
    "got '0/0/0005' twice": {"metadata": {"order": [5] * 12}},
}


@pytest.mark.parametrize("says", BAD)
def test_arrays_that_do_not_fit_are_refused_in_one_line(says):
    with pytest.raises(NeuroCanvasError) as refused:
        from_rows(**BAD[says])
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_half_precision_does_not_overflow_and_a_column_of_numbers_may_lack_some():
    signal = np.resize([-0.1, 0.1], (12, 2, 50)).astype(np.float16)
    trials = from_rows(X=signal, unit="mV", metadata={"loud": [np.nan] * 12, "concept": ["cat", "dog"] * 6})
    np.testing.assert_allclose(np.abs(trials.signal()), 100, rtol=1e-3)
    volts = (signal / 1000).astype(np.float16)
    assert np.isfinite(from_rows(X=volts).signal()).all()


def test_rows_of_a_split_select_no_other_trials():
    trials = from_rows()
    fold = nc.make_split(trials, "leave-run-out", subject=2, accept_block_confound=True)[0]
    assert trials[fold.test].names.tolist() == trials.names[fold.test].tolist()
    for rows in (fold.train, fold.test[:1], fold.joined().validation[[0]]):
        for select in (trials[1:].__getitem__, trials[1:].signal):
            with pytest.raises(NeuroCanvasError, match=r"other trials \(split made for 2/0/0000 to anna/0/0003\)"):
                select(rows)
    assert len(trials[fold.train][np.argsort(fold.train)]) == len(trials[1:][fold.train - 1 + 1]) == len(fold.train)


def test_a_protocol_says_which_column_it_lacks():
    with pytest.raises(NeuroCanvasError, match="protocol by-stimulus: the column image is needed; the trials"):
        nc.make_split(from_rows(), "by-stimulus", subject="2")
    one_concept = from_rows(y=["cat"] * 12)
    for trials, says in ((np.ones((2, 2, 50)), "Trials are needed"), (one_concept, "at least 2 concepts .* only cat")):
        with pytest.raises(NeuroCanvasError, match=says):
            nc.make_split(trials, "leave-run-out", subject="2")
    split = nc.make_split(from_rows(), "leave-run-out", subject="2", accept_block_confound=True)
    assert [fold.name for fold in split] == ["leave-run-out, run 0", "leave-run-out, run 1"]


@pytest.fixture(scope="module")
def epochs():
    """Epochs of two EEG channels and a stim channel, in volts."""
    import mne

    info = mne.create_info(["Oz", "Pz", "STI"], 100.0, ["eeg", "eeg", "stim"])
    events = np.stack([np.arange(4) * 100 + 50, np.zeros(4, int), [1, 2, 1, 2]], axis=1)
    data = np.arange(4)[:, None, None] * 1e-6 + np.zeros((4, 3, 60))
    return mne.EpochsArray(data, info, events, -0.1, {"cat": 1, "dog": 2}, verbose="error")


def test_epochs_become_trials(epochs, tmp_path):
    import pandas as pd

    epochs.save(tmp_path / "sub-1-epo.fif", verbose="error")
    for trials in (nc.from_epochs(epochs), nc.from_epochs(tmp_path / "sub-1-epo.fif")):
        assert trials.y.tolist() == ["cat", "dog", "cat", "dog"] and trials.spec.ch_names == ("Oz", "Pz")
        assert trials.spec.tmin == -0.1 and trials.column("onset").tolist() == [0.5, 1.5, 2.5, 3.5]
        np.testing.assert_allclose(trials.signal()[:, 0, 0], [0, 1, 2, 3], rtol=1e-5)
    table = pd.DataFrame({"subject": [1, 1, 2, 2], "image": list("abab"), "kind": list("xyxy")})
    with_table = epochs.copy()
    with_table.metadata = table
    trials = nc.from_epochs(with_table, concept="kind")
    assert trials.y.tolist() == list("xyxy") and trials.names.tolist()[2] == "2/0/0000"
    with pytest.raises(NeuroCanvasError, match="concept: allowed are the columns of the metadata, subject, image"):
        nc.from_epochs(with_table, concept="class")
    with pytest.raises(NeuroCanvasError, match=r"mne.Epochs are needed, or from_arrays; got ndarray"):
        nc.from_epochs(np.ones((2, 2, 50)))
    (tmp_path / "bad-epo.fif").write_bytes(b"no")
    with pytest.raises(NeuroCanvasError, match="MNE cannot read epochs"):
        nc.from_epochs(tmp_path / "bad-epo.fif")
