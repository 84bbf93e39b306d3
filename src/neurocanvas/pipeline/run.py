"""The run folder: its settings, trials, and paths of artifacts."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from neurocanvas import artifacts
from neurocanvas.config import RunSettings, load_settings
from neurocanvas.data.eeg_imagenet import granularity_rows
from neurocanvas.data.images import as_shown, open_picture
from neurocanvas.data.splits import (
    CHOICES,
    PROTOCOLS,
    Split,
    check_sessions,
    choose_protocol,
    make_split,
    testable_subjects,
)
from neurocanvas.data.trials import Trials, unique_names
from neurocanvas.errors import NeuroCanvasError, check_option, csv_text
from neurocanvas.findings import finding
from neurocanvas.parallel import IN_PROCESS, NEEDS, Engine, Needs, Result, Unit

if TYPE_CHECKING:
    from neurocanvas.data.images import Images

Artifact = Literal["features", "embeddings", "decoder", "predictions"]
Advance = Callable[[int], None]
# `track("features", 16)` opens a progress line of 16 tasks and returns the function that advances it.
Track = Callable[[str, int], Advance]


def untracked(title: str, total: int) -> Advance:  # noqa: ARG001
    """Track nothing."""
    return lambda _: None


@dataclass(frozen=True, eq=False)
class RunFolder:
    """A run folder with its settings."""

    folder: Path
    settings: RunSettings
    track: Track = untracked
    engine: Engine = IN_PROCESS
    trials: Trials | None = None
    decoder: Any = None
    generator: Any = None

    def __reduce__(self) -> tuple[Callable[[str, str], RunFolder], tuple[str, str]]:
        return _in_worker, (str(self.folder), self.settings.model_dump_json())

    def spread(
        self,
        stage: str,
        work: Callable[[RunFolder, Unit], Result],
        units: Sequence[Unit],
        *,
        needs: Needs | None = None,
        title: str = "",
        sizes: Sequence[int] | None = None,
    ) -> Iterator[Result]:
        """Run tasks of a stage on the engine, with a progress line."""
        advance = self.track(title or stage, len(units) if sizes is None else sum(sizes))
        done = self.engine.map(partial(work, self), units, needs or NEEDS[stage])
        for result, size in zip(done, sizes or [1] * len(units), strict=True):
            advance(size)
            yield result

    def log(self, stage: str, **entries: Any) -> None:
        """Append one line to the log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"time": round(time.time(), 3), "stage": stage, **entries}) + "\n")

    def warn(self, stage: str, text: str) -> None:
        """Print a warning and append it to the log."""
        self.log(stage, warning=text)
        sys.stderr.write(f"neurocanvas: {text}\n")

    @property
    def uses_others(self) -> bool:
        """Whether trials of other subjects train."""
        protocol = self.settings.split.protocol
        return protocol != "auto" and PROTOCOLS[protocol].uses_others

    def settle_protocol(self, *, by_data: bool) -> None:
        """Replace the protocol "auto" by that of the run folder, or by what the data allow."""
        path, protocol, reason = self.folder / "run.toml", "auto", ""
        if self.settings.split.protocol == "auto":
            if path.is_file():
                protocol = load_settings(path).split.protocol
            if protocol == "auto" and self.settings.simulate is not None:
                protocol = CHOICES[0]
            elif protocol == "auto" and by_data:
                protocol, reason = choose_protocol(self.dataset, self.settings.split)
            if reason:
                self.warn("split", f"split.protocol is {protocol}; not {CHOICES[0]}: {reason}")
            split = self.settings.split.model_copy(update={"protocol": protocol})
            object.__setattr__(self, "settings", self.settings.model_copy(update={"split": split}))

    @cached_property
    def dataset(self) -> Trials:
        """Trials of the data set, of all subjects that are open; simulated data are in the run folder."""
        from neurocanvas.data import open_trials
        from neurocanvas.data.montage import BANDS
        from neurocanvas.features.differential_entropy import usable_bands

        if self.trials is not None:
            return self.trials
        data = self.settings.data
        if self.uses_others:
            data = data.model_copy(update={"subjects": ()})
        if self.settings.simulate is not None:
            data = data.model_copy(update={"root": str(self.folder / "data")})
        trials = open_trials(data)
        if len(trials) == 0:
            raise NeuroCanvasError(
                f"{data.root}: no trials of subjects {data.subjects or 'all'}, granularity {data.granularity}."
            )
        bands = self.settings.features.bands or BANDS
        lost = [f"{name} ({low:g}-{high:g} Hz)" for name, (low, high) in bands.items()
                if name not in usable_bands(bands, trials.spec)]  # fmt: skip
        found = (finding("bands-left-out", names=", ".join(lost)),) if lost else ()
        return replace(trials, findings=(*trials.findings, *found))

    @property
    def images(self) -> Images:
        """The stimulus images of the data set."""
        if self.dataset.images is None:
            raise NeuroCanvasError(
                "trials: they have no images, which captions, embeddings and generation need; set "
                "data.recording.pictures, or pass images= to the function that makes the trials."
            )
        return self.dataset.images

    @cached_property
    def opened(self) -> dict[str, Trials]:
        """Trials of every open subject: test subjects, and subjects of the training sets."""
        subjects = self.dataset.column("subject")
        return {subject: self.dataset[subjects == subject] for subject in unique_names(subjects)}

    @cached_property
    def subjects(self) -> dict[str, Trials]:
        """Trials of every test subject; by default all that the protocol can test."""
        selected = [check_option("subject", subject, self.opened) for subject in self.settings.data.subjects]
        tested = selected or testable_subjects(self.dataset, self.settings.split.protocol)
        return {subject: trials for subject, trials in self.opened.items() if subject in tested}

    def pool(self, subject: str) -> Trials:
        """Trials that a subject's split divides."""
        protocol, trials = self.settings.split.protocol, self.dataset
        if protocol == "leave-session-out":
            check_sessions(trials, np.flatnonzero(trials.column("subject") == subject), protocol)
        return trials if self.uses_others else self.subjects[subject]

    def split(self, subject: str, within: str = "", granularity: str = "") -> Split:
        """A subject's split of all trials or those of a granularity, made once and stored; `within` is
        "<protocol>/<granularity>" if these differ from the run's."""
        path, pool = self.folder / "splits" / within / f"{subject}.json", self.pool(subject)
        if not path.is_file():
            trials = pool[granularity_rows(pool, granularity)] if granularity else pool
            content = make_split(trials, settings=self.settings.split, subject=subject).to_dict()
            content["trials"] = _identity(pool)
            artifacts.write_json(path, {"fingerprint": artifacts.fingerprint(content), **content})  # for `verify`
        content = artifacts.read_json(path, "a split")
        if isinstance(content, dict) and content.get("trials", _identity(pool)) != _identity(pool):
            raise NeuroCanvasError(  # trials may have other names now, and test images would train
                f"{path}: the trials of subject {subject} are not those that were split: the data have changed; start "
                "another run folder (-o)."
            )
        return Split.from_dict(content, pool)

    @cached_property
    def stimuli(self) -> list[str]:
        """Stimuli of all trials in alphabetical order, which is that of captions and embeddings."""
        _ = self.images  # raises, and says who needs them, where there are none
        return [str(name) for name in np.unique(self.dataset.column("image"))]

    def path(self, kind: Artifact, of: str, fold: int = 0, encoder: str = "", repetition: int = 0) -> Path:
        """Path of a subject's features, decoder of a fold or predictions, or of the embeddings of a target space."""
        encoder = (encoder or self.settings.encoder.name).replace(":", "_")
        again = f"_seed{repetition}" if repetition else ""
        names: dict[Artifact, str] = {
            "features": f"{self.settings.data.features_folder}/s{of}_de.npy",  # a folder per granularity
            "embeddings": f"targets/{'clip_embeddings' if of == 'clip-text' else of}.npy",  # a row per image
            "decoder": f"models/{encoder}_s{of}_fold{fold}{again}_model.safetensors",
            "predictions": f"predictions/s{of}.npy",
        }
        return self.folder / names[kind]

    def targets(self, target: str = "") -> np.ndarray:
        """Memory-map the embeddings of a target space, by default the one that encoders predict."""
        path = self.path("embeddings", target or self.settings.embed.target)
        embeddings = artifacts.read_array(path, "embeddings; run `neurocanvas embed`")
        if artifacts.read_sidecar(path).get("stimuli") != self.stimuli:
            raise NeuroCanvasError(
                f"{path}: made for other stimuli; run `neurocanvas caption` and `neurocanvas embed` again."
            )
        return embeddings


