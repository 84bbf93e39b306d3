"""Units of work for the tests of engines: functions that workers can import."""

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
    time.sleep(0.02 if number == 0 else 0)
    return 2 * number


def meet(folder, number):
    """Wait until another worker is at a unit as well; then say who this is."""
    (Path(folder) / f"met_{os.getpid()}").touch()
    deadline = time.monotonic() + 120
    while len(list(Path(folder).glob("met_*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return who(number)


def who(_):
    """Which process this is, and with how many threads its libraries work."""
    np.ones((2, 2)) @ np.ones((2, 2))
    return os.getpid(), {library["num_threads"] for library in threadpool_info()}, os.environ["OMP_NUM_THREADS"]


def refuse(number):
    """Refuse the unit 3."""
    if number == 3:
        raise NeuroCanvasError("unit 3: not allowed.")
    return number


def die_once(folder, number):
    """Kill the worker that does unit 2 first, note who began what, and give the number."""
    with (Path(folder) / f"unit_{number}").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    if number == 2 and len((Path(folder) / "unit_2").read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(_):
    """Kill the worker, always."""
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(folder, number):
    """Say that the unit was begun, and go on when the test allows it."""
    (Path(folder) / f"begun_{number}_{os.getpid()}").touch()
    while not (Path(folder) / "go").exists():
        time.sleep(0.02)
    return number


def wait_for_all_but_first(folder, number):
    """Give the first unit at once; the others wait."""
    return wait_for(folder, number) if number else number


def wait_or_refuse(folder, number):
    """Refuse the unit 1 once unit 0 is at work, which would go on for a minute."""
    if number == 0:
        (Path(folder) / f"begun_{number}_{os.getpid()}").touch()
        time.sleep(60)
    while not list(Path(folder).glob("begun_0_*")):
        time.sleep(0.02)
    raise NeuroCanvasError("no.")


def card(folder, number):
    """Which card this worker has."""
    meet(folder, number)
    return os.environ["CUDA_VISIBLE_DEVICES"]
