"""The verb generate: images from predictions, by trial and arm, and from captions alone."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.data.images import is_one_colour
from neurocanvas.decoder import Decoder, Embeddings
from neurocanvas.errors import NeuroCanvasError, check_inside, check_name, printable
from neurocanvas.generation import GENERATORS, arms
from neurocanvas.generation.arms import ARMS, ArmInputs, image_seed
from neurocanvas.parallel import NEEDS, process_cache
from neurocanvas.pipeline.run import RunFolder, read_pictures, write_picture
from neurocanvas.pipeline.train import decoders_of, made_from, read_inputs, read_predictions, select_inputs
from neurocanvas.targets import TargetSpace
from neurocanvas.targets.captions import load_captioner, prompt, read_captions
from neurocanvas.targets.clip import encode_distinct, load_text_encoder
from neurocanvas.targets.pretrained import batches, device, find_family, local_folder, source_hash

STAGE = "generate"

# Width and height of the small images that generation may start from, px; number of their principal components.
SIDE, COMPONENTS = 16, 64

# Settings of `generate` that change an image, beside condition, seed and weights.
DECIDE = frozenset({
    "generator", "scheduler", "steps", "guidance", "guidance_interval", "negative", "size", "samples", "strength",
    "preview", "scale", "family",
})  # fmt: skip


def generate(run: RunFolder) -> list[Path]:
    """Generate the images of every subject and arm, a shard of manifest entries at a time."""
    settings = run.settings.generate
    needs, weights = NEEDS["generate"], local_folder(find_family(settings.family).diffusion)
    if weights is not None:  # `NEEDS` has the memory of the bundled family
        needs = replace(
            needs, memory=needs.memory + sum(file.stat().st_size for file in weights.rglob("*.safetensors"))
        )
    # Everything that an image depends on beside condition, seed, precision and device.
    recipe = settings.model_dump(mode="json", include=set(DECIDE)) | {"weights": source_hash(settings.family)}
    if settings.preview:
        recipe["taesd"] = source_hash(find_family(settings.family).preview)
    if run.generator is not None and type(run.generator) is not resolve_name(GENERATORS[settings.generator]):
        plain = {key: value for key, value in vars(run.generator).items() if isinstance(value, str | int | float)}
        recipe["generator"] = f"{type(run.generator).__qualname__} {plain}"
    shards: list[list[dict[str, Any]]] = []
    for arm in settings.arms:
        space_of(run, arm)
        for subject in ("",) if ARMS[arm].of_images else run.subjects:
            entries = plan(run, subject, arm, recipe)
            shards += [entries[rows] for rows in batches(len(entries), settings.shard)]
    if "sketched-start" in settings.arms:  # before several workers need it at once
        list(run.spread("sketch", sketch, list(run.subjects)))
    mine, processes = shards, None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # processes that `accelerate launch` started, one per GPU
        from accelerate import PartialState

        # some processes work hours longer than others
        processes = PartialState(cpu=device() == "cpu", timeout=timedelta(days=7))
        mine = shards[processes.process_index :: processes.num_processes]
    list(run.spread("generate", partial(draw, recipe=recipe), mine, needs=needs, sizes=[len(shard) for shard in mine]))
    if processes is not None:
        processes.wait_for_everyone()
        if not processes.is_main_process:
            return []
    entries = [entry for shard in shards for entry in shard]
    of_images = [entry for entry in entries if ARMS[entry["arm"]].of_images]
    pages = _write_pages(run, of_images) if of_images else []
    if len(entries) == len(of_images):
        return pages
    # The manifest lists the images of this command and of earlier ones; the seen images lie beside them.
    folder, path = run.folder / "images", run.folder / "images" / "manifest.jsonl"
    earlier = read_manifest(run, path) if path.is_file() else []
    merged = list({entry["file"]: entry for entry in [*earlier, *entries] if "subject" in entry}.values())
    rank = {key: n for n, key in enumerate(dict.fromkeys((entry["subject"], entry["arm"]) for entry in merged))}
    merged.sort(key=lambda entry: (rank[entry["subject"], entry["arm"]], entry["trial"]))
    size, seen = read_pictures([folder / merged[0]["file"]]).shape[1], {}
    for stimulus in sorted({entry["stimulus"] for entry in merged}):
        image = folder / "seen" / f"{stimulus}.png"
        write_picture(image, run.images.picture(stimulus, size=size))
        seen[f"{stimulus}.png"] = {"sha256": artifacts.sha256(image), "size": image.stat().st_size}
    artifacts.write_json(folder / "seen" / "seen.json", {"pictures": seen})  # for `verify`
    artifacts.write_text(path, "".join(json.dumps(entry) + "\n" for entry in merged))
    return [path, *pages]


def space_of(run: RunFolder, arm: str) -> str:
    """Target space of an arm's conditions; raise if the generator does not accept it."""
    predicted, generator = run.settings.embed.target, run.generator
    accepted = (generator or resolve_name(GENERATORS[run.settings.generate.generator])).accepts
    spaces = {"encoder": predicted, "clip-text": "clip-text"}
    spaces["either"] = predicted if predicted in accepted else "clip-text"
    allowed = [  # the best sample is chosen by its caption
        name for name, row in ARMS.items()
        if spaces[row.space] in accepted and not (row.best_of and predicted != "clip-text")
    ]  # fmt: skip
    if arm not in allowed:
        name = run.settings.generate.generator if generator is None else type(generator).__name__
        raise NeuroCanvasError(
            f"--arm {arm}: its conditions are {spaces[ARMS[arm].space]}, and {name} accepts "
            f"{', '.join(accepted)}. Choose among {', '.join(allowed) or 'other generators'}, or embed and train with "
            f"--target {accepted[0]}."
        )
    return spaces[ARMS[arm].space]


