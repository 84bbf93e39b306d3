"""The verb audit: a run folder, or a table of somebody else's predictions, to what can be concluded from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.audit.external import GIVEN, damaged, pictures_case, read_columns, table_case, two_way
from neurocanvas.audit.overlap import OF_PICTURES, PAIRS, SHARED, Answers, Case, audit_cases
from neurocanvas.audit.verdict import DESIGNS, percent, short
from neurocanvas.config import RunSettings, load_settings
from neurocanvas.data.eeg_imagenet import granularity_rows
from neurocanvas.data.images import Images
from neurocanvas.data.splits import Fold, blocked_trials, groups, make_split
from neurocanvas.data.trials import COLUMNS, Trials, ranks, without_signal
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.pipeline.classify import COLUMNS as CELL_COLUMNS
from neurocanvas.pipeline.classify import TRANSDUCTIVE, UNSELECTED
from neurocanvas.pipeline.run import Run

# `Trials.source` where the data set is not there and the tables beside the features are read instead.
NO_DATA = "trial tables of the run folder"

# Entries of cards that are lists of texts, where they are there.
TEXTS = ("warnings", "concepts")


def read_card(path: Path, verb: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Read the card of an artifact, and check what is read of it."""
    path = artifacts.card_path(path)
    card = _read_mapping(path, verb)
    for name, kind in kinds.items():
        if not isinstance(card.get(name), kind):
            raise damaged(path, f"{name} is missing or of a wrong kind", verb)
    for name in TEXTS:
        said = card.get(name, [])
        if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
            raise damaged(path, f"{name} must be a list of texts", verb)
    return card


def _read_mapping(path: Path, verb: str) -> dict[str, Any]:
    """A JSON file that holds a mapping."""
    text = artifacts.read_text(path, f"what `neurocanvas {verb}` writes")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"not JSON: {error}", verb) from error
    if not isinstance(found, dict):
        raise damaged(path, "not a mapping", verb)
    return found


def read_mapper_card(path: Path) -> dict[str, Any]:
    """Read the card of a mapper."""
    card = read_card(path, "train", {})
    split = card.get("split")
    if not card.get("imported") and not (isinstance(split, dict) and isinstance(split.get("fingerprint"), str)):
        raise damaged(artifacts.card_path(path), "split: no fingerprint", "train")
    return card


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Read what `evaluate` scored."""
    path = folder / "scores" / "summary.json"
    if not path.is_file():
        return None
    summary = _read_mapping(path, "evaluate")
    for name in ("arms", "subjects", "retrieval"):
        parts = summary.get(name, {})
        if not isinstance(parts, dict) or not all(isinstance(one, dict) for one in parts.values()):
            raise damaged(path, f"{name} is not a mapping of mappings", "evaluate")
    if not summary.get("arms"):
        raise damaged(path, "no arms", "evaluate")
    said = summary.get("warnings", [])
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        raise damaged(path, "warnings must be a list of texts", "evaluate")
    return summary


def transductive_rules(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Say which rules of retrieval used test trials together, beside the score that is tested."""
    rules = summary.get("retrieval", {})
    together = [rule for rule, found in rules.items() if found.get("transductive")]
    alone = [rule for rule in rules if rule not in together]
    if not together:
        return ()
    others = f"; the {', '.join(alone)} rule is not" if alone else ""
    return (f"{', '.join(together)} in scores/summary.json: retrieval{others}",)


def drawn_stimuli(folder: Path) -> set[str]:
    """Read among which stimuli generated pictures are identified."""
    manifest = folder / "images" / "manifest.jsonl"
    if not manifest.is_file():
        return set()
    lines = artifacts.read_text(manifest, "one line per picture").splitlines()
    try:
        return {json.loads(line)["stimulus"] for line in lines}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(manifest, str(error), "generate") from error


def kept_tables(folder: Path) -> tuple[Trials, Images] | None:
    """Read trials and stimuli from the tables beside the features, the longest of every subject."""
    tables: dict[str, dict[str, np.ndarray]] = {}
    for path in sorted(folder.glob("features/**/s*_trials.csv")):
        found = read_columns(path, ("subject", "order", "block", "image", "concept"), "a trial table")
        if len(found["subject"]) > len(tables.get(path.name, found)["subject"]) or path.name not in tables:
            tables[path.name] = found
    if not tables:
        return None
    try:
        names = set.intersection(*(set(table) for table in tables.values())) & set(COLUMNS)
        joined: dict[str, np.ndarray] = {
            name: np.concatenate([table[name] for table in tables.values()]).astype(COLUMNS[name]) for name in names
        }
        trials = without_signal(joined, NO_DATA)
    except (ValueError, OverflowError, NeuroCanvasError) as error:
        raise damaged(folder / "features", f"a trial table: {error}", "features") from error
    concepts = dict(zip(joined["image"].tolist(), joined["concept"].tolist(), strict=True))
    return trials, Images(tuple(sorted(concepts)), concepts, {name: name for name in concepts.values()}, {})


