"""The scores on the page: every metric's rows, concepts, subjects, and what was not computed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.artifacts import number_in, read_csv
from neurocanvas.config import RunSettings
from neurocanvas.data.montage import BANDS
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.report import figures
from neurocanvas.report.figures import csv_link, file_link, scalp_map
from neurocanvas.report.text import (
    ALPHA,
    BLOCK_FINDINGS,
    KINDS,
    METRICS,
    PERCENT,
    interval,
    number,
    p_value,
    ranking_arm,
)

SCORE_COLUMNS = ("value", "low", "high", "chance", "p", "p_vs_shuffled", "place")
FOREST_COLUMNS = ("subject", "arm", "metric", "n", "value", "low", "high", "p", "p_holm")


def metric_tables(summary: Mapping[str, Any], arms: Sequence[str], n_way: int) -> list[dict[str, Any]]:
    """Lay out the rows of every metric: a dot, an interval and the numbers of each arm."""
    measured = summary["arms"]
    known = [metric for metric in METRICS if any(metric in measured[arm] for arm in arms)]
    further = dict.fromkeys(metric for arm in arms for metric in measured[arm] if metric not in METRICS)
    described = summary.get("metrics", {})
    tables = []
    for metric in [*known, *further]:
        scores = {arm: measured[arm][metric] for arm in arms if metric in measured[arm]}
        if metric in METRICS:
            title, meaning = (text.format(n=n_way) for text in METRICS[metric])
            tables.append(_metric(title, meaning, scores, metric, whole=metric == "two_way"))
        else:
            said = described.get(metric, {})
            style = "two_way" if said.get("unit") == "share" else metric
            numbered = any(score.get("chance") is not None for score in scores.values())
            tables.append(_metric(said.get("title", metric), _meaning(said, numbered), scores, style))
    return tables


def _meaning(said: Mapping[str, Any], numbered: bool) -> str:
    """What `metrics` of the summary say of one metric; a chance that is a number has a column of its own."""
    chance = str(said.get("chance") or "")
    if numbered and re.fullmatch(r"[\d.]+", chance):
        chance = ""
    parts = [
        "lower is better" if said.get("direction") == "lower" else "higher is better",
        f"chance: {chance}" if chance else "",
        f"as in {said['variant']}" if said.get("variant") else "",
        str(said.get("reference", "")),
    ]
    return "; ".join(part for part in parts if part)


def _metric(
    title: str, meaning: str, scores: Mapping[str, Mapping[str, Any]], style: str, whole: bool = False
) -> dict[str, Any]:
    """One metric's rows; `style` is how its numbers are written, `whole` draws the axis from 0 to 1."""
    ends = [score.get(key) for score in scores.values() for key in ("value", "low", "high", "chance")]
    scale = figures.Scale.around([1.0] if whole else [end for end in ends if end is not None])
    between = None
    if {"shuffled", "oracle"} <= set(scores):
        between = scores["shuffled"]["value"], scores["oracle"]["value"]
    rows = []
    for arm, score in scores.items():
        place, chance = score.get("place"), score.get("chance")
        rows.append({
            "arm": arm, "value": number(score["value"], style), "interval": interval(score, style),
            "chance": "–" if chance is None else number(chance, style),
            "p": "–" if score.get("p") is None else p_value(score["p"]),
            "place": "–" if place is None else f"{100 * place:.0f} %".replace("-", "−"),
            "strip": figures.strip({arm: score}, scale, chance=chance, between=between),
        })  # fmt: skip
    labels = [f"{100 * tick:g} %" if style in PERCENT else f"{tick:g}".replace("-", "−") for tick in scale.ticks]
    return {"title": title, "meaning": meaning, "rows": rows, "axis": figures.axis(scale, labels)}


def score_link(measured: Mapping[str, Mapping[str, Mapping[str, Any]]], arms: Sequence[str]) -> str:
    """Put the numbers of all arms and metrics into a link."""
    rows = [
        [arm, metric, *(score.get(key) for key in SCORE_COLUMNS)]
        for arm in arms for metric, score in measured[arm].items()
    ]  # fmt: skip
    return csv_link("scores.csv", ["arm", "metric", *SCORE_COLUMNS], rows)


