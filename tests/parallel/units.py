"""Tasks for the tests of engines: functions that workers can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

from neurocanvas.errors import NeuroCanvasError


def twice(number):
    """Double a number; later ones are done sooner."""
    time.sleep(0.05 if number == 0 else 0)
    return 2 * number


def refuse(number):
    """Refuse the unit 3."""
    if number == 3:
        raise NeuroCanvasError("unit 3: not allowed.")
    return number


def pid(number):
    time.sleep(0.1)
    return os.getpid()


def meet(folder, number):
    """Wait until another worker runs a task as well; then say which process this is, its threads and its GPU."""
    (Path(folder) / f"met_{os.getpid()}").touch()
    wait_until(lambda: len(list(Path(folder).glob("met_*"))) > 1)
    return who(number)


def who(_):
    """Which process this is, with how many threads its libraries work, and its GPU."""
    np.ones((2, 2)) @ np.ones((2, 2))
    used = {library["num_threads"] for library in threadpool_info()}
    return os.getpid(), used, os.environ["OMP_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES")


def grow(number):
    """Load 400 MB, as a network that a later task needs, and say which process this is."""
    if number in (2, 3):
        globals().setdefault("loaded", np.ones(5 * 10**7))
        time.sleep(1.1)
    return pid(number)


def die(_):
    """Kill the worker, always."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(folder, number):
    """Kill the worker that runs unit 2 first."""
    begin(folder, number)
    if number == 2 and len(begun(folder, 2)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def wait_for(folder, number):
    """Say that the task has begun, and go on when the test allows it."""
    begin(folder, number)
    wait_until((Path(folder) / "go").exists)
    return number


def wait_for_all_but_first(folder, number):
    """Give the first unit at once; the others wait."""
    return wait_for(folder, number) if number else number


def wait_or_refuse(folder, number):
    """Refuse unit 1 once unit 0 runs, which would go on."""
    if number == 0:
        return wait_for(folder, number)
    wait_until(lambda: begun(folder, 0))
    raise NeuroCanvasError("no.")


def begin(folder, number):
    (Path(folder) / f"begun_{number}_{os.getpid()}").touch()


def begun(folder, number="*"):
    """Processes that have begun a unit, or any."""
    return [int(path.name.split("_")[2]) for path in Path(folder).glob(f"begun_{number}_*")]


def wait_until(is_so, seconds=120):
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.02)
