"""The plots of the page: inline SVG that takes the page's colours."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from neurocanvas.artifacts import number_in, read_csv
from neurocanvas.data.montage import BANDS, CH_NAMES, POSITIONS, standard_positions
from neurocanvas.errors import NeuroCanvasError, csv_text
from neurocanvas.report.text import ORDERS, percent, ranking_arm

# Arm -> its mark; the style sheet has its colour, so arms differ in shape and colour.
MARKS: dict[str, str] = {
    "eeg": '<circle r="5.5"/>',
    "shuffled": '<rect x="-4.5" y="-4.5" width="9" height="9"/>',
    "mean": '<circle r="4"/>',
    "oracle": '<path d="M0-6 6 0 0 6-6 0Z"/>',
    "random": '<path d="M-5-3-3-5 0-2 3-5 5-3 2 0 5 3 3 5 0 2-3 5-5 3-2 0Z"/>',
    "retrieval": '<path d="M0-6 6 5-6 5Z"/>',
    "class-name": '<path d="M0 6 6-5-6-5Z"/>',
    "retrieved-start": '<path d="M-6 0 5-6 5 6Z"/>',
    "sketched-start": '<path d="M6 0-5-6-5 6Z"/>',
    "best-of": '<path d="M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4Z"/>',
}

# Mark of other arms.
MARK = '<path d="M0-6 5 2-5 2Z"/>'

ROW, AXIS = 26, 20  # heights in CSS pixels

HERTZ = {band: f"{low:g}–{high:g} Hz" for band, (low, high) in BANDS.items()}


def csv_link(name: str, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> Markup:
    """A link that saves a table as a CSV file, in which no text is a formula."""
    content = base64.b64encode(csv_text([columns, *rows]).encode("utf-8", "replace")).decode()
    link = Markup('<a class="csv" download="{0}" href="data:text/csv;charset=utf-8;base64,{1}">{0}</a>')
    return link.format(name, content)


def line(style: str, x1: str, x2: str, y1: str, y2: str) -> Markup:
    return Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(style, x1, x2, y1, y2)


def drawn_row(parts: Iterable[Markup], style: str = "strip", height: int = ROW) -> Markup:
    """A drawing as wide as its table cell."""
    svg = Markup('<svg class="{}" width="100%" height="{}" aria-hidden="true">{}</svg>')
    return svg.format(style, height, Markup("").join(parts))


def axis(values: Iterable[float], share: bool) -> tuple[tuple[float, ...], Markup]:
    """Ticks of the shortest round axis that holds 0 and all values, and its labels, percentages of shares."""
    finite = [0.0, *(value for value in values if np.isfinite(value))]
    step = _round_step(max(max(finite) - min(finite), 1e-6))
    first, last = int(np.floor(min(finite) / step + 1e-9)), int(np.ceil(max(finite) / step - 1e-9))
    scale = tuple(float(round(k * step, 10)) for k in range(first, max(last, first + 1) + 1))
    labels = [f"{100 * tick:g} %" if share else f"{tick:g}".replace("-", "−") for tick in scale]
    text = Markup('<text x="{}" y="14" text-anchor="middle">{}</text>')
    drawn = [text.format(at(tick, scale), label) for tick, label in zip(scale, labels, strict=True)]
    return scale, drawn_row(drawn, "strip axis", AXIS)


def at(value: float, scale: Sequence[float]) -> str:
    """Position of a value on an axis with these ticks, as a CSS percentage inside 0 to 100."""
    return f"{100 * min(max((value - scale[0]) / (scale[-1] - scale[0]), 0.0), 1.0):.2f}%"


def bar(style: str, ends: tuple[float, float], scale: Sequence[float], y: str, height: str) -> Markup:
    """A horizontal bar between two values."""
    left, right = (at(end, scale) for end in sorted(ends))
    rect = Markup('<rect class="{}" x="{}" width="{:.2f}%" y="{}" height="{}" rx="{}"/>')
    return rect.format(style, left, float(right[:-1]) - float(left[:-1]), y, height, 2 if y != "0" else 0)


def strip(
    scores: Mapping[str, Mapping[str, float | None]],
    scale: Sequence[float],
    *,
    chance: float | None = None,
    between: tuple[float, float] | None = None,
) -> Markup:
    """One row of a dot plot."""
    parts = [] if between is None else [bar("range", between, scale, "0", "100%")]
    parts += [line("grid", at(tick, scale), at(tick, scale), "0", "100%") for tick in scale]
    if chance is not None:
        parts.append(line("chance", at(chance, scale), at(chance, scale), "0", "100%"))
    for arm, score in scores.items():
        value, low, high = score["value"], score.get("low"), score.get("high")
        if value is None or not np.isfinite(value):
            continue
        if low is not None and high is not None:
            parts.append(line(f"whisker {arm}", at(low, scale), at(high, scale), "50%", "50%"))
        mark = Markup('<svg x="{}" y="50%" overflow="visible" class="mark {}">{}</svg>')
        parts.append(mark.format(at(value, scale), arm, Markup(MARKS.get(arm, MARK))))
    return drawn_row(parts)


def curves(history: Sequence[Mapping[str, float]], selected: int | None, levels: Mapping[str, float]) -> Markup:
    """An encoder's losses over the epochs."""
    epochs = np.array([row["epoch"] for row in history], dtype=float)
    losses = {name: np.array([row[f"{name}_loss"] for row in history], dtype=float) for name in ("train", "val")}
    both = np.concatenate([*losses.values()])
    bottom = float(np.nanmin([*both, *levels.values()]))
    top = max(float(np.nanquantile(both, 0.97)), *levels.values(), bottom)
    bottom, top = bottom - 0.06 * (top - bottom), top + 0.1 * (top - bottom or abs(top) or 1.0)
    x, step = 100 * (epochs - epochs[0]) / max(float(np.ptp(epochs)), 1.0), _round_step(top - bottom)

    def y(value: Any) -> Any:
        return 100 * (top - value) / (top - bottom)

    grid, plot, labels, lines = [], [], [], []
    for tick in np.arange(np.ceil(bottom / step), np.floor(top / step) + 1) * step:
        grid.append(line("grid", "0", "100%", f"{y(tick):.2f}%", f"{y(tick):.2f}%"))
        text = Markup('<text x="-10" y="{:.2f}%" dy="4" text-anchor="end">{:.5g}</text>')
        labels.append(text.format(y(tick), tick))
    for name, value in levels.items():
        plot.append(line(name, "0", "100%", f"{y(value):.2f}%", f"{y(value):.2f}%"))
    for name, values in losses.items():
        points = " ".join(f"{px:.2f},{py:.2f}" for px, py in zip(x, y(values), strict=True) if np.isfinite(py))
        lines.append(Markup('<polyline class="{}" points="{}"/>').format(name, points))
    stretched = '<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{}</svg>'
    plot.append(Markup(stretched).format(Markup("").join(lines)))
    for epoch in np.flatnonzero(epochs == selected)[:1]:
        plot.append(line("chance", f"{x[epoch]:.2f}%", f"{x[epoch]:.2f}%", "0", "100%"))
        dot = Markup('<circle class="kept" cx="{:.2f}%" cy="{:.2f}%" r="5"/>')
        plot.append(dot.format(x[epoch], y(losses["val"][epoch])))
    page = Markup(
        '<svg class="curves" height="220" role="img" aria-label="loss per epoch">'
        '<svg width="100%" height="196">{}</svg>'
        '<text x="0" y="214">epoch {:.0f}</text><text x="100%" y="214" text-anchor="end">{:.0f}</text></svg>'
    )
    return page.format(Markup("").join([*grid, *plot, *labels]), epochs[0], epochs[-1])


