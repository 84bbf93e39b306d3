"""The command line: bad input is one line and exit code 2, and nothing is left half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tomli_w
from tiny import TINY, write_true_captions

from neurocanvas import __version__, cli


@pytest.fixture
def refused(call, tmp_path):
    """Run what must be refused: exit code 2, one line with all of the words, and no file."""

    def run(*words, says):
        out = tmp_path / "out"
        code, stdout, stderr = call(*words, "-o", out)
        assert (code, stdout, stderr.count("\n")) == (2, "", 1) and stderr.startswith("neurocanvas: "), stderr
        assert not [word for word in says if word not in stderr], stderr
        assert not out.exists() or not [path for path in out.rglob("*") if path.is_file()]

    return run


def change_file(folder, change):
    """Let `change` alter the content of the data set's file, and save it."""
    import torch

    path = folder / "EEG-ImageNet.pth"
    content = torch.load(path, weights_only=True)
    change(content["dataset"])
    path.unlink()
    torch.save(content, path)
    return folder


@pytest.fixture
def data(tiny_data, tmp_path):
    """A copy of the small data set that a test may damage."""
    return shutil.copytree(tiny_data, tmp_path / "data")


def test_a_missing_data_folder(refused, tmp_path):
    refused("features", "-d", tmp_path / "none", says=[str(tmp_path / "none"), "no such folder", "EEG-ImageNet.pth"])


def test_a_folder_without_data(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    refused("features", "-d", tmp_path / "empty", says=["no EEG-ImageNet.pth", "simulate"])


def test_an_unknown_subject(refused, tiny_data):
    refused("features", "-d", tiny_data, "-s", "7", says=["subject", "holds 0", "got 7"])


@pytest.mark.parametrize("text", ["one", "1,", "0-3", ""])
def test_a_subject_that_is_no_number(refused, tiny_data, text):
    refused("features", "-d", tiny_data, "-s", text, says=["--subject", "-1 for all", repr(text)])


@pytest.mark.parametrize(
    ("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinite"), (1e-5, "flat")], ids=["nan", "inf", "flat"]
)
@pytest.mark.parametrize("trial", [5, 6], ids=["found on opening", "found on reading"])
def test_a_damaged_channel(refused, data, trial, value, word):
    def damage(records):
        records[trial]["eeg_data"][60] = value

    refused("features", "-d", change_file(data, damage), says=[f"trial {trial} ", "subject 0", "channel O2", word])


def test_a_missing_picture(refused, data):
    picture = sorted(data.rglob("*.JPEG"))[0]
    picture.unlink()
    refused("caption", "-d", data, says=[str(picture), "no such file"])


def test_an_unknown_key(refused, tmp_path):
    (tmp_path / "a.toml").write_text("[mapper]\nepoch = 3\n")
    refused("run", "-c", tmp_path / "a.toml", says=["a.toml", "mapper.epoch"])


def test_settings_that_are_not_there(refused, tmp_path):
    refused("run", "-c", tmp_path / "none.toml", says=["none.toml", "no such file"])


@pytest.mark.parametrize(
    ("verb", "advice"),
    [("embed", "caption"), ("train", "embed"), ("predict", "features"), ("generate", "predict"),
     ("evaluate", "generate")],
)  # fmt: skip
def test_verbs_out_of_order(refused, tiny_data, verb, advice):
    refused(verb, "-d", tiny_data, says=[f"neurocanvas {advice}`"])


def test_a_report_of_nothing(refused):
    refused("report", says=["scores", "run the verb evaluate"])


@pytest.mark.parametrize("verb", ["caption", "generate"])
def test_an_unknown_family(refused, tiny_data, verb):
    refused(verb, "-d", tiny_data, "--family", "sd99", says=["--family", "bundled, sd14", "'sd99'"])


@pytest.mark.parametrize(("option", "value"), [("-m", "eegnet"), ("--protocol", "random"), ("--dataset", "things")])
def test_an_unknown_choice(refused, tiny_data, option, value):
    refused("run", "-d", tiny_data, option, value, says=[f"got '{value}'", "Input should be"])


def test_a_block_design_must_be_accepted(call, tmp_path):
    settings = TINY | {"simulate": {**TINY["simulate"], "design": "block"}}
    (tmp_path / "block.toml").write_text(tomli_w.dumps(settings))
    words = ["-c", tmp_path / "block.toml", "-o", tmp_path / "out"]
    from neurocanvas.config import load_settings
    from neurocanvas.stages import run_stage
    from neurocanvas.stages.run import Run

    run = Run(tmp_path / "out", load_settings(tmp_path / "block.toml"))
    run_stage(run, "simulate")
    write_true_captions(run)
    for verb in ("features", "embed"):
        assert call(verb, *words)[0] == 0
    code, _, stderr = call("train", *words)
    assert code == 2 and "block" in stderr.splitlines()[-1] and "accept" in stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "models").exists()
    assert call("train", *words, "--accept-block-confound")[0] == 0


