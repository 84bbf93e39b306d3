"""What reaches a network: against PIL, against torch's interpolation, against the processors of transformers."""

from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from neurocanvas.evaluation.feature_networks import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocess,
    Resize,
    preprocess,
    resize_image,
    through_jpeg,
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise over a ramp: small details that antialiasing changes, and a direction."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 150, width)[None, :, None] + np.linspace(0, 50, height)[:, None, None]
    return (ramp + rng.integers(0, 55, size=(height, width, 3))).astype(np.uint8)


def by_torch(pixels, size, interpolation="bilinear", antialias=True):
    """(height, width, 3) of 0 to 1, resized."""
    tensor = torch.as_tensor(pixels).permute(2, 0, 1)[None]
    made = torch.nn.functional.interpolate(tensor, size, mode=interpolation, align_corners=False, antialias=antialias)
    return made[0].permute(1, 2, 0)


@pytest.mark.parametrize("on", ["tensor", "8-bit tensor"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_floats_are_resized_by_torch(interpolation, antialias, on):
    values = picture(50, 70)
    expected = by_torch(values.astype(np.float32) / 255, (24, 33), interpolation, antialias)
    if on == "8-bit tensor":
        expected = (expected.clamp(0, 1) * 255).round() / 255
    made = resize_image(values, [Resize(24, "short side", interpolation, antialias)], on)
    np.testing.assert_allclose(made, expected, atol=1e-6)


def test_antialiasing_interpolation_and_rounding_each_change_the_result():
    values = picture(64, 64, seed=1)
    made = [
        resize_image(values, [Resize(20, "square", interpolation, antialias)], on)
        for interpolation, antialias, on in (
            ("bilinear", True, "tensor"), ("bilinear", False, "tensor"), ("bicubic", True, "tensor"),
            ("bilinear", True, "8-bit tensor"), ("bicubic", True, "pil"),
        )
    ]  # fmt: skip
    assert all(abs(one - other).max() > 1e-4 for one, other in combinations(made, 2))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_8_bit_pictures_are_resized_by_pil(interpolation):
    values = picture(50, 70, seed=2)
    steps = [Resize(40, "square", interpolation), Resize(30, "short side", interpolation)]
    image = Image.fromarray(values)
    for size in ((40, 40), (30, 30)):
        image = image.resize(size, Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(resize_image(values, steps, "pil"), np.asarray(image, np.float32) / 255)


def test_shapes_follow_torchvisions_rule():
    def shape(height, width, *how):
        return resize_image(np.zeros((height, width, 3), np.uint8), [Resize(*how)]).shape[:2]

    assert shape(300, 500, 256) == (256, 426) == shape(500, 300, 256)[::-1]
    assert shape(500, 300, 256, "square") == (256, 256)
    # BReAD hands (width, height) to a function that takes (height, width)
    assert shape(300, 500, 256, "short side swapped") == (426, 256)
    assert shape(256, 256, 256, "short side swapped") == (256, 256)


def test_several_steps_follow_one_another():
    values = picture(90, 60, seed=3)
    both = resize_image(values, [Resize(48, "square", antialias=False), Resize(30)])
    first = by_torch(values.astype(np.float32) / 255, (48, 48), antialias=False)
    np.testing.assert_allclose(both, by_torch(first, (30, 30)), atol=1e-6)


def test_the_tensor_is_normalised_and_channels_come_first():
    values = picture(40, 40, seed=4)
    made = preprocess([values, values[:, ::-1]], Preprocess((Resize(40),)))
    assert made.shape == (2, 3, 40, 40) and made.dtype == torch.float32
    for channel in range(3):
        expected = (values[..., channel] / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        np.testing.assert_allclose(made[0, channel], expected, atol=1e-6)
        np.testing.assert_allclose(made[1, channel], expected[:, ::-1], atol=1e-6)


@pytest.mark.parametrize("size", [(61, 97), (96, 60), (64, 64)])
def test_it_is_the_clip_processor_of_transformers(size):
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    processor = kind(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    values = picture(*size, seed=5)
    how = Preprocess((Resize(48, interpolation="bicubic"),), crop=48, mean=CLIP_MEAN, std=CLIP_STD, on="pil")
    expected = processor(images=[values], return_tensors="pt")["pixel_values"]
    np.testing.assert_allclose(preprocess([values], how), expected, atol=1e-5)


def test_the_crop_is_the_middle():
    values = picture(20, 31, seed=6)
    made = preprocess([values], Preprocess((), crop=10, mean=(0.0,) * 3, std=(1.0,) * 3))
    np.testing.assert_allclose(made[0].permute(1, 2, 0), values[5:15, 10:20] / 255, atol=1e-6)


def test_jpeg_is_pils_and_costs_detail(tmp_path):
    values = picture(32, 32, seed=7)
    Image.fromarray(values).save(tmp_path / "picture.jpg", quality=75)
    np.testing.assert_array_equal(through_jpeg(values, 75), np.asarray(Image.open(tmp_path / "picture.jpg")))
    loss = [abs(through_jpeg(values, quality).astype(int) - values).mean() for quality in (20, 75, 95)]
    assert loss[0] > loss[1] > loss[2] > 0
