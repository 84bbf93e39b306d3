"""Simulated features without a confound: a rapid design with a response to concepts, and its relatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from neurocanvas.evaluation.control_inputs import ControlInputs
from neurocanvas.evaluation.layouts import block_columns, folds, random_walk, rapid_columns

Simulation = Callable[..., ControlInputs]

CONCEPTS, TRIALS, FEATURES = 8, 30, 20
MANY_CONCEPTS, FEW_TRIALS = 40, 10
# Standard deviation over concepts of a feature's response; trial noise has 1.
CONCEPT_SIZE = 0.55

# Of the clean design: drift is there, but concepts come in random order.
DRIFT_SIZE, DRIFT_TRIALS = 0.7, 25.0

PERMUTATIONS = 199
SIGNAL_CHANS, SIGNAL_TIMES = 6, 32


def clean_rapid(
    *, rng: np.random.Generator, size: float = CONCEPT_SIZE, drift_size: float = DRIFT_SIZE
) -> ControlInputs:
    """Simulate a rapid design with a response to concepts, with drift, and without any confound."""
    columns = rapid_columns(CONCEPTS, TRIALS, 2, rng=rng)
    concept, n = columns["concept"], len(columns["concept"])
    embeddings = rng.standard_normal((CONCEPTS, 12))
    drift = drift_size * random_walk(n, FEATURES, DRIFT_TRIALS, rng=rng)
    response = size * embeddings @ rng.standard_normal((12, FEATURES)) / np.sqrt(12)
    looks = rng.standard_normal((n, 8))[columns["stimulus"]]
    evoked = size * _bumps(rng.standard_normal((CONCEPTS, SIGNAL_CHANS)))
    noise = rng.standard_normal((n, SIGNAL_CHANS, SIGNAL_TIMES))
    power = 1 + 0.2 * random_walk(n, SIGNAL_CHANS, DRIFT_TRIALS, rng=rng)
    return ControlInputs(
        features=response[concept] + drift + rng.standard_normal((n, FEATURES)), **columns,
        splits=folds(np.arange(n), concept, 5, rng=rng),
        baseline=drift + rng.standard_normal((n, FEATURES)),
        signal=evoked[concept] + power[:, :, None] * noise, embeddings=embeddings[concept], low_level=looks,
        arms=two_way_arms(0.8, rng=rng), permutations=PERMUTATIONS,
    )  # fmt: skip


def _bumps(strength: np.ndarray) -> np.ndarray:
    """A wave of one period at a third of the time, scaled, shape (..., SIGNAL_TIMES)."""
    time = np.arange(SIGNAL_TIMES) / SIGNAL_TIMES
    wave = np.sin(6 * np.pi * time) * (time < 1 / 3)
    return np.asarray(strength[..., None] * wave)


def two_way_arms(eeg: float, *, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw two-way scores of 100 pictures in five arms, of which `nearest-picture` has a mean of .6, not of one
    half."""
    means = {"eeg": eeg, "mean": 0.5, "random-trial": 0.5, "random-picture": 0.5, "nearest-picture": 0.6}
    hard = rng.normal(0, 0.1, 100)
    return {name: np.clip(mean + hard + rng.normal(0, 0.2, 100), 0, 1) for name, mean in means.items()}


def clean_zero_shot(*, rng: np.random.Generator) -> ControlInputs:
    """Simulate a rapid design whose tested concepts are not trained, with responses linear in their embeddings."""
    columns = rapid_columns(MANY_CONCEPTS, FEW_TRIALS, 1, rng=rng)
    concept, n = columns["concept"], len(columns["concept"])
    embeddings = rng.standard_normal((MANY_CONCEPTS, 6))
    response = 2 * CONCEPT_SIZE * embeddings @ rng.standard_normal((6, FEATURES)) / np.sqrt(6)
    drift = DRIFT_SIZE * random_walk(n, FEATURES, DRIFT_TRIALS, rng=rng)
    return ControlInputs(
        features=response[concept] + drift + rng.standard_normal((n, FEATURES)), **columns,
        splits=folds(concept, np.zeros(n), 4, rng=rng), embeddings=embeddings[concept], permutations=PERMUTATIONS,
    )  # fmt: skip


def steady_blocks(*, rng: np.random.Generator) -> ControlInputs:
    """Simulate a block design without drift, with a response to concepts: what is blocked without being confounded."""
    columns = block_columns(CONCEPTS, 3, TRIALS // 3, rng=rng)
    concept, n = columns["concept"], len(columns["concept"])
    response = CONCEPT_SIZE * rng.standard_normal((CONCEPTS, FEATURES))
    return ControlInputs(
        features=response[concept] + rng.standard_normal((n, FEATURES)), **columns,
        splits=folds(np.arange(n), concept, 5, rng=rng), baseline=rng.standard_normal((n, FEATURES)),
        permutations=PERMUTATIONS,
    )  # fmt: skip


def nothing_answered(*, rng: np.random.Generator) -> ControlInputs:
    """Simulate a rapid design with drift in which nothing that was shown is answered."""
    return clean_rapid(rng=rng, size=0.0)


def strong_drift(*, rng: np.random.Generator) -> ControlInputs:
    """Simulate a rapid design with a response to concepts and drift of twice the size of trial noise."""
    return clean_rapid(rng=rng, drift_size=2.0)


# Simulations without a confound, by name; every control is tried on the last three too: docs/controls.md.
CLEAN: Mapping[str, Simulation] = MappingProxyType({
    "clean-rapid": clean_rapid, "clean-zero-shot": clean_zero_shot, "nothing-answered": nothing_answered,
    "steady-blocks": steady_blocks, "strong-drift": strong_drift,
})  # fmt: skip
