"""Stable Diffusion 1.4 and BLIP at their real sizes with random weights, and folders as people have them."""

from __future__ import annotations

import full_size
import numpy as np
import pytest
import torch
from tiny import embed_captions

from neurocanvas.config import GenerateSettings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.generation.stable_diffusion import StableDiffusion
from neurocanvas.targets.captions import load_captioner

SMALL = {
    "unet": {"block_out_channels": (32, 64, 64, 64), "layers_per_block": 1, "sample_size": 8},
    "vae": {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1},
    "text": {"num_hidden_layers": 1, "intermediate_size": 64},
}
"""The same layers, narrow: what is tested of folders does not depend on size."""


@pytest.fixture(scope="module")
def small():
    return full_size.build(**SMALL)


def load(folder, **how):
    return StableDiffusion.load(GenerateSettings(family=str(folder), steps=2, **how))


def conditions(count):
    return np.random.default_rng(0).standard_normal((count, 77, 768)).astype(np.float32)


def test_the_sizes_are_the_published_ones():
    with torch.device("meta"):
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        parts = UNet2DConditionModel(**full_size.UNET), AutoencoderKL(**full_size.VAE), CLIPTextModel(
            CLIPTextConfig(**full_size.TEXT)
        )  # fmt: skip
    sizes = [sum(weights.numel() for weights in part.parameters()) for part in parts]
    assert sizes == [859_520_964, 83_653_863, 123_060_480]  # those of the published weights


def test_weights_in_half_precision_files_and_no_safety_checker(small, tmp_path):
    half = load(full_size.save_family(tmp_path / "half", full_size.build(**SMALL).to(torch.float16), variant="fp16"))
    whole = load(full_size.save_family(tmp_path / "whole", small))
    assert not (tmp_path / "half" / "stable-diffusion" / "safety_checker").exists()
    assert half.pipeline.unet.dtype == torch.float32 and half.pipeline.safety_checker is None
    ours, theirs = (one.generate(conditions(1), [0]).astype(int) for one in (half, whole))
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.97  # weights were rounded
    said = [embed_captions(["a dog"], str(tmp_path / name)).astype(float) for name in ("half", "whole")]
    np.testing.assert_allclose(*said, atol=0.02)


@pytest.mark.parametrize("missing", ["unet/diffusion_pytorch_model.safetensors", "vae/config.json", "model_index.json"])
def test_a_missing_file_is_one_line_that_names_the_folder(small, tmp_path, missing):
    folder = full_size.save_family(tmp_path / "family", small)
    (folder / "stable-diffusion" / missing).unlink()
    with pytest.raises(NeuroCanvasError, match="stable-diffusion: the weights cannot be loaded") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_at_full_size_batches_change_nothing(tmp_path):
    pipeline = full_size.build()
    folder = full_size.save_family(tmp_path / "family", pipeline.to(torch.float16))
    del pipeline
    generator = load(folder, size=256)
    assert generator.pipeline.unet.dtype == torch.float32 and generator.pipeline.vae.dtype == torch.float32
    asked = conditions(3)
    together = generator.generate(asked, [1, 2, 3])
    assert together.shape == (3, 256, 256, 3) and together.dtype == np.uint8
    alone = np.concatenate([generator.generate(asked[[row]], [row + 1]) for row in range(3)])
    assert np.abs(together.astype(int) - alone).max() <= 2
    assert together[0].std() > 1 and np.abs(together[0].astype(int) - together[1]).max() > 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("size", "numbers"), [("base", 86_000_000), ("large", 303_000_000)])
def test_blip_at_full_size_captions_by_both_recipes(tmp_path, size, numbers):
    from transformers import AutoModelForImageTextToText

    folder = str(full_size.save_blip(tmp_path / size, size))
    picture = np.random.default_rng(0).integers(0, 256, (500, 375, 3), dtype=np.uint8)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert abs(sum(weights.numel() for weights in model.vision_model.parameters()) - numbers) < 3e6
    for recipe in ("default", "released"):
        describe = load_captioner(folder, recipe)
        said = describe([picture])
        assert len(said) == 1 and said == describe([picture])
