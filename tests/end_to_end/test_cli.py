"""The command line: bad input is one line and exit code 2, and nothing is left half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tomli_w
import torch
from tiny import TINY, write_true_captions

from neurocanvas import __version__, cli
from neurocanvas.config import load_settings
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.workflow import run_stage


@pytest.fixture
def refused(refuse, tmp_path):
    """Run what must be refused, and leaves no file."""

    def run(*words, says):
        out = tmp_path / "out"
        refuse(*words, "-o", out, says=says)
        assert not out.exists() or not [path for path in out.rglob("*") if path.is_file()]

    return run


@pytest.fixture
def data(tiny_data, tmp_path):
    """A copy of the small data set that a test may damage."""
    return shutil.copytree(tiny_data, tmp_path / "data")


BAD_WORDS = [
    ("features -d no/folder", ["no/folder", "no such folder", "EEG-ImageNet.pth"]),
    ("features -d .", ["no EEG-ImageNet.pth", "simulate"]),
    ("features -d DATA -s 7", ["subject", "holds 0", "got 7"]),
    *((f"features -d DATA --subject={text}", ["--subject", "-1 for", repr(text)]) for text in ("1,", "")),
    ("run -c a.toml", ["a.toml", "encoder.epoch"]),
    ("run -c none.toml", ["none.toml", "no such file"]),
    ("embed -d DATA", ["neurocanvas caption`"]),
    ("report", ["scores", "run the verb evaluate"]),
    *((f"{verb} -d DATA --family sd99", ["--family", "bundled, sd14", "'sd99'"]) for verb in ("caption", "generate")),
    *((f"run -d DATA {option} odd", ["got 'odd'", "allowed are"]) for option in ("-m", "--protocol", "--dataset")),
]


@pytest.mark.parametrize(("line", "says"), BAD_WORDS)
def test_bad_words(refused, tiny_data, tmp_path, monkeypatch, line, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text("[encoder]\nepoch = 3\n")
    refused(*(str(tiny_data) if word == "DATA" else word for word in line.split()), says=says)


@pytest.mark.parametrize(
    ("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinite"), (1e-5, "flat")], ids=["nan", "inf", "flat"]
)
@pytest.mark.parametrize("trial", [5, 6], ids=["found on opening", "found on reading"])
def test_a_damaged_channel(refused, data, trial, value, word):
    path = data / "EEG-ImageNet.pth"
    content = torch.load(path, weights_only=True)
    content["dataset"][trial]["eeg_data"][60] = value
    path.unlink()
    torch.save(content, path)
    refused("features", "-d", data, says=[f"trial {trial} ", "subject 0", "channel O2", word])


def test_a_missing_picture(refused, data):
    picture = sorted(data.rglob("*.JPEG"))[0]
    picture.unlink()
    refused("caption", "-d", data, says=[str(picture), "no such file"])


def test_a_block_design_must_be_accepted(call, tmp_path):
    settings = TINY | {"simulate": {**TINY["simulate"], "design": "block"}}
    (tmp_path / "block.toml").write_text(tomli_w.dumps(settings))
    words = ["-c", tmp_path / "block.toml", "-o", tmp_path / "out"]
    run = RunFolder(tmp_path / "out", load_settings(tmp_path / "block.toml"))
    run_stage(run, "simulate")
    write_true_captions(run)
    for verb in ("features", "embed"):
        assert call(verb, *words)[0] == 0
    code, _, stderr = call("train", *words)
    assert code == 2 and "block" in stderr.splitlines()[-1] and "accept" in stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "models").exists()
    assert call("train", *words, "--accept-block-confound")[0] == 0


def test_simulate_refuses_and_keeps_what_is_not_its_own(refuse, data, tmp_path):
    (data / "EEG-ImageNet.pth.json").unlink()
    before = (data / "EEG-ImageNet.pth").read_bytes()
    refuse("simulate", "-o", data, says=["not simulated"])
    assert (data / "EEG-ImageNet.pth").read_bytes() == before
    refuse("simulate", "-o", tmp_path / "new", "--concepts", "81", says=["concepts", "81"])
    assert not (tmp_path / "new").exists()


def test_json_is_all_that_is_printed(ask, tiny_copy):
    assert set(ask("evaluate", "-o", tiny_copy)["scores"]["arms"]) == {"eeg", "shuffled", "mean", "oracle"}
    assert ask("report", "-o", tiny_copy) == {"wrote": [str(tiny_copy / "report.html")], "scores": None}


def test_a_run_prints_its_scores_and_the_report(call, tiny_copy):
    code, stdout, _ = call("run", "-o", tiny_copy)
    assert code == 0
    assert stdout.rstrip().splitlines()[-1].endswith("report.html")
    assert all(word in stdout for word in ("eeg", "shuffled", "mean", "oracle", "chance", "8 test trials"))


def test_options_reach_the_settings(call, tiny_data, tmp_path):
    words = ["-d", tiny_data, "-s", "-1", "--method", "eeg-imagenet", "-g", "coarse"]
    assert call("features", *words, "-o", tmp_path / "out")[0] == 0
    settings = load_settings(tmp_path / "out" / "run.toml")
    assert settings.data.root == str(tiny_data) and settings.data.subjects == ()
    assert (settings.features.method, settings.data.granularity) == ("eeg-imagenet", "coarse")
    values = np.load(tmp_path / "out" / "features" / "coarse" / "s0_de.npy")
    assert values.shape == (24, 62, 5) and np.isfinite(values).all()


@pytest.mark.parametrize("verb", [*cli.VERBS, "simulate"])
def test_every_verb_has_help(call, verb):
    code, stdout, _ = call(verb, "--help")
    assert code == 0 and "Usage" in stdout and "--output" in stdout


def test_as_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "neurocanvas", "features", "-d", "none", "-o", "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert [line for line in done.stderr.splitlines() if line.strip()] == [done.stderr.strip()]
    assert done.stderr.startswith("neurocanvas: none: no such folder")
    done = subprocess.run([sys.executable, "-m", "neurocanvas", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, __version__)


def test_an_output_folder_that_is_a_file(refuse, tiny_data, tmp_path):
    (tmp_path / "file").write_text("mine")
    refuse("features", "-d", tiny_data, "-o", tmp_path / "file", says=[str(tmp_path / "file")])
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("change", ["other trial", "other subject", "not json", "empty"])
def test_pictures_that_do_not_belong_to_the_run(refuse, tiny_copy, change):
    manifest = tiny_copy / "images" / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    entry = json.loads(lines[0])
    changed = {"not json": lines[0][:-9], "other trial": json.dumps(entry | {"trial": 99}),
               "other subject": json.dumps(entry | {"subject": 5}), "empty": ""}  # fmt: skip
    manifest.write_text("" if change == "empty" else "\n".join([changed[change], *lines[1:]]) + "\n")
    scores = (tiny_copy / "scores" / "summary.json").read_bytes()
    refuse("evaluate", "-o", tiny_copy, says=[str(manifest), "run `neurocanvas generate` again"])
    assert (tiny_copy / "scores" / "summary.json").read_bytes() == scores


def test_verify_names_what_is_damaged(refuse, tiny_copy, tmp_path):
    path = tiny_copy / "predictions" / "s0.npy"
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    refuse("verify", str(tiny_copy), says=["1 of ", "predictions/s0.npy", "delete"])
    (tmp_path / "none").mkdir()
    refuse("verify", str(tmp_path / "none"), says=["holds no artifacts"])
