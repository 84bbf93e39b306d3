"""A function per concept of the drawn image world: it paints the object on a canvas, in the colour of its body."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from neurocanvas.simulation.canvas import Canvas, ellipse, leaf, polygon, smooth, stroke

# Colours, red, green, blue in 0..255, of the parts that do not take the body's colour.
GREEN, DARK_GREEN, CREAM, INK = (74, 150, 52), (38, 100, 40), (245, 232, 200), (38, 26, 22)
WHITE, GREY, BARK, GOLD = (250, 250, 246), (120, 124, 132), (104, 66, 36), (246, 200, 48)


def draw_apple(c: Canvas, body: np.ndarray) -> None:
    """Red delicious: broad shoulders, a dent, a stem and a leaf, a narrow lobed base."""
    shoulder = c.rng.uniform(0.8, 0.92)
    right = [(0.0, -0.42), (0.28, -0.6), (0.64, -0.56), (shoulder, -0.18), (0.76, 0.36), (0.5, 0.82), (0.24, 0.96)]
    cover = c.mask(smooth([*right, (0.0, 0.86)], mirror=True))
    c.paint(cover, body, c.round(0, 0.15, 1.0, 0.95, 0.55))
    c.paint(cover * np.exp(-((c.u / 0.34) ** 2 + ((c.v + 0.44) / 0.15) ** 2)) * 0.7, body * 0.4)
    dots = [ellipse(*c.rng.uniform((-0.6, -0.3), (0.6, 0.7)), 0.035) for _ in range(9)]
    c.paint(cover * c.mask(*dots) * 0.35, CREAM)
    c.paint(c.mask(stroke([(0, -0.4), (0.02, -0.66), (0.12, -0.95)], [0.1, 0.1, 0.14])), BARK)
    c.paint(c.mask(leaf(0.06, -0.68, 0.62, 0.32, c.rng.uniform(-0.45, -0.1))), GREEN, c.flat(0.3))


def draw_strawberry(c: Canvas, body: np.ndarray) -> None:
    """Strawberry: a heart-shaped cone with seeds and a green calyx."""
    point = c.rng.uniform(0.0, 0.1)
    right = [(0.0, -0.55), (0.45, -0.6), (0.8, -0.32), (0.7, 0.15), (0.38, 0.68), (0.1 + point, 0.95), (0.0, 0.98)]
    cover = c.mask(smooth(right, mirror=True))
    c.paint(cover, body, c.round(0, 0.0, 1.0, 1.1, 0.5))
    seeds = [
        ellipse(u + c.rng.uniform(-0.03, 0.03), v, 0.045, 0.075)
        for row, v in enumerate((-0.26, 0.0, 0.26, 0.52, 0.76))
        for u in (np.arange(-3, 4) + 0.5 * (row % 2)) * 0.3
        if abs(u) < 0.72 - 0.6 * max(v, 0)
    ]
    c.paint(c.mask(*seeds) * cover, (255, 226, 120))
    turns = np.linspace(0.05, np.pi - 0.05, 5)
    sepals = [leaf(0, -0.62, 0.62 if abs(t - 1.57) > 0.9 else 0.42, 0.26, t) for t in turns]
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
        [(0.38 + 0.07 * np.cos(t), 0.36 + 0.07 * np.sin(t)), *ellipse(0.38, 0.36, 0.47, None, 0, t - 0.3, t + 0.3)]
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
        crown = [leaf(0, -0.22, length + 0.12 * np.cos(t), 0.24, t - np.pi / 2) for t in turns]
        c.paint(c.mask(*crown), colour, c.flat(0.35))
    right = [(0.0, -0.34), (0.36, -0.28), (0.55, 0.0), (0.6, 0.36), (0.46, 0.8), (0.2, 0.98), (0.0, 1.0)]
    cover = c.mask(smooth(right, mirror=True))
    c.paint(cover, body, c.round(0, 0.34, 0.72, 0.82, 0.2))
    across = np.arcsin(np.clip(c.u / 0.7, -1, 1)) * 7.0
    along = c.v * 9.0 + c.rng.uniform(0, 3)
    lattice = np.maximum(1 - np.abs(np.sin((across + along) / 2)) * 2.6, 1 - np.abs(np.sin((across - along) / 2)) * 2.6)
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
    leaves = leaf(0.0, -0.66, 0.85, 0.5, -0.12), leaf(0.0, -0.66, 0.8, 0.46, np.pi + c.rng.uniform(-0.1, 0.3))
    c.paint(c.mask(*leaves), GREEN, c.flat(0.35))


def draw_coconut(c: Canvas, body: np.ndarray) -> None:
    """Whole coconut with three eyes behind a half shell with white flesh."""
    strands = c.rng.uniform(0, 2 * np.pi, 20)
    hair = [leaf(-0.28 + 0.58 * np.cos(t), -0.25 + 0.58 * np.sin(t), 0.22, 0.1, t + 0.4) for t in strands]
    c.paint(c.mask(*hair), body * 0.72)
    fibre = 0.08 * np.sin(c.u * 9 + 5 * c.v + 2 * np.sin(c.v * 7))
    c.paint(c.mask(ellipse(-0.28, -0.25, 0.68)), body, c.round(-0.28, -0.25, 0.7, 0.7, 0.0) + fibre)
    c.paint(c.mask(*[ellipse(-0.4 + u, -0.5 + v, 0.085) for u, v in ((-0.16, 0.0), (0.16, 0.0), (0.0, 0.24))]), INK)
    c.paint(c.mask(ellipse(0.3, 0.38, 0.68, 0.6, -0.3)), body * 0.7, c.round(0.3, 0.38, 0.8, 0.7, 0.0) + fibre)
    c.paint(c.mask(ellipse(0.3, 0.34, 0.6, 0.5, -0.3)), WHITE)
    hollow = c.mask(ellipse(0.32, 0.38, 0.38, 0.3, -0.3))
    c.paint(hollow, (216, 212, 204), 1.1 - 0.3 * c.round(0.32, 0.38, 0.4, 0.3, 0.0))


def draw_corn(c: Canvas, body: np.ndarray) -> None:
    """Ear of corn: a cob with rows of kernels in a green husk."""
    cob = c.mask(smooth([(0.0, -1.0), (0.2, -0.92), (0.36, -0.55), (0.4, 0.1), (0.34, 0.75), (0.0, 0.9)], mirror=True))
    across = np.arcsin(np.clip(c.u / 0.46, -1, 1)) * 5.6
    kernels = np.abs(np.sin(across / 2 + np.pi / 2)) ** 0.5 * np.abs(np.sin(c.v * 10 + c.rng.uniform(0, 3))) ** 0.4
    c.paint(cob, body, c.round(0, 0, 0.5, 2.0, 0.25) * (0.55 + 0.5 * kernels))
    open_by = c.rng.uniform(0.0, 0.12)
    for s, colour in ((-1, DARK_GREEN), (1, GREEN)):
        husk = smooth([
            (0.0, 1.0), (s * 0.34, 0.86), (s * (0.6 + open_by), 0.4), (s * (0.82 + open_by), -0.36), (s * 0.5, 0.0),
            (s * 0.26, 0.3), (s * 0.04, 0.66),
        ])  # fmt: skip
        c.paint(c.mask(husk), colour, c.flat(0.4) + 0.08 * np.sin(c.u * 22))
    c.paint(c.mask(leaf(0, 1.02, 0.9, 0.4, -np.pi / 2)), (112, 176, 66), c.flat(0.3) + 0.06 * np.sin(c.u * 26))


def draw_airliner(c: Canvas, body: np.ndarray) -> None:
    """Airliner seen from above: fuselage, swept wings, tail and engines."""
    sweep = c.rng.uniform(0.3, 0.5)
    wings = [polygon((0, -0.28), (s * 1.0, sweep), (s * 1.0, sweep + 0.17), (0, 0.24)) for s in (-1, 1)]
    tail = [polygon((0, 0.6), (s * 0.42, 0.86), (s * 0.42, 0.98), (0, 0.88)) for s in (-1, 1)]
    engines = [ellipse(s * 0.46, sweep * 0.46 - 0.12, 0.085, 0.17) for s in (-1, 1)]
    c.paint(c.mask(*engines), GREY, c.flat())
    c.paint(c.mask(*wings, *tail), body * 0.8, c.flat(0.3))
    hull = smooth([(0, -1.0), (0.1, -0.9), (0.16, -0.65), (0.16, 0.4), (0.05, 1.0)], mirror=True)
    c.paint(c.mask(hull), body, c.round(0, 0, 0.2, 3.0, 0.2))
    c.paint(c.mask(polygon((-0.12, -0.74), (-0.07, -0.86), (0.07, -0.86), (0.12, -0.74))), INK)
    c.paint(c.mask(stroke([(0, 0.62), (0, 1.02)], 0.07)), body * 0.45)


def draw_mug(c: Canvas, body: np.ndarray) -> None:
    """Coffee mug with a handle, coffee at the rim and, at times, a band."""
    handle = c.rng.uniform(0.3, 0.38)
    turn = np.linspace(-1.75, 1.75, 17)
    ring = np.stack([0.5 + (handle + 0.08) * np.cos(turn), 0.12 + 0.38 * np.sin(turn)], 1)
    c.paint(c.mask(stroke(ring, 0.17)), body * 0.85, c.flat(0.3))
    cup = np.concatenate([polygon((-0.72, -0.62), (0.52, -0.62)), ellipse(-0.1, 0.72, 0.55, 0.2, 0.0, 0.0, np.pi)])
    side = c.mask(cup)
    c.paint(side, body, c.round(-0.1, 0, 0.68, 9.0, 0.25))
    if c.rng.random() < 0.5:
        band = np.exp(-(((c.v - 0.2) / 0.16) ** 6))
        c.paint(side * band, 255 - 0.75 * body if body.mean() > 190 else WHITE, c.round(-0.1, 0, 0.68, 9.0, 0.25))
    c.paint(c.mask(ellipse(-0.1, -0.62, 0.63, 0.22)), body, 1.25)
    c.paint(c.mask(ellipse(-0.1, -0.6, 0.53, 0.155)), (84, 48, 24), c.flat(0.2))


def draw_jack(c: Canvas, body: np.ndarray) -> None:
    """Jack-o'-lantern: a pumpkin with ribs, stem and a carved glowing face."""
    c.paint(c.mask(stroke([(0.0, -0.5), (0.02, -0.75), (0.14, -0.98)], [0.3, 0.2, 0.22])), DARK_GREEN, c.flat(0.3))
    ribs = [ellipse(u, 0.12, 0.36, r) for u, r in ((-0.62, 0.66), (0.62, 0.66), (-0.34, 0.74), (0.34, 0.74), (0, 0.76))]
    groove = 0.86 + 0.14 * np.abs(np.cos(np.pi * c.u / 0.62 * (1 - 0.1 * np.abs(c.v))))
    c.paint(c.mask(*ribs), body, c.round(0, 0.12, 1.05, 0.85, 0.2) * groove)
    lift = c.rng.uniform(-0.06, 0.06)
    eyes = [polygon((s * 0.16, -0.02), (s * 0.58, -0.02 + lift), (s * 0.38, -0.36 + lift)) for s in (-1, 1)]
    nose = polygon((-0.1, 0.2), (0.1, 0.2), (0, 0.04))
    grin = polygon(
        (-0.66, 0.26), (-0.4, 0.4), (-0.3, 0.28), (-0.16, 0.46), (0.16, 0.46), (0.3, 0.28), (0.4, 0.4), (0.66, 0.26),
        (0.44, 0.62), (0.2, 0.72), (0.1, 0.58), (-0.1, 0.58), (-0.2, 0.72), (-0.44, 0.62),
    )  # fmt: skip
    face = c.mask(*eyes, nose, grin)
    c.paint(face, INK)
    c.paint(face * np.exp(-((c.u / 0.5) ** 2 + ((c.v - 0.4) / 0.4) ** 2)) * 0.75, (255, 196, 40))


