"""The controls on EEG that `neurocanvas simulate` makes: blocks of drift alone, and a rapid design with a response."""

from pathlib import Path

import numpy as np
import pytest
from control_simulations import run_controls

from neurocanvas.audit.controls.inputs import ControlInputs
from neurocanvas.audit.controls.registry import overall
from neurocanvas.audit.controls.surrogate import time_course_and_power
from neurocanvas.config import DataSettings, FeatureSettings, SimulateSettings
from neurocanvas.data import open_trials
from neurocanvas.data.splits import groups, make_split
from neurocanvas.data.trials import ranks
from neurocanvas.features.differential_entropy import extract
from neurocanvas.simulation.dataset import simulate


def recorded(folder: Path, **asked: object) -> ControlInputs:
    """Simulate one subject and give the controls what a run has of it."""
    simulate(SimulateSettings(concepts=8, trials_per_concept=50, **asked), folder)
    trials = open_trials(DataSettings(root=str(folder)))
    splits = make_split(trials, "kfold-by-stimulus", accept_block_confound=True)
    signal = trials.signal()
    return ControlInputs(
        features=extract(trials, FeatureSettings()),
        **{name: trials.column(name) for name in ("concept", "block", "order")},
        stimulus=trials.column("image"),
        run=ranks(trials.column("run")),
        session=groups(trials, "subject", "session"),
        splits=[(np.concatenate([split.train, split.validation]), split.test) for split in splits],
        baseline=time_course_and_power(signal[:, :, :40]),
        signal=signal[:, :, 40:440],
        permutations=199,
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_drift_in_simulated_blocks_is_called_what_it_is(tmp_path: Path, seed: int) -> None:
    inputs = recorded(tmp_path, design="block", explained_variance=0.0, seed=seed)
    rows = {row["control"]: row for row in run_controls(inputs)}
    assert inputs.hits.mean() > 0.2
    # the first 40 ms, all that these files hold before a response, are too short to show drift of band power
    for name in ("block-surrogate", "drift-removal"):
        assert rows[name]["fired"], rows[name]
    assert rows["leave-block-out"]["fired"] is None
    assert rows["leave-block-out"]["reasons"][0]["code"] == "one-block-only"
    assert rows[overall(list(rows.values())).numbers["worst"]]["share"] >= 0.5
    for name in ("noise-eeg", "shuffled-pairs", "repeated-stimulus", "pseudo-concepts"):
        assert rows[name]["fired"] is not True or rows[name]["p_holm"] > 0.05, rows[name]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_response_in_a_simulated_rapid_design_is_left_alone(tmp_path: Path, seed: int) -> None:
    inputs = recorded(tmp_path, design="rapid", explained_variance=0.2, seed=seed)
    rows = run_controls(inputs)
    assert inputs.hits.mean() > 0.3
    computed = [row for row in rows if row["fired"] is not None and row["control"] != "phase-randomisation"]
    assert len(computed) >= 6
    fired = [row["control"] for row in computed if row["fired"]]
    assert len(fired) <= 1, fired
    assert not [row for row in computed if row["fired"] and row["p_holm"] <= 0.05]
