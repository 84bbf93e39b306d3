"""How the eight fruits of the drawn picture world are drawn; see `neurocanvas.datasets.shapes`."""

from __future__ import annotations

import numpy as np

from neurocanvas.datasets.drawing import (
    BARK,
    CREAM,
    DARK_GREEN,
    GREEN,
    INK,
    WHITE,
    Canvas,
    ellipse,
    leaf,
    polygon,
    smooth,
    stroke,
)


def draw_apple(c: Canvas, body: np.ndarray) -> None:
    """Red delicious: broad shoulders, a dent, a stem and a leaf, a narrow lobed base."""
    shoulder = c.rng.uniform(0.8, 0.92)
    fruit = smooth(
        [
            (0.0, -0.42),
            (0.28, -0.6),
            (0.64, -0.56),
            (shoulder, -0.18),
            (0.76, 0.36),
            (0.5, 0.82),
            (0.24, 0.96),
            (0.0, 0.86),
        ],
        mirror=True,
    )
    cover = c.mask(fruit)
    c.paint(cover, body, c.round(0, 0.15, 1.0, 0.95, 0.55))
    c.paint(cover * np.exp(-((c.u / 0.34) ** 2 + ((c.v + 0.44) / 0.15) ** 2)) * 0.7, body * 0.4)
    dots = [ellipse(*c.rng.uniform((-0.6, -0.3), (0.6, 0.7)), 0.035) for _ in range(9)]
    c.paint(cover * c.mask(*dots) * 0.35, CREAM)
    c.paint(c.mask(stroke([(0, -0.4), (0.02, -0.66), (0.12, -0.95)], [0.1, 0.1, 0.14])), BARK)
    c.paint(c.mask(leaf(0.06, -0.68, 0.62, 0.32, c.rng.uniform(-0.45, -0.1))), GREEN, c.flat(0.3))


def draw_strawberry(c: Canvas, body: np.ndarray) -> None:
    """Strawberry: a heart-shaped cone with seeds and a green calyx."""
    point = c.rng.uniform(0.0, 0.1)
    fruit = smooth(
        [
            (0.0, -0.55),
            (0.45, -0.6),
            (0.8, -0.32),
            (0.7, 0.15),
            (0.38, 0.68),
            (0.1 + point, 0.95),
            (0.0, 0.98),
        ],
        mirror=True,
    )
    cover = c.mask(fruit)
    c.paint(cover, body, c.round(0, 0.0, 1.0, 1.1, 0.5))
    seeds = [
        ellipse(u + c.rng.uniform(-0.03, 0.03), v, 0.045, 0.075)
        for row, v in enumerate((-0.26, 0.0, 0.26, 0.52, 0.76))
        for u in (np.arange(-3, 4) + 0.5 * (row % 2)) * 0.3
        if abs(u) < 0.72 - 0.6 * max(v, 0)
    ]
    c.paint(c.mask(*seeds) * cover, (255, 226, 120))
    sepals = [
        leaf(0, -0.62, 0.62 if abs(t - 1.57) > 0.9 else 0.42, 0.26, t)
        for t in np.linspace(0.05, np.pi - 0.05, 5)
    ]
    c.paint(c.mask(*sepals, stroke([(0, -0.55), (0.02, -0.8), (0.1, -1.0)], 0.12)), GREEN, c.flat(0.3))


def draw_orange(c: Canvas, body: np.ndarray) -> None:
    """Navel orange with dimples, a navel and a leaf; a cut half in front shows its segments."""
    c.paint(c.mask(leaf(-0.3, -0.82, 0.66, 0.32, c.rng.uniform(-0.2, 0.2))), GREEN, c.flat(0.3))
    peel = c.mask(ellipse(-0.28, -0.22, 0.7))
    c.paint(peel, body, c.round(-0.28, -0.22, 0.72, 0.72, 0.5) + 0.05 * np.sin(c.u * 19) * np.sin(c.v * 19))
    c.paint(c.mask(ellipse(-0.36, -0.8, 0.1, 0.06)), DARK_GREEN)
    turn = c.rng.uniform(0, 1)
    c.paint(c.mask(ellipse(0.38, 0.36, 0.6)), body, 0.86)
    c.paint(c.mask(ellipse(0.38, 0.36, 0.53)), (255, 238, 200))
    segments = [
        np.concatenate(
            [
                polygon((0.38 + 0.07 * np.cos(t), 0.36 + 0.07 * np.sin(t))),
                ellipse(0.38, 0.36, 0.47, None, 0, t - 0.3, t + 0.3),
            ]
        )
        for t in turn + np.arange(8) * np.pi / 4
    ]
    c.paint(c.mask(*segments), (248, 150, 40), c.flat(0.2) * 1.03)


def draw_pineapple(c: Canvas, body: np.ndarray) -> None:
    """Pineapple: an oval with a lattice of eyes under a crown of leaves."""
    spread = c.rng.uniform(0.45, 0.6)
    for turns, length, colour in (
        (np.linspace(-2, 2, 5) * spread, 0.62, DARK_GREEN),
        (np.linspace(-1.5, 1.5, 4) * spread * 0.8, 0.72, GREEN),
    ):
        c.paint(
            c.mask(*[leaf(0, -0.22, length + 0.12 * np.cos(t), 0.24, t - np.pi / 2) for t in turns]),
            colour,
            c.flat(0.35),
        )
    cover = c.mask(
        smooth(
            [(0.0, -0.34), (0.36, -0.28), (0.55, 0.0), (0.6, 0.36), (0.46, 0.8), (0.2, 0.98), (0.0, 1.0)],
            mirror=True,
        )
    )
    c.paint(cover, body, c.round(0, 0.34, 0.72, 0.82, 0.2))
    across = np.arcsin(np.clip(c.u / 0.7, -1, 1)) * 7.0
    along = c.v * 9.0 + c.rng.uniform(0, 3)
    lattice = np.maximum(
        1 - np.abs(np.sin((across + along) / 2)) * 2.6, 1 - np.abs(np.sin((across - along) / 2)) * 2.6
    )
    c.paint(cover * np.clip(lattice, 0, 1) * 0.85, body * 0.35 + np.array([16, 8, 0]))


