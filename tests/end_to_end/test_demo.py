"""The bundled run: what `make demo` promises, in full (slow) and in small."""

from __future__ import annotations

import json

import pytest
from tiny import tiny_settings, write_true_captions

from neurocanvas.config import DEMO, load_settings
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.workflow import STAGES, run_all, run_stage

METRICS = {"two_way", "n_way", "concept_top1", "concept_top5", "pixcorr", "ssim"}


def read_summary(folder):
    """The scores of a run."""
    return json.loads((folder / "scores" / "summary.json").read_text())


def check_form(summary, arms):
    """Check that the summary has the promised form."""
    assert set(summary["arms"]) == set(arms)
    for metrics in summary["arms"].values():
        assert set(metrics) >= METRICS
        for metric, score in metrics.items():
            assert {"value", "low", "high", "p", "chance"} <= set(score)
            assert score["low"] <= score["value"] <= score["high"]
            assert score["p"] is None if metric.endswith("@mindeye") else 0 < score["p"] <= 1
    assert isinstance(summary["findings"], list)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_keeps_its_promise(tmp_path):
    settings = load_settings(DEMO)
    page = run_all(RunFolder(tmp_path, settings))
    summary = read_summary(tmp_path)
    check_form(summary, settings.generate.arms)
    arms = summary["arms"]
    assert summary["n_trials"] >= 72 and settings.generate.steps <= 20
    assert arms["oracle"]["concept_top1"]["value"] >= 0.85
    assert arms["eeg"]["two_way"]["value"] >= 0.75
    assert arms["eeg"]["two_way"]["low"] > arms["shuffled"]["two_way"]["high"]
    for arm in ("shuffled", "mean"):
        score = arms[arm]["two_way"]
        assert abs(score["value"] - 0.5) <= 0.08 and score["p"] > 0.01
    text = page.read_text()
    assert "two-way" in text.lower() and "oracle" in text and "shuffled" in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "<script src" not in text


def test_every_stage_in_small(tiny_run):
    summary = read_summary(tiny_run)
    check_form(summary, ("eeg", "shuffled", "mean", "oracle"))
    assert summary["n_trials"] == summary["n_pictures"] == 8
    assert {concept["n"] for concept in summary["concepts"].values()} == {2}
    assert "oracle" in (tiny_run / "report.html").read_text()
    lines = [json.loads(line) for line in (tiny_run / "log.jsonl").read_text().splitlines()]
    stages = ["simulate", "features", "caption", "embed", "train", "predict", "generate", "evaluate", "report"]
    assert [line["stage"] for line in lines if "seconds" in line] == stages == list(STAGES)


def test_without_a_brain_response_eeg_is_at_chance(tmp_path):
    """Forty held-out trials of four concepts."""
    settings = tiny_settings(
        simulate={"trials_per_concept": 30, "explained_variance": 0.0},
        generate={"arms": ["eeg", "oracle"], "steps": 6, "shard": 20},
        encoder={"epochs": 60, "patience": 15},
        evaluate={"permutations": 999},
    )
    run = RunFolder(tmp_path, settings)
    run_stage(run, "simulate")
    write_true_captions(run)
    run_all(run)
    summary = read_summary(tmp_path)
    assert summary["n_trials"] == 40
    eeg = summary["arms"]["eeg"]
    assert eeg["two_way"]["p"] > 0.01 and eeg["concept_top1"]["p"] > 0.01
    assert abs(eeg["two_way"]["value"] - 0.5) < 0.12
