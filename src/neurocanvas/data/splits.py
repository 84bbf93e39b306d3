"""Folds of training, validation and test trials, checked to be disjoint as their protocol requires."""

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
    """Group number of every trial, from 0, in natural order; trials that share all columns share a group."""
    outer = [name for column in columns for name in COUNTED_WITHIN.get(column, ()) if name in trials.metadata]
    values = {name: trials.column(name) for name in (*outer, *columns)}
    codes = [ranks(v) if name in NAMING else np.unique(v, return_inverse=True)[1] for name, v in values.items()]
    joint = np.ravel_multi_index(codes, [code.max(initial=0) + 1 for code in codes])
    return np.unique(joint, return_inverse=True)[1].reshape(-1)


def _recordings(trials: Trials, *columns: str) -> np.ndarray:
    """Group numbers by the first of some columns that the trials have, else by subject."""
    return groups(trials, next(name for name in (*columns, "subject") if name in trials.metadata))


def in_recorded_order(trials: Trials) -> np.ndarray:
    """Rows sorted by subject, session, run and order, (n_trials,); the order may start anew in every run."""
    order, run = trials.column("order"), _recordings(trials, "run", "session")
    first = np.full(run.max(initial=0) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, run, order)
    return np.lexsort([order, run, first[run], _recordings(trials, "session")])


def _positions(trials: Trials, group: np.ndarray) -> np.ndarray:
    """Position of every trial within its group, from 0, as recorded."""
    import pandas as pd

    recorded, position = in_recorded_order(trials), np.empty(len(trials), dtype=np.int64)
    position[recorded] = pd.Series(recorded).groupby(group[recorded]).cumcount()
    return position


# Repeats of a concept in a row, in standard deviations above their number in random order, from which a run is blocked.
TOO_MANY_REPEATS = 4.0


def excess_repeats(concept: np.ndarray) -> tuple[float, float]:
    """Repeats in a row above their expected number in random order, and the variance of that number [Mood1940]."""
    n, counts = len(concept), np.unique(concept, return_counts=True)[1].astype(np.float64)
    if n < 2:
        return 0.0, 0.0
    squares, cubes = float(np.sum(counts**2)), float(np.sum(counts**3))
    variance = (squares * (squares + n * (n + 1)) - 2 * n * cubes - float(n) ** 3) / (n**2 * (n - 1))
    return float(np.count_nonzero(concept[1:] == concept[:-1])) - (squares / n - 1), max(0.0, variance)


def blocked_trials(trials: Trials) -> np.ndarray:
    """Whether the concepts of each trial's run came in blocks or mini-blocks, judged by their order: (n_trials,)."""
    # Every run by itself, as a session may hold blocked runs beside mixed ones; then what is left of the session as a
    # whole, as the excess of one short run may lie within chance.
    recorded, concept, session = in_recorded_order(trials), groups(trials, "concept"), _recordings(trials, "session")
    run = _recordings(trials, "run", "session")
    blocked = np.zeros(len(trials), dtype=bool)
    for number in np.unique(session):
        rows = recorded[session[recorded] == number]
        runs = [rows[run[rows] == one] for one in np.unique(run[rows])]
        excess, variance = np.array([excess_repeats(concept[of_run]) for of_run in runs]).T
        too_many = excess > TOO_MANY_REPEATS * np.sqrt(variance)
        rest = ~too_many & (variance > 0)
        too_many |= rest & (excess[rest].sum() > TOO_MANY_REPEATS * np.sqrt(variance[rest].sum()))
        for place in np.flatnonzero(too_many & (variance > 0)):
            blocked[runs[place]] = True
    return blocked


# What permutations exchange, the largest unit first.
EXCHANGED = ("concepts", "blocks", "images", "trials")


