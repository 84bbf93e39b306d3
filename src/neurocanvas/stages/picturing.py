"""From pictures to scores and the page: the stages evaluate and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.evaluation.judge import judge_texts
from neurocanvas.stages.comparing import compact, described, diversity, retrieved
from neurocanvas.stages.drawing import read_manifest
from neurocanvas.stages.elsewhere import evaluate_elsewhere
from neurocanvas.stages.run import Run, read_picture
from neurocanvas.stages.scoring import write_confusions, write_scores
from neurocanvas.targets.captions import prompt


def evaluate(run: Run) -> list[Path]:
    """Score every arm's pictures against what was seen; or, with `evaluate.against`, pictures that were made elsewhere.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        `scores/summary.json`, `trials.csv`, `concepts.csv`, `confusion.csv`, `concept_order.csv`, and
        `importance.csv` where mappers are there.
    """
    paths = evaluate_elsewhere(run) if run.settings.evaluate.against else _evaluate(run)
    for stale in {run.folder / "scores" / name for name in NOT_ALWAYS} - {*paths}:
        stale.unlink(missing_ok=True)  # of an earlier evaluation
    return paths


NOT_ALWAYS = ("concepts.csv", "confusion.csv", "concept_order.csv", "importance.csv")
"""Tables that are there only where concepts or mappers are known."""


def _evaluate(run: Run) -> list[Path]:
    """Score the run's own pictures."""
    from neurocanvas.evaluation.summary import summarise
    from neurocanvas.stages.comparing import compare
    from neurocanvas.stages.explaining import explain

    settings, images = run.settings.evaluate, run.folder / "images"
    entries = read_manifest(run, images / "manifest.jsonl")
    arms = list(dict.fromkeys(entry["arm"] for entry in entries))
    of_arm = {arm: [entry for entry in entries if entry["arm"] == arm] for arm in arms}
    gallery = sorted({entry["stimulus"] for entry in entries})
    names = run.dataset[1].names
    concepts = {concept: names[concept] for concept in sorted({entry["concept"] for entry in entries})}

    seen = np.stack([read_picture(images / "seen" / f"{stimulus}.png") for stimulus in gallery])
    drawn = {arm: np.stack([read_picture(images / entry["file"]) for entry in of_arm[arm]]) for arm in arms}
    shown = {arm: np.searchsorted(gallery, [entry["stimulus"] for entry in of_arm[arm]]) for arm in arms}
    prompts = [prompt(name) for name in concepts.values()]
    advance = run.track("evaluate", len(gallery) + 2 * len(entries))
    compared = compare(drawn, seen, shown, prompts, settings, progress=advance)
    trials, blocked, warnings = _what_is_known(run, of_arm[arms[0]])
    summary, rows = summarise(
        compared.tables, trials, gallery, concepts, settings, blocked=blocked,
        rng=np.random.default_rng(settings.seed), warnings=warnings, values=compared.values,
    )  # fmt: skip
    summary["retrieval"] = _of_predictions(run, compared.sets)
    summary |= described(compared)
    paths = write_scores(run.folder / "scores", summary, rows)
    paths += write_confusions(
        run.folder / "scores", {arm: compared.tables[arm]["concept"] for arm in arms}, trials, concepts,
        judge_texts(prompts, settings.judge), blocked=blocked,
    )  # fmt: skip
    return [*paths, *explain(run)]


def _of_predictions(run: Run, sets: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Say how different predictions are, and beside it targets (by the arms eeg and oracle), and what they retrieve."""
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for subject, trials in run.subjects.items():
        path = run.folder / "predictions" / f"s{subject}.npy"
        card, predicted = store.read_card(path), store.read_array(path, "predictions")
        mean = np.asarray(store.read_array(path.with_name(f"s{subject}_mean.npy"), "mean targets"))[card["folds"]]
        shown, true = np.unique(run.stimulus_rows(trials.select(card["trials"])), return_inverse=True)
        targets = np.asarray(run.targets()[shown], np.float32)
        for arm, given in (("eeg", predicted), ("oracle", targets[true])):
            for metric, score in diversity(compact(given, mean)).items() if arm in sets else ():
                kept = sets[arm].setdefault(metric, {"value": 0.0, "n_generated": 0})
                kept["value"] += score["value"] / len(run.subjects)  # the mean over subjects
                kept["n_generated"] += score["n_generated"]
        for rule, found in retrieved(predicted - mean, targets - mean.mean(axis=0), true).items():
            by_rule.setdefault(rule, []).append(found)
    return {
        rule: {**found[0], **{key: float(np.mean([one[key] for one in found])) for key in AVERAGED}}
        for rule, found in by_rule.items()
    }


AVERAGED = ("n_trials", "n_pictures", "top1", "top5", "chance1", "chance5", "median_rank")
"""What is averaged over subjects."""


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
    """Audit the run and make the page.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        `report.html`; the audit is in `scores/audit.json`.
    """
    from neurocanvas.report.page import write_report
    from neurocanvas.stages.auditing import audit

    if (run.folder / "scores").is_dir():  # else the page says what to run first
        found = audit(run.folder)
        del found["source"]  # the folder's name, which is no part of the run
        store.write_json(run.folder / "scores" / "audit.json", found)
    return [write_report(run.folder)]
