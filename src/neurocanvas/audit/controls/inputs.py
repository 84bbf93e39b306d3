"""Inputs of the controls, and the decoder that they train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from neurocanvas.data.splits import TOO_MANY_REPEATS, excess_repeats
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.statistics import AT_ONCE
from neurocanvas.targets.pretrained import batches

# decode(features_train, labels_train, features_test) -> labels, (n_test,)
Decoder = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

COLUMNS = ("concept", "stimulus", "block", "run", "session", "order")


def shrinkage_lda(features_train: np.ndarray, labels_train: np.ndarray, features_test: np.ndarray) -> np.ndarray:
    """Labels by LDA, (n_test,): equal priors, covariance shrunk to a scaled identity [LedoitWolf2004]."""
    # In closed form, because the controls train it thousands of times: `sklearn.covariance.ledoit_wolf` gives the same
    # covariance and takes two to seven times as long.
    labels = np.unique(labels_train)
    member = (labels_train[:, None] == labels).astype(np.float64)
    means = member.T @ features_train / member.sum(axis=0)[:, None]
    rest = features_train - member @ means
    n_train, n_features = rest.shape
    covariance = rest.T @ rest / n_train
    level = np.trace(covariance) / n_features
    size = np.sum(covariance**2)
    dispersion = size - n_features * level**2
    noise = (np.sum(np.sum(rest**2, axis=1) ** 2) / n_train - size) / n_train
    shrinkage = min(1.0, noise / dispersion) if dispersion > 0 else 1.0
    covariance *= 1 - shrinkage
    covariance[np.diag_indices(n_features)] += shrinkage * level + 1e-9 * level + 1e-300
    weights = np.linalg.solve(covariance, means.T)
    return labels[np.argmax(features_test @ weights - 0.5 * np.sum(means.T * weights, axis=0), axis=1)]


@dataclass(frozen=True)
class ControlInputs:
    """Trials of one subject with the splits under question, and what some controls need beyond them."""

    features: np.ndarray  # (n_trials, n_features) or (n_trials, n_chans, n_bands)
    concept: np.ndarray
    stimulus: np.ndarray
    block: np.ndarray
    run: np.ndarray
    session: np.ndarray
    order: np.ndarray  # place in the session
    splits: Sequence[tuple[np.ndarray, np.ndarray]]  # train and test rows of each fold; no row is tested twice
    decode: Decoder = shrinkage_lda
    baseline: np.ndarray | None = None  # (n_trials, ...), features of -200 to 0 ms, or of the first 0 to 40 ms
    signal: Any = None  # (n_trials, n_chans, n_times), an array or a lazy reader, for phase randomisation; any unit
    extract: Callable[[np.ndarray], np.ndarray] | None = None  # signal to features; None: `time_course_and_power`
    embeddings: np.ndarray | None = None  # (n_trials, n_dimensions), of the concept: the same for all of its trials
    low_level: np.ndarray | None = None  # (n_trials, n_descriptors), of the image: pixels, colours, orientations
    arms: Mapping[str, np.ndarray] | None = None  # scores, (n,), of the same trials in `eeg` and in null arms
    arm_units: np.ndarray | None = None  # (n,), independent units of `arms`: block or stimulus; None: every entry
    permutations: int = 999  # sign flips and resamples too
    repeats: int = 10  # surrogates that an accuracy is averaged over

    def __post_init__(self) -> None:
        for name in ("features", "baseline", "signal", "embeddings", "low_level"):
            column = getattr(self, name)
            if isinstance(column, np.ndarray) and not np.isfinite(column).all():
                raise NeuroCanvasError(f"{name}: finite numbers are needed; got others. Leave those trials out.")
        if self.n_concepts < 2:
            raise NeuroCanvasError("concept: two or more concepts are needed; got one.")
        for number, (train, test) in enumerate(self.splits):
            unseen = ~np.isin(self.labels[test], self.labels[train])
            if unseen.any() and self.embeddings is None:
                raise NeuroCanvasError(
                    f"splits: tested concepts need training trials, or embeddings (`neurocanvas embed`); fold {number} "
                    f"tests {np.asarray(self.concept)[test[unseen.argmax()]]} alone."
                )

    @cached_property
    def flat(self) -> np.ndarray:
        """Features, (n_trials, n_features), float64."""
        return flattened(self.features)

    @cached_property
    def labels(self) -> np.ndarray:
        """Number of every trial's concept, (n_trials,)."""
        return coded(self.concept)

    @cached_property
    def n_concepts(self) -> int:
        return int(self.labels.max()) + 1

    @cached_property
    def tested(self) -> np.ndarray:
        """Rows that some fold tests, in recorded order, (n_tested,)."""
        rows = np.concatenate([test for _, test in self.splits])
        return rows[np.lexsort([np.asarray(self.order)[rows], np.asarray(self.session)[rows]])]

    @cached_property
    def recorded(self) -> np.ndarray:
        """All rows in recorded order."""
        return np.lexsort([self.order, self.session])

    @cached_property
    def blocks(self) -> np.ndarray:
        """Number of every trial's block, over all sessions."""
        return coded(self.session, self.block)

    @cached_property
    def runs(self) -> np.ndarray:
        """Number of every trial's run, over all sessions."""
        return coded(self.session, self.run)

    @cached_property
    def is_blocked(self) -> bool:
        """Whether concepts came in blocks, judged by the repeats in each run and in all of them."""
        runs = [self.labels[self.recorded[self.runs[self.recorded] == run]] for run in range(self.runs.max() + 1)]
        excess, variance = np.array([excess_repeats(shown) for shown in runs]).T
        one = (variance > 0) & (excess > TOO_MANY_REPEATS * np.sqrt(variance))
        return bool(one.any() or excess.sum() > TOO_MANY_REPEATS * np.sqrt(variance.sum()) > 0)

    @cached_property
    def keeps_blocks_whole(self) -> bool:
        """Whether concepts came in blocks and no block is on both sides of a split."""
        shared = (np.isin(self.blocks[test], self.blocks[train]).any() for train, test in self.splits)
        return self.is_blocked and not any(shared)

    @cached_property
    def keeps_runs_whole(self) -> bool:
        """Whether concepts came in mixed order and no run is on both sides of a split."""
        shared = (np.isin(self.runs[test], self.runs[train]).any() for train, test in self.splits)
        return not self.is_blocked and not any(shared)

    @cached_property
    def units(self) -> np.ndarray:
        """Exchangeable unit of every trial: its block in a blocked design, its image if held out, else itself."""
        if self.is_blocked:
            return self.blocks
        image, units = coded(self.stimulus), np.arange(len(self.labels))
        for train, test in self.splits:
            held_out = test[~np.isin(image[test], image[train])]
            units[held_out] = len(units) + image[held_out]
        return units

    def predict(self, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Train in every fold and name its test rows, (n_trials,); -1 in rows that no fold tests."""
        named = np.full(len(labels), -1)
        for train, test in self.splits:
            named[test] = self.decode(features[train], labels[train], features[test])
        return named

    def answers(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Train on some rows and name others, (n_test,)."""
        return self.decode(self.flat[train], self.labels[train], self.flat[test])

    @cached_property
    def strata(self) -> np.ndarray:
        """Stratum within which labels of tested trials may be exchanged: session if blocked, else fold."""
        if self.is_blocked:
            return coded(self.session)[self.tested]
        fold = np.empty(len(self.labels), dtype=np.int64)
        for number, (_, test) in enumerate(self.splits):
            fold[test] = number
        return fold[self.tested]

    @cached_property
    def named(self) -> np.ndarray:
        """Label that the decoder gives to every trial in `tested`, (n_tested,)."""
        return self.predict(self.flat, self.labels)[self.tested]

    @cached_property
    def hits(self) -> np.ndarray:
        """1. where the concept of a trial in `tested` is named correctly, else 0., (n_tested,)."""
        return (self.named == self.labels[self.tested]).astype(float)


def flattened(features: np.ndarray) -> np.ndarray:
    return np.asarray(features, dtype=np.float64).reshape(len(features), -1)


def coded(*columns: np.ndarray) -> np.ndarray:
    """Number the distinct values, or combinations of values, of columns from 0: (n,)."""
    import pandas as pd

    return pd.DataFrame(dict(enumerate(columns))).groupby([*range(len(columns))]).ngroup().to_numpy(np.int64)


def pieces(rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Cut rows into pieces for which a table of `width` columns fits into memory."""
    for part in batches(len(rows), max(1, AT_ONCE // width)):
        yield rows[part]
