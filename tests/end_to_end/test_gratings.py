"""The main job on real EEG: three runs of a Muse headband and gratings, whose picture is known for every trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurocanvas.config import load_settings
from neurocanvas.stages import STAGES, run_all, run_stage
from neurocanvas.stages.run import Run

CONFIG = Path(__file__).parents[2] / "configs" / "muse_gratings.toml"


def score(folder, test_data, until="evaluate", **changes):
    """Run the committed settings, with changes, and read the scores."""
    settings = load_settings(CONFIG, data={"root": str(test_data / "muse_gratings")}, **changes)
    run = Run(folder, settings)
    for name in STAGES:
        run_stage(run, name)
        if name == until:
            break
    return json.loads((folder / "scores" / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_job(tmp_path, test_data):
    settings = load_settings(CONFIG, data={"root": str(test_data / "muse_gratings")})
    page = run_all(Run(tmp_path, settings))
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["n_trials"] == 240 and summary["n_pictures"] == 8
    eeg, shuffled, oracle = (summary["arms"][arm]["two_way"] for arm in ("eeg", "shuffled", "oracle"))
    assert eeg["value"] > shuffled["value"]
    assert eeg["p"] < 0.01 and eeg["p_vs_shuffled"] < 0.01
    assert eeg["value"] >= 0.65
    assert shuffled["p"] > 0.05
    assert oracle["value"] >= 0.95
    assert page.is_file()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_before_the_onset_there_is_nothing(tmp_path, test_data):
    summary = score(tmp_path, test_data, features={"tmin": -0.4, "tmax": 0.0}, generate={"arms": ["eeg", "shuffled"]})
    assert summary["n_trials"] == 240
    eeg = summary["arms"]["eeg"]["two_way"]
    assert eeg["p"] > 0.05 and eeg["value"] < 0.55


SHORT = {"max_trials": 64, "steps": 8}


def test_a_part_of_the_job(tmp_path, test_data):
    summary = score(tmp_path, test_data, generate={**SHORT, "arms": ["eeg", "shuffled", "oracle"]})
    assert summary["n_trials"] == 64 and summary["n_pictures"] == 8
    eeg, shuffled, oracle = (summary["arms"][arm]["two_way"] for arm in ("eeg", "shuffled", "oracle"))
    assert eeg["value"] > shuffled["value"]
    assert eeg["p"] < 0.01 and eeg["p_vs_shuffled"] < 0.01
    assert shuffled["p"] > 0.05
    assert oracle["value"] >= 0.95


def test_a_part_of_the_job_before_the_onset(tmp_path, test_data):
    summary = score(tmp_path, test_data, features={"tmin": -0.4, "tmax": 0.0}, generate={**SHORT, "arms": ["eeg"]})
    assert summary["arms"]["eeg"]["two_way"]["p"] > 0.05
