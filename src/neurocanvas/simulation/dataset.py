"""Simulated EEG-ImageNet: a file in the released layout with known content, and its images."""

from __future__ import annotations

import io
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.artifacts import fingerprint, sidecar_path
from neurocanvas.config import STAGE2_SUBJECTS, DataSettings, SimulateSettings
from neurocanvas.data.eeg_imagenet import STAGE2, STAGE2_RUNS, WHOLE, open_eeg_imagenet
from neurocanvas.data.images import IMAGENET_CONCEPTS, N_FINE, PICTURES_FOLDER
from neurocanvas.data.montage import CH_NAMES
from neurocanvas.data.trials import Trials
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.simulation import eeg
from neurocanvas.simulation.eeg import N_TIMES
from neurocanvas.simulation.images import CODE_NAMES, CONCEPTS, Drawing, render, sample_drawing
from neurocanvas.targets.pretrained import batches

CONCEPT_DIMENSIONS = 10  # standard normal numbers per concept, from the seed and the wnid

# Parameters of a drawing that the simulated brain responds to, beside its concept.
DRAWING_PARAMETERS = {
    "colour": ("colour_red", "colour_green", "colour_blue"),
    "background": ("background_red", "background_green", "background_blue"),
    "pose": ("size", "sin_angle", "x", "y"),
}

GROUPS = ("concept",) * CONCEPT_DIMENSIONS + tuple(group for group, names in DRAWING_PARAMETERS.items() for _ in names)
_SEEN = [CODE_NAMES.index(name) for names in DRAWING_PARAMETERS.values() for name in names]
PICTURE_PIXELS = 64
_BATCH = 50
# Share of every concept's images that the first pass of stage 2 shows: 30 of 50 in the released data.
FIRST_PASS = 0.6

_VERSION = 6  # of the simulation: raise it when the same settings give other bytes


@dataclass(frozen=True)
class _Recording:
    """One visit of a subject: its id in the file, and the stimuli in the order shown, per pass (key: `stage`)."""

    subject: int
    day: int
    written_as: int
    passes: dict[int, np.ndarray]

    @property
    def order(self) -> np.ndarray:
        return np.concatenate(list(self.passes.values()))


@dataclass(frozen=True)
class _Stimulus:
    """One image: file name, concept, the parameters that the brain responds to, and its drawing if there is one."""

    name: str
    wnid: str
    parameters: np.ndarray
    drawing: Drawing | None


def simulate(settings: SimulateSettings, root: Path | str, *, progress: Callable[[int], None] = lambda _: None) -> Path:
    """Write a simulated data set in the released layout: the EEG files, the images and `synset_map_en.txt`."""
    # The same settings give the same bytes on the same machine. A subject depends on the seed and its number only, and
    # the noise of a trial on its index in the recording.
    folder = Path(root)
    paths = [folder / name for name in (WHOLE, STAGE2)[: settings.stages]]
    inputs = fingerprint(settings, _VERSION)
    stimuli = draw_stimuli(settings)
    beside = _files_beside(folder, stimuli)
    done = all(artifacts.is_cached(path, inputs) for path in paths) and (
        settings.stages == 2 or not (folder / STAGE2).exists()
    )
    if done and artifacts.read_sidecar(paths[0]).get("beside") == _file_hash(beside):
        return paths[0]
    for path in (folder / WHOLE, folder / STAGE2):
        if path.exists() and not sidecar_path(path).is_file():  # only simulated files have a sidecar
            raise NeuroCanvasError(f"{path}: exists and was not simulated; name another folder, it is not overwritten.")
    for path, content in beside.items():
        artifacts.write_text(path, content())
    written = _file_hash(beside)
    if done:
        return paths[0]
    for path in (folder / STAGE2, sidecar_path(folder / STAGE2)):  # of an earlier simulation
        path.unlink(missing_ok=True)
    for path, recordings in zip(paths, (_recordings(settings, 1), _recordings(settings, 2))):
        shape = (sum(len(recording.order) for recording in recordings), len(CH_NAMES), N_TIMES)
        with tempfile.TemporaryFile(dir=folder) as stream:  # 16 subjects are 8 GB, which torch.save wants at once
            # a full disk is an error here, and a crash where mapped memory is written
            os.posix_fallocate(stream.fileno(), 0, 4 * math.prod(shape))
            signal, start = np.memmap(stream, dtype=np.float32, mode="w+", shape=shape), 0
            reached = set()
            for share, batch in _signals(settings, stimuli, recordings):
                reached.add(share)
                signal[start : start + len(batch)] = batch
                start += len(batch)
                progress(len(batch))
            sidecar = {
                "simulated": settings.model_dump(mode="json"), "n_trials": shape[0], "beside": written,
                "reached": min(reached, default=0.0),
            }  # fmt: skip
            artifacts.write_json(
                sidecar_path(path), sidecar
            )  # first, so that the file of a killed run counts as simulated
            artifacts.write_torch(path, _content(signal, stimuli, recordings), keep_sidecar=True)
        artifacts.write_sidecar(path, inputs, sidecar)
    return paths[0]


def open_simulated(root: Path, settings: DataSettings) -> Trials:
    """Open simulated data; any other folder is refused, so that real trials never count as simulated ones."""
    if not sidecar_path(root / WHOLE).is_file():
        raise NeuroCanvasError(
            f"{root}: no simulated data in it; `neurocanvas simulate -o {root}` makes them. Released files are the "
            "data set eeg-imagenet."
        )
    return open_eeg_imagenet(root, settings)