def draw_mitten(c: Canvas, body: np.ndarray) -> None:
    """Mitten with a thumb, a ribbed cuff and a knitted zigzag."""
    hand = smooth([
        (0.1, -1.0), (0.46, -0.86), (0.58, -0.4), (0.54, 0.2), (0.44, 0.56), (-0.4, 0.56), (-0.44, 0.4), (-0.78, 0.06),
        (-0.95, -0.26), (-0.8, -0.46), (-0.58, -0.34), (-0.4, -0.08), (-0.4, -0.5), (-0.26, -0.88),
    ])  # fmt: skip
    cover = c.mask(hand)
    c.paint(cover, body, c.round(0.05, -0.2, 0.95, 1.3, 0.1))
    rows = 0.11 * np.abs((c.u * 2.6 + c.rng.uniform()) % 1 - 0.5) * 4
    zigzag = np.exp(-(((c.v + 0.3 + c.rng.uniform(-0.1, 0.1) - rows) / 0.1) ** 4)) * (c.u > -0.42)
    c.paint(cover * zigzag, WHITE, c.flat())
    cuff = c.mask(smooth([
        (-0.5, 0.52), (0.0, 0.5), (0.54, 0.52), (0.56, 0.75), (0.54, 0.98), (0.0, 1.0), (-0.5, 0.98), (-0.52, 0.75),
    ]))  # fmt: skip
    c.paint(cuff, 0.45 * body + 0.55 * np.array(WHITE), (0.82 + 0.16 * np.cos(c.u * 30)) * c.round(0, 0.7, 0.9, 2.0, 0))


