"""Canvas, outlines and grounds of the drawn image world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

SPAN = 0.4  # half width of an object of size 1, as a share of the image's width
SUPERSAMPLING = 4
_ARC = np.linspace(0, 1, 33)
_HALF_LEAF = np.stack([_ARC[::4], 0.5 * np.sin(np.pi * _ARC[::4] ** 0.8)], 1)
_LEAF = np.concatenate([_HALF_LEAF, _HALF_LEAF[::-1] * (1, -1)])


class Canvas:
    """A transparent layer for one object, in the coordinates of the object."""

    def __init__(
        self, size: int, *, scale: float, angle: float, x: float, y: float, light: float, rng: np.random.Generator
    ) -> None:
        self.size, self.rng = size, rng
        self._half, self._centre = SPAN * scale, np.array([0.5 + x, 0.5 + y])
        self._cos, self._sin = np.cos(angle), np.sin(angle)
        steps = ((np.arange(size) + 0.5) / size).astype(np.float32)
        right = (steps[None, :] - self._centre[0]) / self._half
        down = (steps[:, None] - self._centre[1]) / self._half
        self.u = (right * self._cos - down * self._sin).astype(np.float32)
        self.v = (right * self._sin + down * self._cos).astype(np.float32)
        across, up = 0.62 * light, -0.5
        # The light does not turn with the object, so its direction is turned into the object's coordinates.
        self._light = (
            across * self._cos - up * self._sin,
            across * self._sin + up * self._cos,
            np.sqrt(1 - across**2 - up**2),
        )
        self.colour = np.zeros((size, size, 3), np.float32)
        self.alpha = np.zeros((size, size), np.float32)

    def mask(self, *polygons: ArrayLike) -> np.ndarray:
        """Share of every pixel under the union of `polygons`, each (n_points, 2): (size, size)."""
        fine = self.size * SUPERSAMPLING
        image = Image.new("L", (fine, fine))
        pen = ImageDraw.Draw(image)
        turn = np.array([[self._cos, -self._sin], [self._sin, self._cos]]) * self._half
        for polygon in polygons:
            corners = (np.asarray(polygon) @ turn + self._centre) * fine - 0.5
            pen.polygon(corners.ravel().tolist(), fill=255)
        return np.asarray(image.reduce(SUPERSAMPLING), np.float32) / 255

    def paint(self, mask: np.ndarray, colour: tuple[float, ...] | np.ndarray, shade: np.ndarray | float = 1.0) -> None:
        """Lay `colour` (0..255) over `mask`; a shade under 1 darkens it, one over 1 whitens it."""
        base = np.asarray(colour, np.float32) / 255
        shade = np.asarray(shade, np.float32)[..., None]
        lit = base * np.minimum(shade, 1) + (1 - base) * np.maximum(shade - 1, 0)
        cover = mask[..., None]
        self.colour = self.colour * (1 - cover) + lit * cover
        self.alpha = self.alpha * (1 - mask) + mask

    def round(self, cu: float, cv: float, ru: float, rv: float, gloss: float = 0.5) -> np.ndarray:
        """Shade of an ellipsoid with the given centre and half axes."""
        return self._lit((self.u - cu) / ru, (self.v - cv) / rv, gloss)

    def flat(self, strength: float = 0.16) -> np.ndarray:
        """Shade of a flat thing: a slope towards the light."""
        return 0.93 + strength * (self.u * self._light[0] + self.v * self._light[1])

    def balls(self, centres: np.ndarray, radius: float) -> np.ndarray:
        """Shade of balls of one radius: the nearest one counts at every pixel; the rim is darker."""
        points, centres = np.stack([self.u.ravel(), self.v.ravel()], 1), np.asarray(centres, np.float32)
        # |p - c|² without |p|², which does not change the nearest centre
        offset = (points - centres[((centres**2).sum(1) - 2 * points @ centres.T).argmin(1)]) / radius
        rim = np.clip((np.hypot(*offset.T) - 0.68) / 0.25, 0, 1)
        return (self._lit(*offset.T, 0.6) * (1 - 0.4 * rim)).reshape(self.u.shape)

    def _lit(self, nu: np.ndarray, nv: np.ndarray, gloss: float) -> np.ndarray:
        """Lambert's law with a highlight, for the normals of a ball."""
        stretch = 1 / np.sqrt(np.maximum(nu**2 + nv**2, 1.0))
        nu, nv = nu * stretch, nv * stretch
        facing = nu * self._light[0] + nv * self._light[1] + np.sqrt(np.maximum(1 - nu**2 - nv**2, 0)) * self._light[2]
        facing = np.maximum(facing, 0)
        return 0.5 + 0.52 * facing + gloss * facing**24

    def over(self, ground: np.ndarray, light: float) -> np.ndarray:
        """Image of the object and its soft shadow over `ground`, (size, size, 3) in 0..1."""
        silhouette = Image.fromarray((self.alpha * 255).astype(np.uint8))
        silhouette = silhouette.filter(ImageFilter.GaussianBlur(self.size * 0.03))
        # PIL takes the inverse map: the shadow moves away from the light.
        shift = (1, 0, self.size * 0.04 * light, 0, 1, -self.size * 0.045)
        shadow = silhouette.transform(silhouette.size, Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR)
        drop = np.asarray(shadow, np.float32)[..., None] / 255
        return ground * (1 - 0.5 * drop) * (1 - self.alpha[..., None]) + self.colour


