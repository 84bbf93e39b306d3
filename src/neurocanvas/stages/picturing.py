"""From pictures to scores and the page: the stages evaluate and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.stages.compared_pictures import Given, Pictures
from neurocanvas.stages.comparing import add_upper_half, compare, described
from neurocanvas.stages.drawing import read_manifest
from neurocanvas.stages.elsewhere import evaluate_elsewhere
from neurocanvas.stages.run import Run
from neurocanvas.stages.scoring import write_confusions, write_scores
from neurocanvas.targets.captions import prompt


def evaluate(run: Run) -> list[Path]:
    """Score every arm's pictures against what was seen."""
    paths = evaluate_elsewhere(run) if run.settings.evaluate.against else _evaluate(run)
    for stale in {run.folder / "scores" / name for name in NOT_ALWAYS} - {*paths}:
        stale.unlink(missing_ok=True)  # of an earlier evaluation
    return paths


# Tables that are there only where concepts or mappers are known.
NOT_ALWAYS = ("concepts.csv", "confusion.csv", "concept_order.csv", "importance.csv")


def _evaluate(run: Run) -> list[Path]:
    """Score the run's own pictures."""
    from neurocanvas.evaluation.summary import draw_cells, summarise
    from neurocanvas.stages.explaining import explain

    settings, images = run.settings.evaluate, run.folder / "images"
    entries = read_manifest(run, images / "manifest.jsonl")
    arms = list(dict.fromkeys(entry["arm"] for entry in entries))
    of_arm = {arm: [entry for entry in entries if entry["arm"] == arm] for arm in arms}
    gallery = sorted({entry["stimulus"] for entry in entries})
    names = run.dataset[1].names
    concepts = {concept: names[concept] for concept in sorted({entry["concept"] for entry in entries})}

    given = Given(
        {arm: Pictures(tuple(images / entry["file"] for entry in of_arm[arm])) for arm in arms},
        Pictures(tuple(images / "seen" / f"{stimulus}.png" for stimulus in gallery)),
        {arm: np.searchsorted(gallery, [entry["stimulus"] for entry in of_arm[arm]]) for arm in arms},
    )
    trials, blocked, warnings = _what_is_known(run, of_arm[arms[0]])
    cells = draw_cells(trials, blocked, settings.seed)
    compared = compare(run, given, [prompt(name) for name in concepts.values()], cells)
    add_upper_half(compared, np.searchsorted(list(concepts), trials["concept"]), settings)
    summary, rows = summarise(
        compared.tables, trials, gallery, concepts, settings, blocked=blocked, cells=cells,
        rng=np.random.default_rng(settings.seed), warnings=warnings, values=compared.values,
    )  # fmt: skip
    made, said = explain(run)
    for arm, what in (("eeg", "predictions"), ("oracle", "targets")):
        one = said["diversity"].get(what, {})
        for metric in ("effective_rank", "mean_cosine") if arm in arms else ():
            if metric in one:
                compared.sets[arm][metric] = {"value": one[metric], "n_generated": one["n_trials"]}
    summary |= {**described(compared), "retrieval": said["retrieval"]}
    paths = write_scores(run.folder / "scores", summary, rows)
    return [*paths, *write_confusions(run.folder / "scores", compared, trials, concepts, blocked=blocked), *made]


def _what_is_known(run: Run, entries: list[dict[str, Any]]) -> tuple[dict[str, np.ndarray], bool, list[str]]:
    """Trial columns for the statistics, whether the design is blocked, and the splits' warnings."""
    cards = {
        s: store.read_card(run.folder / "predictions" / f"s{s}.npy") for s in {entry["subject"] for entry in entries}
    }
    fold = {s: dict(zip(card["trials"], card["folds"], strict=True)) for s, card in cards.items()}
    columns = {
        name: np.array([entry[name] for entry in entries]) for name in ("subject", "trial", "stimulus", "concept")
    }
    pairs = list(zip(columns["subject"].tolist(), columns["trial"].tolist(), strict=True))
    columns["block"] = np.array([run.subjects[subject].column("block")[trial] for subject, trial in pairs])
    columns["fold"] = np.array([fold[subject][trial] for subject, trial in pairs])
    warnings = sorted({warning for card in cards.values() for warning in card["warnings"]})
    return columns, any(card["blocked"] for card in cards.values()), warnings


def report(run: Run) -> list[Path]:
    """Audit the run and make the page."""
    from neurocanvas.report.page import write_report
    from neurocanvas.stages.auditing import audit

    if (run.folder / "scores").is_dir():  # else the page says what to run first
        found = audit(run.folder)
        del found["source"]  # the folder's name, which is no part of the run
        store.write_json(run.folder / "scores" / "audit.json", found)
    return [write_report(run.folder)]
