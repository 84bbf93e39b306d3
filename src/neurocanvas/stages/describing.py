"""From stimuli to targets: the stages caption and embed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from neurocanvas import store
from neurocanvas.families import batches, family_print, find_family, source_print
from neurocanvas.stages.run import Run
from neurocanvas.targets.captions import read_captions_of

AT_ONCE = 32
"""Captions or pictures that are encoded at once, and the unit of work that a killed run does again."""


def caption(run: Run) -> list[Path]:
    """Describe every stimulus in words: by a captioner, by its concept's name, or as a file says.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        `targets/caption.txt`.

    Raises
    ------
    NeuroCanvasError
        If the captioner's weights cannot be loaded, or the file lacks a stimulus.
    """
    from neurocanvas.targets.captions import (
        caption_stimuli,
        captioner_of,
        load_captioner,
        prompt,
        write_captions,
    )

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
        inputs = store.fingerprint("caption", captions)
    else:
        source = settings.source or family
        weights = family_print(family) if not settings.source else source_print(captioner_of(source))
        inputs = store.fingerprint("caption", stimuli.fingerprint(), ids, weights, settings.recipe)
    if not store.is_done(path, inputs):
        if captions is None:
            captioner = cache(lambda: load_captioner(source, settings.recipe))
            captions = caption_stimuli(
                ids, stimuli.picture, captioner, begun, inputs, progress=run.track("caption", len(ids))
            )
        write_captions(path, captions)
        store.finish(path, inputs, {"source": settings.source or family, "recipe": settings.recipe})
    begun.unlink(missing_ok=True)
    return [path]


def embed(run: Run) -> list[Path]:
    """Encode every caption for the generator, and every stimulus as what mappers predict, if that is something else.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        `targets/clip_embeddings.npy`, the hidden states of captions; with `embed.target` pooled or image also
        `targets/pooled.npy` or `targets/image.npy`.

    Raises
    ------
    NeuroCanvasError
        If a stimulus has no caption, or weights cannot be loaded.
    """
    from neurocanvas.targets.image import load_image_encoder
    from neurocanvas.targets.text import load_text_encoder

    captions = read_captions_of(run.folder / "targets" / "caption.txt", run.stimuli, "run `neurocanvas caption`")
    texts, family, target = [captions[name] for name in run.stimuli], run.settings.family, run.settings.embed.target
    weights = family_print(family)
    paths = [run.embeddings_path]
    inputs = store.fingerprint("embed", run.stimuli, texts, weights)
    _encode(run, "embed", texts, lambda: load_text_encoder(family), inputs, paths[0])
    if target == "pooled":
        paths.append(run.targets_path)
        inputs = store.fingerprint("embed pooled", run.stimuli, texts, weights)
        _encode(run, "embed pooled", texts, lambda: load_text_encoder(family, pooled=True), inputs, paths[1])
    if target == "image":
        stimuli = run.dataset[1]
        paths.append(run.targets_path)
        inputs = store.fingerprint(
            "embed image", run.stimuli, stimuli.fingerprint(), source_print(find_family(family).judge)
        )

        def load() -> Encoder:
            encode, shape = load_image_encoder(family)
            return lambda names: encode([stimuli.picture(name) for name in names]), shape

        _encode(run, "embed image", run.stimuli, load, inputs, paths[1])
    return paths


Encoder = tuple[Callable[[Sequence[str]], np.ndarray], tuple[int, int]]
"""What encodes some captions or stimuli, and the shape of one's embedding."""


def _encode(
    run: Run, title: str, said: Sequence[str], load: Callable[[], Encoder], inputs: str, path: Path
) -> None:
    """Encode what is said of every stimulus, each distinct thing once, unless that is done."""
    if store.is_done(path, inputs):
        return
    distinct = list(dict.fromkeys(said))
    rows: dict[str, list[int]] = {one: [] for one in distinct}
    for row, one in enumerate(said):
        rows[one].append(row)
    encode, shape = load()
    card = {"family": run.settings.family, "stimuli": run.stimuli}
    with store.growing_array(path, (len(said), *shape), inputs, card) as (array, done, note):
        advance = run.track(title, len(distinct))
        advance(done)
        for part in batches(len(distinct), AT_ONCE):
            if part.start < done:
                continue
            for one, embedding in zip(distinct[part], encode(distinct[part]), strict=True):
                array[rows[one]] = embedding
            note(part.stop)
            advance(part.stop - part.start)
