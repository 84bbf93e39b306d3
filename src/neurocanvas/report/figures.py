"""The figures of the page: plots as inline SVG that takes the page's colours, scalp maps as inline pictures.

Positions along x are percentages, so a plot is as wide as its cell and its text keeps its size on a phone.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from markupsafe import Markup

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.montage import CH_NAMES, POSITIONS

MARKS: dict[str, str] = {
    "eeg": '<circle r="5.5"/>',
    "shuffled": '<rect x="-4.5" y="-4.5" width="9" height="9"/>',
    "mean": '<circle r="4"/>',
    "oracle": '<path d="M0-6 6 0 0 6-6 0Z"/>',
    "retrieval": '<path d="M0-6 6 5-6 5Z"/>',
    "class-name": '<path d="M0 6 6-5-6-5Z"/>',
    "retrieved-start": '<path d="M-6 0 5-6 5 6Z"/>',
    "sketched-start": '<path d="M6 0-5-6-5 6Z"/>',
    "best-of": '<path d="M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4Z"/>',
}
"""Arm -> its mark; the page's style sheet gives it its colour, so shape and colour both tell arms apart."""

COLOUR_MAP = "viridis"
"""Matplotlib's name of the colours of the scalp maps: even steps of lightness, safe for colour-blind readers."""

FEW_CHANNELS = 8
"""Below this many electrodes nothing is interpolated between them: they are drawn as dots."""

HEAD_RADIUS = 0.085
"""Radius of the sphere that electrode positions are scaled to, metres."""

