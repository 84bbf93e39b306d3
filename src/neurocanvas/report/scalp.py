"""Maps of one value per electrode on a head seen from above, as inline pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.montage import CH_NAMES, POSITIONS, standard_positions

# Matplotlib's name of the colours of the scalp maps: even steps of lightness, safe for colour-blind readers.
COLOUR_MAP = "viridis"

# Below this many electrodes nothing is interpolated between them: they are drawn as dots.
FEW_CHANNELS = 8


def electrode_positions(ch_names: Sequence[str]) -> np.ndarray:
    """Look up electrode positions; NaN where a name is unknown. All come from one montage."""
    known = dict(zip(CH_NAMES, POSITIONS, strict=True))
    if not known.keys() >= set(ch_names):
        known = standard_positions()
    return np.array([known.get(name.upper(), np.full(3, np.nan)) for name in ch_names])


def scalp_map(values: np.ndarray, ch_names: Sequence[str], limits: tuple[float, float]) -> Markup:
    """Draw one value per electrode on a head seen from above, nose up."""
    if np.shape(values) != (len(ch_names),):
        raise NeuroCanvasError(f"values: one per channel, {len(ch_names)}, is needed; got shape {np.shape(values)}.")
    positions = electrode_positions(ch_names)
    known = np.isfinite(positions).all(axis=1)
    names = [name for name, there in zip(ch_names, known, strict=True) if there]
    if len(names) < FEW_CHANNELS:
        return _dots(np.asarray(values)[known], names, positions[known], limits)
    return _interpolated(np.asarray(values)[known], positions[known], limits)


def gradient() -> str:
    """Return the colours of the scalp maps, low to high, as a CSS gradient."""
    return f"linear-gradient(90deg, {', '.join(_colour(share) for share in np.linspace(0, 1, 9))})"


def _colour(share: float) -> str:
    """Colour at a share (0 to 1) of the colour map, as #rrggbb."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return to_hex(mpl.colormaps[COLOUR_MAP](float(np.clip(share, 0, 1))))


def _flatten(positions: np.ndarray) -> np.ndarray:
    """Positions seen from above with equal steps of angle: the lowest electrode or the equator lies at radius 1."""
    radius = np.maximum(np.linalg.norm(positions, axis=1), 1e-9)
    angle = np.arccos(np.clip(positions[:, 2] / radius, -1, 1)) / (np.pi / 2)
    direction = positions[:, :2] / np.maximum(np.linalg.norm(positions[:, :2], axis=1, keepdims=True), 1e-9)
    flat: np.ndarray = (angle / max(float(angle.max(initial=1.0)), 1.0))[:, None] * direction
    return flat


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
