"""From stimuli to targets: the stages caption and embed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from neurocanvas import store
from neurocanvas.damage import check_unchanged
from neurocanvas.datasets.stimuli import Stimuli
from neurocanvas.families import batches, family_print, find_family, source_print
from neurocanvas.large_arrays import growing_array
from neurocanvas.scale import kept
from neurocanvas.stages.run import Run
from neurocanvas.targets.captions import read_captions_of

# Captions or pictures that are encoded at once, and the unit of work that a killed run does again.
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
        inputs = store.fingerprint("caption", captions)
    else:
        source = settings.source or family
        weights = family_print(family) if not settings.source else source_print(captioner_of(source))
        prints = stimuli.prints()
        inputs = store.fingerprint("caption", stimuli.fingerprint(prints), ids, weights, settings.recipe)
    if not store.is_done(path, inputs):
        if captions is None:
            def describe(parts: list[list[str]]) -> Iterator[list[str]]:
                described = run.spread("caption", _describe, parts, sizes=[len(part) for part in parts])
                for part, said in zip(parts, described, strict=True):
                    _check_pictures(stimuli, prints, part)
                    yield said

            captions = caption_stimuli(ids, stimuli.picture, describe, begun, inputs)
        write_captions(path, captions)
        store.finish(path, inputs, {"source": settings.source or family, "recipe": settings.recipe})
    begun.unlink(missing_ok=True)
    return [path]


def _check_pictures(stimuli: Stimuli, prints: Mapping[str, str | None], names: Sequence[str]) -> None:
    """Raise if a picture is another one by now."""
    for name in names:
        check_unchanged(stimuli.files.get(name, name), prints[name], stimuli.print_of(name))


def _describe(run: Run, names: list[str]) -> list[str]:
    """Captions of some stimuli by the captioner."""
    from neurocanvas.targets.captions import load_captioner

    source, recipe = run.settings.caption.source or run.settings.family, run.settings.caption.recipe
    captioner = kept("caption", "captioner", (source, recipe), lambda: load_captioner(source, recipe))
    return captioner.describe([run.dataset[1].picture(name) for name in names])


def embed(run: Run) -> list[Path]:
    """Encode every caption for the generator, and every stimulus as what mappers predict, if that is something else."""
    from neurocanvas.targets.image import image_shape
    from neurocanvas.targets.text import text_shape

    captions = read_captions_of(run.folder / "targets" / "caption.txt", run.stimuli, "run `neurocanvas caption`")
    texts, family, target = [captions[name] for name in run.stimuli], run.settings.family, run.settings.embed.target
    weights, paths = family_print(family), [run.embeddings_path]
    _encode(run, "text", texts, text_shape(family), store.fingerprint("embed", run.stimuli, texts, weights), paths[0])
    if target == "pooled":
        paths.append(run.targets_path)
        inputs = store.fingerprint("embed pooled", run.stimuli, texts, weights)
        _encode(run, target, texts, text_shape(family, pooled=True), inputs, paths[1])
    if target == "image":
        paths.append(run.targets_path)
        judge, stimuli = source_print(find_family(family).judge), run.dataset[1]
        prints = stimuli.prints()
        inputs = store.fingerprint("embed image", run.stimuli, stimuli.fingerprint(prints), judge)
        check = partial(_check_pictures, stimuli, prints)
        _encode(run, target, run.stimuli, image_shape(family), inputs, paths[1], check)
    return paths


def _encode(
    run: Run, kind: str, said: Sequence[str], shape: tuple[int, int], inputs: str, path: Path,
    check: Callable[[Sequence[str]], None] = lambda _: None,
) -> None:  # fmt: skip
    """Encode what is said of every stimulus, each distinct thing once, unless that is done; `check` may refuse some."""
    if store.is_done(path, inputs):
        return
    distinct = list(dict.fromkeys(said))
    rows: dict[str, list[int]] = {one: [] for one in distinct}
    for row, one in enumerate(said):
        rows[one].append(row)
    card = {"family": run.settings.family, "stimuli": run.stimuli}
    pieces = list(rows.values())
    with growing_array(path, (len(said), *shape), inputs, pieces, card) as (array, done, note):
        parts = [part for part in batches(len(distinct), AT_ONCE) if part.start >= done]
        units = [(kind, distinct[part]) for part in parts]
        encoded = run.spread("embed", _embeddings, units, sizes=[len(some) for _, some in units])
        for part, embeddings in zip(parts, encoded, strict=True):
            check(distinct[part])
            for one, embedding in zip(distinct[part], embeddings, strict=True):
                array[rows[one]] = embedding
            note(part.stop)


def _embeddings(run: Run, unit: tuple[str, list[str]]) -> np.ndarray:
    """Embeddings of some captions; or of stimuli, by what they show."""
    from neurocanvas.targets.image import load_image_encoder
    from neurocanvas.targets.text import load_text_encoder

    (kind, some), family = unit, run.settings.family
    if kind == "image":
        encode_pictures = kept("embed", "encoder", (kind, family), lambda: load_image_encoder(family))
        return encode_pictures([run.dataset[1].picture(name) for name in some])
    encode = kept("embed", "encoder", (kind, family), lambda: load_text_encoder(family, pooled=kind == "pooled"))
    return encode(some)
