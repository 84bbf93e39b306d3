"""Simulated features whose one confound is known: what every control must fire on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from neurocanvas.evaluation.clean_designs import (
    CONCEPTS,
    FEATURES,
    FEW_TRIALS,
    MANY_CONCEPTS,
    PERMUTATIONS,
    SIGNAL_CHANS,
    SIGNAL_TIMES,
    TRIALS,
    Simulation,
    clean_rapid,
    two_way_arms,
)
from neurocanvas.evaluation.control_inputs import COLUMNS, ControlInputs, shrinkage_lda
from neurocanvas.evaluation.layouts import block_columns, folds, random_walk, rapid_columns


def drift_in_blocks(
    *, rng: np.random.Generator, n_blocks: int = 1, length: int = TRIALS, trials: float = 60.0, size: float = 1.2
) -> ControlInputs:
    """Plant drift in a block design, before the picture as after it, without any response to what is shown."""
    columns = block_columns(CONCEPTS, n_blocks, length, rng=rng)
    n = len(columns["concept"])
    drift = size * random_walk(n, FEATURES, trials, rng=rng)
    return ControlInputs(
        features=drift + rng.standard_normal((n, FEATURES)), **columns,
        splits=folds(np.arange(n), columns["concept"], 5, rng=rng),
        baseline=drift + rng.standard_normal((n, FEATURES)), permutations=PERMUTATIONS,
    )  # fmt: skip


def blocks_come_back(*, rng: np.random.Generator) -> ControlInputs:
    """Plant drift in a block design with three blocks of every concept."""
    return drift_in_blocks(rng=rng, n_blocks=3, length=10, trials=15.0)


def fast_drift(*, rng: np.random.Generator) -> ControlInputs:
    """Plant drift that is forgotten within a block, with the released split: the first 60 % of every block train."""
    made = drift_in_blocks(rng=rng, length=50, trials=10.0, size=2.5)
    return replace(made, splits=[_first_part(made, 50, 30)])


def _first_part(made: ControlInputs, length: int, until: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the first trials of every block, and of its others."""
    place = np.arange(len(made.order)) % length
    return np.flatnonzero(place < until), np.flatnonzero(place >= until)


def ordered_blocks(*, rng: np.random.Generator) -> ControlInputs:
    """Plant slow drift over blocks of many concepts, so that wrong answers name those that were recorded nearby."""
    columns = block_columns(MANY_CONCEPTS, 1, FEW_TRIALS, rng=rng)
    n = len(columns["concept"])
    drift = random_walk(n, FEATURES, 40.0, rng=rng)
    made = ControlInputs(
        features=drift + rng.standard_normal((n, FEATURES)), **columns,
        splits=folds(np.arange(n), columns["concept"], 2, rng=rng),
        embeddings=rng.standard_normal((MANY_CONCEPTS, 6))[columns["concept"]], permutations=PERMUTATIONS,
    )  # fmt: skip
    return replace(made, splits=[_first_part(made, FEW_TRIALS, 6)])


def exemplar_memory(*, rng: np.random.Generator) -> ControlInputs:
    """Plant a response to every single picture, none to its concept; showings of a picture are on both sides."""
    columns = rapid_columns(CONCEPTS, TRIALS, 6, rng=rng)
    concept, stimulus, n = columns["concept"], columns["stimulus"], len(columns["concept"])
    response = 1.2 * rng.standard_normal((stimulus.max() + 1, FEATURES))
    return ControlInputs(
        features=response[stimulus] + rng.standard_normal((n, FEATURES)), **columns,
        splits=folds(np.arange(n), concept, 5, rng=rng), permutations=PERMUTATIONS,
    )  # fmt: skip


def class_codes(*, rng: np.random.Generator) -> ControlInputs:
    """Plant a response to every concept that has nothing to do with its embedding; tested concepts are trained."""
    clean = clean_rapid(rng=rng)
    return replace(clean, embeddings=rng.standard_normal((CONCEPTS, 12))[clean.concept])


def looks_alone(*, rng: np.random.Generator) -> ControlInputs:
    """Plant a response to how pictures look; those of a concept look somewhat alike."""
    clean = clean_rapid(rng=rng)
    n_looks = 3
    of_concept, of_picture = rng.standard_normal((CONCEPTS, n_looks)), rng.standard_normal((len(clean.order), n_looks))
    looks = 0.8 * of_concept[clean.concept] + of_picture[clean.stimulus]
    weights = rng.standard_normal((n_looks, FEATURES))
    features = 2 * looks @ weights + rng.standard_normal((len(clean.order), FEATURES))
    return replace(clean, features=features, low_level=looks)


