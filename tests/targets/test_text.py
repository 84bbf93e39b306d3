"""Text embeddings: what Stable Diffusion would be conditioned on, one row per caption."""

import numpy as np
import pytest
from tiny import embed_captions

from neurocanvas.targets.clip import load_text_encoder, pooled_shape
from neurocanvas.targets.pretrained import find_family

CAPTIONS = ["a yellow banana on a blue cloth", "a red mitten on a green table", "a yellow banana on a blue cloth"]


@pytest.fixture(scope="module")
def embedded():
    return embed_captions(CAPTIONS, "bundled")


def test_shape_repeats_and_places(embedded):
    assert embedded.shape == (3, 77, 768) and embedded.dtype == np.float16
    assert np.isfinite(embedded).all()
    np.testing.assert_array_equal(embedded[0], embedded[2])
    assert np.abs(embedded[0].astype(float) - embedded[1]).mean() > 0.01
    again = embed_captions(CAPTIONS[1:], "bundled")
    np.testing.assert_allclose(again.astype(np.float32), embedded[1:].astype(np.float32), atol=4e-3)


def test_pooled_is_the_state_at_the_last_token(embedded):
    encode, shape = load_text_encoder("bundled", pooled=True), pooled_shape("bundled")
    assert shape == (1, 768)
    pooled = encode(CAPTIONS[:2]).astype(np.float32)
    distances = np.abs(embedded[:2].astype(np.float32) - pooled).max(axis=2)
    assert distances.min(axis=1).max() < 4e-3 and np.all(distances.argmin(axis=1) > 4)


def test_it_is_the_pipelines_own_encoding(embedded):
    """The hidden states that diffusers itself would make of the prompt."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(find_family("bundled").diffusion, safety_checker=None)
    pipeline.text_encoder.float()
    with torch.inference_mode():
        expected, _ = pipeline.encode_prompt(CAPTIONS[0], "cpu", 1, False)
    np.testing.assert_allclose(embedded[0].astype(np.float32), expected[0].float().numpy(), atol=2e-2)