def _identity(trials: Trials) -> str:
    """Hash of what a split rests on: the trials' names, subjects, sessions, runs, blocks, images and concepts."""
    columns = {name: trials.column(name).tolist() for name in trials.metadata if name != "onset"}
    return artifacts.fingerprint(trials.names.tolist(), columns)


@lru_cache(maxsize=8)
def _in_worker(folder: str, settings: str) -> RunFolder:
    """The run of an unpickled folder and settings; a worker reuses its open data."""
    return RunFolder(Path(folder), RunSettings.model_validate_json(settings))


def write_table(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns as CSV, atomically, without cells that a spreadsheet reads as formulas."""
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    artifacts.write_text(path, csv_text([list(columns), *rows]))


def write_picture(path: Path, picture: np.ndarray, about: Mapping[str, Any] | None = None) -> None:
    """Write a PNG atomically, with `about` as JSON in its metadata under "neurocanvas"."""
    from PIL import Image, PngImagePlugin

    stream, metadata = io.BytesIO(), PngImagePlugin.PngInfo()
    if about is not None:
        metadata.add_text("neurocanvas", json.dumps(about, sort_keys=True))
    Image.fromarray(picture).save(stream, format="PNG", pnginfo=metadata)
    artifacts.write_text(path, stream.getvalue())


def read_pictures(paths: Iterable[Path], size: tuple[int, int] | None = None) -> np.ndarray:
    """Read PNGs of the run, or images from other sources in one size, as (n, height, width, 3), uint8."""
    if size is not None:
        from neurocanvas.audit import external

        return external.read_pictures([*paths], size)
    pictures = []
    for path in paths:
        with open_picture(path, "delete it and run `neurocanvas generate` again") as image:
            pictures.append(np.asarray(as_shown(image)))
    return np.stack(pictures)