def _round_step(span: float) -> float:
    """The smallest of 1, 2, 2.5 or 5 times a power of ten that divides `span` into five intervals or fewer."""
    power = 10.0 ** np.floor(np.log10(span / 4))
    return float(next(s * power for s in (1.0, 2.0, 2.5, 5.0, 10.0) if s * power * 5 >= span * 0.999))


# Colour map of scalp maps.
COLOUR_MAP = "viridis"

# The same as a CSS gradient.
GRADIENT = "linear-gradient(90deg, #440154, #472d7b, #3b528b, #2c728e, #21918c, #28ae80, #5ec962, #addc30, #fde725)"

# Fewer electrodes are drawn as dots, without interpolation.
FEW_CHANNELS = 8


def scalp_map(values: np.ndarray, ch_names: Sequence[str], limits: tuple[float, float]) -> Markup:
    """One value per electrode on a head seen from above, nose up; as dots if electrodes are few."""
    if np.shape(values) != (len(ch_names),):
        raise NeuroCanvasError(f"values: one per channel, {len(ch_names)}, is needed; got shape {np.shape(values)}.")
    montage = dict(zip(CH_NAMES, POSITIONS, strict=True))  # all positions come from one montage
    if not montage.keys() >= set(ch_names):
        montage = standard_positions()
    located = [index for index, name in enumerate(ch_names) if np.isfinite(montage.get(name.upper(), np.nan)).all()]
    names = [ch_names[index] for index in located]
    values, positions = np.asarray(values)[located], np.array([montage[name.upper()] for name in names]).reshape(-1, 3)
    # with equal steps of angle: the lowest electrode or the equator lies at radius 1
    radius = np.maximum(np.linalg.norm(positions, axis=1), 1e-9)
    angle = np.arccos(np.clip(positions[:, 2] / radius, -1, 1)) / (np.pi / 2)
    direction = positions[:, :2] / np.maximum(np.linalg.norm(positions[:, :2], axis=1, keepdims=True), 1e-9)
    flat = (angle / max(float(angle.max(initial=1.0)), 1.0))[:, None] * direction
    if len(names) < FEW_CHANNELS:
        import matplotlib as mpl
        from matplotlib.colors import to_hex

        shares = np.clip((values - limits[0]) / ((limits[1] - limits[0]) or 1.0), 0, 1)
        spots = 100 + 70 * flat * [1, -1]
        colours = [to_hex(mpl.colormaps[COLOUR_MAP](float(share))) for share in shares]
        dot = '<circle class="dot" cx="{0}" cy="{1}" r="13" fill="{2}"/>'
        label = '<text x="{0}" y="{3}" text-anchor="middle">{4}</text>'
        dots = [
            # The name stands on the side of the head's middle, clear of the outline.
            Markup(dot + label).format(f"{x:.1f}", f"{y:.1f}", colour, f"{y + (27 if y < 100 else -18):.1f}", name)
            for (x, y), colour, name in zip(spots, colours, names, strict=True)
        ]
        head = '<path class="head" d="M88 14 100 2 112 14"/><circle class="head" cx="100" cy="100" r="87"/>'
        ears = '<path class="head" d="M13 82q-9 18 0 36M187 82q9 18 0 36"/>'
        return Markup('<svg class="scalp" viewBox="0 0 200 200" aria-hidden="true">{}{}</svg>').format(
            Markup(head + ears), Markup("").join(dots)
        )
    import mne
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # a smooth map as a transparent PNG with mid-grey outlines and no text
    figure = Figure(figsize=(2.0, 2.0), dpi=180)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    mne.viz.plot_topomap(
        values, 0.95 * flat, sphere=(0.0, 0.0, 0.0, 1.0), extrapolate="head", axes=axes, show=False,
        sensors=False, contours=0, cmap=COLOUR_MAP, vlim=limits,
    )  # fmt: skip
    for outline in axes.lines:
        outline.set(color="#868c93", linewidth=1.4)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", transparent=True, metadata={"Software": None})
    return Markup('<img class="scalp" alt="" src="data:image/png;base64,{}">').format(
        base64.b64encode(stream.getvalue()).decode()
    )


