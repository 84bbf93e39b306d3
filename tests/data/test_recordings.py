"""Recordings: onsets, cutting, causal filters, bad input; and the real gratings are decodable."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import mne
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neurocanvas.config import DataSettings, FeatureSettings, RecordingSettings, load_settings
from neurocanvas.data.recordings import open_recordings
from neurocanvas.data.trials import COLUMNS, Trials
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.features.differential_entropy import extract

SFREQ, N_SAMPLES = 256, 2560
ONSETS = {512: (1, 0), 1024: (2, 45), 1536: (1, 135)}
CONFIG = Path(__file__).parents[2] / "configs" / "muse_gratings.toml"
MUSE = RecordingSettings(
    files="**/*.csv",
    rename={"Right AUX": "POz"},
    events={
        "Marker0": {"1": "low", "2": "high", "3": "", "4": ""},
        "Marker2": {"0": "0", "45": "45", "90": "90", "135": "135"},
    },
    stimulus="grating_{Marker0}_{Marker2}",
    pictures="gratings",
)


def muse_rows(seed: int = 0) -> np.ndarray:
    """Ten seconds of a Muse recording: time, TP9, Right AUX, Marker0, Marker2, with onsets and offsets."""
    rows = np.zeros((N_SAMPLES, 5))
    rows[:, 0] = 100 + np.arange(N_SAMPLES) / SFREQ
    rows[:, 1:3] = np.random.default_rng(seed).normal(20, 15, size=(N_SAMPLES, 2))
    for onset, (frequency, orientation) in ONSETS.items():
        rows[onset, 3:] = frequency, orientation
        rows[onset + 128, 3] = frequency + 2
    return rows


def write_muse(path: Path, rows: np.ndarray) -> None:
    """Write rows as the headband's program does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = "timestamps,TP9,Right AUX,Marker0,Marker2"
    np.savetxt(path, rows, fmt="%.9g", delimiter=",", header=header, comments="")


