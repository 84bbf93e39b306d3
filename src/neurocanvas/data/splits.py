"""Folds of training, validation and test trials, proved disjoint by what their protocol promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neurocanvas.artifacts import fingerprint
from neurocanvas.config import SplitSettings, load_settings
from neurocanvas.data.trials import NAMING, Rows, Trials, html_table, ranks, seed_of, unique_names
from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.findings import Finding, finding, listed, read_findings

GAPPED = "within-block-gap"
SAME_ORDER = 0.5  # rank correlation of the concepts' mean places
RELEASED_BLOCK, RELEASED_TRAIN = 50, 30
TRAIN_TEST, VAL_TEST, TRAIN_VAL = ("train", "test"), ("validation", "test"), ("train", "validation")
STIMULUS_RULE = "{:.0%} of each concept's training stimuli, with all of their trials"
# Columns that are numbered anew in every subject (and session) -> the columns that make them unique.
COUNTED_WITHIN = {"session": ("subject",), "run": ("subject", "session"), "block": ("subject", "session")}


@dataclass(frozen=True)
class Fold:
    """Which trials train, validate and test: rows of the trials that the split was made for.

    Parameters
    ----------
    name : str
        Protocol, and the fold where there are several ("leave-run-out, run 2").
    train, validation, test : array of int, shape (n,)
        Sorted row numbers; no row is in two of them.
    selection : str
        What the validation part is: the rule by which epochs and penalties are chosen on it.
    findings : tuple of Finding
        What every result from this fold must report.
    pretrain : array of int, shape (n,)
        Rows to train on before `train`; usually none. Disjoint from the others too.
    names : array of str, optional
        Of the trials that the rows count in: no others can be indexed by them.

    Raises
    ------
    NeuroCanvasError
        If a part but `pretrain` is empty, names a row twice, or shares a row with another.

    Examples
    --------
    >>> Fold("by hand", np.array([0, 1]), np.array([2]), np.array([3]), "trial 2").test.tolist()
    [3]
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    selection: str
    findings: tuple[Finding, ...] = ()
    pretrain: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    names: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        seen: dict[int, str] = {}
        for part, rows in self.parts().items():
            if len(rows) == 0:
                raise NeuroCanvasError(f"split {self.name}: every part needs trials; {part} has none.")
            for row in rows.tolist():
                if row in seen:
                    raise NeuroCanvasError(
                        f"split {self.name}: trial {row} is in {seen[row]} and {part}; only one may hold it."
                    )
                seen[row] = part
            ordered = np.sort(rows).view(Rows)
            ordered.names = self.names
            object.__setattr__(self, part, ordered)

    def parts(self) -> dict[str, np.ndarray]:
        """Return the index arrays by name; `pretrain` only where it has rows."""
        names = ("train", "validation", "test", *(("pretrain",) if len(self.pretrain) else ()))
        return {name: np.asarray(getattr(self, name), dtype=np.int64) for name in names}

    def joined(self) -> Fold:
        """Merge the trials of `pretrain` into `train`, for models that train in one go."""
        rows = np.concatenate([self.pretrain, self.train])
        return replace(self, train=rows, pretrain=rows[:0]) if len(self.pretrain) else self

    def fingerprint(self, names: np.ndarray | None = None) -> str:
        """Hash the name, the index arrays and the selection rule; with names of the trials, these for the arrays."""
        rows = self.parts().values()
        parts = rows if names is None else [sorted(names[one].tolist()) for one in rows]
        return fingerprint(self.name, *parts, self.selection)


