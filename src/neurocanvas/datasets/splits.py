"""Train, validation and test index sets, proved disjoint by what their protocol promises, and their warnings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from neurocanvas.config import SplitSettings
from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.store import fingerprint
from neurocanvas.trials import Trials

BLOCK_WARNING = (
    "Block design: trials of one block are on both sides of the split, so slow drift of the recording alone "
    "can give these scores; they are no evidence that the brain's response to a picture was decoded."
)
GAP_WARNING = (
    "Block design: the {gap} trials before the test part of every block were dropped, but drift slower than that gap "
    "still links both sides and alone can give these scores; they are no evidence that the brain's response to a "
    "picture was decoded."
)
REPEAT_WARNING = (
    "Pictures of test trials were shown in training trials too: the scores say which known picture was seen, "
    "not what a new one looks like."
)
ORDER_WARNING = (
    "Concepts came in nearly the same order in training and test recordings, so drift that follows the time since "
    "a recording began can be decoded across them."
)
# Protocols in which other subjects' trials train.
OF_OTHERS = frozenset({"leave-subject-out", "pretrain-finetune"})

GAPPED = "within-block-gap"
SAME_ORDER = 0.5  # rank correlation of the concepts' mean places
# Columns that are numbered anew in every subject (and session) -> the columns that make them unique.
COUNTED_WITHIN = {"session": ("subject",), "run": ("subject", "session"), "block": ("subject", "session")}


@dataclass(frozen=True)
class Split:
    """Which trials train, which choose, which test: rows of the trial table that the split was made for.

    Parameters
    ----------
    name : str
        Protocol, and the fold where there are several ("leave-run-out, run 2").
    train, val, test : array of int, shape (n,)
        Sorted row numbers; no row is in two of them.
    selection : str
        What the validation part is: the rule by which epochs and penalties are chosen on it.
    warnings : tuple of str
        What everything made from this split must say.
    pretrain : array of int, shape (n,)
        Rows that train before `train` does; mostly none. Disjoint from the others too.

    Raises
    ------
    NeuroCanvasError
        If a part but `pretrain` is empty, names a row twice, or shares a row with another.

    Examples
    --------
    >>> Split("by hand", np.array([0, 1]), np.array([2]), np.array([3]), "trial 2").test
    array([3])
    """

    name: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    selection: str
    warnings: tuple[str, ...] = ()
    pretrain: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        seen: dict[int, str] = {}
        for part, rows in self.parts().items():
            if len(rows) == 0:
                raise NeuroCanvasError(f"split {self.name}: every part needs trials; {part} has none.")
            for row in rows.tolist():
                if row in seen:
                    raise NeuroCanvasError(
                        f"split {self.name}: trial {row} is in {seen[row]} and {part}; one may hold it."
                    )
                seen[row] = part
            object.__setattr__(self, part, np.sort(rows))

    def parts(self) -> dict[str, np.ndarray]:
        """Return the index arrays by name; `pretrain` only where it has rows."""
        names = ("train", "val", "test", *(("pretrain",) if len(self.pretrain) else ()))
        return {name: np.asarray(getattr(self, name), dtype=np.int64) for name in names}

    def joined(self) -> Split:
        """Merge the trials of `pretrain` into `train`, for models that train in one go."""
        rows = np.concatenate([self.pretrain, self.train])
        return replace(self, train=rows, pretrain=rows[:0]) if len(self.pretrain) else self

    def fingerprint(self) -> str:
        """Hash the name, the index arrays and the selection rule."""
        return fingerprint(self.name, *self.parts().values(), self.selection)


def groups(trials: Trials, *columns: str) -> np.ndarray:
    """Group number of every trial, from 0; trials that share all of the columns share one: (n_trials,)."""
    names = dict.fromkeys(name for column in columns for name in (*COUNTED_WITHIN.get(column, ()), column))
    group = np.zeros(len(trials), dtype=np.int64)
    for name in names:
        values, code = np.unique(trials.column(name), return_inverse=True)
        group = np.unique(group * len(values) + code, return_inverse=True)[1]
    return group


def in_recorded_order(trials: Trials) -> np.ndarray:
    """Rows sorted by subject, session and place in the recording, (n_trials,)."""
    return np.lexsort([trials.column(name) for name in ("order", "session", "subject")])


def blocked_trials(trials: Trials) -> np.ndarray:
    """Whether the concepts of each trial's session came in blocks, judged by their order: bool, (n_trials,)."""
    recorded, session, concept = in_recorded_order(trials), groups(trials, "session"), groups(trials, "concept")
    blocked = np.zeros(len(trials), dtype=bool)
    for number in np.unique(session):
        rows = recorded[session[recorded] == number]
        n, counts = len(rows), np.unique(concept[rows], return_counts=True)[1]
        if len(counts) > 1:
            # In random order each of the n - 1 steps changes the concept with probability
            # 1 - Σ n_c(n_c - 1) / (n(n - 1)), n_c trials per concept. Fewer than half of these changes: blocked.
            expected = (n - 1) * (1 - np.sum(counts * (counts - 1)) / (n * (n - 1)))
            blocked[rows] = np.sum(concept[rows][1:] != concept[rows][:-1]) < expected / 2
    return blocked


def is_blocked(trials: Trials) -> bool:
    """Whether concepts came in blocks in any session of any subject."""
    return bool(blocked_trials(trials).any())


def prove_disjoint(
    split: Split, trials: Trials, column: str, others: tuple[str, str] = ("train", "test")
) -> None:
    """Raise if two parts of a split share a value of a column (a session, run or block is that of one subject)."""
    group = groups(trials, column)
    first, second = (getattr(split, part) for part in others)
    shared = first[np.isin(group[first], group[second])]
    if len(shared):
        raise NeuroCanvasError(
            f"split {split.name}: {others[0]} and {others[1]} share the {column} "
            f"{trials.column(column)[shared[group[shared].argmin()]]}; they must not."
        )


