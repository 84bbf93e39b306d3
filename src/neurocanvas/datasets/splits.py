"""Train, validation and test index sets of one subject, proved disjoint by what their protocol promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from neurocanvas.config import SplitSettings
from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.store import fingerprint
from neurocanvas.trials import Trials

BLOCK_WARNING = (
    "Block design: trials of one block are on both sides of the split, so slow drift of the recording alone "
    "can give these scores; they are no evidence that the brain's response to a picture was decoded."
)
REPEAT_WARNING = (
    "Pictures of test trials were shown in training trials too: the scores say which known picture was seen, "
    "not what a new one looks like."
)
RELEASED_BLOCK = 50
RELEASED_TRAIN = 30


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

    Raises
    ------
    NeuroCanvasError
        If a part is empty, names a row twice, or shares a row with another.

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
        """Return the three index arrays by name.

        Returns
        -------
        dict of str to array of int
        """
        return {name: np.asarray(getattr(self, name), dtype=np.int64) for name in ("train", "val", "test")}

    def fingerprint(self) -> str:
        """Hash the name, the three index arrays and the selection rule.

        Returns
        -------
        str
            16 hex digits.
        """
        return fingerprint(self.name, *self.parts().values(), self.selection)


def is_blocked(trials: Trials) -> bool:
    """Tell from the order of the trials whether concepts came in blocks.

    In random order each of the n - 1 steps changes the concept with probability 1 - Σ n_c(n_c - 1) / (n(n -
    1)), n_c being the trials of concept c. A design with fewer than half of the changes that random order
    would give counts as blocked.

    Parameters
    ----------
    trials : Trials
        One subject's.

    Returns
    -------
    bool
        False also where there is only one concept.
    """
    concept = _in_recorded_order(trials, trials.column("concept"))
    n = len(concept)
    counts = np.unique(concept, return_counts=True)[1]
    if len(counts) < 2:
        return False
    expected = (n - 1) * (1 - np.sum(counts * (counts - 1)) / (n * (n - 1)))
    return bool(np.sum(concept[1:] != concept[:-1]) < expected / 2)


def prove_disjoint(
    split: Split, trials: Trials, column: str, others: tuple[str, str] = ("train", "test")
) -> None:
    """Raise if two parts of a split share a value of a column.

    Parameters
    ----------
    split : Split
        What to prove.
    trials : Trials
        The trials that it was made for.
    column : str
        What may not be shared: "stimulus", "concept", "block", "run", ...
    others : pair of str
        The two parts.

    Raises
    ------
    NeuroCanvasError
        Naming a shared value.
    """
    first, second = (_values(split, trials, column, part) for part in others)
    shared = np.intersect1d(first, second)
    if len(shared):
        raise NeuroCanvasError(
            f"split {split.name}: {others[0]} and {others[1]} share the {column} {shared[0]}; they must not."
        )


def make_splits(trials: Trials, settings: SplitSettings) -> list[Split]:
    """Split one subject's trials by a protocol.

    - ``by-stimulus``: of every concept, `test_fraction` of the stimuli are held out, with all of their
      trials.
    - ``leave-run-out``: one split per run, which is its test part. Pictures may repeat across runs.
    - ``released``: the first 30 of every 50 trials of a concept train, the last 20 test, as in the released
      code.

    Validation is always cut from the training side. For ``by-stimulus`` and ``released`` it is
    `val_fraction` of each concept's training stimuli. For ``leave-run-out``, where every stimulus repeats
    in every run, it is the last `val_fraction` of the trials of each training run: contiguous, so that
    drift cannot link it to the training trials around it, and from every run, so that it is no easier than
    training on one run and less costly than giving up a whole one.

    Parameters
    ----------
    trials : Trials
        One subject's.
    settings : SplitSettings
        Protocol, fractions, seed, and whether block-confounded scores are accepted.

    Returns
    -------
    list of Split
        One per fold; row numbers count in `trials`.

    Raises
    ------
    NeuroCanvasError
        If there are several subjects, too few stimuli or runs, or if the design is blocked, trials of one
        block would be on both sides, and `accept_block_confound` is not set.
    """
    subjects = np.unique(trials.column("subject"))
    if len(subjects) != 1:
        raise NeuroCanvasError(f"split: trials of one subject are needed; got subjects {subjects.tolist()}.")
    splits = PROTOCOLS[check_option("protocol", settings.protocol, PROTOCOLS)](trials, settings)
    return [_with_warnings(split, trials, settings.accept_block_confound) for split in splits]


def _by_stimulus(trials: Trials, settings: SplitSettings) -> list[Split]:
    """Hold out stimuli of every concept."""
    rng = np.random.default_rng(settings.seed)
    everything = np.arange(len(trials))
    rest, test = _hold_out_stimuli(trials, everything, settings.test_fraction, rng)
    train, val = _hold_out_stimuli(trials, rest, settings.val_fraction, rng)
    split = Split("by-stimulus", train, val, test, _stimulus_rule(settings))
    for parts in (("train", "test"), ("val", "test"), ("train", "val")):
        prove_disjoint(split, trials, "stimulus", parts)
    return [split]


def _released(trials: Trials, settings: SplitSettings) -> list[Split]:
    """First 30, last 20 of every 50 trials of a concept, in the order recorded."""
    position = np.empty(len(trials), dtype=np.int64)
    recorded = _in_recorded_order(trials, np.arange(len(trials)))
    concept = trials.column("concept")[recorded]
    for name in np.unique(concept):
        rows = recorded[concept == name]
        position[rows] = np.arange(len(rows)) % RELEASED_BLOCK
    test = np.flatnonzero(position >= RELEASED_TRAIN)
    if len(test) == 0:
        raise NeuroCanvasError(
            f"protocol released: tests on the trials after the first {RELEASED_TRAIN} of a concept; "
            "none has so many. Use by-stimulus or leave-run-out."
        )
    rng = np.random.default_rng(settings.seed)
    train, val = _hold_out_stimuli(
        trials, np.flatnonzero(position < RELEASED_TRAIN), settings.val_fraction, rng
    )
    split = Split("released", train, val, test, _stimulus_rule(settings))
    prove_disjoint(split, trials, "stimulus", ("train", "val"))
    return [split]


def _leave_run_out(trials: Trials, settings: SplitSettings) -> list[Split]:
    """Test on each run in turn; a run is one (session, run) pair."""
    runs, run_of = np.unique(
        np.stack([trials.column("session"), trials.column("run")], axis=1), axis=0, return_inverse=True
    )
    run_of = run_of.reshape(-1)
    if len(runs) < 2:
        raise NeuroCanvasError("protocol leave-run-out: at least 2 runs are needed; got 1. Use by-stimulus.")
    recorded = _in_recorded_order(trials, np.arange(len(trials)))
    tail = np.zeros(len(trials), dtype=bool)
    for number in range(len(runs)):
        rows = recorded[run_of[recorded] == number]
        tail[rows[len(rows) - max(1, round(settings.val_fraction * len(rows))) :]] = True
    rule = f"the last {settings.val_fraction:.0%} of the trials of each training run"
    several_sessions = len(np.unique(runs[:, 0])) > 1
    splits = []
    for number, (session, run) in enumerate(runs):
        name = (
            f"leave-run-out, session {session} run {run}" if several_sessions else f"leave-run-out, run {run}"
        )
        inside = run_of == number
        train, val, test = (np.flatnonzero(rows) for rows in (~inside & ~tail, ~inside & tail, inside))
        splits.append(Split(name, train, val, test, rule))
    if not several_sessions:
        for split in splits:
            prove_disjoint(split, trials, "run")
            prove_disjoint(split, trials, "run", ("val", "test"))
    return splits


PROTOCOLS: Mapping[str, Callable[[Trials, SplitSettings], list[Split]]] = {
    "by-stimulus": _by_stimulus,
    "leave-run-out": _leave_run_out,
    "released": _released,
}
"""How to split, by name."""


def _with_warnings(split: Split, trials: Trials, accept_block_confound: bool) -> Split:
    """Refuse or mark a split whose test blocks were trained on; mark one whose test pictures were."""
    warnings = list(split.warnings)
    known = np.concatenate([split.train, split.val])
    block, stimulus = trials.column("block"), trials.column("stimulus")
    if is_blocked(trials) and np.isin(block[split.test], block[known]).any():
        if not accept_block_confound:
            raise NeuroCanvasError(
                f"split {split.name}: concepts came in blocks, and trials of one block would train and test, "
                "so drift alone can be decoded; use leave-run-out if concepts repeat across runs, or set "
                "accept_block_confound = true (--accept-block-confound) for results that carry a warning."
            )
        warnings.append(BLOCK_WARNING)
    if np.isin(stimulus[split.test], stimulus[known]).any():
        warnings.append(REPEAT_WARNING)
    return Split(split.name, split.train, split.val, split.test, split.selection, tuple(warnings))


def _hold_out_stimuli(
    trials: Trials, rows: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into those kept and those of held-out stimuli, `fraction` (at least one) per concept."""
    stimulus, first = np.unique(trials.column("stimulus")[rows], return_index=True)
    concept = trials.column("concept")[rows][first]
    held: list[str] = []
    for name in np.unique(concept):
        of_concept = stimulus[concept == name]
        count = max(1, round(fraction * len(of_concept)))
        if count >= len(of_concept):
            raise NeuroCanvasError(
                f"split: concept {name} has {len(of_concept)} stimuli, too few to hold out {fraction:.0%} "
                "and train on the rest; use leave-run-out if every picture was shown in every run."
            )
        held.extend(rng.choice(of_concept, count, replace=False))
    out = np.isin(trials.column("stimulus")[rows], held)
    return rows[~out], rows[out]


def _stimulus_rule(settings: SplitSettings) -> str:
    """Say what the validation part is."""
    return f"{settings.val_fraction:.0%} of each concept's training stimuli, with all of their trials"


def _in_recorded_order(trials: Trials, values: np.ndarray) -> np.ndarray:
    """Sort one value per trial by recording order."""
    return values[np.argsort(trials.column("order"), kind="stable")]


def _values(split: Split, trials: Trials, column: str, part: str) -> np.ndarray:
    """Return what a part of the split holds in a column."""
    return trials.column(column)[split.parts()[part]]
