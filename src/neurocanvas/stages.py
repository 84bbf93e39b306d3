"""The stages of a run: each reads artifacts from the run folder and writes artifacts to it; a done one is not done again.

    simulate -> features -> caption -> embed -> train -> predict -> generate -> evaluate -> report
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.config import RunSettings, save_settings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.families import batches, family_print
from neurocanvas.trials import COLUMNS, Trials

Advance = Callable[[int], None]
Track = Callable[[str, int], Advance]
"""`track("features", 16)` opens a progress line of 16 units and gives what advances it."""


def untracked(title: str, total: int) -> Advance:  # noqa: ARG001
    """Track nothing.

    Parameters
    ----------
    title : str
        Ignored.
    total : int
        Ignored.

    Returns
    -------
    callable
        Does nothing.
    """
    return lambda _: None


@dataclass(frozen=True)
class Run:
    """A run folder with its settings.

    Parameters
    ----------
    folder : Path
        Where the artifacts are.
    settings : RunSettings
        What to do.
    track : callable
        Opens progress lines; see `Track`.
    """

    folder: Path
    settings: RunSettings
    track: Track = untracked

    def log(self, stage: str, **what: Any) -> None:
        """Append one line to `log.jsonl`.

        Parameters
        ----------
        stage : str
            Who speaks.
        **what : object
            What there is to say, as JSON.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"time": round(time.time(), 3), "stage": stage, **what}) + "\n")

    @cached_property
    def dataset(self) -> tuple[Trials, Any]:
        """Trials and stimuli of the data set that the settings name; simulated data lie inside the run folder."""
        from neurocanvas.datasets import open_dataset

        data = self.settings.data
        if self.settings.simulate is not None:
            data = data.model_copy(update={"root": str(self.folder / "data")})
        trials, stimuli = open_dataset(data)
        if len(trials) == 0:
            raise NeuroCanvasError(f"{data.root}: no trials of subjects {data.subjects or 'all'}, granularity {data.granularity}.")
        return trials, stimuli

    @cached_property
    def subjects(self) -> dict[int, Trials]:
        """Trials of every subject."""
        trials, _ = self.dataset
        return {int(s): trials.select(trials.column("subject") == s) for s in np.unique(trials.column("subject"))}

    @cached_property
    def stimuli(self) -> list[str]:
        """Stimuli that any of the trials showed, in alphabetical order: the order of captions and embeddings."""
        return [str(name) for name in np.unique(self.dataset[0].column("stimulus"))]

    def features_path(self, subject: int) -> Path:
        """Say where a subject's features are.

        Parameters
        ----------
        subject : int

        Returns
        -------
        Path
        """
        return self.folder / "features" / f"s{subject}_de.npy"

    def model_path(self, subject: int, fold: int) -> Path:
        """Say where a subject's mapper of one fold is.

        Parameters
        ----------
        subject, fold : int

        Returns
        -------
        Path
        """
        return self.folder / "models" / f"{self.settings.mapper.name}_s{subject}_fold{fold}_model.safetensors"

    def embeddings(self) -> np.ndarray:
        """Map the targets.

        Returns
        -------
        array, shape (n_stimuli, 77, 768), float16
        """
        path = self.folder / "targets" / "clip_embeddings.npy"
        embeddings = store.read_array(path, "CLIP embeddings; `neurocanvas embed` makes them")
        if store.read_card(path).get("stimuli") != self.stimuli:
            raise NeuroCanvasError(f"{path}: made for other stimuli; run `neurocanvas caption` and `neurocanvas embed` again.")
        return embeddings


def simulate(run: Run) -> list[Path]:
    """Write the simulated data set into the run folder.

    Parameters
    ----------
    run : Run
        With a section `simulate`; without one nothing is done.

    Returns
    -------
    list of Path
        What is there now.
    """
    from neurocanvas.datasets.simulated import simulate as write_simulation

    if run.settings.simulate is None:
        return []
    advance = run.track("simulate", 1)
    path = write_simulation(run.settings.simulate, run.folder / "data")
    advance(1)
    return [path]


