"""Inputs of the controls, and the decoder that they train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.statistics import AT_ONCE
from neurocanvas.targets.pretrained import batches

# decode(features_train, labels_train, features_test) -> integer labels, (n_test,), or scores, (n_test, n_labels), with
# a column for each of the sorted training labels.
Decoder = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


COLUMNS = ("concept", "stimulus", "block", "run", "session", "order")


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
    decode: Decoder | None = None  # None: `shrinkage_lda`
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
        n_trials = len(self.concept)
        per_trial = ("features", *COLUMNS, "baseline", "signal", "embeddings", "low_level")
        for name in per_trial:
            column = getattr(self, name)
            if column is not None and len(column) != n_trials:
                raise NeuroCanvasError(f"{name}: one entry for each of {n_trials} trials is needed; got {len(column)}.")
        for name in ("features", "baseline", "signal", "embeddings", "low_level"):
            column = getattr(self, name)
            if isinstance(column, np.ndarray) and not np.isfinite(column).all():
                raise NeuroCanvasError(f"{name}: finite numbers are needed; got others. Leave those trials out.")
        if len(np.unique(self.concept)) < 2:
            raise NeuroCanvasError("concept: two or more concepts are needed; got one.")
        tested = np.zeros(n_trials, dtype=int)
        if not self.splits:
            raise NeuroCanvasError("splits: at least one pair (train, test) of row numbers is needed; got none.")
        for place, (train, test) in enumerate(self.splits):
            rows = np.concatenate([train, test])
            if not len(train) or not len(test) or rows.min() < 0 or rows.max() >= n_trials:
                raise NeuroCanvasError(
                    f"splits: rows from 0 to {n_trials - 1} on both sides are needed; got {len(train)} training and "
                    f"{len(test)} test rows in fold {place}, or others among them."
                )
            if np.isin(test, train).any():
                raise NeuroCanvasError(f"splits: no row may train and test; fold {place} has such rows.")
            np.add.at(tested, test, 1)
            unseen = ~np.isin(self.labels[test], self.labels[train])
            if unseen.any() and self.embeddings is None:
                raise NeuroCanvasError(
                    f"splits: tested concepts need training trials, or embeddings; fold {place} tests "
                    f"{np.asarray(self.concept)[test[unseen.argmax()]]} alone."
                )
        if tested.max() > 1:
            raise NeuroCanvasError(f"splits: no row may be tested twice; row {tested.argmax()} is.")

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
        """Whether concepts came in blocks: fewer than half of the changes that random order would give."""
        shown = self.labels[self.recorded]
        n, counts = len(shown), np.bincount(shown)
        expected = (n - 1) * (1 - np.sum(counts * (counts - 1)) / (n * (n - 1)))
        return bool(np.sum(shown[1:] != shown[:-1]) < expected / 2)

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
        """Exchangeable unit of every trial: its block in a blocked design, else itself."""
        return self.blocks if self.is_blocked else np.arange(len(self.labels))

    def predict(self, features: np.ndarray, labels: np.ndarray, test_features: np.ndarray | None = None) -> np.ndarray:
        """Train in every fold and name its test rows, (n_trials,); -1 in rows that no fold tests."""
        given = features if test_features is None else test_features
        named = np.full(len(labels), -1)
        for train, test in self.splits:
            named[test] = named_labels(self.decode, features[train], labels[train], given[test])
        return named

    def answers(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Train on some rows and name others, (n_test,)."""
        return named_labels(self.decode, self.flat[train], self.labels[train], self.flat[test])

    @cached_property
    def strata(self) -> np.ndarray:
        """Stratum within which labels of tested trials may be exchanged: session if blocked, else fold."""
        if self.is_blocked:
            return coded(self.session)[self.tested]
        fold = np.empty(len(self.labels), dtype=np.int64)
        for place, (_, test) in enumerate(self.splits):
            fold[test] = place
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
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, own = np.unique(column, return_inverse=True)
        code = np.unique(code * len(values) + own, return_inverse=True)[1].reshape(-1)
    return code


def pieces(rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Cut rows into pieces for which a table of `width` columns fits into memory."""
    for part in batches(len(rows), max(1, AT_ONCE // width)):
        yield rows[part]


def shrinkage_lda(features_train: np.ndarray, labels_train: np.ndarray, features_test: np.ndarray) -> np.ndarray:
    """LDA scores, (n_test, n_labels): equal priors, covariance shrunk to a scaled identity [LedoitWolf2004]."""
    member = (labels_train[:, None] == np.unique(labels_train)).astype(np.float64)
    means = member.T @ features_train / member.sum(axis=0)[:, None]
    rest = features_train - member @ means
    n_train, n_features = rest.shape
    covariance = rest.T @ rest / n_train
    level = np.trace(covariance) / n_features
    size = np.sum(covariance**2)
    spread = size - n_features * level**2
    noise = (np.sum(np.sum(rest**2, axis=1) ** 2) / n_train - size) / n_train
    shrunk = min(1.0, noise / spread) if spread > 0 else 1.0
    covariance *= 1 - shrunk
    covariance[np.diag_indices(n_features)] += shrunk * level + 1e-9 * level + 1e-300
    weights = np.linalg.solve(covariance, means.T)
    return np.asarray(features_test @ weights - 0.5 * np.sum(means.T * weights, axis=0))


def named_labels(
    decode: Decoder | None, features_train: np.ndarray, labels_train: np.ndarray, features_test: np.ndarray
) -> np.ndarray:
    """Train a decoder and return labels, (n_test,), whether it returns labels or scores."""
    given = np.asarray((decode or shrinkage_lda)(features_train, labels_train, features_test))
    known = np.unique(labels_train)
    if given.shape == (len(features_test),):
        return given
    if given.shape == (len(features_test), len(known)):
        return known[given.argmax(axis=1)]
    raise NeuroCanvasError(
        f"decode: labels, ({len(features_test)},), or scores, ({len(features_test)}, {len(known)}), are needed; got "
        f"{given.shape}."
    )