@dataclass(frozen=True)
class Split:
    """The folds of one protocol; iterating gives them.

    Parameters
    ----------
    protocol : str
        A key of `PROTOCOLS`.
    folds : tuple of Fold
        No trial is tested in two of them.
    names : array of str, shape (n_trials,)
        Names of the trials in which the folds count.
    """

    protocol: str
    folds: tuple[Fold, ...]
    names: np.ndarray

    def __iter__(self) -> Iterator[Fold]:
        return iter(self.folds)

    def __len__(self) -> int:
        return len(self.folds)

    def __getitem__(self, number: int) -> Fold:
        return self.folds[number]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Findings of all folds, each once."""
        return tuple(dict.fromkeys(one for fold in self.folds for one in fold.findings))

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads: the names of the trials per fold and part, ready for JSON."""
        folds = [
            {
                "name": fold.name, "selection": fold.selection, "findings": listed(fold.findings),
                **{part: self.names[rows].tolist() for part, rows in fold.parts().items()},
            }
            for fold in self.folds
        ]  # fmt: skip
        return {"protocol": self.protocol, "folds": folds}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], trials: Trials) -> Split:
        """Read a split for some trials, which must hold all that it names.

        Parameters
        ----------
        content : mapping
            What `to_dict` gave.
        trials : Trials
            In any order; more than the split names are allowed.

        Returns
        -------
        Split

        Raises
        ------
        NeuroCanvasError
            If a trial is not there, a part is empty, or `content` is not a split.
        """
        folds = []
        try:
            for one in content["folds"]:
                rows = {}
                for part in ("train", "validation", "test", *(("pretrain",) if "pretrain" in one else ())):
                    rows[part] = trials.metadata.index.get_indexer(list(map(str, one[part]))).astype(np.int64)
                    lost = np.flatnonzero(rows[part] < 0)
                    if len(lost):
                        raise NeuroCanvasError(
                            f"split {one['name']}: {part} names trial {one[part][lost[0]]}, which is not among the "
                            f"{len(trials)} trials; open the data that the split was made for, or make it anew."
                        )
                texts: dict[str, Any] = {"name": str(one["name"]), "selection": str(one["selection"])}
                folds.append(Fold(**texts, findings=read_findings(one["findings"]), **rows, names=trials.names))
            return cls(str(content["protocol"]), tuple(folds), trials.names)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise NeuroCanvasError(f"split: not what to_dict gives ({error}); make it anew.") from error

    def _repr_html_(self) -> str:
        parts = "; ".join(
            ", ".join(f"{part} {len(rows)}" for part, rows in fold.parts().items()) for fold in self.folds[:8]
        )
        return html_table({
            "protocol": self.protocol, "folds": str(len(self)), "trials": parts,
            **{f"finding {number}": one.code for number, one in enumerate(self.findings, 1)},
        })  # fmt: skip


def groups(trials: Trials, *columns: str) -> np.ndarray:
    """Group number of every trial, from 0; trials that share all of the columns share one: (n_trials,)."""
    group = np.zeros(len(trials), dtype=np.int64)
    outer = {column: [name for name in COUNTED_WITHIN.get(column, ()) if name in trials.metadata] for column in columns}
    for name in dict.fromkeys(name for column in columns for name in (*outer[column], column)):
        values = trials.column(name)
        code = ranks(values) if name in NAMING else np.unique(values, return_inverse=True)[1]
        group = np.unique(group * (code.max(initial=0) + 1) + code, return_inverse=True)[1]
    return group


def in_recorded_order(trials: Trials) -> np.ndarray:
    """Rows sorted by subject, session and place in the recording, (n_trials,)."""
    where = groups(trials, "session" if "session" in trials.metadata else "subject")
    return np.lexsort([trials.column("order"), where])


def blocked_trials(trials: Trials) -> np.ndarray:
    """Whether the concepts of each trial's session came in blocks, judged by their order: bool, (n_trials,)."""
    recorded, concept = in_recorded_order(trials), groups(trials, "concept")
    session = groups(trials, "session" if "session" in trials.metadata else "subject")
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


