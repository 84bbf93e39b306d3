"""A run folder to one HTML page that needs nothing else: verdict, scores, pictures, maps, curves."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from neurocanvas import store
from neurocanvas.config import RunSettings, load_settings
from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.montage import BANDS
from neurocanvas.report import figures
from neurocanvas.report.words import (
    ARMS,
    CONTROL_ARMS,
    METRICS,
    PERCENT,
    classification_sentence,
    definitions,
    is_blocked,
    number,
    p_value,
    verdict,
)
from neurocanvas.targets.captions import read_captions
from neurocanvas.training.compare import mapper_table

GROUP, SAMPLE = 4, 12
"""Trials shown from the top, the middle and the end of the ranking, and spread over the rest."""

AS_IT_IS, REDUCED = 128, 192  # px: pictures up to the first are embedded unchanged, larger ones shrink to the second
PAGE, PAGES = 1400, 2  # of pictures from captions: the longer side in px, and how many pages are embedded
PANELS = 6  # training curves shown at most


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder; the same folder gives the same bytes.

    Parameters
    ----------
    folder : Path
        A run folder in which every stage up to ``evaluate`` is done, or ``classify`` or ``benchmark``, or both.

    Returns
    -------
    Path
        The page: one file, without scripts, that loads nothing from anywhere.

    Raises
    ------
    NeuroCanvasError
        If a part is missing or damaged; the message names the verb that makes it.
    """
    from jinja2 import Environment, StrictUndefined

    folder = Path(folder)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("neurocanvas.report") / "page.html.j2").read_text(encoding="utf-8"))
    target = folder / "report.html"
    store.write_text(target, template.render(_content(folder)))
    return target


def choose_trials(scores: Mapping[tuple[int, int], float]) -> list[tuple[str, list[tuple[int, int]]]]:
    """Choose by rank alone which trials the page shows.

    Parameters
    ----------
    scores : dict of (subject, trial) to float
        Two-way identification of each trial's `eeg` picture.

    Returns
    -------
    list of (str, list of (subject, trial))
        Headings and their trials: best, middle and worst, and more that are evenly spaced through the rest of the
        ranking. Few trials are all shown, best first.

    Examples
    --------
    >>> [(title, len(keys)) for title, keys in choose_trials({(0, t): t / 60 for t in range(60)})]
    [('Best 4', 4), ('Middle 4', 4), ('Worst 4', 4), ('12 others, evenly spaced through the ranking', 12)]
    """
    ranked = sorted(scores, key=lambda key: (-scores[key], key))
    if len(ranked) <= 3 * GROUP + SAMPLE:
        return [(f"All {len(ranked)} trials, best first", ranked)]
    middle = (len(ranked) - GROUP) // 2
    best, worst = ranked[:GROUP], ranked[-GROUP:]
    median = ranked[middle : middle + GROUP]
    rest = [key for key in ranked if key not in {*best, *median, *worst}]
    spaced = [rest[int(at)] for at in np.linspace(0, len(rest) - 1, SAMPLE).round()] if len(rest) > SAMPLE else rest
    return [
        (f"Best {GROUP}", best), (f"Middle {GROUP}", median), (f"Worst {GROUP}", worst),
        (f"{len(spaced)} others, evenly spaced through the ranking", spaced),
    ]  # fmt: skip


def _content(folder: Path) -> dict[str, Any]:
    """Everything that the template shows."""
    check_file(folder / "run.toml", "the settings of the run; run the verb run")
    settings = load_settings(folder / "run.toml")
    tables = _classification(folder)
    if tables and not (folder / "scores" / "summary.json").is_file():
        return {**NO_PICTURES, "name": settings.name, "classification": tables}
    return {**_pictured(folder, settings), "pictured": True, "classification": tables}


NO_PICTURES: Mapping[str, Any] = {
    "pictured": False, "arms": {}, "models": [], "concepts": {"arms": []}, "scalp": {"maps": [], "gradient": ""},
}  # fmt: skip
"""What the template needs of a run that classifies only."""


