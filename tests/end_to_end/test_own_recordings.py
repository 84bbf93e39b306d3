"""docs/own_recordings.md: every command and settings file of the page runs on small simulated files."""

from __future__ import annotations

import re
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import neurocanvas as nc
from neurocanvas.errors import NeuroCanvasError

PAGE = Path(__file__).parents[2] / "docs" / "own_recordings.md"
BLOCKS = re.findall(r"```(toml|sh)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
SFREQ, NAMES = 250.0, ["O1", "Oz", "O2"]


def made(seed, n=48):
    """Microvolts of a recording in which faces and houses differ, their onsets and names."""
    rng = np.random.default_rng(seed)
    words = rng.permutation(np.repeat(["face", "house"], n // 2))
    onsets = 250 * (1 + np.arange(n))
    signal = rng.normal(0, 10, (3, 250 * (n + 2)))
    for onset, word in zip(onsets, words, strict=True):
        signal[:, onset + 25 : onset + 75] += np.array([[25], [10], [-10]]) * (1 if word == "face" else -1)
    return signal, onsets, words


def raw_of(signal, onsets=(), words=()):
    raw = mne.io.RawArray(signal * 1e-6, mne.create_info(NAMES, SFREQ, "eeg"), verbose="error")
    raw.set_annotations(mne.Annotations(np.array(onsets) / SFREQ, 0.3, list(words)))
    return raw


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """The folders that the page names, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for folder in ("recordings", "bids", "muse", "epochs", "arrays"):
        Path("data", folder).mkdir(parents=True)
    for run in (1, 2):
        signal, onsets, words = made(run)
        raw = raw_of(signal, onsets, words)
        raw.save(f"data/recordings/sub-anna_run-{run}_raw.fif", fmt="double", verbose="error")
        signal, onsets, words = made(10 + run)
        stem = Path(f"data/bids/sub-01/eeg/sub-01_task-view_run-{run}")
        stem.parent.mkdir(parents=True, exist_ok=True)
        raw_of(signal).save(f"{stem}_eeg.fif", fmt="double", verbose="error")
        files = [f"{word}.png" for word in words]
        table = {"onset": onsets / SFREQ, "duration": 0.3, "trial_type": words, "stim_file": files}
        pd.DataFrame(table).to_csv(f"{stem}_events.tsv", sep="\t", index=False)
        channels = {"name": NAMES, "type": "EEG", "units": "V", "status": ["good", "good", "bad"]}
        pd.DataFrame(channels).to_csv(f"{stem}_channels.tsv", sep="\t", index=False)
        signal, onsets, words = made(20 + run)
        marker = np.full(signal.shape[1], "", dtype=object)
        marker[onsets] = words
        times = 100 + np.arange(signal.shape[1]) / SFREQ
        columns = {"timestamps": times, **dict(zip(NAMES, signal)), "Marker0": marker}
        pd.DataFrame(columns).to_csv(f"data/muse/run-{run}.csv", index=False)
    signal, onsets, words = made(30)
    events = np.column_stack([onsets, np.zeros_like(onsets), np.where(words == "face", 1, 2)])
    metadata = pd.DataFrame({"category": words, "run": np.arange(48) // 24})
    epochs = mne.Epochs(
        raw_of(signal), events, {"one": 1, "two": 2}, -0.2, 0.8, baseline=None, metadata=metadata, preload=True,
        verbose="error",
    )  # fmt: skip
    epochs.save("data/epochs/sub-01-epo.fif", fmt="double", verbose="error")
    np.savez("data/arrays/trials.npz", signal=epochs.get_data(copy=True) * 1e6)
    metadata.to_csv("data/arrays/trials.csv", index=False)
    for name, colour in (("face", (200, 150, 120)), ("house", (60, 90, 160))):
        for number in (1, 2):
            path = Path("data/pictures/imageNet_images") / name / f"{name}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((64, 64, 3), colour, np.uint8)
            pixels[8 * number : 40, 16:48] += 40
            Image.fromarray(pixels).save(path)
    return tmp_path


def test_every_command_of_the_page_runs_and_finds_what_is_planted(inputs, call):
    told = {}
    for kind, block in BLOCKS:
        if kind == "toml":
            Path(block.split("\n")[0].removeprefix("# ")).write_text(block, encoding="utf-8")
            continue
        for line in block.replace("\\\n", "").splitlines():
            if not line.startswith("neurocanvas "):
                continue  # a program that needs the public recordings
            code, out, err = call(*line.split()[1:])
            assert code == 0, f"{line}: {err}"
            told[line] = out + err
    for name in ("recordings", "bids", "muse", "epochs", "arrays", "edited"):
        [line] = [line for line in told if f"-o runs/{name} " in line]
        accuracy = float(re.search(r"LDA\*\s+all\s+\d+\s+(\d?\.\d+)", told[line])[1])
        assert accuracy > 0.9, told[line]
    for name, said in (("recordings", "96 events of the recordings gave 96"), ("bids", "not used or interpolated: O2")):
        assert said in told[next(line for line in told if f"-o runs/{name}" in line)]


def test_init_says_where_there_are_too_few_events_and_overwrites_nothing(tmp_path, test_data, call):
    for name in ("test.vhdr", "multiple_annotation_chans.bdf"):
        code, out, err = call("init", test_data / "recordings" / name, "-o", tmp_path / "x.toml")
        assert code == 2 and "too few events" in err and "annotations" in out and not list(tmp_path.iterdir())
    (tmp_path / "x.toml").write_text("")
    code, _, err = call("init", test_data / "muse_gratings", "-o", tmp_path / "x.toml")
    assert code == 2 and "is there already" in err


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("muse_gratings", "480 events"), ("muse_faces_houses", "1174 events"),
        ("recordings/motor_64ch_128Hz.edf", "38 events"), ("recordings/eeglab_data.set", "154 events"),
    ],
)  # fmt: skip
def test_what_init_writes_for_real_recordings_runs_without_an_edit(source, line, tmp_path, test_data, call):
    code, _, err = call("init", test_data / source, "-o", tmp_path / "x.toml")
    assert code == 0, err
    code, out, err = call("classify", "-c", tmp_path / "x.toml", "-o", tmp_path / "run", "-m", "ridge")
    assert code == 0 and f"{line} of the recordings gave" in out, err


def test_arrays_in_a_notebook_give_accuracy_audit_and_page(tmp_path):
    signal, onsets, words = made(5)
    x = np.stack([signal[:, onset - 50 : onset + 200] for onset in onsets])
    trials = nc.from_arrays(x, words, ch_names=NAMES, sfreq=SFREQ, tmin=-0.2, unit="uV")
    result = nc.classify(trials, ["lda"], progress=False)
    row = result.scores.loc["lda"]
    assert row["accuracy"] > 0.9 and row["chance"] == pytest.approx(0.5, abs=0.05)
    assert row["p"] < 0.01 and row["n"] == 48
    assert result.audit()["cases"][0]["results"][0]["low"] > 0.5
    assert "LDA" in result.report(tmp_path / "page.html").read_text(encoding="utf-8")
    with pytest.raises(NeuroCanvasError, match=r"classify\.models"):
        nc.classify(trials, ["no-such-model"])
    with pytest.raises(NeuroCanvasError, match="Trials are needed, see from_arrays; got ndarray"):
        nc.classify(x)


def test_init_finds_images_beside_recordings_and_other_tables_are_no_recordings(inputs, call):
    for name in ("face", "house"):
        Path("data/bids/stimuli", name).mkdir(parents=True)
        Image.new("RGB", (16, 16), (90, 60, 30)).save(Path("data/bids/stimuli", name, f"{name}.png"))
    code, out, err = call("init", "data/bids", "-o", "bids.toml")
    assert code == 0 and '"*.png" = "{}"' in Path("bids.toml").read_text(), err
    for _ in range(2):  # the second time the run folder and its tables lie among the recordings
        words = ("classify", "-c", "bids.toml", "-o", "data/bids/run", "-m", "lda", "--protocol", "leave-run-out")
        code, out, err = call(*words)
        assert code == 0 and "96 events of the recordings gave 96 trials" in out, err
    trials = nc.open_dataset("recordings", "data/bids", recording={
        "events": {"stim_file": {"*.png": "{}"}}, "pictures": "data/bids/stimuli", "tmin": -0.2, "tmax": 0.8,
    })  # fmt: skip
    assert set(zip(trials.y, trials.column("image"))) == {("face", "face.png"), ("house", "house.png")}
