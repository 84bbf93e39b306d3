"""Shards of pictures: drawn once, kept whole whenever a run is killed, shared between processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas import store
from neurocanvas.families import batches, device, family_print, find_family, precision_of, source_print
from neurocanvas.stages.run import Run, write_picture

if TYPE_CHECKING:
    from accelerate import PartialState

    from neurocanvas.generation.conditioning import Start
    from neurocanvas.generation.diffusion import Generator
    from neurocanvas.targets.captions import Captioner

DECIDE = frozenset({
    "scheduler", "steps", "guidance", "guidance_interval", "negative", "size", "precision", "samples", "strength",
    "preview", "scale", "family",
})  # fmt: skip
"""Settings of `generate` that a picture depends on, beside condition, seed and weights."""


@dataclass(frozen=True)
class Work:
    """What is to be drawn for one subject and arm; all in the order of the trials.

    Parameters
    ----------
    arm : str
    conditions, predicted, mean : array, shape (n_trials, 77, 768)
        What the generator is given, what the mapper says, and the mean training target.
    entries : list of dict
        Of the manifest, with `trial`, `seed` and `file`.
    starts : list
        What is drawn over: stimuli, by their names, or small pictures; empty if nothing is.
    """

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

    def part(self, rows: slice) -> Work:
        """Give some of the trials.

        Parameters
        ----------
        rows : slice

        Returns
        -------
        Work
        """
        conditions, predicted, mean = (array[rows] for array in (self.conditions, self.predicted, self.mean))
        return Work(self.arm, conditions, predicted, mean, self.entries[rows], self.starts[rows])


def processes() -> PartialState | None:
    """Find the processes that `accelerate launch` started, one per GPU.

    Returns
    -------
    accelerate.PartialState or None
        None if this is the only one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from accelerate import PartialState

    # some have more to do than others, for hours
    return PartialState(cpu=device() == "cpu", timeout=timedelta(days=7))


