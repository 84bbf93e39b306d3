"""From stimuli to targets: the stages caption and embed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from neurocanvas import artifacts
from neurocanvas.pipeline.run import Run
from neurocanvas.scale import kept
from neurocanvas.targets.captions import read_captions_of
from neurocanvas.targets.pretrained import batches, family_print, find_family, source_print

# Captions or pictures that are encoded at once: the unit of work.
AT_ONCE = 32


def caption(run: Run) -> list[Path]:
    """Describe every stimulus in words: by a captioner, by its concept's name, or as a file says."""
    from neurocanvas.targets.captions import caption_stimuli, captioner_of, prompt, write_captions

    _, stimuli = run.dataset
    settings, family, ids = run.settings.caption, run.settings.family, run.stimuli
    path = run.folder / "targets" / "caption.txt"
    begun = path.with_name("captions_begun.json")
    captions = None
    if settings.source == "class-names":
        captions = {name: prompt(stimuli.names[stimuli.concepts[name]]) for name in ids}
    elif settings.source.endswith(".txt"):
        captions = read_captions_of(Path(settings.source), ids, "add it, or caption by a network")
    if captions is not None:
        inputs = artifacts.fingerprint("caption", captions)
    else:
        source = settings.source or family
        weights = family_print(family) if not settings.source else source_print(captioner_of(source))
        inputs = artifacts.fingerprint("caption", stimuli.fingerprint(), ids, weights, settings.recipe)
    if not artifacts.is_done(path, inputs):
        if captions is None:

            def describe(parts: list[list[str]]) -> Iterator[list[str]]:
                return run.spread("caption", _describe, parts, sizes=[len(part) for part in parts])

            captions = caption_stimuli(ids, stimuli.picture, describe, begun, inputs)
        write_captions(path, captions)
        artifacts.finish(path, inputs, {"source": settings.source or family, "recipe": settings.recipe})
    begun.unlink(missing_ok=True)
    return [path]


def _describe(run: Run, names: list[str]) -> list[str]:
    """Captions of some stimuli by the captioner."""
    from neurocanvas.targets.captions import load_captioner

    source, recipe = run.settings.caption.source or run.settings.family, run.settings.caption.recipe
    captioner = kept("caption", "captioner", (source, recipe), lambda: load_captioner(source, recipe))
    return captioner.describe([run.dataset[1].picture(name) for name in names])


def embed(run: Run) -> list[Path]:
    """Encode every caption for the generator, and every stimulus as what mappers predict, if that is something else."""
    from neurocanvas.targets.clip import image_shape, text_shape

    captions = read_captions_of(run.folder / "targets" / "caption.txt", run.stimuli, "run `neurocanvas caption`")
    texts, family, target = [captions[name] for name in run.stimuli], run.settings.family, run.settings.embed.target
    weights, paths = family_print(family), [run.embeddings_path]
    _encode(
        run, "text", texts, text_shape(family), artifacts.fingerprint("embed", run.stimuli, texts, weights), paths[0]
    )
    if target == "pooled":
        paths.append(run.targets_path)
        inputs = artifacts.fingerprint("embed pooled", run.stimuli, texts, weights)
        _encode(run, target, texts, text_shape(family, pooled=True), inputs, paths[1])
    if target == "image":
        paths.append(run.targets_path)
        judge, stimuli = source_print(find_family(family).judge), run.dataset[1]
        inputs = artifacts.fingerprint("embed image", run.stimuli, stimuli.fingerprint(), judge)
        _encode(run, target, run.stimuli, image_shape(family), inputs, paths[1])
    return paths


def _encode(run: Run, kind: str, sources: Sequence[str], shape: tuple[int, int], inputs: str, path: Path) -> None:
    """Encode one caption or stimulus id per stimulus, each distinct one once, unless that is done."""
    if artifacts.is_done(path, inputs):
        return
    row_of = {source: row for row, source in enumerate(dict.fromkeys(sources))}
    distinct, parts = list(row_of), list(batches(len(row_of), AT_ONCE))
    units = [(kind, distinct[part]) for part in parts]
    encoded = np.empty((len(distinct), *shape), np.float16)
    for part, embeddings in zip(parts, run.spread("embed", _embeddings, units, sizes=[len(u[1]) for u in units])):
        encoded[part] = embeddings
    rows = (encoded[row_of[source]] for source in sources)
    card = {"family": run.settings.family, "stimuli": run.stimuli}
    artifacts.write_in_parts(path, (len(sources), *shape), np.float16, rows, inputs, card)


def _embeddings(run: Run, unit: tuple[str, list[str]]) -> np.ndarray:
    """Embeddings of some captions; or of stimuli, by what they show."""
    from neurocanvas.targets.clip import load_image_encoder, load_text_encoder

    (kind, some), family = unit, run.settings.family
    if kind == "image":
        encode_pictures = kept("embed", "encoder", (kind, family), lambda: load_image_encoder(family))
        return encode_pictures([run.dataset[1].picture(name) for name in some])
    encode = kept("embed", "encoder", (kind, family), lambda: load_text_encoder(family, pooled=kind == "pooled"))
    return encode(some)