def prove_disjoint(fold: Fold, trials: Trials, column: str, *pairs: tuple[str, str]) -> Fold:
    """Raise if two parts of a fold share a value of a column (a session, run or block is that of one subject)."""
    group = groups(trials, column)
    for pair in pairs or (TRAIN_TEST,):
        first, second = (getattr(fold, part) for part in pair)
        shared = first[np.isin(group[first], group[second])]
        if len(shared):
            raise NeuroCanvasError(
                f"split {fold.name}: {pair[0]} and {pair[1]} share the {column} "
                f"{trials.column(column)[shared[group[shared].argmin()]]}; they must not."
            )
    return fold


def make_split(
    trials: Trials,
    protocol: str = "by-stimulus",
    *,
    subject: str | None = None,
    settings: SplitSettings | None = None,
    **options: Any,
) -> Split:
    """Split trials by a protocol so that one subject is tested.

    Validation trials are always cut from the training side, and `Fold.selection` says which they are: whole images
    (``by-stimulus``, ``kfold-by-stimulus``, ``released``), whole subjects (``leave-subject-out``), else the last ones
    of each training block, or of each training run where concepts did not come in blocks: contiguous, so that drift
    links few of them to trials that train.

    Parameters
    ----------
    trials : Trials
        The subject's, and for protocols that use them the others'.
    protocol : str
        A key of `PROTOCOLS`, whose functions say what each of them does.
    subject : str, optional
        The one that is tested; needed where `trials` hold several.
    settings : SplitSettings, optional
        Protocol and options at once, instead of these.
    **options : object
        Fields of `SplitSettings`: fractions, folds, seed, and whether block-confounded scores are accepted.

    Returns
    -------
    Split
        Row numbers count in `trials`. No trial is tested twice.

    Raises
    ------
    NeuroCanvasError
        If the subject is unknown or not named, the data lack what the protocol needs, or if the design is blocked,
        trials of one block would be on both sides, and `accept_block_confound` is not set.

    Examples
    --------
    >>> import neurocanvas as nc
    >>> shown = [f"{concept}{number}" for concept in "ab" for number in range(10)] * 2
    >>> metadata = {"image": np.random.default_rng(0).permutation(shown)}
    >>> concepts = [name[0] for name in metadata["image"]]
    >>> trials = nc.from_arrays(np.ones((40, 2, 50)), concepts, ch_names=["O1", "O2"], sfreq=100, metadata=metadata)
    >>> [len(fold.test) for fold in nc.make_split(trials, "kfold-by-stimulus", folds=2)]
    [20, 20]
    """
    settings = settings or load_settings(None, split={"protocol": protocol, **options}).split
    if not isinstance(trials, Trials):
        raise NeuroCanvasError(f"trials: Trials are needed, see from_arrays; got {type(trials).__name__}.")
    how = PROTOCOLS[check_option("protocol", settings.protocol, PROTOCOLS)]
    for name in ("subject", "concept", "order", "block", *how.needs):
        if name not in trials.metadata:
            raise NeuroCanvasError(
                f"protocol {settings.protocol}: the column {name} is needed; the trials have "
                f"{', '.join(trials.metadata)}. Add it to the metadata, or choose another protocol."
            )
    present = unique_names(trials.column("subject"))
    if subject is None and len(present) != 1:
        raise NeuroCanvasError(
            f"split: trials of one subject are needed, or the one to test; got subjects {', '.join(present)}."
        )
    subject = present[0] if subject is None else check_option("subject", str(subject), present)
    own = np.flatnonzero(trials.column("subject") == subject)
    if len(concepts := np.unique(trials.y[own])) < 2:
        raise NeuroCanvasError(f"split: at least 2 concepts are needed; subject {subject} has only {concepts[0]}.")
    folds = how.split(trials, own, settings)
    return Split(settings.protocol, tuple(_with_findings(trials, own, folds, settings)), trials.names)


