"""The drawn image world: every concept is drawn, varies, can be told apart, and says what it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from neurocanvas.simulation.images import (
    COARSE,
    CODE_NAMES,
    CONCEPTS,
    FINE,
    GRATINGS,
    PALETTE,
    Drawing,
    Grating,
    render,
    sample_drawing,
)
from neurocanvas.simulation.shapes import draw_apple

BANANA = Drawing("n07753592", "yellow", 0.9, 0.1, 0.0, 0.0, 0.5, 7, "blue", "cloth")


def changed(**fields: object) -> Drawing:
    return dataclasses.replace(BANANA, **fields)


def test_concepts_are_the_ten_coarse_ones_and_the_eight_fruits() -> None:
    assert [concept.granularity for concept in CONCEPTS.values()] == ["coarse"] * 10 + ["fine"] * 8
    assert all(concept.name in concept.draw.__doc__.lower() for concept in CONCEPTS.values())
    assert len({concept.caption_name for concept in CONCEPTS.values()}) == 18
    assert all(2 <= len(row.colours) <= 4 and set(row.colours) <= set(PALETTE) for row in CONCEPTS.values())


@pytest.mark.parametrize("wnid", CONCEPTS)
def test_the_object_fills_most_of_the_picture_and_shows_its_colour(wnid: str) -> None:
    """Only the object changes with the body colour, so the changed pixels are a part of it."""
    concept = CONCEPTS[wnid]
    plain = Drawing(wnid, concept.colours[0], 1.0, 0.0, 0.0, 0.0, 0.0, 3, "turquoise", "wall")
    other = dataclasses.replace(plain, colour=concept.colours[-1])
    body = np.abs(render(plain).astype(int) - render(other)).max(2) > 24
    rows, columns = np.flatnonzero(body.any(1)), np.flatnonzero(body.any(0))
    assert max(np.ptp(rows), np.ptp(columns)) / 64 > 0.4
    assert body.mean() > 0.06
    step = (render(plain).astype(float) - render(other))[body].mean(0)
    wanted = np.subtract(PALETTE[plain.colour], PALETTE[other.colour])
    assert step @ wanted / np.linalg.norm(step) / np.linalg.norm(wanted) > 0.9


CHANGES = {"size": 1.1, "angle": -0.3, "x": 0.1, "y": -0.1, "light": -0.9, "texture": 8, "background": "white",
           "surface": "table", "colour": "green"}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), CHANGES.items())
def test_every_field_decides_pixels(name: str, value: object) -> None:
    assert not np.array_equal(render(BANANA), render(changed(**{name: value})))


@pytest.mark.parametrize("wnid", CONCEPTS)
def test_the_caption_names_concept_colour_and_surface(wnid: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        drawing = sample_drawing(wnid, rng=rng)
        words = drawing.caption
        assert words == words.lower()
        assert f" {drawing.colour} {CONCEPTS[wnid].caption_name} on a" in words
        assert words.endswith(f" {drawing.background} {drawing.surface}")
        assert drawing.colour in CONCEPTS[wnid].colours


@pytest.mark.parametrize(
    "drawing, caption",
    [
        (BANANA, "a yellow banana on a blue cloth"),
        (changed(size=0.76), "a small yellow banana on a blue cloth"),
        (changed(size=1.09, surface="table"), "a large yellow banana on a blue table"),
        (changed(wnid="n07749192", colour="orange", background="orange"), "an orange orange on an orange cloth"),
        (changed(wnid="n12144580"), "a yellow ear of corn on a blue cloth"),
        (Grating(4.0, 0.0), "a coarse vertical grating"),
        (Grating(7.0, 93.0), "a medium horizontal grating"),
        (Grating(10.0, 40.0), "a fine left-tilted grating"),
        (Grating(10.0, 135.0), "a fine right-tilted grating"),
        (Grating(4.0, 176.0), "a coarse vertical grating"),
    ],
)
def test_captions(drawing: Drawing | Grating, caption: str) -> None:
    assert drawing.caption == caption


def test_code_holds_the_continuous_parameters_in_the_documented_order() -> None:
    code = dict(zip(CODE_NAMES, BANANA.code(), strict=True))
    assert BANANA.code().dtype == np.float64
    assert [code[f"colour_{part}"] * 255 for part in ("red", "green", "blue")] == pytest.approx(PALETTE["yellow"])
    assert [code[f"background_{part}"] * 255 for part in ("red", "green", "blue")] == pytest.approx(PALETTE["blue"])
    assert np.arctan2(code["sin_angle"], code["cos_angle"]) == pytest.approx(0.1)
    assert [code[name] for name in ("size", "x", "y", "light")] == pytest.approx([0.9, 0.0, 0.0, 0.5])


# Mean of three drawings of every concept, 0..255, as the bundled networks were trained on them.
BRIGHTNESS = [
    94.01, 104.21, 96.95, 101.54, 138.15, 116.16, 124.67, 102.98, 103.62,
    103.34, 104.51, 86.32, 102.05, 90.39, 134.95, 102.37, 142.83, 89.81,
]  # fmt: skip


def test_drawings_keep_their_pixels() -> None:
    rng = np.random.default_rng(0)
    means = [np.mean([render(sample_drawing(wnid, rng=rng)) for _ in range(3)]) for wnid in CONCEPTS]
    assert means == pytest.approx(BRIGHTNESS, abs=0.01)  # another processor may round single pixels differently


def _small_images() -> np.ndarray:
    """Forty 16x16 images of every concept, flattened: (18, 40, 768)."""
    rng = np.random.default_rng(6)
    stacks = np.stack([[render(sample_drawing(wnid, rng=rng), size=32) for _ in range(40)] for wnid in CONCEPTS])
    return stacks.astype(float).reshape(18, 40, 16, 2, 16, 2, 3).mean((3, 5)).reshape(18, 40, -1)


def _ridge_accuracy(features: np.ndarray) -> float:
    """Share of the last 12 exemplars of every row that ridge regression on the first 28 gives its row."""
    rows = np.arange(len(features))
    train, test = (part.reshape(-1, part.shape[-1]) for part in (features[:, :28], features[:, 28:]))
    mean, labels = train.mean(0), np.repeat(np.eye(len(rows)), 28, axis=0)
    products = (train - mean) @ (train - mean).T
    weights = np.linalg.solve(
        products + 0.1 * products.trace() / len(products) * np.eye(len(products)), labels - 1 / len(rows)
    )
    guessed = ((test - mean) @ (train - mean).T @ weights).argmax(1)
    return float((guessed == np.repeat(rows, 12)).mean())


def test_the_concepts_can_be_told_apart_by_their_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance is 1/18; with one shape for all, colours alone stay far under the threshold."""
    threshold = 0.45
    features = _small_images()
    assert _ridge_accuracy(features) > threshold
    mixed = np.random.default_rng(7).permutation(features.reshape(720, -1)).reshape(features.shape)
    assert _ridge_accuracy(mixed) < 0.12
    for wnid, concept in CONCEPTS.items():
        monkeypatch.setitem(CONCEPTS, wnid, dataclasses.replace(concept, draw=draw_apple))
    assert _ridge_accuracy(_small_images()) < threshold - 0.2


