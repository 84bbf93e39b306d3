"""The verb audit: what can be concluded from a run folder, or from a table of somebody else's predictions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.audit.overlap import KNOWN, AuditInput, Predictions, audit_cases
from neurocanvas.audit.verdict import GIVEN, MADE_ELSEWHERE
from neurocanvas.config import load_settings
from neurocanvas.data.eeg_imagenet import fine_groups
from neurocanvas.data.splits import Split, blocked_trials, groups
from neurocanvas.data.trials import COLUMNS, Trials, ranks, unique_names, without_signal
from neurocanvas.errors import NeuroCanvasError, check_name
from neurocanvas.evaluation.statistics import SIGNIFICANT, holm, signed_rank
from neurocanvas.findings import Finding, finding, listed, read_findings
from neurocanvas.pipeline.classify import COLUMNS as CELL_COLUMNS
from neurocanvas.pipeline.classify import UNSELECTED
from neurocanvas.targets.captions import read_captions

# With fewer subjects than this the smallest reachable p of a paired test is shown.
FEW_SUBJECTS = 6

# A subject's decoders.
MODELS = "models/*_s{}_fold*_model.safetensors"


def audit(
    path: Path, *, selection: str = "unknown", transductive: Sequence[str] = (), pictures: Path | None = None,
    names: Path | None = None, gallery: Path | None = None, leaky: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Audit a table of predictions, a matrix, or a run folder: classifiers, the encoder, and images made elsewhere."""
    # Trials, splits, sidecars and hashes are read from the folder; nothing is opened, split or computed anew.
    rng, folder, named = np.random.default_rng(0), path, bool(names or gallery)
    if named and (leaky is not None or folder.is_dir() or folder.suffix.lower() == ".parquet"):
        raise NeuroCanvasError("--names and --gallery: only one matrix (.npy, .pt or .csv) has them; leave them out.")
    if leaky is not None:
        return compare(*(
            audit(side, selection=selection, transductive=transductive, pictures=pictures) for side in (path, leaky)
        ))  # fmt: skip
    if not folder.is_dir():
        from neurocanvas.audit.external import table_case
        from neurocanvas.audit.matrix import is_matrix, matrix_case

        if named or is_matrix(path):
            case, facts = matrix_case(path, names, gallery, selection=selection, transductive=transductive)
            return {**audit_cases(path.name, [case], rng=rng), "matrix": facts}
        case = table_case(path, selection=selection, transductive=transductive, pictures=pictures)
        return audit_cases(path.name, [case], rng=rng)
    if not (folder / "run.toml").is_file():
        raise NeuroCanvasError(
            f"{folder}: a folder without run.toml, and no table; name a run folder, or a .csv or .parquet file of "
            "predictions."
        )
    settings, summary, scored = load_settings(folder / "run.toml"), None, folder / "scores" / "summary.json"
    if scored.is_file():
        summary = _read_json(scored, "evaluate")
        with _reading(scored, "evaluate"):
            summary = {"findings": [], "subjects": {}, "retrieval": {}, "forest": [], **summary}
            if not summary["arms"]:
                raise ValueError("no arms")
    cases: list[AuditInput] = []
    if elsewhere := settings.evaluate.against or (summary is not None and GIVEN in summary["arms"]):
        from neurocanvas.audit.external import images_case

        pairs = settings.evaluate.pairs if settings.evaluate.against else ""
        scores = _two_way(folder, summary, GIVEN, model=MADE_ELSEWHERE, selection="unknown") if summary else []
        cases.append(images_case(folder, summary, Path(pairs) if pairs else None, scores))
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
    if (path := folder / "scores" / "controls.json").is_file():
        rows = _read_json(path, "controls")
        with _reading(path, "controls"):
            outcomes = [row["fired"] and not row["bound"] for row in rows["rows"] if row["fired"] is not None]
        asked = {"computed": len(outcomes), "flagged": sum(outcomes)}
        cases = [
            replace(case, controls=asked) if case.name.startswith(f"{rows['protocol']},") else case for case in cases
        ]
    return audit_cases(folder.name, cases, rng=rng)


