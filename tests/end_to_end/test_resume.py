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
from tiny import artifacts, tiny_settings, write_true_captions

from neurocanvas.config import save_settings
from neurocanvas.stages import STAGES
from neurocanvas.stages.run import Run

PROGRAM = Path(__file__).with_name("kill_at_renames.py")


def check_same(killed, whole):
    """Compare two run folders file by file."""
    ours, theirs = artifacts(killed), artifacts(whole)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert not [name for name in ours if Path(name).name.startswith(".") or name.endswith(".state")]


def kill_everywhere(folder, seed, points):
    """Run the program; return how often each stage was killed."""
    command = [sys.executable, str(PROGRAM), str(folder / "whole"), str(folder / "killed"), str(seed), str(points)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    deaths = json.loads(done.stdout.splitlines()[-1])
    assert deaths.pop("captions are the same")
    assert list(deaths) == list(STAGES) and min(deaths.values()) > 0, deaths
    check_same(folder / "killed", folder / "whole")


def test_every_stage_survives_a_kill(tmp_path):
    kill_everywhere(tmp_path, seed=0, points=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_stage_survives_kills_at_many_renames(tmp_path, seed):
    kill_everywhere(tmp_path, seed=seed, points=8)


def start(verb, folder):
    """Start the command line in a process of its own."""
    command = [sys.executable, "-m", "neurocanvas", verb, "-c", str(folder / "tiny.toml"), "-o", str(folder), "--json"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_inside(verb, folder, begun, delay):
    """Kill the command line `delay` seconds after `begun()` became true; tell whether it was still at work."""
    process = start(verb, folder)
    try:
        while process.poll() is None and not begun():
            time.sleep(0.002)
        time.sleep(delay)
        process.kill()
        process.communicate()
    finally:
        process.kill()
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode != 0


def finish(verb, folder):
    """Run the command line to its end."""
    process = start(verb, folder)
    _, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors.decode()[-3000:]


def prepare(folder, run_from=None):
    """Make a run folder with its settings; with data and captions where `run_from` has them."""
    folder.mkdir()
    save_settings(tiny_settings(), folder / "tiny.toml")
    if run_from is not None:
        shutil.copytree(run_from / "data", folder / "data")
        write_true_captions(Run(folder, tiny_settings()))
    return folder


def check_same_but_settings(killed, whole):
    """As `check_same`, leaving aside the file that the settings were given by."""
    (killed / "tiny.toml").unlink()
    check_same(killed, whole)


def test_the_command_line_killed_while_it_draws_continues(tmp_path, tiny_run):
    folder = prepare(tmp_path / "killed", tiny_run)
    pictures = folder / "images" / "s0"
    begun = [lambda: (folder / "models").is_dir(), lambda: len(list(pictures.rglob("*.png"))) >= 4]
    for moment in begun:
        assert kill_inside("run", folder, moment, 0.0)
    finish("run", folder)
    check_same_but_settings(folder, tiny_run)


def test_two_processes_share_the_pictures_and_draw_the_same(tiny_copy):
    """As `accelerate launch` starts them on a machine with two GPUs; on a CPU it takes torch's own launcher."""
    whole, log = artifacts(tiny_copy / "images"), tiny_copy / "log.jsonl"
    before = log.read_text().count('"stage": "generate"')
    shutil.rmtree(tiny_copy / "images")
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, "-m", *launcher, "-m", "neurocanvas"]
    done = subprocess.run(
        [*command, "generate", "-o", str(tiny_copy)],
        capture_output=True, text=True, timeout=600, env={**os.environ, "ACCELERATE_USE_CPU": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert artifacts(tiny_copy / "images") == whole
    assert log.read_text().count('"stage": "generate"') == 3 * before  # one process made the run, two drew again
