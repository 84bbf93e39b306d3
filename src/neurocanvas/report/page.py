"""The report of a run folder as one self-contained HTML page: verdict, scores, images, maps, curves."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from neurocanvas import artifacts
from neurocanvas.artifacts import read_csv
from neurocanvas.config import RunSettings, load_settings
from neurocanvas.data.trials import natural_key, unique_names
from neurocanvas.errors import NeuroCanvasError, check_file, check_name
from neurocanvas.evaluation.metrics import METRICS
from neurocanvas.findings import listed, read_findings
from neurocanvas.generation.arms import ARMS
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.pipeline.train import training_table
from neurocanvas.report import figures, sections
from neurocanvas.report.figures import confusion, csv_link, scalp_map
from neurocanvas.report.text import (
    ARM_MEANINGS,
    classification_sentence,
    definitions,
    metric_words,
    percent,
    sentence,
    verdict,
)
from neurocanvas.targets.captions import read_captions

BESIDE = ("page.html.j2", "style.css.j2", "page.js")  # the template, what it includes, and its script
PANELS = 6  # training curves shown at most
LOSSES = ("epoch", "train_loss", "val_loss")

# Template variables of a run without images.
NO_PICTURES: Mapping[str, Any] = {
    "pictured": False, "arms": {}, "models": [], "concepts": {"arms": []}, "scalp": {"maps": []}, "confusion": None,
    "importance": None,
}  # fmt: skip


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder, reproducibly."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    folder = Path(folder)
    check_file(folder / "run.toml", "the settings of the run; run the verb run")
    settings = load_settings(folder / "run.toml")
    if settings.evaluate.against:
        raise NeuroCanvasError(f"{folder}: images from another source have no page; see {folder / 'scores'}.")
    path, audit = folder / "scores" / "audit.json", None
    if path.is_file():
        results = artifacts.read_json(path, "the results of the audit; run `neurocanvas report` again")
        try:
            cases = [
                {"name": case["name"], **{kind: list(map(sentence, case[kind])) for kind in ("can", "cannot")}}
                for case in results["cases"]
            ]
            audit = {"verdict": verdict(results), "severity": results["verdict"]["severity"], "cases": cases}
        except (LookupError, TypeError, ValueError) as error:
            raise NeuroCanvasError(f"{path}: damaged ({error}); run the verb report again.") from error
    tables = [folder / "scores" / f"{verb}.json" for verb in ("benchmark", "classification")]
    grid = next((_classification(path) for path in tables if path.is_file()), [])
    pictured = (folder / "scores" / "summary.json").is_file() or not grid
    beside = {name: (files("neurocanvas.report") / name).read_text(encoding="utf-8") for name in BESIDE}
    environment = Environment(
        loader=DictLoader(beside), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = beside["page.js"].strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    content = {
        **(_pictured(folder, settings) | {"pictured": True} if pictured else NO_PICTURES),
        "name": settings.name, "classification": grid, "audit": audit, "gradient": figures.GRADIENT,
        "controls": sections.controls(folder, settings) if (folder / "scores" / "controls.json").is_file() else None,
        "marks": {arm: Markup(figures.MARKS.get(arm, figures.MARK)) for arm in ARMS},
        "script": Markup(script), "script_hash": f"sha256-{digest}",
    }  # fmt: skip
    target = folder / "report.html"
    page = environment.get_template("page.html.j2").render(content)
    artifacts.write_text(target, page.encode("utf-8", "replace"))  # foreign JSON may have halves of surrogate pairs
    return target


def _classification(path: Path) -> list[dict[str, Any]]:
    """Tables of the verbs benchmark or classify, by protocol."""
    results = artifacts.read_json(path, "the tables of a benchmark; run `neurocanvas benchmark` again")
    protocols: list[dict[str, Any]] = []
    for protocol in dict.fromkeys(table["protocol"] for table in results["tables"]):
        tables = [table for table in results["tables"] if table["protocol"] == protocol]
        findings = listed(record for table in tables for record in read_findings(table["findings"]))
        first = 1 + sum(len(earlier["tables"]) for earlier in protocols)
        protocols.append({
            "sentence": classification_sentence([row for row in results["rows"] if row["protocol"] == protocol]),
            "findings": [(sentence(record), record["severity"]) for record in findings],
            "tables": [{**table, "link": csv_link(f"{path.stem}_{number}.csv", table["header"], table["lines"])}
                       for number, table in enumerate(tables, first)],
        })  # fmt: skip
    return protocols


def _pictured(folder: Path, settings: RunSettings) -> dict[str, Any]:
    """Template variables of a run with images."""
    summary = artifacts.read_json(folder / "scores" / "summary.json", "the scores of all arms; run the verb evaluate")
    if not isinstance(summary, dict) or not summary.get("arms"):
        raise NeuroCanvasError(f"{folder / 'scores' / 'summary.json'}: holds no arms; run the verb evaluate.")
    subjects, features = unique_names(summary["subjects"]), folder / settings.data.features_folder
    trials = [row for subject in subjects for row in read_csv(features / f"s{subject}_trials.csv", "features")]
    scalp = _scalp([features / f"s{subject}_de.npy" for subject in subjects])
    captions = read_captions(folder / "targets" / "caption.txt")
    models, others = _models(folder, subjects)
    arms = [arm for arm in ARMS if arm in summary["arms"]]
    names = {concept: row["name"] for concept, row in summary["concepts"].items()}
    n_way = summary.get("n_way", settings.evaluate.n_way)
    findings = listed(record for part in (summary, *models) for record in read_findings(part["findings"]))
    measured = summary["arms"]
    shown = models[:PANELS]
    encoders = training_table([*models, *others])
    pages = sorted((folder / "generated_from_captions").glob("page_*.png"))
    reasons: dict[str, list[str]] = {}
    for metric, reason in summary.get("not_computed", {}).items():
        reasons.setdefault(str(reason), []).append(metric_words(summary, metric, "n")[0])
    curves = [[m["name"], m["subject"], m["fold"], *map(line.get, LOSSES)] for m in shown for line in m["history"]]
    scores = [[arm, metric, *map(score.get, sections.SCORE_COLUMNS)] for arm in arms
              for metric, score in measured[arm].items()]  # fmt: skip
    known = [metric for metric in measured[arms[0]] if metric in METRICS and METRICS[metric].meaning] if arms else []
    return {
        "findings": [(sentence(record), record["severity"]) for record in findings],
        "definitions": definitions(settings, summary, trials, scalp["ch_names"], models[0]),
        "arms": {arm: ARMS[arm].meaning or ARM_MEANINGS.get(arm, "") for arm in arms},
        "tiles": [(arm, percent(measured[arm]["two_way"]["value"], 1)) for arm in arms if "two_way" in measured[arm]],
        "metrics": sections.metric_tables(summary, arms, n_way),
        "scores_link": csv_link("scores.csv", ["arm", "metric", *sections.SCORE_COLUMNS], scores),
        "not_computed": [(", ".join(titles), reason) for reason, titles in reasons.items()],
        "sets": sections.set_table(summary, arms),
        "retrieval": sections.retrieval_table(summary),
        "judge": summary.get("judge", {}).get("name", settings.evaluate.judge),
        "unit": summary.get("unit", "trials"),
        "exchanged": summary.get("exchanged", "trials"),
        "arm_options": [("all", "all arms"), *((arm, arm) for arm in arms)],
        "ends": {"shuffled": "floor", "oracle": "ceiling"},
        "pictures": sections.ranked_pictures(folder, arms, captions, names),
        "caption_pages": {
            "shown": [sections.data_uri(page, sections.PAGE) for page in pages[: sections.PAGES]],
            "n": len(pages),
        },
        "concepts": sections.comparison(summary["concepts"], arms),
        "confusion": confusion(folder, arms, names),
        "importance": sections.importance(losses)
        if (losses := folder / "scores" / "importance.csv").is_file()
        else None,
        "forest": sections.forest(summary, arms),
        "scalp": scalp,
        "models": shown,
        "n_models": len(models),
        "curves_link": csv_link("training.csv", ["encoder", "subject", "fold", *LOSSES], curves),
        "encoders": encoders and {**encoders, "link": csv_link("encoders.csv", encoders["header"], encoders["lines"])},
        "glossary": [metric_words(summary, metric, n_way)[:2] for metric in known],
    }


def _scalp(paths: Sequence[Path]) -> dict[str, Any]:
    """Mean DE per electrode and band over all trials, as maps with their limits."""
    totals, count, sidecar = None, 0, {}
    for path in paths:
        features, sidecar = artifacts.read_array(path, "features; run the verb features"), artifacts.read_sidecar(path)
        shape = (len(sidecar["ch_names"]), len(sidecar["bands"]))
        if features.shape[1:] != shape or (totals is not None and totals.shape != shape):
            raise NeuroCanvasError(f"{path}: trials of {shape} are needed; got {features.shape}; run features again.")
        total = np.nansum(np.asarray(features, dtype=np.float64), axis=0)
        totals, count = total + (0 if totals is None else totals), count + len(features)
    mean = np.asarray(totals) / count
    maps = []
    for band, values in zip(sidecar["bands"], mean.T, strict=True):
        limits = float(values.min()), float(values.max())
        maps.append({
            "band": band, "hertz": figures.HERTZ.get(band, ""), "low": f"{limits[0]:.2f}", "high": f"{limits[1]:.2f}",
            "map": scalp_map(values, sidecar["ch_names"], limits),
        })  # fmt: skip
    unit = "nats" if sidecar.get("method") == "gaussian" else "the released formula's unit"
    rows = [
        [band, name, value]
        for band, values in zip(sidecar["bands"], mean.T.tolist(), strict=True)
        for name, value in zip(sidecar["ch_names"], values, strict=True)
    ]
    link = csv_link("features_on_scalp.csv", ["band", "electrode", "differential_entropy"], rows)
    return {"maps": maps, "n": count, "unit": unit, "ch_names": sidecar["ch_names"], "link": link}


def _models(folder: Path, subjects: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training curve and scores of every decoder of the predictions, and of the other decoders."""
    models, others = [], []
    for subject in subjects:
        predicted = folder / "predictions" / f"s{subject}.npy.json"
        made_by = artifacts.read_json(predicted, "a sidecar; run the verb predict")
        made = [check_name(folder, name, f"predictions of subject {subject}") for name, _ in made_by["decoders"]]
        on_disk = sorted(folder.glob(f"models/*_s{subject}_fold*_model.safetensors.json"), key=lambda path: path.name)
        sidecars = {}
        for name in dict.fromkeys([*made, *(f"models/{path.name.removesuffix('.json')}" for path in on_disk)]):
            sidecar = artifacts.read_json(folder / f"{name}.json", "a decoder's sidecar; run the verb train")
            pattern = rf".*?([^/]+)_s{subject}_fold(\d+)(?:_seed(\d+))?_model\.safetensors"
            encoder, fold, seed = re.fullmatch(pattern, name).groups()  # type: ignore[union-attr]
            sidecars[encoder, fold, seed] = {
                "name": encoder, "subject": subject, "fold": fold, "scores": sidecar.get("scores", {}),
                "of_trials": sidecar.get("of_trials"), "repetition": int(seed or 0), "place": [subject, int(fold)],
                "findings": sidecar.get("findings", []), "selected": sidecar.get("selected_epoch"), "curves": None,
                "history": sidecar.get("history", []), "settings": sidecar.get("settings", {}), "made": name in made,
            }  # fmt: skip
        for (_, fold, _), model in sidecars.items():
            if not model["made"]:
                others.append(model)
                continue
            levels = {}
            for baseline, line in (("ridge", "ridge"), ("mean", "constant")):
                scores = sidecars.get((baseline, fold, None), {}).get("scores", {})
                if (error := scores.get(baseline, {}).get("val_mse")) is not None:
                    levels[line] = error
            if model["history"]:
                model["curves"] = figures.curves(model["history"], model["selected"], levels)
            models.append({**model, "epochs": len(model["history"])})
    return models, sorted(others, key=lambda m: natural_key(f"{m['name']}_s{m['subject']}_fold{m['fold']}"))


def report(run: RunFolder) -> list[Path]:
    """Audit the run and make the page."""
    from neurocanvas.pipeline.audit import audit

    if (run.folder / "scores").is_dir():  # else the page says what to run first
        results = audit(run.folder)
        del results["source"]  # the folder's name, which is no part of the run
        artifacts.write_json(run.folder / "scores" / "audit.json", results)
    return [write_report(run.folder)]
