"""From predictions to pictures: the stage generate, by trials and arms, and from captions alone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.data.splits import make_splits
from neurocanvas.encoders import EEGSpec, RidgeMapper, TargetBasis
from neurocanvas.encoders.base import standardisation
from neurocanvas.errors import NeuroCanvasError, check_inside, check_name, printable
from neurocanvas.pipeline.run import Run, read_picture, write_picture
from neurocanvas.pipeline.train import asked, pooled_features_paths, read_pooled_features
from neurocanvas.scale import NEEDS, Needs, kept
from neurocanvas.targets.captions import prompt, read_captions
from neurocanvas.targets.pretrained import (
    batches,
    device,
    family_print,
    find_family,
    local_folder,
    precision_of,
    source_print,
)

if TYPE_CHECKING:
    from accelerate import PartialState

    from neurocanvas.generation.arms import Start

# Of the small pictures, px.
SIDE = 16

# Principal coordinates of the training pictures that are predicted.
COMPONENTS = 64


def sketch(run: Run, subject: int) -> np.ndarray:
    """Predict a small picture for every test trial, from pictures of the training trials of its fold."""
    from neurocanvas.generation.arms import gain, rescale

    path = run.folder / "predictions" / f"s{subject}_sketch.npy"
    card, stimuli = artifacts.read_card(path.with_name(f"s{subject}.npy")), run.dataset[1]
    features_of = [artifacts.read_card(file)["sha256"] for file in pooled_features_paths(run, subject)]
    seen = stimuli.fingerprint()
    inputs = artifacts.fingerprint("sketch", card["fingerprint"], features_of, seen, run.stimuli)
    if artifacts.is_done(path, inputs):
        return artifacts.read_array(path, "small pictures")
    pictures = np.stack([stimuli.picture(name, size=SIDE) for name in run.stimuli]).reshape(-1, SIDE * SIDE, 3) / 255
    pool, (values, features) = run.pool(subject), read_pooled_features(run, subject)
    shown, average = run.stimulus_rows(pool), run.settings.split.average_test
    spec = EEGSpec(tuple(features["ch_names"]), tuple(features["bands"]), pictures.shape[1:])
    rows, found = [], []
    for split in (split.joined() for split in make_splits(pool, run.settings.split, subject)):
        basis = TargetBasis.fit(pictures, np.bincount(shown[split.train], minlength=len(pictures)), COMPONENTS)
        mapper = RidgeMapper(spec, basis, *standardisation(spec.check(values[split.train])))
        x, y = mapper.standardise(values), basis.transform(pictures)[shown]
        mapper.fit(x[split.train], y[split.train], x[split.val], y[split.val])
        spread = mapper.coordinates(asked(values, pool, split.val, average)[0]).std(axis=0)
        features_of_test, of_test, _ = asked(values, pool, split.test, average)
        gains = np.full(len(of_test), gain(basis.target_sd, spread))
        found.append(rescale(mapper.predict(features_of_test), basis.mean, gains))
        rows.append(of_test)
    order = np.argsort(np.concatenate(rows), kind="stable")
    drawn = np.clip(np.concatenate(found)[order], 0, 1).reshape(-1, SIDE, SIDE, 3)
    artifacts.write_array(path, np.round(drawn * 255).astype(np.uint8), inputs)
    return artifacts.read_array(path, "small pictures")


STAGE = "generate"

# Settings of `generate` that a picture depends on, beside condition, seed and weights.
DECIDE = frozenset({
    "scheduler", "steps", "guidance", "guidance_interval", "negative", "size", "precision", "samples", "strength",
    "preview", "scale", "family",
})  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What is to be drawn for one subject and arm; all in the order of the trials."""

    arm: str
    conditions: np.ndarray
    predicted: np.ndarray
    mean: np.ndarray
    entries: list[dict[str, Any]]
    starts: list[Start]

    @property
    def chooses(self) -> bool:
        """Whether the arm keeps the best of its samples."""
        from neurocanvas.generation.arms import ARMS

        return self.arm in ARMS and ARMS[self.arm].best_of


