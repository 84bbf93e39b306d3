"""A Ray cluster of several nodes on this machine: the same bytes as here, whatever dies on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing
from functools import partial

import pytest
import units
from tiny import tiny_settings, write_true_captions, written_files

from neurocanvas.config import save_settings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.parallel import Needs, make_engine
from neurocanvas.pipeline.run import Run
from neurocanvas.workflow import STAGES, run_stage

ray = pytest.importorskip("ray")
LITTLE = Needs(10**6)


@pytest.fixture
def nodes(monkeypatch):
    """A head and a second node, one core each; workers find the tests' modules."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    small = {"num_cpus": 1, "memory": 3 * 10**9, "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    cluster.second = cluster.add_node(**small)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def engine(nodes):
    with closing(make_engine("ray", nodes.address)) as found:
        yield found


def test_units_run_on_both_nodes_with_one_thread_and_come_back_in_order(engine, tmp_path):
    assert list(engine.map(units.twice, range(7), LITTLE)) == list(range(0, 14, 2))
    found = list(engine.map(partial(units.meet, tmp_path), range(2), LITTLE))
    assert len({pid for pid, *_ in found}) == 2 and all(threads == {1} for _, threads, _ in found)
    with pytest.raises(NeuroCanvasError, match=r"^unit 3: not allowed\.$"):
        list(engine.map(units.refuse, range(6), LITTLE))
    assert list(engine.map(partial(units.die_once, tmp_path), range(6), LITTLE)) == list(range(6))
    assert len((tmp_path / "unit_2").read_text().splitlines()) == 2
    with pytest.raises(NeuroCanvasError, match="died without getting anything done"):
        list(engine.map(units.die, range(3), LITTLE))


def test_a_node_that_dies_takes_nothing_with_it(nodes, engine, tmp_path):
    """Both nodes are at work; the second is killed. Its unit is done by the first, once; nothing else is done twice."""
    results = []
    runner = threading.Thread(
        target=lambda: results.extend(engine.map(partial(units.wait_for, tmp_path), range(4), LITTLE))
    )
    runner.start()
    while len(list(tmp_path.glob("begun_*"))) < 2:
        time.sleep(0.05)
    nodes.remove_node(nodes.second, allow_graceful=False)
    (tmp_path / "go").touch()
    runner.join(timeout=180)
    assert results == [0, 1, 2, 3]
    begun = [path.name.split("_")[1] for path in tmp_path.glob("begun_*")]
    assert {*begun} == {"0", "1", "2", "3"} and len(begun) <= 5  # the killed node's unit twice, if it had begun one


@pytest.mark.slow
def test_a_run_on_two_nodes_has_the_bytes_of_a_local_run(engine, tiny_run, tmp_path):
    run = Run(tmp_path / "run", tiny_settings(), engine=engine)
    run_stage(run, "simulate")
    write_true_captions(run)
    for stage in STAGES:
        run_stage(run, stage)
    ours, theirs = written_files(run.folder), written_files(tiny_run)
    assert ours.keys() == theirs.keys() and [name for name in ours if ours[name] != theirs[name]] == []


def test_an_address_where_no_cluster_is_is_one_line():
    with pytest.raises(NeuroCanvasError, match=r"^--address: nobody answers at '127\.0\.0\.1:1'"):
        make_engine("ray", "127.0.0.1:1")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_goes_on_on_another_cluster_when_the_first_is_gone(tiny_run, tmp_path, monkeypatch):
    """The head is killed while pictures are drawn: the command ends, and the same command on a new cluster goes on."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    folder, small = tmp_path / "run", {"num_cpus": 1, "memory": 3 * 10**9, "object_store_memory": 10**8}
    shutil.copytree(tiny_run / "data", folder / "data")
    save_settings(tiny_settings(), tmp_path / "tiny.toml")
    write_true_captions(Run(folder, tiny_settings()))

    def start(cluster):
        words = ["run", "-c", tmp_path / "tiny.toml", "-o", folder, "--engine", "ray", "--address", cluster.address]
        return subprocess.Popen([sys.executable, "-m", "neurocanvas", *map(str, words)], stderr=subprocess.PIPE)

    first = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    process = start(first)
    while process.poll() is None and len(list(folder.glob("images/s0/*/*.png"))) < 4:
        time.sleep(0.05)
    first.remove_node(first.head_node, allow_graceful=False)
    process.communicate(timeout=300)
    assert process.returncode != 0
    drawn = {path: path.stat().st_mtime_ns for path in folder.glob("images/s0/*/shard_*.json")}
    second = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        process = start(second)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors.decode()[-2000:]
    finally:
        second.shutdown()
    ours, theirs = written_files(folder), written_files(tiny_run)
    assert ours.keys() == theirs.keys() and [name for name in ours if ours[name] != theirs[name]] == []
    assert drawn and all(path.stat().st_mtime_ns == before for path, before in drawn.items()), "drawn twice"
