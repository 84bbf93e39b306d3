"""The table of feature networks says what FIELD's survey says, and exactly that reaches a network."""

import numpy as np
import pytest
import torch
from PIL import Image

from neurocanvas.evaluation.feature_networks import (
    CLIP_MEAN,
    CLIP_STD,
    FEATURE_NETWORKS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    extract_features,
    preprocess,
)

# of MindEye: the side of the tensor; layers are compared in test_variants.py
MINDEYE = {"alexnet2": 256, "alexnet5": 256, "inception": 342, "clip": 224, "efficientnet-b1": 255, "swav": 224}


class Recorder:
    """A feature function that keeps what it was given."""

    def __init__(self):
        self.given = []

    def __call__(self, pixels):
        self.given.append(pixels)
        return (pixels.mean(dim=(2, 3), keepdim=True),)


def as_tensor(some):
    return torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2).float()


def pictures(n: int = 3, height: int = 300, width: int = 400) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(n, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", MINDEYE)
def test_mindeyes_tensor_reaches_the_network(name):
    size = MINDEYE[name]
    mean, std = (CLIP_MEAN, CLIP_STD) if name == "clip" else (IMAGENET_MEAN, IMAGENET_STD)
    network, recorder, values = FEATURE_NETWORKS[name], Recorder(), pictures()
    features = extract_features(values, lambda some: preprocess(some, network.preprocess), recorder, batch_size=2)
    assert [len(given) for given in recorder.given] == [2, 1]
    floats = torch.tensor(values).permute(0, 3, 1, 2) / 255
    first = torch.nn.functional.interpolate(floats, (256, 256), mode="bilinear", align_corners=False)
    second = torch.nn.functional.interpolate(first, (size, size), mode="bilinear", align_corners=False)
    expected = (second - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    np.testing.assert_allclose(torch.cat(recorder.given), expected, atol=2e-5)
    np.testing.assert_allclose(features, expected.mean(dim=(2, 3)), atol=1e-5)


def test_the_classifier_sees_a_bicubic_crop_of_518():
    network, recorder = FEATURE_NETWORKS["imagenet"], Recorder()
    extract_features(pictures(1), lambda some: preprocess(some, network.preprocess), recorder)
    image = Image.fromarray(pictures(1)[0]).resize((690, 518), Image.Resampling.BICUBIC).crop((86, 0, 604, 518))
    expected = (np.asarray(image) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(recorder.given[0][0].permute(1, 2, 0), expected, atol=1e-5)
    assert network.weights == "ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1" and network.layers == ("heads",)


def test_every_row_says_where_it_comes_from():
    for name, network in FEATURE_NETWORKS.items():
        assert network.layers and network.title and network.source, name
        assert (network.library == "transformers") == (not network.weights), name
        assert network.library != "torchvision" or network.preprocess is not None, name
    own = {name for name, network in FEATURE_NETWORKS.items() if network.preprocess is None}
    assert own == {"clip-vit-h", "dinov2", "imagenet-transformers", "fid-64", "fid-2048", "fid-logits"}
    assert "second judge" in FEATURE_NETWORKS["dinov2"].note


def test_features_do_not_depend_on_the_batch():
    values = pictures(5, 20, 20)
    whole, parts = (
        extract_features(values, as_tensor, lambda pixels: (pixels[:, :, ::5, ::5],), **how)
        for how in ({}, {"batch_size": 2})
    )
    np.testing.assert_array_equal(parts, whole)
    assert whole.shape == (5, 48) and whole.dtype == np.float32
