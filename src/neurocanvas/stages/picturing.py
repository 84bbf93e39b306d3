"""From pictures to scores and the page: the stages evaluate and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.stages.drawing import read_manifest
from neurocanvas.stages.run import Run, read_picture, write_table
from neurocanvas.targets.captions import prompt


def evaluate(run: Run) -> list[Path]:
    """Score every arm's pictures against what was seen.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        `scores/summary.json`, `trials.csv`, `concepts.csv`.
    """
    from neurocanvas.evaluation.judge import judge_pictures, judge_texts
    from neurocanvas.evaluation.summary import summarise

    settings, images = run.settings.evaluate, run.folder / "images"
    manifest = images / "manifest.jsonl"
    entries = read_manifest(run, manifest)
    arms = list(dict.fromkeys(entry["arm"] for entry in entries))
    of_arm = {arm: [entry for entry in entries if entry["arm"] == arm] for arm in arms}
    gallery = sorted({entry["stimulus"] for entry in entries})
    names = run.dataset[1].names
    concepts = {concept: names[concept] for concept in sorted({entry["concept"] for entry in entries})}

    seen = np.stack([read_picture(images / "seen" / f"{stimulus}.png") for stimulus in gallery])
    advance = run.track("evaluate", len(gallery) + 2 * len(entries))
    seen_embedded = judge_pictures(seen, settings.judge, progress=advance)
    prompted = judge_texts([prompt(name) for name in concepts.values()], settings.judge)
    tables = {}
    for arm in arms:
        drawn = np.stack([read_picture(images / entry["file"]) for entry in of_arm[arm]])
        tables[arm] = _arm_tables(
            drawn, seen, judge_pictures(drawn, settings.judge, progress=advance), seen_embedded, prompted
        )
        advance(len(drawn))
    trials, blocked, warnings = _what_is_known(run, of_arm[arms[0]])
    summary, rows = summarise(
        tables,
        trials,
        gallery,
        concepts,
        settings,
        blocked=blocked,
        rng=np.random.default_rng(settings.seed),
        warnings=warnings,
    )
    folder = run.folder / "scores"
    write_table(folder / "trials.csv", {name: np.array([row[name] for row in rows]) for name in rows[0]})
    per_concept = [
        {"concept": concept, "name": said["name"], "n": said["n"], "arm": arm, **said[arm]}
        for concept, said in summary["concepts"].items() for arm in arms
    ]  # fmt: skip
    write_table(
        folder / "concepts.csv",
        {name: np.array([row[name] for row in per_concept]) for name in per_concept[0]},
    )
    store.write_json(folder / "summary.json", summary)
    return [folder / name for name in ("summary.json", "trials.csv", "concepts.csv")]


def _arm_tables(
    drawn: np.ndarray, seen: np.ndarray, embedded: np.ndarray, seen_embedded: np.ndarray, prompted: np.ndarray
) -> dict[str, np.ndarray]:
    """Compare every drawn picture with every seen one and with every concept's prompt."""
    from neurocanvas.evaluation.identification import similarity
    from neurocanvas.evaluation.images import pixcorr_table, ssim_table

    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (embedded, prompted)]
    return {
        "similarity": similarity(embedded, seen_embedded),
        "concept": unit[0] @ unit[1].T,
        "pixcorr": pixcorr_table(drawn / 255, seen / 255),
        "ssim": ssim_table(drawn / 255, seen / 255),
    }


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
    """Make the page.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        `report.html`.
    """
    from neurocanvas.report.page import write_report

    return [write_report(run.folder)]
