"""Simulated EEG-ImageNet: a file in the released layout whose content is known, and the pictures it was made from."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from neurocanvas.config import SimulateSettings
from neurocanvas.datasets import brain
from neurocanvas.datasets.pictures import CODE_NAMES, CONCEPTS, Drawing, render, sample_drawing
from neurocanvas.datasets.rhythms import N_TIMES
from neurocanvas.datasets.stimuli import IMAGENET_CONCEPTS, N_FINE, PICTURES_FOLDER
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.montage import CH_NAMES
from neurocanvas.store import atomic, card_path, fingerprint, finish, is_done, read_card, write_text

CONCEPT_DIMENSIONS = 10
"""Length of a concept's code: independent standard normal numbers drawn from the seed and the wnid."""

DRAWING_PARAMETERS = {
    "colour": ("colour_red", "colour_green", "colour_blue"),
    "background": ("background_red", "background_green", "background_blue"),
    "pose": ("size", "sin_angle", "x", "y"),
}
"""The parameters of a drawing that the simulated brain sees, beside its concept."""

GROUPS = ("concept",) * CONCEPT_DIMENSIONS + tuple(g for g, names in DRAWING_PARAMETERS.items() for _ in names)
_SEEN = [CODE_NAMES.index(name) for names in DRAWING_PARAMETERS.values() for name in names]
PICTURE_PIXELS = 64
_BATCH = 50
_VERSION = 3  # of the simulation: raise it when the same settings give other bytes


@dataclass(frozen=True)
class _Stimulus:
    """One picture: its file name, its concept, what the brain sees of it, and its drawing where there is one."""

    name: str
    wnid: str
    parameters: np.ndarray
    drawing: Drawing | None


def simulate(
    settings: SimulateSettings, root: Path | str, *, progress: Callable[[int], None] = lambda _: None
) -> Path:
    """Write a simulated data set: `EEG-ImageNet.pth`, the pictures and `synset_map_en.txt`.

    Log band power and evoked amplitude of occipito-temporal sources are linear in the standardised parameters of the
    picture (a code for its concept, colour, pose) from 50 ms after onset on; `brain` says how, and how
    `settings.explained_variance` sets the strength. The file has the released layout: a dictionary of `dataset`
    (a list of dictionaries of `eeg_data`, float32, (62, 501), volts, 1000 Hz; `granularity`; `subject`; `label`;
    `image`; with two stages also `stage`), `labels` and `images`.

    Parameters
    ----------
    settings : SimulateSettings
        Design, size, strength and seed. Up to 18 concepts are drawn ones; those beyond them have random
        parameters in the file and no pictures.
    root : path-like
        Folder to write to; it is made if it is not there.
    progress : callable
        Called with the number of trials of every batch that is done.

    Returns
    -------
    Path
        The EEG file. If it is there already, from the same settings and undamaged, nothing is done.

    Raises
    ------
    NeuroCanvasError
        If `root` holds an EEG-ImageNet file that was not simulated: it is not overwritten.

    Notes
    -----
    The same settings give the same bytes on the same machine. A subject depends on the seed and its number alone, and a
    trial's noise on its place in the recording, not on how many others there are. Signal is written to
    an unnamed scratch file in `root` first, so memory holds one batch, and a killed run leaves nothing behind.
    """
    folder = Path(root)
    path = folder / "EEG-ImageNet.pth"
    inputs = fingerprint(settings, _VERSION)
    if is_done(path, inputs):
        return path
    if path.exists() and not (card_path(path).is_file() and "simulated" in read_card(path)):
        raise NeuroCanvasError(f"{path}: exists and was not simulated; name another folder, it is not overwritten.")
    folder.mkdir(parents=True, exist_ok=True)
    stimuli = _draw_stimuli(settings)
    write_text(folder / "synset_map_en.txt", "".join(f"{wnid}\t{name}\n" for wnid, name in IMAGENET_CONCEPTS.items()))
    for stimulus in stimuli:
        _write_picture(stimulus, folder)
    orders = [
        (subject, stage, _draw_order(settings, subject, stage))
        for subject in range(settings.subjects)
        for stage in range(settings.stages)
    ]
    shape = (sum(len(order) for *_, order in orders), len(CH_NAMES), N_TIMES)
    with tempfile.TemporaryFile(dir=folder) as scratch:
        signal = np.memmap(scratch, dtype=np.float32, mode="w+", shape=shape)
        start = 0
        for part in _signals(settings, stimuli, orders):
            signal[start : start + len(part)] = part
            start += len(part)
            progress(len(part))
        with atomic(path) as temporary, temporary.open("wb") as stream:
            _save(stream, signal, stimuli, orders, settings)
    finish(path, inputs, {"simulated": settings.model_dump(mode="json"), "n_trials": shape[0]})
    return path


