"""From predictions to pictures and scores: the stages generate, evaluate and report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.families import batches, family_print
from neurocanvas.stages.run import Run, read_picture, write_picture, write_table


def chosen(concepts: np.ndarray, folds: np.ndarray, most: int | None) -> np.ndarray:
    """Choose which test trials get pictures: all, or at most so many, spread evenly over concepts and folds.

    Parameters
    ----------
    concepts : array of str, shape (n,)
        Concept of every test trial.
    folds : array of int, shape (n,)
        Fold of every test trial.
    most : int or None
        At most so many.

    Returns
    -------
    array of int
        Sorted positions: the first trial of every concept in every fold, then the second, until there are enough.
    """
    codes = [np.unique(column, return_inverse=True)[1] for column in (concepts, folds)]
    turn = np.zeros(len(concepts), dtype=np.int64)
    for pair in np.unique(codes, axis=1).T:
        members = np.flatnonzero((codes[0] == pair[0]) & (codes[1] == pair[1]))
        turn[members] = np.arange(len(members))
    return np.sort(np.lexsort((*codes, turn))[:most])


def generate(run: Run) -> list[Path]:
    """Draw the pictures of every subject and arm, a fixed shard at a time.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        `images/manifest.jsonl`.
    """
    from neurocanvas.generation.diffusion import load_generator

    folder, family = run.folder / "images", run.settings.generate.family
    weights, pipeline = family_print(family), cache(lambda: load_generator(family))
    drawn: list[dict[str, Any]] = []
    for subject in run.subjects:
        for arm, conditions, entries in _arms_of(run, subject):
            advance = run.track(f"generate s{subject} {arm}", len(entries))
            for part in batches(len(entries), run.settings.generate.shard):
                _draw_shard(run, pipeline, weights, folder / f"s{subject}" / arm, conditions[part], entries[part])
                advance(part.stop - part.start)
            drawn += entries
    _show_seen(run, drawn)
    store.write_text(folder / "manifest.jsonl", "".join(json.dumps(entry) + "\n" for entry in drawn))
    return [folder / "manifest.jsonl"]


def _arms_of(run: Run, subject: int) -> Iterator[tuple[str, np.ndarray, list[dict[str, Any]]]]:
    """Make the conditions of one subject's chosen test trials, arm by arm, with the manifest's entries."""
    from neurocanvas.generation.conditioning import ARMS, ArmInputs, rescale
    from neurocanvas.generation.diffusion import picture_seed

    settings, trials = run.settings.generate, run.subjects[subject]
    path = run.folder / "predictions" / f"s{subject}.npy"
    predicted = store.read_array(path, "predictions; `neurocanvas predict` makes them")
    means = store.read_array(path.with_name(f"s{subject}_mean.npy"), "mean targets; `neurocanvas predict` makes them")
    card = store.read_card(path)
    if max(card["trials"]) >= len(trials):
        raise NeuroCanvasError(f"{path}: made for other trials; run `neurocanvas predict` again.")
    kept = chosen(trials.column("concept")[card["trials"]], np.array(card["folds"]), settings.max_trials)
    rows, folds = np.array(card["trials"])[kept], np.array(card["folds"])[kept]
    shown, mean = trials.select(rows), np.asarray(means)[folds]
    gains = np.array(card["gains"])[folds] if settings.scale == "affine" else np.ones(len(rows))
    prediction = rescale(np.asarray(predicted[kept]), mean, gains)
    true = np.asarray(run.embeddings()[run.stimulus_rows(shown)], np.float32)
    for arm in settings.arms:
        rng = np.random.default_rng(picture_seed(settings.seed, arm, subject, -1))
        entries = [
            {
                "subject": subject, "arm": arm, "trial": int(row), "stimulus": str(stimulus), "concept": str(concept),
                "file": f"s{subject}/{arm}/{row:05d}_{Path(stimulus).stem}.png",
                "seed": picture_seed(settings.seed, arm, subject, int(row)),
            }
            for row, stimulus, concept in zip(rows, shown.column("stimulus"), shown.column("concept"), strict=True)
        ]  # fmt: skip
        yield arm, ARMS[arm](ArmInputs(prediction, mean, true, shown.column("concept"), rng)), entries


def _draw_shard(
    run: Run,
    pipeline: Callable[[], Any],
    weights: str,
    folder: Path,
    conditions: np.ndarray,
    entries: list[dict[str, Any]],
) -> None:
    """Draw a shard unless it is there. Its card, written last, holds the sha256 of its pictures."""
    from neurocanvas.generation.diffusion import generate_pictures

    settings, images = run.settings.generate, run.folder / "images"
    seeds = [entry["seed"] for entry in entries]
    inputs = store.fingerprint("generate", weights, conditions, seeds, settings.steps, settings.guidance)
    card = folder / f"shard_{entries[0]['trial']:05d}.json"
    if _shard_done(card, inputs, images):
        return
    pictures = generate_pictures(pipeline(), conditions, seeds, steps=settings.steps, guidance=settings.guidance)
    for entry, picture in zip(entries, pictures, strict=True):
        write_picture(images / entry["file"], picture)
    hashes = {entry["file"]: store.sha256(images / entry["file"]) for entry in entries}
    store.write_json(card, {"fingerprint": inputs, "pictures": hashes})


def _shard_done(card: Path, inputs: str, folder: Path) -> bool:
    """Tell whether a shard was drawn from these inputs and every picture of it is whole."""
    try:
        said = json.loads(card.read_text(encoding="utf-8"))
        pictures, known = said["pictures"].items(), said["fingerprint"] == inputs
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False  # missing or damaged: the shard is drawn again
    whole = ((folder / name).is_file() and store.sha256(folder / name) == digest for name, digest in pictures)
    return known and all(whole)


def _show_seen(run: Run, entries: list[dict[str, Any]]) -> None:
    """Put what was seen beside what was drawn, at the same size."""
    size = read_picture(run.folder / "images" / entries[0]["file"]).shape[0]
    for stimulus in sorted({entry["stimulus"] for entry in entries}):
        path = run.folder / "images" / "seen" / f"{stimulus}.png"
        write_picture(path, run.dataset[1].picture(stimulus, size=size))


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
    entries = _read_manifest(run, manifest)
    arms = list(dict.fromkeys(entry["arm"] for entry in entries))
    of_arm = {arm: [entry for entry in entries if entry["arm"] == arm] for arm in arms}
    gallery = sorted({entry["stimulus"] for entry in entries})
    names = run.dataset[1].names
    concepts = {concept: names[concept] for concept in sorted({entry["concept"] for entry in entries})}

    seen = np.stack([read_picture(images / "seen" / f"{stimulus}.png") for stimulus in gallery])
    advance = run.track("evaluate", len(gallery) + 2 * len(entries))
    seen_embedded = judge_pictures(seen, settings.judge, progress=advance)
    prompts = [
        f"a photo of {name}" if name.startswith(("a ", "an ")) else f"a photo of a {name}" for name in concepts.values()
    ]
    prompted = judge_texts(prompts, settings.judge)
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


def _read_manifest(run: Run, path: Path) -> list[dict[str, Any]]:
    """What `generate` drew, if it still belongs to this run's trials and predictions."""
    text = store.read_text(path, "the pictures that were drawn; run `neurocanvas generate` first")
    try:
        entries = [json.loads(line) for line in text.splitlines()]
        drawn = {(entry["subject"], entry["trial"], entry["stimulus"]) for entry in entries}
    except (ValueError, LookupError, TypeError) as error:
        raise NeuroCanvasError(f"{path}: damaged ({error}); run `neurocanvas generate` again.") from error
    if not entries:
        raise NeuroCanvasError(f"{path}: empty; run `neurocanvas generate` again.")
    predicted = set()
    for subject in run.subjects.keys() & {subject for subject, *_ in drawn}:
        rows = store.read_card(run.folder / "predictions" / f"s{subject}.npy")["trials"]
        shown = run.subjects[subject].column("stimulus")
        predicted |= {(subject, row, str(shown[row])) for row in rows if row < len(shown)}
    if not drawn <= predicted:
        subject, trial, stimulus = sorted(drawn - predicted)[0]
        raise NeuroCanvasError(
            f"{path}: names trial {trial} ({stimulus}) of subject {subject}, which this run's settings and predictions "
            "do not; run `neurocanvas generate` again."
        )
    return entries


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