def draw_tent(c: Canvas, body: np.ndarray) -> None:
    """Mountain tent: a ridge tent seen from a front corner, with an open door and guy ropes."""
    lean, back = c.rng.uniform(-0.08, 0.08), c.rng.uniform(0.42, 0.6)
    top, near, far, corner = (-0.3 + lean, -0.74), (-0.92, 0.72), (0.34, 0.8), (0.98, 0.42)
    ropes = [stroke([top, (-0.95, 0.1)], 0.05), stroke([(back, -0.62), (1.05, -0.1)], 0.05)]
    c.paint(c.mask(*ropes), CREAM)
    c.paint(c.mask(polygon(top, (back, -0.6), corner, far)), body * 0.68, c.flat(0.3))
    c.paint(c.mask(polygon(top, far, near)), body, c.flat(0.2))
    c.paint(c.mask(polygon((top[0], -0.36), (-0.02, 0.775), (-0.6, 0.74))), INK)
    c.paint(c.mask(polygon((top[0], -0.36), (-0.6, 0.74), (-0.78, 0.73), (-0.6, 0.2))), body, 1.45)
    c.paint(c.mask(stroke([top, far], 0.05)), body * 0.5)


def draw_parachute(c: Canvas, body: np.ndarray) -> None:
    """Round parachute: gores in two colours, scalloped hem, lines and a small jumper."""
    gores = int(c.rng.integers(5, 8))
    hems = np.linspace(-1, 1, gores + 1)
    bow = [ellipse((a + b) / 2, -0.1, (b - a) / 2, 0.13) for a, b in pairwise(hems)]
    lines = [stroke([(u, -0.1), (0, 0.66)], 0.045) for u in (-0.97, -0.5, 0.0, 0.5, 0.97)]
    c.paint(c.mask(*lines), CREAM)
    dome = c.mask(ellipse(0, -0.1, 1.0, 0.88, 0.0, np.pi, 2 * np.pi)) * (1 - c.mask(*bow))
    c.paint(dome, body, c.round(0, -0.1, 1.1, 1.0, 0.2))
    # Seams of a dome seen from the side are half ellipses that share the crown.
    panels = [
        [*ellipse(0, -0.1, b, 0.88, 0, 1.5 * np.pi, 2 * np.pi), *ellipse(0, -0.1, a, 0.88, 0, 2 * np.pi, 1.5 * np.pi)]
        for a, b in zip(hems[1::2], hems[2::2])
    ]
    c.paint(dome * c.mask(*panels), WHITE, c.round(0, -0.1, 1.1, 1.0, 0.1))
    c.paint(c.mask(ellipse(0, 0.62, 0.1), stroke([(0, 0.7), (0, 0.98)], 0.2)), INK)


