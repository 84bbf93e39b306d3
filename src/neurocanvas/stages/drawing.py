"""From predictions to pictures: the stage generate, by trials and arms, and from captions alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.errors import NeuroCanvasError, check_inside, check_name
from neurocanvas.families import batches, find_family, local_folder
from neurocanvas.scale import NEEDS, Needs
from neurocanvas.stages.arms import check_arms, chosen, chosen_trials, make_work
from neurocanvas.stages.run import Run, read_picture, write_picture
from neurocanvas.stages.shards import Work, draw_shard, processes, sidecar_name
from neurocanvas.stages.sketching import sketch
from neurocanvas.targets.captions import read_captions

# The arm that needs no EEG: every stimulus from its own caption.
CAPTION = "caption"

# Of the pages of comparison.
COLUMNS = ("original", "from caption", "from EEG")


@dataclass(frozen=True)
class Shard:
    """Some trials of a subject and arm; or some stimuli that are drawn from their captions."""

    arm: str
    subject: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many pictures."""
        return self.stop - self.start


def generate(run: Run) -> list[Path]:
    """Draw the pictures of every subject and arm, a fixed shard at a time."""
    find_family(run.settings.generate.family)  # a misspelt one is refused before anything is looked for
    settings, entries = run.settings.generate, dict[tuple[int, str], list[dict[str, Any]]]()
    arms = [arm for arm in settings.arms if arm != CAPTION]
    for subject in run.subjects if arms else ():
        trials = chosen_trials(run, subject)
        check_arms(run, trials)
        entries |= {(subject, arm): trials.entries(run, arm) for arm in arms}
    if CAPTION in settings.arms:
        entries[-1, CAPTION] = _entries_of_captions(run)
    if "sketched-start" in arms:  # before workers want it at once
        list(run.spread("sketch", sketch, list(run.subjects)))
    shards = [
        Shard(arm, subject, part.start, part.stop)
        for (subject, arm), own in entries.items()
        for part in batches(len(own), settings.shard)
    ]
    planned = {
        _folder_of(run, *key): {sidecar_name(own[part]) for part in batches(len(own), settings.shard)}
        for key, own in entries.items()
    }
    others = processes()
    if others is not None:  # each draws its share
        shards = shards[others.process_index :: others.num_processes]
    sizes = [shard.size for shard in shards]
    for _ in run.spread("generate", draw, shards, needs=_needs(run), sizes=sizes):
        pass
    if others is not None:
        others.wait_for_everyone()
    made: list[Path] = []
    if others is None or others.is_main_process:
        for where, names in planned.items():
            for stale in (path for path in where.glob("shard_*.json") if path.name not in names):
                stale.unlink()  # of other shards, whose pictures have been drawn again since
        if arms:
            made.append(_write_manifest(run, [entry for (s, _), own in entries.items() if s >= 0 for entry in own]))
        if CAPTION in settings.arms:
            made += _write_pages(run, entries[-1, CAPTION])
    return made


def _needs(run: Run) -> Needs:
    """What drawing needs: the memory of the weights comes on top of that of a small family."""
    needs, folder = NEEDS["generate"], local_folder(find_family(run.settings.generate.family).diffusion)
    weights = 0 if folder is None else sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    return replace(needs, memory=needs.memory + weights)


def draw(run: Run, shard: Shard) -> None:
    """Draw a shard, unless that is done."""
    where = _folder_of(run, shard.subject, shard.arm)
    if shard.subject < 0:
        draw_shard(run, where, where, _work_of_captions(run, shard))
    else:
        work = make_work(run, shard.subject, shard.arm, slice(shard.start, shard.stop))
        draw_shard(run, run.folder / "images", where, work)


def _folder_of(run: Run, subject: int, arm: str) -> Path:
    return run.folder / "generated_from_captions" if subject < 0 else run.folder / "images" / f"s{subject}" / arm


def _write_manifest(run: Run, drawn: list[dict[str, Any]]) -> Path:
    """Put what was seen beside what was drawn, at the same size, and list the pictures."""
    folder = run.folder / "images"
    size = read_picture(folder / drawn[0]["file"]).shape[0]
    seen = {}
    for stimulus in sorted({entry["stimulus"] for entry in drawn}):
        path = folder / "seen" / f"{stimulus}.png"
        write_picture(path, run.dataset[1].picture(stimulus, size=size))
        seen[path.name] = store.hash_and_size(path)
    store.write_json(folder / "seen" / "seen.json", {"pictures": seen})  # for `verify`
    store.write_text(folder / "manifest.jsonl", "".join(json.dumps(entry) + "\n" for entry in drawn))
    return folder / "manifest.jsonl"


def _entries_of_captions(run: Run, part: slice = slice(None)) -> list[dict[str, Any]]:
    """What is drawn from captions, or some of it, with the rows of the embeddings as trials."""
    from neurocanvas.generation.diffusion import picture_seed

    settings = run.settings.generate
    concepts = np.array([run.dataset[1].concepts[name] for name in run.stimuli])
    return [
        {
            "arm": CAPTION, "trial": int(row), "stimulus": run.stimuli[row], "concept": str(concepts[row]),
            "file": f"{Path(run.stimuli[row]).stem}.png",
            "seed": picture_seed(settings.seed, f"{CAPTION}/{run.stimuli[row]}", 0, 0),
        }
        for row in chosen(concepts, np.zeros(len(concepts), np.int64), settings.max_trials)[part]
    ]  # fmt: skip


def _work_of_captions(run: Run, shard: Shard) -> Work:
    """Some stimuli to be drawn from their captions."""
    entries = _entries_of_captions(run, slice(shard.start, shard.stop))
    conditions = np.asarray(run.embeddings()[[entry["trial"] for entry in entries]], np.float32)
    return Work(CAPTION, conditions, conditions, conditions, entries, [])


def _write_pages(run: Run, entries: list[dict[str, Any]]) -> list[Path]:
    """Set every stimulus that was drawn from its caption beside what was seen and what was drawn from EEG."""
    from neurocanvas.report.grids import comparison_pages

    folder = run.folder / "generated_from_captions"
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


def read_manifest(run: Run, path: Path) -> list[dict[str, Any]]:
    """Read what was drawn, if it still belongs to this run's trials and predictions."""
    text = store.read_text(path, "the pictures that were drawn; run `neurocanvas generate` first")
    try:
        entries = [json.loads(line) for line in text.splitlines()]
        drawn = {(entry["subject"], entry["trial"], entry["stimulus"]) for entry in entries}
        for entry in entries:
            check_inside(path.parent, entry["file"], str(path))
            check_name(path.parent / "seen", entry["stimulus"], str(path))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
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
