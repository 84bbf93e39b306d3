"""The drawn image world: 18 concepts and gratings that stand in for ImageNet photographs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neurocanvas.errors import check_option
from neurocanvas.simulation.canvas import GROUNDS, Canvas, draw_ground
from neurocanvas.simulation.shapes import SHAPES


@dataclass(frozen=True)
class Concept:
    """One kind of thing that is drawn."""

    wnid: str
    name: str
    caption_name: str
    granularity: str
    colours: tuple[str, ...]  # body colours, keys of `PALETTE`, the most typical first


PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (206, 36, 40),
    "orange": (240, 132, 26),
    "yellow": (248, 212, 50),
    "green": (92, 168, 60),
    "turquoise": (48, 178, 172),
    "blue": (48, 96, 204),
    "purple": (128, 58, 156),
    "pink": (244, 146, 176),
    "brown": (132, 82, 44),
    "white": (246, 244, 238),
    "grey": (150, 152, 156),
    "black": (38, 38, 44),
}
SURFACES: tuple[str, ...] = tuple(GROUNDS)
SIZES, TILT, SHIFT = (0.75, 1.1), 0.45, 0.12
SMALL, LARGE = 0.83, 1.02  # a caption says "small" below the first and "large" above the second
LEAST_CONTRAST = 95.0  # RGB distance between background and body, so that every outline can be seen

CONCEPTS: dict[str, Concept] = {
    "n02690373": Concept("n02690373", "airliner", "airliner", "coarse", ("white", "grey", "blue", "red")),
    "n03063599": Concept("n03063599", "coffee mug", "coffee mug", "coarse", ("white", "red", "blue", "green")),
    "n03590841": Concept("n03590841", "jack-o'-lantern", "jack-o'-lantern", "coarse", ("orange", "yellow", "white")),
    "n03775071": Concept("n03775071", "mitten", "mitten", "coarse", ("red", "blue", "pink", "green")),
    "n03792972": Concept(
        "n03792972", "mountain tent", "mountain tent", "coarse", ("orange", "green", "blue", "yellow")
    ),
    "n03888257": Concept("n03888257", "parachute", "parachute", "coarse", ("red", "blue", "orange", "purple")),
    "n07753592": Concept("n07753592", "banana", "banana", "coarse", ("yellow", "green")),
    "n07873807": Concept("n07873807", "pizza", "pizza", "coarse", ("yellow", "red", "white")),
    "n11939491": Concept("n11939491", "daisy", "daisy", "coarse", ("white", "pink", "purple")),
    "n13054560": Concept("n13054560", "bolete", "bolete", "coarse", ("brown", "orange", "red")),
    "n07740461": Concept("n07740461", "red delicious", "apple", "fine", ("red", "green", "yellow")),
    "n07745940": Concept("n07745940", "strawberry", "strawberry", "fine", ("red", "pink")),
    "n07749192": Concept("n07749192", "navel orange", "orange", "fine", ("orange", "yellow")),
    "n07753275": Concept("n07753275", "pineapple", "pineapple", "fine", ("yellow", "orange", "brown")),
    "n07756951": Concept("n07756951", "watermelon", "watermelon", "fine", ("red", "pink", "yellow")),
    "n07758680": Concept("n07758680", "grape", "bunch of grapes", "fine", ("purple", "green", "blue")),
    "n07772935": Concept("n07772935", "coconut", "coconut", "fine", ("brown", "orange")),
    "n12144580": Concept("n12144580", "corn", "ear of corn", "fine", ("yellow", "white")),
}

CODE_NAMES: tuple[str, ...] = (
    "colour_red", "colour_green", "colour_blue", "size", "sin_angle", "cos_angle", "x", "y", "light",
    "background_red", "background_green", "background_blue",
)  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """One drawn exemplar: everything that decides its pixels."""

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

    def __post_init__(self) -> None:
        check_option("wnid", self.wnid, CONCEPTS)
        check_option("colour", self.colour, PALETTE)
        check_option("background", self.background, PALETTE)
        check_option("surface", self.surface, SURFACES)

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
    "grating_low_0": Grating(COARSE, 0.0),
    "grating_low_45": Grating(COARSE, 45.0),
    "grating_low_90": Grating(COARSE, 90.0),
    "grating_low_135": Grating(COARSE, 135.0),
    "grating_high_0": Grating(FINE, 0.0),
    "grating_high_45": Grating(FINE, 45.0),
    "grating_high_90": Grating(FINE, 90.0),
    "grating_high_135": Grating(FINE, 135.0),
}


def sample_drawing(wnid: str, *, rng: np.random.Generator) -> Drawing:
    """Draw a random exemplar of a concept; its typical colour is as likely as the others together."""
    colours = CONCEPTS[check_option("wnid", wnid, CONCEPTS)].colours
    colour = colours[0] if rng.random() < 0.5 else colours[rng.integers(1, len(colours))]
    backgrounds = [
        name for name, rgb in PALETTE.items() if np.linalg.norm(np.subtract(rgb, PALETTE[colour])) > LEAST_CONTRAST
    ]
    return Drawing(
        wnid=wnid,
        colour=colour,
        size=float(rng.uniform(*SIZES)),
        angle=float(rng.uniform(-TILT, TILT)),
        x=float(rng.uniform(-SHIFT, SHIFT)),
        y=float(rng.uniform(-SHIFT, SHIFT)),
        light=float(rng.uniform(-1, 1)),
        texture=int(rng.integers(2**31)),
        background=backgrounds[rng.integers(len(backgrounds))],
        surface=SURFACES[rng.integers(len(SURFACES))],
    )


def render(picture: Drawing | Grating, size: int = 64) -> np.ndarray:
    """Draw an image: (size, size, 3), uint8, RGB; the same image always gives the same pixels."""
    shares = _render_grating(picture, size) if isinstance(picture, Grating) else _render_drawing(picture, size)
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def _render_drawing(drawing: Drawing, size: int) -> np.ndarray:
    rng = np.random.default_rng(drawing.texture)
    ground = draw_ground(drawing.surface, np.array(PALETTE[drawing.background]), size, rng=rng)
    canvas = Canvas(
        size, scale=drawing.size, angle=drawing.angle, x=drawing.x, y=drawing.y, light=drawing.light, rng=rng
    )
    SHAPES[drawing.wnid](canvas, np.clip(np.array(PALETTE[drawing.colour]) + rng.uniform(-10, 10, 3), 0, 255))
    return canvas.over(ground, drawing.light)


def _render_grating(grating: Grating, size: int) -> np.ndarray:
    steps = (np.arange(size) + 0.5) / size - 0.5
    right, down = steps[None, :], steps[:, None]
    turn = np.deg2rad(grating.orientation)
    wave = np.cos(2 * np.pi * grating.cycles * (right * np.cos(turn) - down * np.sin(turn)) + grating.phase)
    window = 1 / (1 + np.exp((np.hypot(right, down) - 0.42) / 0.015))
    return np.repeat((0.5 + 0.5 * grating.contrast * window * wave)[..., None], 3, axis=2)


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
