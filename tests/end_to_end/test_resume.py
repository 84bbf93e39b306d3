"""A killed run continues and ends with the same bytes as one that was not killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import tiny_settings, write_true_captions, written_files

from neurocanvas.config import save_settings
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.workflow import STAGES

PROGRAM = Path(__file__).with_name("kill_at_renames.py")


def check_same(killed, whole):
    """Compare two run folders file by file."""
    ours, theirs = written_files(killed), written_files(whole)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert not [name for name in ours if Path(name).name.startswith(".") or name.endswith(".state")]


SLOW = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(("seed", "points"), [(0, 1), *(pytest.param(seed, 8, marks=SLOW) for seed in (1, 2))])
def test_every_stage_survives_kills_at_renames(tmp_path, seed, points):
    command = [sys.executable, PROGRAM, tmp_path / "whole", tmp_path / "killed", str(seed), str(points)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    deaths = json.loads(done.stdout.splitlines()[-1])
    assert deaths.pop("captions are the same")
    assert list(deaths) == list(STAGES) and min(deaths.values()) > 0, deaths
    check_same(tmp_path / "killed", tmp_path / "whole")


def start(folder):
    """Start a run in a process of its own."""
    command = [sys.executable, "-m", "neurocanvas", "run", "-c", str(folder / "tiny.toml"), "-o", str(folder), "--json"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_the_command_line_killed_while_it_draws_continues(tmp_path, tiny_run):
    folder = tmp_path / "killed"
    shutil.copytree(tiny_run / "data", folder / "data")
    save_settings(tiny_settings(), folder / "tiny.toml")
    write_true_captions(RunFolder(folder, tiny_settings()))
    for begun in ((folder / "models").is_dir, lambda: len(list((folder / "images" / "s0").rglob("*.png"))) >= 4):
        process = start(folder)
        while process.poll() is None and not begun():
            time.sleep(0.002)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(folder)
    _, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors.decode()[-3000:]
    (folder / "tiny.toml").unlink()
    check_same(folder, tiny_run)


def test_a_run_on_a_full_disk_continues_when_there_is_room(tmp_path, tiny_run):
    folder = tmp_path / "small"
    folder.mkdir()
    megabytes = sum(map(len, written_files(tiny_run).values())) / 1e6
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(megabytes * 700)}k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        shutil.copytree(tiny_run / "data", folder / "data")
        save_settings(tiny_settings(), folder / "tiny.toml")
        write_true_captions(RunFolder(folder, tiny_settings()))
        process = start(folder)
        errors = process.communicate(timeout=600)[1].decode()
        assert process.returncode == 2, errors
        assert errors.count("neurocanvas: ") == 1 and "free space" in errors and "Traceback" not in errors
        subprocess.run(["mount", "-o", "remount,size=256m", str(folder)], check=True)
        process = start(folder)
        assert process.wait(timeout=600) == 0
        process.communicate()
        (folder / "tiny.toml").unlink()
        check_same(folder, tiny_run)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_two_processes_share_the_pictures_and_draw_the_same(tiny_copy):
    """As `accelerate launch` starts them on a machine with two GPUs; on a CPU it takes torch's own launcher."""
    whole, log = written_files(tiny_copy / "images"), tiny_copy / "log.jsonl"
    before = log.read_text().count('"stage": "generate"')
    shutil.rmtree(tiny_copy / "images")
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, "-m", *launcher, "-m", "neurocanvas"]
    done = subprocess.run(
        [*command, "generate", "-o", str(tiny_copy)],
        capture_output=True, text=True, timeout=600, env={**os.environ, "ACCELERATE_USE_CPU": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert written_files(tiny_copy / "images") == whole
    assert log.read_text().count('"stage": "generate"') == 3 * before  # one process made the run, two drew again
