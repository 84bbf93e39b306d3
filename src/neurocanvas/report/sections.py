"""The sections of the page: metrics, retrieval, concepts, subjects, controls, importance, images."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.artifacts import number_in, read_csv, read_text
from neurocanvas.config import RunSettings
from neurocanvas.data.images import as_shown, open_picture
from neurocanvas.data.trials import natural_key
from neurocanvas.errors import NeuroCanvasError, check_inside
from neurocanvas.evaluation.metrics import METRICS
from neurocanvas.findings import read_findings
from neurocanvas.pipeline.evaluate import IMPORTANCE
from neurocanvas.report import figures
from neurocanvas.report.figures import at, csv_link, scalp_map
from neurocanvas.report.text import (
    SIGNIFICANT,
    control_sentence,
    controls_verdict,
    interval,
    metric_words,
    number,
    outcome_of,
    p_value,
    ranking_arm,
)

SCORE_COLUMNS = ("value", "low", "high", "chance", "p", "p_vs_shuffled", "place")
FOREST_COLUMNS = ("subject", "arm", "metric", "n", "value", "low", "high", "p", "p_holm")
FOREMOST = 5  # electrodes in the list


def metric_tables(summary: Mapping[str, Any], arms: Sequence[str], n_way: int) -> list[dict[str, Any]]:
    """The rows of every metric: a dot, an interval and the numbers of each arm."""
    measured, tables = summary["arms"], []
    metrics = dict.fromkeys(metric for arm in arms for metric in measured[arm])
    for metric in sorted(metrics, key=lambda name: name not in METRICS or not METRICS[name].meaning):
        scores = {arm: measured[arm][metric] for arm in arms if metric in measured[arm]}
        numbered = any(score.get("chance") is not None for score in scores.values())
        title, meaning, share = metric_words(summary, metric, n_way, numbered=numbered)
        ends = [score.get(key) for score in scores.values() for key in ("value", "low", "high", "chance")]
        scale, axis = figures.axis([1.0] if metric == "two_way" else [end for end in ends if end is not None], share)
        between = None
        if {"shuffled", "oracle"} <= set(scores):
            between = scores["shuffled"]["value"], scores["oracle"]["value"]
        rows = []
        for arm, score in scores.items():
            place, chance = score.get("place"), score.get("chance")
            rows.append({
                "arm": arm, "value": number(score["value"], share), "interval": interval(score, share),
                "chance": "–" if chance is None else number(chance, share),
                "p": "–" if score.get("p") is None else p_value(score["p"]),
                "place": "–" if place is None else f"{100 * place:.0f} %".replace("-", "−"),
                "strip": figures.strip({arm: score}, scale, chance=chance, between=between),
            })  # fmt: skip
        tables.append({"title": title, "meaning": meaning, "rows": rows, "axis": axis})
    return tables


def set_table(summary: Mapping[str, Any], arms: Sequence[str]) -> dict[str, Any] | None:
    """The metrics that have one value for all images or predictions of an arm."""
    sets, described = summary.get("sets", {}), summary.get("metrics", {})
    shown = [arm for arm in arms if sets.get(arm)]
    metrics = list(dict.fromkeys(metric for arm in shown for metric in sets[arm]))
    if not metrics:
        return None
    words = {metric: metric_words(summary, metric, "n") for metric in metrics}
    lines, rows = [], []
    for metric in metrics:
        values = [sets[arm].get(metric, {}).get("value") for arm in shown]
        counts = {sets[arm][metric].get("n_generated") for arm in shown if metric in sets[arm]}
        n = ", ".join(str(count) for count in sorted(counts - {None}))
        shown_as = ("–" if value is None else number(value, words[metric][2]) for value in values)
        lines.append([words[metric][0], *shown_as, n or "–"])
        rows += [[metric, arm, *(sets[arm][metric].get(key) for key in ("value", "n_generated"))]
                 for arm in shown if metric in sets[arm]]  # fmt: skip
    notes = [": ".join(words[metric][:2]) for metric in metrics if metric in described]
    link = csv_link("sets.csv", ["metric", "arm", "value", "n_generated"], rows)
    return {"header": ["metric", *shown, "n"], "lines": lines, "notes": notes, "link": link}


def retrieval_table(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Retrieval of the targets of the test images by predictions, for every rule of assignment."""
    rules = summary.get("retrieval")
    if not rules:
        return None
    shares = ("top1", "chance1", "top5", "chance5")
    lines = [
        [rule, *(number(scores[key], True) for key in shares), f"{scores['median_rank']:g}",
         "yes" if scores["transductive"] else "no"]
        for rule, scores in rules.items()
    ]  # fmt: skip
    columns = ("space", "centring", "transductive", "n_trials", "n_pictures", *shares, "median_rank")
    link = csv_link(
        "retrieval.csv", ["rule", *columns], [[rule, *map(scores.get, columns)] for rule, scores in rules.items()]
    )
    header = ["rule", "top-1", "chance", "top-5", "chance", "median rank", "transductive"]
    first = next(iter(rules.values()))
    n, space = f"{first['n_pictures']:g}", first.get("space", "")
    return {"header": header, "lines": lines, "n": n, "space": space, "link": link}


