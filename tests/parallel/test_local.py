"""Tasks on this machine: order, threads, GPUs, workers that die."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import units
from tiny import tiny_settings, write_true_captions, written_files

from neurocanvas.config import save_settings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.parallel import NEEDS, Engine, Needs, make_engine, process_cache
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.workflow import STAGES, run_stage

LITTLE = Needs(10**6)


@pytest.fixture(scope="module")
def two():
    """An engine of two processes."""
    with closing(Engine(workers=2)) as engine:
        yield engine


def test_results_come_in_the_order_of_the_units(two):
    assert list(two.map(units.twice, range(7), LITTLE)) == list(range(0, 14, 2))
    assert list(Engine().map(units.twice, range(7), LITTLE)) == list(range(0, 14, 2))


def test_results_come_at_once_and_a_caller_may_stop_without_a_warning(two, tmp_path):
    with warnings.catch_warnings(action="error"):
        results = two.map(partial(units.wait_for_all_but_first, tmp_path), range(4), LITTLE)
        assert next(results) == 0, "the others wait"
        results.close()


def test_workers_have_the_threads_of_a_task(two, tmp_path):
    found = list(two.map(partial(units.meet, tmp_path), range(2), LITTLE))
    assert len({pid for pid, *_ in found}) == 2 and os.getpid() not in {pid for pid, *_ in found}
    assert all(threads == {1} and variable == "1" for _, threads, variable, _ in found)


def test_one_worker_is_this_process(monkeypatch):
    before = os.environ.get("OMP_NUM_THREADS")
    ((pid, threads, variable, _),) = Engine(workers=1, threads=2).map(units.who, [0], LITTLE)
    assert pid == os.getpid() and threads == {2} and variable == "2"
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_an_error_is_the_users_own_and_ends_the_other_tasks(two, tmp_path):
    """The run folder is unlocked then: a worker that still wrote would write beside the next command."""
    with pytest.raises(NeuroCanvasError, match=r"^unit 3: not allowed\.$"):
        list(two.map(units.refuse, range(6), LITTLE))
    with pytest.raises(NeuroCanvasError, match="no"):
        list(two.map(partial(units.wait_or_refuse, tmp_path), range(2), LITTLE))
    assert units.begun(tmp_path) and not any(psutil.pid_exists(pid) for pid in units.begun(tmp_path))
    assert list(two.map(units.refuse, range(3), LITTLE)) == [0, 1, 2], "the engine is as it was"


def test_a_dead_worker_is_an_error_and_the_next_map_works(two):
    with pytest.raises(NeuroCanvasError, match=r"a worker died.*--workers"):
        list(two.map(units.die, range(3), LITTLE))
    assert list(two.map(units.twice, range(3), LITTLE)) == [0, 2, 4]


def test_a_worker_keeps_what_it_has_loaded(two, tmp_path):
    """joblib ends workers that grow by 300 MB after their first task, unless it is told not to."""
    workers = {pid for pid, *_ in two.map(partial(units.meet, tmp_path), range(2), LITTLE)}
    list(two.map(units.grow, range(6), LITTLE))
    assert set(two.map(units.pid, range(4), LITTLE)) <= workers


def test_gpus_are_dealt_to_workers(monkeypatch, tmp_path):
    monkeypatch.setattr("neurocanvas.parallel.gpus", lambda: ["5", "GPU-7"])
    with closing(Engine(workers=2)) as engine:
        list(engine.map(units.twice, range(4), LITTLE))  # a stage without GPUs leaves its workers behind
        found = {gpu for *_, gpu in engine.map(partial(units.meet, tmp_path), range(2), Needs(10**6, gpu=1.0))}
    assert found == {"5", "GPU-7"}


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path, end):
    program = (
        "import functools, signal, sys, units\n"
        "from neurocanvas.cli import guarded\n"
        "from neurocanvas.parallel import Engine, Needs\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    guarded(lambda: list(Engine(2).map(functools.partial(units.wait_for, sys.argv[1]), range(5), Needs(1))))\n"
    )
    (tmp_path / "program.py").write_text(program)
    paths = os.pathsep.join([str(Path(units.__file__).parent), *sys.path])
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path)]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE, start_new_session=True
    ) as parent:
        units.wait_until(lambda: len(units.begun(tmp_path)) == 2)
        workers = [psutil.Process(pid) for pid in units.begun(tmp_path)]
        parent.kill() if end == signal.SIGKILL else os.killpg(parent.pid, end)  # a terminal interrupts the whole group
        gone, alive = psutil.wait_procs(workers, timeout=20)
        _, said = parent.communicate(timeout=20)
    assert len(gone) == 2 and not alive
    if end == signal.SIGINT:
        assert parent.returncode == 130 and said.count(b"\n") == 1 and b"interrupted" in said, said.decode()


@pytest.mark.slow
def test_a_killed_worker_ends_the_command_and_the_next_one_goes_on(tiny_data, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_data, folder / "data")
    save_settings(tiny_settings(), tmp_path / "tiny.toml")
    words = ["classify", "-c", tmp_path / "tiny.toml", "-o", folder, "-m", "svm,knn", "--workers", "2"]
    command = [sys.executable, "-m", "neurocanvas", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        workers = []
        while process.poll() is None and not workers:
            children = psutil.Process(process.pid).children()
            workers = [child for child in children if "LokyProcess-1" in child.cmdline()]
        workers[0].kill()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 2 and said.count(b"\n") == 1 and b"a worker died" in said, said.decode()
    subprocess.run(command, check=True, capture_output=True)
    assert len(list(folder.glob("classification/**/*.npy"))) == 2


@pytest.mark.slow
def test_a_run_in_two_processes_has_the_bytes_of_a_run_in_one(tiny_run, tmp_path):
    with closing(Engine(2)) as engine:
        check_whole_run(engine, tiny_run, tmp_path / "run")


def check_whole_run(engine, tiny_run, folder):
    """Do every stage with an engine, and compare every byte with the run of one process."""
    run = RunFolder(folder, tiny_settings(), engine=engine)
    run_stage(run, "simulate")
    write_true_captions(run)
    for stage in STAGES:
        run_stage(run, stage)
    ours, theirs = written_files(folder), written_files(tiny_run)
    assert ours.keys() == theirs.keys() and [name for name in ours if ours[name] != theirs[name]] == []


def test_as_many_workers_as_cores_memory_and_gpus_allow(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10 * 10**9))
    monkeypatch.setattr("joblib.Parallel", lambda width, **_: lambda _: iter([width]))

    def width(memory, devices=(), **needs):
        monkeypatch.setattr("neurocanvas.parallel.gpus", lambda: list(devices))
        return len(found) if len(found := list(Engine(0).map(str, range(99), Needs(memory, **needs)))) > 1 else found[0]

    assert width(10**9) == 8 and width(10**9, threads=3) == 2 and width(4 * 10**9) == 2
    assert width(10**12) == 99, "all 99 in this process"
    assert width(10**9, "03", gpu=1.0) == 2 and width(10**9, "03", gpu=0.25) == 8
    assert width(4 * 10**9, gpu=1.0) == 2 and width(4 * 10**9, "03", gpu=0.25) == 2, "memory bounds what shares a GPU"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert width(1) == 99, "`accelerate launch` has made the processes"


def test_the_cache_of_a_process_holds_what_one_stage_has_loaded():
    loaded = []

    def load(what):
        loaded.append(what)
        return what

    assert [process_cache("a", "network", 1, lambda: load("one")) for _ in range(2)] == ["one", "one"]
    assert process_cache("a", "table", 1, lambda: load("table")) == "table"
    assert process_cache("a", "network", 2, lambda: load("two")) == "two"
    assert process_cache("b", "network", 2, lambda: load("of b")) == "of b"
    assert process_cache("a", "table", 1, lambda: load("again")) == "again"
    assert loaded == ["one", "table", "two", "of b", "again"]


def test_wrong_options_are_one_line(call):
    with pytest.raises(NeuroCanvasError, match="--engine: allowed are local, ray; got 'dask'"):
        make_engine("dask")
    with pytest.raises(NeuroCanvasError, match="--address: belongs to --engine ray"):
        make_engine(address="auto")
    code, _, said = call("features", "-o", "run", "--workers", "-1")
    assert code == 2 and "--workers" in said and said.count("\n") == 1


def test_every_stage_says_what_it_needs():
    assert all(needs.memory >= 10**8 and needs.threads == 1 and 0 <= needs.gpu <= 1 for needs in NEEDS.values())