def exchangeable_units(trials: Trials, fold: Fold) -> tuple[str, np.ndarray]:
    """What permutations exchange among the test trials of a fold (one of `EXCHANGED`), and the unit of each."""
    # A unit is what could have been assigned differently under the null hypothesis. Predictions for one image are alike
    # in all of its showings, and those for one concept where nothing of the subject, or of the concept, trained: a
    # chance match would count as often as it was shown. Where the same images train, showings are independent.
    test, fitted = fold.test, np.concatenate([fold.pretrain, fold.train, fold.validation])

    def trained(column: str) -> np.ndarray:
        return np.isin(trials.column(column)[test], trials.column(column)[fitted])

    if not trained("subject").any() or not trained("concept").any():
        return "concepts", groups(trials, "subject", "concept")[test]
    if blocked_trials(trials)[test].any():
        return "blocks", groups(trials, "block")[test]
    if "image" in trials.metadata and not (known := trained("image")).all():
        images = np.where(known, len(trials) + np.arange(len(test)), groups(trials, "subject", "image")[test])
        if len(np.unique(images)) < len(test):
            return "images", images
    return "trials", test


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
    protocol: str = "auto",
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
        A key of `PROTOCOLS`, whose functions say what each of them does; "auto": the first of `CHOICES` that these
        trials allow.
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
    check_option("protocol", settings.protocol, ["auto", *PROTOCOLS])
    present = unique_names(trials.column("subject"))
    if subject is None and len(present) != 1:
        raise NeuroCanvasError(
            f"split: trials of one subject are needed, or the one to test; got subjects {', '.join(present)}."
        )
    subject = present[0] if subject is None else check_option("subject", str(subject), present)
    if settings.protocol == "auto":
        settings = settings.model_copy(update={"protocol": choose_protocol(trials, settings, subject)[0]})
    try:
        return _split(trials, subject, settings)
    except NeuroCanvasError as error:
        works = [name for name in (*CHOICES, "leave-session-out", "leave-subject-out")
                 if name != settings.protocol and _refusal(trials, subject, settings, name) is None]  # fmt: skip
        advice = f"For these trials, {' or '.join(works)} can be used (--protocol)."
        if not works:
            others = "" if len(present) > 2 else "; with 3 subjects or more, leave-subject-out could"
            advice = f"No other protocol can be used for these trials{others}."
        raise NeuroCanvasError(f"{error} {advice}") from error


def _split(trials: Trials, subject: str, settings: SplitSettings) -> Split:
    """Split by a protocol of the settings."""
    how = PROTOCOLS[settings.protocol]
    for name in ("subject", "concept", "order", "block", *how.needs):
        if name not in trials.metadata:
            raise NeuroCanvasError(
                f"protocol {settings.protocol}: the column {name} is needed; the trials have "
                f"{', '.join(trials.metadata)}. Add it to the metadata."
            )
    rows = np.flatnonzero(trials.column("subject") == subject)
    if len(concepts := np.unique(trials.y[rows])) < 2:
        raise NeuroCanvasError(f"split: at least 2 concepts are needed; subject {subject} has only {concepts[0]}.")
    folds = how.split(trials, rows, settings)
    for fold in folds:
        for column, pairs in how.disjoint.items():
            prove_disjoint(fold, trials, column, *pairs)
    return Split(settings.protocol, tuple(_with_findings(trials, folds, settings)), trials.names)


def _refusal(trials: Trials, subject: str, settings: SplitSettings, protocol: str) -> str | None:
    """Why a protocol cannot split these trials; None if it can."""
    try:
        _split(trials, subject, settings.model_copy(update={"protocol": protocol, "accept_block_confound": False}))
    except NeuroCanvasError as error:
        return str(error)
    return None


def choose_protocol(trials: Trials, settings: SplitSettings, subject: str | None = None) -> tuple[str, str]:
    """The first of `CHOICES` that can test every subject, or this one; and why the first one cannot, if it cannot."""
    subjects = unique_names(trials.column("subject")) if subject is None else [subject]
    first = ""
    for name in CHOICES:
        reasons = [reason for one in subjects if (reason := _refusal(trials, one, settings, name))]
        if not reasons:
            return name, first
        first = first or reasons[0].split(";")[0].split(". ")[0]
    return CHOICES[0], ""  # its refusal says why


