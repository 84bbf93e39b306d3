"""The verb audit: what can be concluded from a run folder, or from a table of somebody else's predictions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.audit.overlap import AuditInput, Predictions, audit_cases
from neurocanvas.audit.verdict import GIVEN, MADE_ELSEWHERE
from neurocanvas.config import load_settings
from neurocanvas.data.splits import Split, blocked_trials, groups
from neurocanvas.data.trials import COLUMNS, Trials, natural_key, unique_names, without_signal
from neurocanvas.errors import NeuroCanvasError, check_name
from neurocanvas.findings import Finding, finding, read_findings
from neurocanvas.pipeline.classify import COLUMNS as CELL_COLUMNS
from neurocanvas.pipeline.classify import UNSELECTED

# Fields that are read from the sidecar of a classifier's scores.
CELL_KINDS = {"subject": str, "model": str, "concepts": list, "findings": list, "settings": dict, "split": str}

# A subject's decoders.
MODELS = "models/*_s{}_fold*_model.safetensors"


def audit(
    path: Path, *, selection: str = "unknown", transductive: Sequence[str] = (), pictures: Path | None = None
) -> dict[str, Any]:
    """Audit a table of predictions, or a run folder: classifiers, the encoder, and images made elsewhere."""
    # Trials, splits, sidecars and hashes are read from the folder; nothing is opened, split or computed anew.
    rng, folder = np.random.default_rng(0), path
    if not folder.is_dir():
        from neurocanvas.audit.external import table_case

        case = table_case(path, selection=selection, transductive=transductive, pictures=pictures)
        return audit_cases(path.name, [case], rng=rng)
    if not (folder / "run.toml").is_file():
        raise NeuroCanvasError(
            f"{folder}: a folder without run.toml, and no table; name a run folder, or a .csv or .parquet file of "
            "predictions."
        )
    settings, summary, scored = load_settings(folder / "run.toml"), None, folder / "scores" / "summary.json"
    if scored.is_file():
        summary = {"findings": [], **_read_mapping(scored, "evaluate")}
        for name in ("arms", "subjects", "retrieval"):
            parts = summary.get(name, {})
            if not isinstance(parts, dict) or not all(isinstance(one, dict) for one in parts.values()):
                raise damaged(scored, f"{name} is not a mapping of mappings", "evaluate")
        if not summary.get("arms"):
            raise damaged(scored, "no arms", "evaluate")
    cases: list[AuditInput] = []
    if elsewhere := settings.evaluate.against or (summary is not None and GIVEN in summary["arms"]):
        from neurocanvas.audit.external import pictures_case

        pairs = settings.evaluate.pairs if settings.evaluate.against else ""
        scores = _two_way(folder, summary, GIVEN, model=MADE_ELSEWHERE, selection="unknown") if summary else []
        cases.append(pictures_case(folder, summary, Path(pairs) if pairs else None, scores))
    cells: dict[tuple[str, str], list[Path]] = {}
    for cell in sorted(folder.glob("classification/*/*/*.npy")):
        cells.setdefault((cell.parent.parent.name, cell.parent.name), []).append(cell)
    encoded = list(folder.glob("models/*_model.safetensors")) or not (cells or elsewhere)
    if cells or encoded:
        trials, columns, findings = _read_trials(folder)
        for (protocol, granularity), paths in cells.items():
            cases.append(_classified(folder, f"{protocol}, {granularity}", paths, trials, columns, findings))
        if encoded:
            cases.append(_encoded(folder, summary, trials, columns, findings))
    return audit_cases(folder.name, cases, rng=rng)


def _read_trials(folder: Path) -> tuple[Trials, dict[str, np.ndarray], list[Finding]]:
    """Trials of all tables beside the features; the columns by which parts are compared, and the order; findings."""
    needed, rows = ("trial", "subject", "order", "block", "image", "concept"), dict[str, dict[str, str]]()
    for path in sorted(folder.glob("features/**/s*_trials.csv")):
        rows |= {row["trial"]: row for row in artifacts.read_csv(path, "features", needed)}
    if not rows:
        raise NeuroCanvasError(
            f"{folder}: nothing to audit yet: no trial table features/s*_trials.csv; run `neurocanvas features`."
        )
    names = [name for name in COLUMNS if all(name in row for row in rows.values())]
    try:
        trials = without_signal({name: np.array([row[name] for row in rows.values()]) for name in names}, rows)
    except (ValueError, OverflowError, NeuroCanvasError) as error:
        raise damaged(folder / "features", f"a trial table: {error}", "features") from error
    compared = [name for name in ("subject", "session", "run", "block", "image") if name in names]
    columns = {"stimulus" if name == "image" else name: groups(trials, name) for name in compared}
    columns |= {"concept": groups(trials, "concept"), "order": trials.column("order")}
    captions = artifacts.sidecar_path(folder / "targets" / "caption.txt")
    hashes = _read_mapping(captions, "caption").get("images") if captions.is_file() else None
    if not isinstance(hashes, dict):
        return trials, columns, [finding("pictures-by-name")]
    of_trial = np.array([str(hashes.get(name) or "") for name in trials.column("image").tolist()])
    if (of_trial != "").any():
        columns["picture"] = np.where(of_trial == "", -1, np.unique(of_trial, return_inverse=True)[1])
    return trials, columns, []


def _case(
    name: str, splits: Mapping[str, Split], trials: Trials, columns: Mapping[str, np.ndarray], **more: Any
) -> AuditInput:
    """A case of the folds of some subjects; blocks are compared only where concepts came in blocks."""
    blocked, parts = np.zeros(len(trials), dtype=bool), []
    for split in splits.values():
        folds = [fold.joined().parts() for fold in split.folds]
        rows = np.unique(np.concatenate([own for fold in folds for own in fold.values()]))
        blocked[rows] |= blocked_trials(trials[rows])
        parts += [{part.replace("validation", "val"): own for part, own in fold.items()} for fold in folds]
    block = np.where(blocked, columns["block"], -1)
    return AuditInput(name, {**columns, "block": block}, parts, blocked, **more)


def _classified(
    folder: Path, name: str, paths: Sequence[Path], trials: Trials, columns: Mapping[str, np.ndarray],
    lacks: Sequence[Finding],
) -> AuditInput:  # fmt: skip
    """What classifiers answered under one protocol and granularity."""
    sidecars = {path: _read_mapping(artifacts.sidecar_path(path), "classify", **CELL_KINDS) for path in paths}
    splits: dict[str, Split] = {}
    for path, sidecar in sidecars.items():
        if sidecar["subject"] not in splits:
            file = folder / check_name(folder, sidecar["split"], f"{artifacts.sidecar_path(path)}: split")
            splits[sidecar["subject"]] = Split.from_dict(artifacts.read_json(file, "a split"), trials)
    subjects, names = sorted(splits, key=natural_key), np.unique(trials.y)
    models: dict[str, list[tuple[dict[str, Any], np.ndarray]]] = {}  # subject (its place), row, answer, fold, unit
    findings, others = list(lacks), []
    for path, sidecar in sidecars.items():
        table = _read_answers(path, sidecar, names)
        order, _, fold, unit = table[:, : len(CELL_COLUMNS)].astype(np.int64).T
        own = np.flatnonzero(trials.column("subject") == sidecar["subject"])
        place = dict(zip(columns["order"][own].tolist(), own.tolist(), strict=True))
        rows = np.array([place.get(one, -1) for one in order.tolist()])
        if not np.array_equal(np.sort(rows), np.sort(np.concatenate([one.test for one in splits[sidecar["subject"]]]))):
            others.append(path.relative_to(folder).as_posix())
            findings.append(finding("other-trials", file=others[-1]))
        answer = table[:, len(CELL_COLUMNS) :].argmax(axis=1)
        answer = np.searchsorted(names, np.array(sidecar["concepts"]))[answer]
        kept = rows >= 0
        if not kept.any():
            raise damaged(path, "none of its trials is in the run's trial tables", "classify")
        place_of = np.full(len(rows), subjects.index(sidecar["subject"]))
        table = np.stack([place_of, rows, answer, fold, unit])[:, kept]
        models.setdefault(sidecar["model"], []).append((sidecar, table))
        findings += read_findings(sidecar["findings"])
    answers = []
    for model, found in models.items():
        subject, rows, answer, fold, unit = np.concatenate([parts for _, parts in found], axis=1)
        # units and folds of different subjects are different
        within = (np.stack([subject, fold]), np.stack([subject, fold, unit]))
        strata, units = (np.unique(one, axis=1, return_inverse=True)[1].reshape(-1) for one in within)
        adapted = any(one["code"] == "transductive-training" for sidecar, _ in found for one in sidecar["findings"])
        steps = ("domain adaptation",) if adapted else ()
        chosen = None if found[0][0].get("imported") else found[0][0].get("selection")
        selection = "final" if chosen == UNSELECTED else "validation" if chosen else "unknown"
        answers.append(Predictions(model, rows, answer, strata, units, selection, steps))
    stale = {"file": others[0], "more": len(others) - 1, "stage": "classify"} if others else {}
    said = tuple(dict.fromkeys(findings))
    return _case(name, splits, trials, columns, answers=answers, findings=said, other_split=stale)


def _encoded(
    folder: Path, summary: Mapping[str, Any] | None, trials: Trials,
    columns: Mapping[str, np.ndarray], lacks: Sequence[Finding],
) -> AuditInput:  # fmt: skip
    """What the decoders that made the predictions were tested on, the gallery, and how `evaluate` scored it."""
    made = {}  # subject -> the sidecar of its predictions
    for path in folder.glob("predictions/s*.npy"):
        sidecar = _read_mapping(artifacts.sidecar_path(path), "predict", encoder=str, decoders=list)
        made[path.stem.removeprefix("s")] = sidecar
    there = unique_names(made) or unique_names(path.stem for path in folder.glob("splits/*.json"))
    if not there:
        raise NeuroCanvasError(f"{folder}: nothing to audit yet: nothing was split; run `neurocanvas train`.")
    scored = [subject for subject in there if subject in made and summary and subject in summary.get("subjects", {})]
    findings, splits, chosen, others = list(lacks), {}, set(), []
    for subject in scored or there:
        file = folder / "splits" / f"{subject}.json"
        split = splits[subject] = Split.from_dict(artifacts.read_json(file, "a split"), trials)
        findings += [one for fold in split.folds for one in fold.findings]
        decoders = [one.relative_to(folder).as_posix() for one in folder.glob(MODELS.format(subject))]
        if subject in made:
            decoders = [one[0] if isinstance(one, list) and one else "" for one in made[subject]["decoders"]]
        for name in decoders:
            path = folder / check_name(folder, name, f"{folder / 'predictions' / f's{subject}.npy.json'}: decoders")
            number = re.search(r"_fold(\d+)_model", name)
            if number is None:
                raise damaged(artifacts.sidecar_path(folder / "predictions" / f"s{subject}.npy"), name, "predict")
            sidecar = _read_mapping(artifacts.sidecar_path(path), "train")
            if not sidecar.get("imported"):
                made_of, fold = sidecar.get("split"), int(number[1])
                if not (isinstance(made_of, dict) and isinstance(made_of.get("fingerprint"), str)):
                    raise damaged(artifacts.sidecar_path(path), "split: no fingerprint", "train")
                own = split.folds[fold].joined() if fold < len(split.folds) else None
                if own is None or own.fingerprint(trials.names) != made_of["fingerprint"]:
                    others.append(name)
            chosen.add("unknown" if sidecar.get("imported") or not sidecar.get("selection") else "validation")
            findings += read_findings(sidecar.get("findings", []))
    case = _case(f"{split.protocol}, encoder", splits, trials, columns)
    parts, manifest = case.splits, folder / "images" / "manifest.jsonl"
    if manifest.is_file():
        lines = artifacts.read_text(manifest, "one line per image").splitlines()
        try:
            drawn = {str(json.loads(line)["stimulus"]) for line in lines}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged(manifest, str(error), "generate") from error
        shown, first = np.unique(trials.column("image"), return_index=True)
        parts = [{**one, "gallery": np.sort(first[np.isin(shown, [*drawn])])} for one in parts] if drawn else parts
    scores: list[dict[str, Any]] = []
    beside: dict[str, str] = {}
    if summary is not None and GIVEN in summary["arms"]:
        findings.append(finding("scored-elsewhere"))
    elif summary is not None and made:
        selection = min(chosen) if chosen and "unknown" not in chosen else "unknown"
        scores = _two_way(folder, summary, "eeg", model=made[(scored or there)[0]]["encoder"], selection=selection)
        rules = summary.get("retrieval", {})
        together = [rule for rule, found in rules.items() if found.get("transductive")]
        if together:
            beside = {"rules": ", ".join(together), "alone": ", ".join(rule for rule in rules if rule not in together)}
    stale = {"file": others[0], "more": len(others) - 1, "stage": "train"} if others else {}
    return replace(
        case, splits=parts, scores=scores, findings=tuple(dict.fromkeys(findings)), transductive=beside,
        other_split=stale,
    )  # fmt: skip


def _two_way(folder: Path, summary: Mapping[str, Any], arm: str, *, model: str, selection: str) -> list[dict[str, Any]]:
    """Two-way identification of an arm, and of the floor, as `evaluate` tested it."""
    if arm not in summary["arms"]:
        return []
    path, scores = folder / "scores" / "summary.json", {}
    for name in (arm, "shuffled") if "shuffled" in summary["arms"] else (arm,):
        scored = scores[name] = summary["arms"][name].get("two_way")
        if not isinstance(scored, dict):
            raise damaged(path, f"arms.{name} has no two_way", "evaluate")
        for key in ("value", "chance", "low", "high", "p"):
            value = scored.get(key)
            if value is None and key in ("low", "high", "p"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise damaged(path, f"arms.{name}.two_way.{key} is not a number", "evaluate")
    if not isinstance(summary.get("n_trials"), int):
        raise damaged(path, "n_trials is not a number", "evaluate")
    scored = scores[arm]
    return [{
        "model": model, "metric": "two-way", "n": summary["n_trials"], "correct": None,
        **{name: scored.get(name) for name in ("value", "chance", "low", "high", "p", "place")},
        "p_holm": scored.get("p"), "floor": scores.get("shuffled"), "p_floor": scored.get("p_vs_shuffled"),
        "needed": None, "needed_binomial": None, "least_p": None, "majority": None, "n_units": None,
        "selection": selection, "transductive": [],
    }]  # fmt: skip


def damaged(path: Path, what: str, verb: str) -> NeuroCanvasError:
    """The error of a damaged file."""
    return NeuroCanvasError(f"{path}: damaged ({what}); run `neurocanvas {verb}` again.")


def _read_mapping(path: Path, verb: str, **kinds: type) -> dict[str, Any]:
    """A JSON file that holds a mapping, with values of these kinds; its findings and concepts are checked."""
    text = artifacts.read_text(path, f"what `neurocanvas {verb}` writes")
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("not a mapping")
        read_findings(found.get("findings", []))
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error), verb) from error
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind):
            raise damaged(path, f"{name} is missing or of the wrong type", verb)
    if "concepts" in kinds and not all(isinstance(one, str) for one in found["concepts"]):
        raise damaged(path, "concepts must be a list of strings", verb)
    return found


def _read_answers(path: Path, sidecar: Mapping[str, Any], names: np.ndarray) -> np.ndarray:
    """A classifier's answers, one row per test trial."""
    table = artifacts.read_array(path, "scores; `neurocanvas classify` makes them")
    needed, is_numbers = len(CELL_COLUMNS) + len(sidecar["concepts"]), np.issubdtype(table.dtype, np.floating)
    if not is_numbers or table.ndim != 2 or table.shape[1] != needed or not len(table):
        raise damaged(path, f"{needed} numbers per trial are needed; got {table.dtype}, {table.shape}", "classify")
    if not sidecar["concepts"] or not np.isin(sidecar["concepts"], names).all():
        raise damaged(artifacts.sidecar_path(path), "it names concepts that are not in the trial tables", "classify")
    if not np.isfinite(table[:, : len(CELL_COLUMNS)]).all():
        raise damaged(path, "trials are numbered, and some of the numbers are not finite", "classify")
    return table
