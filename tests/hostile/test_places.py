"""Folders with odd names, and folders that may not be written: everything works, or one line and exit code 2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
import tomli_w

ODD = ["ü 猫 'q' \"d\"", "[red]x[bold] {0} %s", "-o", "é\u0301 $HOME `id` ; & #~"]
"""Names of folders that shells, markup, formats and options could take for something else."""


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
