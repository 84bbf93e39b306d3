"""From predictions to pictures: the stage generate, by trials and arms, and from captions alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.families import family_print
from neurocanvas.stages.run import Run, read_picture, write_picture
from neurocanvas.stages.shards import Shards, Work, processes
from neurocanvas.stages.sketching import sketch
from neurocanvas.targets.captions import prompt, read_captions

CAPTION = "caption"
"""The arm that needs no EEG: every stimulus from its own caption."""

COLUMNS = ("original", "from caption", "from EEG")
"""Of the pages of comparison."""


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
    """Draw the pictures of every subject and arm, a fixed shard at a time; and of every caption, if that is asked for.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        `images/manifest.jsonl`, and the pages of comparison in `generated_from_captions/`.
    """
    from neurocanvas.generation.diffusion import load_generator

    settings, say = run.settings.generate, partial(run.log, "generate")

    def tell(text: str) -> None:
        say(warning=text)
        sys.stderr.write(f"neurocanvas: {text}\n")

    generator = cache(lambda: load_generator(settings, tell=tell))
    draw = Shards(run, family_print(settings.family), generator, processes())
    made = []
    if set(settings.arms) != {CAPTION}:
        made.append(_draw_trials(run, draw))
    if CAPTION in settings.arms:
        made += _draw_captions(run, draw)
    return made


def _draw_trials(run: Run, draw: Shards) -> Path:
    """Draw the arms that are made trial by trial."""
    folder, drawn = run.folder / "images", []
    for subject in run.subjects:
        for work in _arms_of(run, subject):
            draw(folder, f"s{subject}/{work.arm}", work, title=f"generate s{subject} {work.arm}")
            drawn += work.entries
    if draw.all_is_there():
        _show_seen(run, drawn)
        store.write_text(folder / "manifest.jsonl", "".join(json.dumps(entry) + "\n" for entry in drawn))
    return folder / "manifest.jsonl"


def _draw_captions(run: Run, draw: Shards) -> list[Path]:
    """Draw every stimulus from its caption, and set it beside what was seen and what was drawn from EEG."""
    from neurocanvas.generation.diffusion import picture_seed
    from neurocanvas.report.grids import comparison_pages

    settings, folder = run.settings.generate, run.folder / "generated_from_captions"
    concepts = np.array([run.dataset[1].concepts[name] for name in run.stimuli])
    rows = chosen(concepts, np.zeros(len(concepts), np.int64), settings.max_trials)
    conditions = np.asarray(run.embeddings()[rows], np.float32)
    entries = [
        {
            "arm": CAPTION, "trial": int(row), "stimulus": run.stimuli[row], "concept": str(concepts[row]),
            "file": f"{Path(run.stimuli[row]).stem}.png",
            "seed": picture_seed(settings.seed, f"{CAPTION}/{run.stimuli[row]}", 0, 0),
        }
        for row in rows
    ]  # fmt: skip
    draw(folder, ".", Work(CAPTION, conditions, conditions, conditions, entries, []), title="generate from captions")
    if not draw.all_is_there():
        return []
    captions, from_eeg = read_captions(run.folder / "targets" / "caption.txt"), _first_pictures(run, "eeg")
    rows_of_page = []
    for entry in entries:
        stimulus, drawn = entry["stimulus"], read_picture(folder / entry["file"])
        row = {"original": run.dataset[1].picture(stimulus, size=len(drawn)), "from caption": drawn}
        if stimulus in from_eeg:
            row["from EEG"] = read_picture(from_eeg[stimulus])
        rows_of_page.append((captions[stimulus], row))
    rows_of_page.sort(key=lambda row: "from EEG" not in row[1])
    columns = [column for column in COLUMNS if any(column in row for _, row in rows_of_page)]
    pages = []
    for number, page in enumerate(comparison_pages(columns, rows_of_page), 1):
        pages.append(folder / f"page_{number:03d}.png")
        write_picture(pages[-1], page)
    for stale in {*folder.glob("page_*.png")} - {*pages}:
        stale.unlink()  # of an earlier, larger selection
    return pages


def _first_pictures(run: Run, arm: str) -> dict[str, Path]:
    """Stimulus -> the first picture of it that an arm drew, as far as there are any of this run."""
    manifest = run.folder / "images" / "manifest.jsonl"
    found: dict[str, Path] = {}
    try:
        entries = read_manifest(run, manifest) if manifest.is_file() else []
    except NeuroCanvasError:
        entries = []  # of other subjects or predictions
    for entry in entries:
        if entry["arm"] == arm:
            found.setdefault(entry["stimulus"], manifest.parent / entry["file"])
    return found


def _arms_of(run: Run, subject: int) -> Iterator[Work]:
    """Make the conditions of one subject's chosen test trials, arm by arm, with the manifest's entries."""
    from neurocanvas.generation.conditioning import ARMS, ArmInputs, match_norms, rescale, token_norms
    from neurocanvas.generation.diffusion import picture_seed
    from neurocanvas.targets.text import embed_captions

    settings, trials = run.settings.generate, run.subjects[subject]
    path = run.folder / "predictions" / f"s{subject}.npy"
    predicted = store.read_array(path, "predictions; `neurocanvas predict` makes them")
    means = store.read_array(path.with_name(f"s{subject}_mean.npy"), "mean targets; `neurocanvas predict` makes them")
    card = store.read_card(path)
    if max(card["trials"]) >= len(trials) or "known" not in card:
        raise NeuroCanvasError(f"{path}: made for other trials or by another version; run `neurocanvas predict` again.")
    kept = chosen(trials.column("concept")[card["trials"]], np.array(card["folds"]), settings.max_trials)
    rows, folds = np.array(card["trials"])[kept], np.array(card["folds"])[kept]
    shown, mean = trials.select(rows), np.asarray(means)[folds]
    gains = np.array(card["gains"])[folds] if settings.scale == "affine" else np.ones(len(rows))
    targets, embeddings, stimuli = run.targets(), run.embeddings(), run.dataset[1]
    _check_arms(run, predicted.shape[1:], embeddings.shape[1:])
    known = np.zeros((len(means), len(targets)), bool)
    for fold, trained in enumerate(card["known"]):
        known[fold, trained] = True
    prediction = np.asarray(predicted[kept], np.float32)
    rescaled = rescale(prediction, mean, gains)
    if settings.scale == "token-norm":
        norms = np.stack([token_norms(targets, np.array(trained)) for trained in card["known"]])
        rescaled = match_norms(prediction, norms[folds])
    inputs = ArmInputs(
        prediction, rescaled, mean,
        np.asarray(embeddings[run.stimulus_rows(shown)], np.float32), shown.column("concept"), np.random.default_rng(),
        targets, embeddings, known[folds],
        np.array([stimuli.concepts[name] for name in run.stimuli]), np.array(run.stimuli),
        lambda concepts: embed_captions([prompt(stimuli.names[c]) for c in concepts], run.settings.family),
        lambda: sketch(run, subject)[kept],
    )  # fmt: skip
    for arm in (name for name in settings.arms if name != CAPTION):
        seed = partial(picture_seed, settings.seed, arm, subject)
        entries = [
            {
                "subject": subject, "arm": arm, "trial": int(row), "stimulus": str(stimulus), "concept": str(concept),
                "predictions": card["sha256"][:16],
                "file": f"s{subject}/{arm}/{row:05d}_{Path(stimulus).stem}.png", "seed": seed(int(row)),
            }
            for row, stimulus, concept in zip(rows, shown.column("stimulus"), shown.column("concept"), strict=True)
        ]  # fmt: skip
        own = replace(inputs, rng=np.random.default_rng(seed(-1)))
        starts = ARMS[arm].start
        over = [] if starts is None else starts(own)
        yield Work(arm, ARMS[arm].condition(own), inputs.predicted, mean, entries, over)


def _check_arms(run: Run, predicted: tuple[int, ...], needed: tuple[int, ...]) -> None:
    """Raise if an arm draws from predictions that the generator cannot take."""
    from neurocanvas.generation.conditioning import ARMS

    refused = [arm for arm in run.settings.generate.arms if arm != CAPTION and ARMS[arm].from_prediction]
    if refused and predicted != needed:
        others = ", ".join(arm for arm, how in ARMS.items() if not how.from_prediction)
        raise NeuroCanvasError(
            f"--arm {refused[0]}: draws from predictions, and these have shape {predicted} where the generator takes "
            f"{needed}. Choose among {others}, or embed and train with the family that draws and embed.target text."
        )


def _show_seen(run: Run, entries: list[dict[str, Any]]) -> None:
    """Put what was seen beside what was drawn, at the same size."""
    size = read_picture(run.folder / "images" / entries[0]["file"]).shape[0]
    for stimulus in sorted({entry["stimulus"] for entry in entries}):
        path = run.folder / "images" / "seen" / f"{stimulus}.png"
        write_picture(path, run.dataset[1].picture(stimulus, size=size))


def read_manifest(run: Run, path: Path) -> list[dict[str, Any]]:
    """Read what was drawn, if it still belongs to this run's trials and predictions.

    Parameters
    ----------
    run : Run
    path : Path
        `images/manifest.jsonl`.

    Returns
    -------
    list of dict
        One entry per picture.

    Raises
    ------
    NeuroCanvasError
        If it is missing, damaged, or names trials that the run's predictions do not.
    """
    text = store.read_text(path, "the pictures that were drawn; run `neurocanvas generate` first")
    try:
        entries = [json.loads(line) for line in text.splitlines()]
        drawn = {(entry["subject"], entry["trial"], entry["stimulus"]) for entry in entries}
    except (ValueError, LookupError, TypeError) as error:
        raise NeuroCanvasError(f"{path}: damaged ({error}); run `neurocanvas generate` again.") from error
    if not entries:
        raise NeuroCanvasError(f"{path}: empty; run `neurocanvas generate` again.")
    predicted, made_from = set(), {}
    for subject in run.subjects.keys() & {subject for subject, *_ in drawn}:
        card = store.read_card(run.folder / "predictions" / f"s{subject}.npy")
        rows, made_from[subject] = card["trials"], card["sha256"][:16]
        shown = run.subjects[subject].column("stimulus")
        predicted |= {(subject, row, str(shown[row])) for row in rows if row < len(shown)}
    for entry in entries:
        if entry.get("predictions") != made_from.get(entry["subject"], entry.get("predictions")):
            raise NeuroCanvasError(
                f"{path}: subject {entry['subject']} was drawn from other predictions; run `neurocanvas generate`."
            )
    if not drawn <= predicted:
        subject, trial, stimulus = sorted(drawn - predicted)[0]
        raise NeuroCanvasError(
            f"{path}: names trial {trial} ({stimulus}) of subject {subject}, which this run's settings and predictions "
            "do not; run `neurocanvas generate` again."
        )
    return entries