def chosen_concepts(n_concepts: int) -> tuple[str, ...]:
    """Return the concepts of a simulation: the drawn ones first, then the others in the order of the released labels.

    Parameters
    ----------
    n_concepts : int
        How many, at most 80.

    Returns
    -------
    tuple of str
        Their wnids.

    Examples
    --------
    >>> chosen_concepts(2)
    ('n02690373', 'n03063599')
    """
    others = [wnid for wnid in IMAGENET_CONCEPTS if wnid not in CONCEPTS]
    return (*CONCEPTS, *others)[:n_concepts]


def _draw_stimuli(settings: SimulateSettings) -> list[_Stimulus]:
    """Pictures of every concept, the same for all subjects and stages."""
    mean, scale = _parameter_moments()
    stimuli = []
    for wnid in chosen_concepts(settings.concepts):
        rng = np.random.default_rng([settings.seed, 10, int(wnid[1:])])
        code = rng.standard_normal(CONCEPT_DIMENSIONS)
        numbers = rng.choice(20000, settings.trials_per_concept, replace=False)
        for number in numbers:
            drawing = sample_drawing(wnid, rng=rng) if wnid in CONCEPTS else None
            rest = rng.standard_normal(len(_SEEN)) if drawing is None else (drawing.code()[_SEEN] - mean) / scale
            stimuli.append(_Stimulus(f"{wnid}_{number}.JPEG", wnid, np.concatenate([code, rest]), drawing))
    return stimuli


def _parameter_moments() -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of colour and pose over the drawn world, by which parameters are standardised."""
    rng = np.random.default_rng(0)
    codes = np.array([sample_drawing(wnid, rng=rng).code()[_SEEN] for wnid in CONCEPTS for _ in range(40)])
    return codes.mean(axis=0), codes.std(axis=0)


def _draw_order(settings: SimulateSettings, subject: int, stage: int) -> np.ndarray:
    """Indices of the stimuli in the order of one recording."""
    rng = np.random.default_rng([settings.seed, 11, subject, stage])
    n_concepts, n_each = settings.concepts, settings.trials_per_concept
    if settings.design == "rapid":
        return rng.permutation(np.repeat(np.arange(n_concepts * n_each), settings.repeats))
    block = np.repeat(np.arange(n_each), settings.repeats)
    return np.concatenate([concept * n_each + rng.permutation(block) for concept in rng.permutation(n_concepts)])


def _signals(
    settings: SimulateSettings, stimuli: list[_Stimulus], orders: list[tuple[int, int, np.ndarray]]
) -> Iterator[np.ndarray]:
    """Signal of all recordings, in batches of trials, volts."""
    parameters = np.array([stimulus.parameters for stimulus in stimuli])
    for subject, stage, order in orders:
        person = brain.make_brain(settings.seed, subject, GROUPS, parameters, settings.explained_variance)
        if stage:
            person = brain.on_another_day(person, rng=np.random.default_rng([settings.seed, 12, subject, stage]))
        drift = brain.draw_drift(person, len(order), rng=np.random.default_rng([settings.seed, 13, subject, stage]))
        for start in range(0, len(order), _BATCH):
            rows = slice(start, min(start + _BATCH, len(order)))
            rngs = [
                np.random.default_rng([settings.seed, 14, subject, stage, trial])
                for trial in range(rows.start, rows.stop)
            ]
            yield brain.record(person, drift.rows(rows), parameters[order[rows]], rngs=rngs)


def _save(
    stream: IO[bytes],
    signal: np.ndarray,
    stimuli: list[_Stimulus],
    orders: list[tuple[int, int, np.ndarray]],
    settings: SimulateSettings,
) -> None:
    """Write the file in the released layout."""
    import torch

    fine = set(list(IMAGENET_CONCEPTS)[:N_FINE])
    shown = [(subject, stage, stimuli[index]) for subject, stage, order in orders for index in order]
    records = []
    for trial, (subject, stage, stimulus) in enumerate(shown):
        record = {
            # A row of the memory map is a storage of its own size, so the archive holds each trial once.
            "eeg_data": torch.from_numpy(signal[trial]),
            "granularity": "fine" if stimulus.wnid in fine else "coarse",
            "subject": subject,
            "label": stimulus.wnid,
            "image": stimulus.name,
        }
        records.append({**record, "stage": stage + 1} if settings.stages > 1 else record)
    content = {
        "dataset": records,
        "labels": list(IMAGENET_CONCEPTS),
        "images": [stimulus.name for stimulus in stimuli],
    }
    # To a stream, not to a path: torch writes a path's name into the archive, and here that is a temporary one.
    torch.save(content, stream)


def _write_picture(stimulus: _Stimulus, folder: Path) -> None:
    """Write the JPEG of a drawn stimulus; colours are kept at full resolution, because captions speak of them."""
    if stimulus.drawing is None:
        return
    from PIL import Image

    with atomic(folder / PICTURES_FOLDER / stimulus.wnid / stimulus.name) as temporary:
        Image.fromarray(render(stimulus.drawing, PICTURE_PIXELS)).save(temporary, "JPEG", quality=95, subsampling=0)
