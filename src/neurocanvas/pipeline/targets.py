"""The verbs caption and embed: images to targets, through the shared cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.parallel import process_cache
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.targets import TARGETS, target_space
from neurocanvas.targets.captions import captioner_of, load_captioner, prompt, read_captions, write_captions
from neurocanvas.targets.pretrained import batches, find_family, source_hash

# Captions or images in one unit of work.
AT_ONCE = 32


def caption(run: RunFolder) -> list[Path]:
    """Caption every image: by a captioner, by its concept's name, or from a file."""
    settings, ids = run.settings.caption, run.stimuli
    path, images = run.folder / "targets" / "caption.txt", run.dataset[1]
    captions: dict[str, str] | None = None
    if settings.source == "class-names":
        captions = {name: prompt(images.names[images.concepts[name]]) for name in ids}
    elif settings.source.endswith(".txt"):
        captions = read_captions(Path(settings.source), ids, "add it, or caption by a network")
    made_by: Any = captions
    if captions is None:
        captioner = captioner_of(settings.source) if settings.source else find_family(run.settings.family).captioner
        made_by = source_hash(captioner)
    hashes = {name: images.file_hash(name) for name in ids}  # the audit compares images by these
    keys = [artifacts.fingerprint("caption", made_by, settings.recipe, hashes[name] or name) for name in ids]
    inputs = artifacts.fingerprint("caption", ids, keys)
    if artifacts.is_cached(path, inputs):
        return [path]
    if captions is None:
        texts = artifacts.cached("captions", keys, partial(_apply_network, run, "caption", ids))
        captions = dict(zip(ids, map(str, texts), strict=True))
    write_captions(path, captions)
    artifacts.write_sidecar(path, inputs, {
        "source": settings.source or run.settings.family, "recipe": settings.recipe, "images": hashes,
    })  # fmt: skip
    return [path]


def embed(run: RunFolder) -> list[Path]:
    """Encode every caption for the generator, and captions or images in the target space of the encoder."""
    images, file = run.dataset[1], run.folder / "targets" / "caption.txt"
    captions, weights = read_captions(file, run.stimuli, "run `neurocanvas caption`"), source_hash(run.settings.family)
    paths: list[Path] = []
    for target in dict.fromkeys(("clip-text", run.settings.embed.target)):
        space, path = target_space(f"{target}@{run.settings.family}"), run.path("embeddings", target)
        of_images = TARGETS[target].of == "image"
        sources = [images.file_hash(name) or name if of_images else captions[name] for name in run.stimuli]
        keys = [artifacts.fingerprint("embedding", str(space), weights, source) for source in sources]
        inputs = artifacts.fingerprint("embed", run.stimuli, keys)
        paths.append(path)
        if artifacts.is_cached(path, inputs):
            continue
        items = run.stimuli if of_images else [captions[name] for name in run.stimuli]
        sidecar = {"family": run.settings.family, "target": str(space), "stimuli": run.stimuli}
        rows, shape = artifacts.cached("embeddings", keys, partial(_apply_network, run, str(space), items)), space.shape
        made_from = [] if of_images else [file]
        artifacts.write_array(path, rows, inputs, sidecar, made_from, shape=(len(keys), *shape), dtype=np.float16)
    return paths


def _apply_network(run: RunFolder, network: str, items: Sequence[str], indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Captions, or embeddings in a target space, of the items with these indices: names of images, or captions."""
    units = [(network, [items[index] for index in indices[batch]]) for batch in batches(len(indices), AT_ONCE)]
    stage, sizes = "caption" if network == "caption" else "embed", [len(batch) for _, batch in units]
    for results in run.spread(stage, _apply_to_batch, units, title=network, sizes=sizes):
        yield from map(np.asarray, results)


def _apply_to_batch(run: RunFolder, unit: tuple[str, Sequence[Any]]) -> Sequence[str] | np.ndarray:
    """Captions of some images, or embeddings of images or captions in a target space."""
    name, items = unit
    kind, _, family = name.partition("@")
    if kind == "caption":
        source, recipe = run.settings.caption.source or run.settings.family, run.settings.caption.recipe
        network = process_cache("caption", "captioner", (source, recipe), lambda: load_captioner(source, recipe))
    else:
        network = process_cache("embed", "encoder", name, lambda: resolve_name(TARGETS[kind].load)(family))
    if kind == "caption" or TARGETS[kind].of == "image":
        items = [run.dataset[1].picture(item) for item in items]
    results: Sequence[str] | np.ndarray = network(items)
    return results
