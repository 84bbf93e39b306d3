"""Benchmarks of engines: the same tasks by 1, 2 and 4 worker processes, one thread each."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bench import Row

WORKERS = (2, 4)
SIMULATION = {"design": "rapid", "subjects": 4, "concepts": 16, "trials_per_concept": 30}


def _prepared(folder: Path) -> None:
    """A run with predictions of four subjects."""
    from neurocanvas.workflow import run_stage

    run = _run(folder)
    for stage in ("simulate", "features", "caption", "embed", "train", "predict"):
        run_stage(run, stage)


def _run(folder: Path, engine: object = None) -> object:
    """The run, with an engine."""
    from neurocanvas.config import load_settings
    from neurocanvas.parallel import IN_PROCESS
    from neurocanvas.pipeline.run import RunFolder

    settings = load_settings(
        None, simulate=SIMULATION, encoder={"epochs": 5}, classify={"models": ["mlp", "svm", "rf"], "epochs": 40},
        benchmark={"granularities": ["all"], "permutations": 99},
        generate={"max_trials": 48, "arms": ["eeg"], "shard": 12},
    )  # fmt: skip
    return RunFolder(folder, settings, engine=engine or IN_PROCESS)


def _seconds(prepared: Path, verb: str, wanted: str, workers: int) -> float:
    """Time one verb in a fresh copy of the run; the workers are there and have loaded what they need."""
    from neurocanvas.parallel import Engine
    from neurocanvas.workflow import run_stage

    with tempfile.TemporaryDirectory() as made, closing(Engine(workers)) as engine:
        for name in ("warm", "timed"):
            folder = Path(made) / name
            shutil.copytree(prepared, folder, symlinks=True)
            started = time.perf_counter()
            run_stage(_run(folder, engine), verb)
            seconds = time.perf_counter() - started
            if not list(folder.glob(wanted)):
                raise RuntimeError(f"{verb} made no {wanted}")
    return seconds


def _scaling(verb: str, wanted: str, what: str) -> list[Row]:
    """One process against 2 and 4 workers."""
    from neurocanvas.parallel import cores

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "run"
        _prepared(prepared)
        alone = _seconds(prepared, verb, wanted, 1)
        rows = []
        for workers in WORKERS:
            together = _seconds(prepared, verb, wanted, workers)
            share = alone / together / min(workers, cores())
            rows.append(
                Row(name=f"{verb}_{workers}_workers", baseline=alone, ours=together, unit="s", ratio=alone / together,
                    what=f"{what}: 1 process; {workers} workers, one thread each, on {cores()} cores "
                    f"({share:.0%} of what the cores allow)")
            )  # fmt: skip
    return rows


BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "scaling_benchmark": lambda: _scaling(
        "benchmark", "classification/**/*.npy", "4 subjects of 480 trials x MLP, SVM and forest, 12 units"
    ),
    "scaling_generate": lambda: _scaling(
        "generate", "images/**/*.png", "4 subjects x 48 images of 64 px, 20 steps, 16 shards"
    ),
}
"""Name -> what measures it."""