def features(run: Run) -> list[Path]:
    """Compute the features of every subject.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        One `.npy` per subject.
    """
    from neurocanvas.features.entropy import extract
    from neurocanvas.montage import BANDS

    advance, settings = run.track("features", len(run.subjects)), run.settings.features
    for subject, trials in run.subjects.items():
        path = run.features_path(subject)
        inputs = store.fingerprint("features", trials.fingerprint(), settings)
        if not store.is_done(path, inputs):
            values = extract(trials, settings)
            write_table(path.with_name(f"s{subject}_trials.csv"), {name: trials.column(name) for name in COLUMNS})
            card = {"method": settings.method, "ch_names": list(trials.ch_names), "bands": list(BANDS), "unit": "nats"}
            store.write_array(path, values, inputs, card)
        advance(1)
    return [run.features_path(subject) for subject in run.subjects]


def caption(run: Run) -> list[Path]:
    """Caption every stimulus with the family's BLIP.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        `targets/caption.txt`.
    """
    from neurocanvas.targets.captions import caption_pictures, write_captions

    _, stimuli = run.dataset
    path, family = run.folder / "targets" / "caption.txt", run.settings.family
    inputs = store.fingerprint("caption", stimuli.fingerprint(), run.stimuli, family_print(family))
    if not store.is_done(path, inputs):
        pictures = [stimuli.picture(name) for name in run.stimuli]
        captions = caption_pictures(pictures, family, progress=run.track("caption", len(pictures)))
        write_captions(path, dict(zip(run.stimuli, captions, strict=True)))
        store.finish(path, inputs, {"family": family})
    return [path]


def embed(run: Run) -> list[Path]:
    """Encode every caption with the family's CLIP text encoder.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        `targets/clip_embeddings.npy`.
    """
    from neurocanvas.targets.captions import read_captions
    from neurocanvas.targets.text import embed_captions

    captions = read_captions(run.folder / "targets" / "caption.txt")
    missing = [name for name in run.stimuli if name not in captions]
    if missing:
        raise NeuroCanvasError(f"{run.folder / 'targets/caption.txt'}: no caption of {missing[0]}; run `neurocanvas caption`.")
    texts = [captions[name] for name in run.stimuli]
    path, family = run.folder / "targets" / "clip_embeddings.npy", run.settings.family
    inputs = store.fingerprint("embed", run.stimuli, texts, family_print(family))
    if not store.is_done(path, inputs):
        embeddings = embed_captions(texts, family, progress=run.track("embed", len(set(texts))))
        store.write_array(path, embeddings, inputs, {"family": family, "stimuli": run.stimuli})
    return [path]


def _stimulus_rows(run: Run, trials: Trials) -> np.ndarray:
    """Row of every trial's stimulus among the run's stimuli."""
    return np.searchsorted(np.array(run.stimuli), trials.column("stimulus"))


def _read_features(run: Run, subject: int) -> tuple[np.ndarray, Mapping[str, Any]]:
    """A subject's features and their card."""
    path = run.features_path(subject)
    values = store.read_array(path, "features; `neurocanvas features` makes them")
    if len(values) != len(run.subjects[subject]):
        raise NeuroCanvasError(f"{path}: made for other trials; run `neurocanvas features` again.")
    return np.asarray(values), store.read_card(path)


