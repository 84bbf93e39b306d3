"""A Ray cluster of several nodes on this machine: the same bytes as here, whatever dies on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial

import pytest
import units
from test_local import check_whole_run
from tiny import tiny_settings, write_true_captions, written_files

from neurocanvas.config import save_settings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.parallel import Needs, make_engine
from neurocanvas.pipeline.run import RunFolder

ray = pytest.importorskip("ray")
LITTLE = Needs(10**6)
NODE = {"num_cpus": 1, "memory": 3 * 10**9, "object_store_memory": 10**8}


@pytest.fixture
def start(monkeypatch):
    """Start clusters: start(**resources of the head); workers find the tests' modules, dead nodes are seen soon."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    clusters = []

    def start_cluster(**resources):
        head = {**NODE, "include_dashboard": False, **resources}
        clusters.append(Cluster(initialize_head=True, head_node_args=head))
        return clusters[-1]

    yield start_cluster
    ray.shutdown()
    for cluster in clusters:
        cluster.shutdown()


def test_tasks_on_two_nodes_and_a_node_that_is_killed(start, tmp_path):
    """The node is killed while both are at work. Its task is done by the other one; nothing else is done twice."""
    nodes, results = start(), []
    second = nodes.add_node(**NODE)
    with closing(make_engine("ray", nodes.address)) as engine:
        assert list(engine.map(units.twice, range(7), LITTLE)) == list(range(0, 14, 2))
        found = list(engine.map(partial(units.meet, tmp_path), range(2), LITTLE))
        assert len({pid for pid, *_ in found}) == 2 and all(threads == {1} for _, threads, *_ in found)
        with pytest.raises(NeuroCanvasError, match=r"^unit 3: not allowed\.$"):
            list(engine.map(units.refuse, range(6), LITTLE))
        with pytest.raises(NeuroCanvasError, match=r"no node has .*pass --workers"):
            list(engine.map(units.twice, range(2), Needs(10**12)))
        work = partial(units.wait_for, tmp_path)
        runner = threading.Thread(target=lambda: results.extend(engine.map(work, range(4), LITTLE)))
        runner.start()
        units.wait_until(lambda: len(units.begun(tmp_path)) == 2)
        nodes.remove_node(second, allow_graceful=False)
        (tmp_path / "go").touch()
        runner.join(timeout=180)
    assert results == [0, 1, 2, 3]
    assert len(units.begun(tmp_path)) <= 5  # the killed node's task twice


def test_workers_keep_what_they_loaded_and_dead_ones_are_replaced(start, tmp_path):
    nodes = start(num_cpus=4, num_gpus=1)
    with closing(make_engine("ray", nodes.address, workers=3)) as engine:
        assert list(engine.map(partial(units.die_once, tmp_path), range(6), LITTLE)) == list(range(6))
        assert len(units.begun(tmp_path, 2)) == 2
        with pytest.raises(NeuroCanvasError, match="a task was lost"):
            list(engine.map(units.die, [0], LITTLE))
        halves = list(engine.map(units.pid, range(10), Needs(10**6, gpu=0.5)))
        assert len(set(halves)) == 2, "a network is loaded by two processes, not by ten"


def test_an_address_where_no_cluster_is_is_one_line():
    with pytest.raises(NeuroCanvasError, match=r"^--address: no Ray cluster at '127\.0\.0\.1:1'"):
        make_engine("ray", "127.0.0.1:1")


@pytest.mark.slow
def test_a_run_on_two_nodes_has_the_bytes_of_a_local_run(start, tiny_run, tmp_path):
    nodes = start()
    nodes.add_node(**NODE)
    with closing(make_engine("ray", nodes.address)) as engine:
        check_whole_run(engine, tiny_run, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_local_run_goes_on_when_the_head_of_the_cluster_was_killed(start, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    folder, nodes = tmp_path / "run", start()
    save_settings(tiny_settings(), tmp_path / "tiny.toml")
    words = ["-m", "neurocanvas", "run", "-c", tmp_path / "tiny.toml", "-o", folder]
    command = [sys.executable, *map(str, words)]
    shutil.copytree(tiny_run / "data", folder / "data")
    write_true_captions(RunFolder(folder, tiny_settings()))
    process = subprocess.Popen([*command, "--engine", "ray", "--address", nodes.address], stderr=subprocess.PIPE)
    units.wait_until(lambda: process.poll() is not None or len(list(folder.glob("images/s0/*/*.png"))) >= 4, 600)
    nodes.remove_node(nodes.head_node, allow_graceful=False)
    process.communicate(timeout=300)
    assert process.returncode != 0
    made = {path: path.stat().st_mtime_ns for path in folder.glob("images/s0/*/shard_*.json")}
    again = subprocess.run(command, capture_output=True, timeout=600, check=False)
    assert again.returncode == 0, again.stderr.decode()[-2000:]
    ours, theirs = written_files(folder), written_files(tiny_run)
    assert ours.keys() == theirs.keys() and [name for name in ours if ours[name] != theirs[name]] == []
    assert made and all(path.stat().st_mtime_ns == before for path, before in made.items()), "made twice"
