"""The network of mlp_sd: its layers, and the fold into one network from features to (77, 768)."""

import numpy as np
import pytest
import torch

from neurocanvas.config import EncoderSettings
from neurocanvas.encoders import EEGSpec, MLPMapper, TargetBasis
from neurocanvas.encoders.mlp import TEMPERATURES, TargetPosterior, build_network
from neurocanvas.errors import NeuroCanvasError


@pytest.fixture
def mapper():
    """An untrained mapper of the real target shape whose BatchNorm statistics are not the initial ones."""
    rng = np.random.default_rng(0)
    basis = TargetBasis.fit(rng.normal(size=(9, 77, 768)).astype(np.float32), np.ones(9, int), 5)
    spec = EEGSpec(("O1", "O2", "Oz"), ("alpha", "beta"))
    mean, sd = rng.normal(size=6).astype(np.float32), rng.uniform(0.5, 2, 6).astype(np.float32)
    made = MLPMapper(spec, basis, mean, sd)
    with torch.random.fork_rng(devices=[]):
        made.network = build_network(6, (8, 7, 6), 5, dropout=0.5, input_dropout=0.2)
        made.network.train()(torch.randn(32, 6))
    return made


@pytest.mark.parametrize(
    ("architecture", "layers", "widths"),
    [
        ("four-layer", ["Linear", "BatchNorm1d", "GELU", "Dropout"] * 3, (512, 512, 512)),
        ("released", ["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2, (1024, 2048)),
    ],
)
def test_the_architectures_are_the_published_and_the_released_one(architecture, layers, widths):
    settings = EncoderSettings(architecture=architecture)
    network = build_network(310, settings.widths, 64, activation=settings.activation)
    assert [type(layer).__name__ for layer in network] == ["Dropout", *layers, "Linear"]
    assert settings.widths == widths
    assert EncoderSettings(architecture=architecture, hidden=(8,)).widths == (8,)
    with pytest.raises(NeuroCanvasError, match="activation: allowed are gelu, relu; got 'tanh'"):
        build_network(6, (8,), 5, activation="tanh")


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_weights_say_which_activation_they_need_and_loading_draws_no_random_number(mapper, activation):
    with torch.random.fork_rng(devices=[]):
        mapper.network = build_network(6, (8, 7), 5, activation=activation)
        again = MLPMapper(mapper.spec, mapper.basis, mapper.feature_mean, mapper.feature_sd)
        before = torch.get_rng_state()
        again.load_weights(mapper.weights())
        assert torch.equal(before, torch.get_rng_state())
    assert (again.activation, again.hidden) == (activation, (8, 7))
    features = np.random.default_rng(1).normal(size=(4, 3, 2)).astype(np.float32)
    assert np.array_equal(again.predict(features), mapper.predict(features))


@pytest.mark.parametrize("token_weights", [(), (5.0, 1.0, 0.2)])
def test_folded_network_maps_raw_features_to_whole_targets(mapper, token_weights):
    features = np.random.default_rng(1).normal(size=(4, 3, 2)).astype(np.float32)
    counts, targets = np.ones(9, int), np.random.default_rng(2).normal(size=(9, 77, 768)).astype(np.float32)
    mapper.basis = TargetBasis.fit(targets, counts, 5, token_weights)
    before = mapper.predict(features)
    network = mapper.folded()
    with torch.no_grad():
        found = network(torch.from_numpy(features.reshape(4, 6))).numpy()
    assert found.shape == (4, 77, 768)
    assert np.std(found - mapper.basis.mean) > 1e-3
    np.testing.assert_allclose(found, mapper.predict(features), atol=1e-5)
    assert np.array_equal(before, mapper.predict(features)), "folding leaves the mapper as it was"


def test_a_mapper_with_a_posterior_is_not_folded_into_one_network(mapper):
    mapper.posterior = TargetPosterior(np.eye(5, dtype=np.float32), np.ones(5, np.float32), 1.0)
    with pytest.raises(NeuroCanvasError, match="contrastive = 0"):
        mapper.folded()


def test_the_temperature_has_the_least_validation_error():
    rng = np.random.default_rng(0)
    atoms, output, true = (rng.normal(size=(n, 4)).astype(np.float32) for n in (30, 20, 20))
    twice = np.concatenate([atoms, atoms[:10]])
    found = TargetPosterior.fit(twice, 3 * output, 3 * output + true, 0.7)
    assert len(found.atoms) == 30 and sorted(found.counts) == [1] * 20 + [2] * 10
    errors = [
        np.mean((TargetPosterior(found.atoms, found.counts, 0.7 * t).mean(3 * output) - 3 * output - true) ** 2)
        for t in TEMPERATURES
    ]
    assert found.temperature == pytest.approx(0.7 * TEMPERATURES[int(np.argmin(errors))])


def test_the_posterior_is_bayes_rule():
    atoms, counts = np.array([[2.0, 0.0], [0.0, 1.0], [-3.0, 0.0]], np.float32), np.array([1, 2, 5], np.float32)
    output = np.array([[0.0, 7.0], [-0.1, 0.0], [1.0, 1.0]], np.float32)
    found = TargetPosterior(atoms, counts, 0.5).mean(output)
    for row, expected in zip(output, found, strict=True):
        along = [row @ atom / np.linalg.norm(atom) for atom in atoms]
        likelihood = [count * np.exp(a / 0.5) for count, a in zip(counts, along, strict=True)]
        mean = sum(share * atom for share, atom in zip(likelihood, atoms, strict=True)) / sum(likelihood)
        np.testing.assert_allclose(expected, mean, atol=1e-6)


@pytest.mark.parametrize("change", ["missing", "narrow", "atoms", "foreign"])
def test_weights_that_do_not_fit_are_refused_in_one_line(mapper, change):
    weights = mapper.weights()
    if change == "missing":
        del weights["network.1.bias"]
    elif change == "narrow":
        weights["network.1.weight"] = weights["network.1.weight"][:, :4]
    elif change == "atoms":
        weights |= {"posterior.atoms": np.zeros((9, 4), np.float32), "posterior.counts": np.ones(9, np.float32)}
    else:
        weights = {"coefficients": np.zeros((6, 5), np.float32)}
    with pytest.raises(NeuroCanvasError, match="do not fit 6 features") as caught:
        mapper.load_weights(weights)
    assert "\n" not in str(caught.value)