# What is read of the card of a classifier's answers.
CELL_KINDS = {"subject": str, "model": str, "concepts": list, "warnings": list, "settings": dict}

NO_RUN = "a folder without run.toml, and no table; name a run folder, or a .csv or .parquet file of predictions."
SCORED_ELSEWHERE = (
    "scores/summary.json is of pictures that were made elsewhere; run `neurocanvas evaluate` again for the run's own."
)
OTHER_TRIALS = (
    "was made from other trials than the split of run.toml gives; what is said of overlap holds for the latter."
)
PRETRAINED = "Networks started from given weights; whether those have seen the test trials is not known."
# The overlaps of so many cases are printed; --json has all.
FEW_CASES = 3


class _Audited(Run):
    """A run whose data set may have gone: the trial tables that it keeps say what was tested."""

    @cached_property
    def dataset(self) -> tuple[Trials, Images]:
        """Trials and stimuli, all subjects."""
        try:
            return super().dataset
        except (NeuroCanvasError, OSError):
            found = kept_tables(self.folder)
            if found is None:
                raise
            return found


def audit(
    path: Path, *, selection: str = "unknown", transductive: Sequence[str] = (), pictures: Path | None = None
) -> dict[str, Any]:
    """Audit a run folder, or a table of predictions."""
    rng = np.random.default_rng(0)
    if path.is_dir():
        return audit_cases(path.name, list(_run_cases(path)), rng=rng)
    case = table_case(path, selection=selection, transductive=transductive, pictures=pictures)
    return audit_cases(path.name, [case], rng=rng)


def _run_cases(folder: Path) -> Iterator[Case]:
    """What a run folder tested: every protocol and granularity of classifiers, the mapper, and pictures of others."""
    if not (folder / "run.toml").is_file():
        raise NeuroCanvasError(f"{folder}: {NO_RUN}")
    asked, summary = load_settings(folder / "run.toml"), read_summary(folder)
    errand = asked.evaluate.against or (summary is not None and GIVEN in summary["arms"])
    if errand:
        pairs = asked.evaluate.pairs if asked.evaluate.against else ""
        yield pictures_case(folder, summary, Path(pairs) if pairs else None)
    hashed: dict[Path, str] = {}
    cells: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.glob("classification/*/*/*.npy")):
        cells.setdefault((path.parent.parent.name, path.parent.name), []).append(path)
    runs: dict[str, Run] = {}
    for (protocol, granularity), paths in cells.items():
        if protocol not in runs:
            runs[protocol] = _Audited(folder, _opened(asked, granularity="all", protocol=protocol))
        yield _classified(runs[protocol], f"{protocol}, {granularity}", granularity, paths, hashed)
    if list(folder.glob("models/*_model.safetensors")) or not (cells or errand):
        yield _mapped(_Audited(folder, _opened(asked, granularity=asked.data.granularity)), summary, hashed)


def _opened(settings: RunSettings, *, granularity: str, protocol: str = "") -> RunSettings:
    """Settings under which all subjects are open and no split is refused."""
    split = {"accept_block_confound": True, **({"protocol": protocol} if protocol else {})}
    return settings.model_copy(update={
        "data": settings.data.model_copy(update={"granularity": granularity, "subjects": ()}),
        "split": settings.split.model_copy(update=split),
    })  # fmt: skip


