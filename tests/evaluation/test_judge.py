"""The judge: one embedding per image or text, in one space, whatever the batch."""

import numpy as np
import pytest

from neurocanvas.simulation.images import CONCEPTS, render, sample_drawing
from neurocanvas.targets.clip import judge_texts
from neurocanvas.targets.pretrained import find_family, load_picture_encoder


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng((77, 1))
    return np.stack([render(sample_drawing(wnid, rng=rng)) for wnid in list(CONCEPTS)[:6] for _ in range(2)])


@pytest.fixture(scope="module")
def judge():
    return load_picture_encoder(find_family("bundled").judge)[0]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_pictures_and_texts_share_a_space(pictures, judge):
    embedded = judge(pictures)
    texts = judge_texts([f"a photo of a {concept.name}" for concept in CONCEPTS.values()], "bundled")
    assert embedded.shape == (12, texts.shape[1]) and embedded.dtype == texts.dtype == np.float32
    assert np.isfinite(embedded).all()
    named = (unit(embedded) @ unit(texts).T).argmax(axis=1)
    assert np.mean(named == np.repeat(np.arange(6), 2)) >= 10 / 12


def test_an_embedding_depends_neither_on_the_batch_nor_on_the_size_of_a_picture(pictures, judge):
    together = judge(pictures)
    np.testing.assert_allclose(np.concatenate([judge(pictures[:5]), judge(pictures[5:])]), together, atol=1e-4)
    np.testing.assert_allclose(judge(pictures[::-1])[::-1], together, atol=1e-4)
    large = np.kron(pictures[:2], np.ones((1, 3, 3, 1), np.uint8))
    same = unit(judge(large)) @ unit(together[:2]).T
    assert np.all(np.diag(same) > 0.95)


def test_a_text_does_not_depend_on_its_company():
    texts = ["a photo of a pizza", "a photo of a very large and very green jack-o'-lantern on a table"]
    together = judge_texts(texts, "bundled")
    np.testing.assert_allclose(judge_texts(texts[:1], "bundled")[0], together[0], atol=1e-4)
