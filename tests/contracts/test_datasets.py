"""What holds for every data set in DATASETS."""

from __future__ import annotations

from dataclasses import replace

import mne
import numpy as np
import pytest
from PIL import Image

import neurocanvas as nc
from neurocanvas.config import SimulateSettings
from neurocanvas.data import DATASETS
from neurocanvas.data.eeg_imagenet import STAGE2_SUBJECTS, WHOLE
from neurocanvas.data.images import IMAGENET_CONCEPTS
from neurocanvas.data.trials import COLUMNS
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.simulation.dataset import simulate

WORDS = {"low": "low_0", "high": "high_90"}
RECORDING = {"files": "*.fif", "events": {"annotations": WORDS}, "stimulus": "grating_{annotations}",
             "pictures": "gratings"}  # fmt: skip


ARRAY = {"signal": "trials.npy", "ch_names": ["Oz", "Pz"], "sfreq": 100.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Simulated files of two subjects, and two recordings in MNE's format."""
    root = tmp_path_factory.mktemp("data")
    simulate(SimulateSettings(subjects=2, concepts=4, trials_per_concept=3, explained_variance=0.0), root)
    info = mne.create_info(["Oz", "Pz"], 100.0, "eeg")
    for name in ("sub-2", "sub-anna"):
        signal = np.random.default_rng(len(name)).normal(size=(2, 1000)) * 1e-5
        raw = mne.io.RawArray(signal, info, verbose="error")
        raw.set_annotations(mne.Annotations([2.0, 4.0, 6.0], 0.1, ["low", "high", "low"]))
        raw.save(root / f"{name}_raw.fif", fmt="double", verbose="error")
    np.save(root / "trials.npy", np.random.default_rng(0).normal(size=(6, 2, 50)) * 1e-5)
    rows = [f"{concept},{subject},{concept}_1.png" for subject in ("2", "anna") for concept in ("low", "high", "low")]
    (root / "trials.csv").write_text("\n".join(["concept,subject,image", *rows]))
    for concept in ("low", "high"):
        (root / "shown" / "imageNet_images" / concept).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(root / "shown" / "imageNet_images" / concept / f"{concept}_1.png")
    return root


@pytest.fixture(params=DATASETS)
def opened(request, folder):
    """Name, and what opens the data set with a choice of trials."""
    options = {"recording": RECORDING} if request.param == "recordings" else {}
    if request.param == "arrays":
        options = {"array": ARRAY, "pictures": str(folder / "shown")}
    return request.param, lambda **more: nc.open_dataset(request.param, folder, **options, **more)


def test_a_data_set_gives_named_trials_with_images_in_microvolts(opened):
    _, open_it = opened
    trials = open_it()
    assert isinstance(trials, nc.Trials) and isinstance(trials.images, nc.Images)
    assert trials.metadata.index.is_unique and all(isinstance(one, str) for one in trials.metadata.index)
    for column in {"subject", "session", "run", "image", "concept"} & set(trials.metadata):
        assert trials.column(column).dtype.kind == "U"
    assert set(trials.metadata) <= set(COLUMNS) and {"subject", "order", "image", "concept"} <= set(trials.metadata)
    assert set(trials.column("image")) <= set(trials.images.ids)
    assert [trials.images.concepts[image] for image in trials.column("image")] == trials.y.tolist()
    signal = trials.signal()
    assert signal.dtype == np.float32 and signal.shape == trials.shape and 1 < signal.std() < 500  # µV
    np.testing.assert_array_equal(trials[[3, 1]].signal(), signal[[3, 1]])


def test_a_choice_of_subjects_and_opening_again_change_no_trial(opened):
    _, open_it = opened
    trials = open_it()
    subject = trials.column("subject")[-1]
    chosen = open_it(subjects=[subject])
    assert set(chosen.column("subject")) == {subject}
    rows = trials.metadata.index.get_indexer(chosen.metadata.index)
    assert chosen.metadata.equals(trials[rows].metadata)
    np.testing.assert_array_equal(chosen.signal(), trials.signal(rows))
    assert open_it().fingerprint() == trials.fingerprint() != chosen.fingerprint()
    with pytest.raises(NeuroCanvasError, match="nobody"):
        open_it(subjects=["nobody"])


def test_opening_and_indexing_read_no_signal(opened, folder):
    def refuse(rows):
        raise AssertionError("signal was read")

    trials = replace(opened[1](), read=refuse)
    assert len(trials[::2]) and trials[0].shape[0] == 1 and repr(trials) and trials.fingerprint()
    with pytest.raises(AssertionError):
        trials.signal([0])


def test_facts_are_those_of_the_trials(opened):
    name, open_it = opened
    facts, trials = DATASETS[name], open_it()
    n_trials, n_chans, _ = trials.shape
    assert facts.n_chans in (None, n_chans) and facts.sfreq in (None, trials.spec.sfreq)
    if name == "eeg-imagenet":  # what a copy of a few trials cannot show follows from the released layout
        assert facts.n_concepts == len(IMAGENET_CONCEPTS) and facts.n_images == 50 * facts.n_concepts
        assert facts.n_subjects == 16 > max(STAGE2_SUBJECTS.values()) and facts.licence and facts.url
    elif facts.n_trials is not None:
        assert facts.n_trials == n_trials


def test_real_trials_have_the_channels_that_are_declared(test_data):
    with np.load(test_data / "eeg_imagenet_trials" / "trials.npz") as arrays:
        real = arrays["trial0_volts"]
    facts = DATASETS["eeg-imagenet"]
    assert real.shape == (facts.n_chans, round(facts.sfreq * 0.5) + 1)


def test_released_files_are_not_simulated_ones(folder, tmp_path):
    (tmp_path / WHOLE).write_bytes((folder / WHOLE).read_bytes())
    assert len(nc.open_dataset("eeg-imagenet", tmp_path)) == 24
    with pytest.raises(NeuroCanvasError, match="no simulated data in it"):
        nc.open_dataset("simulated", tmp_path)


def test_a_data_set_is_one_row(folder, monkeypatch, tmp_path, call):
    """A toy row opens from Python and from the command line."""
    toy = replace(DATASETS["simulated"], open="neurocanvas.data.eeg_imagenet:open_eeg_imagenet")
    with pytest.raises(NeuroCanvasError, match=r"data set: allowed are .*; got 'toy'"):
        nc.open_dataset("toy", folder)
    monkeypatch.setitem(DATASETS, "toy", toy)
    assert len(nc.open_dataset("toy", folder, subjects=[1])) == 12
    asked = ["features", "-d", str(folder), "--dataset", "toy", "-o", str(tmp_path / "run"), "--subject", "1"]
    assert call(*asked)[::2] == (0, "")
    assert (tmp_path / "run" / "features" / "s1_de.npy").is_file()