def train(run: Run) -> list[Path]:
    """Train every subject's mapper, one per fold, each beside its baselines.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        One safetensors file per subject and fold.
    """
    from neurocanvas.datasets.splits import make_splits
    from neurocanvas.models import EEGSpec
    from neurocanvas.training.compare import train_and_save

    targets, paths = run.embeddings(), []
    splits = {subject: make_splits(trials, run.settings.split) for subject, trials in run.subjects.items()}
    advance = run.track("train", sum(map(len, splits.values())))
    for subject, trials in run.subjects.items():
        values, card = _read_features(run, subject)
        spec = EEGSpec(tuple(card["ch_names"]), tuple(card["bands"]))
        for fold, split in enumerate(splits[subject]):
            paths.append(run.model_path(subject, fold))
            train_and_save(
                values, targets, _stimulus_rows(run, trials), split, spec, run.settings.mapper, path=paths[-1],
                log=lambda line, subject=subject, fold=fold: run.log("train", subject=subject, fold=fold, **line),
            )  # fmt: skip
            advance(1)
    return paths


def predict(run: Run) -> list[Path]:
    """Predict every test trial by the mapper of its fold.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        `predictions/s<subject>.npy`, and beside it `s<subject>_mean.npy`, the mean training target of each fold.
    """
    from neurocanvas.datasets.splits import is_blocked, make_splits
    from neurocanvas.generation.conditioning import gain
    from neurocanvas.models.checkpoint import load_mapper

    advance, paths = run.track("predict", len(run.subjects)), []
    for subject, trials in run.subjects.items():
        values, card = _read_features(run, subject)
        splits = make_splits(trials, run.settings.split)
        models = [run.model_path(subject, fold) for fold in range(len(splits))]
        path = run.folder / "predictions" / f"s{subject}.npy"
        cards = [store.read_card(model) for model in models]
        inputs = store.fingerprint("predict", [model["sha256"] for model in cards], [s.fingerprint() for s in splits], card["sha256"])
        if not store.is_done(path, inputs):
            mappers = [load_mapper(model) for model in models]
            rows = np.concatenate([split.test for split in splits])
            folds = np.concatenate([np.full(len(split.test), fold) for fold, split in enumerate(splits)])
            predicted = np.concatenate([m.predict(values[s.test]) for m, s in zip(mappers, splits, strict=True)])
            order = np.argsort(rows, kind="stable")
            store.write_array(path.with_name(f"s{subject}_mean.npy"), np.stack([m.basis.mean for m in mappers]), inputs)
            store.write_array(path, predicted[order], inputs, {
                "trials": rows[order].tolist(), "folds": folds[order].tolist(), "gains": [gain(m.basis.target_sd, m.prediction_sd) for m in mappers],
                "blocked": is_blocked(trials), "warnings": sorted({w for s in splits for w in s.warnings}),
            })  # fmt: skip
        paths.append(path)
        advance(1)
    return paths


def chosen(concepts: np.ndarray, most: int | None) -> np.ndarray:
    """Choose which test trials get pictures: all, or at most so many, spread evenly over concepts.

    Parameters
    ----------
    concepts : array of str, shape (n,)
        Concept of every test trial.
    most : int or None
        At most so many.

    Returns
    -------
    array of int
        Sorted positions: the first trial of every concept, then the second of every concept, until there are enough.
    """
    turn = np.zeros(len(concepts), dtype=np.int64)
    for concept in np.unique(concepts):
        of_concept = np.flatnonzero(concepts == concept)
        turn[of_concept] = np.arange(len(of_concept))
    return np.sort(np.lexsort((concepts, turn))[:most])


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
    from neurocanvas.generation.conditioning import ARMS, ArmInputs, rescale
    from neurocanvas.generation.diffusion import picture_seed

    settings, targets, folder = run.settings.generate, run.embeddings(), run.folder / "images"
    work: list[tuple[Path, np.ndarray, list[dict[str, Any]]]] = []
    for subject, trials in run.subjects.items():
        path = run.folder / "predictions" / f"s{subject}.npy"
        predicted, card = store.read_array(path, "predictions; `neurocanvas predict` makes them"), store.read_card(path)
        means = store.read_array(path.with_name(f"s{subject}_mean.npy"), "mean targets; `neurocanvas predict` makes them")
        kept = chosen(trials.column("concept")[card["trials"]], settings.max_trials)
        rows, folds = np.array(card["trials"])[kept], np.array(card["folds"])[kept]
        shown, mean = trials.select(rows), np.asarray(means)[folds]
        gains = np.array(card["gains"])[folds] if settings.scale == "affine" else np.ones(len(rows))
        for arm in settings.arms:
            rng = np.random.default_rng(picture_seed(settings.seed, arm, subject, -1))
            inputs = ArmInputs(
                predicted=rescale(np.asarray(predicted[kept]), mean, gains), mean=mean,
                true=np.asarray(targets[_stimulus_rows(run, shown)], np.float32), rng=rng,
            )  # fmt: skip
            entries = [
                {
                    "subject": subject, "arm": arm, "trial": int(row), "stimulus": str(stimulus), "concept": str(concept),
                    "file": f"s{subject}/{arm}/{row:05d}_{Path(stimulus).stem}.png",
                    "seed": picture_seed(settings.seed, arm, subject, int(row)),
                }
                for row, stimulus, concept in zip(rows, shown.column("stimulus"), shown.column("concept"), strict=True)
            ]  # fmt: skip
            conditions = ARMS[arm](inputs)
            work += [(folder / f"s{subject}" / arm, conditions[part], entries[part]) for part in batches(len(rows), settings.shard)]
    _draw(run, work)
    _show_seen(run, [entry for _, _, entries in work for entry in entries])
    manifest = "".join(json.dumps(entry) + "\n" for _, _, entries in work for entry in entries)
    store.write_text(folder / "manifest.jsonl", manifest)
    return [folder / "manifest.jsonl"]