def place_in_batch(*, rng: np.random.Generator) -> ControlInputs:
    """Plant a decoder that names concepts by a trial's place in its batch, where the table is sorted by concept."""
    clean = clean_rapid(rng=rng)
    by_concept = np.argsort(clean.concept, kind="stable")
    columns = {name: getattr(clean, name)[by_concept] for name in COLUMNS}
    splits = folds(np.arange(len(by_concept)), columns["concept"], 5, rng=rng)
    chosen = rng.random(len(by_concept)) < 0.3

    def decode(features_train: np.ndarray, labels_train: np.ndarray, features_test: np.ndarray) -> np.ndarray:
        """Answers of `shrinkage_lda`, but some by place."""
        known = np.unique(labels_train)
        named = known[shrinkage_lda(features_train, labels_train, features_test).argmax(axis=1)]
        places = np.arange(len(named))
        return np.where(chosen[: len(named)], known[places * len(known) // len(named)], named)

    return replace(clean, features=clean.features[by_concept], **columns, splits=splits, decode=decode)


def answers_known_before(*, rng: np.random.Generator) -> ControlInputs:
    """Plant a decoder that was trained before, on all trials with their labels, and answers from memory."""
    clean = clean_rapid(rng=rng)
    memory, labels = clean.flat, clean.labels
    certain = rng.random(len(labels)) < 0.4

    def decode(features_train: np.ndarray, labels_train: np.ndarray, features_test: np.ndarray) -> np.ndarray:
        """Labels of the nearest remembered trial where it is certain, else of `shrinkage_lda`."""
        apart = np.sum(features_test**2, axis=1)[:, None] - 2 * features_test @ memory.T + np.sum(memory**2, axis=1)
        nearest = apart.argmin(axis=1)
        known = np.unique(labels_train)
        named = known[shrinkage_lda(features_train, labels_train, features_test).argmax(axis=1)]
        return np.where(certain[nearest], labels[nearest], named)

    return replace(clean, decode=decode)


def power_without_time(*, rng: np.random.Generator) -> ControlInputs:
    """Plant concepts that differ in how strongly channels vary, all through the trial, in phases that are random."""
    clean = clean_rapid(rng=rng)
    power = np.exp(0.25 * rng.standard_normal((CONCEPTS, SIGNAL_CHANS)))
    noise = rng.standard_normal((len(clean.order), SIGNAL_CHANS, SIGNAL_TIMES))
    return replace(clean, signal=power[clean.concept][:, :, None] * noise)


def hallucinating_generator(*, rng: np.random.Generator) -> ControlInputs:
    """Plant an arm `eeg` that scores above chance, but no more than the nearest training picture."""
    return replace(clean_rapid(rng=rng), arms=two_way_arms(0.6, rng=rng))


def repeated_pictures(*, rng: np.random.Generator) -> ControlInputs:
    """Plant responses to single pictures beside those to concepts; every tested picture was trained."""
    clean = clean_rapid(rng=rng, size=0.3)
    columns = rapid_columns(CONCEPTS, TRIALS, 6, rng=rng)
    response = 1.2 * rng.standard_normal((columns["stimulus"].max() + 1, FEATURES))
    of_concept = 0.3 * rng.standard_normal((CONCEPTS, FEATURES))
    noise = rng.standard_normal((len(clean.order), FEATURES))
    features = of_concept[columns["concept"]] + response[columns["stimulus"]] + noise
    splits = folds(np.arange(len(noise)), columns["concept"], 5, rng=rng)
    return ControlInputs(features=features, **columns, splits=splits, permutations=PERMUTATIONS)


# Simulations with one confound each, by name; each takes a keyword-only `rng`.
PLANTED: Mapping[str, Simulation] = MappingProxyType({
    "blocks-come-back": blocks_come_back,
    "drift-in-blocks": drift_in_blocks,
    "fast-drift": fast_drift,
    "ordered-blocks": ordered_blocks,
    "exemplar-memory": exemplar_memory,
    "class-codes": class_codes,
    "looks-alone": looks_alone,
    "place-in-batch": place_in_batch,
    "answers-known-before": answers_known_before,
    "power-without-time": power_without_time,
    "hallucinating-generator": hallucinating_generator,
    "repeated-pictures": repeated_pictures,
})  # fmt: skip