def _with_findings(trials: Trials, own: np.ndarray, folds: list[Fold], settings: SplitSettings) -> Iterator[Fold]:
    """Add the findings of each fold; raise if a block is on both sides and that was not accepted."""
    block, blocked, gapped = groups(trials, "block"), blocked_trials(trials), settings.protocol == GAPPED
    image = groups(trials, "image") if "image" in trials.metadata else None
    for fold in folds:
        known, findings = np.concatenate([fold.pretrain, fold.train, fold.validation]), list(fold.findings)
        if np.isin(block[fold.test[blocked[fold.test]]], block[known[blocked[known]]]).any():
            if not settings.accept_block_confound:
                best = "" if gapped else f", best under {GAPPED}"
                raise NeuroCanvasError(
                    f"split {fold.name}: concepts came in blocks, and trials of one block would train and test, so "
                    f"drift alone can be decoded. Test whole blocks by {whole_block_protocols(trials, own)}; or set "
                    f"accept_block_confound = true (--accept-block-confound){best}, for results that carry a warning."
                )
            findings.append(
                finding("gap-on-both-sides", gap=settings.gap) if gapped else finding("block-on-both-sides")
            )
        if image is not None and np.isin(image[fold.test], image[known]).any():
            findings.append(finding("pictures-repeat"))
        if _repeats_order(trials, known[blocked[known]], fold.test[blocked[fold.test]]):
            findings.append(finding("order-repeats"))
        yield replace(fold, findings=tuple(findings), names=trials.names)


def _repeats_order(trials: Trials, known: np.ndarray, test: np.ndarray) -> bool:
    """Whether blocks of concepts came in nearly the same order in the training recordings and in a tested one."""
    recording = groups(trials, next(name for name in ("run", "session", "subject") if name in trials.metadata))
    concept, recorded, place = groups(trials, "concept"), in_recorded_order(trials), np.empty(len(trials))
    for number in np.unique(recording):
        rows = recorded[recording[recorded] == number]
        place[rows] = np.arange(len(rows)) / len(rows)
    test, n = test[~np.isin(recording[test], recording[known])], concept.max() + 1
    means = []  # place of every concept in the training recordings, then in each tested one; NaN where it is missing
    for rows in (known, *(test[recording[test] == number] for number in np.unique(recording[test]))):
        sums, counts = np.bincount(concept[rows], place[rows], n), np.bincount(concept[rows], minlength=n)
        means.append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
    for tested in means[1:]:
        places = np.stack([means[0], tested])
        places = places[:, np.isfinite(places).all(axis=0)]
        if (n_both := places.shape[1]) > 2:
            # 2.33 standard errors of a rank correlation: beyond what one random order in a hundred reaches
            order = places.argsort(axis=1).argsort(axis=1)
            if np.corrcoef(*order)[0, 1] >= min(max(SAME_ORDER, 2.33 / np.sqrt(n_both - 1)), 0.999):
                return True
    return False