def _draw(run: Run, work: list[tuple[Path, np.ndarray, list[dict[str, Any]]]]) -> None:
    """Draw the shards that are not there yet. A shard's card, written last, holds the sha256 of its pictures."""
    from neurocanvas.generation.diffusion import generate_pictures, load_generator

    settings, pipeline = run.settings.generate, None
    weights = family_print(settings.family)
    advance = run.track("generate", sum(len(entries) for _, _, entries in work))
    for folder, conditions, entries in work:
        seeds = [entry["seed"] for entry in entries]
        inputs = store.fingerprint("generate", weights, conditions, seeds, settings.steps, settings.guidance)
        card = folder / f"shard_{entries[0]['trial']:05d}.json"
        if not _shard_done(card, inputs, run.folder / "images"):
            pipeline = pipeline or load_generator(settings.family)
            pictures = generate_pictures(pipeline, conditions, seeds, steps=settings.steps, guidance=settings.guidance)
            for entry, picture in zip(entries, pictures, strict=True):
                write_picture(run.folder / "images" / entry["file"], picture)
            hashes = {entry["file"]: store.sha256(run.folder / "images" / entry["file"]) for entry in entries}
            store.write_json(card, {"fingerprint": inputs, "pictures": hashes})
        advance(len(entries))


def _shard_done(card: Path, inputs: str, folder: Path) -> bool:
    """Tell whether a shard was drawn from these inputs and every picture of it is whole."""
    if not card.is_file():
        return False
    said = store.read_json(card, "the card of a shard of pictures")
    whole = ((folder / name).is_file() and store.sha256(folder / name) == digest for name, digest in said["pictures"].items())
    return bool(said["fingerprint"] == inputs and all(whole))