def draw_stimuli(settings: SimulateSettings) -> list[_Stimulus]:
    """Images of every concept, the same for all subjects and stages."""
    # colour and pose are standardised over many drawings
    rng = np.random.default_rng(0)
    codes = np.array([sample_drawing(wnid, rng=rng).code()[_SEEN] for wnid in CONCEPTS for _ in range(40)])
    mean, scale = codes.mean(axis=0), codes.std(axis=0)
    # the 18 drawn concepts come first; the others have random parameters and no images
    wnids, stimuli = [*CONCEPTS, *(wnid for wnid in IMAGENET_CONCEPTS if wnid not in CONCEPTS)], []
    for wnid in wnids[: settings.concepts]:
        rng = np.random.default_rng([settings.seed, 10, int(wnid[1:])])
        code = rng.standard_normal(CONCEPT_DIMENSIONS)
        numbers = rng.choice(20000, settings.trials_per_concept, replace=False)
        for number in numbers:
            drawing = sample_drawing(wnid, rng=rng) if wnid in CONCEPTS else None
            rest = rng.standard_normal(len(_SEEN)) if drawing is None else (drawing.code()[_SEEN] - mean) / scale
            stimuli.append(_Stimulus(f"{wnid}_{number}.JPEG", wnid, np.concatenate([code, rest]), drawing))
    return stimuli


def _recordings(settings: SimulateSettings, stage: int) -> list[_Recording]:
    """Visits of stage 1: one pass with all images; of stage 2: two passes with different images."""
    n_each, recordings = settings.trials_per_concept, []
    stimuli = np.arange(settings.concepts * n_each).reshape(settings.concepts, n_each)
    if stage == 1:
        for subject in range(settings.subjects):
            order = _draw_order(settings, stimuli, np.random.default_rng([settings.seed, 11, subject, 0]))
            if settings.incomplete and subject == settings.subjects - 1:
                order = order[order // n_each != order[-1] // n_each]
            recordings.append(_Recording(subject, 0, subject, {0: order}))
        return recordings
    first = min(max(1, round(FIRST_PASS * n_each)), n_each - 1)
    for written_as, subject in STAGE2_SUBJECTS.items():
        if subject < settings.subjects:
            rng = np.random.default_rng([settings.seed, 11, subject, 1])
            shown = np.split(rng.permuted(stimuli, axis=1), [first], axis=1)
            passes = {run: _draw_order(settings, images, rng) for run, images in zip(STAGE2_RUNS, shown)}
            recordings.append(_Recording(subject, 1, written_as, passes))
    return recordings


def _draw_order(settings: SimulateSettings, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Order of the stimuli in one pass; `images` has one row per concept."""
    shown = np.repeat(images, settings.repeats, axis=1)
    if settings.design == "rapid":
        return rng.permutation(shown.reshape(-1))
    return np.concatenate([rng.permutation(shown[concept]) for concept in rng.permutation(len(shown))])


def _signals(
    settings: SimulateSettings, stimuli: list[_Stimulus], recordings: list[_Recording]
) -> Iterator[tuple[float, np.ndarray]]:
    """Explained variance that a subject reaches, and signal in batches, (n, n_chans, n_times), volts."""
    parameters = np.array([stimulus.parameters for stimulus in stimuli])
    for recording in recordings:
        subject, day, order = recording.subject, recording.day, recording.order
        brain = eeg.make_brain(
            settings.seed, subject, GROUPS, parameters, settings.explained_variance, settings.response
        )
        if day:
            brain = eeg.on_another_day(brain, rng=np.random.default_rng([settings.seed, 12, subject, day]))
        drift = eeg.draw_drift(brain, len(order), rng=np.random.default_rng([settings.seed, 13, subject, day]))
        for rows in batches(len(order), _BATCH):
            trials = range(rows.start, rows.stop)
            rngs = [np.random.default_rng([settings.seed, 14, subject, day, trial]) for trial in trials]
            yield brain.reached, eeg.record(brain, drift.rows(rows), parameters[order[rows]], rngs=rngs)


def _content(signal: np.ndarray, stimuli: list[_Stimulus], recordings: list[_Recording]) -> dict[str, Any]:
    """Content of a released file."""
    from torch import from_numpy

    fine = set(list(IMAGENET_CONCEPTS)[:N_FINE])
    shown = [
        (recording, stage, stimuli[index])
        for recording in recordings
        for stage, order in recording.passes.items()
        for index in order
    ]
    records: list[dict[str, Any]] = []
    for trial, (recording, stage, stimulus) in enumerate(shown):
        records.append({
            # a row of the memory map is a storage of its own size, so the archive holds each trial once
            "eeg_data": from_numpy(signal[trial]), "granularity": "fine" if stimulus.wnid in fine else "coarse",
            "subject": recording.written_as, "label": stimulus.wnid, "image": stimulus.name,
            "order": trial,
        })  # fmt: skip
        if recording.day:
            records[-1]["stage"] = stage
    images = [stimulus.name for stimulus in stimuli]
    return {"dataset": records, "labels": list(IMAGENET_CONCEPTS), "images": images}


def _jpeg(drawing: Drawing) -> bytes:
    """Encode a drawing as JPEG without colour subsampling, because captions name colours."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(render(drawing, PICTURE_PIXELS)).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def _files_beside(folder: Path, stimuli: list[_Stimulus]) -> dict[Path, Callable[[], bytes]]:
    """Path -> function that returns the content, for concept names and images."""
    names = "".join(f"{wnid}\t{name}\n" for wnid, name in IMAGENET_CONCEPTS.items())
    drawn = {
        folder / PICTURES_FOLDER / stimulus.wnid / stimulus.name: partial(_jpeg, stimulus.drawing)
        for stimulus in stimuli if stimulus.drawing is not None
    }  # fmt: skip
    return {folder / "synset_map_en.txt": names.encode, **drawn}


def _file_hash(files: Iterable[Path]) -> str:
    return fingerprint([artifacts.sha256(path) if path.is_file() else None for path in files])