def processes() -> PartialState | None:
    """Find the processes that `accelerate launch` started, one per GPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from accelerate import PartialState

    # some have more to do than others, for hours
    return PartialState(cpu=device() == "cpu", timeout=timedelta(days=7))


def draw_shard(run: Run, folder: Path, where: Path, work: Work) -> None:
    """Draw a shard unless it is there; its sidecar, written last, holds hash and size of its pictures."""
    how, seeds = _how(run), [entry["seed"] for entry in work.entries]
    inputs = artifacts.fingerprint("generate", work.conditions, seeds, how, *_beside(run, work))
    sidecar = where / sidecar_name(work.entries)
    if _shard_done(sidecar, inputs):
        return
    samples, seeds_of = _draw(run, work)
    pictures = {}
    for number, drawn in enumerate(samples):
        for entry, picture, seed in zip(work.entries, drawn, seeds_of[number], strict=True):
            name = entry["file"] if number == 0 else f"{entry['file'].removesuffix('.png')}_{number}.png"
            write_picture(folder / name, picture, {**_about(entry), **how, "sample": number, "seed": seed})
            pictures[Path(name).name] = artifacts.hash_and_size(folder / name)
    artifacts.write_json(sidecar, {"fingerprint": inputs, "pictures": pictures})


def sidecar_name(entries: Sequence[Mapping[str, Any]]) -> str:
    """Name of a shard's sidecar, after its first trial."""
    return f"shard_{entries[0]['trial']:05d}.json"


def _about(entry: dict[str, Any]) -> dict[str, Any]:
    """What a picture says of itself; not which predictions it is from, because it stays when those of others change."""
    return {name: value for name, value in entry.items() if name != "predictions"}


def _how(run: Run) -> dict[str, Any]:
    """What every picture depends on beside its condition and seed; goes into its metadata."""
    settings = run.settings.generate
    how = settings.model_dump(mode="json", include=set(DECIDE))
    how["precision"] = precision_of(settings)
    how["weights"] = kept(STAGE, "weights", settings.family, lambda: family_print(settings.family))
    if settings.preview:
        preview = find_family(settings.family).preview
        how["taesd"] = kept(STAGE, "weights of preview", preview, lambda: source_print(preview))
    return how


def _beside(run: Run, work: Work) -> list[Any]:
    """What the pictures of some arms depend on as well."""
    beside: list[Any] = []
    if work.starts:
        pictures = [run.dataset[1].print_of(one) for one in work.starts if isinstance(one, str)]
        beside += [np.asarray(work.starts), pictures]
    if work.chooses:
        family = run.settings.family
        beside += [kept(STAGE, "weights of captioner", family, lambda: family_print(family)), work.predicted, work.mean]
    return beside


def _draw(run: Run, work: Work) -> tuple[np.ndarray, list[list[int]]]:
    """Draw all samples, (n_samples, n_trials, size, size, 3), with seeds; of `best-of` the best comes first."""
    from neurocanvas.generation.stable_diffusion import load_generator, sample_seed

    def tell(text: str) -> None:
        run.log("generate", warning=text)
        sys.stderr.write(f"neurocanvas: {text}\n")

    settings, starts = run.settings.generate, None
    generator = kept(STAGE, "generator", run, lambda: load_generator(settings, tell=tell))
    if work.starts:
        starts = np.stack([_start(run, one, generator.size) for one in work.starts])
    samples = range(settings.samples)
    seeds = [[sample_seed(entry["seed"], number) for entry in work.entries] for number in samples]
    drawn = np.stack([generator.draw(work.conditions, own, starts=starts) for own in seeds])
    if work.chooses:
        order = np.argsort(-_likeness(run, drawn, work), axis=0, kind="stable")
        drawn = np.take_along_axis(drawn, order[:, :, None, None, None], axis=0)
        seeds = [[seeds[sample][trial] for trial, sample in enumerate(row)] for row in order]
    return drawn, seeds


def embed_texts(run: Run, texts: Sequence[str]) -> np.ndarray:
    """Encode a few texts while drawing; the encoder stays loaded."""
    from neurocanvas.targets.clip import encode_distinct, load_text_encoder

    family = run.settings.family
    return encode_distinct(texts, kept(STAGE, "encoder", family, lambda: load_text_encoder(family)))


def _start(run: Run, start: Start, size: int) -> np.ndarray:
    """A picture to start from, at the size that is drawn."""
    from PIL import Image

    if isinstance(start, str):
        return run.dataset[1].picture(start, size=size)
    return np.asarray(Image.fromarray(start).resize((size, size), Image.Resampling.BICUBIC))


def _likeness(run: Run, drawn: np.ndarray, work: Work) -> np.ndarray:
    """How like the prediction each picture's own caption is, (n_samples, n_trials): no judge, nothing seen."""
    from neurocanvas.generation.arms import likeness
    from neurocanvas.targets.captions import load_captioner

    family = run.settings.family
    captioner = kept(STAGE, "captioner", family, lambda: load_captioner(family))
    captions = captioner.describe(list(drawn.reshape(-1, *drawn.shape[2:])))
    said = embed_texts(run, captions).astype(np.float32)
    said = said.reshape(*drawn.shape[:2], *said.shape[1:])
    return np.stack([likeness(work.predicted, one, work.mean) for one in said])