def select_trials(concepts: np.ndarray, folds: np.ndarray, max_trials: int | None) -> np.ndarray:
    """Indices of the test trials that get images: all, or at most `max_trials`, even over concepts and folds."""
    import pandas as pd

    trials = pd.DataFrame({"concept": concepts, "fold": folds})
    trials["turn"] = trials.groupby(["concept", "fold"]).cumcount()
    return np.sort(trials.sort_values(["turn", "fold", "concept"]).index[:max_trials].to_numpy())


def plan(run: RunFolder, subject: str, arm: str, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifest's entries of a subject and arm, each with its cache key; predictions are not read."""
    settings, recipe = run.settings.generate, {**recipe, "arm": arm}
    embedded = artifacts.read_sidecar(run.path("embeddings", space_of(run, arm)))["fingerprint"]
    if ARMS[arm].of_images:
        concepts = np.array([run.images.concepts[name] for name in run.stimuli])
        return [
            {
                "arm": arm, "trial": int(index), "stimulus": run.stimuli[index], "concept": str(concepts[index]),
                "file": f"{Path(run.stimuli[index]).with_suffix('').as_posix().replace('/', '_')}.png",
                "seed": image_seed(settings.seed, f"{arm}/{run.stimuli[index]}", 0, 0),
                "key": artifacts.fingerprint("image", recipe, settings.seed, run.stimuli[index], embedded),
            }
            for index in select_trials(concepts, np.zeros(len(concepts), np.int64), settings.max_trials)
        ]  # fmt: skip
    path, trials = run.path("predictions", subject), run.subjects[subject]
    artifacts.read_array(path, "predictions; `neurocanvas predict` makes them")
    sidecar = artifacts.read_sidecar(path)
    if max(sidecar["trials"]) >= len(trials) or "known" not in sidecar:
        raise NeuroCanvasError(f"{path}: made for other trials or by another version; run `neurocanvas predict` again.")
    tested = trials[np.array(sidecar["trials"])]
    images, concepts = tested.column("image"), tested.column("concept")
    inputs: list[Any] = [embedded, sidecar["fingerprint"]]
    if ARMS[arm].start is not None:
        inputs.append(run.images.fingerprint())
    if ARMS[arm].best_of:
        inputs.append(source_hash(run.settings.family))
    entries = []
    for index in select_trials(concepts, np.array(sidecar["folds"]), settings.max_trials):
        trial, stimulus = sidecar["trials"][index], str(images[index])
        seed = image_seed(settings.seed, arm, subject, trial)
        entries.append({
            "subject": subject, "arm": arm, "trial": trial, "stimulus": stimulus, "concept": str(concepts[index]),
            "predictions": sidecar["fingerprint"],
            "file": f"s{subject}/{arm}/{trial:05d}_{Path(stimulus).stem}.png", "seed": seed,
            "key": artifacts.fingerprint("image", recipe, seed, stimulus, *inputs),
        })  # fmt: skip
    return entries


def draw(run: RunFolder, shard: list[dict[str, Any]], *, recipe: dict[str, Any]) -> None:
    """Generate the missing images of a shard of manifest entries; its sidecar is written last."""
    name, subject, settings = shard[0]["arm"], shard[0].get("subject", ""), run.settings.generate
    root, arm = run.folder / ("images" if subject else "generated_from_captions"), ARMS[name]
    folder = (root / shard[0]["file"]).parent
    done: dict[str, dict[str, Any]] = {}  # cache key, hash and size of every complete image
    for path in sorted(folder.glob("shard_*.json")):
        try:
            for file, about in json.loads(path.read_text(encoding="utf-8"))["pictures"].items():
                if about["key"] and (folder / file).stat().st_size == about["size"]:
                    done[file] = about
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # damaged, or an image is gone: it is generated again
    missing = [entry for entry in shard if done.get(Path(entry["file"]).name, {}).get("key") != entry["key"]]
    if not missing:
        return
    trials, inputs = [entry["trial"] for entry in missing], None
    if arm.of_images:
        conditions = np.asarray(run.targets("clip-text")[trials], np.float32)
    else:
        inputs = arm_inputs(run, subject, name, trials)
        conditions = np.asarray(arm.condition(inputs), np.float32)
    load = partial(resolve_name(GENERATORS[settings.generator]).load, settings, tell=partial(run.warn, STAGE))
    generator = run.generator or process_cache(STAGE, "generator", run, load)
    init = None
    if inputs is not None and arm.start is not None:
        from PIL import Image

        init = np.stack([
            run.images.picture(start, size=generator.size) if isinstance(start, str)
            else np.asarray(Image.fromarray(start).resize((generator.size,) * 2, Image.Resampling.BICUBIC))
            for start in arm.start(inputs)
        ])  # fmt: skip
    seeds = np.array([  # the first sample has the seed of the manifest
        [entry["seed"] if number == 0 else image_seed(entry["seed"], "sample", 0, number) for entry in missing]
        for number in range(settings.samples)
    ])  # fmt: skip
    samples = np.stack([np.asarray(generator.generate(conditions, row.tolist(), init)) for row in seeds])
    if samples.ndim != 5 or samples.shape[1] != len(missing) or samples.shape[-1] != 3 or samples.dtype != np.uint8:
        raise NeuroCanvasError(
            f"generator: generate() must return images (n, size, size, 3), uint8, for {len(missing)} conditions; got "
            f"{samples.shape[1:]}, {samples.dtype}."
        )
    for entry, drawn in zip(missing, samples.swapaxes(0, 1), strict=True):
        if any(map(is_one_colour, drawn)):
            trial = f"trial {run.subjects[subject].names[entry['trial']]}, " if subject else ""
            raise NeuroCanvasError(
                f"generate: {trial}{entry['stimulus']}, arm {name}: the image is of one colour, as NaN leaves it; set "
                "generate.precision to float32, or check the weights of --family."
            )
    if inputs is not None and arm.best_of:  # neither the judge nor the seen image is used
        family = run.settings.family
        describe = process_cache(STAGE, "captioner", family, lambda: load_captioner(family))
        captions = embed_texts(run, describe(list(samples.reshape(-1, *samples.shape[2:])))).astype(np.float32)
        captions = captions.reshape(*samples.shape[:2], *captions.shape[1:])
        cosines = np.stack([arms.likeness(inputs.predicted, caption, inputs.mean) for caption in captions])
        order = np.argsort(-cosines, axis=0, kind="stable")
        samples = np.take_along_axis(samples, order[:, :, None, None, None], axis=0)
        seeds = np.take_along_axis(seeds, order, axis=0)
    automatic = "float16" if device().startswith("cuda") else "float32"
    precision = automatic if settings.precision == "auto" else settings.precision
    recipe = recipe | {"precision": precision, "device": device()}
    for number, images in enumerate(samples):
        for entry, image, seed in zip(missing, images, seeds[number].tolist(), strict=True):
            path = root / (entry["file"] if number == 0 else f"{entry['file'].removesuffix('.png')}_{number}.png")
            about = {key: value for key, value in entry.items() if key not in ("predictions", "key")}
            write_picture(path, image, {**about, **recipe, "sample": number, "seed": seed})
            done[path.name] = {"key": entry["key"], "sha256": artifacts.sha256(path), "size": path.stat().st_size}
    stems = tuple(Path(entry["file"]).stem for entry in shard)
    written = {file: about for file, about in sorted(done.items()) if file.startswith(stems)}
    artifacts.write_json(folder / f"shard_{shard[0]['trial']:05d}.json", {"pictures": written})


def arm_inputs(run: RunFolder, subject: str, arm: str, trials: Sequence[int]) -> ArmInputs:
    """Inputs of an arm for some test trials of a subject; only the rows of these trials are read."""
    decoders = process_cache(STAGE, "decoders", (run, subject), lambda: decoders_of(run, subject))
    sidecar = artifacts.read_sidecar(run.path("predictions", subject))
    tested, folds = run.subjects[subject][np.array(sidecar["trials"])], np.array(sidecar["folds"])
    rows, images = np.searchsorted(sidecar["trials"], trials), run.images
    targets, embeddings, scale = run.targets(), run.targets(space_of(run, arm)), run.settings.generate.scale
    trained = np.zeros((len(rows), len(targets)), bool)
    for mask, fold in zip(trained, folds[rows]):
        mask[sidecar["known"][fold]] = True
    seed, sources = partial(image_seed, run.settings.generate.seed, arm, subject), rows
    if ARMS[arm].deranged:
        sources = arms.derangement(tested.column("concept"), rng=np.random.default_rng(seed(-1)))[rows]
    predicted, means = read_predictions(run, subject, rows, decoders)
    rescaled, centres = read_predictions(run, subject, sources, decoders)
    if scale == "token-norm":
        norms = process_cache(STAGE, "norms", (run, subject), lambda: np.stack(
            [arms.token_norms(targets, np.array(stimuli)) for stimuli in sidecar["known"]]
        ))  # fmt: skip
        rescaled = arms.match_norms(rescaled, norms[folds[sources]])
    else:
        gains = np.array(sidecar["gains"])[folds[sources]] if scale == "affine" else np.ones(len(sources))
        rescaled = arms.rescale(rescaled, centres, gains)
    return ArmInputs(
        predicted, rescaled, means,
        np.asarray(embeddings[np.searchsorted(run.stimuli, tested[rows].column("image"))], np.float32),
        np.array([seed(int(trial)) for trial in trials]), targets, embeddings, trained,
        np.array([images.concepts[name] for name in run.stimuli]), np.array(run.stimuli),
        lambda concepts: embed_texts(run, [prompt(images.names[concept]) for concept in concepts]),
        lambda: sketch(run, subject)[rows],
    )  # fmt: skip


def embed_texts(run: RunFolder, texts: Sequence[str]) -> np.ndarray:
    """Encode a few texts; the encoder stays loaded."""
    family = run.settings.family
    return encode_distinct(texts, process_cache(STAGE, "encoder", family, lambda: load_text_encoder(family)))


def sketch(run: RunFolder, subject: str) -> np.ndarray:
    """Predict a small image for every test trial, by ridge regression on the training trials of its fold."""
    path, images = run.folder / "predictions" / f"s{subject}_sketch.npy", run.images
    sidecar = artifacts.read_sidecar(run.path("predictions", subject))
    space = TargetSpace("pixels", (SIDE * SIDE, 3), f"{SIDE}px")
    decoder = Decoder(
        "ridge", str(space), n_components=COMPONENTS, device=run.settings.execution.device,
        bands=run.settings.features.bands or None,
    )  # fmt: skip
    features_key = made_from(run, subject, decoder)[1]
    inputs = artifacts.fingerprint("sketch", sidecar["fingerprint"], features_key, images.fingerprint(), run.stimuli)
    if artifacts.is_cached(path, inputs):
        return artifacts.read_array(path, "small images")
    pixels = np.stack([images.picture(name, size=SIDE) for name in run.stimuli]).reshape(-1, SIDE * SIDE, 3) / 255
    pool, values, average = run.pool(subject), read_inputs(run, subject, decoder), run.settings.split.average_test
    y = Embeddings(space, run.stimuli, pixels, np.searchsorted(run.stimuli, pool.column("image")))
    tested, predictions = [], []
    for fold in (fold.joined() for fold in run.split(subject).folds):
        decoder.fit_prepared(values, y, pool.spec, train=fold.train, validation=fold.validation)
        basis, validation = decoder.basis_, select_inputs(values, pool, fold.validation, average)[0]
        features, trials, _ = select_inputs(values, pool, fold.test, average)
        gain = arms.gain(basis.target_sd, decoder.outputs(validation).std(axis=0))
        predicted = basis.inverse(decoder.outputs(features))
        predictions.append(arms.rescale(predicted, basis.mean, np.full(len(trials), gain)))
        tested.append(trials)
    order = np.argsort(np.concatenate(tested), kind="stable")
    sketches = np.clip(np.concatenate(predictions)[order], 0, 1).reshape(-1, SIDE, SIDE, 3)
    artifacts.write_array(path, np.round(sketches * 255).astype(np.uint8), inputs)
    return artifacts.read_array(path, "small images")


# Width of an image, space between two, height of a line of text; px.
CELL, GAP, LINE = 192, 12, 22


def comparison_pages(
    columns: Sequence[str], rows: Sequence[tuple[str, Mapping[str, np.ndarray]]], *, per_page: int = 6
) -> Iterator[np.ndarray]:
    """Pages with rows of images side by side: per row a caption, and column -> image."""
    from PIL import Image, ImageDraw, ImageFont

    font, lefts = ImageFont.load_default(size=14), [GAP + n * (CELL + GAP) for n in range(len(columns))]
    width = GAP + len(columns) * (CELL + GAP)
    for batch in batches(len(rows), per_page):
        n_rows = batch.stop - batch.start
        page = Image.new("RGB", (width, GAP + LINE + n_rows * (CELL + LINE + GAP)), "white")
        pen = ImageDraw.Draw(page)
        for left, column in zip(lefts, columns, strict=True):
            pen.text((left, GAP), column, "black", font)
        for row, (caption, images) in enumerate(rows[batch]):
            top = GAP + LINE + row * (CELL + LINE + GAP)
            for left, column in zip(lefts, columns, strict=True):
                if column in images:
                    image = Image.fromarray(images[column])
                    resampling = Image.Resampling.NEAREST if min(image.size) < CELL else Image.Resampling.LANCZOS
                    page.paste(image.resize((CELL, CELL), resampling), (left, top))
            pen.text((GAP, top + CELL + 2), textwrap.shorten(printable(caption), width // 8), "black", font)
        yield np.asarray(page)


def _write_pages(run: RunFolder, entries: list[dict[str, Any]]) -> list[Path]:
    """Lay out images generated from captions beside the seen images and the images from EEG."""
    folder, manifest = run.folder / "generated_from_captions", run.folder / "images" / "manifest.jsonl"
    captions = read_captions(run.folder / "targets" / "caption.txt")
    from_eeg: dict[str, Path] = {}
    for entry in read_manifest(run, manifest) if manifest.is_file() else []:
        if entry["arm"] == "eeg":
            from_eeg.setdefault(entry["stimulus"], manifest.parent / entry["file"])
    rows = []
    for entry in entries:
        stimulus, image = entry["stimulus"], read_pictures([folder / entry["file"]])[0]
        row = {"original": run.images.picture(stimulus, size=len(image)), "from caption": image}
        if stimulus in from_eeg:
            row["from EEG"] = read_pictures([from_eeg[stimulus]])[0]
        rows.append((captions[stimulus], row))
    rows.sort(key=lambda row: "from EEG" not in row[1])
    columns = list(rows[0][1])  # a row with an image from EEG comes first
    pages = []
    for number, page in enumerate(comparison_pages(columns, rows), 1):
        pages.append(folder / f"page_{number:03d}.png")
        write_picture(pages[-1], page)
    for stale in {*folder.glob("page_*.png")} - {*pages}:
        stale.unlink()  # of an earlier, larger selection
    return pages


def read_manifest(run: RunFolder, path: Path) -> list[dict[str, Any]]:
    """Read the manifest; raise if it does not belong to this run's trials and predictions."""
    text = artifacts.read_text(path, "the generated images; run `neurocanvas generate` first")
    try:
        entries = [json.loads(line) for line in text.splitlines()]
        listed = {(entry["subject"], entry["trial"], entry["stimulus"]) for entry in entries}
        for entry in entries:
            check_inside(path.parent, entry["file"], str(path))
            check_name(path.parent / "seen", entry["stimulus"], str(path))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise NeuroCanvasError(f"{path}: damaged ({error}); run `neurocanvas generate` again.") from error
    if not entries:
        raise NeuroCanvasError(f"{path}: empty; run `neurocanvas generate` again.")
    predicted, current = set(), {}
    for subject in run.subjects.keys() & {subject for subject, *_ in listed}:
        sidecar = artifacts.read_sidecar(run.path("predictions", subject))
        current[subject], shown = sidecar["fingerprint"], run.subjects[subject].column("image")
        predicted |= {(subject, row, str(shown[row])) for row in sidecar["trials"] if row < len(shown)}
    for entry in entries:
        if entry.get("predictions") != current.get(entry["subject"], entry.get("predictions")):
            raise NeuroCanvasError(
                f"{path}: subject {entry['subject']} was drawn from other predictions; run `neurocanvas generate`."
            )
    if not listed <= predicted:
        subject, trial, stimulus = min(listed - predicted, key=str)
        raise NeuroCanvasError(
            f"{path}: names trial {trial} ({stimulus}) of subject {subject}, which this run's settings and predictions "
            "do not; run `neurocanvas generate` again."
        )
    return entries