def uses_other_subjects(protocol: str) -> bool:
    return protocol in OF_OTHERS


def make_splits(trials: Trials, settings: SplitSettings, subject: int | None = None) -> list[Split]:
    """Split trials by a protocol so that one subject is tested.

    - ``by-stimulus``: of every concept, `test_fraction` of the stimuli are held out, with all of their trials.
    - ``kfold-by-stimulus``: each concept's stimuli are dealt into `folds` parts; each is tested once.
    - ``leave-run-out``, ``leave-session-out``: each run or session of the subject is tested once. The latter is
      CrossPT's cross-time where there are two.
    - ``leave-block-out``: fold k tests the k-th block of every concept.
    - ``leave-subject-out``: all trials of the subject; others train and yet others validate.
    - ``pretrain-finetune``: the others' first sessions pre-train, the subject's own trains, its later ones are
      tested: CrossPT's PT.
    - ``released``: the first 30 of every 50 trials of a concept in a session train, the last 20 test.
    - ``within-block-gap``: the same without the `gap` trials before every test part, and those after it.

    Validation trials are always cut from the training side, and `Split.selection` says which they are: whole stimuli
    (``by-stimulus``, ``kfold-by-stimulus``, ``released``), whole subjects (``leave-subject-out``), else the last ones
    of each training block, or of each training run where concepts did not come in blocks: contiguous, so that drift
    links few of them to trials that train.

    Parameters
    ----------
    trials : Trials
        The subject's, and for protocols that use them the others'.
    settings : SplitSettings
        Protocol, fractions, seed, and whether block-confounded scores are accepted.
    subject : int, optional
        The one that is tested; needed where `trials` hold several.

    Returns
    -------
    list of Split
        One per fold; row numbers count in `trials`. No trial is tested twice.

    Raises
    ------
    NeuroCanvasError
        If the subject is unknown or not named, the data lack what the protocol needs, or if the design is blocked,
        trials of one block would be on both sides, and `accept_block_confound` is not set.
    """
    from neurocanvas.datasets.protocols import PROTOCOLS, whole_block_protocols  # late: they are made of what is above

    present = np.unique(trials.column("subject")).tolist()
    if subject is None and len(present) != 1:
        raise NeuroCanvasError(f"split: trials of one subject are needed, or the one to test; got subjects {present}.")
    subject = present[0] if subject is None else check_option("subject", subject, present)
    own = np.flatnonzero(trials.column("subject") == subject)
    splits = PROTOCOLS[check_option("protocol", settings.protocol, PROTOCOLS)](trials, own, settings)
    blocks, stimuli = np.where(blocked_trials(trials), groups(trials, "block"), -1), groups(trials, "stimulus")
    confounded = [_shares(blocks, split) for split in splits]
    if any(confounded) and not settings.accept_block_confound:
        first = splits[confounded.index(True)].name
        best = "" if settings.protocol == GAPPED else f", best under {GAPPED}"
        raise NeuroCanvasError(
            f"split {first}: concepts came in blocks, and trials of one block would train and test, so drift alone can "
            f"be decoded. Test whole blocks by {whole_block_protocols(trials, own)}; or set accept_block_confound "
            f"= true (--accept-block-confound){best}, for results that carry a warning."
        )
    confound = GAP_WARNING.format(gap=settings.gap) if settings.protocol == GAPPED else BLOCK_WARNING
    marked = []
    for split, is_confounded in zip(splits, confounded, strict=True):
        reasons = {
            confound: is_confounded,
            REPEAT_WARNING: _shares(stimuli, split),
            ORDER_WARNING: _repeats_order(trials, split),
        }
        found = tuple(warning for warning, holds in reasons.items() if holds)
        marked.append(replace(split, warnings=(*split.warnings, *found)))
    return marked


def _known(split: Split) -> np.ndarray:
    """Rows that a model has seen before it is tested."""
    return np.concatenate([split.pretrain, split.train, split.val])


def _shares(group: np.ndarray, split: Split) -> bool:
    """Whether any group has trials on both sides; groups below 0 do not count."""
    tested = group[split.test]
    return bool(np.isin(tested[tested >= 0], group[_known(split)]).any())


def _repeats_order(trials: Trials, split: Split) -> bool:
    """Whether blocks of concepts came in nearly the same order in the training recordings and in a tested one."""
    recording, concept, recorded = groups(trials, "run"), groups(trials, "concept"), in_recorded_order(trials)
    blocked, place = blocked_trials(trials), np.empty(len(trials))
    for number in np.unique(recording):
        rows = recorded[recording[recorded] == number]
        place[rows] = np.arange(len(rows)) / len(rows)

    def mean_places(rows: np.ndarray) -> np.ndarray:  # per concept; NaN where it is missing
        n = concept.max() + 1
        sums, counts = np.bincount(concept[rows], place[rows], n), np.bincount(concept[rows], minlength=n)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    known = _known(split)
    known = known[blocked[known]]
    test = split.test[blocked[split.test] & ~np.isin(recording[split.test], recording[known])]
    trained = mean_places(known)
    for number in np.unique(recording[test]):
        places = np.stack([trained, mean_places(test[recording[test] == number])])
        places = places[:, np.isfinite(places).all(axis=0)]
        n = places.shape[1]
        if n > 2:
            ranks = places.argsort(axis=1).argsort(axis=1)
            # 2.33 standard errors of a rank correlation: beyond what one random order in a hundred reaches
            if np.corrcoef(*ranks)[0, 1] >= min(max(SAME_ORDER, 2.33 / np.sqrt(n - 1)), 0.999):
                return True
    return False