def compare(clean: Mapping[str, Any], leaky: Mapping[str, Any]) -> dict[str, Any]:
    """Per model and metric the margin, the ratio and the test over subjects; Holm over all of them."""
    rng, scores = np.random.default_rng(0), [_scores(report) for report in (clean, leaky)]
    rows, tests, findings = list[dict[str, Any]](), list[float](), []
    sources = (clean["source"], leaky["source"])
    _check_same("models", sources, *({" ".join(filter(None, key)) for key in side} for side in scores))
    for key, of_clean in scores[0].items():
        of_leaky = scores[1][key]
        _check_same("subjects", sources, of_clean, of_leaky)
        pairs = np.array([[of_clean[name], of_leaky[name]] for name in of_clean])
        (p, r), n = signed_rank(pairs[:, 1] - pairs[:, 0], rng), len(pairs)
        tests.append(p)
        rows.append({
            "part": key[0], "model": key[1], "metric": key[2], "n": n, **_difference(*pairs.mean(axis=0).tolist()),
            "share": float(np.mean(pairs[:, 1] > pairs[:, 0])), "p": p, "r": r,
            "least_p": 2.0**-n if n < FEW_SUBJECTS else None,
            "subjects": [{"subject": name, **_difference(*pairs[row].tolist())} for row, name in enumerate(of_clean)],
        })  # fmt: skip
    for row, p in zip(rows, holm(tests), strict=True):
        row["p_holm"] = p
        numbers = {name: row[name] for name in ("model", "metric", "margin", "share", "n")}
        findings.append(finding("inflated" if p < SIGNIFICANT else "not-inflated", p=p, **numbers))
        if row["least_p"] is not None:
            findings.append(finding("few-pairs", n=row["n"], least=row["least_p"]))
    return {**clean, "leaky": dict(leaky), "paired": rows, "findings": listed(findings)}


def _difference(clean: float, leaky: float) -> dict[str, float | None]:
    return {"clean": clean, "leaky": leaky, "margin": leaky - clean, "ratio": leaky / clean if clean else None}


def _check_same(kind: str, sources: Sequence[str], clean: Collection[str], leaky: Collection[str]) -> None:
    """Raise where one side has names that the other lacks."""
    for source, have, other in zip(sources, (clean, leaky), (leaky, clean), strict=True):
        if missing := [name for name in other if name not in have]:
            raise NeuroCanvasError(
                f"{source}: the {kind} {', '.join(sorted(missing))} are missing, which the other side has; both need "
                f"the same {kind}."
            )


def _scores(report: Mapping[str, Any]) -> dict[tuple[str, ...], dict[str, float]]:
    """Part of the concepts, model and metric -> subject -> score."""
    scores: dict[tuple[str, ...], dict[str, float]] = {}
    for case in report["cases"]:
        part = "" if case["name"] == report["source"] else case["name"].partition(", ")[2]
        for result in [result for result in case["results"] if result.get("subjects")]:
            key = (part, result["model"], result["metric"])
            if key in scores:
                raise NeuroCanvasError(
                    f"{report['source']}: several protocols have scores of {result['model']}; name a folder with one."
                )
            scores[key] = {row["subject"]: row["value"] for row in result["subjects"]}
    if not scores:
        raise NeuroCanvasError(
            f"{report['source']}: no score of a subject; a table needs the column subject, a run folder scores."
        )
    return scores


