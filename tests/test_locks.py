"""One process at a time works on a run folder, and a dead holder holds nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from neurocanvas.artifacts import LOCK, OWNER, PART, lock_run
from neurocanvas.errors import NeuroCanvasError

HOLDER = (
    "import sys, time\nfrom pathlib import Path\nfrom neurocanvas.artifacts import lock_run\n"
    "with lock_run(Path(sys.argv[1]), 'train'):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def names(folder):
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def refusal(folder):
    """What the one who comes second is told."""
    with pytest.raises(NeuroCanvasError) as refused, lock_run(folder, "predict"):
        pass
    return str(refused.value)


def test_the_second_is_told_who_has_it_and_leaves_the_lock_as_it_is(tmp_path, holder):
    said = refusal(tmp_path)
    assert said.startswith(f"{tmp_path}: in use by `neurocanvas train` (process {holder.pid} on ") and "\n" not in said
    assert json.loads((tmp_path / OWNER).read_text())["since"] in said
    assert "stop it, then run again" in said
    before = names(tmp_path), (tmp_path / OWNER).read_text()
    refusal(tmp_path)
    assert (names(tmp_path), (tmp_path / OWNER).read_text()) == before
    refusal(tmp_path)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_dead_holder_holds_nothing(tmp_path, holder, end):
    holder.send_signal(end)
    holder.wait(timeout=120)
    with lock_run(tmp_path, "predict"):
        assert json.loads((tmp_path / OWNER).read_text())["pid"] == os.getpid()
    assert names(tmp_path) == []


@pytest.mark.parametrize("owner", ["", "[]", "{}", '{"pid": 3', None])
def test_a_damaged_owner_file_is_no_obstacle(tmp_path, holder, owner):
    if owner is None:
        (tmp_path / OWNER).unlink()
    else:
        (tmp_path / OWNER).write_text(owner)
    assert "in use by another process" in refusal(tmp_path)


def test_a_url_is_refused_and_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NeuroCanvasError, match="-o: a folder is needed, not a URL"):
        lock_run(Path("s3://bucket/a"), "run").__enter__()
    assert names(tmp_path) == []
    with lock_run(Path(), "run"):
        assert names(tmp_path) == [LOCK, OWNER]


def test_a_process_takes_it_as_often_as_it_likes(tmp_path):
    with lock_run(tmp_path / "new", "run"):
        with lock_run(tmp_path / "new", "train"):
            pass
        assert json.loads((tmp_path / "new" / OWNER).read_text())["verb"] == "run"
    assert not (tmp_path / "new").exists(), "nothing was made in it"
    with pytest.raises(ZeroDivisionError), lock_run(tmp_path / "new", "run"):
        (tmp_path / "new" / "made").touch()
        raise ZeroDivisionError
    assert names(tmp_path / "new") == ["made"]


def test_of_processes_that_were_started_together_the_first_takes_it(tmp_path, holder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with lock_run(tmp_path, "generate"):
        pass
    assert names(tmp_path) == [LOCK, OWNER]
    monkeypatch.setenv("RANK", "0")
    refusal(tmp_path)


def leave_halves(folder):
    """What a killed run may leave, beside what it finished."""
    (folder / "images" / "s0").mkdir(parents=True)
    (folder / f"{PART}import").mkdir()
    for name in (f"{PART}import/s0.npy", f"images/s0/{PART}0a-1.png", f"{PART}0b-run.toml", "images/s0/1.png"):
        (folder / name).write_text("half")


def test_halves_of_killed_runs_are_swept_when_the_folder_is_taken(tmp_path):
    leave_halves(tmp_path)
    with lock_run(tmp_path, "run"):
        assert [path.name for path in sorted(tmp_path.rglob("*")) if path.is_file()] == [LOCK, OWNER, "1.png"]
        (tmp_path / f"{PART}own").write_text("being written")
        with lock_run(tmp_path, "train"):
            assert (tmp_path / f"{PART}own").is_file()


def test_halves_stay_while_others_may_be_writing_them(tmp_path, monkeypatch, holder):
    leave_halves(tmp_path)
    refusal(tmp_path)
    holder.kill()
    holder.wait()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with lock_run(tmp_path, "generate"):
        pass
    assert (tmp_path / "images" / "s0" / f"{PART}0a-1.png").is_file()
