"""Simulated features for the controls: designs without a confound (`CLEAN`), and with exactly one (`PLANTED`)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from neurocanvas.audit.controls.inputs import COLUMNS, ControlInputs, coded, shrinkage_lda
from neurocanvas.audit.controls.registry import CONTROLS, control_row, correct_for_many

Folds = list[tuple[np.ndarray, np.ndarray]]


def random_walk(n_trials: int, n_features: int, trials: float, *, rng: np.random.Generator) -> np.ndarray:
    """Draw a stationary process that forgets within some trials (Ornstein-Uhlenbeck), standard deviation 1."""
    keep = np.exp(-1 / trials)
    steps = rng.standard_normal((n_trials, n_features))
    steps[1:] *= np.sqrt(1 - keep**2)
    for trial in range(1, n_trials):
        steps[trial] += keep * steps[trial - 1]
    return steps


def folds(groups: np.ndarray, labels: np.ndarray, n_folds: int, *, rng: np.random.Generator) -> Folds:
    """Deal groups of trials to folds, evenly within every label."""
    group = coded(groups)
    first = np.unique(group, return_index=True)[1]
    shuffled = rng.permutation(len(first))
    dealt = shuffled[np.argsort(np.asarray(labels)[first][shuffled], kind="stable")]
    fold = np.empty(len(first), dtype=np.int64)
    fold[dealt] = np.arange(len(first)) % n_folds
    of_trial = fold[group]
    return [(np.flatnonzero(of_trial != one), np.flatnonzero(of_trial == one)) for one in range(n_folds)]


def _columns(concept: np.ndarray, stimulus: np.ndarray, n_runs: int = 1) -> dict[str, Any]:
    """The columns of trials that stand in recorded order."""
    n = len(concept)
    block = np.concatenate([[0], np.cumsum(concept[1:] != concept[:-1])])
    return {
        "concept": concept, "stimulus": stimulus, "block": block, "run": np.arange(n) * n_runs // n,
        "session": np.zeros(n, dtype=np.int64), "order": np.arange(n),
    }  # fmt: skip


def rapid_columns(n_concepts: int, n_each: int, repeats: int, *, rng: np.random.Generator) -> dict[str, Any]:
    """Lay out a rapid design: images of all concepts in random order, in four runs."""
    stimulus = rng.permutation(np.arange(n_concepts * n_each) // repeats)
    return _columns(stimulus // (n_each // repeats), stimulus, n_runs=4)


def block_columns(n_concepts: int, n_blocks: int, length: int, *, rng: np.random.Generator) -> dict[str, Any]:
    """Lay out a block design: blocks of one concept in random order, every image shown once."""
    while True:
        blocks = np.concatenate([rng.permutation(n_concepts) for _ in range(n_blocks)])
        if (blocks[1:] != blocks[:-1]).all():
            concept = np.repeat(blocks, length)
            return _columns(concept, np.arange(len(concept)))


Simulation = Callable[..., ControlInputs]

CONCEPTS, TRIALS, FEATURES, MANY_CONCEPTS, FEW_TRIALS = 8, 30, 20, 40, 10
CONCEPT_SIZE = 0.55  # standard deviation over concepts of a feature's response; trial noise has 1
DRIFT_SIZE, DRIFT_TRIALS = 0.7, 25.0  # of the clean design: drift is there, but concepts come in random order
PERMUTATIONS, SIGNAL_CHANS, SIGNAL_TIMES = 199, 6, 32


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
    """Draw two-way scores of 100 images in five arms; `nearest-picture` has a mean of .6, the other null arms .5."""
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
CLEAN: dict[str, Simulation] = {
    "clean-rapid": clean_rapid, "clean-zero-shot": clean_zero_shot, "nothing-answered": nothing_answered,
    "steady-blocks": steady_blocks, "strong-drift": strong_drift,
}  # fmt: skip


def drift_in_blocks(
    *, rng: np.random.Generator, n_blocks: int = 1, length: int = TRIALS, trials: float = 60.0, size: float = 1.2
) -> ControlInputs:
    """Plant drift in a block design, before the image as after it, without any response to what is shown."""
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
    """Plant a response to every single image, none to its concept; showings of an image are on both sides."""
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
    """Plant a response to how images look; those of a concept look somewhat alike."""
    clean = clean_rapid(rng=rng)
    of_concept, of_picture = rng.standard_normal((CONCEPTS, 3)), rng.standard_normal((len(clean.order), 3))
    looks = 0.8 * of_concept[clean.concept] + of_picture[clean.stimulus]
    weights = rng.standard_normal((3, FEATURES))
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
        """Predictions of `shrinkage_lda`, but some by place."""
        labels, named = np.unique(labels_train), shrinkage_lda(features_train, labels_train, features_test)
        by_place = labels[np.arange(len(named)) * len(labels) // len(named)]
        return np.where(chosen[: len(named)], by_place, named)

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
        return np.where(
            certain[nearest], labels[nearest], shrinkage_lda(features_train, labels_train, features_test)
        )

    return replace(clean, decode=decode)


def power_without_time(*, rng: np.random.Generator) -> ControlInputs:
    """Plant concepts that differ in how strongly channels vary, all through the trial, in phases that are random."""
    clean = clean_rapid(rng=rng)
    power = np.exp(0.25 * rng.standard_normal((CONCEPTS, SIGNAL_CHANS)))
    noise = rng.standard_normal((len(clean.order), SIGNAL_CHANS, SIGNAL_TIMES))
    return replace(clean, signal=power[clean.concept][:, :, None] * noise)


def hallucinating_generator(*, rng: np.random.Generator) -> ControlInputs:
    """Plant an arm `eeg` that scores above chance, but no more than the nearest training image."""
    return replace(clean_rapid(rng=rng), arms=two_way_arms(0.6, rng=rng))


def repeated_pictures(*, rng: np.random.Generator) -> ControlInputs:
    """Plant responses to single images beside those to concepts; every tested image was trained."""
    clean = clean_rapid(rng=rng, size=0.3)
    columns = rapid_columns(CONCEPTS, TRIALS, 6, rng=rng)
    response = 1.2 * rng.standard_normal((columns["stimulus"].max() + 1, FEATURES))
    of_concept = 0.3 * rng.standard_normal((CONCEPTS, FEATURES))
    noise = rng.standard_normal((len(clean.order), FEATURES))
    features = of_concept[columns["concept"]] + response[columns["stimulus"]] + noise
    splits = folds(np.arange(len(noise)), columns["concept"], 5, rng=rng)
    return ControlInputs(features=features, **columns, splits=splits, permutations=PERMUTATIONS)


# Simulations with one confound each, by name; each takes a keyword-only `rng`.
PLANTED: dict[str, Simulation] = {
    one.__name__.replace("_", "-"): one
    for one in (
        blocks_come_back, drift_in_blocks, fast_drift, ordered_blocks, exemplar_memory, class_codes, looks_alone,
        place_in_batch, answers_known_before, power_without_time, hallucinating_generator, repeated_pictures,
    )
}  # fmt: skip


def run_controls(inputs: ControlInputs, names: Any = tuple(CONTROLS), *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of several controls, corrected for their number."""
    rows = [control_row(inputs, name, seed=seed) for name in names]
    correct_for_many(rows)
    return rows


def measure(name: str, inputs: ControlInputs, seed: int = 1) -> Any:
    """What one control measures, or its refusal."""
    return CONTROLS[name].measure(inputs, rng=np.random.default_rng(seed))
