"""The network of mlp_sd, its posterior, and the fold into one network from features to (77, 768)."""

import numpy as np
import pytest
import torch
from tiny import concepts, trial_spec

from neurocanvas.config import ARCHITECTURES
from neurocanvas.decoder import Decoder, Embeddings
from neurocanvas.encoders.mlp import MLPSD
from neurocanvas.encoders.target_pca import TEMPERATURES, fit_posterior, posterior_mean
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.pipeline.exchange import fold
from neurocanvas.targets import TargetSpace


def fitted(token_weights=()):
    """An mlp_sd of the real target shape, its features, and BatchNorm statistics that are not the initial ones."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(32, 3, 5)).astype(np.float32) * rng.uniform(0.5, 2, (3, 5)).astype(np.float32) + 1
    table = rng.normal(size=(32, 77, 768)).astype(np.float32)
    network = {"encoder__hidden": (8, 7, 6), "encoder__input_dropout": 0.2}
    decoder = Decoder(
        "mlp_sd", "clip-text@none", contrastive=0.0, epochs=2, n_components=5, token_weights=token_weights, **network
    )
    y = Embeddings(TargetSpace("clip-text", (77, 768), "none"), [], table)
    decoder.fit_prepared(features, y, trial_spec(3), train=np.arange(24), validation=np.arange(24, 32))
    return decoder, features[:4]


@pytest.mark.parametrize(
    ("architecture", "layers", "widths"),
    [
        ("four-layer", ["Linear", "BatchNorm1d", "GELU", "Dropout"] * 3, (512, 512, 512)),
        ("released", ["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2, (1024, 2048)),
    ],
)
def test_the_architectures_are_the_published_and_the_released_one(architecture, layers, widths):
    (hidden, activation), spec = ARCHITECTURES[architecture], trial_spec(n_bands=5)
    network = MLPSD(spec, concepts(64), hidden=hidden, activation=activation)
    assert [type(layer).__name__ for layer in network] == ["Dropout", *layers, "Linear"]
    assert hidden == widths
    with pytest.raises(NeuroCanvasError, match="activation: allowed are gelu, relu; got 'tanh'"):
        MLPSD(spec, concepts(5), activation="tanh")


@pytest.mark.parametrize("token_weights", [(), (5.0, 1.0, 0.2)])
def test_folded_network_maps_raw_features_to_whole_targets(token_weights):
    decoder, features = fitted(token_weights)
    before = decoder.basis_.inverse(decoder.outputs(features))
    network = fold(decoder)
    with torch.no_grad():
        found = network(torch.from_numpy(features.reshape(4, 15))).numpy()
    assert found.shape == (4, 77, 768)
    assert np.std(found - decoder.basis_.mean) > 1e-3
    np.testing.assert_allclose(found, before, atol=1e-5)
    after = decoder.basis_.inverse(decoder.outputs(features))
    assert np.array_equal(before, after), "folding leaves the decoder as it was"


def test_the_temperature_has_the_least_validation_error():
    rng = np.random.default_rng(0)
    atoms, output, true = (rng.normal(size=(n, 4)).astype(np.float32) for n in (30, 20, 20))
    twice = np.concatenate([atoms, atoms[:10]])
    found, counts, temperature = fit_posterior(twice, 3 * output, 3 * output + true, 0.7)
    assert len(found) == 30 and sorted(counts) == [1] * 20 + [2] * 10
    errors = [
        np.mean((posterior_mean(3 * output, found, counts, 0.7 * t) - 3 * output - true) ** 2) for t in TEMPERATURES
    ]
    assert temperature == pytest.approx(0.7 * TEMPERATURES[int(np.argmin(errors))])


def test_the_posterior_is_bayes_rule():
    atoms, counts = np.array([[2.0, 0.0], [0.0, 1.0], [-3.0, 0.0]], np.float32), np.array([1, 2, 5], np.float32)
    output = np.array([[0.0, 7.0], [-0.1, 0.0], [1.0, 1.0]], np.float32)
    found = posterior_mean(output, atoms, counts, 0.5)
    for row, expected in zip(output, found, strict=True):
        along = [row @ atom / np.linalg.norm(atom) for atom in atoms]
        likelihood = [count * np.exp(a / 0.5) for count, a in zip(counts, along, strict=True)]
        mean = sum(share * atom for share, atom in zip(likelihood, atoms, strict=True)) / sum(likelihood)
        np.testing.assert_allclose(expected, mean, atol=1e-6)
