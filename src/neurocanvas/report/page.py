"""A run folder to one HTML page that needs nothing else: verdict, scores, pictures, maps, curves."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from neurocanvas import artifacts
from neurocanvas.artifacts import read_csv
from neurocanvas.config import RunSettings, load_settings
from neurocanvas.data.montage import BANDS
from neurocanvas.data.trials import natural_key
from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.evaluation.metrics import METRICS
from neurocanvas.findings import listed, read_findings
from neurocanvas.generation.arms import ARMS
from neurocanvas.pipeline.run import Run
from neurocanvas.pipeline.train import training_table
from neurocanvas.report import figures, sections
from neurocanvas.report.figures import confusion, csv_link, gradient, scalp_map
from neurocanvas.report.gallery import caption_pages, ranked_pictures
from neurocanvas.report.text import (
    classification_sentence,
    definitions,
    metric_words,
    percent,
    sentence,
    verdict,
)
from neurocanvas.targets.captions import read_captions

PANELS = 6  # training curves shown at most
LOSSES = ("epoch", "train_loss", "val_loss")

# What the template needs of a run that classifies only.
NO_PICTURES: Mapping[str, Any] = {
    "pictured": False, "arms": {}, "models": [], "concepts": {"arms": []}, "scalp": {"maps": []}, "confusion": None,
    "importance": None,
}  # fmt: skip


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder; the same folder gives the same bytes."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = Path(folder)
    check_file(folder / "run.toml", "the settings of the run; run the verb run")
    settings = load_settings(folder / "run.toml")
    if settings.evaluate.against:
        raise NeuroCanvasError(f"{folder}: pictures that were made elsewhere have no page; see {folder / 'scores'}.")
    script = _source("page.js").strip()
    tables = _classification(folder)
    pictured = (folder / "scores" / "summary.json").is_file() or not tables
    content = {
        **(_pictured(folder, settings) | {"pictured": True} if pictured else NO_PICTURES),
        "name": settings.name, "classification": tables, "audit": _audit(folder),
        "controls": sections.controls(folder, settings), "gradient": gradient(),
        "marks": {arm: Markup(figures.MARKS.get(arm, figures.MARK)) for arm in ARMS},
        "script": Markup(script), "script_hash": script_hash(script),
    }  # fmt: skip
    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    target = folder / "report.html"
    page = environment.get_template("page.html.j2").render(content)
    artifacts.write_text(target, page.encode("utf-8", "replace"))  # JSON of others may hold halves of surrogate pairs
    return target


def script_hash(script: str) -> str:
    """Name a script as a content security policy names what may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _source(name: str) -> str:
    """A template, the style sheet or the script beside this file."""
    return (files("neurocanvas.report") / name).read_text(encoding="utf-8")


def _audit(folder: Path) -> dict[str, Any] | None:
    """The verdict, and what can and cannot be concluded."""
    path = folder / "scores" / "audit.json"
    if not path.is_file():
        return None
    found = artifacts.read_json(path, "what the verb audit found; run it again")
    try:
        cases = [
            {"name": case["name"], **{kind: list(map(sentence, case[kind])) for kind in ("can", "cannot")}}
            for case in found["cases"]
        ]
        return {"verdict": verdict(found), "severity": found["verdict"]["severity"], "cases": cases}
    except (LookupError, TypeError, ValueError) as error:
        raise NeuroCanvasError(f"{path}: damaged ({error}); run the verb report again.") from error


