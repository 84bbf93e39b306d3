"""From predictions to images: the verb generate, by trials and arms, and from captions alone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.decoder import Decoder, Embeddings
from neurocanvas.errors import NeuroCanvasError, check_inside, check_name, printable
from neurocanvas.generation import GENERATORS
from neurocanvas.generation.arms import (
    ARMS,
    ArmInputs,
    derangement,
    gain,
    image_seed,
    likeness,
    match_norms,
    rescale,
    token_norms,
)
from neurocanvas.parallel import NEEDS, process_cache
from neurocanvas.pipeline.run import RunFolder, read_pictures, write_picture
from neurocanvas.pipeline.train import decoders_of, made_from, read_inputs, read_predictions, select_inputs
from neurocanvas.targets import TargetSpace
from neurocanvas.targets.captions import load_captioner, prompt, read_captions
from neurocanvas.targets.clip import encode_distinct, load_text_encoder
from neurocanvas.targets.pretrained import batches, device, find_family, local_folder, source_hash

STAGE = "generate"

# Side of the small images that drawing may start from, px; number of their principal coordinates that are predicted.
SIDE, COMPONENTS = 16, 64

# Settings of `generate` that an image depends on, beside condition, seed and weights.
DECIDE = frozenset({
    "generator", "scheduler", "steps", "guidance", "guidance_interval", "negative", "size", "samples", "strength",
    "preview", "scale", "family",
})  # fmt: skip


def generate(run: RunFolder) -> list[Path]:
    """Generate the images of every subject and arm, a shard of manifest entries at a time."""
    settings = run.settings.generate
    needs, weights = NEEDS["generate"], local_folder(find_family(settings.family).diffusion)
    if weights is not None:  # their memory comes on top of that of a small family
        size = sum(file.stat().st_size for file in weights.rglob("*.safetensors"))
        needs = replace(needs, memory=needs.memory + size)
    # What every image depends on beside condition, seed, precision and device.
    how = settings.model_dump(mode="json", include=set(DECIDE)) | {"weights": source_hash(settings.family)}
    if settings.preview:
        how["taesd"] = source_hash(find_family(settings.family).preview)
    if run.generator is not None and type(run.generator) is not resolve_name(GENERATORS[settings.generator]):
        plain = {key: value for key, value in vars(run.generator).items() if isinstance(value, str | int | float)}
        how["generator"] = f"{type(run.generator).__qualname__} {plain}"
    shards: list[list[dict[str, Any]]] = []
    for arm in settings.arms:
        space_of(run, arm)
        for subject in ("",) if ARMS[arm].of_images else run.subjects:
            entries = plan(run, subject, arm, how)
            shards += [entries[part] for part in batches(len(entries), settings.shard)]
    if "sketched-start" in settings.arms:  # before several workers need it at once
        list(run.spread("sketch", sketch, list(run.subjects)))
    processes: Any = None
    own = shards
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # processes that `accelerate launch` started, one per GPU
        from accelerate import PartialState

        # some processes work hours longer than others
        processes = PartialState(cpu=device() == "cpu", timeout=timedelta(days=7))
        own = shards[processes.process_index :: processes.num_processes]
    list(run.spread("generate", partial(draw, how=how), own, needs=needs, sizes=[len(shard) for shard in own]))
    if processes is not None:
        processes.wait_for_everyone()
        if not processes.is_main_process:
            return []
    made = [entry for shard in shards for entry in shard]
    of_images = [entry for entry in made if ARMS[entry["arm"]].of_images]
    pages = _write_pages(run, of_images) if of_images else []
    if len(made) == len(of_images):
        return pages
    # The manifest lists the images, those of earlier commands too; what was seen lies beside them at the same size.
    folder, path = run.folder / "images", run.folder / "images" / "manifest.jsonl"
    there = {entry["file"]: entry for entry in (read_manifest(run, path) if path.is_file() else [])}
    merged = list({**there, **{entry["file"]: entry for entry in made if "subject" in entry}}.values())
    rank = {key: place for place, key in enumerate(dict.fromkeys((e["subject"], e["arm"]) for e in merged))}
    merged.sort(key=lambda entry: (rank[entry["subject"], entry["arm"]], entry["trial"]))
    size, seen = read_pictures([folder / merged[0]["file"]]).shape[1], {}
    for stimulus in sorted({entry["stimulus"] for entry in merged}):
        picture = folder / "seen" / f"{stimulus}.png"
        write_picture(picture, run.dataset[1].picture(stimulus, size=size))
        seen[picture.name] = {"sha256": artifacts.sha256(picture), "size": picture.stat().st_size}
    artifacts.write_json(folder / "seen" / "seen.json", {"pictures": seen})  # for `verify`
    artifacts.write_text(path, "".join(json.dumps(entry) + "\n" for entry in merged))
    return [path, *pages]


def space_of(run: RunFolder, arm: str) -> str:
    """Target space of an arm's conditions; raise if the generator does not accept it."""
    predicted, generator = run.settings.embed.target, run.generator
    accepted = (generator or resolve_name(GENERATORS[run.settings.generate.generator])).accepts
    spaces = {"encoder": predicted, "clip-text": "clip-text"}
    spaces["either"] = predicted if predicted in accepted else "clip-text"

    def fits(name: str) -> bool:  # captions are what the best sample is chosen by
        return spaces[ARMS[name].space] in accepted and not (ARMS[name].best_of and predicted != "clip-text")

    if not fits(arm):
        named = run.settings.generate.generator if generator is None else type(generator).__name__
        allowed = ", ".join(filter(fits, ARMS)) or "other generators"
        raise NeuroCanvasError(
            f"--arm {arm}: its conditions are {spaces[ARMS[arm].space]}, and {named} accepts "
            f"{', '.join(accepted)}. Choose among {allowed}, or embed and train with --target {accepted[0]}."
        )
    return spaces[ARMS[arm].space]