def draw_banana(c: Canvas, body: np.ndarray) -> None:
    """Banana: a crescent with a ridge, dark tips and a few spots."""
    bend = c.rng.uniform(0.9, 1.1)
    turn = np.linspace(0.42, np.pi - 0.3, 25)
    path = np.stack([1.08 * np.cos(turn), -0.72 + 1.2 * bend * np.sin(turn)], 1)
    width = 0.5 * np.sin(np.linspace(0.16, np.pi - 0.2, 25)) ** 0.62
    stem = stroke([path[-1] + (0.03, 0.02), path[-1] + (-0.02, -0.16), path[-1] + (0.02, -0.32)], [0.2, 0.15, 0.18])
    c.paint(c.mask(stem), body * 0.72 + np.array([0, 8, 0]))
    fruit = c.mask(stroke(path, width))
    depth = np.hypot(c.u / 1.08, (c.v + 0.72) / (1.2 * bend))
    c.paint(fruit, body, c.round(0, -0.35, 1.3, 1.25, 0.0) + 0.22 * np.exp(-(((depth - 0.94) / 0.07) ** 2)))
    c.paint(fruit * np.exp(-(((depth - 1.06) / 0.03) ** 2)) * 0.7, body * 0.68)
    spots = [
        ellipse(*path[i] + c.rng.uniform(-0.08, 0.08, 2), 0.07, 0.04, c.rng.uniform(0, 3))
        for i in c.rng.integers(5, 20, c.rng.integers(0, 6))
    ]
    c.paint(fruit * c.mask(*spots) * 0.8, BARK)
    c.paint(c.mask(ellipse(*path[0], 0.1), ellipse(*path[-1] + (0.02, -0.34), 0.09, 0.06)), (70, 50, 26))