ROW, AXIS = 26, 20  # heights in CSS pixels


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high` with round ticks.

    Parameters
    ----------
    low, high : float
        Ends of the axis, in the values' unit.
    ticks : tuple of float
        Where it is labelled.

    Examples
    --------
    >>> Scale(0.0, 1.0, (0.0, 0.5, 1.0)).at(0.25)
    '25.00%'
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Sequence[float]) -> Scale:
        """Make the shortest round axis that holds 0 and all values.

        Parameters
        ----------
        values : sequence of float
            What must fit; NaN is left out.

        Returns
        -------
        Scale

        Examples
        --------
        >>> Scale.around([0.13, 0.92]).ticks
        (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
        """
        finite = [value for value in values if np.isfinite(value)]
        low, high = min(0.0, *finite, 0.0), max(0.0, *finite, 0.0)
        span = max(high - low, 1e-6)
        step = _round_step(span)
        first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
        ticks = tuple(float(round(k * step, 10)) for k in range(first, max(last, first + 1) + 1))
        return cls(ticks[0], ticks[-1], ticks)

    def at(self, value: float) -> str:
        """Return where a value lies, as a CSS percentage inside 0 to 100.

        Parameters
        ----------
        value : float
            In the axis's unit.

        Returns
        -------
        str
        """
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def strip(
    scores: Mapping[str, Mapping[str, float | None]],
    scale: Scale,
    *,
    chance: float | None = None,
    between: tuple[float, float] | None = None,
) -> Markup:
    """Draw one row of a dot plot.

    Parameters
    ----------
    scores : dict of str to dict
        Arm to its ``value`` and, if there is an interval, ``low`` and ``high``; the last is drawn on top.
    scale : Scale
        Shared by the rows above and below.
    chance : float, optional
        Marked by a dashed line.
    between : pair of float, optional
        Floor and ceiling: the range is shaded.

    Returns
    -------
    Markup
        An ``<svg>`` as wide as its cell.
    """
    parts = [
        Markup('<line class="grid" x1="{0}" x2="{0}" y1="0" y2="100%"/>').format(scale.at(t)) for t in scale.ticks
    ]
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
    """Draw the labels under the rows of a dot plot.

    Parameters
    ----------
    scale : Scale
        The rows' scale.
    labels : sequence of str
        One for each of its ticks.

    Returns
    -------
    Markup
        An ``<svg>`` as wide as its cell.
    """
    text = Markup('<text x="{}" y="14" text-anchor="middle">{}</text>')
    parts = [text.format(scale.at(tick), label) for tick, label in zip(scale.ticks, labels, strict=True)]
    return Markup('<svg class="strip axis" width="100%" height="{}" aria-hidden="true">{}</svg>').format(
        AXIS, Markup("").join(parts)
    )


def curves(history: Sequence[Mapping[str, float]], selected: int | None, levels: Mapping[str, float]) -> Markup:
    """Draw a mapper's losses over the epochs.

    Parameters
    ----------
    history : sequence of dict
        ``epoch``, ``train_loss`` and ``val_loss``, epoch by epoch.
    selected : int, optional
        The epoch whose weights were kept.
    levels : dict of str to float
        Style class of a horizontal line (``ridge``, ``constant``) to its height: losses of the baselines.

    Returns
    -------
    Markup
        An ``<svg>``, 220 px high, whose width the style sheet gives. The top leaves out the highest 3 % of the losses.
    """
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


def electrode_positions(ch_names: Sequence[str]) -> np.ndarray:
    """Look up where electrodes sit.

    Parameters
    ----------
    ch_names : sequence of str
        Names of EEG-ImageNet's cap, else of the international 10-05 system, in any case.

    Returns
    -------
    array, shape (n_chans, 3), metres
        x right, y front, z up, on a sphere of `HEAD_RADIUS`; NaN where the name is unknown.
    """
    released = dict(zip(CH_NAMES, np.asarray(POSITIONS), strict=True))
    if all(name in released for name in ch_names):
        found = np.array([released[name] for name in ch_names])
    else:
        standard = _standard_positions()
        found = np.array([standard.get(name.upper(), np.full(3, np.nan)) for name in ch_names])
    return found


def scalp_map(values: np.ndarray, ch_names: Sequence[str], limits: tuple[float, float]) -> Markup:
    """Draw one value per electrode on a head seen from above, nose up.

    Parameters
    ----------
    values : array, shape (n_chans,)
        What is coloured.
    ch_names : sequence of str
        The electrodes; those of unknown position are left out.
    limits : pair of float
        Values of the first and the last colour.

    Returns
    -------
    Markup
        An ``<svg>`` of dots below `FEW_CHANNELS` electrodes, else an ``<img>`` of an interpolated map.

    Raises
    ------
    NeuroCanvasError
        If the values do not fit the channels.
    """
    if np.shape(values) != (len(ch_names),):
        raise NeuroCanvasError(f"values: one per channel, {len(ch_names)}, is needed; got shape {np.shape(values)}.")
    positions = electrode_positions(ch_names)
    known = np.isfinite(positions).all(axis=1)
    names = [name for name, there in zip(ch_names, known, strict=True) if there]
    if len(names) < FEW_CHANNELS:
        return _dots(np.asarray(values)[known], names, positions[known], limits)
    return _interpolated(np.asarray(values)[known], positions[known], limits)


@cache
def _standard_positions() -> dict[str, np.ndarray]:
    """Positions of the 10-05 system by upper-case name; reading them takes a while."""
    import mne

    names = mne.channels.get_builtin_montages()
    system = "colin27_1005" if "colin27_1005" in names else "standard_1005"  # the name since MNE 1.13, and before
    montage = mne.channels.make_standard_montage(system, head_size=HEAD_RADIUS)
    return {name.upper(): place for name, place in montage.get_positions()["ch_pos"].items()}


def gradient() -> str:
    """Return the colours of the scalp maps, low to high, as a CSS gradient.

    Returns
    -------
    str
    """
    return f"linear-gradient(90deg, {', '.join(_colour(share) for share in np.linspace(0, 1, 9))})"


def _colour(share: float) -> str:
    """Colour at a share (0 to 1) of the colour map, as #rrggbb."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return to_hex(mpl.colormaps[COLOUR_MAP](float(np.clip(share, 0, 1))))


def _round_step(span: float) -> float:
    """The smallest of 1, 2, 2.5 or 5 times a power of ten that cuts `span` into five parts or fewer."""
    power = 10.0 ** np.floor(np.log10(span / 4))
    return float(next(s * power for s in (1.0, 2.0, 2.5, 5.0, 10.0) if s * power * 5 >= span * 0.999))


def _flatten(positions: np.ndarray) -> np.ndarray:
    """Positions seen from above with equal steps of angle: the lowest electrode or the equator lies at radius 1."""
    radius = np.maximum(np.linalg.norm(positions, axis=1), 1e-9)
    angle = np.arccos(np.clip(positions[:, 2] / radius, -1, 1)) / (np.pi / 2)
    direction = positions[:, :2] / np.maximum(np.linalg.norm(positions[:, :2], axis=1, keepdims=True), 1e-9)
    return (angle / max(float(angle.max(initial=1.0)), 1.0))[:, None] * direction


def _dots(values: np.ndarray, names: Sequence[str], positions: np.ndarray, limits: tuple[float, float]) -> Markup:
    """Electrodes as coloured dots with their names."""
    span = (limits[1] - limits[0]) or 1.0
    places = 100 + 70 * _flatten(positions) * [1, -1]
    dot = '<circle class="dot" cx="{0}" cy="{1}" r="13" fill="{2}"/>'
    label = '<text x="{0}" y="{3}" text-anchor="middle">{4}</text>'
    dots = [
        # The name stands on the side of the head's middle, clear of the outline.
        Markup(dot + label).format(
            f"{x:.1f}", f"{y:.1f}", _colour((value - limits[0]) / span), f"{y + (27 if y < 100 else -18):.1f}", name
        )
        for (x, y), value, name in zip(places, values, names, strict=True)
    ]
    head = '<path class="head" d="M88 14 100 2 112 14"/><circle class="head" cx="100" cy="100" r="87"/>'
    ears = '<path class="head" d="M13 82q-9 18 0 36M187 82q9 18 0 36"/>'
    return Markup('<svg class="scalp" viewBox="0 0 200 200" aria-hidden="true">{}{}</svg>').format(
        Markup(head + ears), Markup("").join(dots)
    )


def _interpolated(values: np.ndarray, positions: np.ndarray, limits: tuple[float, float]) -> Markup:
    """A smooth map as a transparent PNG with mid-grey outlines and no text."""
    import mne
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.0, 2.0), dpi=180)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    mne.viz.plot_topomap(
        values, 0.95 * _flatten(positions), sphere=(0.0, 0.0, 0.0, 1.0), extrapolate="head", axes=axes, show=False,
        sensors=False, contours=0, cmap=COLOUR_MAP, vlim=limits,
    )  # fmt: skip
    for line in axes.lines:
        line.set(color="#868c93", linewidth=1.4)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", transparent=True, metadata={"Software": None})
    return Markup('<img class="scalp" alt="" src="data:image/png;base64,{}">').format(
        base64.b64encode(stream.getvalue()).decode()
    )
