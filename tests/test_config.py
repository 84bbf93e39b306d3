"""Settings: what is misspelt or impossible is refused by name, and what is written is read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurocanvas.config import DEMO, RunSettings, load_settings, save_settings
from neurocanvas.errors import NeuroCanvasError

CONFIGS = [DEMO, *sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))]


def write(folder, text):
    """Write a TOML file and return its path."""
    (folder / "a.toml").write_text(text, encoding="utf-8")
    return folder / "a.toml"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour = 1", "colour: no such setting; there are name, simulate"),
        ("[generate]\nstep = 20", r"generate\.step: no such setting"),
        ("[data.recording]\nfile = 'x'", r"data\.recording\.file: no such setting; did you mean files. there are"),
        ("[data]\nname = 'braindecode:x'", r"data\.name: allowed are eeg-imagenet.*got 'braindecode:x'"),
        ("[encoder]\nname = 'eegnet'", r"encoder\.name: allowed are mlp_sd, mean, ridge, braindecode:<model>; got"),
        (
            "[classify]\nmodels = ['mean']",
            r"classify\.models\.0: allowed are mlp_sd, eegnet.*dt, braindecode:<model>; g",
        ),
        ("[generate]\nsteps = 0", r"generate\.steps: .*got 0"),
        ("[generate]\narms = ['eeg', 'brain']", r"generate\.arms\.1: .*oracle.*got 'brain'"),
        ("[data]\ngranularity = 'fine9'", r"data\.granularity: .*'fine4'.*got 'fine9'"),
        ("[generate]\narms = []", r"generate\.arms: "),
        ("[evaluate]\nseed = -1", r"evaluate\.seed: .*got -1"),
        ("[split]\ntest_fraction = 1.0", r"split\.test_fraction: .*got 1\.0"),
        ("[encoder]\nepochs = 'many'", r"encoder\.epochs: .*got 'many'"),
        ("[simulate]\nexplained_variance = 2", r"simulate\.explained_variance: .*got 2"),
        ("[data\n", "not valid TOML"),
        ("data = 'eeg'", "data: .*got 'eeg'"),
    ],
)
def test_unknown_keys_and_bad_values_are_refused_by_name(tmp_path, text, says):
    path = write(tmp_path, text)
    for change in ({}, {"family": "x"}, {"data": {"root": "x"}}):  # which do not hide what is wrong
        with pytest.raises(NeuroCanvasError, match=rf"a\.toml: {says}"):
            load_settings(path, **change)


def test_what_is_not_toml_and_what_is_not_there(tmp_path):
    (tmp_path / "b.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(NeuroCanvasError, match=r"b\.toml: not valid TOML"):
        load_settings(tmp_path / "b.toml")
    with pytest.raises(NeuroCanvasError, match="no such file"):
        load_settings(tmp_path / "none.toml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_written_settings_are_read_back(tmp_path, path):
    settings = load_settings(path)
    save_settings(settings, tmp_path / "run.toml")
    assert load_settings(tmp_path / "run.toml") == settings


def test_settings_are_frozen_and_changes_replace_single_keys(tmp_path):
    settings = load_settings(write(tmp_path, "[generate]\nsteps = 7\nseed = 3"), generate={"steps": 5}, family="x")
    assert (settings.generate.steps, settings.generate.seed, settings.family) == (5, 3, "x")
    with pytest.raises(ValueError, match="frozen"):
        settings.family = "y"


def test_the_demo_keeps_what_was_promised_of_it():
    demo = load_settings(DEMO)
    held_out = demo.simulate.concepts * round(demo.simulate.trials_per_concept * demo.split.test_fraction)
    assert min(held_out, demo.generate.max_trials or held_out) >= 72
    assert demo.generate.steps <= 20
    assert set(demo.generate.arms) == {"eeg", "shuffled", "mean", "oracle"}
    assert demo.simulate.explained_variance <= 0.05
    assert demo.family == demo.generate.family == demo.evaluate.judge == "bundled"
    assert load_settings(None) == RunSettings()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"arms": ["best-of"]}, "samples: the arm best-of needs 2 or more to choose from; got 1"),
        ({"scheduler": "lcm", "steps": 51}, "steps: the scheduler lcm takes up to 50; got 51"),
        ({"guidance_interval": [0.2, 1.2]}, "generate.guidance_interval"),
    ],
)
def test_settings_of_drawing_that_do_not_go_together_are_refused(asked, says):
    with pytest.raises(NeuroCanvasError, match=says):
        load_settings(None, generate=asked)


def test_a_run_folder_of_an_older_format_is_refused_with_the_command_that_makes_it_anew(tmp_path, call):
    (tmp_path / "run.toml").write_text('name = "old"\n[mapper]\nname = "ridge"\n[data]\nroot = "/my/eeg"\n')
    for words in (("train", "-o", tmp_path), ("fork", tmp_path, tmp_path / "new"), ("evaluate", "-o", tmp_path)):
        code, _, err = call(*words)
        assert code == 2 and "run.toml: a run folder of format 1, and this version reads format 2" in err
        assert "neurocanvas run -d /my/eeg -o NEW" in err and err.count("\n") == 1


def test_fork_links_what_stays_valid_and_says_what_to_make(tiny_run, tmp_path, call):
    new = tmp_path / "new"
    code, out, err = call("fork", tiny_run, new, "--set", "generate.steps=3", "--json")
    assert code == 0, err
    assert json.loads(out)["to_make"] == ["evaluate", "generate", "report"]
    model = "models/mlp_sd_s0_fold0_model.safetensors"
    assert (new / model).stat().st_ino == (tiny_run / model).stat().st_ino
    assert not (new / "images").exists() and load_settings(new / "run.toml").generate.steps == 3
    code, _, err = call("fork", tiny_run, new)
    assert code == 2 and "not empty" in err
    for change, says in (("steps=3", "section.key=value"), ("generate.stepz=3", "no such setting")):
        code, _, err = call("fork", tiny_run, tmp_path / "other", "--set", change)
        assert code == 2 and says in err and not (tmp_path / "other").exists()


def test_settings_of_other_editors_and_names_with_dots(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('[data]\nname = "recordings"\n', encoding="utf-8-sig")
    assert load_settings(path).data.name == "recordings"
    path.write_text("[data.recording.events.annotations]\nimg.001 = \"low\"\n")
    with pytest.raises(NeuroCanvasError, match=r'a name with a dot needs quotes, as "img\.001" = \.\.\.'):
        load_settings(path)
