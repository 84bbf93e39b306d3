"""Train, validation and test index sets, proved disjoint by what their protocol promises, and their warnings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from neurocanvas.artifacts import fingerprint
from neurocanvas.config import SplitSettings
from neurocanvas.data.trials import Trials
from neurocanvas.errors import NeuroCanvasError, check_option

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


def prove_disjoint(split: Split, trials: Trials, column: str, others: tuple[str, str] = ("train", "test")) -> None:
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


RELEASED_BLOCK, RELEASED_TRAIN = 50, 30
TRAIN_TEST, VAL_TEST, TRAIN_VAL = ("train", "test"), ("val", "test"), ("train", "val")


def _by_stimulus(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Split]:
    """Hold out `test_fraction` of each concept's stimuli, with all of their trials."""
    rng = np.random.default_rng(settings.seed)
    rest, test = _hold_out_stimuli(trials, own, settings.test_fraction, rng)
    train, val = _hold_out_stimuli(trials, rest, settings.val_fraction, rng)
    split = Split("by-stimulus", train, val, test, _stimulus_rule(settings))
    return [_proved(split, trials, "stimulus", TRAIN_TEST, VAL_TEST, TRAIN_VAL)]


def _kfold_by_stimulus(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Split]:
    """Deal each concept's stimuli into `folds` parts, and test each part in turn."""
    rng = np.random.default_rng(settings.seed)
    stimulus, first = np.unique(trials.column("stimulus")[own], return_index=True)
    concept, fold = trials.column("concept")[own][first], np.empty(len(stimulus), dtype=np.int64)
    for name in np.unique(concept):
        (members,) = np.nonzero(concept == name)
        if len(members) < settings.folds:
            raise NeuroCanvasError(
                f"protocol kfold-by-stimulus: concept {name} has {len(members)} stimuli, fewer than {settings.folds} "
                "folds; lower split.folds, or use leave-run-out if every picture was shown in every run."
            )
        fold[rng.permutation(members)] = np.arange(len(members)) % settings.folds
    fold_of = fold[np.searchsorted(stimulus, trials.column("stimulus")[own])]
    splits = []
    for number in range(settings.folds):
        train, val = _hold_out_stimuli(trials, own[fold_of != number], settings.val_fraction, rng)
        name = f"kfold-by-stimulus, fold {number}"
        split = Split(name, train, val, own[fold_of == number], _stimulus_rule(settings))
        splits.append(_proved(split, trials, "stimulus", TRAIN_TEST, VAL_TEST, TRAIN_VAL))
    return splits


def _leave_run_out(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Split]:
    """Test each run in turn; pictures may repeat across runs, so no stimulus can be held out for validation."""
    run, session = groups(trials, "run"), trials.column("session")
    several_sessions = len(np.unique(session[own])) > 1
    if len(np.unique(run[own])) < 2:
        raise NeuroCanvasError("protocol leave-run-out: at least 2 runs are needed; got 1. Use by-stimulus.")
    splits = []
    for number in np.unique(run[own]):
        test = own[run[own] == number]
        where = f"run {trials.column('run')[test[0]]}"
        name = f"leave-run-out, session {session[test[0]]} {where}" if several_sessions else f"leave-run-out, {where}"
        train, val, rule = _cut_tails(trials, own[run[own] != number], settings.val_fraction)
        splits.append(_proved(Split(name, train, val, test, rule), trials, "run", TRAIN_TEST, VAL_TEST))
    return splits


def _leave_block_out(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Split]:
    """Test the k-th block of every concept in fold k."""
    if not blocked_trials(trials)[own].all():
        raise NeuroCanvasError(
            "protocol leave-block-out: concepts must come in blocks in every session; here they come in mixed order. "
            "Use by-stimulus or kfold-by-stimulus."
        )
    block, concept, turn = groups(trials, "block"), trials.column("concept"), np.empty(len(trials), dtype=np.int64)
    recorded = in_recorded_order(trials)
    recorded = recorded[np.isin(recorded, own)]
    for name in np.unique(concept[own]):
        rows = recorded[concept[recorded] == name]
        blocks = list(dict.fromkeys(block[rows].tolist()))
        if len(blocks) < 2:
            raise NeuroCanvasError(
                f"protocol leave-block-out: concept {name} has one block only. Use "
                f"{whole_block_protocols(trials, own)}; or within-block-gap with accept_block_confound = true."
            )
        turn[rows] = [blocks.index(one) for one in block[rows]]
    splits = []
    for number in range(turn[own].max() + 1):
        train, val, rule = _cut_tails(trials, own[turn[own] != number], settings.val_fraction)
        name = f"leave-block-out, block {number} of every concept"
        split = Split(name, train, val, own[turn[own] == number], rule)
        splits.append(_proved(split, trials, "block", TRAIN_TEST, VAL_TEST))
    return splits