def _classification(folder: Path) -> list[dict[str, Any]]:
    """Tables of the verbs benchmark, or else classify, by protocol; none where neither has run."""
    paths = [folder / "scores" / f"{verb}.json" for verb in ("benchmark", "classification")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return []
    found = store.read_json(path, "the tables of the verb benchmark; run it again")
    sections = []
    for protocol in dict.fromkeys(table["protocol"] for table in found["tables"]):
        tables = [table for table in found["tables"] if table["protocol"] == protocol]
        warnings = dict.fromkeys(text for table in tables for text in table["warnings"])
        sections.append({
            "sentence": classification_sentence([row for row in found["rows"] if row["protocol"] == protocol]),
            "warnings": [(text, text.startswith("Block design")) for text in warnings],
            "tables": tables,
        })  # fmt: skip
    return sections


def _pictured(folder: Path, settings: RunSettings) -> dict[str, Any]:
    """What the page shows of a run that made pictures."""
    summary = store.read_json(folder / "scores" / "summary.json", "the scores of all arms; run the verb evaluate")
    if not isinstance(summary, dict) or not summary.get("arms"):
        raise NeuroCanvasError(f"{folder / 'scores' / 'summary.json'}: holds no arms; run the verb evaluate.")
    # what an earlier run with other subjects or another mapper left in the folder is not part of this one
    tables = _numbered(folder, f"{settings.data.features_folder}/s*_trials.csv", "features", summary["subjects"])
    trials = [row for path in tables for row in _read_csv(path, "features")]
    scalp = _scalp(folder / settings.data.features_folder, summary["subjects"])
    captions = read_captions(folder / "targets" / "caption.txt")
    models = [model for model in _models(folder, summary["subjects"]) if model["name"] == settings.mapper.name]
    arms = [arm for arm in ARMS if arm in summary["arms"]]
    metrics = [metric for metric in METRICS if any(metric in summary["arms"][arm] for arm in arms)]
    names = {concept: row["name"] for concept, row in summary["concepts"].items()}
    n_way = summary.get("n_way", settings.evaluate.n_way)
    warnings = list(dict.fromkeys([*summary.get("warnings", []), *(w for m in models for w in m["warnings"])]))
    subjects = {key: {"name": f"Subject {key}", "n": None, **row} for key, row in summary["subjects"].items()}
    return {
        "name": settings.name,
        "verdict": verdict(summary),
        "blocked": is_blocked(summary, warnings),
        "warnings": [(text, text.lower().startswith("block design")) for text in warnings],
        "definitions": definitions(settings, summary, trials, len(tables), scalp["ch_names"]),
        "arms": {arm: ARMS[arm] for arm in arms},
        "marks": {arm: Markup(mark) for arm, mark in figures.MARKS.items()},
        "tiles": [(arm, number(summary["arms"][arm]["two_way"]["value"], "two_way")) for arm in arms],
        "metrics": [_metric(metric, summary["arms"], arms, n_way) for metric in metrics],
        "unit": summary.get("unit", "trials"),
        "exchanged": summary.get("exchanged", "trials"),
        "groups": _pictures(folder, arms, captions, names),
        "ranked_by": _ranking_arm(arms),
        "caption_pages": _caption_pages(folder),
        "concepts": _comparison(summary["concepts"], arms),
        "subjects": _comparison(subjects, arms) if len(subjects) > 1 else None,
        "scalp": scalp,
        "models": models[:PANELS],
        "n_models": len(models),
        "mappers": mapper_table(models),
        "glossary": [(METRICS[metric][0].format(n=n_way), METRICS[metric][1].format(n=n_way)) for metric in metrics],
    }


def _numbered(folder: Path, pattern: str, verb: str, subjects: Collection[str]) -> list[Path]:
    """Files of a pattern and of some subjects, ordered by the numbers in their names; at least one."""
    named = {path: re.search(r"(?:^|_)s(\d+)_", path.name) for path in folder.glob(pattern)}
    mine = [path for path, subject in named.items() if subject is None or subject[1] in subjects]
    found = sorted(mine, key=lambda path: [int(digits) for digits in re.findall(r"\d+", path.name)])
    if not found:
        raise NeuroCanvasError(f"{folder / pattern}: no such file; run the verb {verb}.")
    return found


def _read_csv(path: Path, verb: str) -> list[dict[str, str]]:
    """Rows of a CSV file with a header."""
    with check_file(path, f"a table; run the verb {verb}").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _metric(metric: str, measured: Mapping[str, Any], arms: Sequence[str], n_way: int) -> dict[str, Any]:
    """One metric's rows: a dot, an interval and the numbers of each arm."""
    scores = {arm: measured[arm][metric] for arm in arms if metric in measured[arm]}
    ends = [score[key] for score in scores.values() for key in ("value", "low", "high", "chance")]
    scale = figures.Scale.around([1.0] if metric == "two_way" else [end for end in ends if end is not None])
    between = None
    if "shuffled" in scores and "oracle" in scores:
        between = scores["shuffled"]["value"], scores["oracle"]["value"]
    rows = []
    for arm, score in scores.items():
        interval = "–"
        if score["low"] is not None:
            interval = f"{number(score['low'], metric, unit=False)} – {number(score['high'], metric, unit=False)}"
        place = score.get("place")
        rows.append({
            "arm": arm, "value": number(score["value"], metric), "interval": interval,
            "chance": number(score["chance"], metric), "p": p_value(score["p"]),
            "place": "–" if place is None else f"{100 * place:.0f} %".replace("-", "−"),
            "strip": figures.strip({arm: score}, scale, chance=score["chance"], between=between),
        })  # fmt: skip
    labels = [f"{100 * tick:g} %" if metric in PERCENT else f"{tick:g}".replace("-", "−") for tick in scale.ticks]
    title, meaning, *_ = (text.format(n=n_way) for text in METRICS[metric])
    return {"title": title, "meaning": meaning, "rows": rows, "axis": figures.axis(scale, labels)}


def _comparison(table: Mapping[str, Mapping[str, Any]], arms: Sequence[str]) -> dict[str, Any]:
    """Two-way identification of all arms but `mean`, one row per concept or subject, best first."""
    shown = [arm for arm in ("oracle", "shuffled", "eeg") if arm in arms]
    scale = figures.Scale.around([1.0])
    ranked = sorted(table.values(), key=lambda row: (-row[shown[-1]]["two_way"], row["name"])) if shown else []
    rows = [
        {
            "name": row["name"], "n": row["n"],
            "strip": figures.strip({arm: {"value": row[arm]["two_way"]} for arm in shown}, scale, chance=0.5),
            "two_way": [(arm, number(row[arm]["two_way"], "two_way", digits=0)) for arm in reversed(shown)],
            "top1": number(row[shown[-1]]["concept_top1"], "concept_top1", digits=0),
        }
        for row in ranked
    ]  # fmt: skip
    labels = [f"{100 * tick:g} %" for tick in scale.ticks]
    return {"rows": rows, "arms": list(reversed(shown)), "axis": figures.axis(scale, labels)}


def _ranking_arm(arms: Sequence[str]) -> str:
    """The arm whose pictures rank the trials: `eeg`, or the first that is no control."""
    return next((arm for arm in arms if arm not in CONTROL_ARMS), arms[0])


def _pictures(
    folder: Path, arms: Sequence[str], captions: Mapping[str, str], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The picture grid: groups of trials, each with the seen picture and one of every arm."""
    rows = _read_csv(folder / "scores" / "trials.csv", "evaluate")
    by = _ranking_arm(arms)
    scored = {(int(row["subject"]), int(row["trial"])): row for row in rows if row["arm"] == by}
    lines = check_file(folder / "images" / "manifest.jsonl", "the list of pictures; run the verb generate")
    made = {}
    for row in map(json.loads, filter(None, lines.read_text(encoding="utf-8").splitlines())):
        made[int(row["subject"]), int(row["trial"]), row["arm"]] = row["file"]
    groups = []
    for title, keys in choose_trials({key: float(row["two_way"]) for key, row in scored.items()}):
        shown = []
        for key in keys:
            stimulus, concept = scored[key]["stimulus"], scored[key]["concept"]
            pictures = [("seen", f"seen/{stimulus}.png"), *((arm, made.get((*key, arm))) for arm in arms)]
            shown.append({
                "subject": key[0], "trial": key[1], "caption": captions.get(stimulus, ""),
                "concept": names.get(concept, concept),
                "two_way": number(float(scored[key]["two_way"]), "two_way", digits=0),
                "pictures": [(arm, _data_uri(folder / "images" / file)) for arm, file in pictures if file],
            })  # fmt: skip
        groups.append({"title": title, "trials": shown})
    return groups


def _caption_pages(folder: Path) -> dict[str, Any]:
    """The first pages of comparison of pictures drawn from captions, and how many there are."""
    paths = sorted((folder / "generated_from_captions").glob("page_*.png"))
    return {"shown": [_data_uri(path, PAGE) for path in paths[:PAGES]], "n": len(paths)}


def _data_uri(path: Path, most: int = REDUCED) -> str:
    """A picture as a data URI; large ones are reduced, to `most` pixels on the longer side."""
    from PIL import Image

    raw = check_file(path, "a picture; run the verb generate").read_bytes()
    try:
        with Image.open(io.BytesIO(raw)) as opened:
            opened.load()
            kind = "png"
            if max(opened.size) > AS_IT_IS:
                stream, kind = io.BytesIO(), "jpeg"
                opened.thumbnail((most, most), Image.Resampling.LANCZOS)
                opened.convert("RGB").save(stream, format="JPEG", quality=88)
                raw = stream.getvalue()
    except (OSError, ValueError) as error:
        raise NeuroCanvasError(f"{path}: damaged, or not a picture; delete it and run the verb generate.") from error
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def _scalp(folder: Path, subjects: Collection[str]) -> dict[str, Any]:
    """Mean DE per electrode and band over all trials, as maps with their limits."""
    totals, count, card = None, 0, {}
    for path in _numbered(folder, "s*_de.npy", "features", subjects):
        features, card = store.read_array(path, "features; run the verb features"), store.read_card(path)
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
            "map": figures.scalp_map(values, card["ch_names"], limits),
        })  # fmt: skip
    unit = "nats" if card.get("method") == "gaussian" else "the released formula's unit"
    return {"maps": maps, "gradient": figures.gradient(), "n": count, "unit": unit, "ch_names": card["ch_names"]}


def _models(folder: Path, subjects: Collection[str]) -> list[dict[str, Any]]:
    """Training curve and scores of every mapper that was trained."""
    models = []
    for path in _numbered(folder, "models/*_model.safetensors.json", "train", subjects):
        card = store.read_json(path, "a mapper's card; run the verb train")
        name, subject, fold = re.fullmatch(
            r"(.+?)(?:_s(\d+))?(?:_fold(\d+))?_model\.safetensors\.json", path.name
        ).groups()  # type: ignore[union-attr]
        scores = card.get("scores", {})
        levels = {
            line: scores[mapper]["val_mse"]
            for mapper, line in (("ridge", "ridge"), ("mean", "constant"))
            if "val_mse" in scores.get(mapper, {})
        }
        history = card.get("history", [])
        models.append({
            "name": name, "subject": subject, "fold": fold, "scores": scores, "warnings": card.get("warnings", []),
            "selected": card.get("selected_epoch"), "epochs": len(history),
            "curves": figures.curves(history, card.get("selected_epoch"), levels) if history else None,
        })  # fmt: skip
    return models
