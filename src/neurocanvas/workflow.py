"""The stages of a run: each reads artifacts from the run folder and writes artifacts to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from neurocanvas import artifacts
from neurocanvas.config import GenerateSettings, RunSettings, load_settings, save_settings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.pipeline.classify import benchmark, classify
from neurocanvas.pipeline.controls import controls
from neurocanvas.pipeline.evaluate import evaluate
from neurocanvas.pipeline.generate import generate
from neurocanvas.pipeline.run import Run
from neurocanvas.pipeline.targets import caption, embed
from neurocanvas.pipeline.train import features, predict, simulate, train
from neurocanvas.report.page import report
from neurocanvas.scale import threads

# Every stage from data to report by the name of its verb, in the order in which they run.
STAGES: Mapping[str, Callable[[Run], list[Path]]] = {
    "simulate": simulate,
    "features": features,
    "caption": caption,
    "embed": embed,
    "train": train,
    "predict": predict,
    "generate": generate,
    "evaluate": evaluate,
    "report": report,
}

# Stages that `run` leaves out.
BESIDE: Mapping[str, Callable[[Run], list[Path]]] = {
    "classify": classify, "benchmark": benchmark, "controls": controls,
}  # fmt: skip

# Arms of a run that draws captions alone.
CAPTIONS = ("caption",)


def run_stage(run: Run, name: str) -> list[Path]:
    """Run one stage; no other process works on the run folder meanwhile."""
    with artifacts.hold(run.folder, name):
        settings = run.folder / "run.toml"
        try:
            before = settings.read_bytes()
        except OSError:  # not there, or unreadable
            before = None
        writes = os.environ.get("RANK", "0") == "0"  # of processes that draw together, one
        if writes:
            save_settings(_lasting(run.settings, settings, name), settings)
        started = time.monotonic()
        try:
            with threads(run.engine.threads or 1):  # what is done beside units too
                paths = {**STAGES, **BESIDE}[name](run)
        except NeuroCanvasError:
            if writes and before is None:
                settings.unlink()
            elif writes and before is not None:
                artifacts.write_bytes(settings, before)
            raise
        seconds = round(time.monotonic() - started, 2)
        run.log(name, seconds=seconds, wrote=[str(path.relative_to(run.folder)) for path in paths])
        return paths


def _lasting(asked: RunSettings, path: Path, name: str) -> RunSettings:
    """What a run folder is to say: after an errand what it said before, for that is what was trained and drawn."""
    errand = name == "controls" or (name == "evaluate" and asked.evaluate.against) or asked.generate.arms == CAPTIONS
    there = load_settings(path) if errand and path.is_file() else None
    if name == "controls" and there is not None:
        return there.model_copy(update={"controls": asked.controls})
    if name == "evaluate" and asked.evaluate.against and there is not None and not there.evaluate.against:
        return there
    if asked.generate.arms != CAPTIONS:
        return asked
    arms = (there.generate if there is not None else GenerateSettings()).arms
    return asked.model_copy(update={"generate": asked.generate.model_copy(update={"arms": arms})})


def run_all(run: Run) -> Path:
    """Run every stage in order.

    Parameters
    ----------
    run : Run

    Returns
    -------
    Path
        The report.
    """
    with artifacts.hold(run.folder, "run"):
        for name in STAGES:
            paths = run_stage(run, name)
    return paths[0]
