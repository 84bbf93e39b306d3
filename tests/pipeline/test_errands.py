"""What run.toml says after errands, and the audit of runs whose run.toml, scores or sidecars say another thing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tiny import tiny_settings, write_true_captions

from neurocanvas import artifacts
from neurocanvas.config import save_settings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.pipeline.audit import audit
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.report.text import audited, sentence, verdict
from neurocanvas.workflow import run_stage

OTHER = {"protocol": "kfold-by-stimulus", "folds": 2}


def codes(findings):
    return [one["code"] for one in findings]


@pytest.mark.parametrize("change", [OTHER, {"seed": 1}, {"val_fraction": 0.5}], ids=["protocol", "seed", "fraction"])
def test_weights_of_another_split_than_that_of_the_folder_claim_nothing(tiny_copy, change):
    assert audit(tiny_copy)["cases"][0]["other_split"] == {}
    (tiny_copy / "splits" / "0.json").unlink()
    RunFolder(tiny_copy, tiny_settings(split=change)).split("0")
    found = audit(tiny_copy)
    [case] = found["cases"]
    assert case["verdict"]["code"] == "other-split" and case["can"] == []
    assert found["verdict"]["code"] == "other-split"
    assert "was trained on another split than that of the run folder" in verdict(found)
    assert "mlp_sd_s0_fold0_model.safetensors" in verdict(found) and "`neurocanvas train`" in verdict(found)
    assert "not-shared" in codes(case["cannot"])


@pytest.mark.parametrize("protocol", ["leave-subject-out", "pretrain-finetune"])
def test_a_split_that_pools_subjects_is_the_one_that_trained(protocol, tmp_path):
    simulate = {"subjects": 3, "concepts": 4, "trials_per_concept": 6, "stages": 2}
    run = RunFolder(tmp_path, tiny_settings(simulate=simulate, split={"protocol": protocol}, encoder={"epochs": 1}))
    for name in ("simulate", "features"):
        run_stage(run, name)
    write_true_captions(run)
    for name in ("embed", "train"):
        run_stage(run, name)
    assert audit(tmp_path)["cases"][0]["verdict"]["code"] == "no-answers"
    shutil.rmtree(tmp_path / "data")
    save_settings(tiny_settings(simulate=simulate), tmp_path / "run.toml")
    [case] = audit(tmp_path)["cases"]  # of the split that trained, whatever run.toml says
    assert case["verdict"]["code"] == "no-answers" and case["name"].startswith(protocol)


def test_imported_weights_say_nothing_of_their_split(tiny_copy):
    path = next(tiny_copy.glob("models/*_model.safetensors"))
    sidecar = artifacts.read_sidecar(path)
    del sidecar["split"], sidecar["selection"]
    artifacts.write_json(artifacts.sidecar_path(path), sidecar)
    with pytest.raises(NeuroCanvasError, match=r"damaged \(KeyError: 'split'\); run `neurocanvas train` again"):
        audit(tiny_copy)
    artifacts.write_json(artifacts.sidecar_path(path), {**sidecar, "imported": True})
    [case] = audit(tiny_copy)["cases"]
    assert case["verdict"]["code"] != "other-split" and case["results"][0]["selection"] == "unknown"


def test_transductive_rules_of_retrieval_are_said_beside_the_score(tiny_copy):
    path = tiny_copy / "scores" / "summary.json"
    rules = {"greedy": False, "hungarian": True, "csls": True, "centred greedy": True}
    summary = json.loads(path.read_text(encoding="utf-8"))
    plain = verdict(audit(tiny_copy))
    artifacts.write_json(path, {**summary, "retrieval": {rule: {"transductive": one} for rule, one in rules.items()}})
    [case] = audit(tiny_copy)["cases"]
    assert case["transductive"] == {"rules": "hungarian, csls, centred greedy", "alone": "greedy"}
    assert "whole-set-beside" in codes(case["cannot"])
    assert case["results"][0]["transductive"] == [] and verdict(audit(tiny_copy)) == plain
    artifacts.write_json(path, {**summary, "retrieval": {"greedy": {"transductive": False}}})
    assert audit(tiny_copy)["cases"][0]["transductive"] == {}


EEG = {"value": 0.5, "chance": 0.5, "low": None, "high": None, "p": 0.5}
SUMMARIES = {
    "nothing": {}, "list": [], "number": 3, "no arms": {"arms": {}}, "arms are a list": {"arms": ["eeg"]},
    "an arm is a number": {"arms": {"eeg": 1}}, "no two_way": {"arms": {"eeg": {}}, "n_trials": 8},
    "no value": {"arms": {"eeg": {"two_way": {**EEG, "value": None}}}, "n_trials": 8},
    "p is a text": {"arms": {"eeg": {"two_way": {**EEG, "p": "small"}}}, "n_trials": 8},
    "no number of trials": {"arms": {"eeg": {"two_way": EEG}}},
    "rules are texts": {"arms": {"eeg": {"two_way": EEG}}, "n_trials": 8, "retrieval": {"greedy": "yes"}},
    "findings are numbers": {"arms": {"eeg": {"two_way": EEG}}, "n_trials": 8, "findings": [[1]]},
}  # fmt: skip


@pytest.mark.parametrize("fault", [*SUMMARIES, "no JSON"])
def test_damaged_scores_are_one_sentence(fault, tiny_copy):
    path = tiny_copy / "scores" / "summary.json"
    path.write_text(json.dumps(SUMMARIES[fault]) if fault in SUMMARIES else "{", encoding="utf-8")
    with pytest.raises(NeuroCanvasError, match=r"summary.json: damaged .*; run `neurocanvas evaluate` again") as raised:
        audit(tiny_copy)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("sidecar", [[], 3, {}, {"split": 1}, {"split": {}}])
def test_damaged_cards_of_mappers_are_one_sentence(sidecar, tiny_copy):
    path = next(tiny_copy.glob("models/*_model.safetensors"))
    artifacts.write_json(artifacts.sidecar_path(path), sidecar)
    with pytest.raises(NeuroCanvasError, match=r"safetensors.json: damaged .*; run `neurocanvas train` again"):
        audit(tiny_copy)
    artifacts.sidecar_path(path).unlink()
    with pytest.raises(NeuroCanvasError, match=r"safetensors.json: no such file; .*`neurocanvas train`"):
        audit(tiny_copy)


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """The folder of a run that one classifier answered. Only for reading."""
    folder = tmp_path_factory.mktemp("classified")
    settings = tiny_settings(classify={"models": ["ridge"]}, benchmark={"permutations": 19})
    run_stage(RunFolder(folder, settings), "classify")
    return folder


BROKEN_CARDS = {
    "list": lambda sidecar: [], "nothing": lambda sidecar: {}, "subject": lambda sidecar: {**sidecar, "subject": 0},
    "findings": lambda sidecar: {**sidecar, "findings": [[1]]},
    "concepts": lambda sidecar: {**sidecar, "concepts": [1, 2, 3, 4]},
    "others": lambda sidecar: {**sidecar, "concepts": [f"none{number}" for number in range(4)]},
}  # fmt: skip
BROKEN_TABLES = {
    "narrow": lambda table: table[:, :3], "flat": lambda table: table[0], "empty": lambda table: table[:0],
    "texts": lambda table: table.astype(str), "no numbers": lambda table: table * np.nan,
    "other trials": lambda table: table + 1e6,
}  # fmt: skip


@pytest.mark.parametrize("fault", [*BROKEN_CARDS, *BROKEN_TABLES, "no card"])
def test_damaged_answers_of_classifiers_are_one_sentence(fault, classified, tmp_path):
    folder = shutil.copytree(classified, tmp_path / "run")
    path = folder / "classification" / "by-stimulus" / "all" / "ridge_s0.npy"
    assert audit(folder)["cases"][0]["other_split"] == {}
    if fault in BROKEN_CARDS:
        artifacts.write_json(artifacts.sidecar_path(path), BROKEN_CARDS[fault](artifacts.read_sidecar(path)))
    elif fault in BROKEN_TABLES:
        np.save(path, BROKEN_TABLES[fault](np.load(path)))
    else:
        artifacts.sidecar_path(path).unlink()
    with pytest.raises(NeuroCanvasError, match=r"ridge_s0.npy(.json)?: .*`neurocanvas classify`") as raised:
        audit(folder)
    assert "\n" not in str(raised.value)


def test_pictures_made_elsewhere_are_audited_by_their_scores_and_table(theirs):
    theirs.score()
    summary = json.loads((theirs.folder / "scores" / "summary.json").read_text(encoding="utf-8"))
    found = audit(theirs.folder)
    [case] = found["cases"]
    [result] = case["results"]
    given = summary["arms"]["given"]["two_way"]
    assert all(result[name] == given[name] for name in ("value", "chance", "low", "high", "p"))
    assert result["selection"] == "unknown" and result["n"] == 8 and case["design"] == "mixed"
    assert case["trials"] == {"test": 8, "gallery": 8} and case["block"] is None
    assert case["verdict"]["code"] == "unchecked" and "without the training trials of the model" in verdict(found)
    assert "images made elsewhere" in verdict(found) and "split = train" not in json.dumps(case)
    assert "share-unknown" in codes(case["cannot"])
    assert "paired-by-table" in codes(case["findings"]) and audited(found)[0]


def test_what_the_table_of_pictures_does_not_say_is_unknown(theirs):
    theirs.score(header=("image", "against"))
    [case] = audit(theirs.folder)["cases"]
    assert case["design"] == "unknown" and "without the columns concept and order or block" in sentence(case["verdict"])
    theirs.score(rows=theirs.blocks())
    for change in (lambda: None, theirs.pairs.unlink):  # without the table the scores say that blocks were exchanged
        change()
        [case] = audit(theirs.folder)["cases"]
        assert case["design"] == "block" and case["verdict"]["code"] == "block-unknown"
        assert "ask the authors of the images" in sentence(case["verdict"]) and case["trials"]["test"] == 24
    assert "pairs-missing" in codes(case["findings"])
    shutil.rmtree(theirs.folder / "scores")
    assert audit(theirs.folder)["cases"][0]["verdict"]["code"] == "no-answers"