def comparison(concepts: Mapping[str, Mapping[str, Any]], arms: Sequence[str]) -> dict[str, Any]:
    """Concepts by two-way identification, best first."""
    scored = all("two_way" in row[arm] for row in concepts.values() for arm in arms)  # else the judge was left out
    shown = [arm for arm in ("oracle", "shuffled", "eeg") if arm in arms and scored]
    scale, axis = figures.axis([1.0], True)
    ranked = sorted(concepts.values(), key=lambda row: (-row[shown[-1]]["two_way"], row["name"])) if shown else []
    rows = [
        {
            "name": row["name"], "n": row["n"],
            "strip": figures.strip({arm: {"value": row[arm]["two_way"]} for arm in shown}, scale, chance=0.5),
            "two_way": [(arm, number(row[arm]["two_way"], True, digits=0)) for arm in reversed(shown)],
            "top1": number(row[shown[-1]]["concept_top1"], True, digits=0),
        }
        for row in ranked
    ]  # fmt: skip
    columns = [(arm, key) for arm in reversed(shown) for key in ("two_way", "concept_top1")]
    numbers = [
        [key, row["name"], row["n"], *(row[arm].get(column) for arm, column in columns)]
        for key, row in concepts.items()
    ]
    link = csv_link("concepts.csv", ["id", "name", "n", *(f"{arm} {column}" for arm, column in columns)], numbers)
    return {"rows": rows, "arms": list(reversed(shown)), "axis": axis, "link": link}


def forest(summary: Mapping[str, Any], arms: Sequence[str]) -> dict[str, Any] | None:
    """A forest plot: every subject's score with its interval, and that of all subjects."""
    entries = [entry for entry in summary.get("forest", []) if entry["arm"] in arms]
    if not entries:
        return None
    metric = next((entry["metric"] for entry in entries if entry["metric"] == "two_way"), entries[0]["metric"])
    of = {(entry["arm"], str(entry["subject"])): entry for entry in entries if entry["metric"] == metric}
    scored = [arm for arm in arms if any(arm == other for other, _ in of)]
    main = ranking_arm(scored)
    shown = [arm for arm in ("shuffled", main) if arm in scored]
    subjects = [subject for arm, subject in of if arm == main]
    pooled = summary["arms"][main].get(metric) if len(subjects) > 1 else None
    ends = [entry.get(key) for entry in of.values() for key in ("value", "low", "high")]
    title, _, share = metric_words(summary, metric, summary.get("n_way", "n"))
    scale, axis = figures.axis([1.0] if share else [end for end in ends if end is not None], share)
    chance = next((score[metric].get("chance") for score in summary["arms"].values() if metric in score), None)
    table = [
        (f"Subject {subject}", {arm: of[arm, subject] for arm in shown if (arm, subject) in of}) for subject in subjects
    ]
    if pooled is not None:
        marks = {arm: summary["arms"][arm][metric] for arm in shown if metric in summary["arms"].get(arm, {})}
        table.append(("All subjects", marks))
    rows = []
    for name, marks in table:
        score = marks[main]
        p, p_holm = ("–" if score.get(key) is None else p_value(score[key]) for key in ("p", "p_holm"))
        rows.append({
            "name": name, "n": score.get("n"), "value": number(score["value"], share), "p": p, "p_holm": p_holm,
            "interval": interval(score, share), "strip": figures.strip(marks, scale, chance=chance),
        })  # fmt: skip
    above = sum((of[main, subject].get("p_holm") or 1.0) < SIGNIFICANT for subject in subjects)
    return {
        "arm": main, "arms": list(reversed(shown)), "rows": rows[: len(subjects)],
        "pooled": rows[-1] if pooled is not None else None,
        "title": title,
        "sentence": f"{above} of {len(subjects)} subjects above chance" if len(subjects) > 1 else "",
        "axis": axis,
        "link": csv_link("subjects.csv", FOREST_COLUMNS, [[e.get(key) for key in FOREST_COLUMNS] for e in entries]),
    }  # fmt: skip