def _splits(run: Run, subject: str, granularity: str) -> tuple[list[Fold], list[dict[str, Any]], np.ndarray]:
    """A subject's splits, rows of the run's whole table; what mappers' cards say of them; which trials are blocked."""
    if subject not in run.subjects:
        raise NeuroCanvasError(
            f"{run.folder}: it holds results of subject {subject}, whom the data set of run.toml lacks or its protocol "
            "cannot test; name the data set that the results were made from."
        )
    trials, pool = run.dataset[0], run.pool(subject)
    rows = np.arange(len(trials)) if pool is trials else np.flatnonzero(trials.column("subject") == subject)
    rows = rows[granularity_rows(pool, granularity)]
    chosen, blocked = trials[rows], np.zeros(len(trials), dtype=bool)
    blocked[rows] = blocked_trials(chosen)
    found = make_split(chosen, settings=run.settings.split, subject=subject)
    cards: list[dict[str, Any]] = []
    for one in (split.joined() for split in found):
        cards.append({"name": one.name, **{part: len(own) for part, own in one.parts().items()}})
        if pool is not trials or trials.source != NO_DATA:  # of many subjects kept tables have another order of rows
            cards[-1]["fingerprint"] = one.fingerprint()
    return [replace(one, **{part: rows[own] for part, own in one.parts().items()}) for one in found], cards, blocked


def _parts(fold: Fold) -> dict[str, np.ndarray]:
    """Parts under the audit's names, which are those of its tables."""
    return {part.replace("validation", "val"): rows for part, rows in fold.parts().items()}


def _columns(run: Run, blocked: np.ndarray, hashed: dict[Path, str]) -> dict[str, np.ndarray]:
    """Codes of what parts are compared by; blocks only where concepts came in blocks."""
    trials, stimuli = run.dataset
    shared = {"image" if name == "stimulus" else name: name for name in SHARED}
    found = {name: groups(trials, column) for column, name in shared.items() if column in trials.metadata}
    found["block"] = np.where(blocked, found["block"], -1)
    found["order"] = trials.column("order")
    shown, of_trial = np.unique(trials.column("image"), return_inverse=True)
    bytes_of = [_picture_print(stimuli, str(one), hashed) for one in shown]
    codes = np.unique(bytes_of, return_inverse=True)[1]
    codes[[not one for one in bytes_of]] = -1
    if (codes >= 0).any():
        found["picture"] = codes[of_trial]
    return found


def _picture_print(stimuli: Images, stimulus: str, hashed: dict[Path, str]) -> str:
    """Hash of a picture's file, every file read once; nothing where there is no file."""
    path = stimuli.files.get(stimulus)
    if path is None:
        return ""
    if path not in hashed:
        hashed[path] = stimuli.print_of(stimulus) or ""
    return hashed[path]


def _classified(run: Run, name: str, granularity: str, paths: Sequence[Path], hashed: dict[Path, str]) -> Case:
    """What classifiers answered under one protocol and granularity."""
    trials = run.dataset[0]
    names, concept = np.unique(trials.column("concept"), return_inverse=True)
    blocked, splits, warnings = np.zeros(len(trials), dtype=bool), {}, dict.fromkeys(_of_data(trials))
    models: dict[str, list[dict[str, Any]]] = {}
    others = []
    for path in paths:
        card, table = _cell(path, names)
        subject = card["subject"]
        if subject not in splits:
            splits[subject], _, is_blocked = _splits(run, subject, granularity)
            blocked |= is_blocked
        order, _, fold, unit = table[:, : len(CELL_COLUMNS)].astype(np.int64).T
        own = np.flatnonzero(trials.column("subject") == subject)
        place = dict(zip(trials.column("order")[own].tolist(), own.tolist(), strict=True))
        rows = np.array([place.get(one, -1) for one in order.tolist()])
        tested = np.concatenate([split.test for split in splits[subject]])
        if not np.array_equal(np.sort(rows), np.sort(tested)):
            others.append(path.relative_to(run.folder).as_posix())
            warnings[f"{others[-1]} {OTHER_TRIALS}"] = None
        answer = np.searchsorted(names, np.array(card["concepts"]))[table[:, len(CELL_COLUMNS) :].argmax(axis=1)]
        kept = rows >= 0
        if not kept.any():
            raise damaged(path, "none of its trials is in the data set of run.toml", "classify")
        models.setdefault(card["model"], []).append(
            {"subject": subject, "card": card, "columns": np.stack([rows, answer, fold, unit])[:, kept]}
        )
        warnings |= dict.fromkeys(card["warnings"])
        warnings |= {PRETRAINED: None} if card["settings"].get("pretrained") else {}
    columns = {**_columns(run, blocked, hashed), "concept": concept}
    parts = [_parts(split) for found in splits.values() for split in found]
    answers = [_answers(model, found) for model, found in models.items()]
    stale = _stale(others, "made from other trials than the split of run.toml tests", "classify") if others else ""
    return Case(name, columns, parts, blocked, answers, warnings=tuple(warnings), other_split=stale)


