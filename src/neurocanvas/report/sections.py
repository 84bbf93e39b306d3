"""The scores on the page: every metric's rows, concepts, subjects, controls, and what was not computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.artifacts import number_in, read_csv
from neurocanvas.audit.controls.registry import CONTROLS
from neurocanvas.config import RunSettings
from neurocanvas.data.montage import BANDS
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.metrics import METRICS
from neurocanvas.findings import read_findings
from neurocanvas.pipeline.evaluate import IMPORTANCE
from neurocanvas.report import figures
from neurocanvas.report.figures import csv_link, file_link, scalp_map
from neurocanvas.report.text import (
    OUTCOMES,
    SIGNIFICANT,
    control_sentence,
    controls_verdict,
    interval,
    is_share,
    metric_words,
    number,
    p_value,
    ranking_arm,
)

SCORE_COLUMNS = ("value", "low", "high", "chance", "p", "p_vs_shuffled", "place")
FOREST_COLUMNS = ("subject", "arm", "metric", "n", "value", "low", "high", "p", "p_holm")
CONTROL_COLUMNS = ("control", "effect", "low", "high", "p", "p_holm", "fired")
FOREMOST = 5  # electrodes that are named


def metric_tables(summary: Mapping[str, Any], arms: Sequence[str], n_way: int) -> list[dict[str, Any]]:
    """Lay out the rows of every metric: a dot, an interval and the numbers of each arm."""
    measured, tables = summary["arms"], []
    metrics = dict.fromkeys(metric for arm in arms for metric in measured[arm])
    for metric in sorted(metrics, key=lambda one: one not in METRICS or not METRICS[one].meaning):
        scores = {arm: measured[arm][metric] for arm in arms if metric in measured[arm]}
        share = is_share(metric, summary)
        numbered = any(score.get("chance") is not None for score in scores.values())
        title, meaning = metric_words(summary, metric, n_way, numbered=numbered)
        ends = [score.get(key) for score in scores.values() for key in ("value", "low", "high", "chance")]
        scale = figures.Scale.around([1.0] if metric == "two_way" else [end for end in ends if end is not None])
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
        tables.append({"title": title, "meaning": meaning, "rows": rows, "axis": figures.axis(scale, share)})
    return tables


def not_computed(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the metrics that were not computed."""
    titles: dict[str, list[str]] = {}
    for metric, reason in summary.get("not_computed", {}).items():
        titles.setdefault(str(reason), []).append(metric_words(summary, metric, "n")[0])
    return [(", ".join(names), reason) for reason, names in titles.items()]


def set_table(summary: Mapping[str, Any], arms: Sequence[str]) -> dict[str, Any] | None:
    """Lay out the metrics that have one value for all pictures or predictions of an arm."""
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
        shown_as = ("–" if one is None else number(one, is_share(metric, summary)) for one in values)
        lines.append([words[metric][0], *shown_as, n or "–"])
        rows += [[metric, arm, *(sets[arm][metric].get(key) for key in ("value", "n_generated"))]
                 for arm in shown if metric in sets[arm]]  # fmt: skip
    notes = [": ".join(words[metric]) for metric in metrics if metric in described]
    link = csv_link("sets.csv", ["metric", "arm", "value", "n_generated"], rows)
    return {"header": ["metric", *shown, "n"], "lines": lines, "notes": notes, "link": link}


