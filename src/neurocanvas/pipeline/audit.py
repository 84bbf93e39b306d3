"""The verb audit: a run folder, or a table of somebody else's predictions, to what can be concluded from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.audit.external import GIVEN, damaged, pictures_case, read_columns, table_case, two_way
from neurocanvas.audit.overlap import SHARED, Answers, Case, audit_cases
from neurocanvas.config import RunSettings, load_settings
from neurocanvas.data.eeg_imagenet import granularity_rows
from neurocanvas.data.images import Images
from neurocanvas.data.splits import Fold, blocked_trials, groups, make_split
from neurocanvas.data.trials import COLUMNS, Trials, natural_key, without_signal
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.findings import Finding, finding, read_findings
from neurocanvas.pipeline.classify import COLUMNS as CELL_COLUMNS
from neurocanvas.pipeline.classify import UNSELECTED
from neurocanvas.pipeline.run import Run

# `Trials.source` where the data set is not there and the tables beside the features are read instead.
NO_DATA = "trial tables of the run folder"

# What is read of the card of a classifier's answers.
CELL_KINDS = {"subject": str, "model": str, "concepts": list, "findings": list, "settings": dict}


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
        raise NeuroCanvasError(
            f"{folder}: a folder without run.toml, and no table; name a run folder, or a .csv or .parquet file of "
            "predictions."
        )
    asked, summary = load_settings(folder / "run.toml"), _read_summary(folder)
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
            runs[protocol] = _opened(folder, asked, granularity="all", protocol=protocol)
        yield _classified(runs[protocol], f"{protocol}, {granularity}", granularity, paths, hashed)
    if list(folder.glob("models/*_model.safetensors")) or not (cells or errand):
        yield _mapped(_opened(folder, asked, granularity=asked.data.granularity), summary, hashed)


@dataclass(frozen=True)
class _Tested:
    """Trials of a run, and the folds of the subjects that were tested; rows count in the trials."""

    columns: dict[str, np.ndarray]  # codes of what parts are compared by, and the order
    concepts: np.ndarray  # names, by their codes
    folds: dict[str, list[Fold]]
    parts: list[dict[str, np.ndarray]]  # of all folds, by the names of the audit's tables
    cards: dict[str, list[dict[str, Any]]]  # what the cards of mappers of these folds say
    stimulus: np.ndarray
    subject: np.ndarray
    order: np.ndarray
    blocked: np.ndarray
    findings: list[Finding]


def _tested(run: Run, subjects: Sequence[str], granularity: str, hashed: dict[Path, str]) -> _Tested:
    """Read trials and folds; the one place of the audit that does. Without subjects, all of them."""
    trials, stimuli = run.dataset
    kept = trials.source == NO_DATA
    if granularity == run.settings.data.granularity and not kept:
        granularity = "all"  # it was opened by that
    blocked, folds = np.zeros(len(trials), dtype=bool), {}
    cards: dict[str, list[dict[str, Any]]] = {}
    subject_of = trials.column("subject")
    for subject in subjects or run.subjects:
        if subject not in run.subjects:
            raise NeuroCanvasError(
                f"{run.folder}: it holds results of subject {subject}, whom the data set of run.toml lacks or its "
                "protocol cannot test; name the data set that the results were made from."
            )
        pool = run.pool(subject)
        rows = np.arange(len(trials)) if pool is trials else np.flatnonzero(subject_of == subject)
        rows = rows[granularity_rows(pool, granularity)]
        chosen = trials[rows]
        blocked[rows] |= blocked_trials(chosen)
        found, cards[subject] = make_split(chosen, settings=run.settings.split, subject=subject), []
        for one in (split.joined() for split in found):
            card = {"name": one.name, **{part: len(own) for part, own in one.parts().items()}}
            if pool is not trials or not kept:  # of many subjects kept tables have another order of rows
                card["fingerprint"] = one.fingerprint()
            cards[subject].append(card)
        folds[subject] = [replace(one, **{part: rows[own] for part, own in one.parts().items()}) for one in found]
    parts = [
        {part.replace("validation", "val"): rows for part, rows in fold.parts().items()}
        for found in folds.values()
        for fold in found
    ]
    concepts, concept = np.unique(trials.column("concept"), return_inverse=True)
    shared = {"image" if name == "stimulus" else name: name for name in SHARED}
    columns = {name: groups(trials, column) for column, name in shared.items() if column in trials.metadata}
    columns["concept"] = concept
    columns["block"] = np.where(blocked, columns["block"], -1)  # blocks only where concepts came in blocks
    columns["order"] = trials.column("order")
    shown, of_trial = np.unique(trials.column("image"), return_inverse=True)
    for name in map(str, shown):
        if (path := stimuli.files.get(name)) is not None and path not in hashed:
            hashed[path] = stimuli.print_of(name) or ""
    bytes_of = [hashed.get(stimuli.files[name], "") if name in stimuli.files else "" for name in map(str, shown)]
    codes = np.unique(bytes_of, return_inverse=True)[1]
    codes[[not one for one in bytes_of]] = -1
    if (codes >= 0).any():
        columns["picture"] = codes[of_trial]
    return _Tested(
        columns, concepts, folds, parts, cards, trials.column("image"), subject_of, trials.column("order"), blocked,
        [finding("data-missing")] if kept else [],
    )  # fmt: skip


def _classified(run: Run, name: str, granularity: str, paths: Sequence[Path], hashed: dict[Path, str]) -> Case:
    """What classifiers answered under one protocol and granularity."""
    cards = {path: _read_card(path, "classify", CELL_KINDS) for path in paths}
    subjects = sorted({card["subject"] for card in cards.values()}, key=natural_key)
    tested = _tested(run, subjects, granularity, hashed)
    models: dict[str, list[tuple[dict[str, Any], np.ndarray]]] = {}  # subject (its place), row, answer, fold, unit
    findings, others = list(tested.findings), []
    for path, card in cards.items():
        table = _read_answers(path, card, tested.concepts)
        order, _, fold, unit = table[:, : len(CELL_COLUMNS)].astype(np.int64).T
        own = np.flatnonzero(tested.subject == card["subject"])
        place = dict(zip(tested.order[own].tolist(), own.tolist(), strict=True))
        rows = np.array([place.get(one, -1) for one in order.tolist()])
        if not np.array_equal(np.sort(rows), np.sort(np.concatenate([s.test for s in tested.folds[card["subject"]]]))):
            others.append(path.relative_to(run.folder).as_posix())
            findings.append(finding("other-trials", file=others[-1]))
        answer = table[:, len(CELL_COLUMNS) :].argmax(axis=1)
        answer = np.searchsorted(tested.concepts, np.array(card["concepts"]))[answer]
        kept = rows >= 0
        if not kept.any():
            raise damaged(path, "none of its trials is in the data set of run.toml", "classify")
        place_of = np.full(len(rows), subjects.index(card["subject"]))
        columns = np.stack([place_of, rows, answer, fold, unit])[:, kept]
        models.setdefault(card["model"], []).append((card, columns))
        findings += read_findings(card["findings"])
    answers = []
    for model, found in models.items():
        subject, rows, answer, fold, unit = np.concatenate([columns for _, columns in found], axis=1)
        # units and folds of different subjects are different
        within = (np.stack([subject, fold]), np.stack([subject, fold, unit]))
        strata, units = (np.unique(one, axis=1, return_inverse=True)[1].reshape(-1) for one in within)
        adapted = any(one["code"] == "transductive-training" for card, _ in found for one in card["findings"])
        steps = ("domain adaptation",) if adapted else ()
        answers.append(Answers(model, rows, answer, strata, units, _selection(found[0][0]), steps))
    stale = {"file": others[0], "more": len(others) - 1, "stage": "classify"} if others else {}
    return Case(
        name, tested.columns, tested.parts, tested.blocked, answers, findings=tuple(dict.fromkeys(findings)),
        other_split=stale,
    )  # fmt: skip


def _mapped(run: Run, summary: Mapping[str, Any] | None, hashed: dict[Path, str]) -> Case:
    """What the mapper of a run was tested on, the gallery of its pictures, and what `evaluate` made of them."""
    settings, encoder = run.settings, run.settings.encoder.name
    trained = [
        path.name.removeprefix(f"{encoder}_s").removesuffix("_fold0_model.safetensors")
        for path in run.folder.glob(f"models/{encoder}_s*_fold0_model.safetensors")
    ]
    trained.sort(key=natural_key)
    scored = [subject for subject in trained if summary and subject in summary.get("subjects", {})]
    tested = _tested(run, scored or trained, settings.data.granularity, hashed)
    findings, cards, others = list(tested.findings), [], []
    for subject, folds in tested.folds.items():
        for fold, split in enumerate(folds):
            findings += split.findings
            path = run.model_path(subject, fold)
            if not path.is_file():
                continue
            card = _read_card(path, "train", {})
            made_of = card.get("split")
            if not card.get("imported"):
                if not (isinstance(made_of, dict) and isinstance(made_of.get("fingerprint"), str)):
                    raise damaged(artifacts.card_path(path), "split: no fingerprint", "train")
                if not tested.cards[subject][fold].items() <= made_of.items():
                    others.append(path.relative_to(run.folder).as_posix())
            cards.append(card)
            findings += read_findings(card.get("findings", []))
    parts = tested.parts
    manifest = run.folder / "images" / "manifest.jsonl"
    if manifest.is_file():
        lines = artifacts.read_text(manifest, "one line per picture").splitlines()
        try:
            drawn = {json.loads(line)["stimulus"] for line in lines}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged(manifest, str(error), "generate") from error
        first = {str(one): row for row, one in reversed(list(enumerate(tested.stimulus)))}
        gallery = np.array(sorted(first[one] for one in drawn if one in first), dtype=np.int64)
        parts = [{**one, "gallery": gallery} for one in parts] if drawn else parts
    chosen = {_selection(card) for card in cards}
    scores: list[dict[str, Any]] = []
    beside: dict[str, str] = {}
    if summary is not None and GIVEN in summary["arms"]:
        findings.append(finding("scored-elsewhere"))
    elif summary is not None and cards:
        selection = "unknown" if "unknown" in chosen else min(chosen)
        scores = two_way(run.folder, summary, "eeg", model=encoder, selection=selection)
        rules = summary.get("retrieval", {})
        together = [rule for rule, found in rules.items() if found.get("transductive")]
        if together:
            alone = ", ".join(rule for rule in rules if rule not in together)
            beside = {"rules": ", ".join(together), "alone": alone}
    stale = {"file": others[0], "more": len(others) - 1, "stage": "train"} if others else {}
    return Case(
        f"{settings.split.protocol}, mapper", tested.columns, parts, tested.blocked, scores=scores,
        findings=tuple(dict.fromkeys(findings)), transductive=beside, other_split=stale,
    )  # fmt: skip


def _selection(card: Mapping[str, Any]) -> str:
    """How the weights of a card were selected: one of `SELECTIONS`."""
    if card.get("imported") or not card.get("selection"):
        return "unknown"
    return "final" if card["selection"] == UNSELECTED else "validation"


def _read_mapping(path: Path, verb: str) -> dict[str, Any]:
    """A JSON file that holds a mapping; its findings are checked."""
    text = artifacts.read_text(path, f"what `neurocanvas {verb}` writes")
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("not a mapping")
        read_findings(found.get("findings", []))
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error), verb) from error
    return found


def _read_card(path: Path, verb: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Read the card of an artifact, and check what is read of it."""
    path = artifacts.card_path(path)
    card = _read_mapping(path, verb)
    for name, kind in kinds.items():
        if not isinstance(card.get(name), kind):
            raise damaged(path, f"{name} is missing or of a wrong kind", verb)
    if not all(isinstance(one, str) for one in card.get("concepts", [])):
        raise damaged(path, "concepts must be a list of texts", verb)
    return card