# Shares of a concept's images above which a cell takes the next darker colour.
LEVELS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)

NEAR = 2  # ranks to each side in an order that count as near
LISTED = 10  # confusions in the list
SHOWN_ARMS = 3  # at most: each is drawn in every order


def confusion(folder: Path, arms: Sequence[str], names: Mapping[str, str]) -> dict[str, Any] | None:
    """The confusion matrix of every arm in every order."""
    counted, ordered = (folder / "scores" / name for name in ("confusion.csv", "concept_order.csv"))
    if not (counted.is_file() and ordered.is_file()):
        return None
    table = read_csv(counted, "evaluate", ("arm", "true", "named", "count"))
    rows = [row for row in table if row["arm"] in arms]
    concepts = read_csv(ordered, "evaluate", ("concept", "name", "semantic", "block"))
    if not rows or not concepts:
        return None
    ids = [row["concept"] for row in concepts] + [row[key] for row in rows for key in ("true", "named")]
    index = {concept: number for number, concept in enumerate(dict.fromkeys(ids))}
    n = len(index)
    tables = {arm: np.zeros((n, n)) for arm in arms if any(row["arm"] == arm for row in rows)}
    for row in rows:
        tables[row["arm"]][index[row["true"]], index[row["named"]]] += number_in(row, "count", counted, "evaluate")
    labels = {**names, **{row["concept"]: row["name"] for row in concepts}}
    words = [labels.get(concept) or concept for concept in index]
    orders = {}
    for order in ORDERS:
        ranks = {row["concept"]: number_in(row, order, ordered, "evaluate") for row in concepts}
        if np.isfinite(list(ranks.values())).any():
            orders[order] = np.argsort([ranks.get(concept, np.nan) for concept in index], kind="stable")
    main = ranking_arm(list(tables))
    shown = [main, *(arm for arm in tables if arm != main and arm in ("shuffled", "oracle"))][:SHOWN_ARMS]
    drawn = [
        {"arm": arm, "order": order, **matrix(tables[arm][np.ix_(ranked, ranked)], [words[k] for k in ranked], arm)}
        for arm in shown for order, ranked in orders.items()
    ]  # fmt: skip
    # the confusions with the largest share of a concept's images; of equal shares the more frequent first
    counts, sums = tables[main], tables[main].sum(axis=1)
    pairs = [(row, column) for row, column in np.argwhere(counts > 0) if row != column]
    pairs.sort(key=lambda pair: (-counts[pair] / sums[pair[0]], -counts[pair], *pair))
    listed = [
        {
            "seen": words[row], "named": words[column], "count": f"{counts[row, column]:g}", "of": f"{sums[row]:g}",
            "share": percent(counts[row, column] / sums[row]),
        }
        for row, column in pairs[:LISTED]
    ]  # fmt: skip
    # size of the labels in px, the widest the cells may get, and the page widths below which labels do not fit
    size = 12.5 if n <= 40 else 9.5
    needed = n * size * 1.1
    links = [csv_link(path.name, [*lines[0]], [line.values() for line in lines])
             for path, lines in ((counted, table), (ordered, concepts))]  # fmt: skip
    return {
        "n": n, "orders": {order: ORDERS[order] for order in orders}, "arms": shown, "arm": main,
        "arm_options": [(arm, arm) for arm in shown], "figures": drawn, "listed": listed, "links": links,
        "levels": [f"{100 * low:g}" for low in LEVELS], "label": size, "widest": min(34 * n, 852),
        "hide_below": int(needed + 270) if needed <= 852 else 100_000, "hide_below_on_phone": int(n * 10.2 + 152),
    }  # fmt: skip