def not_computed(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the metrics that were not computed."""
    described = summary.get("metrics", {})
    titles: dict[str, list[str]] = {}
    for metric, reason in summary.get("not_computed", {}).items():
        known = METRICS[metric][0].format(n="n") if metric in METRICS else metric
        titles.setdefault(str(reason), []).append(described.get(metric, {}).get("title", known))
    return [(", ".join(names), reason) for reason, names in titles.items()]


def set_table(summary: Mapping[str, Any], arms: Sequence[str]) -> dict[str, Any] | None:
    """Lay out the metrics that have one value for all pictures or predictions of an arm."""
    sets, described = summary.get("sets", {}), summary.get("metrics", {})
    shown = [arm for arm in arms if sets.get(arm)]
    metrics = list(dict.fromkeys(metric for arm in shown for metric in sets[arm]))
    if not metrics:
        return None
    titles = {metric: described.get(metric, {}).get("title", metric) for metric in metrics}
    lines, rows = [], []
    for metric in metrics:
        values = [sets[arm].get(metric, {}).get("value") for arm in shown]
        counts = {sets[arm][metric].get("n_generated") for arm in shown if metric in sets[arm]}
        n = ", ".join(str(count) for count in sorted(counts - {None}))
        lines.append([titles[metric], *("–" if one is None else number(one, metric) for one in values), n or "–"])
        rows += [[metric, arm, *(sets[arm][metric].get(key) for key in ("value", "n_generated"))]
                 for arm in shown if metric in sets[arm]]  # fmt: skip
    notes = [f"{titles[metric]}: {_meaning(described[metric], False)}" for metric in metrics if metric in described]
    link = csv_link("sets.csv", ["metric", "arm", "value", "n_generated"], rows)
    return {"header": ["metric", *shown, "n"], "lines": lines, "notes": notes, "link": link}


def retrieval_table(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Lay out how well predictions retrieve the targets of the test pictures, by rule of assignment."""
    found = summary.get("retrieval")
    if not found:
        return None
    shares = ("top1", "chance1", "top5", "chance5")
    lines = [
        [rule, *(number(one[key], "two_way") for key in shares), f"{one['median_rank']:g}",
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
            "two_way": [(arm, number(row[arm]["two_way"], "two_way", digits=0)) for arm in reversed(shown)],
            "top1": number(row[shown[-1]]["concept_top1"], "concept_top1", digits=0),
        }
        for row in ranked
    ]  # fmt: skip
    labels = [f"{100 * tick:g} %" for tick in scale.ticks]
    columns = [(arm, key) for arm in reversed(shown) for key in ("two_way", "concept_top1")]
    numbers = [
        [key, row["name"], row["n"], *(row[arm].get(column) for arm, column in columns)] for key, row in table.items()
    ]
    link = csv_link(name, ["id", "name", "n", *(f"{arm} {column}" for arm, column in columns)], numbers)
    return {"rows": rows, "arms": list(reversed(shown)), "axis": figures.axis(scale, labels), "link": link}


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
    whole = metric in PERCENT
    scale = figures.Scale.around([1.0] if whole else [end for end in ends if end is not None])
    chance = next((score[metric].get("chance") for score in summary["arms"].values() if metric in score), None)
    rows = [
        _forest_row(f"Subject {subject}", {arm: of[arm, subject] for arm in shown if (arm, subject) in of}, main,
                    metric, scale, chance)
        for subject in subjects
    ]  # fmt: skip
    together = None
    if pooled is not None:
        marks = {arm: summary["arms"][arm][metric] for arm in shown if metric in summary["arms"].get(arm, {})}
        together = _forest_row("All subjects", marks, main, metric, scale, chance)
    above = sum((of[main, subject].get("p_holm") or 1.0) < ALPHA for subject in subjects)
    labels = [f"{100 * tick:g} %" if whole else f"{tick:g}".replace("-", "−") for tick in scale.ticks]
    described = summary.get("metrics", {}).get(metric, {}).get("title", metric)
    return {
        "arm": main, "arms": list(reversed(shown)), "rows": rows, "pooled": together,
        "title": METRICS[metric][0].format(n=summary.get("n_way", "n")) if metric in METRICS else described,
        "sentence": f"{above} of {len(subjects)} subjects above chance" if len(subjects) > 1 else "",
        "axis": figures.axis(scale, labels),
        "link": csv_link("subjects.csv", FOREST_COLUMNS, [[e.get(key) for key in FOREST_COLUMNS] for e in entries]),
    }  # fmt: skip


def _forest_row(
    name: str,
    marks: Mapping[str, Mapping[str, Any]],
    main: str,
    metric: str,
    scale: figures.Scale,
    chance: float | None,
) -> dict[str, Any]:
    """One row of the forest plot; the numbers are of the arm `main`."""
    score = marks[main]
    return {
        "name": name, "n": score.get("n"), "value": number(score["value"], metric), "interval": interval(score, metric),
        "p": "–" if score.get("p") is None else p_value(score["p"]),
        "p_holm": "–" if score.get("p_holm") is None else p_value(score["p_holm"]),
        "strip": figures.strip(marks, scale, chance=chance),
    }  # fmt: skip


CONTROL_COLUMNS = ("control", "asks", "effect", "low", "high", "p", "p_holm", "fired", "verdict")
FOREMOST = 5  # electrodes that are named


def audit(folder: Path) -> dict[str, Any] | None:
    """Read what the audit found."""
    found = _optional(folder / "scores" / "audit.json", "audit")
    if found is None:
        return None
    cases = found.get("cases", [])
    findings = {found["finding"]} if "finding" in found else {case.get("finding") for case in cases}
    tone = "block" if findings & BLOCK_FINDINGS else "clean" if findings == {"clean"} else "doubt"
    kept = [
        {"name": case.get("name", ""), "can": case.get("can", []), "cannot": case.get("cannot", [])}
        for case in cases if case.get("can") or case.get("cannot")
    ]  # fmt: skip
    return {"verdict": found["verdict"], "tone": tone, "other_split": "other-split" in findings, "cases": kept}


def controls(folder: Path, settings: RunSettings) -> dict[str, Any] | None:
    """Read what the controls found."""
    found = _optional(folder / "scores" / "controls.json", "controls")
    if found is None or found.get("made_from", settings.of_trials) != settings.of_trials:
        return None
    needed = {"control", "verdict"}
    given = found.get("rows")
    if not isinstance(given, list) or not all(isinstance(row, dict) and needed <= row.keys() for row in given):
        raise NeuroCanvasError(f"{folder / 'scores' / 'controls.json'}: holds no rows; run the verb controls again.")
    rows = [
        {
            "control": row["control"], "asks": row.get("asks", row.get("measures", "")), "verdict": row["verdict"],
            "effect": "–" if row.get("effect") is None else number(row["effect"], "effect"),
            "interval": interval(row, "effect"), "outcome": OUTCOMES[row.get("fired")],
            **{key: "–" if row.get(key) is None else p_value(row[key]) for key in ("p", "p_holm")},
        }
        for row in found["rows"]
    ]  # fmt: skip
    link = csv_link(
        "controls.csv", CONTROL_COLUMNS, [[row.get(key) for key in CONTROL_COLUMNS] for row in found["rows"]]
    )
    corrected = any(row.get("p_holm") is not None for row in found["rows"])
    return {"verdict": found["verdict"], "rows": rows, "corrected": corrected, "link": link}


# Whether a control fired -> in words.
OUTCOMES: Mapping[bool | None, str] = {True: "fired", False: "silent", None: "not computed"}


def importance(folder: Path) -> dict[str, Any] | None:
    """Draw how much is lost without each band and each electrode."""
    path = folder / "scores" / "importance.csv"
    if not path.is_file():
        return None
    rows = read_csv(path, "evaluate", ("kind", "group", "name", "drop", "low", "high"))
    for row in rows:
        row.update({key: number_in(row, key, path, "evaluate") for key in ("drop", "low", "high")})  # type: ignore[misc]
    of = {
        kind: {group: [row for row in rows if (row["kind"], row["group"]) == (kind, group)] for group in GROUPS}
        for kind in KINDS
    }  # fmt: skip
    of = {kind: groups for kind, groups in of.items() if any(groups.values())}
    if not of:
        return None
    bands = [row for groups in of.values() for row in groups["band"]]
    ends = [100 * float(row[key]) for row in bands for key in ("drop", "low", "high")]
    scale = figures.Scale.around(ends)
    kinds = [
        {
            "title": KINDS[kind][0], "meaning": KINDS[kind][1],
            "bands": [_band(row, scale) for row in groups["band"]], "map": _map(groups["electrode"]),
        }
        for kind, groups in of.items()
    ]  # fmt: skip
    axis = figures.axis(scale, [f"{tick:g}".replace("-", "−") for tick in scale.ticks])
    return {"kinds": kinds, "axis": axis, "has_bands": bool(bands), "link": file_link(path, "evaluate")}


GROUPS = ("band", "electrode")


def _optional(path: Path, verb: str) -> dict[str, Any] | None:
    """An artifact that need not be there, but has a verdict where it is."""
    if not path.is_file():
        return None
    found = artifacts.read_json(path, f"what the verb {verb} found; run it again")
    if not isinstance(found, dict) or "verdict" not in found:
        raise NeuroCanvasError(f"{path}: holds no verdict; run the verb {verb} again.")
    return found


def _points(share: float) -> str:
    """A loss in percentage points."""
    rounded = round(100 * share, 1) + 0.0  # no −0.0
    return f"{rounded:.1f}".replace("-", "−") if np.isfinite(share) else "–"


def _band(row: Mapping[str, Any], scale: figures.Scale) -> dict[str, Any]:
    """One band's bar and numbers."""
    drop, low, high = (100 * float(row[key]) for key in ("drop", "low", "high"))
    name = str(row["name"])
    ends = f"{_points(row['low'])} – {_points(row['high'])}" if np.isfinite([low, high]).all() else "–"
    return {
        "name": name, "hertz": "{:g}–{:g} Hz".format(*BANDS[name]) if name in BANDS else "",
        "bar": figures.bar(drop, low, high, scale), "drop": _points(row["drop"]), "interval": ends,
    }  # fmt: skip


def _map(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The scalp map of the electrodes' drops and the foremost electrodes in words; None without electrodes."""
    if not rows:
        return None
    drops, names = np.array([float(row["drop"]) for row in rows]), [str(row["name"]) for row in rows]
    drops = np.nan_to_num(drops)
    limits = min(float(drops.min()), 0.0), float(drops.max())
    first = sorted(range(len(rows)), key=lambda place: (-drops[place], names[place]))[:FOREMOST]
    return {
        "map": scalp_map(drops, names, limits), "low": _points(limits[0]), "high": _points(limits[1]),
        "foremost": [(names[place], _points(drops[place])) for place in first],
    }  # fmt: skip