def _show_seen(run: Run, entries: list[dict[str, Any]]) -> None:
    """Put what was seen beside what was drawn, at the same size."""
    size = _picture(run.folder / "images" / entries[0]["file"]).shape[0]
    for stimulus in sorted({entry["stimulus"] for entry in entries}):
        path = run.folder / "images" / "seen" / f"{Path(stimulus).stem}.png"
        if not path.is_file():
            write_picture(path, run.dataset[1].picture(stimulus, size=size))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a PNG atomically.

    Parameters
    ----------
    path : Path
        Where to.
    picture : array, shape (height, width, 3), uint8
    """
    from PIL import Image

    with store.atomic(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def _picture(path: Path) -> np.ndarray:
    """Read an RGB picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise NeuroCanvasError(f"{path}: missing or damaged ({error}); run `neurocanvas generate` again.") from error


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
    text = manifest.read_text(encoding="utf-8") if manifest.is_file() else ""
    entries = [json.loads(line) for line in text.splitlines()]
    if not entries:
        raise NeuroCanvasError(f"{manifest}: missing or empty; run `neurocanvas generate` first.")
    arms = list(dict.fromkeys(entry["arm"] for entry in entries))
    of_arm = {arm: [entry for entry in entries if entry["arm"] == arm] for arm in arms}
    gallery = sorted({entry["stimulus"] for entry in entries})
    names = run.dataset[1].names
    concepts = {concept: names[concept] for concept in sorted({entry["concept"] for entry in entries})}

    seen = np.stack([_picture(images / "seen" / f"{Path(stimulus).stem}.png") for stimulus in gallery])
    advance = run.track("evaluate", len(gallery) + 2 * len(entries))
    seen_embedded = judge_pictures(seen, settings.judge, progress=advance)
    prompts = [f"a photo of {name}" if name.startswith(("a ", "an ")) else f"a photo of a {name}" for name in concepts.values()]
    prompted = judge_texts(prompts, settings.judge)
    tables = {}
    for arm in arms:
        drawn = np.stack([_picture(images / entry["file"]) for entry in of_arm[arm]])
        tables[arm] = _arm_tables(drawn, seen, judge_pictures(drawn, settings.judge, progress=advance), seen_embedded, prompted)
        advance(len(drawn))
    trials, blocked, warnings = _what_is_known(run, of_arm[arms[0]])
    summary, rows = summarise(
        tables, trials, gallery, concepts, settings, blocked=blocked, rng=np.random.default_rng(settings.seed), warnings=warnings
    )
    folder = run.folder / "scores"
    write_table(folder / "trials.csv", {name: np.array([row[name] for row in rows]) for name in rows[0]})
    per_concept = [
        {"concept": concept, "name": said["name"], "n": said["n"], "arm": arm, **said[arm]}
        for concept, said in summary["concepts"].items() for arm in arms
    ]  # fmt: skip
    write_table(folder / "concepts.csv", {name: np.array([row[name] for row in per_concept]) for name in per_concept[0]})
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
    cards = {s: store.read_card(run.folder / "predictions" / f"s{s}.npy") for s in {entry["subject"] for entry in entries}}
    fold = {s: dict(zip(card["trials"], card["folds"], strict=True)) for s, card in cards.items()}
    columns = {name: np.array([entry[name] for entry in entries]) for name in ("subject", "trial", "stimulus", "concept")}
    pairs = list(zip(columns["subject"].tolist(), columns["trial"].tolist(), strict=True))
    columns["block"] = np.array([run.subjects[subject].column("block")[trial] for subject, trial in pairs])
    columns["fold"] = np.array([fold[subject][trial] for subject, trial in pairs])
    warnings = sorted({warning for card in cards.values() for warning in card["warnings"]})
    return columns, any(card["blocked"] for card in cards.values()), warnings


def write_table(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns as CSV, atomically.

    Parameters
    ----------
    path : Path
        Where to.
    columns : mapping of str to array
        All of one length.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    store.write_text(path, stream.getvalue())


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
"""Every stage by the name of its verb, in the order in which they run."""


def run_stage(run: Run, name: str) -> list[Path]:
    """Run one stage.

    Parameters
    ----------
    run : Run
    name : str
        A key of `STAGES`.

    Returns
    -------
    list of Path
        What the stage wrote, or found already done.
    """
    save_settings(run.settings, run.folder / "run.toml")
    started = time.monotonic()
    paths = STAGES[name](run)
    run.log(name, seconds=round(time.monotonic() - started, 2), wrote=[str(path.relative_to(run.folder)) for path in paths])
    return paths


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
    for name in STAGES:
        paths = run_stage(run, name)
    return paths[0]
