"""What the controls are given, and the decoders that they train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.statistics import AT_ONCE
from neurocanvas.families import batches

# `decode(features_train, labels_train, features_test)`: labels, (n_test,), or scores, (n_test, n_labels) with a column
# for each of the sorted training labels. Labels are whole numbers.
Decoder = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Signal(Protocol):
    """Trials of a recording, an array or what reads them when they are asked for."""

    def __len__(self) -> int:
        """How many trials there are."""

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """Signal of those rows, shape (n, n_chans, n_times)."""


COLUMNS = ("concept", "stimulus", "block", "run", "session", "order")


@dataclass(frozen=True)
class ControlInputs:
    """Trials of one subject with the splits under question; what a control needs beyond them may be missing."""

    features: np.ndarray
    concept: np.ndarray
    stimulus: np.ndarray
    block: np.ndarray
    run: np.ndarray
    session: np.ndarray
    order: np.ndarray
    splits: Sequence[tuple[np.ndarray, np.ndarray]]
    decode: Decoder | None = None
    baseline: np.ndarray | None = None
    signal: Signal | None = None
    extract: Callable[[np.ndarray], np.ndarray] | None = None
    embeddings: np.ndarray | None = None
    low_level: np.ndarray | None = None
    arms: Mapping[str, np.ndarray] | None = None
    arm_units: np.ndarray | None = None
    permutations: int = 999
    repeats: int = 10

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
        self._check_splits(n_trials)

    def _check_splits(self, n_trials: int) -> None:
        """Raise if a fold overlaps, repeats or leaves the table, or tests concepts that it does not train."""
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
                    f"splits: concepts that are tested must be trained, or embeddings be given; fold {place} tests "
                    f"{np.asarray(self.concept)[test[unseen.argmax()]]} alone."
                )
        if tested.max() > 1:
            raise NeuroCanvasError(f"splits: no row may be tested twice; row {tested.argmax()} is.")

    @cached_property
    def flat(self) -> np.ndarray:
        """Features of a trial in one row, shape (n_trials, n_features), float64."""
        return flattened(self.features)

    @cached_property
    def labels(self) -> np.ndarray:
        """Number of every trial's concept, shape (n_trials,)."""
        return coded(self.concept)

    @cached_property
    def n_concepts(self) -> int:
        """How many concepts were shown."""
        return int(self.labels.max()) + 1

    @cached_property
    def tested(self) -> np.ndarray:
        """Rows that some fold tests, in recorded order."""
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
        """What is exchanged as a whole: blocks in a blocked design, else trials."""
        return self.blocks if self.is_blocked else np.arange(len(self.labels))

    def predict(self, features: np.ndarray, labels: np.ndarray, test_features: np.ndarray | None = None) -> np.ndarray:
        """Train on the training rows of every fold and name the label of its test rows."""
        given = features if test_features is None else test_features
        named = np.full(len(labels), -1)
        for train, test in self.splits:
            named[test] = named_labels(self.decode, features[train], labels[train], given[test])
        return named

    @cached_property
    def strata(self) -> np.ndarray:
        """Within what labels of tested trials may be exchanged: in a blocked design the session, else the fold."""
        if self.is_blocked:
            return coded(self.session)[self.tested]
        fold = np.empty(len(self.labels), dtype=np.int64)
        for place, (_, test) in enumerate(self.splits):
            fold[test] = place
        return fold[self.tested]

    @cached_property
    def named(self) -> np.ndarray:
        """Label that is given to every trial in `tested`, shape (n_tested,)."""
        return self.predict(self.flat, self.labels)[self.tested]

    @cached_property
    def hits(self) -> np.ndarray:
        """1 where the concept of a trial in `tested` is named rightly, shape (n_tested,)."""
        return (self.named == self.labels[self.tested]).astype(float)


def flattened(features: np.ndarray) -> np.ndarray:
    """Put what belongs to a trial into one row."""
    return np.asarray(features, dtype=np.float64).reshape(len(features), -1)


def coded(*columns: np.ndarray) -> np.ndarray:
    """Number the distinct values, or combinations of values, of columns from 0."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, own = np.unique(column, return_inverse=True)
        code = np.unique(code * len(values) + own, return_inverse=True)[1].reshape(-1)
    return code


def pieces(rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Cut rows into pieces that may each have a table of so many columns: memory, not result."""
    for part in batches(len(rows), max(1, AT_ONCE // width)):
        yield rows[part]


def shrinkage_lda(features_train: np.ndarray, labels_train: np.ndarray, features_test: np.ndarray) -> np.ndarray:
    """Linear discriminant analysis with equal priors and a covariance shrunk towards a multiple of 1
    [LedoitWolf2004]."""
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
    """Train a decoder and let it name labels, whether it gives labels or scores."""
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