def draw_watermelon(c: Canvas, body: np.ndarray) -> None:
    """Half-round slice of watermelon: green rind, pale band, coloured flesh, black seeds."""
    for radius, colour in ((1.0, (34, 110, 48)), (0.88, (214, 236, 180)), (0.79, body)):
        c.paint(c.mask(ellipse(0, -0.45, radius, radius * 1.12, 0.0, 0.0, np.pi)), colour, c.flat(0.16))
    seeds = [
        leaf(r * np.cos(t) * 0.98, -0.5 + r * np.sin(t), 0.17, 0.12, t)
        for r, turns in ((0.26, np.array([0.75, 2.4])), (0.54, np.linspace(0.35, 2.8, 5)))
        for t in turns + c.rng.uniform(-0.1, 0.1)
    ]
    c.paint(c.mask(*seeds), INK)


def draw_grapes(c: Canvas, body: np.ndarray) -> None:
    """Bunch of grapes: rows of balls that narrow downwards, a stem and a leaf."""
    c.paint(c.mask(stroke([(0, -0.4), (0.0, -0.75), (0.1, -1.0)], 0.12)), BARK)
    rows = [(np.arange(n) - (n - 1) / 2) * 0.42 for n in (3, 4, 3, 4, 3, 2, 1)]
    centres = np.array([(u, v) for us, v in zip(rows, np.linspace(-0.46, 0.84, 7)) for u in us])
    centres = centres + c.rng.uniform(-0.05, 0.05, centres.shape)
    shade = c.balls(centres, 0.26)
    c.paint(c.mask(*[ellipse(u, v, 0.25) for u, v in centres]), body, shade * 0.95)
    c.paint(
        c.mask(
            leaf(0.0, -0.66, 0.85, 0.5, -0.12), leaf(0.0, -0.66, 0.8, 0.46, np.pi + c.rng.uniform(-0.1, 0.3))
        ),
        GREEN,
        c.flat(0.35),
    )


def draw_coconut(c: Canvas, body: np.ndarray) -> None:
    """Whole coconut with three eyes behind a half shell with white flesh."""
    strands = c.rng.uniform(0, 2 * np.pi, 20)
    hair = [leaf(-0.28 + 0.58 * np.cos(t), -0.25 + 0.58 * np.sin(t), 0.22, 0.1, t + 0.4) for t in strands]
    c.paint(c.mask(*hair), body * 0.72)
    fibre = 0.08 * np.sin(c.u * 9 + 5 * c.v + 2 * np.sin(c.v * 7))
    c.paint(c.mask(ellipse(-0.28, -0.25, 0.68)), body, c.round(-0.28, -0.25, 0.7, 0.7, 0.0) + fibre)
    c.paint(
        c.mask(*[ellipse(-0.4 + u, -0.5 + v, 0.085) for u, v in ((-0.16, 0.0), (0.16, 0.0), (0.0, 0.24))]),
        INK,
    )
    c.paint(
        c.mask(ellipse(0.3, 0.38, 0.68, 0.6, -0.3)), body * 0.7, c.round(0.3, 0.38, 0.8, 0.7, 0.0) + fibre
    )
    c.paint(c.mask(ellipse(0.3, 0.34, 0.6, 0.5, -0.3)), WHITE)
    c.paint(
        c.mask(ellipse(0.32, 0.38, 0.38, 0.3, -0.3)),
        (216, 212, 204),
        1.1 - 0.3 * c.round(0.32, 0.38, 0.4, 0.3, 0.0),
    )


def draw_corn(c: Canvas, body: np.ndarray) -> None:
    """Ear of corn: a cob with rows of kernels in a green husk."""
    cob = c.mask(
        smooth([(0.0, -1.0), (0.2, -0.92), (0.36, -0.55), (0.4, 0.1), (0.34, 0.75), (0.0, 0.9)], mirror=True)
    )
    across = np.arcsin(np.clip(c.u / 0.46, -1, 1)) * 5.6
    kernels = (
        np.abs(np.sin(across / 2 + np.pi / 2)) ** 0.5 * np.abs(np.sin(c.v * 10 + c.rng.uniform(0, 3))) ** 0.4
    )
    c.paint(cob, body, c.round(0, 0, 0.5, 2.0, 0.25) * (0.55 + 0.5 * kernels))
    open_by = c.rng.uniform(0.0, 0.12)
    for s, colour in ((-1, DARK_GREEN), (1, GREEN)):
        husk = smooth(
            [
                (0.0, 1.0),
                (s * 0.34, 0.86),
                (s * (0.6 + open_by), 0.4),
                (s * (0.82 + open_by), -0.36),
                (s * 0.5, 0.0),
                (s * 0.26, 0.3),
                (s * 0.04, 0.66),
            ]
        )
        c.paint(c.mask(husk), colour, c.flat(0.4) + 0.08 * np.sin(c.u * 22))
    c.paint(
        c.mask(leaf(0, 1.02, 0.9, 0.4, -np.pi / 2)), (112, 176, 66), c.flat(0.3) + 0.06 * np.sin(c.u * 26)
    )
