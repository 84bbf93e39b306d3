"""Text embeddings: what Stable Diffusion would be conditioned on, one row per caption."""

from __future__ import annotations

import numpy as np
import pytest

from neurocanvas.families import find_family
from neurocanvas.targets.text import embed_captions

CAPTIONS = ["a yellow banana on a blue cloth", "a red mitten on a green table", "a yellow banana on a blue cloth"]


@pytest.fixture(scope="module")
def embedded():
    return embed_captions(CAPTIONS, "bundled")


def test_shape_and_repeats(embedded):
    assert embedded.shape == (3, 77, 768) and embedded.dtype == np.float16
    assert np.isfinite(embedded).all()
    np.testing.assert_array_equal(embedded[0], embedded[2])
    assert np.abs(embedded[0].astype(float) - embedded[1]).mean() > 0.01


def test_each_distinct_caption_is_encoded_once_and_rows_keep_their_place(embedded):
    told = []
    again = embed_captions(CAPTIONS[::-1], "bundled", batch_size=1, progress=told.append)
    assert sum(told) == 2
    np.testing.assert_allclose(again[::-1].astype(np.float32), embedded.astype(np.float32), atol=4e-3)


def test_it_is_the_pipelines_own_encoding(embedded):
    """The hidden states that diffusers itself would make of the prompt."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(find_family("bundled").diffusion, safety_checker=None)
    pipeline.text_encoder.float()
    with torch.inference_mode():
        expected, _ = pipeline.encode_prompt(CAPTIONS[0], "cpu", 1, False)
    np.testing.assert_allclose(embedded[0].astype(np.float32), expected[0].float().numpy(), atol=2e-2)
