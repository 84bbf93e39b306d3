"""What speaks for and against the scores: the audit, the controls, and which bands and electrodes are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.config import RunSettings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.montage import BANDS
from neurocanvas.report import figures
from neurocanvas.report.scalp import scalp_map
from neurocanvas.report.tables import csv_link, file_link, number_in, read_csv
from neurocanvas.report.words import BLOCK_FINDINGS, KINDS, interval, number, p_value

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
    found = store.read_json(path, f"what the verb {verb} found; run it again")
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