def _stale(paths: Sequence[str], says: str, *verbs: str) -> str:
    """Say which files are of another split than run.toml says, and what to run."""
    files = f"{paths[0]} and {len(paths) - 1} more were" if len(paths) > 1 else f"{paths[0]} was"
    return f"{files} {says}; run {', '.join(f'`neurocanvas {verb}`' for verb in verbs)} again"


def _cell(path: Path, names: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """The card of a classifier's answers, and the answers: one row per test trial."""
    card = read_card(path, "classify", CELL_KINDS)
    table = artifacts.read_array(path, "scores; `neurocanvas classify` makes them")
    needed, is_numbers = len(CELL_COLUMNS) + len(card["concepts"]), np.issubdtype(table.dtype, np.floating)
    if not is_numbers or table.ndim != 2 or table.shape[1] != needed or not len(table):
        raise damaged(path, f"{needed} numbers per trial are needed; got {table.dtype}, {table.shape}", "classify")
    if not card["concepts"] or not np.isin(card["concepts"], names).all():
        raise damaged(artifacts.card_path(path), "it names concepts that the data set lacks", "classify")
    if not np.isfinite(table[:, : len(CELL_COLUMNS)]).all():
        raise damaged(path, "trials are numbers, some of these are not", "classify")
    return card, table


def _answers(model: str, found: Sequence[Mapping[str, Any]]) -> Answers:
    """One model's answers over subjects; units and folds of different subjects are different."""
    joined = np.concatenate([one["columns"] for one in found], axis=1)
    subject = np.repeat([one["subject"] for one in found], [one["columns"].shape[1] for one in found])
    rows, named, fold, unit = joined
    within = (np.stack([ranks(subject), fold]), np.stack([ranks(subject), fold, unit]))
    strata, units = (np.unique(one, axis=1, return_inverse=True)[1].reshape(-1) for one in within)
    cards = [one["card"] for one in found]
    steps = tuple(dict.fromkeys(text for card in cards for text in card["warnings"] if text == TRANSDUCTIVE))
    return Answers(model, rows, named, strata, units, _selection(cards[0]), steps)


def _selection(card: Mapping[str, Any]) -> str:
    """How the weights of a card were selected, a key of `SELECTIONS`."""
    if card.get("imported") or not card.get("selection"):
        return "unknown"
    return "final" if card["selection"] == UNSELECTED else "validation"


def _mapped(run: Run, summary: Mapping[str, Any] | None, hashed: dict[Path, str]) -> Case:
    """What the mapper of a run was tested on, the gallery of its pictures, and what `evaluate` made of them."""
    trials, settings = run.dataset[0], run.settings
    blocked, splits, cards, others = np.zeros(len(trials), dtype=bool), [], [], []
    warnings = dict.fromkeys(_of_data(trials))
    granularity = settings.data.granularity if trials.source == NO_DATA else "all"  # else it was opened by that
    for subject in _mapped_subjects(run, summary):
        found, rebuilt, is_blocked = _splits(run, subject, granularity)
        blocked |= is_blocked
        for fold, split in enumerate(found):
            splits.append(_parts(split))
            warnings |= dict.fromkeys(split.warnings)
            path = run.model_path(subject, fold)
            if not path.is_file():
                continue
            card = read_mapper_card(path)
            cards.append(card)
            warnings |= dict.fromkeys(card.get("warnings", ()))
            if not card.get("imported") and not rebuilt[fold].items() <= card["split"].items():
                others.append(path.relative_to(run.folder).as_posix())
    if drawn := drawn_stimuli(run.folder):
        first = {str(one): row for row, one in reversed(list(enumerate(trials.column("image"))))}
        gallery = np.array(sorted(first[one] for one in drawn if one in first), dtype=np.int64)
        splits = [{**parts, "gallery": gallery} for parts in splits]
    chosen = {_selection(card) for card in cards}
    scores: list[dict[str, Any]] = []
    steps: tuple[str, ...] = ()
    if summary is not None and GIVEN in summary["arms"]:
        warnings[SCORED_ELSEWHERE] = None
    elif summary is not None and cards:
        selection = "unknown" if "unknown" in chosen else min(chosen)
        scores = two_way(run.folder, summary, "eeg", model=settings.encoder.name, selection=selection)
        steps = transductive_rules(summary)
    name = f"{settings.split.protocol}, mapper"
    verbs = "train", "predict", "generate", "evaluate"
    stale = _stale(others, "trained on another split than run.toml says", *verbs) if others else ""
    return Case(
        name, _columns(run, blocked, hashed), splits, blocked, scores=scores, warnings=tuple(warnings),
        transductive=steps, other_split=stale,
    )  # fmt: skip


def _mapped_subjects(run: Run, summary: Mapping[str, Any] | None) -> list[str]:
    """Whose mappers are audited: of those that were scored, or else of all, those who have one; else everybody."""
    trained = [subject for subject in run.subjects if run.model_path(subject, 0).is_file()]
    scored = [] if summary is None else [subject for subject in trained if str(subject) in summary.get("subjects", {})]
    return scored or trained or list(run.subjects)


def _of_data(trials: Trials) -> list[str]:
    """What a reader must know of the data that were read."""
    if trials.source != NO_DATA:
        return []
    return ["The data set is not there: the run's trial tables were read instead, and no picture's bytes compared."]


def describe(
    audit: Mapping[str, Any],
) -> tuple[list[tuple[str, list[str], list[list[str]]]], list[tuple[str, str]]]:
    """Arrange an audit as tables and sentences to print after its verdict."""
    cases = audit["cases"]
    header = ["tested", "model", "score", "value", "95 %", "chance", "p", "needed", "majority", "selected"]
    lines = [_result_line(case, one) for case in cases for one in case["results"]]
    tables = [(f"Audit of {audit['source']}", header, lines)] if lines else []
    for case in cases[:FEW_CASES]:
        there = {row["pair"] for row in case["overlaps"]} - {"known/test"}
        pairs = [pair for pair in PAIRS if pair in there]
        shown = {(row["column"], row["pair"]): f"{row['shared']} of {row['values']}" for row in case["overlaps"]}
        title = f"{case['name']}: {DESIGNS[case['design']]}"
        if pairs:
            shown |= {("trials", pair): "/".join(_count(case, part) for part in pair.split("/")) for pair in pairs}
            kinds = ("trials", *SHARED)
            rows = [[name, *(shown.get((name, pair), _unshown(case, name, pair)) for pair in pairs)] for name in kinds]
            tables.append((title, ["shared values", *pairs], rows))
    notes = _sentences("Can be concluded", cases, "can") + _sentences("Cannot be concluded", cases, "cannot")
    warnings = dict.fromkeys(warning for case in cases for warning in case["warnings"])
    return tables, [*notes, *(("Warning", text) for text in warnings)]


def _sentences(title: str, cases: Sequence[Mapping[str, Any]], kind: str) -> list[tuple[str, str]]:
    """What several cases have to say, every sentence once, with the cases where it does not hold for all."""
    names: dict[str, list[str]] = {}
    for case in cases:
        for text in case[kind]:
            names.setdefault(text, []).append(case["name"])
    found = []
    for text, of_cases in names.items():
        more = f" and {len(of_cases) - FEW_CASES} more" if len(of_cases) > FEW_CASES else ""
        which = f" ({'; '.join(of_cases[:FEW_CASES])}{more})" if len(of_cases) < len(cases) else ""
        found.append((f"{title}{which}", f"{text}."))
    return found


def _unshown(case: Mapping[str, Any], column: str, pair: str) -> str:
    """A dash where there is nothing to share: blocks in mixed order, sessions of a gallery; else it is not known."""
    nothing = (column == "block" and case["design"] == "mixed") or (
        pair.endswith("gallery") and column not in OF_PICTURES
    )
    return "–" if nothing else "?"


def _count(case: Mapping[str, Any], part: str) -> str:
    """How many trials a part has, each counted once over folds."""
    return str(case["trials"].get(part, 0))


def _result_line(case: Mapping[str, Any], one: Mapping[str, Any]) -> list[str]:
    """One result in words."""
    needed = "–" if one["needed"] is None else f"{one['needed']} of {one['n']}"
    majority = "–" if one["majority"] is None else percent(one["majority"])
    interval = "–" if one["low"] is None else f"{short(one['low'])} {short(one['high'])}"
    selected = one["selection"] + (", transductive" if one["transductive"] else "")
    return [
        case["name"], one["model"], one["metric"], short(one["value"]), interval, short(one["chance"]),
        short(one["p"], 4), needed, majority, selected,
    ]  # fmt: skip
