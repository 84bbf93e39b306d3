"""Shards of pictures: drawn once, kept whole whenever a run is killed, shared between processes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas import store
from neurocanvas.families import device, family_print, find_family, precision_of, source_print
from neurocanvas.scale import kept
from neurocanvas.stages.run import Run, write_picture

if TYPE_CHECKING:
    from accelerate import PartialState

    from neurocanvas.generation.conditioning import Start

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
        from neurocanvas.generation.conditioning import ARMS

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
    inputs = store.fingerprint("generate", work.conditions, seeds, how, *_beside(run, work))
    sidecar = where / sidecar_name(work.entries)
    if _shard_done(sidecar, inputs):
        return
    samples, seeds_of = _draw(run, work)
    pictures = {}
    for number, drawn in enumerate(samples):
        for entry, picture, seed in zip(work.entries, drawn, seeds_of[number], strict=True):
            name = entry["file"] if number == 0 else f"{entry['file'].removesuffix('.png')}_{number}.png"
            write_picture(folder / name, picture, {**_about(entry), **how, "sample": number, "seed": seed})
            pictures[Path(name).name] = store.hash_and_size(folder / name)
    store.write_json(sidecar, {"fingerprint": inputs, "pictures": pictures})


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
    from neurocanvas.generation.diffusion import load_generator, sample_seed

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
    from neurocanvas.generation.conditioning import likeness
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