def controls(folder: Path, settings: RunSettings) -> dict[str, Any] | None:
    """The results of the controls."""
    from neurocanvas.audit.controls.registry import COLUMNS, CONTROLS

    path = folder / "scores" / "controls.json"
    report = artifacts.read_json(path, "the results of the controls; run `neurocanvas controls` again")
    if isinstance(report, dict) and report.get("made_from", settings.of_trials) != settings.of_trials:
        return None
    try:
        for row in report["rows"]:
            read_findings([*row["reasons"], *row["notes"]])
        rows = [
            {
                "control": row["control"], "asks": CONTROLS[row["control"]].asks, "verdict": control_sentence(row),
                "effect": "–" if row.get("effect") is None else number(row["effect"], False),
                "interval": interval(row, False), "outcome": outcome_of(row),
                **{key: "–" if row.get(key) is None else p_value(row[key]) for key in ("p", "p_holm")},
            }
            for row in report["rows"]
        ]  # fmt: skip
        verdict = controls_verdict(report)
    except (LookupError, TypeError, ValueError) as error:
        raise NeuroCanvasError(f"{path}: damaged ({error}); run the verb controls again.") from error
    link = csv_link("controls.csv", COLUMNS, [map(row.get, COLUMNS) for row in report["rows"]])
    corrected = any(row.get("p_holm") is not None for row in report["rows"])
    return {"verdict": verdict, "rows": rows, "corrected": corrected, "link": link}


def importance(path: Path) -> dict[str, Any] | None:
    """The loss without each band and each electrode."""
    numbers = ("drop", "low", "high")
    cells = read_csv(path, "evaluate", ("kind", "group", "name", *numbers))
    rows: list[dict[str, Any]] = [
        row | {key: number_in(row, key, path, "evaluate") for key in numbers} for row in cells
    ]
    bands = [row for row in rows if row["group"] == "band" and row["kind"] in IMPORTANCE]
    scale, axis = figures.axis((100 * row[key] for row in bands for key in numbers), False)
    grid = [figures.line("grid" if tick else "zero", at(tick, scale), at(tick, scale), "0", "100%") for tick in scale]
    kinds = []
    for kind, (title, meaning) in IMPORTANCE.items():
        shown, scalp = [], None
        for row in (row for row in bands if row["kind"] == kind):
            drop, low, high = (100 * row[key] for key in numbers)
            has_interval, parts = np.isfinite(low), [*grid]
            if np.isfinite(drop):
                parts.append(figures.bar("bar-of", (0.0, drop), scale, "7", str(figures.ROW - 14)))
            if has_interval:
                parts.append(figures.line("whisker-of", at(low, scale), at(high, scale), "50%", "50%"))
            shown.append({
                "name": row["name"], "hertz": figures.HERTZ.get(row["name"], ""), "bar": figures.drawn_row(parts),
                "drop": number(row["drop"], True, unit=False), "interval": interval(row, True) if has_interval else "–",
            })  # fmt: skip
        electrodes = [row for row in rows if row["kind"] == kind and row["group"] == "electrode"]
        if electrodes:
            drops, names = np.nan_to_num([row["drop"] for row in electrodes]), [row["name"] for row in electrodes]
            limits = min(float(drops.min()), 0.0), float(drops.max())
            largest = sorted(zip(-drops, names, strict=True))[:FOREMOST]
            scalp = {
                "map": scalp_map(drops, names, limits),
                "low": number(limits[0], True, unit=False), "high": number(limits[1], True, unit=False),
                "foremost": [(name, number(-loss, True, unit=False)) for loss, name in largest],
            }  # fmt: skip
        if shown or scalp:
            kinds.append({"title": title, "meaning": meaning, "bands": shown, "map": scalp})
    link = csv_link(path.name, [*cells[0]], [row.values() for row in cells]) if cells else ""
    return {"kinds": kinds, "axis": axis, "link": link} if kinds else None


# Trials from the top, the middle and the end of the ranking, and evenly spaced ones.
GROUP, SAMPLE = 4, 12

