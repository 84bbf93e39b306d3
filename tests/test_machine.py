"""What this process may use of its machine, under limits that are pretended."""

import os

import psutil
import pytest

from neurocanvas import machine

FREE = 10 * 10**9


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups of a made-up machine with 10 GB free: writes their files, and which groups are this process's."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": FREE}))
    monkeypatch.setattr(machine, "GROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")

    def write(own, **files):
        (tmp_path / "own").write_text(own)
        for folder, content in files.items():
            place = tmp_path / folder.replace("__", "/")
            place.mkdir(parents=True, exist_ok=True)
            for name, text in content.items():
                (place / name).write_text(f"{text}\n")

    return write


def second(limit, used, files=0):
    return {"memory.max": limit, "memory.current": used, "memory.stat": f"anon 1\ninactive_file {files}"}


def first(limit, used, files=0):
    return {
        "memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": f"total_inactive_file {files}",
    }  # fmt: skip


def test_without_a_limit_all_that_the_kernel_has_is_free(groups):
    assert machine.free_memory() == FREE, "no control groups"
    groups("0::/job\n", job=second("max", 10**9))
    assert machine.free_memory() == FREE
    groups("4:memory:/job\n1:cpu:/job\n", memory__job=first(2**63 - 4096, 10**9))
    assert machine.free_memory() == FREE


def test_a_limit_is_kept_and_pages_of_files_do_not_count(groups):
    groups("0::/job\n", job=second(4 * 10**9, 3 * 10**9))
    assert machine.free_memory() == 10**9
    groups("0::/job\n", job=second(4 * 10**9, 3 * 10**9, files=2 * 10**9))
    assert machine.free_memory() == 3 * 10**9
    groups("0::/job\n", job=second(10**9, 2 * 10**9))
    assert machine.free_memory() == 0, "a limit that was lowered"


def test_the_narrowest_limit_of_all_groups_above_counts(groups):
    groups("0::/batch/job\n", batch=second(2 * 10**9, 0), batch__job=second(4 * 10**9, 0))
    assert machine.free_memory() == 2 * 10**9


def test_a_container_sees_its_own_group_as_the_root(groups):
    groups("4:memory:/docker/4f1a\n", memory=first(3 * 10**9, 10**9))
    assert machine.free_memory() == 2 * 10**9


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    assert 1 <= machine.cores() <= len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert machine.cores() == 1
