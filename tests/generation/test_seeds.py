"""The seed of an image follows from what the image is."""

from __future__ import annotations

from itertools import product

from neurocanvas.generation.arms import image_seed


def test_a_seed_belongs_to_one_picture():
    pictures = list(product((0, 42), ("eeg", "shuffled", "oracle"), (0, 1, 11), (-1, 0, 1, 10, 11)))
    seeds = [image_seed(*picture) for picture in pictures]
    assert len(set(seeds)) == len(pictures)
    assert seeds == [image_seed(*picture) for picture in pictures]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_never_change():
    assert image_seed(42, "eeg", 0, 7) == 3236609569059316822