def _read_answers(path: Path, card: Mapping[str, Any], names: np.ndarray) -> np.ndarray:
    """A classifier's answers, one row per test trial."""
    table = artifacts.read_array(path, "scores; `neurocanvas classify` makes them")
    needed, is_numbers = len(CELL_COLUMNS) + len(card["concepts"]), np.issubdtype(table.dtype, np.floating)
    if not is_numbers or table.ndim != 2 or table.shape[1] != needed or not len(table):
        raise damaged(path, f"{needed} numbers per trial are needed; got {table.dtype}, {table.shape}", "classify")
    if not card["concepts"] or not np.isin(card["concepts"], names).all():
        raise damaged(artifacts.card_path(path), "it names concepts that the data set lacks", "classify")
    if not np.isfinite(table[:, : len(CELL_COLUMNS)]).all():
        raise damaged(path, "trials are numbers, some of these are not", "classify")
    return table


def _read_summary(folder: Path) -> dict[str, Any] | None:
    """Read what `evaluate` scored."""
    path = folder / "scores" / "summary.json"
    if not path.is_file():
        return None
    summary = {"findings": [], **_read_mapping(path, "evaluate")}
    for name in ("arms", "subjects", "retrieval"):
        parts = summary.get(name, {})
        if not isinstance(parts, dict) or not all(isinstance(one, dict) for one in parts.values()):
            raise damaged(path, f"{name} is not a mapping of mappings", "evaluate")
    if not summary.get("arms"):
        raise damaged(path, "no arms", "evaluate")
    return summary


class _Audited(Run):
    """A run whose data set may have gone: the trial tables that it keeps say what was tested."""

    @cached_property
    def dataset(self) -> tuple[Trials, Images]:
        """Trials and stimuli, all subjects."""
        try:
            return super().dataset
        except (NeuroCanvasError, OSError):
            found = _kept_tables(self.folder)
            if found is None:
                raise
            return found


def _kept_tables(folder: Path) -> tuple[Trials, Images] | None:
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


def _opened(folder: Path, settings: RunSettings, *, granularity: str, protocol: str = "") -> Run:
    """The run under settings by which all subjects are open and no split is refused."""
    split = {"accept_block_confound": True, **({"protocol": protocol} if protocol else {})}
    return _Audited(folder, settings.model_copy(update={
        "data": settings.data.model_copy(update={"granularity": granularity, "subjects": ()}),
        "split": settings.split.model_copy(update=split),
    }))  # fmt: skip
