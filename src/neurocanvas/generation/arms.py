"""From predictions to conditions of the generator: one entry per arm."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.pretrained import batches

# Start of a drawing: the name of a stimulus, or a small image.
Start = str | np.ndarray

# Targets compared with the predictions per batch; sets memory, not results.
AT_ONCE = 200


@dataclass(frozen=True)
class ArmInputs:
    """What an arm makes conditions from, for some of a subject's trials; arrays of trials are float32."""

    predicted: np.ndarray  # (n_trials, 77, 768) or (n_trials, 1, width): the encoder's, compared with targets
    rescaled: np.ndarray  # as `predicted`, stretched for the generator; where the arm is deranged, of other trials
    mean: np.ndarray  # as `predicted`: mean training target of each trial's fold
    true: np.ndarray  # (n_trials, 77, 768) or as `predicted`, see `Arm.space`: embedding of the image seen
    seeds: np.ndarray  # (n_trials,), for arms that draw at random
    targets: np.ndarray  # (n_stimuli, 77, 768) or (n_stimuli, 1, width): what the encoder learned to predict
    embeddings: np.ndarray  # as `true`, (n_stimuli, ...)
    known: np.ndarray  # bool, (n_trials, n_stimuli): trained the trial's fold; only these may be retrieved
    target_concept: np.ndarray  # (n_stimuli,)
    stimuli: np.ndarray  # (n_stimuli,), names
    embed_concepts: Callable[[list[str]], np.ndarray]  # concepts -> embeddings of their names, (n, 77, 768)
    sketch: Callable[[], np.ndarray]  # predicted small images, (n_trials, side, side, 3), uint8

    @cached_property
    def nearest(self) -> np.ndarray:
        """Row of the training stimulus whose target is nearest to each prediction, (n_trials,)."""
        found = np.empty(len(self.predicted), np.int64)
        for trials, known in self._folds():
            found[trials] = known[self._nearest(trials, self.targets, known)]
        return found

    @cached_property
    def named(self) -> np.ndarray:
        """Concept whose mean training target is nearest to each prediction, (n_trials,)."""
        found = np.empty(len(self.predicted), self.target_concept.dtype)
        for trials, known in self._folds():
            concepts, code = np.unique(self.target_concept[known], return_inverse=True)
            means = np.zeros((len(concepts), *self.mean.shape[1:]), np.float32)
            for row, concept in zip(known, code, strict=True):
                means[concept] += self.targets[row]
            means /= np.bincount(code)[:, None, None]
            found[trials] = concepts[self._nearest(trials, means, np.arange(len(concepts)))]
        return found

    def _folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per fold: its trials, and the rows of the stimuli that trained it."""
        known, fold = np.unique(self.known, axis=0, return_inverse=True)
        return [(np.flatnonzero(fold.reshape(-1) == n), np.flatnonzero(row)) for n, row in enumerate(known)]

    def _nearest(self, trials: np.ndarray, candidates: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Index in `rows` of the candidate most like each prediction, by cosine around the mean target: (n,)."""
        mean = self.mean[trials[0]].reshape(-1)
        predicted = self.predicted[trials].reshape(len(trials), -1) - mean
        cosines = np.empty((len(trials), len(rows)), np.float32)
        for part in batches(len(rows), AT_ONCE):
            directions = np.asarray(candidates[rows[part]], np.float32).reshape(part.stop - part.start, -1) - mean
            norms = np.linalg.norm(directions, axis=1)
            cosines[:, part] = predicted @ directions.T / np.maximum(norms, np.finfo(np.float32).tiny)
        return cosines.argmax(axis=1)


def image_seed(seed: int, arm: str, subject: str | int, trial: int) -> int:
    """Seed (below 2^63) of one image's noise: depends on run, arm, subject and trial, never on the batch."""
    name = f"{seed}/{arm}/{subject}/{trial}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1


