"""The protocols, one function each: trials, rows of the tested subject, settings -> one proved split per fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from neurocanvas.config import SplitSettings
from neurocanvas.datasets.splits import Split, blocked_trials, groups, in_recorded_order, prove_disjoint
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.trials import Trials

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
