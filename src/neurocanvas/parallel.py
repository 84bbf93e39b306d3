"""Idempotent tasks in this process, in processes of this machine (joblib), or on a Ray cluster: the same bytes."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import current_process
from typing import Any, TypeVar

import joblib
import psutil
from joblib.externals.loky import get_reusable_executor, process_executor
from threadpoolctl import threadpool_limits

from neurocanvas.errors import NeuroCanvasError, check_option, require

Unit = TypeVar("Unit")
Result = TypeVar("Result")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # libraries read them when they are loaded
PASSED_ON = ("HF_HUB_OFFLINE", "HF_HOME", "NEUROCANVAS_CACHE", "NEUROCANVAS_DEVICE")  # to Ray tasks
RESUME = "run the same command again to resume."


@dataclass(frozen=True)
class Needs:
    memory: int = 2 * 10**9  # bytes, libraries included
    threads: int = 1  # last digits of results depend on it, and on nothing else that differs between engines
    gpu: float = 0.0  # share of a GPU, where there are any


# Stage -> needs of each task. `benchmark` uses those of `classify`; `generate` asks for more where weights are large.
NEEDS: Mapping[str, Needs] = {
    "convert": Needs(5 * 10**8), "features": Needs(10**9), "caption": Needs(gpu=0.5), "embed": Needs(gpu=0.25),
    "train": Needs(), "predict": Needs(), "classify": Needs(), "sketch": Needs(), "generate": Needs(gpu=1.0),
    "evaluate": Needs(gpu=0.25), "controls": Needs(),
}  # fmt: skip
_CACHE: dict[tuple[str, str], tuple[Hashable, Any]] = {}


def process_cache(stage: str, name: str, key: Hashable, load: Callable[[], Result]) -> Result:
    """Load once per process what tasks of a stage share; one object per name, those of other stages are dropped."""
    if any(other != stage for other, _ in _CACHE):
        _CACHE.clear()
    if (stage, name) not in _CACHE or _CACHE[stage, name][0] != key:
        _CACHE.pop((stage, name), None)  # before the next is loaded: memory may not hold both
        _CACHE[stage, name] = key, load()
    return _CACHE[stage, name][1]  # type: ignore[no-any-return]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Limit threads inside the block, also of libraries that are first loaded there."""
    before = {name: os.environ[name] for name in THREADS if name in os.environ}
    os.environ.update(dict.fromkeys(THREADS, str(count)))
    torch: Any = sys.modules.get("torch")  # where it is not loaded yet, it will read the variables
    of_torch = torch.get_num_threads() if torch else joblib.cpu_count()
    if torch:
        torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        for name in THREADS:
            os.environ.pop(name, None)
        os.environ.update(before)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(of_torch)


def run_task(work: Callable[[Unit], Result], unit: Unit, count: int) -> Result:
    with threads(count):
        return work(unit)