def _classification(folder: Path) -> list[dict[str, Any]]:
    """Tables of the verbs benchmark, or else classify, by protocol; none where neither has run."""
    paths = [folder / "scores" / f"{verb}.json" for verb in ("benchmark", "classification")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return []
    found = artifacts.read_json(path, "the tables of the verb benchmark; run it again")
    parts: list[dict[str, Any]] = []
    for protocol in dict.fromkeys(table["protocol"] for table in found["tables"]):
        tables = [table for table in found["tables"] if table["protocol"] == protocol]
        findings = listed(one for table in tables for one in read_findings(table["findings"]))
        parts.append({
            "sentence": classification_sentence([row for row in found["rows"] if row["protocol"] == protocol]),
            "findings": [(sentence(one), one["severity"]) for one in findings],
            "tables": [{**table, "link": csv_link(f"{path.stem}_{place}.csv", table["header"], table["lines"])}
                       for place, table in enumerate(tables, len([t for s in parts for t in s["tables"]]) + 1)],
        })  # fmt: skip
    return parts


def _pictured(folder: Path, settings: RunSettings) -> dict[str, Any]:
    """What the page shows of a run that made pictures."""
    summary = artifacts.read_json(folder / "scores" / "summary.json", "the scores of all arms; run the verb evaluate")
    if not isinstance(summary, dict) or not summary.get("arms"):
        raise NeuroCanvasError(f"{folder / 'scores' / 'summary.json'}: holds no arms; run the verb evaluate.")
    # what an earlier run with other subjects or another mapper left in the folder is not part of this one
    tables = _numbered(folder, f"{settings.data.features_folder}/s*_trials.csv", "features", summary["subjects"])
    trials = [row for path in tables for row in read_csv(path, "features")]
    scalp = _scalp(folder / settings.data.features_folder, summary["subjects"])
    captions = read_captions(folder / "targets" / "caption.txt")
    trained = _models(folder, summary["subjects"])
    models = [model for model in trained if model["name"] == settings.encoder.name]
    arms = [arm for arm in ARMS if arm in summary["arms"]]
    names = {concept: row["name"] for concept, row in summary["concepts"].items()}
    n_way = summary.get("n_way", settings.evaluate.n_way)
    findings = listed(one for made in (summary, *models) for one in read_findings(made["findings"]))
    subjects = {key: {"name": f"Subject {key}", "n": None, **row} for key, row in summary["subjects"].items()}
    over_subjects = sections.forest(summary, arms)
    measured = summary["arms"]
    shown = models[:PANELS]
    mappers = training_table([*models, *(model for model in trained if model not in models)])
    curves = [[m["name"], m["subject"], m["fold"], *map(line.get, LOSSES)] for m in shown for line in m["history"]]
    scores = [[arm, metric, *map(score.get, sections.SCORE_COLUMNS)] for arm in arms
              for metric, score in measured[arm].items()]  # fmt: skip
    known = [metric for metric in measured[arms[0]] if metric in METRICS and METRICS[metric].meaning] if arms else []
    return {
        "findings": [(sentence(one), one["severity"]) for one in findings],
        "definitions": definitions(settings, summary, trials, len(tables), scalp["ch_names"]),
        "arms": {arm: ARMS[arm].meaning for arm in arms},
        "tiles": [(arm, percent(measured[arm]["two_way"]["value"], 1)) for arm in arms],
        "metrics": sections.metric_tables(summary, arms, n_way),
        "scores_link": csv_link("scores.csv", ["arm", "metric", *sections.SCORE_COLUMNS], scores),
        "not_computed": sections.not_computed(summary),
        "sets": sections.set_table(summary, arms),
        "retrieval": sections.retrieval_table(summary),
        "unit": summary.get("unit", "trials"),
        "exchanged": summary.get("exchanged", "trials"),
        "arm_options": [("all", "all arms"), *((arm, arm) for arm in arms)],
        "ends": {"shuffled": "floor", "oracle": "ceiling"},
        "pictures": ranked_pictures(folder, arms, captions, names),
        "caption_pages": caption_pages(folder),
        "concepts": sections.comparison(summary["concepts"], arms, "concepts.csv"),
        "confusion": confusion(folder, arms, names),
        "importance": sections.importance(folder),
        "forest": over_subjects,
        "subjects": sections.comparison(subjects, arms, "subjects.csv")
        if len(subjects) > 1 and not over_subjects
        else None,
        "scalp": scalp,
        "models": shown,
        "n_models": len(models),
        "curves_link": csv_link("training.csv", ["mapper", "subject", "fold", *LOSSES], curves),
        "mappers": mappers and {**mappers, "link": csv_link("mappers.csv", mappers["header"], mappers["lines"])},
        "glossary": [metric_words(summary, metric, n_way) for metric in known],
    }


def _numbered(folder: Path, pattern: str, verb: str, subjects: Collection[str]) -> list[Path]:
    """Files of a pattern and of some subjects, ordered by the numbers in their names; at least one."""
    whose = "|".join(map(re.escape, subjects))
    mine, anybody = rf"(?:^|_)s(?:{whose})_(?:fold\d+_)?(?:model|trials|de)\.", r"^s|_fold\d"
    there = [path for path in folder.glob(pattern) if re.search(mine, path.name) or not re.search(anybody, path.name)]
    found = sorted(there, key=lambda path: natural_key(path.name))
    if not found:
        raise NeuroCanvasError(f"{folder / pattern}: no such file; run the verb {verb}.")
    return found


def _scalp(folder: Path, subjects: Collection[str]) -> dict[str, Any]:
    """Mean DE per electrode and band over all trials, as maps with their limits."""
    totals, count, card = None, 0, {}
    for path in _numbered(folder, "s*_de.npy", "features", subjects):
        features, card = artifacts.read_array(path, "features; run the verb features"), artifacts.read_card(path)
        shape = (len(card["ch_names"]), len(card["bands"]))
        if features.shape[1:] != shape or (totals is not None and totals.shape != shape):
            raise NeuroCanvasError(f"{path}: trials of {shape} are needed; got {features.shape}; run features again.")
        total = np.nansum(np.asarray(features, dtype=np.float64), axis=0)
        totals, count = total + (0 if totals is None else totals), count + len(features)
    mean = np.asarray(totals) / count
    maps = []
    for band, values in zip(card["bands"], mean.T, strict=True):
        limits = float(values.min()), float(values.max())
        hertz = "{:g}–{:g} Hz".format(*BANDS[band]) if band in BANDS else ""
        maps.append({
            "band": band, "hertz": hertz, "low": f"{limits[0]:.2f}", "high": f"{limits[1]:.2f}",
            "map": scalp_map(values, card["ch_names"], limits),
        })  # fmt: skip
    unit = "nats" if card.get("method") == "gaussian" else "the released formula's unit"
    rows = [
        [band, name, value]
        for band, values in zip(card["bands"], mean.T.tolist(), strict=True)
        for name, value in zip(card["ch_names"], values, strict=True)
    ]
    link = csv_link("features_on_scalp.csv", ["band", "electrode", "differential_entropy"], rows)
    return {"maps": maps, "n": count, "unit": unit, "ch_names": card["ch_names"], "link": link}


def _models(folder: Path, subjects: Collection[str]) -> list[dict[str, Any]]:
    """Training curve and scores of every decoder that was trained."""
    models, whose = [], "|".join(map(re.escape, subjects))
    for path in _numbered(folder, "models/*_model.safetensors.json", "train", subjects):
        card = artifacts.read_json(path, "a decoder's card; run the verb train")
        name, subject, fold = re.fullmatch(
            rf"(.+?)(?:_s({whose}))?(?:_fold(\d+))?_model\.safetensors\.json", path.name
        ).groups()  # type: ignore[union-attr]
        scores, beside = card.get("scores", {}), {}
        for baseline, line in (("ridge", "ridge"), ("mean", "constant")):
            other = path.with_name(path.name.replace(name, baseline, 1))
            if other.is_file():
                about = artifacts.read_json(other, "a decoder's card; run the verb train")
                beside[line] = about.get("scores", {}).get(baseline, {}).get("val_mse")
        levels = {line: value for line, value in beside.items() if value is not None}
        history = card.get("history", [])
        models.append({
            "name": name, "subject": subject, "fold": fold, "scores": scores, "findings": card.get("findings", []),
            "selected": card.get("selected_epoch"), "epochs": len(history), "history": history,
            "curves": figures.curves(history, card.get("selected_epoch"), levels) if history else None,
        })  # fmt: skip
    return models


def report(run: Run) -> list[Path]:
    """Audit the run and make the page."""
    from neurocanvas.pipeline.audit import audit

    if (run.folder / "scores").is_dir():  # else the page says what to run first
        found = audit(run.folder)
        del found["source"]  # the folder's name, which is no part of the run
        artifacts.write_json(run.folder / "scores" / "audit.json", found)
    return [write_report(run.folder)]