def _with_findings(trials: Trials, folds: list[Fold], settings: SplitSettings) -> Iterator[Fold]:
    """Add the findings of each fold; raise if a block is on both sides and that was not accepted."""
    block, blocked, gapped = groups(trials, "block"), blocked_trials(trials), settings.protocol == GAPPED
    image = trials.column("image") if "image" in trials.metadata else None
    for fold in folds:
        fitted = np.concatenate([fold.pretrain, fold.train, fold.validation])
        findings = [*trials.findings, *fold.findings]
        train, test = fitted[blocked[fitted]], fold.test[blocked[fold.test]]
        if np.isin(block[test], block[train]).any():
            if not settings.accept_block_confound:
                best = "" if gapped else f", best under {GAPPED}"
                raise NeuroCanvasError(
                    f"split {fold.name}: concepts came in blocks, and trials of one block would train and test, so "
                    f"drift alone can be decoded. Set "
                    f"accept_block_confound = true (--accept-block-confound){best}, for results that carry a warning."
                )
            gap = finding("gap-on-both-sides", gap=settings.gap)
            findings.append(gap if gapped else finding("block-on-both-sides"))
        if image is not None and np.isin(image[fold.test], image[fitted]).any():
            findings.append(finding("pictures-repeat"))
        if repeats_order(trials, train, test):
            findings.append(finding("order-repeats"))
        yield replace(fold, findings=tuple(findings), names=trials.names)


def repeats_order(trials: Trials, train: np.ndarray, test: np.ndarray) -> bool:
    """Whether blocks of concepts came in nearly the same order in the training recordings and in a tested one."""
    import pandas as pd

    recording = _recordings(trials, "run", "session")
    position = _positions(trials, recording) / np.bincount(recording)[recording]
    test = test[~np.isin(recording[test], recording[train])]
    concept = trials.y
    trained = pd.Series(position[train]).groupby(concept[train]).mean()
    for number in np.unique(recording[test]):
        rows = test[recording[test] == number]
        tested = pd.Series(position[rows]).groupby(concept[rows]).mean()
        means = pd.concat([trained, tested], axis=1, join="inner")
        if len(means) > 2:
            # 2.33 standard errors of a rank correlation: beyond what one random order in a hundred reaches
            limit = min(max(SAME_ORDER, 2.33 / np.sqrt(len(means) - 1)), 0.999)
            if means.rank().corr().iloc[0, 1] >= limit:
                return True
    return False