@dataclass(eq=False)
class Engine:
    """Tasks run on this machine, in processes if more than one fits at a time."""

    workers: int = 1  # tasks at once; 1: in this process; 0: as many as cores, memory and GPUs allow
    threads: int = 0  # of each task; 0: as the stage says

    def map(self, work: Callable[[Unit], Result], units: Sequence[Unit], needs: Needs) -> Iterator[Result]:
        """Yield results in the order of the units; `work` and units must pickle, and tasks must be idempotent."""
        alone = len(units) < 2 or int(os.environ.get("WORLD_SIZE", "1")) > 1  # `accelerate launch` made processes
        count, width = self.threads or needs.threads, 1 if alone else self.workers
        devices = tuple(gpus()) if needs.gpu and width != 1 else ()
        if not width:
            room = [joblib.cpu_count() // count, psutil.virtual_memory().available // needs.memory]
            width = max(1, min(room + ([int(len(devices) / needs.gpu)] if devices else [])))
        if width == 1:
            try:
                yield from (run_task(work, unit, count) for unit in units)
            finally:
                _CACHE.clear()
            return
        with joblib.parallel_config("loky", inner_max_num_threads=count, initializer=_begin_worker, initargs=devices):
            parallel = joblib.Parallel(min(width, len(units)), return_as="generator", batch_size=1, max_nbytes=None)
        warnings.filterwarnings("ignore", ".*adjusting the input task iterator", UserWarning)  # of a caller that stops
        try:  # after an error or an interrupt joblib kills the workers: none may write once the run folder is unlocked
            yield from parallel(joblib.delayed(run_task)(work, unit, count) for unit in units)
        except process_executor.TerminatedWorkerError as error:
            raise NeuroCanvasError(f"a worker died (out of memory? use fewer --workers); {RESUME}") from error

    def close(self) -> None:
        if self.workers != 1:
            # killed workers leave semaphores, of which Python warns: only after an error they may still be working
            get_reusable_executor(reuse=True).shutdown(kill_workers=sys.exc_info()[0] is not None)


def gpus() -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[: torch.cuda.device_count()] or [str(number) for number in range(torch.cuda.device_count())]


def _begin_worker(*devices: str) -> None:
    """Give a worker process its GPU, and end it when its parent ends, however that happens."""
    process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize  # a network that a later task loads is no leak
    if devices:  # joblib numbers its workers: LokyProcess-1, -2, ...
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[int(current_process().name.rpartition("-")[2]) % len(devices)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C

    def follow(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()


class RayEngine(Engine):
    """Tasks run on a Ray cluster, as many at once as it has room for; an empty address starts one here."""

    def __init__(self, workers: int = 0, threads: int = 0, address: str = "") -> None:
        super().__init__(workers, threads)
        self._ray: Any = require("ray", "--engine ray", "ray")
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            if host and port.isdigit():  # Ray would ask for minutes where nobody listens
                socket.create_connection((host, int(port)), timeout=10).close()
            self._ray.init(address or "local", log_to_driver=False, logging_level="error", include_dashboard=False)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise NeuroCanvasError(f"--address: no Ray cluster at {address!r}; start it ({error}).") from error

    def map(self, work: Callable[[Unit], Result], units: Sequence[Unit], needs: Needs) -> Iterator[Result]:
        ray, count, folder = self._ray, self.threads or needs.threads, os.getcwd()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        wanted = {"CPU": count, "memory": needs.memory, "GPU": needs.gpu if any("GPU" in node for node in nodes) else 0}
        if not self.workers and not any(all(node.get(kind, 0) >= wanted[kind] for kind in wanted) for node in nodes):
            raise NeuroCanvasError(f"--engine ray: no node has {wanted}; add one, or pass --workers to wait for it.")
        variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}

        def run(unit: Unit) -> Result:
            os.environ.update(variables)
            with suppress(OSError):  # a machine without this folder has the data elsewhere, or says what is missing
                os.chdir(folder)
            return run_task(work, unit, count)

        # num_gpus stands in `options`: given to `remote`, it ends the worker, with what it has loaded, after each task
        task = ray.remote(run).options(num_cpus=count, memory=needs.memory, num_gpus=wanted["GPU"], max_retries=3)
        limit, rest, waiting, running = self.workers or len(units), [*units], list[Any](), list[Any]()
        try:
            for _ in units:
                while not waiting or waiting[0] in running:
                    while rest and len(running) < limit:
                        running.append(task.remote(rest.pop(0)))
                        waiting.append(running[-1])
                    running = ray.wait(running)[1]
                yield ray.get(waiting.pop(0))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise NeuroCanvasError(f"--engine ray: a task was lost ({type(error).__name__}); {RESUME}") from error
        finally:
            for task_id in running:
                with suppress(ray.exceptions.RayError, ConnectionError):
                    ray.cancel(task_id, force=True)

    def close(self) -> None:
        self._ray.shutdown()


IN_PROCESS = Engine()  # of library calls: no workers, one thread


def make_engine(name: str = "local", address: str = "", workers: int = 0, threads: int = 0) -> Engine:
    if check_option("--engine", name, ("local", "ray")) == "ray":
        return RayEngine(workers, threads, address)
    if address:
        raise NeuroCanvasError(f"--address: belongs to --engine ray; got {address!r} with --engine local.")
    return Engine(workers, threads)