def matrix(counts: np.ndarray, words: list[str], arm: str) -> dict[str, Any]:
    """A table of counts as coloured cells, every row divided by its sum; with labels and a summary."""
    n, total = len(counts), counts.sum()
    sums = counts.sum(axis=1, keepdims=True)
    level = np.digitize(np.divide(counts, sums, out=np.zeros(counts.shape), where=sums > 0), LEVELS, right=True)
    cells = {"own": np.eye(n)} | {f"level-{step}": level == step for step in range(1, len(LEVELS) + 1)}
    paths = [
        Markup('<path class="{}" d="{}"/>').format(style, "".join(f"M{x} {y}h1v1h-1z" for y, x in np.argwhere(where)))
        for style, where in cells.items() if np.any(where)
    ]  # fmt: skip
    square = '<svg class="cells {0}" viewBox="0 0 {1} {1}" preserveAspectRatio="none" aria-hidden="true">{2}</svg>'
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    near, errors = (distance > 0) & (distance <= NEAR), counts * (distance > 0)
    summary = f"{percent(np.trace(counts) / total)} correct" if total else "no predictions"
    if wrong := errors.sum():
        even = errors.sum(axis=1) @ (near.sum(axis=1) / (n - 1)) / wrong
        summary += (
            f"; of the errors, {percent(errors[near].sum() / wrong)} are one of the {2 * NEAR} nearest concepts in "
            f"this order ({percent(even)} if errors were uniform)"
        )
    named = ";".join(f"{row},{column}:{counts[row, column]:g}" for row, column in np.argwhere(counts > 0))
    svg = Markup(square).format(arm, n, Markup("").join(paths))
    return {"svg": svg, "names": words, "cells": named, "sentence": f"{summary}."}