@pytest.mark.parametrize("wnid", CONCEPTS)
def test_a_picture_never_changes_and_does_not_depend_on_its_resolution(wnid: str) -> None:
    drawing = sample_drawing(wnid, rng=np.random.default_rng(8))
    assert drawing == sample_drawing(wnid, rng=np.random.default_rng(8))
    picture = render(drawing)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, render(dataclasses.replace(drawing)))
    fine = render(drawing, size=128).astype(float).reshape(64, 2, 64, 2, 3).mean((1, 3))
    difference = np.abs(fine - picture)
    assert difference.mean() < 2.5 and np.quantile(difference, 0.99) < 40


def _peak(grating: Grating, size: int = 64) -> tuple[float, float]:
    """Cycles per image and orientation, in degrees, at the peak of the zero-padded spectrum."""
    pixels = render(grating, size=size)[..., 0].astype(float) - 128
    spectrum = np.abs(np.fft.fft2(pixels, (8 * size, 8 * size)))
    down, right = np.unravel_index(spectrum.argmax(), spectrum.shape)
    down, right = (np.fft.fftfreq(8 * size)[k] * size for k in (down, right))
    return float(np.hypot(down, right)), float(np.rad2deg(np.arctan2(-down, right)) % 180)


@pytest.mark.parametrize("key", GRATINGS)
def test_standard_gratings_have_the_frequency_and_orientation_they_name(key: str) -> None:
    _, frequency, orientation = key.split("_")
    cycles, degrees = _peak(GRATINGS[key])
    assert cycles == pytest.approx({"low": COARSE, "high": FINE}[frequency], abs=0.2)
    assert abs((degrees - float(orientation) + 90) % 180 - 90) < 2
