"""Units of work on a Ray cluster: a pool of actors; each does a unit at a time and keeps what it has loaded."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from neurocanvas.errors import NeuroCanvasError, require
from neurocanvas.scale import Needs, Result, Unit, do_unit

# Variables of the environment that workers get.
PASSED_ON = ("HF_HUB_OFFLINE", "HF_HOME", "TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "TOKENIZERS_PARALLELISM")


# Units per worker that are done before the first that is not, and workers in a row that may die before any is done.
AHEAD, DEATHS = 8, 3

# Result of a unit, or why it was refused.
Outcome = tuple[Any, str | None]


class Worker:
    """What runs on the cluster."""

    def __init__(self, folder: str, variables: dict[str, str]) -> None:
        os.environ.update(variables)
        with suppress(OSError):  # a machine that does not share it has what it needs elsewhere, or says what is missing
            os.chdir(folder)

    def is_there(self) -> None:
        """Answer, once the cluster has found a place for this worker."""

    def do(self, work: Callable[[Unit], Result], unit: Unit, threads: int) -> Outcome:
        """Do a unit; a refusal is a value, because Ray would wrap an exception in its own traceback."""
        try:
            return do_unit(work, unit, threads), None
        except NeuroCanvasError as error:
            return None, str(error)


@dataclass(eq=False)
class Cluster:
    """Units are done on a Ray cluster."""

    address: str = ""
    workers: int = 0
    threads: int = 0
    _ray: Any = field(default=None, repr=False)
    _idle: list[Any] = field(default_factory=list, repr=False)
    _theirs: Needs | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._ray = require("ray", "--engine ray", "ray")
        self._check_address()
        try:
            self._ray.init(
                address=self.address or "local", log_to_driver=False, logging_level="error", include_dashboard=False
            )
        except (ConnectionError, ValueError, RuntimeError, ImportError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise NeuroCanvasError(
                f"--address: the address of a Ray cluster that is running is needed; got {self.address!r} ({reason})."
            ) from error

    def _check_address(self) -> None:
        """Refuse a host and port where nobody listens: Ray would ask for minutes."""
        host, _, port = self.address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdigit():
            return
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise NeuroCanvasError(
                f"--address: nobody answers at {self.address!r} ({error}); start the cluster."
            ) from error

    def map(
        self,
        work: Callable[[Unit], Result],
        units: Sequence[Unit],
        needs: Needs,
    ) -> Iterator[Result]:
        """Do the units; see `scale.Engine`. One whose node dies is done by a worker that takes its place."""
        ray, needs = self._ray, replace(needs, threads=self.threads or needs.threads)
        waiting, results = deque(enumerate(units)), dict[int, Result]()
        shared, busy = ray.put(work), dict[Any, tuple[Any, tuple[int, Unit] | None]]()
        following = deaths = 0
        try:
            self._gather(min(len(units), self._width(needs)), needs, busy)
            while following < len(units):
                answer = ray.wait(list(busy), num_returns=1)[0][0]
                worker, job = busy.pop(answer)
                try:
                    outcome = ray.get(answer)
                except (*_gone(ray), ray.exceptions.RayActorError) as error:
                    self._dismiss([worker])  # it may be there still, out of reach or without the result
                    deaths += 1
                    if deaths > DEATHS * (1 + len(busy)):
                        raise NeuroCanvasError(
                            f"{deaths} workers of the Ray cluster died without getting anything done ({error}); see "
                            "its logs. What is done stays."
                        ) from error
                    if job is not None:
                        waiting.appendleft(job)
                    self._gather(len(busy) + 1, needs, busy)
                    continue
                if job is not None:
                    results[job[0]], deaths = _accepted(outcome), 0
                self._idle.append(worker)
                while following in results:
                    yield results.pop(following)
                    following += 1
                while self._idle and waiting and waiting[0][0] < following + AHEAD * (1 + len(busy)):
                    worker, job = self._idle.pop(), waiting.popleft()
                    busy[worker.do.remote(shared, job[1], needs.threads)] = worker, job
        finally:
            self._dismiss([worker for worker, _ in busy.values()])

    def _gather(self, count: int, needs: Needs, busy: dict[Any, Any]) -> None:
        """Take the workers of the last units, if these need no more, and hire others."""
        have = self._theirs
        if have is None or (have.threads, have.gpu) != (needs.threads, needs.gpu) or have.memory < needs.memory:
            self._dismiss(self._idle)
            self._idle, self._theirs = [], needs
        while self._idle and len(busy) < count:
            worker = self._idle.pop()
            busy[worker.is_there.remote()] = worker, None
        for _ in range(count - len(busy)):
            self._hire(needs, busy)

    def _hire(self, needs: Needs, busy: dict[Any, Any]) -> None:
        """Ask for a worker; it gets work when it answers."""
        needs = self._theirs or needs
        resources: dict[str, Any] = {"num_cpus": needs.threads, "memory": needs.memory, "max_restarts": 0}
        if needs.gpu and self._ray.cluster_resources().get("GPU", 0):
            resources["num_gpus"] = needs.gpu
        variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        worker = self._ray.remote(Worker).options(**resources).remote(os.getcwd(), variables)
        busy[worker.is_there.remote()] = worker, None

    def _dismiss(self, workers: Sequence[Any]) -> None:
        """Let workers go, and what they are at."""
        for worker in workers:
            with suppress(self._ray.exceptions.RayError, ConnectionError):
                self._ray.kill(worker)

    def _width(self, needs: Needs) -> int:
        """How many workers there is room for in the whole cluster."""
        if self.workers:
            return self.workers
        room, nodes = 0, [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        on_gpus = needs.gpu and any(node.get("GPU") for node in nodes)
        for node in nodes:
            fits = [node.get("CPU", 0) / needs.threads, node.get("memory", 0) / needs.memory]
            room += int(min(fits + ([node.get("GPU", 0) / needs.gpu] if on_gpus else [])))
        if not room:
            raise NeuroCanvasError(
                f"--engine ray: a node with {needs.threads} cores and {needs.memory / 1e9:.1f} GB"
                f"{f' and {needs.gpu} of a GPU' if on_gpus else ''} is needed; none of {len(nodes)} nodes is "
                "of that size. With --workers, workers are waited for until such a node is there."
            )
        return room

    def close(self) -> None:
        """Leave the cluster, or end it if it was started here."""
        self._ray.shutdown()


def _gone(ray: Any) -> tuple[type[Exception], ...]:
    """Errors that say that a node or a result is gone, or that memory was short; those of workers are others."""
    known = ray.exceptions
    return known.ObjectLostError, known.OutOfMemoryError, known.WorkerCrashedError, known.NodeDiedError


def _accepted(outcome: Outcome) -> Any:
    """The result of a unit that was not refused."""
    result, refused = outcome
    if refused is not None:
        raise NeuroCanvasError(refused)
    return result