def likeness(predicted: np.ndarray, candidates: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Cosine of predictions and candidates, (n, 77, 768), around the mean training target: (n,); 0 at the mean."""
    first, second = predicted - mean, candidates - mean
    norms = np.sqrt(np.square(first).sum(axis=(-2, -1)) * np.square(second).sum(axis=(-2, -1)))
    cosine: np.ndarray = np.sum(first * second, axis=(-2, -1)) / np.maximum(norms, np.finfo(np.float32).tiny)
    return cosine


LARGEST_GAIN = 4.0  # so that an encoder that predicts next to nothing is not blown up into confident images


def gain(target_sd: np.ndarray, prediction_sd: np.ndarray) -> float:
    """Factor by which predictions must be stretched around the mean to vary as much as targets: (k,), (k,) -> float."""
    # Least-squares predictions are shrunk towards the mean, and a generator makes the same washed-out image of all of
    # them. One factor for all coordinates keeps the prediction's direction. `prediction_sd` is of validation trials.
    predicted = float(np.sum(np.square(prediction_sd)))
    if predicted == 0:
        return 1.0
    return float(np.clip(np.sqrt(np.sum(np.square(target_sd)) / predicted), 1.0, LARGEST_GAIN))


def rescale(predicted: np.ndarray, mean: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Stretch predictions, (n, 77, 768), around the mean training target by `gains`, (n,)."""
    return np.asarray(mean + gains[:, None, None] * (predicted - mean), dtype=np.float32)


def token_norms(targets: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mean norm of every token over training targets: (n_stimuli, 77, 768) -> (77,)."""
    sums = np.zeros(targets.shape[1])
    for part in batches(len(known), AT_ONCE):
        sums += np.linalg.norm(np.asarray(targets[known[part]], np.float32), axis=2).sum(axis=0)
    return sums / len(known)


def match_norms(predicted: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Scale every token of (n, 77, 768) to the norm of training targets there, (n, 77)."""
    own = np.linalg.norm(predicted, axis=2)
    factors = norms / np.maximum(own, np.finfo(np.float32).tiny)
    return np.asarray(predicted * factors[..., None], dtype=np.float32)


def derangement(concept: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Draw a permutation without fixed points, (n,), that deals every concept an even mix of all concepts."""
    # Without the even mix, where few images are shown often, chance gives some too many predictions of their own kind
    # and the floor wanders. Even, it varies less than the permutations behind its p-value: a small p weighs the more.
    count = len(concept)
    if count < 2:
        raise NeuroCanvasError(f"arm shuffled: at least 2 trials per subject are needed; got {count}.")
    code = np.unique(concept, return_inverse=True)[1]
    sizes = np.bincount(code)
    rank = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within the concept, of trials in its order
    order = np.empty(count, dtype=np.int64)
    while True:  # nothing stays in its place with a probability of about 1/e
        takers, givers = rng.permutation(count), rng.permutation(count)
        takers, givers = (trials[np.argsort(code[trials], kind="stable")] for trials in (takers, givers))
        # Givers go in rounds: one trial of every concept, the next of every concept, ..., in proportion to its size.
        givers = givers[np.argsort((rank + rng.random(count)) / np.repeat(sizes, sizes))]
        order[takers] = givers
        if not np.any(order == np.arange(count)):
            return order


@dataclass(frozen=True)
class Arm:
    """One way of making images."""

    condition: Callable[[ArmInputs], np.ndarray]  # -> (n_trials, 77, 768)
    meaning: str = ""  # what its images are made from, for the report
    informed: bool = True  # knows something of the trial's EEG; the report ranks trials by the first such arm
    # Target space of its conditions: the encoder's, clip-text, or the encoder's if the generator accepts it.
    space: Literal["encoder", "clip-text", "either"] = "either"
    deranged: bool = False  # from the predictions for other trials, which `derangement` deals out
    start: Callable[[ArmInputs], list[Start]] | None = None  # None: from noise only
    of_images: bool = False  # made once per image, from `true`, whatever the EEG
    best_of: bool = False  # of several samples, take the one whose own caption's embedding is nearest to the prediction


def _random_training(inputs: ArmInputs) -> np.ndarray:
    """Embeddings of training stimuli drawn at random."""
    pairs = zip(inputs.seeds.tolist(), inputs.known, strict=True)
    rows = [np.random.default_rng(seed).choice(np.flatnonzero(known)) for seed, known in pairs]
    return np.asarray(inputs.embeddings[rows], np.float32)


# Every arm by name.
ARMS: dict[str, Arm] = {
    "eeg": Arm(
        lambda inputs: inputs.rescaled, "Made from what the encoder predicts from this trial's EEG.",
        space="encoder",
    ),
    "shuffled": Arm(
        lambda inputs: inputs.rescaled,
        "Made from the prediction for another trial of the same subject: the floor. What it scores above chance "
        "does not come from this trial's EEG.",
        informed=False, space="encoder", deranged=True,
    ),
    "mean": Arm(
        lambda inputs: inputs.mean,
        "Made from the mean of the training targets, the same for every trial: what knowing nothing looks like.",
        informed=False, space="encoder",
    ),
    "random": Arm(
        _random_training,
        "Made from the caption of a training image that is drawn at random, whatever the EEG says.",
        informed=False,
    ),
    "oracle": Arm(
        lambda inputs: inputs.true,
        "Made from the true target, the embedding of the seen image's own caption: the ceiling that the "
        "generator and the judge leave to any EEG.",
        informed=False,
    ),
    "retrieval": Arm(
        lambda inputs: np.asarray(inputs.embeddings[inputs.nearest], np.float32),
        "Made from the caption of the training image whose embedding is nearest to the prediction.",
    ),
    "class-name": Arm(
        lambda inputs: inputs.embed_concepts(inputs.named.tolist()),
        "Made from the words “a photo of a …” with the concept that is nearest to the prediction.",
        space="clip-text",
    ),
    "retrieved-start": Arm(
        lambda inputs: inputs.rescaled,
        "Made from the prediction, but drawn over the training image that is nearest to it.",
        space="encoder", start=lambda inputs: inputs.stimuli[inputs.nearest].tolist(),
    ),
    "sketched-start": Arm(
        lambda inputs: inputs.rescaled,
        "Made from the prediction, but drawn over a small image that ridge regression predicts.",
        space="encoder", start=lambda inputs: list(inputs.sketch()),
    ),
    "best-of": Arm(
        lambda inputs: inputs.rescaled,
        "Made from the prediction several times; the image whose own caption is nearest to it is chosen.",
        space="encoder", best_of=True,
    ),
    "caption": Arm(lambda inputs: inputs.true, space="clip-text", of_images=True),
}  # fmt: skip