def ellipse(
    cu: float, cv: float, ru: float, rv: float | None = None, angle: float = 0.0, start: float = 0.0,
    stop: float = 2 * np.pi,
) -> np.ndarray:  # fmt: skip
    """Polygon of an ellipse or of an arc of it."""
    turn = start + (stop - start) * _ARC
    points = np.stack([ru * np.cos(turn), (ru if rv is None else rv) * np.sin(turn)], 1)
    return points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + (cu, cv)


def stroke(points: ArrayLike, width: ArrayLike) -> np.ndarray:
    """Polygon of a pen line."""
    path = np.asarray(points, float)
    along = np.gradient(path, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True)
    offset = normal * np.broadcast_to(width, len(path))[:, None] / 2
    return np.concatenate([path + offset, (path - offset)[::-1]])


def smooth(corners: list[tuple[float, float]], mirror: bool = False) -> np.ndarray:
    """Closed Catmull-Rom curve."""
    knots = np.asarray(corners, float)
    if mirror:
        left = knots[::-1] * (-1, 1)
        knots = np.concatenate([knots, left[np.abs(left[:, 0]) > 1e-6]])
    before, after, beyond = np.roll(knots, 1, 0), np.roll(knots, -1, 0), np.roll(knots, -2, 0)
    t = np.linspace(0, 1, 8, endpoint=False)[None, :, None]
    a, b, c, d = (points[:, None] for points in (before, knots, after, beyond))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve.reshape(-1, 2)


def leaf(cu: float, cv: float, length: float, width: float, angle: float) -> np.ndarray:
    """Polygon of a pointed leaf."""
    cos, sin = np.cos(angle), np.sin(angle)
    return _LEAF @ np.array([[length * cos, length * sin], [-width * sin, width * cos]]) + (cu, cv)


def polygon(*points: tuple[float, float]) -> np.ndarray:
    """Polygon with these corners."""
    return np.asarray(points, float)


def cloth(across: np.ndarray, down: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness of a checked cloth."""
    turn = 2 * np.pi * rng.uniform(3.0, 4.0)
    stripes = [np.tanh(3 * np.sin(turn * axis + rng.uniform(0, 6))) for axis in (across, down)]
    return 1.0 + 0.085 * (stripes[0] + stripes[1])


def table(across: np.ndarray, down: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness of a table of horizontal boards with dark seams and faint grain."""
    row = down * 4 + rng.uniform()
    tone = rng.uniform(-0.07, 0.07, 6)[np.floor(row).astype(int)]
    seam = np.exp(-((((row + 0.5) % 1 - 0.5) / 0.07) ** 2))
    grain = 0.03 * np.sin(24 * down + 2.5 * np.sin(5 * across + 9 * tone))
    return 1.0 + tone + grain - 0.38 * seam


def wall(across: np.ndarray, down: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness of a plain wall lit from one side."""
    return 1.08 + rng.uniform(-0.22, 0.22) * (across - 0.5) - 0.3 * down


def carpet(across: np.ndarray, down: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness of a speckled carpet."""
    speckle = Image.fromarray(rng.normal(0, 0.1, (14, 14)).astype(np.float32))
    return 1.0 + np.asarray(speckle.resize((across.shape[1], down.shape[0]), Image.Resampling.BICUBIC))


# Name of a ground -> brightness over shares of the width and of the height.
GROUNDS: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]] = {
    "cloth": cloth, "table": table, "wall": wall, "carpet": carpet,
}  # fmt: skip


def draw_ground(surface: str, colour: np.ndarray, size: int, *, rng: np.random.Generator) -> np.ndarray:
    """Image of an empty surface."""
    steps = ((np.arange(size) + 0.5) / size).astype(np.float32)
    brightness = np.broadcast_to(GROUNDS[surface](steps[None, :], steps[:, None], rng), (size, size))
    # Muted, and neither black nor white, so that the object stands out and the pattern of the ground shows.
    base = 0.82 * np.asarray(colour, np.float32) / 255 + 0.07
    return np.clip(base * brightness[..., None], 0, 1)
