"""EEGNet without the detour: equal to its layers as they are written, in evaluation and in training."""

import json
from pathlib import Path

import numpy as np
import pytest
import released
import torch
from forward_passes import eegnet as reference
from forward_passes import outputs
from tiny import concepts, trial_spec

from neurocanvas.encoders import eegnet
from neurocanvas.encoders.eegnet import EEGNET_SIZES, EEGNet, filter_signals, filtered_moments
from neurocanvas.errors import NeuroCanvasError

BRAINDECODE = json.loads((Path(__file__).parents[1] / "golden" / "braindecode_eegnet.json").read_text(encoding="utf-8"))

FROM_BRAINDECODE = {
    "conv_temporal": "conv1",
    "bnorm_temporal": "bn1",
    "conv_spatial.parametrizations.weight.original": "depthwise_conv.weight",
    "bnorm_1": "bn2",
    "conv_separable_depth": "separable_conv1",
    "conv_separable_point": "separable_conv2",
    "bnorm_2": "bn3",
    "final_layer.linearconstraint.parametrizations.weight.original": "fc1.weight",
    "final_layer.linearconstraint": "fc1",
}
"""Beginnings of names in braindecode's state dict -> ours."""


def signal(n, n_chans=62, n_times=400, unit=1.0):
    """Slow noise, a share of it common to all channels, with offsets."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(n, n_chans, n_times)).cumsum(axis=2) + rng.normal(size=(n, 1, n_times)).cumsum(axis=2)
    return ((noise + rng.normal(0, 5, (n, n_chans, 1))) * unit).astype(np.float32)


def sizes_of_braindecode(size):
    """Arguments that make braindecode's EEGNet one of ours."""
    ours = EEGNET_SIZES[size]
    norms = ours.max_norms or (1e9, 1e9)
    return {
        "kernel_length": round(ours.kernel * 1000), "pool1_kernel_size": ours.pools[0],
        "pool2_kernel_size": ours.pools[1], "conv_spatial_max_norm": norms[0], "norm_rate": norms[1],
        "batch_norm_eps": ours.eps, "batch_norm_momentum": ours.momentum, "final_layer_with_constraint": True,
    }  # fmt: skip


@pytest.mark.parametrize("size", [*EEGNET_SIZES, "module"])
def test_it_is_the_published_network(size, with_drawn_weights):
    """And so is the released module, of which our test tools hold a copy."""
    sizes = EEGNET_SIZES.get(size, EEGNET_SIZES["released"])
    ours = EEGNet(trial_spec(n_times=400), concepts(80), size=size) if size in EEGNET_SIZES else released.EEGNet(80)
    network, state = with_drawn_weights(ours)
    norms = sizes.max_norms or (np.inf, np.inf)
    expected = reference(state, signal(3), sizes.pools, sizes.eps, norms)
    assert expected.std() > 0.1
    np.testing.assert_allclose(outputs(network, signal(3)), expected, atol=1e-5)


@pytest.mark.parametrize("unit", [1.0, 0.05, 1e-6], ids=["microvolts", "standardised", "volts"])
def test_a_training_step_is_the_released_one(unit, random_state, monkeypatch, same_training):
    monkeypatch.setattr(eegnet, "DROPOUT", 0.0)
    x = torch.from_numpy(signal(8, unit=unit))
    same_training(EEGNet(trial_spec(n_times=400), concepts(7)), x, released.EEGNet(7, dropout=0), x, 7)


@pytest.mark.parametrize(("n_times", "length"), [(40, 11), (40, 12), (41, 8), (30, 1), (30, 2), (20, 31), (20, 50)])
def test_signals_are_filtered_as_by_a_convolution_layer_and_have_its_moments(n_times, length, random_state):
    x, kernels = torch.randn(3, 4, 2, n_times) + 2, torch.randn(4, length)
    weights = kernels.repeat_interleave(2, 0)[:, None]
    expected = torch.nn.functional.conv1d(x.flatten(1, 2), weights, padding=length // 2, groups=8)
    torch.testing.assert_close(filter_signals(x, kernels).flatten(1, 2), expected, rtol=1e-5, atol=1e-5)
    x = x.flatten(1, 2)
    filtered = torch.nn.functional.conv1d(x.flatten(0, 1)[:, None], kernels[:, None], padding=length // 2)
    mean, variance = filtered_moments(x, kernels)
    torch.testing.assert_close(mean, filtered.mean(dim=(0, 2)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(variance, filtered.var(dim=(0, 2), correction=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", EEGNET_SIZES)
@pytest.mark.parametrize(("n_chans", "n_times"), [(1, 40), (3, 41), (32, 250), (7, 399), (62, 501)])
def test_any_number_of_channels_and_samples(size, n_chans, n_times, random_state):
    x = torch.randn(4, n_chans, n_times, requires_grad=True)
    network = EEGNet(trial_spec(n_chans, n_times, 250.0), concepts(3), size=size)
    found = network(x)
    assert found.shape == (4, 3)
    found.square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(weights.grad is not None and weights.grad.isfinite().all() for weights in network.parameters())


def test_the_papers_weights_are_shortened_to_their_norms():
    network = EEGNet(trial_spec(n_times=400), concepts(5), size="paper").eval()
    with torch.no_grad():
        network.depthwise_conv.weight.mul_(50)
        network.fc1.weight.mul_(50)
        before = outputs(network, signal(2))
        network.depthwise_conv.weight.mul_(3)
        network.fc1.weight.mul_(3)
    np.testing.assert_allclose(outputs(network, signal(2)), before, atol=1e-5)


@pytest.mark.parametrize("size", EEGNET_SIZES)
def test_it_puts_out_what_braindecodes_did(size, with_drawn_weights):
    stored = BRAINDECODE[size]
    network, _ = with_drawn_weights(EEGNet(trial_spec(n_times=400), concepts(4), size=size), seed=3)
    assert sum(weights.numel() for weights in network.parameters()) == stored["parameters"]
    np.testing.assert_allclose(outputs(network, signal(2)), stored["outputs"], atol=1e-5)


@pytest.mark.parametrize("size", EEGNET_SIZES)
def test_it_is_braindecodes_network(size, with_drawn_weights):
    models = pytest.importorskip("braindecode.models")
    import torch

    network, state = with_drawn_weights(EEGNet(trial_spec(n_times=400), concepts(4), size=size), seed=3)
    theirs = models.EEGNet(n_chans=62, n_outputs=4, n_times=400, **sizes_of_braindecode(size)).eval()
    taken = {}
    for name in theirs.state_dict():
        begin = max((begin for begin in FROM_BRAINDECODE if name.startswith(begin)), key=len)
        taken[name] = torch.from_numpy(state[FROM_BRAINDECODE[begin] + name.removeprefix(begin)])
    assert len(taken) == len(state)
    theirs.load_state_dict(taken)
    np.testing.assert_allclose(outputs(network, signal(2)), outputs(theirs, signal(2)), atol=1e-5)


def test_trials_that_are_too_short_and_unknown_sizes_are_refused():
    with pytest.raises(NeuroCanvasError, match="40 samples or more are needed; got 39"):
        EEGNet(trial_spec(n_times=39), concepts(80))
    with pytest.raises(NeuroCanvasError, match="released, paper"):
        EEGNet(trial_spec(n_times=400), concepts(80), size="large")
