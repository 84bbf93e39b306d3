"""Pictures that were made elsewhere, scored with the same ruler."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas.datasets.splits import is_blocked
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.pairing import Pairing, choose_size, read_pairing
from neurocanvas.generation.conditioning import derangement
from neurocanvas.stages.compared_pictures import Given, Pictures
from neurocanvas.stages.comparing import add_upper_half, compare, described
from neurocanvas.stages.run import Run
from neurocanvas.stages.scoring import write_confusions, write_scores
from neurocanvas.targets.captions import prompt
from neurocanvas.trials import Trials

# The arm of pictures that were made elsewhere.
GIVEN = "given"


def evaluate_elsewhere(run: Run) -> list[Path]:
    """Score a folder of pictures against a folder of what was seen."""
    from neurocanvas.evaluation.summary import draw_cells, summarise

    settings = run.settings.evaluate
    if (run.folder / "predictions").is_dir():
        raise NeuroCanvasError(f"{run.folder}: is a run with pictures of its own; name another folder by -o.")
    if not run.settings.data.pictures:
        raise NeuroCanvasError("--images: the folder of pictures that were made is needed beside --against.")
    table = Path(settings.pairs) if settings.pairs else None
    pairing = read_pairing(Path(run.settings.data.pictures), Path(settings.against), table)
    size, notes = choose_size(pairing)
    drawn, seen = (
        Pictures(tuple(path.absolute() for path in paths), size) for paths in (pairing.images, pairing.gallery)
    )
    trials, blocked = _columns(pairing)
    concepts = {str(name): str(name) for name in np.unique(trials["concept"]) if name}
    prompts = [prompt(name) for name in concepts]
    arms = {GIVEN: drawn}
    dealt = _dealt_out(trials, np.random.default_rng(settings.seed))
    if dealt is not None:
        arms["shuffled"] = drawn.take(dealt)
    cells = draw_cells(trials, blocked, settings.seed)
    compared = compare(run, Given(arms, seen, dict.fromkeys(arms, pairing.seen)), prompts, cells)
    add_upper_half(compared, np.searchsorted(list(concepts), trials["concept"]) if concepts else np.array([]), settings)
    summary, rows = summarise(
        compared.tables, trials, _names(pairing), concepts, settings, blocked=blocked, cells=cells,
        rng=np.random.default_rng(settings.seed), warnings=[*pairing.notes, *notes], values=compared.values,
    )  # fmt: skip
    paths = write_scores(run.folder / "scores", summary | described(compared), rows)
    return paths + write_confusions(run.folder / "scores", compared, trials, concepts, blocked=blocked)


def _columns(pairing: Pairing) -> tuple[dict[str, np.ndarray], bool]:
    """Trial columns for the statistics, and whether concepts came in blocks; what is not known is one value."""
    n = len(pairing.images)
    given = {name: np.asarray(values) for name, values in pairing.columns.items()}

    def numbered(name: str) -> np.ndarray:
        return np.unique(given[name], return_inverse=True)[1] if name in given else np.zeros(n, np.int64)

    columns: dict[str, Any] = {
        "subject": numbered("subject"), "trial": np.arange(n), "fold": np.zeros(n, np.int64),
        "stimulus": np.array(_names(pairing))[pairing.seen],
        "concept": given.get("concept", np.full(n, "")), "block": numbered("block"),
    }  # fmt: skip
    if "concept" not in given or not {"block", "order"} & given.keys():
        return columns, False
    try:
        order = given["order"].astype(float) if "order" in given else columns["block"]
    except ValueError as error:
        raise NeuroCanvasError(f"pairing table: the column order must hold numbers ({error}).") from error
    if "block" not in given:  # the contiguous runs of one concept
        recorded = np.lexsort([order, columns["subject"]])
        changes = columns["concept"][recorded][1:] != columns["concept"][recorded][:-1]
        columns["block"][recorded[1:]] = np.cumsum(changes)
    same = {name: np.zeros(n, np.int64) for name in ("session", "run")}
    table = {**columns, **same, "order": order, "granularity": np.full(n, "all")}
    return columns, is_blocked(Trials(table, (), 1.0, 0.0, lambda _: np.empty(0), ""))


def _dealt_out(trials: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray | None:
    """Another picture of the same subject for everyone, which is the floor; None where a subject has one only."""
    order = np.empty(len(trials["subject"]), np.int64)
    for subject in np.unique(trials["subject"]):
        rows = np.flatnonzero(trials["subject"] == subject)
        if len(rows) < 2:
            return None
        order[rows] = rows[derangement(trials["stimulus"][rows], rng=rng)]
    return order


def _names(pairing: Pairing) -> list[str]:
    """Distinct names of the seen pictures: from where their paths differ."""
    common = os.path.commonpath([path.parent for path in pairing.gallery])
    return [path.relative_to(common).as_posix() for path in pairing.gallery]
