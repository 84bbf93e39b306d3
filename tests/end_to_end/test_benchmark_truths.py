"""What classifiers make of simulated EEG of known content: what the planted signal allows, and nothing from nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from neurocanvas.config import ClassifySettings, DataSettings, FeatureSettings, load_settings
from neurocanvas.data import open_trials
from neurocanvas.data.splits import Fold
from neurocanvas.decoder import Decoder
from neurocanvas.features.differential_entropy import extract
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.simulation.dataset import simulate
from neurocanvas.workflow import run_stage

CONFIGS = Path(__file__).parents[2] / "configs"
WITHIN_BLOCKS = {"released", "within-block-gap", "by-stimulus", "kfold-by-stimulus"}


def planted(folder, trials_per_concept, explained_variance):
    """Features and concepts of simulated trials in random order, and their rows shuffled."""
    asked = {"concepts": 8, "trials_per_concept": trials_per_concept, "explained_variance": explained_variance}
    simulate(load_settings(None, simulate=asked).simulate, folder)
    trials = open_trials(DataSettings(root=str(folder)))
    y = np.unique(trials.column("concept"), return_inverse=True)[1]
    rows = np.random.default_rng(0).permutation(len(y))
    return extract(trials, FeatureSettings()), y, rows, trials.spec


def reached(name, x, y, split, spec, settings):
    """Accuracy of a classifier on the test trials."""
    known = y.copy()
    known[split.test] = -1
    how = {"epochs": settings.epochs, "patience": settings.patience, "batch_size": settings.batch_size}
    decoder = Decoder(name, "concept", **how).fit_prepared(
        x, known, spec, train=split.train, validation=split.validation
    )
    return float(np.mean(decoder.outputs(x[split.test]).argmax(axis=1) == y[split.test]))


def accuracy_of_gaussian_rule(x, y, train, test):
    """Accuracy of Bayes' rule for Gaussian classes of one covariance, their moments taken from `train`.

    The simulator moves log band power by a sum of the concept's code, the pictures' other parameters and noise, so
    given the concept, features are nearly Gaussian, and their covariance is the same for all concepts.
    """
    rule = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x[train], y[train])
    return float(np.mean(rule.predict(x[test]) == y[test]))


@pytest.mark.slow
def test_mlp_svm_and_rgnn_come_near_what_the_planted_signal_allows(tmp_path):
    features, y, rows, spec = planted(tmp_path, 1000, 0.2)
    test, rest = rows[:800], rows[800:]
    flat = features.reshape(len(features), -1)
    allowed = accuracy_of_gaussian_rule(flat, y, rest, test)  # 900 trials a concept
    assert accuracy_of_gaussian_rule(flat, y, rest[::2], test) == pytest.approx(allowed, abs=0.03)  # it has settled
    assert 0.7 < allowed < 0.9
    split = Fold("planted", rest[:6000], rest[6000:6600], test, "")  # 750 trials a concept
    found = {name: reached(name, features, y, split, spec, ClassifySettings()) for name in ("mlp", "svm", "rgnn")}
    assert found["mlp"] > allowed - 0.03 and found["svm"] > allowed - 0.03, (allowed, found)
    # RGNN has the same weights at all nodes and mixes them by one symmetric matrix: it falls short (.08 when measured)
    assert found["rgnn"] > allowed - 0.12, (allowed, found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_rgnn_learns_spatial_signal_in_either_layout(tmp_path):
    """What the right layout adds is smaller than what a seed does: .698 and .690, seeds within .03, when measured."""
    features, y, rows, spec = planted(tmp_path, 300, 0.2)
    split = Fold("spatial", rows[:1600], rows[1600:1900], rows[1900:], "")
    found = {
        layout: np.mean([
            reached("rgnn", features, y, split, spec, ClassifySettings(rgnn_layout=layout, seed=seed))
            for seed in range(3)
        ])
        for layout in ("channel-major", "scrambled")
    }  # fmt: skip
    assert min(found.values()) > 0.6, found  # of 8 concepts
    assert abs(found["channel-major"] - found["scrambled"]) < 0.06, found


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("design", ["block", "rapid"])
def test_without_signal_only_splits_inside_blocks_score(design, tmp_path):
    settings = load_settings(CONFIGS / f"zero_signal_{design}.toml")
    run_stage(RunFolder(tmp_path, settings), "benchmark")
    rows = json.loads((tmp_path / "scores" / "benchmark.json").read_text(encoding="utf-8"))["rows"]
    assert {row["protocol"] for row in rows} == set(settings.benchmark.protocols)
    for row in rows:
        inside = design == "block" and row["protocol"] in WITHIN_BLOCKS
        if not inside:
            assert row["p_holm"] >= 0.05, row
        elif row["model"] in ("mlp", "svm", "ridge"):
            assert row["p_holm"] < 0.05 and row["mean"] > 1.3 * row["chance"], row
            assert any(one["severity"] == "serious" for one in row["findings"])


def test_without_signal_blocks_are_decoded_and_sessions_are_not(tmp_path):
    asked = {"design": "block", "concepts": 6, "trials_per_concept": 30, "stages": 2, "explained_variance": 0.0}
    protocols = ["kfold-by-stimulus", "leave-session-out", "leave-block-out"]
    settings = load_settings(
        None, simulate=asked, split={"accept_block_confound": True}, classify={"models": ["svm", "ridge"]},
        benchmark={"granularities": ["all"], "protocols": protocols, "permutations": 499},
    )  # fmt: skip
    run_stage(RunFolder(tmp_path, settings), "benchmark")
    rows = json.loads((tmp_path / "scores" / "benchmark.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 6
    for row in rows:
        if row["protocol"] == "kfold-by-stimulus":
            assert row["p_holm"] < 0.05 and row["mean"] > 1.3 * row["chance"], row
        else:
            assert row["p_holm"] >= 0.05 and abs(row["mean"] - row["chance"]) < 0.1, row