def _leave_session_out(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Split]:
    """Test each session in turn, trained on the subject's others: CrossPT's cross-time where there are two."""
    check_sessions(trials, own, "leave-session-out")
    session = trials.column("session")[own]
    splits = []
    for number in np.unique(session):
        train, val, rule = _cut_tails(trials, own[session != number], settings.val_fraction)
        test, lost = _trained_concepts(trials, own[session == number], train)
        split = Split(f"leave-session-out, session {number}", train, val, test, rule, lost)
        splits.append(_proved(split, trials, "session", TRAIN_TEST, VAL_TEST))
    return splits


def _leave_subject_out(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Split]:
    """Test all trials of the subject, trained on others and chosen on yet others: CrossPT's cross-participant."""
    subject = trials.column("subject")
    tested, present = subject[own[0]], np.unique(subject)
    others = present[present != tested]
    if len(others) < 2:
        raise NeuroCanvasError(
            f"protocol leave-subject-out: at least 3 subjects are needed, to test, train and validate; got "
            f"{present.tolist()}."
        )
    count = min(max(1, round(settings.val_fraction * len(others))), len(others) - 1)
    chosen = np.random.default_rng([settings.seed, tested]).choice(others, count, replace=False)
    val = np.flatnonzero(np.isin(subject, chosen))
    train = np.flatnonzero(np.isin(subject, np.setdiff1d(others, chosen)))
    test, lost = _trained_concepts(trials, own, train)
    rule = f"all trials of subjects {', '.join(map(str, np.sort(chosen)))}, who do not train"
    split = Split(f"leave-subject-out, subject {tested}", train, val, test, rule, lost)
    return [_proved(split, trials, "subject", TRAIN_TEST, VAL_TEST, TRAIN_VAL)]


def _pretrain_finetune(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Split]:
    """Pre-train on others' first sessions, fine-tune on the subject's own, test its later ones: CrossPT's PT."""
    check_sessions(trials, own, "pretrain-finetune")
    subject, session = trials.column("subject"), trials.column("session")
    present, code = np.unique(subject, return_inverse=True)
    if len(present) < 2:
        raise NeuroCanvasError("protocol pretrain-finetune: other subjects are needed to pre-train on; got none.")
    starts = np.array([session[subject == one].min() for one in present])
    first = session == starts[code]
    pretrain = np.flatnonzero(first & (subject != subject[own[0]]))
    train, val, rule = _cut_tails(trials, own[first[own]], settings.val_fraction)
    test, lost = _trained_concepts(trials, own[~first[own]], np.concatenate([pretrain, train]))
    name = f"pretrain-finetune, subject {subject[own[0]]}"
    split = Split(name, train, val, test, f"{rule}, of the subject's own first session", lost, pretrain)
    _proved(split, trials, "session", TRAIN_TEST, VAL_TEST)
    return [_proved(split, trials, "subject", *(("pretrain", part) for part in ("train", "val", "test")))]


def _released(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Split]:
    """Train on the first 30 of every 50 trials of a concept in a session, test the last 20, as in the released code."""
    # Only validation is proved: train and test share blocks and may share stimuli, as in the released code.
    place = _places(trials, own, "released") % RELEASED_BLOCK
    rng = np.random.default_rng(settings.seed)
    train, val = _hold_out_stimuli(trials, own[place < RELEASED_TRAIN], settings.val_fraction, rng)
    split = Split("released", train, val, own[place >= RELEASED_TRAIN], _stimulus_rule(settings))
    return [_proved(split, trials, "stimulus", TRAIN_VAL)]


def _within_block_gap(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Split]:
    """Split as `released` does, without the `gap` trials before every test part, and those after it."""
    turn, place = np.divmod(_places(trials, own, "within-block-gap"), RELEASED_BLOCK)
    until = RELEASED_TRAIN - settings.gap
    starts = until - min(max(1, round(settings.val_fraction * until)), until - 1)
    far = (place < until) & ((turn == 0) | (place >= settings.gap))
    train, val, test = own[far & (place < starts)], own[far & (place >= starts)], own[place >= RELEASED_TRAIN]
    rule = f"the last {until - starts} of the {until} training trials of each block"
    return [Split("within-block-gap", train, val, test, rule)]


# How to split, by name.
PROTOCOLS: Mapping[str, Callable[[Trials, np.ndarray, SplitSettings], list[Split]]] = {
    "by-stimulus": _by_stimulus,
    "kfold-by-stimulus": _kfold_by_stimulus,
    "leave-run-out": _leave_run_out,
    "leave-block-out": _leave_block_out,
    "leave-session-out": _leave_session_out,
    "leave-subject-out": _leave_subject_out,
    "pretrain-finetune": _pretrain_finetune,
    "within-block-gap": _within_block_gap,
    "released": _released,
}