@contextmanager
def _reading(path: Path, verb: str) -> Iterator[None]:
    """End in one line where a file that a verb wrote holds something else."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise NeuroCanvasError(
            f"{path}: damaged ({type(error).__name__}: {error}); run `neurocanvas {verb}` again."
        ) from error


def _read_json(path: Path, verb: str) -> dict[str, Any]:
    """A mapping that a verb wrote; its findings are checked."""
    text = artifacts.read_text(path, f"what `neurocanvas {verb}` writes")
    with _reading(path, verb):
        content = dict(json.loads(text))
        read_findings(content.get("findings", []))
        return content


def _read_trials(folder: Path) -> tuple[Trials, dict[str, np.ndarray], list[Finding]]:
    """Trials of all tables beside the features; the columns by which parts are compared, and the order; findings."""
    needed, rows = ("trial", "subject", "order", "block", "concept"), dict[str, dict[str, str]]()
    for path in sorted(folder.glob("features/**/s*_trials.csv")):
        rows |= {row["trial"]: row for row in artifacts.read_csv(path, "features", needed)}
    if not rows:
        raise NeuroCanvasError(
            f"{folder}: nothing to audit yet: no trial table features/s*_trials.csv; run `neurocanvas features`."
        )
    names = [name for name in COLUMNS if all(name in row for row in rows.values())]
    with _reading(folder / "features", "features"):
        trials = without_signal({name: np.array([row[name] for row in rows.values()]) for name in names}, rows)
    compared = [name for name in ("subject", "session", "run", "block", "image") if name in names]
    columns = {"stimulus" if name == "image" else name: groups(trials, name) for name in compared}
    columns |= {"concept": groups(trials, "concept"), "order": trials.column("order")}
    if all("signal" in row for row in rows.values()):  # numbered within each subject
        signals = [f"{row['subject']} {row['signal']}" for row in rows.values()]
        columns["signal"] = np.unique(signals, return_inverse=True)[1]
    if "image" not in names:
        return trials, columns, []
    captions = artifacts.sidecar_path(folder / "targets" / "caption.txt")
    hashes = _read_json(captions, "caption").get("images") if captions.is_file() else None
    if not isinstance(hashes, dict):
        return trials, columns, [finding("pictures-by-name")]
    hash_of_trial = np.array([str(hashes.get(name) or "") for name in trials.column("image").tolist()])
    if (hash_of_trial != "").any():
        columns["picture"] = np.where(hash_of_trial == "", -1, np.unique(hash_of_trial, return_inverse=True)[1])
    return trials, columns, []


def _case(
    name: str, splits: Mapping[str, Split], trials: Trials, columns: Mapping[str, np.ndarray], **more: Any
) -> AuditInput:
    """A case of the folds of some subjects; blocks are compared only where concepts came in blocks."""
    blocked, parts = np.zeros(len(trials), dtype=bool), []
    for split in splits.values():
        folds = [fold.joined().parts() for fold in split.folds]
        rows = np.unique(np.concatenate([part for fold in folds for part in fold.values()]))
        blocked[rows] |= blocked_trials(trials[rows])
        parts += [{part.replace("validation", "val"): rows for part, rows in fold.items()} for fold in folds]
    block = np.where(blocked, columns["block"], -1)
    subjects = unique_names(trials.column("subject"))
    return AuditInput(name, {**columns, "block": block}, parts, blocked, subjects=subjects, **more)


def _stale(files: Sequence[str], stage: str) -> dict[str, Any]:
    """Files that were made on another split than that of the folder."""
    return {"file": files[0], "more": len(files) - 1, "stage": stage} if files else {}


def _classified(
    folder: Path, name: str, paths: Sequence[Path], trials: Trials, columns: Mapping[str, np.ndarray],
    lacks: Sequence[Finding],
) -> AuditInput:  # fmt: skip
    """What classifiers answered under one protocol and granularity."""
    import pandas as pd

    names, findings, others = pd.Index(np.unique(trials.y)), list(lacks), []
    splits: dict[str, Split] = {}
    models: dict[str, list[tuple[dict[str, Any], pd.DataFrame]]] = {}
    for path in paths:
        sidecar = _read_json(artifacts.sidecar_path(path), "classify")
        table = artifacts.read_array(path, "scores; `neurocanvas classify` makes them")
        with _reading(path, "classify"):
            subject, numbers = sidecar["subject"], table[:, : len(CELL_COLUMNS)]
            if subject not in splits:
                file = folder / check_name(folder, sidecar["split"], f"{artifacts.sidecar_path(path)}: split")
                splits[subject] = Split.from_dict(artifacts.read_json(file, "a split"), trials)
            concepts = names.get_indexer(sidecar["concepts"])
            if (concepts < 0).any() or not np.isfinite(numbers).all():
                raise ValueError("concepts that are not in the trial tables, or trials without a number")
            order, _, fold, unit = numbers.astype(np.int64).T
            of_subject = np.flatnonzero(trials.column("subject") == subject)
            by_order = dict(zip(columns["order"][of_subject].tolist(), of_subject.tolist(), strict=True))
            rows = np.array([by_order.get(number, -1) for number in order.tolist()])
            answer = concepts[table[:, len(CELL_COLUMNS) :].argmax(axis=1)]
            if not (rows >= 0).any():
                raise ValueError("none of its trials is in the run's trial tables")
            findings += read_findings(sidecar["findings"])
            cell = pd.DataFrame({"subject": subject, "row": rows, "answer": answer, "fold": fold, "unit": unit})
            models.setdefault(sidecar["model"], []).append((sidecar, cell[rows >= 0]))
        if not np.array_equal(np.sort(rows), np.sort(np.concatenate([fold.test for fold in splits[subject]]))):
            others.append(path.relative_to(folder).as_posix())
            findings.append(finding("other-trials", file=others[-1]))
    answers = []
    for model, cells in models.items():
        table = pd.concat([cell for _, cell in cells])
        table["subject"] = ranks(table["subject"].to_numpy(str))
        # units and folds of different subjects are different
        strata, units = (table.groupby(keys).ngroup() for keys in (["subject", "fold"], ["subject", "fold", "unit"]))
        adapted = any(row["code"] == "transductive-training" for sidecar, _ in cells for row in sidecar["findings"])
        sidecar = cells[0][0]
        selected = None if sidecar.get("imported") else sidecar.get("selection")
        selection = "final" if selected == UNSELECTED else "validation" if selected else "unknown"
        rows, answer, strata, units = (column.to_numpy() for column in (table["row"], table["answer"], strata, units))
        steps = ("domain adaptation",) if adapted else ()
        answers.append(Predictions(model, rows, answer, strata, units, selection, steps))
    once = tuple(dict.fromkeys(findings))
    group_of = fine_groups(trials.y, trials.column("granularity")) if "granularity" in trials.metadata else {}
    group = np.array([group_of.get(concept, -1) for concept in names])
    return _case(
        name, splits, trials, columns, answers=answers, group=group, findings=once,
        other_split=_stale(others, "classify"),
    )  # fmt: skip


def _encoded(
    folder: Path, summary: Mapping[str, Any] | None, trials: Trials,
    columns: Mapping[str, np.ndarray], lacks: Sequence[Finding],
) -> AuditInput:  # fmt: skip
    """What the decoders that made the predictions were tested on, the gallery, and how `evaluate` scored it."""
    predicted = {  # subject -> the sidecar of its predictions
        path.stem.removeprefix("s"): _read_json(artifacts.sidecar_path(path), "predict")
        for path in folder.glob("predictions/s*.npy")
    }
    subjects = unique_names(predicted) or unique_names(path.stem for path in folder.glob("splits/*.json"))
    if not subjects:
        raise NeuroCanvasError(f"{folder}: nothing to audit yet: nothing was split; run `neurocanvas train`.")
    scored = [subject for subject in subjects if summary and subject in predicted and subject in summary["subjects"]]
    findings, splits, selections, others = list(lacks), {}, set(), []
    for subject in scored or subjects:
        file = folder / "splits" / f"{subject}.json"
        split = splits[subject] = Split.from_dict(artifacts.read_json(file, "a split"), trials)
        findings += [row for fold in split.folds for row in fold.findings]
        decoders = [path.relative_to(folder).as_posix() for path in folder.glob(MODELS.format(subject))]
        source = artifacts.sidecar_path(folder / "predictions" / f"s{subject}.npy")
        if subject in predicted:
            with _reading(source, "predict"):
                decoders = [decoder[0] for decoder in predicted[subject]["decoders"]]
        for name in decoders:
            path = folder / check_name(folder, name, f"{source}: decoders")
            with _reading(source, "predict"):
                number = int(re.findall(r"_fold(\d+)_model", name)[0])
            sidecar = _read_json(artifacts.sidecar_path(path), "train")
            with _reading(artifacts.sidecar_path(path), "train"):
                findings += read_findings(sidecar.get("findings", []))
                imported = sidecar.get("imported")
                selections.add("unknown" if imported or not sidecar.get("selection") else "validation")
                fold = split.folds[number].joined() if number < len(split.folds) else None
                if not imported and sidecar["split"]["fingerprint"] != (fold and fold.fingerprint(trials.names)):
                    others.append(name)
    case = _case(f"{split.protocol}, encoder", splits, trials, columns)
    for sidecar in predicted.values():
        findings += [row for row in read_findings(sidecar.get("findings", [])) if row.code == "averaged-showings"]
    findings += _captions_repeat(folder, trials, case.splits)
    parts, manifest = case.splits, folder / "images" / "manifest.jsonl"
    if manifest.is_file():
        lines = artifacts.read_text(manifest, "one line per image").splitlines()
        with _reading(manifest, "generate"):
            drawn = {str(json.loads(line)["stimulus"]) for line in lines}
        images, first = np.unique(trials.column("image"), return_index=True)
        gallery = np.sort(first[np.isin(images, [*drawn])])
        parts = [{**part, "gallery": gallery} for part in parts] if drawn else parts
    scores: list[dict[str, Any]] = []
    beside: dict[str, str] = {}
    if summary is not None and GIVEN in summary["arms"]:
        findings.append(finding("scored-elsewhere"))
    elif summary is not None and predicted:
        selection = min(selections) if selections and "unknown" not in selections else "unknown"
        first_subject = (scored or subjects)[0]
        scores = _two_way(folder, summary, "eeg", model=predicted[first_subject]["encoder"], selection=selection)
        with _reading(folder / "scores" / "summary.json", "evaluate"):
            together = [rule for rule, row in summary["retrieval"].items() if row.get("transductive")]
            alone = [rule for rule in summary["retrieval"] if rule not in together]
        beside = {"rules": ", ".join(together), "alone": ", ".join(alone)} if together else {}
    return replace(
        case, splits=parts, scores=scores, findings=tuple(dict.fromkeys(findings)), transductive=beside,
        other_split=_stale(others, "train"),
    )  # fmt: skip


def _captions_repeat(folder: Path, trials: Trials, splits: Sequence[Mapping[str, np.ndarray]]) -> list[Finding]:
    """How many test images have word for word the caption of a training image of their fold."""
    path = folder / "targets" / "caption.txt"
    if not path.is_file():
        return []
    captions, images = read_captions(path), trials.column("image")
    tested, shared = set[str](), set[str]()
    for split in splits:
        known = {captions.get(name) for part in KNOWN if part in split for name in images[split[part]].tolist()}
        of_fold = {*images[split["test"]].tolist()} & captions.keys()
        tested |= of_fold
        shared |= {name for name in of_fold if captions[name] in known}
    return [finding("captions-repeat", shared=len(shared), values=len(tested))] if shared else []


def _two_way(folder: Path, summary: Mapping[str, Any], arm: str, *, model: str, selection: str) -> list[dict[str, Any]]:
    """Two-way identification of an arm, and of the floor, as `evaluate` tested it."""
    if arm not in summary["arms"] or summary.get("judge", {}).get("used") is False:
        return []
    with _reading(folder / "scores" / "summary.json", "evaluate"):
        scores = {name: summary["arms"][name]["two_way"] for name in (arm, "shuffled") if name in summary["arms"]}
        for row in scores.values():  # raises where one is not a number
            math.fsum([row["value"], row["chance"], *(row.get(key) or 0.0 for key in ("low", "high", "p"))])
        kept = ("value", "chance", "low", "high", "p", "place", "place_low", "place_high", "p_subjects")
        numbers = {name: scores[arm].get(name) for name in kept}
        alone = [row["p_holm"] < SIGNIFICANT for row in summary["forest"] if row["arm"] == arm]
        if numbers["p_subjects"] is not None:
            numbers |= {"n_subjects": len(alone), "n_above": sum(alone)}
        subjects = [{name: row[name] for name in ("subject", "n", "value")} for row in summary["forest"]
                    if row["arm"] == arm]  # fmt: skip
        return [{
            "model": model, "metric": "two-way", "n": summary["n_trials"], "correct": None, **numbers,
            "p_holm": numbers["p"], "floor": scores.get("shuffled"), "p_floor": scores[arm].get("p_vs_shuffled"),
            "needed": None, "needed_binomial": None, "least_p": None, "majority": None, "n_units": None,
            "selection": selection, "transductive": [], "subjects": subjects,
        }]  # fmt: skip
