"""The drawn image world: 18 concepts and gratings that stand in for ImageNet photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neurocanvas.simulation import shapes
from neurocanvas.simulation.canvas import GROUNDS, Canvas, draw_ground


@dataclass(frozen=True)
class Concept:
    """One kind of object."""

    wnid: str
    name: str
    caption_name: str
    granularity: str
    colours: tuple[str, ...]  # body colours, keys of `PALETTE`, the most typical first
    draw: Callable[[Canvas, np.ndarray], None]


PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (206, 36, 40), "orange": (240, 132, 26), "yellow": (248, 212, 50), "green": (92, 168, 60),
    "turquoise": (48, 178, 172), "blue": (48, 96, 204), "purple": (128, 58, 156), "pink": (244, 146, 176),
    "brown": (132, 82, 44), "white": (246, 244, 238), "grey": (150, 152, 156), "black": (38, 38, 44),
}  # fmt: skip
SURFACES: tuple[str, ...] = tuple(GROUNDS)
SIZES, TILT, SHIFT = (0.75, 1.1), 0.45, 0.12
SMALL, LARGE = 0.83, 1.02  # a caption says "small" below the first and "large" above the second
LEAST_CONTRAST = 95.0  # RGB distance between background and body, so that every outline can be seen

_CONCEPTS = (
    Concept("n02690373", "airliner", "airliner", "coarse", ("white", "grey", "blue", "red"), shapes.draw_airliner),
    Concept("n03063599", "coffee mug", "coffee mug", "coarse", ("white", "red", "blue", "green"), shapes.draw_mug),
    Concept("n03590841", "jack-o'-lantern", "jack-o'-lantern",
            "coarse", ("orange", "yellow", "white"), shapes.draw_jack),
    Concept("n03775071", "mitten", "mitten", "coarse", ("red", "blue", "pink", "green"), shapes.draw_mitten),
    Concept("n03792972", "mountain tent", "mountain tent",
            "coarse", ("orange", "green", "blue", "yellow"), shapes.draw_tent),
    Concept("n03888257", "parachute", "parachute",
            "coarse", ("red", "blue", "orange", "purple"), shapes.draw_parachute),
    Concept("n07753592", "banana", "banana", "coarse", ("yellow", "green"), shapes.draw_banana),
    Concept("n07873807", "pizza", "pizza", "coarse", ("yellow", "red", "white"), shapes.draw_pizza),
    Concept("n11939491", "daisy", "daisy", "coarse", ("white", "pink", "purple"), shapes.draw_daisy),
    Concept("n13054560", "bolete", "bolete", "coarse", ("brown", "orange", "red"), shapes.draw_bolete),
    Concept("n07740461", "red delicious", "apple", "fine", ("red", "green", "yellow"), shapes.draw_apple),
    Concept("n07745940", "strawberry", "strawberry", "fine", ("red", "pink"), shapes.draw_strawberry),
    Concept("n07749192", "navel orange", "orange", "fine", ("orange", "yellow"), shapes.draw_orange),
    Concept("n07753275", "pineapple", "pineapple", "fine", ("yellow", "orange", "brown"), shapes.draw_pineapple),
    Concept("n07756951", "watermelon", "watermelon", "fine", ("red", "pink", "yellow"), shapes.draw_watermelon),
    Concept("n07758680", "grape", "bunch of grapes", "fine", ("purple", "green", "blue"), shapes.draw_grapes),
    Concept("n07772935", "coconut", "coconut", "fine", ("brown", "orange"), shapes.draw_coconut),
    Concept("n12144580", "corn", "ear of corn", "fine", ("yellow", "white"), shapes.draw_corn),
)  # fmt: skip
CONCEPTS: dict[str, Concept] = {concept.wnid: concept for concept in _CONCEPTS}

CODE_NAMES: tuple[str, ...] = (
    "colour_red", "colour_green", "colour_blue", "size", "sin_angle", "cos_angle", "x", "y", "light",
    "background_red", "background_green", "background_blue",
)  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """One exemplar of a concept: all parameters of its pixels."""

    wnid: str
    colour: str
    size: float
    angle: float  # radians, counter-clockwise
    x: float  # offset to the right, as a share of the image
    y: float  # offset downwards
    light: float  # -1 (from the upper left) to 1 (upper right)
    texture: int  # seed of proportions, spots and the surface's pattern
    background: str
    surface: str

    @property
    def caption(self) -> str:
        """In words: size if small or large, colour, concept, background and surface."""
        extent = "small " if self.size < SMALL else "large " if self.size > LARGE else ""
        thing = _with_article(f"{extent}{self.colour} {CONCEPTS[self.wnid].caption_name}")
        return f"{thing} on {_with_article(f'{self.background} {self.surface}')}"

    def code(self) -> np.ndarray:
        """Continuous parameters, (12,), in the order of `CODE_NAMES`; colours in 0..1."""
        body, ground = (np.array(PALETTE[name]) / 255 for name in (self.colour, self.background))
        return np.array([*body, self.size, np.sin(self.angle), np.cos(self.angle), self.x, self.y, self.light, *ground])


COARSE, FINE = 4.0, 10.0  # cycles per image of the two standard gratings
ORIENTATIONS = {0.0: "vertical", 45.0: "left-tilted", 90.0: "horizontal", 135.0: "right-tilted"}


@dataclass(frozen=True)
class Grating:
    """A sinusoidal grating behind a round soft-edged window on mid grey."""

    cycles: float  # per image width
    orientation: float  # degrees counter-clockwise from vertical bars; at 45 their tops lean left
    phase: float = 0.0  # radians, at the centre
    contrast: float = 1.0  # Michelson

    @property
    def caption(self) -> str:
        """In words: coarse (up to 6 cycles), medium or fine (from 8), and the nearest orientation."""
        width = "coarse" if self.cycles <= 6 else "fine" if self.cycles >= 8 else "medium"
        return f"a {width} {ORIENTATIONS[round(self.orientation / 45) % 4 * 45.0]} grating"


GRATINGS: dict[str, Grating] = {
    f"grating_{name}_{degrees:.0f}": Grating(cycles, degrees)
    for name, cycles in (("low", COARSE), ("high", FINE))
    for degrees in ORIENTATIONS
}


def sample_drawing(wnid: str, *, rng: np.random.Generator) -> Drawing:
    """Draw a random exemplar of a concept; its typical colour is as likely as the others together."""
    colours = CONCEPTS[wnid].colours
    colour = colours[0] if rng.random() < 0.5 else colours[rng.integers(1, len(colours))]
    backgrounds = [
        name for name, rgb in PALETTE.items() if np.linalg.norm(np.subtract(rgb, PALETTE[colour])) > LEAST_CONTRAST
    ]
    return Drawing(
        wnid, colour, float(rng.uniform(*SIZES)), float(rng.uniform(-TILT, TILT)), float(rng.uniform(-SHIFT, SHIFT)),
        float(rng.uniform(-SHIFT, SHIFT)), float(rng.uniform(-1, 1)), int(rng.integers(2**31)),
        backgrounds[rng.integers(len(backgrounds))], SURFACES[rng.integers(len(SURFACES))],
    )  # fmt: skip


def render(image: Drawing | Grating, size: int = 64) -> np.ndarray:
    """Pixels of an image, (size, size, 3), uint8, RGB; they depend on nothing else."""
    if isinstance(image, Grating):
        steps = (np.arange(size) + 0.5) / size - 0.5
        right, down, turn = steps[None, :], steps[:, None], np.deg2rad(image.orientation)
        wave = np.cos(2 * np.pi * image.cycles * (right * np.cos(turn) - down * np.sin(turn)) + image.phase)
        window = 1 / (1 + np.exp((np.hypot(right, down) - 0.42) / 0.015))
        shares = np.repeat((0.5 + 0.5 * image.contrast * window * wave)[..., None], 3, axis=2)
    else:
        rng = np.random.default_rng(image.texture)
        ground = draw_ground(image.surface, np.array(PALETTE[image.background]), size, rng=rng)
        canvas = Canvas(size, scale=image.size, angle=image.angle, x=image.x, y=image.y, light=image.light, rng=rng)
        body = np.clip(np.array(PALETTE[image.colour]) + rng.uniform(-10, 10, 3), 0, 255)
        CONCEPTS[image.wnid].draw(canvas, body)
        shares = canvas.over(ground, image.light)
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
