"""The network of mlp_sd, its posterior, and the fold into one network from features to (77, 768)."""

import numpy as np
import pytest
import torch
from tiny import concepts, trial_spec

from neurocanvas.config import ARCHITECTURES
from neurocanvas.data.trials import TrialSpec
from neurocanvas.decoder import Decoder, Embeddings, load_decoder
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


def trained(tmp_path, **options):
    """A decoder of embeddings, read from its file, with features, targets and history; features have their own mean."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 3, 5)).astype(np.float32) * 3 + 7
    table = (features.reshape(60, 15)[:, :6] @ rng.normal(size=(6, 8))).astype(np.float32).reshape(60, 2, 4) + 5
    y = Embeddings(TargetSpace("clip-text", (2, 4), "none"), [], table)
    decoder = Decoder("mlp_sd", "clip-text@none", n_components=4, **options)
    decoder.fit_prepared(features, y, trial_spec(3), train=np.arange(40), validation=np.arange(40, 60))
    decoder.save(tmp_path / "decoder.safetensors")
    again = load_decoder(tmp_path / "decoder.safetensors")
    np.testing.assert_array_equal(again.outputs(features), decoder.outputs(features))
    return again, decoder, features


def test_the_released_recipe_is_the_seeds_training(tmp_path, monkeypatch):
    monkeypatch.setattr("neurocanvas.decoder.RELEASED_EPOCHS", 12)
    again, decoder, _ = trained(tmp_path, recipe="released")
    assert again.encoder_.hidden == (1024, 2048) and again.encoder_.activation == "relu"
    assert not again.mean_.any() and (again.sd_ == 1).all(), "features are as they are"
    assert again.posterior_ is None, "squared error alone"
    losses = [line["val_loss"] for line in decoder.history_]
    assert len(losses) == 12 and decoder.chosen_ == 1 + int(np.argmin(losses)), "no early stop, best validation epoch"
    _, _, optimizer = decoder._recipe(decoder.encoder_)
    assert type(optimizer).__name__ == "Adam" and optimizer.defaults["lr"] == 1e-3
    assert optimizer.defaults["weight_decay"] == 0
    with pytest.raises(NeuroCanvasError, match="recipe: allowed are default; got 'released'"):
        Decoder("ridge", "clip-text@none", recipe="released").check_parameters()


def test_matched_outputs_have_the_mean_and_scale_of_the_training_targets_and_the_direction_of_the_network(tmp_path):
    options = {"encoder__hidden": (8,), "epochs": 20, "weight_decay": 0.01}
    again, decoder, features = trained(tmp_path, conditions="output", **options)
    drawn, output = again.outputs(features[40:]), again.network_outputs(features[40:])
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=1e-4)
    assert drawn.var(axis=0).sum() == pytest.approx(np.sum(decoder.basis_.target_sd**2), rel=0.01)
    centred = output - output.mean(axis=0)
    np.testing.assert_allclose(drawn / np.linalg.norm(drawn), centred / np.linalg.norm(centred), atol=1e-5)
    posterior = trained(tmp_path, **options)[0]
    assert posterior.matched_ is None and posterior.posterior_ is not None
    np.testing.assert_array_equal(posterior.network_outputs(features), again.network_outputs(features))


def test_the_order_of_bands_survives_the_file(tmp_path):
    rng, y = np.random.default_rng(0), np.repeat(["cat", "dog"], 20)
    x = rng.normal(size=(40, 2, 100)) * 1e-5
    bands = {"theta": (4.0, 8.0), "alpha": (8.0, 13.0), "low": (25.0, 35.0)}
    spec = TrialSpec(("O1", "O2"), 100.0, 0.0, 100)
    decoder = Decoder("ridge", spec=spec, bands=bands, window=(0.0, 1.0)).fit(x, y)
    decoder.save(tmp_path / "decoder.safetensors")
    again = load_decoder(tmp_path / "decoder.safetensors")
    assert again.input_spec.bands == ("theta", "alpha", "low")
    np.testing.assert_array_equal(again.decision_function(x), decoder.decision_function(x))