def check_sessions(trials: Trials, own: np.ndarray, protocol: str) -> None:
    """Raise unless the subject has several sessions."""
    subject, session = trials.column("subject"), trials.column("session")
    if len(np.unique(session[own])) > 1:
        return
    more = [str(one) for one in np.unique(subject) if len(np.unique(session[subject == one])) > 1]
    raise NeuroCanvasError(
        f"protocol {protocol}: at least 2 sessions are needed; subject {subject[own[0]]} has one. "
        + (f"Subjects with more: {', '.join(more)}." if more else "No subject that is open has more; -s -1 opens all.")
    )


def testable_subjects(trials: Trials, protocol: str) -> list[int]:
    """Subjects that a protocol can test: some need a second session, or a second block of every concept."""
    subject, concept = trials.column("subject"), trials.column("concept")
    everyone: list[int] = np.unique(subject).tolist()
    if protocol == "leave-block-out":
        codes = np.unique(concept, return_inverse=True)[1]
        blocks = np.unique(np.stack([subject, codes, groups(trials, "block")]), axis=1)
        counted, n_blocks = np.unique(blocks[:2], axis=1, return_counts=True)
        found = [one for one in everyone if n_blocks[counted[0] == one].min() > 1]
    elif protocol in ("leave-session-out", "pretrain-finetune"):
        sessions = trials.column("session")
        found = [one for one in everyone if len(np.unique(sessions[subject == one])) > 1]
    else:
        found = everyone
    return found or everyone  # where none qualifies, trying one says what is missing


def whole_block_protocols(trials: Trials, own: np.ndarray) -> str:
    """Names of the protocols that keep blocks whole and that the trials allow."""
    sessions, runs = (len(np.unique(trials.column(name)[own])) for name in ("session", "run"))
    concept, block = trials.column("concept")[own], groups(trials, "block")[own]
    fewest = min(len(np.unique(block[concept == name])) for name in np.unique(concept))
    enough = len(np.unique(trials.column("subject"))) > 2
    allowed = {
        "leave-block-out": fewest > 1 and bool(blocked_trials(trials)[own].all()),
        "leave-run-out": runs > 1,
        "leave-session-out": sessions > 1,
        "leave-subject-out": enough,
        "leave-subject-out (where there are 3 subjects)": not enough,
    }
    return ", ".join(name for name, holds in allowed.items() if holds)


def _proved(split: Split, trials: Trials, column: str, *pairs: tuple[str, str]) -> Split:
    """Return the split if the pairs of parts share no value of the column."""
    for pair in pairs:
        prove_disjoint(split, trials, column, pair)
    return split


def _hold_out_stimuli(
    trials: Trials, rows: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows: the rest, and all trials of the held-out stimuli, `fraction` (at least one) per concept."""
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
    return f"{settings.val_fraction:.0%} of each concept's training stimuli, with all of their trials"


def _cut_tails(trials: Trials, rows: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray, str]:
    """Training rows, validation rows (the last of each block, or of each run in mixed order), and the rule in words."""
    # Contiguous tails, so that drift links few validation trials to training trials.
    blocked, block = blocked_trials(trials), groups(trials, "block")
    stretch = np.where(blocked, block, block.max() + 1 + groups(trials, "run"))
    recorded = in_recorded_order(trials)
    recorded = recorded[np.isin(recorded, rows)]
    tail = np.zeros(len(trials), dtype=bool)
    for number in np.unique(stretch[rows]):
        members = recorded[stretch[recorded] == number]
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        tail[members[len(members) - count :]] = True
    kinds = [kind for kind, is_there in (("block", blocked[rows].any()), ("run", not blocked[rows].all())) if is_there]
    rule = f"the last {fraction:.0%} of the trials of each training {' or '.join(kinds)}"
    return rows[~tail[rows]], rows[tail[rows]], rule


def _trained_concepts(trials: Trials, test: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Test trials whose concepts are trained on, and a warning if others are left out."""
    concept = trials.column("concept")
    trained = np.isin(concept[test], concept[train])
    lost = int(np.sum(~trained))
    return test[trained], (f"{lost} test trials are left out: their concepts have no training trials.",) if lost else ()


def _places(trials: Trials, own: np.ndarray, protocol: str) -> np.ndarray:
    """Place of each of the subject's rows among the trials of its concept and session, as recorded."""
    recorded, group = in_recorded_order(trials), groups(trials, "session", "concept")
    place = np.empty(len(trials), dtype=np.int64)
    for number in np.unique(group[own]):
        rows = recorded[group[recorded] == number]
        place[rows] = np.arange(len(rows))
    if not (place[own] >= RELEASED_TRAIN).any():
        raise NeuroCanvasError(
            f"protocol {protocol}: tests on the trials after the first {RELEASED_TRAIN} of a concept; "
            "none has so many. Use by-stimulus or leave-run-out."
        )
    return place[own]