def test_simulate_refuses_and_keeps_what_is_not_its_own(call, data, tmp_path):
    (data / "EEG-ImageNet.pth.json").unlink()
    before = (data / "EEG-ImageNet.pth").read_bytes()
    code, _, stderr = call("simulate", "-o", data)
    assert code == 2 and "not simulated" in stderr.splitlines()[-1]
    assert (data / "EEG-ImageNet.pth").read_bytes() == before
    code, _, stderr = call("simulate", "-o", tmp_path / "new", "--concepts", "81")
    assert code == 2 and "concepts" in stderr.splitlines()[-1] and "81" in stderr.splitlines()[-1]
    assert not (tmp_path / "new").exists()


def test_json_is_all_that_is_printed(call, tiny_copy):
    code, stdout, _ = call("evaluate", "-o", tiny_copy, "--json")
    said = json.loads(stdout)
    assert code == 0 and set(said["scores"]["arms"]) == {"eeg", "shuffled", "mean", "oracle"}
    code, stdout, _ = call("report", "-o", tiny_copy, "--json")
    assert json.loads(stdout) == {"wrote": [str(tiny_copy / "report.html")], "scores": None}


def test_a_run_prints_its_scores_and_the_report(call, tiny_copy):
    code, stdout, _ = call("run", "-o", tiny_copy)
    assert code == 0
    assert stdout.rstrip().splitlines()[-1].endswith("report.html")
    assert all(word in stdout for word in ("eeg", "shuffled", "mean", "oracle", "chance", "8 test trials"))


def test_options_reach_the_settings(call, tiny_data, tmp_path):
    words = ["-d", tiny_data, "-s", "-1", "--method", "eeg-imagenet", "-g", "coarse"]
    assert call("features", *words, "-o", tmp_path / "out")[0] == 0
    from neurocanvas.config import load_settings

    settings = load_settings(tmp_path / "out" / "run.toml")
    assert settings.data.root == str(tiny_data) and settings.data.subjects == ()
    assert (settings.features.method, settings.data.granularity) == ("eeg-imagenet", "coarse")
    values = np.load(tmp_path / "out" / "features" / "coarse" / "s0_de.npy")
    assert values.shape == (24, 62, 5) and np.isfinite(values).all()


@pytest.mark.parametrize("verb", [*cli.VERBS, "simulate"])
def test_every_verb_has_help(call, verb):
    code, stdout, _ = call(verb, "--help")
    assert code == 0 and "Usage" in stdout and "--output" in stdout


def test_the_version(call):
    assert call("--version")[:2] == (0, f"{__version__}\n")


def test_as_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "neurocanvas", "features", "-d", "none", "-o", "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert [line for line in done.stderr.splitlines() if line.strip()] == [done.stderr.strip()]
    assert done.stderr.startswith("neurocanvas: none: no such folder")
    done = subprocess.run([sys.executable, "-m", "neurocanvas", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, __version__)


def test_an_output_folder_that_is_a_file(call, tiny_data, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, stderr = call("features", "-d", tiny_data, "-o", tmp_path / "file")
    assert code == 2 and stderr.count("\n") == 1 and str(tmp_path / "file") in stderr
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("change", ["other trial", "other subject", "not json", "empty"])
def test_pictures_that_do_not_belong_to_the_run(call, tiny_copy, change):
    manifest = tiny_copy / "images" / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    entry = json.loads(lines[0])
    changed = {
        "other trial": json.dumps(entry | {"trial": 99}),
        "other subject": json.dumps(entry | {"subject": 5}),
        "not json": lines[0][:-9],
        "empty": "",
    }
    manifest.write_text("" if change == "empty" else "\n".join([changed[change], *lines[1:]]) + "\n")
    scores = (tiny_copy / "scores" / "summary.json").read_bytes()
    code, _, stderr = call("evaluate", "-o", tiny_copy)
    assert code == 2 and stderr.count("\n") == 1, stderr
    assert str(manifest) in stderr and "run `neurocanvas generate` again" in stderr
    assert (tiny_copy / "scores" / "summary.json").read_bytes() == scores
