"""Where units of work run: in this process, in processes of this machine, or on a Ray cluster (`ray_cluster.py`)."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import connection, get_context, parent_process
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from neurocanvas.errors import NeuroCanvasError, check_option

Unit = TypeVar("Unit")
Result = TypeVar("Result")

GB = 10**9
# Environment variables from which libraries take their number of threads when they are loaded.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Needs:
    """Resources for one unit."""

    memory: int  # bytes, libraries included
    threads: int = 1  # last digits of results depend on it, and on nothing else that differs between engines
    gpu: float = 0.0  # share of a GPU, where there are any


# Stage -> needs of each unit. `benchmark` uses those of `classify`; `generate` asks for more memory where the family's
# weights are large.
NEEDS: Mapping[str, Needs] = MappingProxyType({
    "convert": Needs(GB // 2),
    "features": Needs(GB),
    "caption": Needs(2 * GB, gpu=0.5),
    "embed": Needs(2 * GB, gpu=0.25),
    "train": Needs(2 * GB),
    "predict": Needs(2 * GB),
    "classify": Needs(2 * GB),
    "sketch": Needs(2 * GB),
    "generate": Needs(2 * GB, gpu=1.0),
    "evaluate": Needs(2 * GB, gpu=0.25),
    "controls": Needs(2 * GB),
})  # fmt: skip


_KEPT: dict[tuple[str, str], tuple[Hashable, Any]] = {}


def kept(stage: str, name: str, of: Hashable, load: Callable[[], Result]) -> Result:
    """Load once per process what many units of a stage share; one object per name, other stages' are dropped."""
    if any(other != stage for other, _ in _KEPT):
        _KEPT.clear()
    there = _KEPT.get((stage, name))
    if there is None or there[0] != of:
        del there
        _KEPT.pop((stage, name), None)  # before the next is loaded: memory may not hold both
        _KEPT[stage, name] = of, load()
    found: Result = _KEPT[stage, name][1]
    return found


class Engine(Protocol):
    """Does units of work somewhere; all engines give the same results in the same order."""

    threads: int

    def map(
        self,
        work: Callable[[Unit], Result],
        units: Sequence[Unit],
        needs: Needs,
    ) -> Iterator[Result]:
        """Yield results in order; work and units must pickle, and repeating a unit must do no harm."""

    def close(self) -> None:
        """End the workers."""


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Limit threads inside the block, also of libraries first loaded there."""
    from threadpoolctl import threadpool_limits

    torch: Any = sys.modules.get("torch")  # where it is not loaded yet, it will read the variables
    of_torch = 0 if torch is None else torch.get_num_threads()
    if torch is not None:
        torch.set_num_threads(count)
    try:
        with _variables(count), threadpool_limits(count):
            yield
    finally:
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(of_torch or cores())


def do_unit(work: Callable[[Unit], Result], unit: Unit, count: int) -> Result:
    """Do one unit with a number of threads; the entry point of every engine's workers."""
    with threads(count):
        return work(unit)


@dataclass(eq=False)
class Local:
    """Units run on this machine, in processes if more than one fits at a time."""

    workers: int = 1  # 1: in this process; 0: as many as cores, memory and GPUs allow
    threads: int = 0  # per unit; 0: as the stage says
    _pool: ProcessPoolExecutor | None = field(default=None, repr=False)
    _made_for: tuple[int, int, int] | None = field(default=None, repr=False)

    def map(
        self,
        work: Callable[[Unit], Result],
        units: Sequence[Unit],
        needs: Needs,
    ) -> Iterator[Result]:
        needs = replace(needs, threads=self.threads or needs.threads)
        width = min(len(units), self._width(needs)) if len(units) > 1 else 1  # counting room loads libraries
        if width > 1:
            yield from self._in_processes(work, units, needs, width)
            return
        try:
            for unit in units:
                yield do_unit(work, unit, needs.threads)
        finally:
            _KEPT.clear()

    def _width(self, needs: Needs) -> int:
        """Number of units to run at once."""
        import psutil

        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # `accelerate launch` has made the processes
            return 1
        if self.workers:
            return self.workers
        devices = len(gpus()) if needs.gpu else 0
        room = [cores() // needs.threads, psutil.virtual_memory().available // needs.memory]
        return max(1, min(room + ([int(devices / needs.gpu)] if devices else [])))

    def _in_processes(
        self, work: Callable[[Unit], Result], units: Sequence[Unit], needs: Needs, width: int
    ) -> Iterator[Result]:
        """Run the units in processes; a dead one ends the command, and running it again resumes."""
        pool = self._workers(width, needs)
        try:
            for future in [pool.submit(do_unit, work, unit, needs.threads) for unit in units]:
                yield future.result()
        except BaseException as error:  # nobody may write once the command has released the run folder
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.kill()
            self.close()
            if isinstance(error, BrokenProcessPool):
                raise NeuroCanvasError(
                    "a worker process died, most likely because memory is short; run the command again, with fewer "
                    "--workers. It goes on from what is finished."
                ) from error
            raise

    def _workers(self, width: int, needs: Needs) -> ProcessPoolExecutor:
        """Process pool, reused by all stages of a command while number and threads stay the same."""
        devices = gpus() if needs.gpu else []
        if self._pool is None or self._made_for != (width, needs.threads, len(devices)):
            self.close()
            context = get_context("spawn")  # what torch and CUDA hold does not survive a fork
            places = context.SimpleQueue()
            for place in range(width if devices else 0):
                places.put(devices[place % len(devices)])
            self._pool = ProcessPoolExecutor(width, context, _begin_worker, (places, bool(devices), needs.threads))
            # All start before their deaths are watched for: a worker that dies while another is started hangs the pool.
            self._pool._safe_to_dynamically_spawn_children = False  # type: ignore[attr-defined]
            self._made_for = (width, needs.threads, len(devices))
        return self._pool

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def cores() -> int:
    import joblib

    return int(joblib.cpu_count())  # knows affinity and the quota of a control group


def gpus() -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return visible[:count] or [str(number) for number in range(count)]


@contextmanager
def _variables(count: int) -> Iterator[None]:
    """Set `THREADS` for processes started and libraries loaded inside the block."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin_worker(places: Any, on_gpu: bool, count: int) -> None:
    """Give a worker its GPU and threads, and end it when its parent ends, however that happens."""
    os.environ.update(dict.fromkeys(THREADS, str(count)))
    if on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = places.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    parent = parent_process()

    def follow() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


# Engine of library calls: everything in this process, one thread.
IN_PROCESS = Local()

ENGINES = ("local", "ray")


def make_engine(name: str = "local", address: str = "", workers: int = 0, threads: int = 0) -> Engine:
    """Make an engine from the command line's options; `address` is a Ray cluster's, empty starts one here."""
    check_option("--engine", name, ENGINES)
    for option, value in (("--workers", workers), ("--threads", threads)):
        if value < 0:
            raise NeuroCanvasError(f"{option}: 0 or more is allowed; got {value}.")
    if name == "local":
        if address:
            raise NeuroCanvasError(f"--address: belongs to --engine ray; got {address!r} with --engine local.")
        return Local(workers, threads)
    from neurocanvas.ray_cluster import Cluster

    return Cluster(address, workers, threads)
