"""The stage controls: what it gives the controls of a run, and what it leaves alone."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import tiny_settings

from neurocanvas.audit.controls import surrogate as surrogate_features
from neurocanvas.audit.controls.registry import CONTROLS
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.pipeline import controls as checking
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.pipeline.train import read_inputs
from neurocanvas.workflow import run_stage

FEW = {"permutations": 19, "repeats": 1}
EVERYTHING = {need for control in CONTROLS.values() for need in control.needs}


def run_of(folder, **sections):
    return RunFolder(folder, tiny_settings(controls=FEW, **sections))


def trials_csv(folder):
    path = folder / "scores" / "trials.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        return path, list(csv.DictReader(stream))


def write(path, rows):
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("method", ["gaussian", "eeg-imagenet"])
def test_random_phases_are_asked_with_the_features_of_the_run(tiny_fork, method):
    run = tiny_fork(features={"method": method}, controls=FEW)
    run_stage(run, "features")
    inputs = checking._inputs(run, "0", EVERYTHING)
    made = inputs.extract(inputs.signal[np.arange(24)])
    np.testing.assert_allclose(made, read_inputs(run, "0"), rtol=1e-5)
    assert len(inputs.signal) == 24 and inputs.signal[np.array([3])].shape[0] == 1


def test_what_no_control_needs_is_not_computed(tiny_copy, monkeypatch):
    def forbidden(*_):
        """Nobody asked for it."""
        raise AssertionError

    run = RunFolder(tiny_copy, tiny_settings(controls={**FEW, "names": ["noise-eeg"]}))
    assert run.subjects  # opening reads some trials to check the unit
    for name in ("_before_the_picture", "_concept_embeddings", "_low_level", "_arm_scores"):
        monkeypatch.setattr(checking, name, forbidden)
    monkeypatch.setattr(checking.Trials, "signal", forbidden)
    run_stage(run, "controls")
    found = json.loads((tiny_copy / "scores" / "controls.json").read_text())
    assert [row["control"] for row in found["rows"]] == ["noise-eeg"] and found["rows"][0]["fired"] is not None


def test_confusions_may_use_embeddings(tiny_copy):
    run = run_of(tiny_copy)
    asked = CONTROLS["confusions-in-time"]
    assert checking._inputs(run, "0", {*asked.needs, *asked.may_use}).embeddings is not None
    assert checking._inputs(run, "0", set()).embeddings is None


def test_a_window_that_is_too_short_for_the_features_costs_one_control_only(tiny_fork):
    run = tiny_fork(features={"method": "eeg-imagenet"}, controls=FEW)
    run_stage(run, "features")
    run_stage(run, "controls")
    rows = {row["control"]: row for row in json.loads((run.folder / "scores" / "controls.json").read_text())["rows"]}
    assert rows["baseline-window"]["reasons"][0]["code"] == "no-baseline"
    assert rows["noise-eeg"]["fired"] is not None


def test_the_baseline_begins_where_trials_do(monkeypatch):
    monkeypatch.setattr(checking, "extract", lambda _, settings: np.array([settings.tmin, settings.tmax]))
    for tmin, window in ((-0.5, (-0.2, 0.0)), (-0.15, (-0.15, 0.0)), (0.0, (0.0, 0.04))):
        found = checking._before_the_picture(SimpleNamespace(spec=SimpleNamespace(tmin=tmin)), tiny_settings().features)
        assert found.tolist() == list(window)


def test_units_of_arms_are_pictures_in_mixed_order_and_blocks_in_a_blocked_design(tiny_copy, monkeypatch):
    run = run_of(tiny_copy)
    _, rows = trials_csv(tiny_copy)
    own = sorted((row for row in rows if row["arm"] == "eeg"), key=lambda row: int(row["trial"]))
    found = checking._arm_scores(run, "0")
    assert set(found["arms"]) == {"eeg", "shuffled", "mean"}
    assert found["arms"]["eeg"].tolist() == [float(row["two_way"]) for row in own]
    stimuli = np.array([row["stimulus"] for row in own])
    assert len(np.unique(found["arm_units"])) == len(np.unique(stimuli))

    trials = np.array([int(row["trial"]) for row in own])
    monkeypatch.setattr(checking, "blocked_trials", lambda trials: np.ones(len(trials), bool))
    run.subjects["0"].metadata["block"] = np.arange(24) // 12
    units = checking._arm_scores(run, "0")["arm_units"]
    assert len(np.unique(units)) == 2 and ((units[:, None] == units) == (trials[:, None] // 12 == trials // 12)).all()


def test_arms_are_paired_by_trial_not_by_line(tiny_copy):
    path, rows = trials_csv(tiny_copy)
    before = checking._arm_scores(run_of(tiny_copy), "0")
    write(path, rows[::-1])
    after = checking._arm_scores(run_of(tiny_copy), "0")
    assert all((before["arms"][arm] == after["arms"][arm]).all() for arm in before["arms"])
    assert (before["arm_units"] == after["arm_units"]).all()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda row: {key: value for key, value in row.items() if key != "two_way"},
        lambda row: {**row, "two_way": "high"},
        lambda row: {**row, "two_way": ""},
        lambda row: {**row, "trial": "1000"},
    ],
)
def test_a_damaged_table_of_scores_is_named_with_the_verb_that_makes_it(tiny_copy, spoil):
    path, rows = trials_csv(tiny_copy)
    write(path, [spoil(row) for row in rows])
    with pytest.raises(NeuroCanvasError, match=r"trials\.csv: .*evaluate`? again"):
        checking._arm_scores(run_of(tiny_copy), "0")


def test_without_scores_the_verb_that_makes_them_is_named(tiny_copy):
    (tiny_copy / "scores" / "trials.csv").unlink()
    run = RunFolder(tiny_copy, tiny_settings(controls={"permutations": 19, "names": ["null-generators"]}))
    run_stage(run, "controls")
    [row] = json.loads((tiny_copy / "scores" / "controls.json").read_text())["rows"]
    assert [one["code"] for one in row["reasons"]] == ["no-arms"]


def test_features_of_a_run_hardly_depend_on_phases(tiny_copy):
    """So the control says of them that it was bound to fire."""
    inputs = checking._inputs(run_of(tiny_copy), "0", EVERYTHING)
    signal = inputs.signal[np.arange(24)]
    real, surrogate = (
        inputs.extract(made).reshape(24, -1)
        for made in (signal, surrogate_features.phase_randomised(signal, rng=np.random.default_rng(0)))
    )
    assert surrogate_features._correlation(real, surrogate) > surrogate_features.SAME_FEATURES
