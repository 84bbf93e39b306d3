"""The plots of the page: inline SVG that takes the page's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

# Arm -> its mark; the page's style sheet gives it its colour, so shape and colour both tell arms apart.
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

ROW, AXIS = 26, 20  # heights in CSS pixels


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high` with round ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Sequence[float]) -> Scale:
        """Make the shortest round axis that holds 0 and all values."""
        finite = [value for value in values if np.isfinite(value)]
        low, high = min(0.0, *finite, 0.0), max(0.0, *finite, 0.0)
        span = max(high - low, 1e-6)
        step = _round_step(span)
        first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
        ticks = tuple(float(round(k * step, 10)) for k in range(first, max(last, first + 1) + 1))
        return cls(ticks[0], ticks[-1], ticks)

    def at(self, value: float) -> str:
        """Return where a value lies, as a CSS percentage inside 0 to 100."""
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def strip(
    scores: Mapping[str, Mapping[str, float | None]],
    scale: Scale,
    *,
    chance: float | None = None,
    between: tuple[float, float] | None = None,
) -> Markup:
    """Draw one row of a dot plot."""
    parts = [Markup('<line class="grid" x1="{0}" x2="{0}" y1="0" y2="100%"/>').format(scale.at(t)) for t in scale.ticks]
    if between is not None:
        left, right = sorted(between)
        width = float(scale.at(right)[:-1]) - float(scale.at(left)[:-1])
        shade = Markup('<rect class="range" x="{}" width="{}%" y="0" height="100%"/>')
        parts.insert(0, shade.format(scale.at(left), f"{width:.2f}"))
    if chance is not None:
        parts.append(Markup('<line class="chance" x1="{0}" x2="{0}" y1="0" y2="100%"/>').format(scale.at(chance)))
    for arm, score in scores.items():
        value, low, high = score["value"], score.get("low"), score.get("high")
        if value is None or not np.isfinite(value):
            continue
        if low is not None and high is not None:
            whisker = Markup('<line class="whisker {}" x1="{}" x2="{}" y1="50%" y2="50%"/>')
            parts.append(whisker.format(arm, scale.at(low), scale.at(high)))
        mark = Markup('<svg x="{}" y="50%" overflow="visible" class="mark {}">{}</svg>')
        parts.append(mark.format(scale.at(value), arm, Markup(MARKS[arm])))
    return Markup('<svg class="strip" width="100%" height="{}" aria-hidden="true">{}</svg>').format(
        ROW, Markup("").join(parts)
    )


def axis(scale: Scale, labels: Sequence[str]) -> Markup:
    """Draw the labels under the rows of a dot plot."""
    text = Markup('<text x="{}" y="14" text-anchor="middle">{}</text>')
    parts = [text.format(scale.at(tick), label) for tick, label in zip(scale.ticks, labels, strict=True)]
    return Markup('<svg class="strip axis" width="100%" height="{}" aria-hidden="true">{}</svg>').format(
        AXIS, Markup("").join(parts)
    )


def bar(value: float, low: float, high: float, scale: Scale) -> Markup:
    """Draw one row of a bar chart."""
    parts = [
        Markup('<line class="{1}" x1="{0}" x2="{0}" y1="0" y2="100%"/>').format(scale.at(t), "grid" if t else "zero")
        for t in scale.ticks
    ]
    if np.isfinite(value):
        left, right = (scale.at(end) for end in sorted((0.0, value)))
        width = float(right[:-1]) - float(left[:-1])
        rect = Markup('<rect class="bar-of" x="{}" width="{}%" y="7" height="{}" rx="2"/>')
        parts.append(rect.format(left, f"{width:.2f}", ROW - 14))
    if np.isfinite([low, high]).all():
        whisker = Markup('<line class="whisker-of" x1="{}" x2="{}" y1="50%" y2="50%"/>')
        parts.append(whisker.format(scale.at(low), scale.at(high)))
    return Markup('<svg class="strip" width="100%" height="{}" aria-hidden="true">{}</svg>').format(
        ROW, Markup("").join(parts)
    )


def curves(history: Sequence[Mapping[str, float]], selected: int | None, levels: Mapping[str, float]) -> Markup:
    """Draw a mapper's losses over the epochs."""
    epochs = np.array([line["epoch"] for line in history], dtype=float)
    losses = {name: np.array([line[f"{name}_loss"] for line in history], dtype=float) for name in ("train", "val")}
    every = np.concatenate([*losses.values(), np.array(list(levels.values()), dtype=float)])
    bottom = float(np.nanmin(every))
    top = max(float(np.nanquantile(np.concatenate(list(losses.values())), 0.97)), *levels.values(), bottom)
    bottom, top = bottom - 0.06 * (top - bottom), top + 0.1 * (top - bottom or abs(top) or 1.0)
    width = max(float(np.ptp(epochs)), 1.0)
    x = 100 * (epochs - epochs[0]) / width

    def y(value: Any) -> Any:
        return 100 * (top - value) / (top - bottom)

    grid = []
    labels = []
    step = _round_step(top - bottom)
    for height in np.arange(np.ceil(bottom / step), np.floor(top / step) + 1) * step:
        at = f"{y(height):.2f}%"
        grid.append(Markup('<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(at))
        labels.append(Markup('<text x="-10" y="{}" dy="4" text-anchor="end">{}</text>').format(at, f"{height:.5g}"))
    plot = [
        Markup('<line class="{0}" x1="0" x2="100%" y1="{1}%" y2="{1}%"/>').format(name, f"{y(value):.2f}")
        for name, value in levels.items()
    ]
    lines = []
    for name, values in losses.items():
        points = " ".join(f"{px:.2f},{py:.2f}" for px, py in zip(x, y(values)) if np.isfinite(py))
        lines.append(Markup('<polyline class="{}" points="{}"/>').format(name, points))
    plot.append(
        Markup('<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{}</svg>').format(
            Markup("").join(lines)
        )
    )
    kept = np.flatnonzero(epochs == selected) if selected is not None else np.array([], dtype=int)
    if len(kept):
        place = f"{x[kept[0]]:.2f}", f"{y(losses['val'][kept[0]]):.2f}"
        line = '<line class="chance" x1="{0}%" x2="{0}%" y1="0" y2="100%"/>'
        dot = '<circle class="kept" cx="{0}%" cy="{1}%" r="5"/>'
        plot.append(Markup(line + dot).format(*place))
    ends = Markup('<text x="0" y="214">{}</text><text x="100%" y="214" text-anchor="end">{}</text>').format(
        f"epoch {epochs[0]:.0f}", f"{epochs[-1]:.0f}"
    )
    inner = '<svg width="100%" height="196">{}{}</svg>{}'
    return Markup('<svg class="curves" height="220" role="img" aria-label="loss per epoch">{}</svg>').format(
        Markup(inner).format(Markup("").join(grid), Markup("").join([*plot, *labels]), ends)
    )


def _round_step(span: float) -> float:
    """The smallest of 1, 2, 2.5 or 5 times a power of ten that cuts `span` into five parts or fewer."""
    power = 10.0 ** np.floor(np.log10(span / 4))
    return float(next(s * power for s in (1.0, 2.0, 2.5, 5.0, 10.0) if s * power * 5 >= span * 0.999))
