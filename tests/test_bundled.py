"""The bundled networks on drawings that none of them saw in training.

Training drew its images with the seeds (20261122, index); here they begin otherwise. What is drawn from captions is
judged by a classifier that is trained here, on yet other drawings.
"""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from bundled_parts import sample_grating
from tiny import embed_captions

from neurocanvas.config import DEMO, load_settings
from neurocanvas.generation.stable_diffusion import StableDiffusion
from neurocanvas.simulation.images import CONCEPTS, GRATINGS, render, sample_drawing
from neurocanvas.targets.captions import load_captioner
from neurocanvas.targets.pretrained import BUNDLED, find_family

HELD_OUT, FOR_CLASSIFIER = 71, 72
WNIDS = list(CONCEPTS)


def drawings(seed, count):
    """`count` drawings, all concepts in turn, and the number of each one's concept."""
    drawn = [sample_drawing(WNIDS[i % len(WNIDS)], rng=np.random.default_rng((seed, i))) for i in range(count)]
    return drawn, np.arange(count) % len(WNIDS)


def as_tensor(pictures):
    """Images in uint8 -> (n, 3, height, width) in -1..1."""
    import torch

    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


@pytest.fixture(scope="module")
def generator():
    return StableDiffusion.load(load_settings(DEMO).generate.model_copy(update={"steps": 16}))


@pytest.fixture(scope="module")
def classify():
    """A classifier of concepts that was trained on fresh drawings: images -> numbers of concepts."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    drawn, labels = drawings(FOR_CLASSIFIER, 1800)
    x = F.avg_pool2d(as_tensor([render(drawing) for drawing in drawn]), 2)
    y = torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = (3, 32, 64, 96)
        layers = []
        for before, after in pairwise(sizes):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        net = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(96 * 16, len(WNIDS)))
        epochs, size = 14, 60
        steps = epochs * len(x) // size
        optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(size):
                shown = x[batch].flip(3) if torch.rand(()) < 0.5 else x[batch]
                shown = shown.roll(tuple(torch.randint(-2, 3, (2,)).tolist()), (2, 3))
                loss = F.cross_entropy(net(shown + 0.1 * torch.randn_like(shown)), y[batch], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    net.eval()

    def named(pictures):
        with torch.inference_mode():
            return net(F.avg_pool2d(as_tensor(pictures), 2)).argmax(1).numpy()

    return named


def test_the_size_of_all_weights_together():
    size = sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file())
    assert size <= 32 * 2**20
    sidecar = json.loads((BUNDLED / "card.json").read_text())
    assert len(sidecar["sha256"]) == len(list(BUNDLED.rglob("*.safetensors"))) == 5


def test_all_parts_load_by_plain_from_pretrained():
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import AutoTokenizer, BlipForConditionalGeneration, CLIPModel, CLIPTextModel, CLIPTokenizer

    family = find_family("bundled")
    encoder = CLIPTextModel.from_pretrained(family.diffusion, subfolder="text_encoder").float()
    tokenizer = CLIPTokenizer.from_pretrained(family.diffusion, subfolder="tokenizer")
    ids = tokenizer("a red mitten", padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.inference_mode():
        assert encoder(ids).last_hidden_state.shape == (1, 77, 768)
    unet = UNet2DConditionModel.from_pretrained(family.diffusion, subfolder="unet")
    vae = AutoencoderKL.from_pretrained(family.diffusion, subfolder="vae")
    assert unet.config.cross_attention_dim == 768 and unet.config.in_channels == vae.config.latent_channels
    assert StableDiffusionPipeline.from_pretrained(family.diffusion, safety_checker=None).unet is not None
    assert BlipForConditionalGeneration.from_pretrained(family.captioner).num_parameters() > 0
    assert CLIPModel.from_pretrained(family.judge).num_parameters() > 0
    assert len(AutoTokenizer.from_pretrained(family.captioner)) > 50


def psnr(vae, pictures):
    """Peak signal-to-noise ratio of each image's round trip through the VAE, dB."""
    import torch

    x = as_tensor(pictures)
    with torch.inference_mode():
        back = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
    return -10 * np.log10(((back - x) / 2).square().mean(dim=(1, 2, 3)).numpy())


def test_the_vae_keeps_pictures(generator):
    drawn = [render(drawing) for drawing in drawings(HELD_OUT, 90)[0]]
    gratings = [render(sample_grating(rng=np.random.default_rng((HELD_OUT, 10**6 + i)))) for i in range(18)]
    assert psnr(generator.pipeline.vae, drawn).mean() >= 26
    assert psnr(generator.pipeline.vae, gratings).mean() >= 26


def test_the_captioner_names_the_concept():
    drawn, labels = drawings(HELD_OUT, 90)
    captions = load_captioner("bundled")([render(drawing) for drawing in drawn])
    names = [CONCEPTS[WNIDS[label]].caption_name for label in labels]
    right = [f" {name} " in f" {caption} " for name, caption in zip(names, captions, strict=True)]
    assert np.mean(right) >= 0.9, [pair for pair, ok in zip(zip(names, captions), right) if not ok][:10]


def test_the_classifier_can_be_trusted(classify):
    drawn, labels = drawings(HELD_OUT, 360)
    assert np.mean(classify([render(drawing) for drawing in drawn]) == labels) >= 0.97


def test_pictures_of_true_captions_are_the_right_concept(generator, classify):
    drawn, labels = drawings(HELD_OUT, 72)
    pictures = generator.generate(embed_captions([drawing.caption for drawing in drawn], "bundled"), list(range(72)))
    assert np.mean(classify(pictures) == labels) >= 0.85


def read_grating(picture):
    """Cycles per image and orientation (degrees, as in Grating) of the strongest wave in an image."""
    grey = picture.astype(float).mean(axis=2)
    size = len(grey)
    window = np.outer(np.hanning(size), np.hanning(size))
    padded = 8 * size
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window, (padded, padded))) ** 2
    down, right = np.meshgrid(*[np.fft.fftfreq(padded, 1 / size)] * 2, indexing="ij")
    power[np.hypot(down, right) < 1.5] = 0
    peak = np.unravel_index(power.argmax(), power.shape)
    cycles = float(np.hypot(down[peak], right[peak]))
    return cycles, float(np.rad2deg(np.arctan2(-down[peak], right[peak])) % 180)


def apart(a, b):
    """Angle between two orientations, degrees."""
    return abs((a - b + 90) % 180 - 90)


def is_right(picture, grating):
    """Tell whether an image shows a grating: its orientation, and whether it is the coarse or the fine one."""
    cycles, orientation = read_grating(picture)
    known = sorted({other.cycles for other in GRATINGS.values()})
    nearest = min(known, key=lambda other: abs(np.log(max(cycles, 0.1) / other)))
    return apart(orientation, grating.orientation) <= 22.5 and nearest == grating.cycles


def test_gratings_can_be_read():
    assert all(is_right(render(grating), grating) for grating in GRATINGS.values())
    low, high = GRATINGS["grating_low_45"], GRATINGS["grating_high_45"]
    assert not is_right(render(low), high) and not is_right(render(low), GRATINGS["grating_low_90"])


def test_gratings_of_true_captions_are_right(generator):
    shown = list(GRATINGS.values()) * 3
    pictures = generator.generate(embed_captions([grating.caption for grating in shown], "bundled"), list(range(24)))
    assert np.mean([is_right(picture, grating) for picture, grating in zip(pictures, shown, strict=True)]) >= 0.9
