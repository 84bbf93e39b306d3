"""From predictions to conditions: one entry per arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from neurocanvas.errors import NeuroCanvasError


@dataclass(frozen=True)
class ArmInputs:
    """What an arm may make its condition from; all arrays are float32 and in the order of the trials.

    Parameters
    ----------
    predicted : array, shape (n_trials, 77, 768)
        What the mapper says of each trial, rescaled for the generator.
    mean : array, shape (n_trials, 77, 768)
        The mean training target of each trial's fold.
    true : array, shape (n_trials, 77, 768)
        The embedding of the caption of what was seen.
    concept : array of str, shape (n_trials,)
        What was seen: arms that shuffle deal it out evenly.
    rng : numpy Generator
        For arms that draw at random.
    """

    predicted: np.ndarray
    mean: np.ndarray
    true: np.ndarray
    concept: np.ndarray
    rng: np.random.Generator


LARGEST_GAIN = 4.0  # a mapper that predicts next to nothing is not blown up into confident pictures


def gain(target_sd: np.ndarray, prediction_sd: np.ndarray) -> float:
    """By how much predictions must be stretched around the mean to vary as much as targets do.

    Predictions that minimise squared error are shrunk towards the mean target, and a generator makes the same
    washed-out picture of all of them. One factor for all coordinates keeps the prediction's direction.

    Parameters
    ----------
    target_sd : array, shape (k,)
        Standard deviation of the training targets along each principal coordinate.
    prediction_sd : array, shape (k,)
        The same of the predictions of validation trials.

    Returns
    -------
    float
        From 1 to `LARGEST_GAIN`.

    Examples
    --------
    >>> gain(np.array([2.0, 1.0]), np.array([1.0, 0.5]))
    2.0
    """
    predicted = float(np.sum(np.square(prediction_sd)))
    if predicted == 0:
        return 1.0
    return float(np.clip(np.sqrt(np.sum(np.square(target_sd)) / predicted), 1.0, LARGEST_GAIN))


def rescale(predicted: np.ndarray, mean: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Stretch predictions around the mean training target.

    Parameters
    ----------
    predicted, mean : array, shape (n_trials, 77, 768)
        Predictions, and the mean training target of each trial's fold.
    gains : array, shape (n_trials,)
        From `gain`; 1 changes nothing.

    Returns
    -------
    array, shape (n_trials, 77, 768), float32
    """
    return np.asarray(mean + gains[:, None, None] * (predicted - mean), dtype=np.float32)


def derangement(concept: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Draw a permutation that leaves nothing in its place and deals every concept an even mix of all concepts.

    Where pictures are few and shown often, a permutation drawn without the second condition gives, by chance, some
    pictures too many predictions of their like, and the floor that it measures wanders by as much. Dealt out evenly it
    wanders less than the permutations that its p-value compares it with, so a small p of this arm weighs the more.

    Parameters
    ----------
    concept : array, shape (n_trials,)
        What each trial showed; at least 2 trials.
    rng : numpy Generator
        Source of randomness.

    Returns
    -------
    array of int, shape (n_trials,)
        Which trial's prediction each trial gets.

    Raises
    ------
    NeuroCanvasError
        If there are fewer than 2 trials.

    Examples
    --------
    >>> seen = np.repeat(["cat", "dog"], 4)
    >>> given = seen[derangement(seen, rng=np.random.default_rng(0))]
    >>> int(sum(given[:4] == "cat")), int(sum(given[4:] == "cat"))
    (2, 2)
    """
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


ARMS: Mapping[str, Callable[[ArmInputs], np.ndarray]] = {
    "eeg": lambda inputs: inputs.predicted,
    "shuffled": lambda inputs: inputs.predicted[derangement(inputs.concept, rng=inputs.rng)],
    "mean": lambda inputs: inputs.mean,
    "oracle": lambda inputs: inputs.true,
}
"""Name of the arm -> how one subject's conditions are made, (n_trials, 77, 768)."""