def _shard_done(sidecar: Path, inputs: str) -> bool:
    """Tell whether a shard was drawn from these inputs and every picture of it has the size that was written."""
    try:
        card = json.loads(sidecar.read_text(encoding="utf-8"))
        sizes = {sidecar.parent / name: about["size"] for name, about in card["pictures"].items()}
        return card["fingerprint"] == inputs and all(path.stat().st_size == size for path, size in sizes.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def chosen(concepts: np.ndarray, folds: np.ndarray, most: int | None) -> np.ndarray:
    """Choose which test trials get pictures: all, or at most so many, spread evenly over concepts and folds."""
    codes = [np.unique(column, return_inverse=True)[1] for column in (concepts, folds)]
    turn = np.zeros(len(concepts), dtype=np.int64)
    for pair in np.unique(codes, axis=1).T:
        members = np.flatnonzero((codes[0] == pair[0]) & (codes[1] == pair[1]))
        turn[members] = np.arange(len(members))
    return np.sort(np.lexsort((*codes, turn))[:most])


@dataclass(frozen=True)
class ChosenTrials:
    """The test trials of one subject that get pictures."""

    subject: int
    places: np.ndarray
    rows: np.ndarray
    folds: np.ndarray
    stimulus: np.ndarray
    concept: np.ndarray
    seen: np.ndarray
    predicted: np.ndarray
    means: np.ndarray
    card: dict[str, Any]

    def entries(self, run: Run, arm: str, part: slice = slice(None)) -> list[dict[str, Any]]:
        """Give the manifest's entries of an arm."""
        from neurocanvas.generation.stable_diffusion import picture_seed

        seed = partial(picture_seed, run.settings.generate.seed, arm, self.subject)
        return [
            {
                "subject": self.subject, "arm": arm, "trial": int(row), "stimulus": str(stimulus),
                "concept": str(concept), "predictions": self.card["sha256"][:16],
                "file": f"s{self.subject}/{arm}/{row:05d}_{Path(stimulus).stem}.png", "seed": seed(int(row)),
            }
            for row, stimulus, concept in zip(self.rows[part], self.stimulus[part], self.concept[part], strict=True)
        ]  # fmt: skip


def chosen_trials(run: Run, subject: int) -> ChosenTrials:
    """Choose the trials of a subject that get pictures; no prediction is read."""
    path, trials = run.folder / "predictions" / f"s{subject}.npy", run.subjects[subject]
    predicted = artifacts.read_array(path, "predictions; `neurocanvas predict` makes them")
    means = artifacts.read_array(
        path.with_name(f"s{subject}_mean.npy"), "mean targets; `neurocanvas predict` makes them"
    )
    card = artifacts.read_card(path)
    if max(card["trials"]) >= len(trials) or "known" not in card:
        raise NeuroCanvasError(f"{path}: made for other trials or by another version; run `neurocanvas predict` again.")
    most = run.settings.generate.max_trials
    places = chosen(trials.column("concept")[card["trials"]], np.array(card["folds"]), most)
    rows, folds = np.array(card["trials"])[places], np.array(card["folds"])[places]
    shown = trials.select(rows)
    return ChosenTrials(
        subject, places, rows, folds, shown.column("stimulus"), shown.column("concept"), run.stimulus_rows(shown),
        predicted, means, card,
    )  # fmt: skip


def check_arms(run: Run, trials: ChosenTrials) -> None:
    """Refuse arms that draw from predictions which the generator cannot take."""
    from neurocanvas.generation.arms import ARMS

    predicted, needed = trials.predicted.shape[1:], run.embeddings().shape[1:]
    refused = [arm for arm in run.settings.generate.arms if arm in ARMS and ARMS[arm].from_prediction]
    if refused and predicted != needed:
        others = ", ".join(arm for arm, how in ARMS.items() if not how.from_prediction)
        raise NeuroCanvasError(
            f"--arm {refused[0]}: draws from predictions, and these have shape {predicted} where the generator takes "
            f"{needed}. Choose among {others}, or embed and train with the family that draws and embed.target text."
        )


def make_work(run: Run, subject: int, arm: str, part: slice) -> Work:
    """Make the conditions of some of a subject's chosen trials; only what they need is read."""
    from neurocanvas.generation.arms import ARMS, ArmInputs, derangement
    from neurocanvas.generation.stable_diffusion import picture_seed

    trials = kept(STAGE, "trials", (run, subject), lambda: chosen_trials(run, subject))
    seed = partial(picture_seed, run.settings.generate.seed, arm, subject)
    targets, embeddings, stimuli = run.targets(), run.embeddings(), run.dataset[1]
    known = np.zeros((part.stop - part.start, len(targets)), bool)
    for row, fold in enumerate(trials.folds[part]):
        known[row, trials.card["known"][fold]] = True

    def dealt() -> np.ndarray:
        order = derangement(trials.concept, rng=np.random.default_rng(seed(-1)))
        return _rescaled(run, trials, order[part])

    own = np.arange(len(trials.rows))[part]
    inputs = ArmInputs(
        np.asarray(trials.predicted[trials.places[part]], np.float32), _rescaled(run, trials, own),
        np.asarray(trials.means)[trials.folds[part]], np.asarray(embeddings[trials.seen[part]], np.float32), dealt,
        np.array([seed(int(row)) for row in trials.rows[part]]), targets, embeddings, known,
        np.array([stimuli.concepts[name] for name in run.stimuli]), np.array(run.stimuli),
        lambda concepts: embed_texts(run, [prompt(stimuli.names[c]) for c in concepts]),
        lambda: sketch(run, subject)[trials.places[part]],
    )  # fmt: skip
    starts = ARMS[arm].start
    over = [] if starts is None else starts(inputs)
    return Work(arm, ARMS[arm].condition(inputs), inputs.predicted, inputs.mean, trials.entries(run, arm, part), over)


def _rescaled(run: Run, trials: ChosenTrials, places: np.ndarray) -> np.ndarray:
    """Predictions of some chosen trials, as the settings want them for the generator."""
    from neurocanvas.generation.arms import match_norms, rescale, token_norms

    scale, folds = run.settings.generate.scale, trials.folds[places]
    predicted = np.asarray(trials.predicted[trials.places[places]], np.float32)
    if scale == "token-norm":
        norms = kept(STAGE, "norms", (run, trials.subject), lambda: np.stack(
            [token_norms(run.targets(), np.array(trained)) for trained in trials.card["known"]]
        ))  # fmt: skip
        return match_norms(predicted, norms[folds])
    gains = np.array(trials.card["gains"])[folds] if scale == "affine" else np.ones(len(places))
    return rescale(predicted, np.asarray(trials.means)[folds], gains)


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
        seen[path.name] = artifacts.hash_and_size(path)
    artifacts.write_json(folder / "seen" / "seen.json", {"pictures": seen})  # for `verify`
    artifacts.write_text(folder / "manifest.jsonl", "".join(json.dumps(entry) + "\n" for entry in drawn))
    return folder / "manifest.jsonl"


def _entries_of_captions(run: Run, part: slice = slice(None)) -> list[dict[str, Any]]:
    """What is drawn from captions, or some of it, with the rows of the embeddings as trials."""
    from neurocanvas.generation.stable_diffusion import picture_seed

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


# Width of a picture, space between two, height of a line of text; px.
CELL, GAP, LINE = 192, 12, 22

PAPER, INK = (255, 255, 255), (32, 32, 32)


def comparison_pages(
    columns: Sequence[str],
    rows: Sequence[tuple[str, Mapping[str, np.ndarray]]],
    *,
    per_page: int = 6,
) -> Iterator[np.ndarray]:
    """Set pictures side by side."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=14)
    width = GAP + len(columns) * (CELL + GAP)
    for start in range(0, len(rows), per_page):
        part = rows[start : start + per_page]
        page = Image.new("RGB", (width, GAP + LINE + len(part) * (CELL + LINE + GAP)), PAPER)
        pen = ImageDraw.Draw(page)
        lefts = [GAP + number * (CELL + GAP) for number in range(len(columns))]
        for left, column in zip(lefts, columns, strict=True):
            pen.text((left, GAP), column, INK, font)
        for row, (caption, pictures) in enumerate(part):
            top = GAP + LINE + row * (CELL + LINE + GAP)
            for left, column in zip(lefts, columns, strict=True):
                if column in pictures:
                    picture = Image.fromarray(pictures[column])
                    small = min(picture.size) < CELL
                    page.paste(
                        picture.resize((CELL, CELL), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS),
                        (left, top),
                    )
            pen.text((GAP, top + CELL + 2), _shortened(printable(caption), width - 2 * GAP, font.getlength), INK, font)
        yield np.asarray(page)


def _shortened(text: str, width: int, measure: Callable[[str], float]) -> str:
    """A text that fits into a line, with three dots where it was cut."""
    if measure(text) <= width:
        return text
    while text and measure(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _write_pages(run: Run, entries: list[dict[str, Any]]) -> list[Path]:
    """Set every stimulus that was drawn from its caption beside what was seen and what was drawn from EEG."""
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
    text = artifacts.read_text(path, "the pictures that were drawn; run `neurocanvas generate` first")
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
        card = artifacts.read_card(run.folder / "predictions" / f"s{subject}.npy")
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
