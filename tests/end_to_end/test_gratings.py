"""The main job on real EEG: three runs of a Muse headband and gratings, whose image is known for every trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurocanvas.config import load_settings
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.workflow import run_all

CONFIG = Path(__file__).parents[2] / "configs" / "muse_gratings.toml"


SLOW = [pytest.mark.slow, pytest.mark.timeout(3600)]
PARTS = [pytest.param({"max_trials": 64, "steps": 8}, id="64 trials"), pytest.param({}, marks=SLOW, id="all trials")]


def score(folder, test_data, **changes):
    """Run the committed settings, with changes, and read the scores."""
    settings = load_settings(CONFIG, data={"root": str(test_data / "muse_gratings")}, **changes)
    page = run_all(RunFolder(folder, settings))
    assert page.is_file()
    return json.loads((folder / "scores" / "summary.json").read_text())


@pytest.mark.parametrize("part", PARTS)
def test_the_job(tmp_path, test_data, part):
    changes = {"generate": {**part, "arms": ["eeg", "shuffled", "oracle"]}} if part else {}
    summary = score(tmp_path, test_data, **changes)
    assert summary["n_trials"] == (64 if part else 240) and summary["n_pictures"] == 8
    eeg, shuffled, oracle = (summary["arms"][arm]["two_way"] for arm in ("eeg", "shuffled", "oracle"))
    assert eeg["value"] > shuffled["value"] and eeg["value"] >= (0 if part else 0.65)
    # Partners of the shuffled arm are dealt over all 240 test trials: their mix is less even among 64 of them.
    assert eeg["p"] < 0.01 and eeg["p_vs_shuffled"] < (0.05 if part else 0.01) and shuffled["p"] > 0.05
    assert oracle["value"] >= 0.95


@pytest.mark.parametrize("part", PARTS)
def test_before_the_onset_there_is_nothing(tmp_path, test_data, part):
    arms = ["eeg"] if part else ["eeg", "shuffled"]
    summary = score(tmp_path, test_data, features={"tmin": -0.4, "tmax": 0.0}, generate={**part, "arms": arms})
    eeg = summary["arms"]["eeg"]["two_way"]
    assert eeg["p"] > 0.05 and (part or eeg["value"] < 0.55)
