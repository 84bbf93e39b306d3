"""The verbs of a run in order, under the lock and settings of the run folder; and forks of a run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
import tomllib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from neurocanvas import artifacts
from neurocanvas.config import (
    STEPS,
    RunSettings,
    frozen_settings,
    load_settings,
    save_settings,
    stale_after,
    used_verbs,
)
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.parallel import threads
from neurocanvas.pipeline.run import RunFolder

# Verb, in order from data to report -> the module of its function, imported on use.
STAGES: dict[str, str] = {
    "simulate": "neurocanvas.pipeline.train",
    "features": "neurocanvas.pipeline.train",
    "caption": "neurocanvas.pipeline.train",
    "embed": "neurocanvas.pipeline.train",
    "train": "neurocanvas.pipeline.train",
    "predict": "neurocanvas.pipeline.train",
    "generate": "neurocanvas.pipeline.generate",
    "evaluate": "neurocanvas.pipeline.evaluate",
    "report": "neurocanvas.report.page",
}
# Verbs that `run` omits.
BESIDE: dict[str, str] = {
    "classify": "neurocanvas.report.tables",
    "benchmark": "neurocanvas.report.tables",
    "controls": "neurocanvas.pipeline.controls",
}

# Settings of scope to which each verb adds its values; other settings keep the last value.
GROWING = ("data.subjects", "generate.arms", "classify.models", "encoder.baselines")


def run_stage(run: RunFolder, verb: str) -> list[Path]:
    """Run one verb, alone on the run folder."""
    with artifacts.lock_run(run.folder, verb):
        path = run.folder / "run.toml"
        before = path.read_bytes() if path.is_file() else None
        used = used_verbs(path)
        run.settle_protocol(by_data="split" in STEPS[verb][0])
        settings = _settled(run, path, used)
        writes = os.environ.get("RANK", "0") == "0"  # of distributed processes, rank 0 writes
        if writes:
            save_settings(settings, path, [*used, verb])
        started, device = time.monotonic(), os.environ.get("NEUROCANVAS_DEVICE")
        os.environ["NEUROCANVAS_DEVICE"] = run.settings.execution.device  # workers inherit it
        try:
            with threads(run.engine.threads or 1):  # also for work outside tasks
                paths: list[Path] = getattr(import_module({**STAGES, **BESIDE}[verb]), verb)(run)
        except NeuroCanvasError:
            if writes and before is None:
                path.unlink()
            elif writes and before is not None:
                artifacts.write_text(path, before)
            raise
        finally:
            os.environ.pop("NEUROCANVAS_DEVICE")
            os.environ.update({} if device is None else {"NEUROCANVAS_DEVICE": device})
        seconds = round(time.monotonic() - started, 2)
        run.log(verb, seconds=seconds, wrote=[str(path.relative_to(run.folder)) for path in paths])
        return paths


def _settled(run: RunFolder, path: Path, used: Sequence[str]) -> RunSettings:
    """The settings for run.toml; raises if a frozen setting would change."""
    settings = run.settings
    if not used:
        return settings
    stored, sections = load_settings(path), [section for verb in used for section in STEPS[verb][0]]
    before, after = frozen_settings(stored, sections), frozen_settings(settings, sections)
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            old, new = (json.dumps(values.get(name)) for values in (before, after))
            change = shlex.quote(f"{name}={new}") if after.get(name) is not None else f"{name}="
            raise NeuroCanvasError(
                f"{name}: {run.folder} was made with {old}; got {new}. Keep it, or make a copy with this change: "
                f"neurocanvas fork {run.folder} NEW --set {change}"
            )
    for section, _, key in (name.partition(".") for name in GROWING):
        if section in sections:
            old, new = getattr(getattr(stored, section), key), getattr(getattr(settings, section), key)
            all_subjects = key == "subjects" and not (old and new)
            merged = {key: () if all_subjects else tuple(dict.fromkeys((*old, *new)))}
            changed = getattr(settings, section).model_copy(update=merged)
            settings = settings.model_copy(update={section: changed})
    return settings


def run_all(run: RunFolder) -> Path:
    """Run every verb from the data to the report."""
    with artifacts.lock_run(run.folder, "run"):
        path = run.folder / "run.toml"
        run.settle_protocol(by_data=run.settings.simulate is None)
        _settled(run, path, used_verbs(path))
        if run.settings.simulate is None:  # raise before anything is written if the data cannot be opened
            _ = run.subjects
        for verb in STAGES:
            paths = run_stage(run, verb)
    return paths[0]


def changed_settings(path: Path, changes: Sequence[str]) -> RunSettings:
    """The settings of a file with changes such as "generate.steps=20"."""
    sections: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        section, _, key = name.strip().partition(".")
        if not equals or section not in RunSettings.model_fields:
            raise NeuroCanvasError(f"--set: a change is section.key=value, e.g. generate.steps=20; got {change!r}.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()  # a word without quotes
        if key:
            sections.setdefault(section, {})[key] = value
        else:
            sections[section] = value
    return load_settings(path, **sections)


def fork(folder: Path, new: Path, settings: RunSettings) -> tuple[int, set[str]]:
    """Copy a run with other settings: link or copy valid files; return their number, and the stale verbs."""
    if new.exists() and any(new.iterdir()):
        raise NeuroCanvasError(f"{new}: not empty; a new folder is needed.")
    with artifacts.lock_run(folder, "fork"):
        used, stored = used_verbs(folder / "run.toml"), load_settings(folder / "run.toml")
        if settings.split.protocol == "auto":
            split = settings.split.model_copy(update={"protocol": stored.split.protocol})
            settings = settings.model_copy(update={"split": split})
        stale, linked = stale_after(stored, settings), 0
        for verb, (_, _, globs) in STEPS.items():
            for file in () if verb in stale else {path for pattern in globs for path in folder.glob(pattern)}:
                if file.is_file() and not file.name.startswith(artifacts.PART) and file.suffix != ".state":
                    copy = new / file.relative_to(folder)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    try:
                        os.link(file, copy)
                    except OSError:  # another file system, or one without links
                        shutil.copy2(file, copy)
                    linked += 1
        save_settings(settings, new / "run.toml", [verb for verb in used if verb not in stale])
    return linked, stale & {*used}