@dataclass(frozen=True)
class Shards:
    """Draws shards that are not there yet; of several processes each takes its share of them.

    Parameters
    ----------
    run : Run
    weights : str
        Fingerprint of the family that draws.
    generator : callable
        Loads it; is called if there is something to draw.
    processes : accelerate.PartialState or None
        From `processes`.
    shards : iterator of int
        Counts shards over the whole run, so that all processes get as many.
    """

    run: Run
    weights: str
    generator: Callable[[], Generator]
    processes: PartialState | None
    shards: Iterator[int] = field(default_factory=count)

    def __call__(self, folder: Path, where: str, work: Work, *, title: str) -> None:
        """Draw what is not there yet.

        Parameters
        ----------
        folder : Path
            From which files of entries count.
        where : str
            Where in it the cards of shards lie.
        work : Work
        title : str
            Of the progress line.
        """
        advance = self.run.track(title, len(work.entries))
        for part in batches(len(work.entries), self.run.settings.generate.shard):
            turn = next(self.shards)
            if self.processes is None or turn % self.processes.num_processes == self.processes.process_index:
                self._shard(folder, folder / where, work.part(part))
            advance(part.stop - part.start)

    def all_is_there(self) -> bool:
        """Wait for the other processes.

        Returns
        -------
        bool
            Whether this is the one that goes on with what all have drawn.
        """
        if self.processes is None:
            return True
        self.processes.wait_for_everyone()
        return bool(self.processes.is_main_process)

    def _shard(self, folder: Path, where: Path, work: Work) -> None:
        """Draw a shard unless it is there. Its card, written last, holds the sha256 of its pictures.

        The pictures first go into one array, at once: whenever this is killed, all of them were drawn or none.
        """
        how = self._how
        inputs = store.fingerprint(
            "generate", work.conditions, [entry["seed"] for entry in work.entries], how, *self._beside(work)
        )
        drawn = where / f"shard_{work.entries[0]['trial']:05d}.npy"
        card = drawn.with_suffix(".json")
        if not _shard_done(card, inputs, folder):
            if not store.is_done(drawn, inputs):
                pictures, seeds = self._draw(work)
                store.write_array(drawn, pictures, inputs, {"seeds": seeds})
            hashes, seeds = {}, store.read_card(drawn)["seeds"]
            for number, pictures in enumerate(store.read_array(drawn, "pictures")):
                for entry, picture, seed in zip(work.entries, pictures, seeds[number], strict=True):
                    name = entry["file"] if number == 0 else f"{entry['file'].removesuffix('.png')}_{number}.png"
                    write_picture(folder / name, picture, {**entry, **how, "sample": number, "seed": seed})
                    hashes[name] = store.sha256(folder / name)
            store.write_json(card, {"fingerprint": inputs, "pictures": hashes})
        for done in (drawn, store.card_path(drawn)):
            done.unlink(missing_ok=True)

    @cached_property
    def _how(self) -> dict[str, Any]:
        """What every picture depends on beside its condition and seed; goes into its metadata."""
        settings = self.run.settings.generate
        how = settings.model_dump(mode="json", include=set(DECIDE))
        how |= {"precision": precision_of(settings), "weights": self.weights}
        if settings.preview:
            how["taesd"] = source_print(find_family(settings.family).preview)
        return how

    def _beside(self, work: Work) -> list[Any]:
        """What the pictures of some arms depend on as well."""
        beside: list[Any] = []
        if work.starts:
            beside += [np.asarray(work.starts), self._pictures]
        if work.chooses:
            beside += [family_print(self.run.settings.family), work.predicted, work.mean]
        return beside

    @cached_property
    def _captioner(self) -> Captioner:
        """The family's captioner."""
        from neurocanvas.targets.captions import load_captioner

        return load_captioner(self.run.settings.family)

    @cached_property
    def _pictures(self) -> str:
        """What names the data set's pictures."""
        return self.run.dataset[1].fingerprint()

    def _draw(self, work: Work) -> tuple[np.ndarray, list[list[int]]]:
        """Draw all samples, (n_samples, n_trials, size, size, 3), with seeds; of `best-of` the best comes first."""
        from neurocanvas.generation.diffusion import sample_seed

        run, generator, starts = self.run, self.generator(), None
        if work.starts:
            starts = np.stack([self._start(one, generator.size) for one in work.starts])
        samples = range(run.settings.generate.samples)
        seeds = [[sample_seed(entry["seed"], number) for entry in work.entries] for number in samples]
        drawn = np.stack([generator.draw(work.conditions, own, starts=starts) for own in seeds])
        if work.chooses:
            order = np.argsort(-self._likeness(drawn, work), axis=0, kind="stable")
            drawn = np.take_along_axis(drawn, order[:, :, None, None, None], axis=0)
            seeds = [[seeds[sample][trial] for trial, sample in enumerate(row)] for row in order]
        return drawn, seeds

    def _start(self, start: Start, size: int) -> np.ndarray:
        """A picture to start from, at the size that is drawn."""
        from PIL import Image

        if isinstance(start, str):
            return self.run.dataset[1].picture(start, size=size)
        return np.asarray(Image.fromarray(start).resize((size, size), Image.Resampling.BICUBIC))

    def _likeness(self, drawn: np.ndarray, work: Work) -> np.ndarray:
        """How like the prediction each picture's own caption is, (n_samples, n_trials): no judge, nothing seen."""
        from neurocanvas.generation.conditioning import likeness
        from neurocanvas.targets.text import embed_captions

        captions = self._captioner.describe(list(drawn.reshape(-1, *drawn.shape[2:])))
        said = embed_captions(captions, self.run.settings.family).astype(np.float32)
        said = said.reshape(*drawn.shape[:2], *said.shape[1:])
        return np.stack([likeness(work.predicted, one, work.mean) for one in said])


def _shard_done(card: Path, inputs: str, folder: Path) -> bool:
    """Tell whether a shard was drawn from these inputs and every picture of it is whole."""
    try:
        said = json.loads(card.read_text(encoding="utf-8"))
        pictures, known = said["pictures"].items(), said["fingerprint"] == inputs
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False  # missing or damaged: the shard is drawn again
    whole = ((folder / name).is_file() and store.sha256(folder / name) == digest for name, digest in pictures)
    return known and all(whole)
