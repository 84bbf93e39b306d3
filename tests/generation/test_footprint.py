"""Memory that drawing needs, from configuration files alone."""

from __future__ import annotations

import json
from pathlib import Path

import full_size
import pytest
import torch

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.families import FAMILIES
from neurocanvas.generation.footprint import activation_bytes

BUNDLED = Path(FAMILIES["bundled"].diffusion)


@pytest.fixture
def configs(tmp_path):
    """The configuration files of Stable Diffusion 1.4, without any weights."""
    for part, sizes in (("unet", full_size.UNET), ("vae", full_size.VAE)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(sizes))
    return tmp_path


def test_the_decoder_needs_at_least_its_widest_layer(configs):
    """At full resolution 256 channels are convolved into 256: what goes in and what comes out live together."""
    widest = 2 * 256 * 512 * 512 * 2
    found = activation_bytes(configs, 1, precision="float16")
    assert widest <= found < 3 * widest
    assert activation_bytes(configs, 1) == 2 * found  # single precision
    assert activation_bytes(configs, 1, size=256, precision="float16") == pytest.approx(found / 4, rel=0.1)


def test_the_denoiser_grows_with_the_batch_and_attention_stores_no_scores(configs):
    three, four = (activation_bytes(configs, count, precision="float16") for count in (23, 24))
    scores = 2 * 8 * 4096 * 4096 * 2
    assert 0 < four - three < scores


def test_nothing_is_left_changed():
    before = torch.nn.functional.scaled_dot_product_attention
    activation_bytes(BUNDLED, 1)
    assert torch.nn.functional.scaled_dot_product_attention is before


def test_a_folder_without_configuration_is_named(tmp_path):
    with pytest.raises(NeuroCanvasError, match=str(tmp_path)):
        activation_bytes(tmp_path, 1)