def retrieval_table(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Lay out how well predictions retrieve the targets of the test pictures, by rule of assignment."""
    found = summary.get("retrieval")
    if not found:
        return None
    shares = ("top1", "chance1", "top5", "chance5")
    lines = [
        [rule, *(number(one[key], True) for key in shares), f"{one['median_rank']:g}",
         "yes" if one["transductive"] else "no"]
        for rule, one in found.items()
    ]  # fmt: skip
    columns = ("space", "centring", "transductive", "n_trials", "n_pictures", *shares, "median_rank")
    link = csv_link(
        "retrieval.csv", ["rule", *columns], [[r, *(one.get(c) for c in columns)] for r, one in found.items()]
    )
    header = ["rule", "top-1", "chance", "top-5", "chance", "median rank", "transductive"]
    first = next(iter(found.values()))
    n, space = f"{first['n_pictures']:g}", first.get("space", "")
    return {"header": header, "lines": lines, "n": n, "space": space, "link": link}


def comparison(table: Mapping[str, Mapping[str, Any]], arms: Sequence[str], name: str) -> dict[str, Any]:
    """Compare concepts or subjects by two-way identification in all arms but `mean`, best first."""
    shown = [arm for arm in ("oracle", "shuffled", "eeg") if arm in arms]
    scale = figures.Scale.around([1.0])
    ranked = sorted(table.values(), key=lambda row: (-row[shown[-1]]["two_way"], row["name"])) if shown else []
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
        [key, row["name"], row["n"], *(row[arm].get(column) for arm, column in columns)] for key, row in table.items()
    ]
    link = csv_link(name, ["id", "name", "n", *(f"{arm} {column}" for arm, column in columns)], numbers)
    return {"rows": rows, "arms": list(reversed(shown)), "axis": figures.axis(scale, True), "link": link}


def forest(summary: Mapping[str, Any], arms: Sequence[str]) -> dict[str, Any] | None:
    """Lay out a forest plot: every subject's score with its interval, and all subjects' together."""
    entries = [entry for entry in summary.get("forest", []) if entry["arm"] in arms]
    if not entries:
        return None
    metric = next((entry["metric"] for entry in entries if entry["metric"] == "two_way"), entries[0]["metric"])
    of = {(entry["arm"], str(entry["subject"])): entry for entry in entries if entry["metric"] == metric}
    there = {arm for arm, _ in of}
    main = ranking_arm([arm for arm in arms if arm in there])
    shown = [arm for arm in ("shuffled", main) if arm in there]
    subjects = [subject for arm, subject in of if arm == main]
    pooled = summary["arms"][main].get(metric) if len(subjects) > 1 else None
    ends = [entry.get(key) for entry in of.values() for key in ("value", "low", "high")]
    share = is_share(metric, summary)
    scale = figures.Scale.around([1.0] if share else [end for end in ends if end is not None])
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
        "title": metric_words(summary, metric, summary.get("n_way", "n"))[0],
        "sentence": f"{above} of {len(subjects)} subjects above chance" if len(subjects) > 1 else "",
        "axis": figures.axis(scale, share),
        "link": csv_link("subjects.csv", FOREST_COLUMNS, [[e.get(key) for key in FOREST_COLUMNS] for e in entries]),
    }  # fmt: skip


def controls(folder: Path, settings: RunSettings) -> dict[str, Any] | None:
    """Read what the controls found."""
    path = folder / "scores" / "controls.json"
    if not path.is_file():
        return None
    found = artifacts.read_json(path, "what the verb controls found; run it again")
    if isinstance(found, dict) and found.get("made_from", settings.of_trials) != settings.of_trials:
        return None
    try:
        for row in found["rows"]:
            read_findings([*row["reasons"], *row["notes"]])
        rows = [
            {
                "control": row["control"], "asks": CONTROLS[row["control"]].asks, "verdict": control_sentence(row),
                "effect": "–" if row.get("effect") is None else number(row["effect"], False),
                "interval": interval(row, False), "outcome": OUTCOMES[row["fired"]],
                **{key: "–" if row.get(key) is None else p_value(row[key]) for key in ("p", "p_holm")},
            }
            for row in found["rows"]
        ]  # fmt: skip
        verdict = controls_verdict(found)
    except (LookupError, TypeError, ValueError) as error:
        raise NeuroCanvasError(f"{path}: damaged ({error}); run the verb controls again.") from error
    table = [[row.get(key) for key in CONTROL_COLUMNS] for row in found["rows"]]
    corrected = any(row.get("p_holm") is not None for row in found["rows"])
    return {
        "verdict": verdict,
        "rows": rows,
        "corrected": corrected,
        "link": csv_link("controls.csv", CONTROL_COLUMNS, table),
    }


def importance(folder: Path) -> dict[str, Any] | None:
    """Draw how much is lost without each band and each electrode."""
    path = folder / "scores" / "importance.csv"
    if not path.is_file():
        return None
    rows = read_csv(path, "evaluate", ("kind", "group", "name", "drop", "low", "high"))
    for row in rows:
        row.update({key: number_in(row, key, path, "evaluate") for key in ("drop", "low", "high")})  # type: ignore[misc]
    bands = [row for row in rows if row["group"] == "band" and row["kind"] in IMPORTANCE]
    scale = figures.Scale.around([100 * float(row[key]) for row in bands for key in ("drop", "low", "high")])

    def points(share: Any) -> str:
        rounded = round(100 * share, 1) + 0.0  # no −0.0
        return f"{rounded:.1f}".replace("-", "−") if np.isfinite(share) else "–"

    kinds = []
    for kind, (title, meaning) in IMPORTANCE.items():
        own = [row for row in rows if row["kind"] == kind and row["group"] in ("band", "electrode")]
        if not own:
            continue
        shown, scalp = [], None
        for row in (row for row in own if row["group"] == "band"):
            drop, low, high = (100 * float(row[key]) for key in ("drop", "low", "high"))
            known, hertz = np.isfinite([low, high]).all(), BANDS.get(row["name"])
            shown.append({
                "name": row["name"], "hertz": "{:g}–{:g} Hz".format(*hertz) if hertz else "",
                "bar": figures.bar(drop, low, high, scale), "drop": points(row["drop"]),
                "interval": f"{points(row['low'])} – {points(row['high'])}" if known else "–",
            })  # fmt: skip
        electrodes = [row for row in own if row["group"] == "electrode"]
        if electrodes:
            drops, names = np.array([float(row["drop"]) for row in electrodes]), [row["name"] for row in electrodes]
            drops = np.nan_to_num(drops)
            limits = min(float(drops.min()), 0.0), float(drops.max())
            first = sorted(range(len(names)), key=lambda place: (-drops[place], names[place]))[:FOREMOST]
            scalp = {
                "map": scalp_map(drops, names, limits), "low": points(limits[0]), "high": points(limits[1]),
                "foremost": [(names[place], points(drops[place])) for place in first],
            }  # fmt: skip
        kinds.append({"title": title, "meaning": meaning, "bands": shown, "map": scalp})
    axis = figures.axis(scale, False)
    return (
        {"kinds": kinds, "axis": axis, "has_bands": bool(bands), "link": file_link(path, "evaluate")} if kinds else None
    )