UNCHANGED, REDUCED = 128, 192  # px: images up to the first are embedded unchanged, larger ones shrink to the second
PAGE, PAGES = 1400, 2  # of images from captions: the longer side in px, and how many pages are embedded


def choose_trials(scores: Mapping[tuple[str, int], float]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Select the trials of the page by rank."""
    ranked = sorted(scores, key=lambda key: (-scores[key], natural_key(key[0]), key[1]))
    if len(ranked) <= 3 * GROUP + SAMPLE:
        return [(f"All {len(ranked)} trials, best first", ranked)]
    middle = (len(ranked) - GROUP) // 2
    best, worst = ranked[:GROUP], ranked[-GROUP:]
    median = ranked[middle : middle + GROUP]
    rest = [key for key in ranked if key not in {*best, *median, *worst}]
    spaced = [rest[int(rank)] for rank in np.linspace(0, len(rest) - 1, SAMPLE).round()] if len(rest) > SAMPLE else rest
    return [
        (f"Best {GROUP}", best), (f"Middle {GROUP}", median), (f"Worst {GROUP}", worst),
        (f"{len(spaced)} others, evenly spaced through the ranking", spaced),
    ]  # fmt: skip


def ranked_pictures(
    folder: Path, arms: Sequence[str], captions: Mapping[str, str], names: Mapping[str, str]
) -> dict[str, Any]:
    """The image grid: groups of trials, each with the seen image and one of every arm."""
    path, by = folder / "scores" / "trials.csv", ranking_arm(arms)
    scored, scores = {}, {}
    rows = read_csv(path, "evaluate", ("subject", "trial", "arm", "stimulus", "concept"))
    metric = "pixcorr" if rows and "two_way" not in rows[0] else "two_way"  # where the judge was left out
    for row in rows:
        trial = number_in(row, "trial", path, "evaluate")
        if not trial.is_integer():
            raise NeuroCanvasError(f"{path}: trial must be a whole number; got {row['trial']!r}; run evaluate again.")
        key = str(row["subject"]), int(trial)
        if row["arm"] == by:
            scored[key], scores[key] = row, number_in(row, metric, path, "evaluate")
    images, made = folder / "images", {}
    manifest = images / "manifest.jsonl"
    lines = read_text(manifest, "the list of images; run the verb generate").splitlines()
    for line, text in enumerate(lines, 1):
        try:
            if text:
                drawn = json.loads(text)
                if not isinstance(drawn["subject"], str | int):
                    raise TypeError("subject is no name")
                made[str(drawn["subject"]), int(drawn["trial"]), str(drawn["arm"])] = drawn["file"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise NeuroCanvasError(
                f"{manifest}, line {line}: damaged ({error}); run the verb generate again."
            ) from error
    groups, table = [], []
    for title, keys in choose_trials(scores):
        shown = []
        for key in keys:
            stimulus, concept = scored[key]["stimulus"], scored[key]["concept"]
            pictures = [("seen", f"seen/{stimulus}.png"), *((arm, made.get((*key, arm))) for arm in arms)]
            table.append([title, *key, stimulus, concept, scored[key][metric], captions.get(stimulus, "")])
            shown.append({
                "subject": key[0], "trial": key[1], "caption": captions.get(stimulus, ""),
                "concept": names.get(concept, concept),
                "score": number(scores[key], metric == "two_way", digits=0 if metric == "two_way" else 2),
                "pictures": [
                    (arm, data_uri(check_inside(images, file, "images")) if file else None) for arm, file in pictures
                ],
            })  # fmt: skip
        groups.append({"title": title, "trials": shown})
    columns = ["group", "subject", "trial", "stimulus", "concept", f"{metric} of {by}", "caption"]
    title = "two-way identification" if metric == "two_way" else "PixCorr"
    return {"groups": groups, "by": by, "metric": title, "link": csv_link("pictures.csv", columns, table)}


def data_uri(path: Path, most: int = REDUCED) -> str:
    """An image as a data URI, with at most `most` pixels on the longer side."""
    from PIL import Image

    with open_picture(path, "run the verb generate") as opened:
        opened.load()
        if opened.format == "PNG" and max(opened.size) <= UNCHANGED:
            return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        stream, shown = io.BytesIO(), as_shown(opened)
        shown.thumbnail((most, most), Image.Resampling.LANCZOS)
        shown.save(stream, format="JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
