"""Arms: ways of making the generator's conditions from predictions. The report describes them in `report/text.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.pretrained import batches

# An image that generation starts from: the name of a stimulus, or a small image.
Start = str | np.ndarray

# Targets per batch; bounds memory, changes no result.
AT_ONCE = 200


@dataclass(frozen=True)
class ArmInputs:
    """Inputs of an arm for some of a subject's trials; arrays of trials are float32."""

    predicted: np.ndarray  # (n_trials, 77, 768) or (n_trials, 1, width): the encoder's output
    rescaled: np.ndarray  # as `predicted`, rescaled for the generator; of other trials for a deranged arm
    mean: np.ndarray  # as `predicted`: mean training target of the trial's fold
    true: np.ndarray  # (n_trials, 77, 768) or as `predicted`, see `Arm.space`: embedding of the seen image
    seeds: np.ndarray  # (n_trials,), for arms that draw at random
    targets: np.ndarray  # (n_stimuli, 77, 768) or (n_stimuli, 1, width): the encoder's targets
    embeddings: np.ndarray  # as `true`, (n_stimuli, ...)
    trained: np.ndarray  # bool, (n_trials, n_stimuli): trained the trial's fold; only these may be retrieved
    target_concept: np.ndarray  # (n_stimuli,)
    stimuli: np.ndarray  # (n_stimuli,), names
    embed_concepts: Callable[[list[str]], np.ndarray]  # concepts -> embeddings of their names, (n, 77, 768)
    sketch: Callable[[], np.ndarray]  # predicted small images, (n_trials, side, side, 3), uint8

    @cached_property
    def nearest(self) -> np.ndarray:
        """Row of the training stimulus whose target is nearest to each prediction, (n_trials,)."""
        nearest = np.empty(len(self.predicted), np.int64)
        for trials, rows in self._folds():
            nearest[trials] = rows[self._nearest(trials, self.targets, rows)]
        return nearest

    @cached_property
    def named(self) -> np.ndarray:
        """Concept whose mean training target is nearest to each prediction, (n_trials,)."""
        named = np.empty(len(self.predicted), self.target_concept.dtype)
        for trials, rows in self._folds():
            concepts, code = np.unique(self.target_concept[rows], return_inverse=True)
            means = np.zeros((len(concepts), *self.mean.shape[1:]), np.float32)
            for row, concept in zip(rows, code, strict=True):  # one at a time, because all targets may not fit
                means[concept] += self.targets[row]
            means /= np.bincount(code)[:, None, None]
            named[trials] = concepts[self._nearest(trials, means, np.arange(len(concepts)))]
        return named

    def _folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Trials of each fold, and the rows of its training stimuli."""
        trained, fold = np.unique(self.trained, axis=0, return_inverse=True)
        return [(np.flatnonzero(fold.reshape(-1) == n), np.flatnonzero(mask)) for n, mask in enumerate(trained)]

    def _nearest(self, trials: np.ndarray, candidates: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Index in `rows` of the candidate nearest to each prediction, by cosine around the mean target: (n,)."""
        mean = self.mean[trials[0]].reshape(-1)
        predicted = self.predicted[trials].reshape(len(trials), -1) - mean
        cosines = np.empty((len(trials), len(rows)), np.float32)
        for batch in batches(len(rows), AT_ONCE):
            directions = np.asarray(candidates[rows[batch]], np.float32).reshape(batch.stop - batch.start, -1) - mean
            norms = np.linalg.norm(directions, axis=1)
            cosines[:, batch] = predicted @ directions.T / np.maximum(norms, np.finfo(np.float32).tiny)
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


LARGEST_GAIN = 4.0  # an encoder that predicts next to nothing must not give confident images


def gain(target_sd: np.ndarray, prediction_sd: np.ndarray) -> float:
    """Factor that makes predictions vary as much as targets around the mean: (k,), (k,) -> float."""
    # Least squares shrinks predictions towards the mean, and a generator turns them all into the same washed-out
    # image. One factor for all coordinates keeps their direction. `prediction_sd` comes from validation trials.
    predicted = float(np.sum(np.square(prediction_sd)))
    if predicted == 0:
        return 1.0
    return float(np.clip(np.sqrt(np.sum(np.square(target_sd)) / predicted), 1.0, LARGEST_GAIN))