def open_muse(folder: Path, **changes: object) -> Trials:
    """Open a folder of Muse files with some settings changed."""
    recording = MUSE.model_copy(update=changes)
    return open_recordings(folder, DataSettings(name="recordings", recording=recording))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two runs of the same recording."""
    for seed, name in enumerate(("run1.csv", "run2.csv")):
        write_muse(tmp_path / name, muse_rows(seed))
    return tmp_path


def test_trials_are_cut_at_the_onsets(folder):
    trials = open_muse(folder)
    assert trials.spec.ch_names == ("TP9", "POz") and trials.spec.sfreq == SFREQ and trials.spec.tmin == -0.5
    assert trials.column("image").tolist() == ["grating_low_0", "grating_high_45", "grating_low_135"] * 2
    assert trials.column("concept").tolist() == trials.column("image").tolist()
    assert trials.column("run").tolist() == list("000111")
    assert trials.column("order").tolist() == [0, 1, 2, 3, 4, 5]
    assert trials.column("block").tolist() == [0, 1, 2, 3, 4, 5]
    assert set(COLUMNS) - set(trials.metadata) == {"granularity"}
    assert trials.column("onset")[3:].tolist() == [onset / SFREQ for onset in ONSETS]
    signal = trials.signal([4, 0])
    assert signal.shape == (2, 2, 384) and signal.dtype == np.float32
    np.testing.assert_allclose(signal[0], muse_rows(1)[1024 - 128 : 1024 + 256, 1:3].T, atol=1e-4)
    rows = muse_rows()
    np.testing.assert_allclose(signal[1], rows[512 - 128 : 512 + 256, 1:3].T, atol=1e-4)
    np.testing.assert_array_equal(trials[[4]].signal(), signal[:1])
    assert trials.signal([]).shape == (0, 2, 384)


def test_channels_are_chosen_and_ordered(folder):
    trials = open_muse(folder, channels=("POz", "TP9"))
    assert trials.spec.ch_names == ("POz", "TP9")
    np.testing.assert_array_equal(trials.signal([1]), open_muse(folder).signal([1])[:, ::-1])


def test_subjects_and_sessions_come_from_the_path(tmp_path):
    names = ("sub-2/ses-01/a.csv", "sub-2/ses-3/sub-2_b.csv", "sub-10_x.csv", "sub-anna.csv", "a.csv")
    for seed, name in enumerate(names):
        write_muse(tmp_path / name, muse_rows(seed))
    settings = DataSettings(name="recordings", subjects=(2,), recording=MUSE)
    trials = open_recordings(tmp_path, settings)
    assert trials.column("session").tolist() == ["01"] * 3 + ["3"] * 3
    assert trials.column("run").tolist() == list("000111")
    with pytest.raises(NeuroCanvasError, match="subject: allowed are 0, 2, 10, anna; got '5'"):
        open_recordings(tmp_path, settings.model_copy(update={"subjects": ("5",)}))


def test_the_fingerprint_follows_the_files_and_the_settings(folder):
    first = open_muse(folder).fingerprint()
    assert open_muse(folder).fingerprint() == first
    assert open_muse(folder, l_freq=1.0).fingerprint() != first
    rows = muse_rows()
    rows[5, 1] += 1
    write_muse(folder / "run2.csv", rows)
    assert open_muse(folder).fingerprint() != first


@pytest.mark.parametrize("edges", [{"l_freq": 0.5}, {"h_freq": 40.0}, {"l_freq": 1.0, "h_freq": 40.0}])
def test_filters_carry_nothing_to_before_the_onset(tmp_path, edges):
    write_muse(tmp_path / "quiet" / "run.csv", muse_rows())
    rows = muse_rows()
    rows[512:, 1:3] += 1000.0
    write_muse(tmp_path / "step" / "run.csv", rows)
    quiet, step = (open_muse(tmp_path / name, phase="causal", **edges).signal([0]) for name in ("quiet", "step"))
    np.testing.assert_array_equal(step[..., :128], quiet[..., :128])
    assert np.abs(step[..., 128:] - quiet[..., 128:]).max() > 100


def test_the_high_pass_removes_the_offset_from_the_first_sample_on(tmp_path):
    rows = muse_rows()
    rows[:, 1:3] += 5000.0
    write_muse(tmp_path / "run.csv", rows)
    signal = open_muse(tmp_path, l_freq=0.5, phase="causal").signal()
    assert np.abs(signal.mean()) < 10 and signal.std() == pytest.approx(15, rel=0.1)


def with_rows(change):
    """Write a file anew with changed rows."""
    return lambda path: write_muse(path, change(muse_rows()))


def with_cells(place, value):
    """Write a file anew with a value in some cells."""

    def change(rows):
        rows[place] = value
        return rows

    return with_rows(change)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + content[len(content) // 2 :].index(b",")])


# Case -> what is done to the second run's file, or which settings are asked for; and what is said.
BAD = {
    "gone": (lambda path: shutil.rmtree(path.parent), "no such folder"),
    "truncated": (truncate, "run2.csv: damaged or truncated"),
    "empty": (lambda path: path.write_text("timestamps,TP9\n"), "run2.csv"),
    "foreign": (lambda path: path.write_text("hello,world\n1,2\n"), "not a Muse CSV.*'hello'"),
    "gap": (with_rows(lambda rows: np.delete(rows, np.s_[700:760], axis=0)), "evenly spaced.*after row 700"),
    "unknown marker value": (with_cells((512, 3), 7), "Marker0 is '7' at 2.000 s.*1, 2, 3, 4"),
    "other channels": (
        lambda path: path.write_text(path.read_text().replace("Right AUX", "AF7")), "same channels; run1.csv has"
    ),
    "missing channel": ({"channels": ("Oz",)}, "no channel 'Oz'; there are TP9, Right AUX"),
    "missing marker": ({"events": {"Marker1": {"1": "a"}}}, "'Marker1'; the file has Marker0, Marker2"),
    "no sources": ({"events": {}}, "at least one source"),
    "no file": ({"files": "*.edf"}, r"no file matches data.recording.files = '\*.edf'"),
    "unknown part": ({"stimulus": "grating_{frequency}"}, "allowed in braces are Marker0, Marker2"),
    "no image": ({"stimulus": "{Marker0}"}, "stimulus 'low' has no image"),
    "times reversed": ({"tmin": 0.5, "tmax": 0.1}, "no sample, at .* tmax must be later"),
    "no onsets": ({"events": {"Marker0": dict.fromkeys("1234", "")}}, "no image onset"),
}  # fmt: skip
BAD_SIGNAL = {
    "flat": (with_cells((slice(None), 1), 3.0), "channel TP9 is flat"),
    "volts": (with_rows(lambda rows: rows * [1, 1e-6, 1e-6, 1, 1]), r"got 1\.[0-9]+e-05"),
    "too large": (with_rows(lambda rows: rows * [1, 1e6, 1e6, 1, 1]), r"got 1\.[0-9]+e\+07"),
    "filter": ({"h_freq": 128.0}, "must lie below.*128 Hz; got 128"),
}


def test_events_name_images_with_their_folder(folder, tmp_path):
    for name in ("low/0.png", "low/135.png", "high/0.png", "high/45.JPG"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    named = {"stimulus": "{Marker0}/{Marker2}.png", "pictures": str(tmp_path / "pictures")}
    values = {"Marker0": {"1": "low", "2": "", "3": "", "4": ""}, "Marker2": {"0": "0", "45": "45", "135": "135"}}
    trials = open_muse(folder, **named, events=values)
    assert trials.column("image").tolist() == ["low/0.png", "135.png"] * 2  # the second name is in one folder only
    assert set(trials.column("concept")) == {"low"} and set(trials.column("image")) <= {*trials.images.ids}
    with pytest.raises(NeuroCanvasError, match=r"stimulus 0\.png: .*high/0\.png and low/0\.png"):
        open_muse(folder, **{**named, "stimulus": "{Marker2}.png"}, events=values)


@pytest.mark.parametrize("case", [*BAD, *BAD_SIGNAL])
def test_bad_input_is_refused_on_opening_and_bad_signal_on_reading(folder, case):
    what, message = {**BAD, **BAD_SIGNAL}[case]
    if callable(what):
        what(folder / "run2.csv")
    with pytest.raises(NeuroCanvasError, match=message) as caught:
        trials = open_muse(folder, **({} if callable(what) else what))
        assert case in BAD_SIGNAL
        trials.signal()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["annotations", "STI"])
def test_what_mne_reads_is_cut_in_microvolts(tmp_path, source):
    microvolts = muse_rows()[:, 1:3].T
    stim = np.zeros((1, N_SAMPLES))
    stim[0, list(ONSETS)] = [1, 2, 1]
    info = mne.create_info(["Oz", "Pz", "STI"], SFREQ, ["eeg", "eeg", "stim"])
    raw = mne.io.RawArray(np.concatenate([microvolts * 1e-6, stim]), info, verbose="error")
    raw.set_annotations(mne.Annotations([2.0, 4.0, 6.0, 7.0], 0.1, ["1", "2", "1", "pause"]))
    raw.save(tmp_path / "run_raw.fif", fmt="double", verbose="error")
    words = {"1": "grating_low_0", "2": "grating_high_90", "pause": ""}
    recording = RecordingSettings(files="*.fif", events={source: words}, stimulus=f"{{{source}}}", pictures="gratings")
    trials = open_recordings(tmp_path, DataSettings(name="recordings", recording=recording))
    assert trials.column("image").tolist() == ["grating_low_0", "grating_high_90", "grating_low_0"]
    assert trials.spec.ch_names == ("Oz", "Pz")
    np.testing.assert_allclose(trials.signal([1])[0], microvolts[:, 1024 - 128 : 1024 + 256], rtol=1e-5)


FORMATS = {
    "motor_64ch_128Hz.edf": ({"T0": "", "T1": "grating_low_0", "T2": "grating_low_90"}, 19, 64, 128.0),
    "eeglab_data.set": ({"square": "grating_low_0", "rt": ""}, 80, 30, 128.0),
    "test.vhdr": ({"Stimulus/S253": "grating_low_0"}, None, 26, 1000.0),
}


@pytest.mark.parametrize("name", FORMATS)
def test_real_formats(test_data, name):
    words, n_trials, n_chans, sfreq = FORMATS[name]
    recording = RecordingSettings(files=name, events={"annotations": words}, tmin=0.0, tmax=0.4)
    settings = DataSettings(name="recordings", recording=recording)
    if n_trials is None:
        with pytest.raises(NeuroCanvasError, match="allows Stimulus/S253"):
            open_recordings(test_data / "recordings", settings)
        return
    trials = open_recordings(test_data / "recordings", settings)
    assert len(trials) == n_trials and trials.spec.sfreq == sfreq
    signal = trials.signal([0, 5])
    assert signal.shape == (2, n_chans, round(0.4 * sfreq)) and 5 < signal.std() < 200


@pytest.mark.parametrize("name", ["motor_64ch_128Hz.edf", "test.eeg", "eeglab_data.fdt"])
def test_truncated_real_recordings(test_data, tmp_path, name):
    stem = name.split(".")[0]
    for path in (test_data / "recordings").glob(f"{stem}.*"):
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2 + 7] if path.name == name else content)
    (header,) = (path.name for path in tmp_path.iterdir() if path.suffix in (".edf", ".vhdr", ".set"))
    words = dict.fromkeys(("T0", "rt"), "") | dict.fromkeys(("T1", "T2", "square"), "grating_low_0")
    recording = RecordingSettings(files=header, events={"annotations": words}, tmin=0.0, tmax=0.4)
    with pytest.raises(NeuroCanvasError, match=re.escape(f"{header}: MNE cannot read it")):
        open_recordings(tmp_path, DataSettings(name="recordings", recording=recording)).signal()


def balanced_accuracy(features: np.ndarray, labels: np.ndarray, runs: np.ndarray) -> float:
    """Decode every run with a classifier trained on the others."""
    flat, scores = features.reshape(len(features), -1), []
    for run in np.unique(runs):
        train = runs != run
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(flat[train], labels[train])
        scores.append(balanced_accuracy_score(labels[~train], model.predict(flat[~train])))
    return float(np.mean(scores))


def test_real_gratings_are_decodable_after_the_onset_and_not_before(test_data):
    settings = load_settings(CONFIG)
    trials = open_recordings(test_data / "muse_gratings", settings.data)
    stimulus, runs = trials.column("image"), trials.column("run")
    assert np.unique(stimulus, return_counts=True)[1].tolist() == [30] * 8
    assert trials.spec.ch_names == ("TP9", "AF7", "AF8", "TP10", "POz")
    frequency = np.array([name.split("_")[1] for name in stimulus])
    after = extract(trials, settings.features)
    before = extract(trials, FeatureSettings(tmin=-0.4, tmax=0.0))
    assert balanced_accuracy(after, frequency, runs) > 0.80
    assert balanced_accuracy(after, stimulus, runs) > 0.20
    assert balanced_accuracy(before, frequency, runs) < 0.60
    assert balanced_accuracy(before, stimulus, runs) < 0.20
