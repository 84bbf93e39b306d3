"""How simulated trials are laid out: drift, folds, and the order of rapid and block designs."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurocanvas.evaluation.control_inputs import coded

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
    """Lay out a rapid design: pictures of all concepts in random order, in four runs."""
    stimulus = rng.permutation(np.arange(n_concepts * n_each) // repeats)
    return _columns(stimulus // (n_each // repeats), stimulus, n_runs=4)


def block_columns(n_concepts: int, n_blocks: int, length: int, *, rng: np.random.Generator) -> dict[str, Any]:
    """Lay out a block design: blocks of one concept in random order, every picture shown once."""
    while True:
        blocks = np.concatenate([rng.permutation(n_concepts) for _ in range(n_blocks)])
        if (blocks[1:] != blocks[:-1]).all():
            concept = np.repeat(blocks, length)
            return _columns(concept, np.arange(len(concept)))
