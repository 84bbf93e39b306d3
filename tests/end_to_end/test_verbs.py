"""The verbs beside a run's stages, folders with odd names, and folders that may not be written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from neurocanvas.config import load_settings
from neurocanvas.data.store import ARRAY

SMALL = ["--concepts", "3", "--trials", "4", "--subjects", "2", "--signal", "0", "--design", "block", "--incomplete"]
"""Subject 0 has 12 trials of three concepts, subject 1 lacks one of them."""


@pytest.fixture
def data(ask, tmp_path) -> Path:
    """A folder of small simulated data."""
    ask("simulate", "-o", tmp_path / "data", *SMALL)
    return tmp_path / "data"


def test_inspect_says_what_is_there_of_all_or_some_subjects(ask, call, refuse, data):
    assert [ask("inspect", "-d", data, *words)["trials"] for words in ([], ["-s", "-1"], ["-s", "1"])] == [20, 20, 8]
    code, stdout, _ = call("inspect", "-d", data)
    assert code == 0 and "20 of 3 concepts" in stdout
    refuse("inspect", "-d", data / "none", says=["no such folder", "EEG-ImageNet.pth"])
    refuse("inspect", "-d", data, "-s", "7", says=["subject", "holds 0, 1", "got 7"])
    refuse("inspect", "-d", data, "-s", "one", says=["subject", "holds 0, 1", "got one"])


def test_convert_in_place_can_be_called_again_with_another_unit_or_other_files(ask, call, refuse, data):
    assert ask("convert", "-d", data, "-o", data, "--unit", "uV") == {"wrote": [str(data / ARRAY)]}
    first = np.load(data / ARRAY)
    ask("convert", "-d", data, "-o", data)
    np.testing.assert_allclose(np.load(data / ARRAY), first * 1e6, rtol=1e-6)
    ask("simulate", "-o", data, *SMALL, "--seed", "1")
    refuse("inspect", "-d", data, says=[ARRAY, "made from other files", "run `convert` again"])
    code, stdout, _ = call("convert", "-d", data, "-o", data)
    assert (code, stdout) == (0, f"{data / ARRAY}\n")
    assert np.load(data / ARRAY).shape == (20, 62, 501)
    assert ask("inspect", "-d", data)["trials"] == 20


def test_convert_refuses_damage_and_writes_nothing(refuse, data, tmp_path):
    path = data / "EEG-ImageNet.pth"
    path.write_bytes(path.read_bytes()[:-5000])
    refuse("convert", "-d", data, "-o", tmp_path / "store", says=[str(path), "truncated", "get the released file"])
    path.unlink()
    refuse("convert", "-d", data, "-o", tmp_path / "store", says=[str(data), "no EEG-ImageNet.pth", "simulate"])
    assert not (tmp_path / "store").exists()


def test_pictures_are_copied_of_all_or_some_subjects(ask, call, refuse, data, tmp_path):
    refuse("pictures", "-d", data, "--from", tmp_path / "none", says=[str(tmp_path / "none"), "no such file or folder"])
    shutil.move(data / "imageNet_images", tmp_path / "imagenet" / "train")
    said = ask("pictures", "-d", data, "--from", tmp_path / "imagenet", "-s", "1")
    assert said == {"pictures": 8, "missing": []} and len(list(data.rglob("*.JPEG"))) == 8
    code, stdout, _ = call("pictures", "-d", data, "--from", tmp_path / "imagenet")
    assert (code, stdout) == (0, "12 of 12 images are available\n") and len(list(data.rglob("*.JPEG"))) == 12


def test_features_go_from_a_store_through_export_and_import_into_another_run(ask, call, refuse, data, tmp_path):
    store, run, other, files = (tmp_path / name for name in ("store", "run", "other", "files"))
    ask("convert", "-d", data, "-o", store)
    ask("features", "-d", store, "-o", run)
    refuse("export", "-o", other, "--to", files, says=[str(other / "run.toml"), "no such file"])
    refuse("export", "-o", run, "--to", files, "-s", "0-1", says=["subject", "got 0-1"])
    said = ask("export", "-o", run, "--to", files, "-s", "1")
    assert said == {"wrote": [str(files / "de_feat" / "1_all_de.npy")]}
    assert [path.name for path in files.rglob("*.npy")] == ["1_all_de.npy"]
    assert len(ask("export", "-o", run, "--to", files)["wrote"]) == 2
    assert load_settings(run / "run.toml").data.subjects == ()
    said = ask("import", "-o", other, "--from", files, "-d", store, "-s", "1")
    assert said == {"wrote": [str(other / "features" / "s1_de.npy")]}
    assert load_settings(other / "run.toml").data.subjects == ("1",)
    code, stdout, _ = call("import", "-o", other, "--from", files, "-s", "-1")
    assert (code, stdout.count("\n")) == (0, 2)
    for name in ("s0_de.npy", "s1_de.npy", "s1_trials.csv"):
        assert (other / "features" / name).read_bytes() == (run / "features" / name).read_bytes()


# Names of folders that shells, markup, formats and options could take for something else.
ODD = ["ü 猫 'q' \"d\"", "[red]x[bold] {0} %s", "-o", "é\u0301 $HOME `id` ; & #~"]


@pytest.mark.parametrize("name", ODD)
def test_data_in_folders_with_odd_names(name, tmp_path, call):
    home = tmp_path / name
    (tmp_path / "settings").mkdir()
    settings = {"name": name, "data": {"root": str(home / "data")}}
    (tmp_path / "settings" / f"{name}.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
    for words in (
        ["simulate", f"--output={home / 'data'}", "--concepts", "2", "--trials", "2"],
        ["inspect", f"--data={home / 'data'}"],
        ["convert", f"--data={home / 'data'}", f"--output={home / 'stored'}"],
        ["features", f"--data={home / 'data'}", f"--output={home / 'run'}"],
        ["caption", f"--output={home / 'run'}", "--source", "class-names"],
        ["features", f"--config={tmp_path / 'settings' / name}.toml", f"--output={home / 'own'}"],
        ["export", f"--output={home / 'run'}", f"--to={home / 'theirs'}"],
        ["import", f"--output={home / 'again'}", f"--data={home / 'data'}", f"--from={home / 'theirs'}", "--json"],
    ):  # fmt: skip
        code, stdout, stderr = call(*words)
        assert (code, stderr) == (0, ""), words
    assert len(json.loads(stdout)["wrote"]) == 2 and (home / "run" / "targets" / "caption.txt").is_file()


@pytest.fixture
def read_only(tmp_path):
    """Make a folder one in which nothing can be written, whoever runs the test."""
    locked = []

    def lock(folder):
        if os.geteuid():
            folder.chmod(0o500)
        elif not shutil.which("chattr") or subprocess.run(["chattr", "+i", folder], capture_output=True).returncode:
            pytest.skip("runs as root, on a file system without a flag for what may not be written")
        locked.append(folder)
        return folder

    yield lock
    for folder in locked:
        if os.geteuid():
            folder.chmod(0o700)
        else:
            subprocess.run(["chattr", "-i", folder], check=True)


def test_folders_that_may_not_be_written(tiny_data, tmp_path, read_only, call):
    (tmp_path / "out").mkdir()
    folder = read_only(tmp_path / "out")
    for words in (
        ["simulate", "-o", folder, "--concepts", "2", "--trials", "2"], ["convert", "-d", tiny_data, "-o", folder],
        ["features", "-d", tiny_data, "-o", folder], ["features", "-d", tiny_data, "-o", folder / "run"],
        ["caption", "-d", tiny_data, "-o", folder, "--source", "class-names"],
        ["import", "-d", tiny_data, "-o", folder, "--from", tiny_data],
    ):  # fmt: skip
        code, _, stderr = call(*words)
        assert code == 2 and stderr.count("\n") == 1 and stderr.startswith("neurocanvas: "), (words, stderr)
    assert not list(folder.iterdir())