def rescale(predicted: np.ndarray, mean: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Stretch predictions, (n, 77, 768), around the mean training target by `gains`, (n,)."""
    return np.asarray(mean + gains[:, None, None] * (predicted - mean), dtype=np.float32)


def token_norms(targets: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Mean norm of every token over the training targets, rows `trained` of (n_stimuli, 77, 768): (77,)."""
    sums = np.zeros(targets.shape[1])
    for batch in batches(len(trained), AT_ONCE):
        sums += np.linalg.norm(np.asarray(targets[trained[batch]], np.float32), axis=2).sum(axis=0)
    return sums / len(trained)


def match_norms(predicted: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Scale every token of (n, 77, 768) to the norm of training targets there, (n, 77)."""
    factors = norms / np.maximum(np.linalg.norm(predicted, axis=2), np.finfo(np.float32).tiny)
    return np.asarray(predicted * factors[..., None], dtype=np.float32)


def derangement(concept: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Draw a permutation without fixed points, (n,), that gives every concept an even mix of all concepts."""
    # Without the even mix, a design of few images gives some of them many predictions of their own concept by chance,
    # and the noise floor varies from seed to seed. With it, the floor varies less than the permutations of its p-value.
    count = len(concept)
    if count < 2:
        raise NeuroCanvasError(f"arm shuffled: at least 2 trials per subject are needed; got {count}.")
    code = np.unique(concept, return_inverse=True)[1]
    sizes = np.bincount(code)
    rank = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within its concept
    order = np.empty(count, dtype=np.int64)
    while True:  # about one draw in e has no fixed point
        targets, sources = rng.permutation(count), rng.permutation(count)
        targets, sources = (trials[np.argsort(code[trials], kind="stable")] for trials in (targets, sources))
        # Sources go in rounds: one trial of every concept, then the next, in proportion to the concept's size.
        order[targets] = sources[np.argsort((rank + rng.random(count)) / np.repeat(sizes, sizes))]
        if not np.any(order == np.arange(count)):
            return order


@dataclass(frozen=True)
class Arm:
    """One way of making images."""

    condition: Callable[[ArmInputs], np.ndarray]  # -> (n_trials, 77, 768)
    meaning: str = ""  # sentence for the report, of an arm that `report/text.py` does not describe
    informed: bool = True  # depends on the trial's EEG; the report ranks trials by the first such arm
    # Target space of its conditions: the encoder's, clip-text, or the encoder's if the generator accepts it.
    space: Literal["encoder", "clip-text", "either"] = "either"
    deranged: bool = False  # from predictions for other trials, see `derangement`
    start: Callable[[ArmInputs], list[Start]] | None = None  # images to start from; None: noise only
    of_images: bool = False  # one image per stimulus, from `true`, without EEG
    best_of: bool = False  # of several samples, takes the one whose caption's embedding is nearest to the prediction


def _random_training(inputs: ArmInputs) -> np.ndarray:
    """Embeddings of training stimuli drawn at random."""
    pairs = zip(inputs.seeds.tolist(), inputs.trained, strict=True)
    rows = [np.random.default_rng(seed).choice(np.flatnonzero(trained)) for seed, trained in pairs]
    return np.asarray(inputs.embeddings[rows], np.float32)


def _rescaled(inputs: ArmInputs) -> np.ndarray:
    return inputs.rescaled


# Every arm by name.
ARMS: dict[str, Arm] = {
    "eeg": Arm(_rescaled, space="encoder"),
    "shuffled": Arm(_rescaled, informed=False, space="encoder", deranged=True),
    "mean": Arm(lambda inputs: inputs.mean, informed=False, space="encoder"),
    "random": Arm(_random_training, informed=False),
    "oracle": Arm(lambda inputs: inputs.true, informed=False),
    "retrieval": Arm(lambda inputs: np.asarray(inputs.embeddings[inputs.nearest], np.float32)),
    "class-name": Arm(lambda inputs: inputs.embed_concepts(inputs.named.tolist()), space="clip-text"),
    "retrieved-start": Arm(_rescaled, space="encoder", start=lambda inputs: inputs.stimuli[inputs.nearest].tolist()),
    "sketched-start": Arm(_rescaled, space="encoder", start=lambda inputs: list(inputs.sketch())),
    "best-of": Arm(_rescaled, space="encoder", best_of=True),
    "caption": Arm(lambda inputs: inputs.true, space="clip-text", of_images=True),
}
