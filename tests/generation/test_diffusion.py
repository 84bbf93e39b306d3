"""Generation: a picture follows from its condition and its seed, and from nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.generation.diffusion import generate_pictures, load_generator
from neurocanvas.targets.text import embed_captions

CAPTIONS = ["a yellow banana on a blue cloth", "a red mitten on a green table", "a white daisy on a black wall"]
SEEDS = [3, 2**62 + 1, 5]


@pytest.fixture(scope="module")
def pipeline():
    return load_generator("bundled")


@pytest.fixture(scope="module")
def conditions():
    return embed_captions(CAPTIONS, "bundled").astype(np.float32)


def draw(pipeline, conditions, seeds, guidance=3.0):
    """Two steps are enough to tell pictures apart."""
    return generate_pictures(pipeline, conditions, seeds, steps=2, guidance=guidance)


@pytest.fixture(scope="module")
def drawn(pipeline, conditions):
    return draw(pipeline, conditions, SEEDS)


def distance(a, b):
    """Largest difference of two pictures in steps of 1/255."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_pictures_are_pictures(drawn):
    assert drawn.shape == (3, 64, 64, 3) and drawn.dtype == np.uint8
    assert all(picture.std() > 1 for picture in drawn)
    assert distance(drawn[0], drawn[1]) > 20


def test_the_same_seeds_draw_the_same_pictures(pipeline, conditions, drawn):
    np.testing.assert_array_equal(draw(pipeline, conditions, SEEDS), drawn)


def test_a_picture_does_not_depend_on_its_place_or_company(pipeline, conditions, drawn):
    for place in range(3):
        alone = draw(pipeline, conditions[place : place + 1], SEEDS[place : place + 1])[0]
        assert distance(alone, drawn[place]) <= 2
    turned = draw(pipeline, conditions[::-1], SEEDS[::-1])[::-1]
    assert max(distance(a, b) for a, b in zip(turned, drawn, strict=True)) <= 2


def test_seed_condition_and_guidance_all_matter(pipeline, conditions, drawn):
    other_seed = draw(pipeline, conditions[:1], [4])[0]
    other_condition = draw(pipeline, conditions[1:2], SEEDS[:1])[0]
    unguided = draw(pipeline, conditions[:1], SEEDS[:1], guidance=1.0)[0]
    assert min(distance(other, drawn[0]) for other in (other_seed, other_condition, unguided)) > 2


@pytest.mark.parametrize("shape", [(1, 77, 512), (1, 77, 1024), (77, 768)])
def test_conditions_of_another_generator_are_refused(pipeline, shape):
    with pytest.raises(NeuroCanvasError, match=r"needs shape \(n, 77, 768\); got"):
        draw(pipeline, np.zeros(shape, np.float32), [0])
