"""The local engine: order, threads, workers that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import units

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.parallel import NEEDS, Engine, Needs, make_engine, process_cache

LITTLE = Needs(10**6)


@pytest.fixture(scope="module")
def two():
    """An engine of two processes."""
    with closing(Engine(workers=2)) as engine:
        yield engine


def test_results_come_in_the_order_of_the_units(two):
    assert list(two.map(units.twice, range(7), LITTLE)) == list(range(0, 14, 2))
    assert list(Engine().map(units.twice, range(7), LITTLE)) == list(range(0, 14, 2))


def test_units_are_spread_over_processes_of_one_thread(two, tmp_path):
    found = list(two.map(partial(units.meet, tmp_path), range(2), LITTLE))
    assert len({pid for pid, *_ in found}) == 2 and os.getpid() not in {pid for pid, *_ in found}
    assert all(threads == {1} and variable == "1" for _, threads, variable in found)


def test_one_worker_is_this_process_with_the_threads_that_are_asked_for():
    before = os.environ.get("OMP_NUM_THREADS")
    ((pid, threads, variable),) = Engine(workers=1, threads=2).map(units.who, [0], LITTLE)
    assert pid == os.getpid() and threads == {2} and variable == "2"
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_a_refusal_is_the_users_own(two):
    with pytest.raises(NeuroCanvasError, match=r"^unit 3: not allowed\.$"):
        list(two.map(units.refuse, range(6), LITTLE))
    assert list(two.map(units.refuse, range(3), LITTLE)) == [0, 1, 2], "the engine is as it was"


def test_a_worker_that_dies_ends_the_command():
    with closing(Engine(workers=2)) as engine, pytest.raises(NeuroCanvasError, match=r"worker process died.*--workers"):
        list(engine.map(units.die, range(3), LITTLE))


def test_the_engine_goes_on_after_a_worker_died(tmp_path):
    with closing(Engine(workers=2)) as engine:
        with pytest.raises(NeuroCanvasError, match="worker process died"):
            list(engine.map(units.die, range(3), LITTLE))
        assert list(engine.map(units.twice, range(3), LITTLE)) == [0, 2, 4]


def test_nobody_works_on_when_a_unit_was_refused(tmp_path):
    """The run folder is let go of then: who still wrote would write beside the next command."""
    with closing(Engine(workers=2)) as engine:
        with pytest.raises(NeuroCanvasError, match="no"):
            list(engine.map(partial(units.wait_or_refuse, tmp_path), range(2), LITTLE))
        started = time.monotonic()
    assert time.monotonic() - started < 30
    pids = [int(path.name.split("_")[2]) for path in tmp_path.glob("begun_*")]
    assert pids and not any(psutil.pid_exists(pid) for pid in pids)


def test_every_worker_gets_a_card_of_those_that_this_process_may_use(monkeypatch, tmp_path):
    monkeypatch.setattr("neurocanvas.parallel.gpus", lambda: ["5", "GPU-7"])
    with closing(Engine(workers=2)) as engine:
        list(engine.map(units.twice, range(4), LITTLE))  # a stage without GPUs leaves its workers behind
        found = set(engine.map(partial(units.card, tmp_path), range(2), Needs(10**6, gpu=1.0)))
    assert found == {"5", "GPU-7"}


@pytest.mark.parametrize(
    ("end", "work", "begun"), [(signal.SIGKILL, "wait_for", 2), (signal.SIGINT, "wait_for_all_but_first", 1)]
)
def test_workers_end_with_the_process_that_started_them(tmp_path, end, work, begun):
    """Killed, or interrupted while the last unit is at work."""
    program = (
        "import functools, signal, sys, units\n"
        "from neurocanvas.parallel import Engine, Needs\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"    list(Engine(workers=2).map(functools.partial(units.{work}, sys.argv[1]), range(2), Needs(1)))\n"
    )
    (tmp_path / "program.py").write_text(program)
    here = str(Path(units.__file__).parent)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": here}) as parent:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("begun_*"))) < begun and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = [psutil.Process(int(path.name.split("_")[2])) for path in tmp_path.glob("begun_*")]
        parent.send_signal(end)
        gone, alive = psutil.wait_procs(workers, timeout=20)
        parent.kill()
    assert len(gone) == begun and not alive


def test_as_many_workers_as_cores_memory_and_gpus_allow(monkeypatch):
    monkeypatch.setattr("neurocanvas.parallel.cores", lambda: 8)
    monkeypatch.setattr("neurocanvas.parallel.gpus", lambda: ["0", "3"])
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10 * 10**9))
    engine = Engine(workers=0)
    assert engine._width(Needs(10**9)) == 8 and engine._width(Needs(10**9, threads=3)) == 2
    assert engine._width(Needs(4 * 10**9)) == 2 and engine._width(Needs(10**12)) == 1
    assert engine._width(Needs(10**9, gpu=1.0)) == 2 and engine._width(Needs(10**9, gpu=0.25)) == 8
    monkeypatch.setattr("neurocanvas.parallel.gpus", list)
    assert engine._width(Needs(4 * 10**9, gpu=1.0)) == 2
    assert engine._width(Needs(4 * 10**9, gpu=0.25)) == 2, "memory bounds what shares a card"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert engine._width(Needs(1)) == 1, "`accelerate launch` has made the processes"


def test_what_a_stage_keeps_is_loaded_once_and_let_go_by_the_next():
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


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"name": "dask"}, "--engine: allowed are local, ray; got 'dask'"),
        ({"address": "auto"}, "--address: belongs to --engine ray"),
        ({"workers": -1}, "--workers: 0 or more is allowed; got -1"),
        ({"threads": -2}, "--threads: 0 or more is allowed; got -2"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(asked, said):
    with pytest.raises(NeuroCanvasError, match=said):
        make_engine(**asked)


def test_every_stage_says_what_it_needs():
    assert all(needs.memory >= 10**8 and needs.threads == 1 and 0 <= needs.gpu <= 1 for needs in NEEDS.values())


def test_all_workers_start_before_their_deaths_are_watched_for():
    """The standard library starts them one by one, and one that dies while another is started hangs or breaks it."""
    with closing(Engine(3)) as engine:
        pool = engine._workers(3, Needs(10**8))
        assert pool.submit(os.getpid).result() in pool._processes and len(pool._processes) == 3