def _by_stimulus(trials: Trials, rows: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Hold out `test_fraction` of each concept's stimuli, with all of their trials."""
    rng = np.random.default_rng(settings.seed)
    rest, test = _hold_out_images(trials, rows, settings.test_fraction, rng)
    train, val = _hold_out_images(trials, rest, settings.val_fraction, rng)
    return [Fold("by-stimulus", train, val, test, STIMULUS_RULE.format(settings.val_fraction))]


def _kfold_by_stimulus(trials: Trials, rows: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Deal each concept's stimuli into `folds` parts, and test each part in turn."""
    # StratifiedGroupKFold balances trials rather than stimuli, and would draw other folds.
    rng = np.random.default_rng(settings.seed)
    fold_of: dict[str, int] = {}
    for concept, images in _images_of_concepts(trials, rows):
        if len(images) < settings.folds:
            raise NeuroCanvasError(
                f"protocol kfold-by-stimulus: concept {concept} has {len(images)} stimuli, fewer than "
                f"{settings.folds} folds; lower split.folds."
            )
        fold_of.update(zip(rng.permutation(images).tolist(), np.arange(len(images)) % settings.folds))
    number_of = np.array([fold_of[image] for image in trials.column("image")[rows]])
    rule, folds = STIMULUS_RULE.format(settings.val_fraction), []
    for number in range(settings.folds):
        train, val = _hold_out_images(trials, rows[number_of != number], settings.val_fraction, rng)
        folds.append(Fold(f"kfold-by-stimulus, fold {number}", train, val, rows[number_of == number], rule))
    return folds


def _leave_run_out(trials: Trials, rows: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Test each run in turn; images may repeat across runs, so no stimulus can be held out for validation."""
    run = groups(trials, "run")[rows]
    if len(np.unique(run)) < 2:
        raise NeuroCanvasError("protocol leave-run-out: at least 2 runs are needed; got 1.")
    session = trials.column("session") if "session" in trials.metadata else np.full(len(trials), "0")
    several_sessions, folds = len(np.unique(session[rows])) > 1, []
    for train, val, test, rule in _leave_one_group_out(trials, rows, run, settings):
        where = f"session {session[test[0]]} " if several_sessions else ""
        folds.append(Fold(f"leave-run-out, {where}run {trials.column('run')[test[0]]}", train, val, test, rule))
    return folds


def _leave_block_out(trials: Trials, rows: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Test the k-th block of every concept in fold k."""
    import pandas as pd

    if not blocked_trials(trials)[rows].all():
        raise NeuroCanvasError(
            "protocol leave-block-out: concepts must come in blocks in every session; here they come in mixed order."
        )
    recorded, concept = np.argsort(_positions(trials, groups(trials, "subject"))[rows]), trials.y[rows]
    block = pd.Series(groups(trials, "block")[rows])[recorded]
    number = block.groupby(concept[recorded]).transform(lambda blocks: pd.factorize(blocks)[0]).sort_index().to_numpy()
    for name in np.unique(concept):
        if not number[concept == name].any():
            raise NeuroCanvasError(
                f"protocol leave-block-out: concept {name} has one block only."
            )
    folds = _leave_one_group_out(trials, rows, number, settings)
    return [
        Fold(f"leave-block-out, block {number} of every concept", train, val, test, rule)
        for number, (train, val, test, rule) in enumerate(folds)
    ]


def _leave_session_out(trials: Trials, rows: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Test each session in turn, trained on the subject's others: CrossPT's cross-time where there are two."""
    check_sessions(trials, rows, "leave-session-out")
    folds = []
    for train, val, test, rule in _leave_one_group_out(trials, rows, groups(trials, "session")[rows], settings):
        name = f"leave-session-out, session {trials.column('session')[test[0]]}"
        test, untrained = _trained_concepts(trials, test, train)
        folds.append(Fold(name, train, val, test, rule, untrained))
    return folds


def _leave_subject_out(trials: Trials, rows: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Test all trials of the subject; train on others, validate on yet others: CrossPT's cross-participant."""
    subject = trials.column("subject")
    tested, present = str(subject[rows[0]]), np.array(unique_names(subject))
    others = present[present != tested]
    if len(others) < 2:
        raise NeuroCanvasError(
            f"protocol leave-subject-out: at least 3 subjects are needed, to test, train and validate; got "
            f"{', '.join(present)}."
        )
    count = min(max(1, round(settings.val_fraction * len(others))), len(others) - 1)
    validating = np.random.default_rng([settings.seed, seed_of(tested)]).choice(others, count, replace=False)
    val = np.flatnonzero(np.isin(subject, validating))
    train = np.flatnonzero(np.isin(subject, np.setdiff1d(others, validating)))
    test, untrained = _trained_concepts(trials, rows, train)
    rule = f"all trials of subjects {', '.join(unique_names(validating))}, who do not train"
    return [Fold(f"leave-subject-out, subject {tested}", train, val, test, rule, untrained)]


def _pretrain_finetune(trials: Trials, rows: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Pre-train on others' first sessions, fine-tune on the subject's own, test its later ones: CrossPT's PT."""
    import pandas as pd

    check_sessions(trials, rows, "pretrain-finetune")
    subject, session = trials.column("subject"), pd.Series(groups(trials, "session"))
    tested = subject[rows[0]]
    if (subject == tested).all():
        raise NeuroCanvasError("protocol pretrain-finetune: other subjects are needed to pre-train on; got none.")
    first = (session == session.groupby(subject).transform("min")).to_numpy()
    pretrain = np.flatnonzero(first & (subject != tested))
    train, val, rule = _cut_tails(trials, rows[first[rows]], settings.val_fraction)
    test, untrained = _trained_concepts(trials, rows[~first[rows]], np.concatenate([pretrain, train]))
    rule = f"{rule}, of the subject's own first session"
    return [Fold(f"pretrain-finetune, subject {tested}", train, val, test, rule, untrained, pretrain)]


def _released(trials: Trials, rows: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Train on the first 30 of every 50 trials of a concept in a session, test the last 20, as in the released code."""
    position = _positions_in_concept(trials, rows, "released") % RELEASED_BLOCK
    rng = np.random.default_rng(settings.seed)
    train, val = _hold_out_images(trials, rows[position < RELEASED_TRAIN], settings.val_fraction, rng)
    return [Fold("released", train, val, rows[position >= RELEASED_TRAIN], STIMULUS_RULE.format(settings.val_fraction))]


def _within_block_gap(trials: Trials, rows: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Fold as `released` does, without the `gap` trials before every test part, and those after it."""
    block, position = np.divmod(_positions_in_concept(trials, rows, GAPPED), RELEASED_BLOCK)
    stop = RELEASED_TRAIN - settings.gap
    start = stop - min(max(1, round(settings.val_fraction * stop)), stop - 1)  # of the validation trials
    outside = (position < stop) & ((block == 0) | (position >= settings.gap))
    train, val = rows[outside & (position < start)], rows[outside & (position >= start)]
    rule = f"the last {stop - start} of the {stop} training trials of each block"
    return [Fold(GAPPED, train, val, rows[position >= RELEASED_TRAIN], rule)]


def _kfold_by_time(trials: Trials, rows: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Test contiguous stretches of every run in turn, `gap` trials (at most a quarter of a stretch) from training."""
    run, position = _recordings(trials, "run", "session"), np.empty(len(trials), np.int64)
    size = np.bincount(run[rows], minlength=run.max() + 1)[run[rows]]
    if (size < 2 * settings.folds).any():
        raise NeuroCanvasError(
            f"protocol kfold-by-time: {2 * settings.folds} trials of every run are needed for {settings.folds} folds; "
            f"got {size.min()}; lower split.folds."
        )
    position[rows] = _positions(trials[rows], run[rows])
    place, gap = position[rows], np.minimum(settings.gap, size // settings.folds // 4)
    folds = []
    for number in range(settings.folds):
        start, stop = size * number // settings.folds, size * (number + 1) // settings.folds
        test, outside = (place >= start) & (place < stop), (place < start - gap) | (place >= stop + gap)
        train, val, rule = _cut_tails(trials, rows[outside], settings.val_fraction)
        tested, untrained = _trained_concepts(trials, rows[test], train)
        folds.append(Fold(f"kfold-by-time, stretch {number}", train, val, tested, rule, untrained))
    return folds


def _kfold_by_group(trials: Trials, rows: np.ndarray, settings: SplitSettings) -> list[Fold]:
    """Deal whole groups (a column: run, image, session ...) into folds with similar shares of every concept."""
    from sklearn.model_selection import StratifiedGroupKFold

    if settings.group not in trials.metadata:
        raise NeuroCanvasError(
            f"protocol kfold-by-group: split.group: allowed are {', '.join(trials.metadata)}; got {settings.group!r}."
        )
    group = groups(trials, settings.group)[rows]
    if (count := len(np.unique(group))) < settings.folds:
        raise NeuroCanvasError(
            f"protocol kfold-by-group: {settings.folds} folds need as many groups; {settings.group} has {count}; lower "
            "split.folds, or choose another split.group."
        )
    fewest = int(np.unique(trials.y[rows], return_counts=True)[1].min())
    if fewest < settings.folds:
        raise NeuroCanvasError(
            f"protocol kfold-by-group: {settings.folds} folds need as many trials of every concept; one has {fewest}; "
            "lower split.folds."
        )
    deal, folds = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=settings.seed), []
    for number, (rest, test) in enumerate(deal.split(rows, trials.y[rows], group)):
        train, val, rule = _cut_tails(trials, rows[rest], settings.val_fraction)
        tested, untrained = _trained_concepts(trials, rows[test], train)
        folds.append(Fold(f"kfold-by-group, fold {number}", train, val, tested, rule, untrained))
    return folds


@dataclass(frozen=True)
class Protocol:
    """How to split: a row of `PROTOCOLS`."""

    split: Callable[[Trials, np.ndarray, SplitSettings], list[Fold]]  # all trials, rows of the tested subject
    needs: tuple[str, ...] = ()  # columns beside subject, order, block and concept
    uses_others: bool = False  # whether other subjects' trials train
    disjoint: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)  # column -> parts that share none


# The docstring of each function describes the protocol. Blocks (and images) of `released` are on both sides.
PROTOCOLS: Mapping[str, Protocol] = {
    "by-stimulus": Protocol(_by_stimulus, ("image",), disjoint={"image": (TRAIN_TEST, VAL_TEST, TRAIN_VAL)}),
    "kfold-by-stimulus": Protocol(
        _kfold_by_stimulus, ("image",), disjoint={"image": (TRAIN_TEST, VAL_TEST, TRAIN_VAL)}
    ),
    "kfold-by-time": Protocol(_kfold_by_time),
    "kfold-by-group": Protocol(_kfold_by_group),
    "leave-run-out": Protocol(_leave_run_out, ("run",), disjoint={"run": (TRAIN_TEST, VAL_TEST)}),
    "leave-block-out": Protocol(_leave_block_out, disjoint={"block": (TRAIN_TEST, VAL_TEST)}),
    "leave-session-out": Protocol(_leave_session_out, ("session",), disjoint={"session": (TRAIN_TEST, VAL_TEST)}),
    "leave-subject-out": Protocol(
        _leave_subject_out, uses_others=True, disjoint={"subject": (TRAIN_TEST, VAL_TEST, TRAIN_VAL)}
    ),
    "pretrain-finetune": Protocol(
        _pretrain_finetune, ("session",), uses_others=True,
        disjoint={
            "session": (TRAIN_TEST, VAL_TEST),
            "subject": (("pretrain", "train"), ("pretrain", "validation"), ("pretrain", "test")),
        },
    ),
    "within-block-gap": Protocol(_within_block_gap),
    "released": Protocol(_released, ("image",), disjoint={"image": (TRAIN_VAL,)}),
}  # fmt: skip


# What "auto" tries, in this order.
CHOICES = ("by-stimulus", "leave-block-out", "leave-run-out", "kfold-by-time")


def _subjects_with_sessions(trials: Trials) -> list[str]:
    """Subjects with two sessions or more."""
    counts = trials.metadata.groupby("subject")["session"].nunique()
    return unique_names(counts.index[counts > 1])


def check_sessions(trials: Trials, rows: np.ndarray, protocol: str) -> None:
    """Raise unless the subject has several sessions."""
    subject, several = trials.column("subject")[rows[0]], _subjects_with_sessions(trials)
    if subject not in several:
        more = f"Subjects with more: {', '.join(several)}." if several else "No subject that is open has more; "
        raise NeuroCanvasError(
            f"protocol {protocol}: at least 2 sessions are needed; subject {subject} has one. {more}"
            + ("" if several else "-s -1 opens all.")
        )


def testable_subjects(trials: Trials, protocol: str) -> list[str]:
    """Subjects that a protocol can test: some need a second session, or a second block of every concept."""
    subjects = everyone = unique_names(trials.column("subject"))
    if protocol == "leave-block-out":
        table = trials.metadata.assign(block=groups(trials, "block"))
        fewest = table.groupby(["subject", "concept"])["block"].nunique().groupby("subject").min()
        subjects = unique_names(fewest.index[fewest > 1])
    elif protocol != "auto" and "session" in PROTOCOLS[protocol].needs:
        subjects = _subjects_with_sessions(trials)
    return subjects or everyone  # where none qualifies, the attempt raises and says why


def _images_of_concepts(trials: Trials, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Every concept of the rows with its images, both sorted; an image counts for the concept of its first trial."""
    table = trials.metadata[["image", "concept"]].iloc[rows].drop_duplicates("image").sort_values("image")
    for concept, images in table.groupby("concept")["image"]:
        yield str(concept), images.to_numpy(dtype=str)


def _hold_out_images(
    trials: Trials, rows: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Fold rows: the rest, and all trials of the held-out stimuli, `fraction` (at least one) per concept."""
    held_out: list[str] = []
    for concept, images in _images_of_concepts(trials, rows):
        count = max(1, round(fraction * len(images)))
        if count >= len(images):
            raise NeuroCanvasError(
                f"split: concept {concept} has {len(images)} stimuli, too few to hold out {fraction:.0%} "
                "and train on the rest."
            )
        held_out.extend(rng.choice(images, count, replace=False))
    out = np.isin(trials.column("image")[rows], held_out)
    return rows[~out], rows[out]


def _leave_one_group_out(
    trials: Trials, rows: np.ndarray, group: np.ndarray, settings: SplitSettings
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, str]]:
    """Training, validation and test rows and the validation rule, for every group of the rows."""
    from sklearn.model_selection import LeaveOneGroupOut

    for rest, test in LeaveOneGroupOut().split(rows, groups=group):
        train, val, rule = _cut_tails(trials, rows[rest], settings.val_fraction)
        yield train, val, rows[test], rule


def _cut_tails(trials: Trials, rows: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray, str]:
    """Training rows, validation rows (the last of each block, or of each run in mixed order), and the rule in words."""
    # Contiguous tails, so that drift links few validation trials to training trials.
    blocked, block = blocked_trials(trials)[rows], groups(trials, "block")[rows]
    stretch = np.where(blocked, block, block.max() + 1 + _recordings(trials, "run", "session")[rows])
    size = np.bincount(stretch)[stretch]
    count = np.minimum(np.maximum(1, np.round(fraction * size)), size - 1)
    tail = _positions(trials[rows], stretch) >= size - count
    kinds = [kind for kind, is_there in (("block", blocked.any()), ("run", not blocked.all())) if is_there]
    rule = f"the last {fraction:.0%} of the trials of each training {' or '.join(kinds)}"
    return rows[~tail], rows[tail], rule


def _trained_concepts(trials: Trials, test: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, tuple[Finding, ...]]:
    """Test trials whose concepts are trained on, and a finding if others are left out."""
    trained = np.isin(trials.y[test], trials.y[train])
    n_untrained = int(np.sum(~trained))
    return test[trained], (finding("untrained-concepts", n=n_untrained),) if n_untrained else ()


def _positions_in_concept(trials: Trials, rows: np.ndarray, protocol: str) -> np.ndarray:
    """Position of each of the subject's rows among the trials of its concept and session, as recorded."""
    columns = ("session", "concept") if "session" in trials.metadata else ("subject", "concept")
    position = _positions(trials, groups(trials, *columns))[rows]
    if not (position >= RELEASED_TRAIN).any():
        raise NeuroCanvasError(
            f"protocol {protocol}: tests on the trials after the first {RELEASED_TRAIN} of a concept; "
            "no concept has more."
        )
    return position
