"""The confusion matrix: which concept the judge names for each seen one, ordered by meaning and by time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from neurocanvas.report.tables import file_link, number_in, read_csv
from neurocanvas.report.words import ORDERS, number, ranking_arm

# Shares of a concept's pictures above which a cell takes the next darker colour.
LEVELS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)

NEAR = 2  # places to each side in an order that count as near
LISTED = 10  # confusions in the list
SHOWN_ARMS = 3  # at most: each is drawn in every order


def confusion(folder: Path, arms: Sequence[str], names: Mapping[str, str]) -> dict[str, Any] | None:
    """Draw the confusion matrix of every arm in every order."""
    counted, ordered = (folder / "scores" / name for name in ("confusion.csv", "concept_order.csv"))
    if not (counted.is_file() and ordered.is_file()):
        return None
    rows = [row for row in read_csv(counted, "evaluate", ("arm", "true", "named", "count")) if row["arm"] in arms]
    concepts = read_csv(ordered, "evaluate", ("concept", "name", "semantic", "block"))
    if not rows or not concepts:
        return None
    ids = list(dict.fromkeys([row["concept"] for row in concepts] + [row[key] for row in rows for key in KEYS]))
    at = {concept: place for place, concept in enumerate(ids)}
    tables = {arm: np.zeros((len(ids), len(ids))) for arm in arms if any(row["arm"] == arm for row in rows)}
    for row in rows:
        tables[row["arm"]][at[row["true"]], at[row["named"]]] += number_in(row, "count", counted, "evaluate")
    named = {**dict.fromkeys(ids, ""), **names, **{row["concept"]: row["name"] for row in concepts}}
    words = [named[concept] or concept for concept in ids]
    orders = {}
    for order in ORDERS:
        ranks = {row["concept"]: number_in(row, order, ordered, "evaluate") for row in concepts}
        if np.isfinite(list(ranks.values())).any():
            orders[order] = np.argsort([ranks.get(concept, np.nan) for concept in ids], kind="stable")
    main = ranking_arm(list(tables))
    shown = [main, *(arm for arm in tables if arm != main and arm in ("shuffled", "oracle"))][:SHOWN_ARMS]
    drawn = [
        {"arm": arm, "order": order, **_figure(tables[arm][np.ix_(places, places)], [words[p] for p in places], arm)}
        for arm in shown for order, places in orders.items()
    ]  # fmt: skip
    return {
        "n": len(ids), "orders": {order: ORDERS[order] for order in orders}, "arms": shown, "arm": main,
        "arm_options": [(arm, arm) for arm in shown],
        "figures": drawn, "listed": _listed(tables[main], words),
        "links": [file_link(path, "evaluate") for path in (counted, ordered)],
        "levels": [f"{100 * low:g}" for low in LEVELS], **_label_sizes(len(ids)),
    }  # fmt: skip


KEYS = ("true", "named")


def draw_matrix(counts: np.ndarray, style: str) -> Markup:
    """Draw a table of counts as coloured cells, every row by its own sum."""
    n = len(counts)
    sums = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, sums, out=np.zeros(counts.shape), where=sums > 0)
    level = np.digitize(shares, LEVELS, right=True)  # 0 where nothing was named
    paths = [Markup('<path class="own" d="{}"/>').format("".join(f"M{i} {i}h1v1h-1z" for i in range(n)))]
    for step in range(1, len(LEVELS) + 1):
        cells = "".join(f"M{column} {row}h1v1h-1z" for row, column in np.argwhere(level == step))
        if cells:
            paths.append(Markup('<path class="level-{}" d="{}"/>').format(step, cells))
    return Markup(
        '<svg class="cells {0}" viewBox="0 0 {1} {1}" preserveAspectRatio="none" aria-hidden="true">{2}</svg>'
    ).format(style, n, Markup("").join(paths))


def near_errors(counts: np.ndarray, near: int = NEAR) -> tuple[float, float] | None:
    """Share of the errors that fall near the seen concept in the order of the table."""
    n = len(counts)
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    close = (distance > 0) & (distance <= near)
    errors = counts * (distance > 0)
    if not errors.sum():
        return None
    even = float(errors.sum(axis=1) @ (close.sum(axis=1) / (n - 1)) / errors.sum())
    return float(errors[close].sum() / errors.sum()), even


def _figure(counts: np.ndarray, words: list[str], arm: str) -> dict[str, Any]:
    """One matrix with its labels and what it comes to."""
    total, near = counts.sum(), near_errors(counts)
    right = f"{_percent(np.trace(counts) / total)} named right" if total else "nothing named"
    if near is None:
        sentence = f"{right}."
    else:
        sentence = (
            f"{right}; of the errors, {_percent(near[0])} go to one of the {2 * NEAR} nearest concepts in this order "
            f"({_percent(near[1])} if they fell evenly)."
        )
    cells = ";".join(f"{row},{column}:{counts[row, column]:g}" for row, column in np.argwhere(counts > 0))
    return {"svg": draw_matrix(counts, arm), "names": words, "cells": cells, "sentence": sentence}


def _listed(counts: np.ndarray, words: Sequence[str]) -> list[dict[str, Any]]:
    """The confusions that take the largest share of a concept's pictures; the more frequent first among equals."""
    sums = counts.sum(axis=1)
    pairs = [(row, column) for row, column in np.argwhere(counts > 0) if row != column]
    pairs.sort(key=lambda pair: (-counts[pair] / sums[pair[0]], -counts[pair], *pair))
    return [
        {
            "seen": words[row], "named": words[column], "count": f"{counts[row, column]:g}", "of": f"{sums[row]:g}",
            "share": _percent(counts[row, column] / sums[row]),
        }
        for row, column in pairs[:LISTED]
    ]  # fmt: skip


def _percent(share: float) -> str:
    """A share as whole percent."""
    return number(share, "concept_top1", digits=0)


def _label_sizes(n: int) -> dict[str, Any]:
    """Sizes of the labels in px, the widest the cells may get, and the page widths below which labels do not fit."""
    size = 12.5 if n <= 40 else 9.5
    needed = n * size * 1.1
    return {
        "label": size, "widest": min(34 * n, 852),
        "hide_below": int(needed + 270) if needed <= 852 else 100_000,
        "hide_below_on_phone": int(n * 10.2 + 152),
    }  # fmt: skip