def draw_pizza(c: Canvas, body: np.ndarray) -> None:
    """Pizza from above with a crust, toppings and one slice taken."""
    start = c.rng.uniform(0, 2 * np.pi)
    wedge = 1 - c.mask(np.concatenate([polygon((0, 0)), ellipse(0, 0, 1.6, None, 0, start, start + 0.72)]))
    c.paint(c.mask(ellipse(0, 0, 1.0)) * wedge, (188, 122, 58), c.round(0, 0, 1.5, 1.5, 0.0) * 1.05)
    c.paint(c.mask(ellipse(0, 0, 0.83)) * wedge, body, c.flat(0.12))
    places = start + 0.72 + (np.arange(7) + 0.6) / 7 * (2 * np.pi - 0.72)
    reach = np.where(np.arange(7) % 2, 0.36, 0.6) + c.rng.uniform(-0.04, 0.04, 7)
    slices = [ellipse(r * np.cos(t), r * np.sin(t), 0.17) for r, t in zip(reach, places)]
    sausage = (146, 26, 26) if body[1] > 100 else (255, 240, 200)
    c.paint(c.mask(*slices) * wedge, sausage, c.flat(0.2))
    herbs = [
        leaf(0.62 * np.cos(t), 0.62 * np.sin(t), 0.2, 0.13, c.rng.uniform(0, 6))
        for t in places[1::2] + c.rng.uniform(-0.1, 0.1)
    ]
    c.paint(c.mask(*herbs) * wedge, DARK_GREEN)
    turns = start + 0.72 + np.arange(1, 7) * (2 * np.pi - 0.72) / 7
    cuts = [stroke([(0, 0), (np.cos(t), np.sin(t))], 0.04) for t in turns]
    c.paint(c.mask(*cuts) * wedge * 0.6, (120, 70, 30))


def draw_daisy(c: Canvas, body: np.ndarray) -> None:
    """Daisy: two rings of petals round a yellow disc, on a stem."""
    stem = stroke([(0, -0.2), (0.06, 0.4), (0, 1.05)], 0.11)
    c.paint(c.mask(stem, leaf(0.04, 0.8, 0.6, 0.26, -0.6)), GREEN, c.flat(0.3))
    count = int(c.rng.integers(7, 10))
    for ring, shade in ((0.5, 0.84), (0.0, 1.0)):
        turns = (np.arange(count) + ring) * 2 * np.pi / count
        petals = [ellipse(0.5 * np.cos(t), -0.25 + 0.5 * np.sin(t), 0.35, 0.155, t) for t in turns]
        c.paint(c.mask(*petals), body, c.flat() * shade)
    c.paint(c.mask(ellipse(0, -0.25, 0.27)), GOLD, c.round(0, -0.25, 0.32, 0.32, 0.1))


def draw_bolete(c: Canvas, body: np.ndarray) -> None:
    """Bolete: a thick domed cap with a yellow pore layer on a bulbous pale stem."""
    belly = c.rng.uniform(0.34, 0.46)
    stem = smooth([(0.0, -0.1), (0.24, -0.1), (0.28, 0.3), (belly, 0.68), (0.28, 0.96), (0.0, 1.0)], mirror=True)
    c.paint(c.mask(stem), CREAM, c.round(0, 0.4, 0.5, 1.6, 0.0))
    c.paint(c.mask(ellipse(0, -0.1, 0.86, 0.2)), (206, 180, 92), c.flat(0.1) * 0.9)
    cap = smooth(
        [(0.0, -0.9), (0.5, -0.8), (0.86, -0.46), (0.96, -0.12), (0.8, -0.04), (0.4, -0.1), (0.0, -0.13)], mirror=True
    )
    c.paint(c.mask(cap), body, c.round(0, -0.1, 1.05, 0.9, 0.45))
