"""The released file of embeddings: written as that code reads it, read image by image, refused in one line."""

import numpy as np
import pytest
import torch

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.pipeline.exchange import read_released_embeddings, write_released_embeddings

NAMES = ["n01_1.JPEG", "n01_2.JPEG", "n02_7.JPEG"]


@pytest.fixture
def embeddings():
    return np.random.default_rng(0).normal(size=(3, 77, 768)).astype(np.float16)


@pytest.fixture
def written(embeddings, tmp_path):
    write_released_embeddings(tmp_path / "clip_embeddings.pth", NAMES, embeddings)
    return tmp_path / "clip_embeddings.pth"


def test_the_released_loop_can_stack_what_is_written(written, embeddings):
    found = torch.load(written, weights_only=True)
    assert list(found) == NAMES
    assert {(tuple(tensor.shape), tensor.dtype) for tensor in found.values()} == {((1, 77, 768), torch.float32)}
    labels = torch.stack([found[name] for name in NAMES[::-1]]).squeeze()
    assert np.array_equal(labels.numpy(), embeddings[::-1].astype(np.float32))


def test_reading_takes_the_pictures_that_are_asked_for_in_their_order(written, embeddings):
    out = np.zeros((2, 77, 768), np.float16)
    read_released_embeddings(written, [NAMES[2], NAMES[0]], out)
    assert np.array_equal(out, embeddings[[2, 0]])


def test_what_the_released_code_saved_is_read(embeddings, tmp_path):
    one = torch.from_numpy(embeddings[0].astype(np.float32)).requires_grad_()
    torch.save({"a": one[None], "b": one}, tmp_path / "clip_embeddings.pth")
    out = np.zeros((2, 77, 768), np.float16)
    read_released_embeddings(tmp_path / "clip_embeddings.pth", ["a", "b"], out)
    assert np.array_equal(out, embeddings[[0, 0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": (1, 77, 768)}, r"b should have an embedding of shape \(1, 77, 768\); got none"),
        ({"a": (1, 77, 768), "b": (1, 77, 1024)}, r"b should have .*; got \(1, 77, 1024\)"),
        ({"a": (1, 77, 768), "b": (2, 77, 768)}, r"b should have .*; got \(2, 77, 768\)"),
        ({"a": (1, 77, 768), "b": None}, "embedding of b is not finite"),
        ([], "a should have an embedding"),
    ],
    ids=str,
)
def test_what_is_missing_or_of_another_shape_is_named_in_one_line(content, message, tmp_path):
    if isinstance(content, dict):
        nan = torch.full((1, 77, 768), torch.nan)
        content = {name: nan if shape is None else torch.zeros(shape) for name, shape in content.items()}
    torch.save(content, tmp_path / "clip_embeddings.pth")
    with pytest.raises(NeuroCanvasError, match=message) as caught:
        read_released_embeddings(tmp_path / "clip_embeddings.pth", ["a", "b"], np.zeros((2, 77, 768), np.float16))
    assert "\n" not in str(caught.value)