def _by_stimulus(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Hold out `test_fraction` of each concept's stimuli, with all of their trials."""
    rng = np.random.default_rng(settings.seed)
    rest, test = _hold_out_images(trials, own, settings.test_fraction, rng)
    train, val = _hold_out_images(trials, rest, settings.val_fraction, rng)
    fold = Fold("by-stimulus", train, val, test, STIMULUS_RULE.format(settings.val_fraction))
    return [prove_disjoint(fold, trials, "image", TRAIN_TEST, VAL_TEST, TRAIN_VAL)]


def _kfold_by_stimulus(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Deal each concept's stimuli into `folds` parts, and test each part in turn."""
    rng = np.random.default_rng(settings.seed)
    image, first = np.unique(trials.column("image")[own], return_index=True)
    concept, part = trials.column("concept")[own][first], np.empty(len(image), dtype=np.int64)
    for name in np.unique(concept):
        (members,) = np.nonzero(concept == name)
        if len(members) < settings.folds:
            raise NeuroCanvasError(
                f"protocol kfold-by-stimulus: concept {name} has {len(members)} stimuli, fewer than {settings.folds} "
                "folds; lower split.folds, or use leave-run-out if every image was shown in every run."
            )
        part[rng.permutation(members)] = np.arange(len(members)) % settings.folds
    part_of = part[np.searchsorted(image, trials.column("image")[own])]
    folds = []
    for number in range(settings.folds):
        train, val = _hold_out_images(trials, own[part_of != number], settings.val_fraction, rng)
        name = f"kfold-by-stimulus, fold {number}"
        fold = Fold(name, train, val, own[part_of == number], STIMULUS_RULE.format(settings.val_fraction))
        folds.append(prove_disjoint(fold, trials, "image", TRAIN_TEST, VAL_TEST, TRAIN_VAL))
    return folds


def _leave_run_out(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Test each run in turn; images may repeat across runs, so no stimulus can be held out for validation."""
    run = groups(trials, "run")
    session = trials.column("session") if "session" in trials.metadata else np.full(len(trials), "0")
    several_sessions = len(np.unique(session[own])) > 1
    if len(np.unique(run[own])) < 2:
        raise NeuroCanvasError("protocol leave-run-out: at least 2 runs are needed; got 1. Use by-stimulus.")
    folds = []
    for number in np.unique(run[own]):
        test = own[run[own] == number]
        where = f"run {trials.column('run')[test[0]]}"
        name = f"leave-run-out, session {session[test[0]]} {where}" if several_sessions else f"leave-run-out, {where}"
        train, val, rule = _cut_tails(trials, own[run[own] != number], settings.val_fraction)
        folds.append(prove_disjoint(Fold(name, train, val, test, rule), trials, "run", TRAIN_TEST, VAL_TEST))
    return folds


def _leave_block_out(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Fold]:
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
    folds = []
    for number in range(turn[own].max() + 1):
        train, val, rule = _cut_tails(trials, own[turn[own] != number], settings.val_fraction)
        name = f"leave-block-out, block {number} of every concept"
        fold = Fold(name, train, val, own[turn[own] == number], rule)
        folds.append(prove_disjoint(fold, trials, "block", TRAIN_TEST, VAL_TEST))
    return folds


def _leave_session_out(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Test each session in turn, trained on the subject's others: CrossPT's cross-time where there are two."""
    check_sessions(trials, own, "leave-session-out")
    session = trials.column("session")[own]
    folds = []
    for number in unique_names(session):
        train, val, rule = _cut_tails(trials, own[session != number], settings.val_fraction)
        test, lost = _trained_concepts(trials, own[session == number], train)
        fold = Fold(f"leave-session-out, session {number}", train, val, test, rule, lost)
        folds.append(prove_disjoint(fold, trials, "session", TRAIN_TEST, VAL_TEST))
    return folds


def _leave_subject_out(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Test all trials of the subject, trained on others and chosen on yet others: CrossPT's cross-participant."""
    subject = trials.column("subject")
    tested, present = str(subject[own[0]]), np.array(unique_names(subject))
    others = present[present != tested]
    if len(others) < 2:
        raise NeuroCanvasError(
            f"protocol leave-subject-out: at least 3 subjects are needed, to test, train and validate; got "
            f"{', '.join(present)}."
        )
    count = min(max(1, round(settings.val_fraction * len(others))), len(others) - 1)
    chosen = np.random.default_rng([settings.seed, seed_of(tested)]).choice(others, count, replace=False)
    val = np.flatnonzero(np.isin(subject, chosen))
    train = np.flatnonzero(np.isin(subject, np.setdiff1d(others, chosen)))
    test, lost = _trained_concepts(trials, own, train)
    rule = f"all trials of subjects {', '.join(unique_names(chosen))}, who do not train"
    fold = Fold(f"leave-subject-out, subject {tested}", train, val, test, rule, lost)
    return [prove_disjoint(fold, trials, "subject", TRAIN_TEST, VAL_TEST, TRAIN_VAL)]


def _pretrain_finetune(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Pre-train on others' first sessions, fine-tune on the subject's own, test its later ones: CrossPT's PT."""
    check_sessions(trials, own, "pretrain-finetune")
    subject, code, session = trials.column("subject"), groups(trials, "subject"), groups(trials, "session")
    if not code.any():
        raise NeuroCanvasError("protocol pretrain-finetune: other subjects are needed to pre-train on; got none.")
    starts = np.array([session[code == one].min() for one in range(code.max() + 1)])
    first = session == starts[code]
    pretrain = np.flatnonzero(first & (subject != subject[own[0]]))
    train, val, rule = _cut_tails(trials, own[first[own]], settings.val_fraction)
    test, lost = _trained_concepts(trials, own[~first[own]], np.concatenate([pretrain, train]))
    name = f"pretrain-finetune, subject {subject[own[0]]}"
    fold = Fold(name, train, val, test, f"{rule}, of the subject's own first session", lost, pretrain)
    prove_disjoint(fold, trials, "session", TRAIN_TEST, VAL_TEST)
    return [prove_disjoint(fold, trials, "subject", *(("pretrain", part) for part in ("train", "validation", "test")))]


def _released(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Train on the first 30 of every 50 trials of a concept in a session, test the last 20, as in the released code."""
    # Only validation is proved: train and test share blocks and may share stimuli, as in the released code.
    place = _places(trials, own, "released") % RELEASED_BLOCK
    rng = np.random.default_rng(settings.seed)
    train, val = _hold_out_images(trials, own[place < RELEASED_TRAIN], settings.val_fraction, rng)
    fold = Fold("released", train, val, own[place >= RELEASED_TRAIN], STIMULUS_RULE.format(settings.val_fraction))
    return [prove_disjoint(fold, trials, "image", TRAIN_VAL)]


def _within_block_gap(trials: Trials, own: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Fold as `released` does, without the `gap` trials before every test part, and those after it."""
    turn, place = np.divmod(_places(trials, own, "within-block-gap"), RELEASED_BLOCK)
    until = RELEASED_TRAIN - settings.gap
    starts = until - min(max(1, round(settings.val_fraction * until)), until - 1)
    far = (place < until) & ((turn == 0) | (place >= settings.gap))
    train, val, test = own[far & (place < starts)], own[far & (place >= starts)], own[place >= RELEASED_TRAIN]
    rule = f"the last {until - starts} of the {until} training trials of each block"
    return [Fold("within-block-gap", train, val, test, rule)]


@dataclass(frozen=True)
class Protocol:
    """How to split: a row of `PROTOCOLS`."""

    split: Callable[[Trials, np.ndarray, SplitSettings], list[Fold]]  # all trials, rows of the tested subject
    needs: tuple[str, ...] = ()  # columns beside subject, order, block and concept
    uses_others: bool = False  # whether other subjects' trials train


# What each protocol does, its function says.
PROTOCOLS: Mapping[str, Protocol] = {
    "by-stimulus": Protocol(_by_stimulus, ("image",)),
    "kfold-by-stimulus": Protocol(_kfold_by_stimulus, ("image",)),
    "leave-run-out": Protocol(_leave_run_out, ("run",)),
    "leave-block-out": Protocol(_leave_block_out),
    "leave-session-out": Protocol(_leave_session_out, ("session",)),
    "leave-subject-out": Protocol(_leave_subject_out, uses_others=True),
    "pretrain-finetune": Protocol(_pretrain_finetune, ("session",), uses_others=True),
    "within-block-gap": Protocol(_within_block_gap),
    "released": Protocol(_released, ("image",)),
}


def check_sessions(trials: Trials, own: np.ndarray, protocol: str) -> None:
    """Raise unless the subject has several sessions."""
    subject, session = trials.column("subject"), trials.column("session")
    if len(np.unique(session[own])) > 1:
        return
    more = [one for one in unique_names(subject) if len(np.unique(session[subject == one])) > 1]
    raise NeuroCanvasError(
        f"protocol {protocol}: at least 2 sessions are needed; subject {subject[own[0]]} has one. "
        + (f"Subjects with more: {', '.join(more)}." if more else "No subject that is open has more; -s -1 opens all.")
    )


def testable_subjects(trials: Trials, protocol: str) -> list[str]:
    """Subjects that a protocol can test: some need a second session, or a second block of every concept."""
    subject = trials.column("subject")
    everyone = unique_names(subject)
    if protocol == "leave-block-out":
        blocks = np.unique(np.stack([groups(trials, name) for name in ("subject", "concept", "block")]), axis=1)
        counted, n_blocks = np.unique(blocks[:2], axis=1, return_counts=True)
        found = [one for place, one in enumerate(everyone) if n_blocks[counted[0] == place].min() > 1]
    elif "session" in PROTOCOLS[protocol].needs:
        sessions = trials.column("session")
        found = [one for one in everyone if len(np.unique(sessions[subject == one])) > 1]
    else:
        found = everyone
    return found or everyone  # where none qualifies, trying one says what is missing


def whole_block_protocols(trials: Trials, own: np.ndarray) -> str:
    """Names of the protocols that keep blocks whole and that the trials allow."""
    sessions, runs = (
        len(np.unique(trials.column(name)[own])) if name in trials.metadata else 1 for name in ("session", "run")
    )
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


def _hold_out_images(
    trials: Trials, rows: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Fold rows: the rest, and all trials of the held-out stimuli, `fraction` (at least one) per concept."""
    stimulus, first = np.unique(trials.column("image")[rows], return_index=True)
    concept = trials.column("concept")[rows][first]
    held: list[str] = []
    for name in np.unique(concept):
        of_concept = stimulus[concept == name]
        count = max(1, round(fraction * len(of_concept)))
        if count >= len(of_concept):
            raise NeuroCanvasError(
                f"split: concept {name} has {len(of_concept)} stimuli, too few to hold out {fraction:.0%} "
                "and train on the rest; use leave-run-out if every image was shown in every run."
            )
        held.extend(rng.choice(of_concept, count, replace=False))
    out = np.isin(trials.column("image")[rows], held)
    return rows[~out], rows[out]


def _cut_tails(trials: Trials, rows: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray, str]:
    """Training rows, validation rows (the last of each block, or of each run in mixed order), and the rule in words."""
    # Contiguous tails, so that drift links few validation trials to training trials.
    blocked, block = blocked_trials(trials), groups(trials, "block")
    recording = groups(trials, next(name for name in ("run", "session", "subject") if name in trials.metadata))
    stretch = np.where(blocked, block, block.max() + 1 + recording)
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


def _trained_concepts(trials: Trials, test: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, tuple[Finding, ...]]:
    """Test trials whose concepts are trained on, and a finding if others are left out."""
    concept = trials.column("concept")
    trained = np.isin(concept[test], concept[train])
    lost = int(np.sum(~trained))
    return test[trained], (finding("untrained-concepts", n=lost),) if lost else ()


def _places(trials: Trials, own: np.ndarray, protocol: str) -> np.ndarray:
    """Place of each of the subject's rows among the trials of its concept and session, as recorded."""
    recorded = in_recorded_order(trials)
    group = groups(trials, "session" if "session" in trials.metadata else "subject", "concept")
    place = np.empty(len(trials), dtype=np.int64)
    for number in np.unique(group[own]):
        rows = recorded[group[recorded] == number]
        place[rows] = np.arange(len(rows))
    if not (place[own] >= RELEASED_TRAIN).any():
        raise NeuroCanvasError(
            f"protocol {protocol}: tests on the trials after the first {RELEASED_TRAIN} of a concept; "
            "no concept has more. Use by-stimulus or leave-run-out."
        )
    return place[own]