def chosen(concepts: np.ndarray, folds: np.ndarray, most: int | None) -> np.ndarray:
    """Choose which test trials get images: all, or at most `most`, spread evenly over concepts and folds."""
    codes = [np.unique(column, return_inverse=True)[1] for column in (concepts, folds)]
    turn = np.zeros(len(concepts), dtype=np.int64)
    for pair in np.unique(codes, axis=1).T:
        members = np.flatnonzero((codes[0] == pair[0]) & (codes[1] == pair[1]))
        turn[members] = np.arange(len(members))
    return np.sort(np.lexsort((*codes, turn))[:most])


def plan(run: RunFolder, subject: str, arm: str, how: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifest's entries of a subject and arm, each with its cache key; no prediction is read."""
    settings, row = run.settings.generate, ARMS[arm]
    how = {**how, "arm": arm}
    embedded = artifacts.read_sidecar(run.path("embeddings", space_of(run, arm)))["fingerprint"]
    if row.of_images:
        concepts = np.array([run.dataset[1].concepts[name] for name in run.stimuli])
        return [
            {
                "arm": arm, "trial": int(place), "stimulus": run.stimuli[place], "concept": str(concepts[place]),
                "file": f"{Path(run.stimuli[place]).stem}.png",
                "seed": image_seed(settings.seed, f"{arm}/{run.stimuli[place]}", 0, 0),
                "key": artifacts.fingerprint("image", how, settings.seed, run.stimuli[place], embedded),
            }
            for place in chosen(concepts, np.zeros(len(concepts), np.int64), settings.max_trials)
        ]  # fmt: skip
    path, trials = run.path("predictions", subject), run.subjects[subject]
    artifacts.read_array(path, "predictions; `neurocanvas predict` makes them")
    sidecar = artifacts.read_sidecar(path)
    if max(sidecar["trials"]) >= len(trials) or "known" not in sidecar:
        raise NeuroCanvasError(f"{path}: made for other trials or by another version; run `neurocanvas predict` again.")
    tested = trials[np.array(sidecar["trials"])]
    beside: list[Any] = [embedded, sidecar["fingerprint"]]
    if row.start is not None:
        beside.append(run.dataset[1].fingerprint())
    if row.best_of:
        beside.append(source_hash(run.settings.family))
    entries = []
    for place in chosen(tested.column("concept"), np.array(sidecar["folds"]), settings.max_trials):
        trial, stimulus = sidecar["trials"][place], str(tested.column("image")[place])
        seed = image_seed(settings.seed, arm, subject, trial)
        entries.append({
            "subject": subject, "arm": arm, "trial": trial, "stimulus": stimulus,
            "concept": str(tested.column("concept")[place]), "predictions": sidecar["fingerprint"],
            "file": f"s{subject}/{arm}/{trial:05d}_{Path(stimulus).stem}.png", "seed": seed,
            "key": artifacts.fingerprint("image", how, seed, stimulus, *beside),
        })  # fmt: skip
    return entries


def draw(run: RunFolder, shard: list[dict[str, Any]], *, how: dict[str, Any]) -> None:
    """Generate the missing images of a shard of manifest entries; its sidecar is written last."""
    arm, subject, settings = shard[0]["arm"], shard[0].get("subject", ""), run.settings.generate
    root, row = run.folder / ("images" if subject else "generated_from_captions"), ARMS[arm]
    folder = (root / shard[0]["file"]).parent
    done: dict[str, dict[str, Any]] = {}  # cache key, hash and size of every whole image
    for path in sorted(folder.glob("shard_*.json")):
        try:
            for name, about in json.loads(path.read_text(encoding="utf-8"))["pictures"].items():
                if about["key"] and (folder / name).stat().st_size == about["size"]:
                    done[name] = about
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # damaged, or an image is gone: it is generated again
    missing = [entry for entry in shard if done.get(Path(entry["file"]).name, {}).get("key") != entry["key"]]
    if not missing:
        return
    if row.of_images:
        conditions = np.asarray(run.targets("clip-text")[[entry["trial"] for entry in missing]], np.float32)
        inputs = None
    else:
        inputs = arm_inputs(run, subject, arm, [entry["trial"] for entry in missing])
        conditions = np.asarray(row.condition(inputs), np.float32)

    def tell(text: str) -> None:
        run.log("generate", warning=text)
        sys.stderr.write(f"neurocanvas: {text}\n")

    load = resolve_name(GENERATORS[settings.generator]).load
    generator = run.generator or process_cache(STAGE, "generator", run, lambda: load(settings, tell=tell))
    init = None
    if inputs is not None and row.start is not None:
        from PIL import Image

        init = np.stack([
            run.dataset[1].picture(one, size=generator.size) if isinstance(one, str)
            else np.asarray(Image.fromarray(one).resize((generator.size,) * 2, Image.Resampling.BICUBIC))
            for one in row.start(inputs)
        ])  # fmt: skip
    seeds = [  # the first sample is the image itself
        [entry["seed"] if number == 0 else image_seed(entry["seed"], "sample", 0, number) for entry in missing]
        for number in range(settings.samples)
    ]
    samples = np.stack([np.asarray(generator.generate(conditions, own, init)) for own in seeds])
    if samples.ndim != 5 or samples.shape[1] != len(missing) or samples.shape[-1] != 3 or samples.dtype != np.uint8:
        raise NeuroCanvasError(
            f"generator: generate() must return images (n, size, size, 3), uint8, for {len(missing)} conditions; got "
            f"{samples.shape[1:]}, {samples.dtype}."
        )
    if inputs is not None and row.best_of:  # neither the judge nor what was seen is used
        family = run.settings.family
        describe = process_cache(STAGE, "captioner", family, lambda: load_captioner(family))
        captions = embed_texts(run, describe(list(samples.reshape(-1, *samples.shape[2:])))).astype(np.float32)
        captions = captions.reshape(*samples.shape[:2], *captions.shape[1:])
        near = np.stack([likeness(inputs.predicted, one, inputs.mean) for one in captions])
        order = np.argsort(-near, axis=0, kind="stable")
        samples = np.take_along_axis(samples, order[:, :, None, None, None], axis=0)
        seeds = [[seeds[sample][trial] for trial, sample in enumerate(ranks)] for ranks in order]
    automatic = "float16" if device().startswith("cuda") else "float32"
    how = how | {"precision": automatic if settings.precision == "auto" else settings.precision, "device": device()}
    for number, images in enumerate(samples):
        for entry, image, seed in zip(missing, images, seeds[number], strict=True):
            name = entry["file"] if number == 0 else f"{entry['file'].removesuffix('.png')}_{number}.png"
            said = {key: value for key, value in entry.items() if key not in ("predictions", "key")}
            path = root / name
            write_picture(path, image, {**said, **how, "sample": number, "seed": seed})
            done[path.name] = {"key": entry["key"], "sha256": artifacts.sha256(path), "size": path.stat().st_size}
    stems = tuple(Path(entry["file"]).stem for entry in shard)
    own = {name: one for name, one in sorted(done.items()) if name.startswith(stems)}
    artifacts.write_json(folder / f"shard_{shard[0]['trial']:05d}.json", {"pictures": own})


def arm_inputs(run: RunFolder, subject: str, arm: str, trials: Sequence[int]) -> ArmInputs:
    """What an arm makes conditions from, for some test trials of a subject; only the rows that they need are read."""
    path = run.path("predictions", subject)
    decoders = process_cache(STAGE, "decoders", (run, subject), lambda: decoders_of(run, subject))
    sidecar, images, scale = artifacts.read_sidecar(path), run.dataset[1], run.settings.generate.scale
    tested, folds = run.subjects[subject][np.array(sidecar["trials"])], np.array(sidecar["folds"])
    places = np.searchsorted(sidecar["trials"], trials)
    targets, embeddings = run.targets(), run.targets(space_of(run, arm))
    known = np.zeros((len(places), len(targets)), bool)
    for row, fold in enumerate(folds[places]):
        known[row, sidecar["known"][fold]] = True
    seed, dealt = partial(image_seed, run.settings.generate.seed, arm, subject), places
    if ARMS[arm].deranged:
        dealt = derangement(tested.column("concept"), rng=np.random.default_rng(seed(-1)))[places]
    predicted, means = read_predictions(run, subject, places, decoders)
    rescaled, centres = read_predictions(run, subject, dealt, decoders)
    if scale == "token-norm":
        norms = process_cache(STAGE, "norms", (run, subject), lambda: np.stack(
            [token_norms(targets, np.array(trained)) for trained in sidecar["known"]]
        ))  # fmt: skip
        rescaled = match_norms(rescaled, norms[folds[dealt]])
    else:
        gains = np.array(sidecar["gains"])[folds[dealt]] if scale == "affine" else np.ones(len(dealt))
        rescaled = rescale(rescaled, centres, gains)
    return ArmInputs(
        predicted, rescaled, means,
        np.asarray(embeddings[np.searchsorted(run.stimuli, tested[places].column("image"))], np.float32),
        np.array([seed(int(trial)) for trial in trials]), targets, embeddings, known,
        np.array([images.concepts[name] for name in run.stimuli]), np.array(run.stimuli),
        lambda concepts: embed_texts(run, [prompt(images.names[concept]) for concept in concepts]),
        lambda: sketch(run, subject)[places],
    )  # fmt: skip


def embed_texts(run: RunFolder, texts: Sequence[str]) -> np.ndarray:
    """Encode a few texts while drawing; the encoder stays loaded."""
    family = run.settings.family
    return encode_distinct(texts, process_cache(STAGE, "encoder", family, lambda: load_text_encoder(family)))


def sketch(run: RunFolder, subject: str) -> np.ndarray:
    """Predict a small image for every test trial, from images of the training trials of its fold."""
    path = run.folder / "predictions" / f"s{subject}_sketch.npy"
    sidecar, stimuli = artifacts.read_sidecar(path.with_name(f"s{subject}.npy")), run.dataset[1]
    space = TargetSpace("pixels", (SIDE * SIDE, 3), f"{SIDE}px")
    average, where = run.settings.split.average_test, run.settings.execution
    decoder = Decoder("ridge", str(space), n_components=COMPONENTS, device=where.device)
    features_of, seen = made_from(run, subject, decoder)[1], stimuli.fingerprint()
    inputs = artifacts.fingerprint("sketch", sidecar["fingerprint"], features_of, seen, run.stimuli)
    if artifacts.is_cached(path, inputs):
        return artifacts.read_array(path, "small images")
    pictures = np.stack([stimuli.picture(name, size=SIDE) for name in run.stimuli]).reshape(-1, SIDE * SIDE, 3) / 255
    pool, values = run.pool(subject), read_inputs(run, subject, decoder)
    y = Embeddings(space, run.stimuli, pictures, np.searchsorted(run.stimuli, pool.column("image")))
    rows, found = [], []
    for fold in (fold.joined() for fold in run.split(subject).folds):
        decoder.fit_prepared(values, y, pool.spec, train=fold.train, validation=fold.validation)
        spread = decoder.outputs(select_inputs(values, pool, fold.validation, average)[0]).std(axis=0)
        features_of_test, of_test, _ = select_inputs(values, pool, fold.test, average)
        gains = np.full(len(of_test), gain(decoder.basis_.target_sd, spread))
        predicted = decoder.basis_.inverse(decoder.outputs(features_of_test))
        found.append(rescale(predicted, decoder.basis_.mean, gains))
        rows.append(of_test)
    order = np.argsort(np.concatenate(rows), kind="stable")
    drawn = np.clip(np.concatenate(found)[order], 0, 1).reshape(-1, SIDE, SIDE, 3)
    artifacts.write_array(path, np.round(drawn * 255).astype(np.uint8), inputs)
    return artifacts.read_array(path, "small images")


# Width of an image, space between two, height of a line of text; px.
CELL, GAP, LINE = 192, 12, 22

PAPER, INK = (255, 255, 255), (32, 32, 32)


def comparison_pages(
    columns: Sequence[str],
    rows: Sequence[tuple[str, Mapping[str, np.ndarray]]],
    *,
    per_page: int = 6,
) -> Iterator[np.ndarray]:
    """Lay out rows of images side by side, as pages."""
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
            text = short = printable(caption)
            while text and font.getlength(short) > width - 2 * GAP:
                text, short = text[:-1], f"{text[:-1]}..."
            pen.text((GAP, top + CELL + 2), short, INK, font)
        yield np.asarray(page)


def _write_pages(run: RunFolder, entries: list[dict[str, Any]]) -> list[Path]:
    """Lay out images generated from captions beside what was seen and what was made from EEG."""
    folder, manifest = run.folder / "generated_from_captions", run.folder / "images" / "manifest.jsonl"
    captions = read_captions(run.folder / "targets" / "caption.txt")
    from_eeg: dict[str, Path] = {}
    for entry in read_manifest(run, manifest) if manifest.is_file() else []:
        if entry["arm"] == "eeg":
            from_eeg.setdefault(entry["stimulus"], manifest.parent / entry["file"])
    rows_of_page = []
    for entry in entries:
        stimulus, drawn = entry["stimulus"], read_pictures([folder / entry["file"]])[0]
        row = {"original": run.dataset[1].picture(stimulus, size=len(drawn)), "from caption": drawn}
        if stimulus in from_eeg:
            row["from EEG"] = read_pictures([from_eeg[stimulus]])[0]
        rows_of_page.append((captions[stimulus], row))
    rows_of_page.sort(key=lambda row: "from EEG" not in row[1])
    columns = [name for name in ("original", "from caption", "from EEG") if any(name in row for _, row in rows_of_page)]
    pages = []
    for number, page in enumerate(comparison_pages(columns, rows_of_page), 1):
        pages.append(folder / f"page_{number:03d}.png")
        write_picture(pages[-1], page)
    for stale in {*folder.glob("page_*.png")} - {*pages}:
        stale.unlink()  # of an earlier, larger selection
    return pages


def read_manifest(run: RunFolder, path: Path) -> list[dict[str, Any]]:
    """Read the manifest; raise if it does not belong to this run's trials and predictions."""
    text = artifacts.read_text(path, "the images that were drawn; run `neurocanvas generate` first")
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
        sidecar = artifacts.read_sidecar(run.path("predictions", subject))
        rows, made_from[subject] = sidecar["trials"], sidecar["fingerprint"]
        shown = run.subjects[subject].column("image")
        predicted |= {(subject, row, str(shown[row])) for row in rows if row < len(shown)}
    for entry in entries:
        if entry.get("predictions") != made_from.get(entry["subject"], entry.get("predictions")):
            raise NeuroCanvasError(
                f"{path}: subject {entry['subject']} was drawn from other predictions; run `neurocanvas generate`."
            )
    if not drawn <= predicted:
        subject, trial, stimulus = min(drawn - predicted, key=str)
        raise NeuroCanvasError(
            f"{path}: names trial {trial} ({stimulus}) of subject {subject}, which this run's settings and predictions "
            "do not; run `neurocanvas generate` again."
        )
    return entries
