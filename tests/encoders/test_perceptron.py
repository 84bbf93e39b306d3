"""The perceptron: the released network to the number."""

import numpy as np
import pytest
import released
import torch
from forward_passes import outputs, perceptron
from tiny import concepts, trial_spec

from neurocanvas.encoders.mlp import MLP

LAYERS, NORMS = ("l1", "l2", "l3"), ("bn1", "bn2")


def features(n, *shape):
    return np.random.default_rng(1).normal(1, 2, (n, *shape)).astype(np.float32)


@pytest.mark.parametrize("whose", ["ours", "released"])
def test_it_is_the_published_network(whose, with_drawn_weights):
    network = MLP(trial_spec(n_bands=5), concepts(80)) if whose == "ours" else released.MLP(80)
    network, state = with_drawn_weights(network)
    x = features(4, 310)
    expected = perceptron(state, x, LAYERS, NORMS)
    assert expected.std() > 0.1
    np.testing.assert_allclose(outputs(network, x), expected, atol=1e-5)


def test_the_released_mapper_is_stated_right(with_drawn_weights):
    network, state = with_drawn_weights(released.MLPMapper(shape=(3, 4)))
    x = features(4, 310)
    expected = perceptron(state, x, ("fc1", "fc2", "fc3"), NORMS).reshape(4, 3, 4)
    np.testing.assert_allclose(outputs(network, x), expected, atol=1e-5)


def test_a_training_step_is_the_released_one(random_state, same_training):
    x = torch.from_numpy(features(20, 62, 5))
    same_training(MLP(trial_spec(n_bands=5), concepts(7), dropout=0), x, released.MLP(7, dropout=0), x, 7)


def test_other_sizes_and_flattening():
    network = MLP(trial_spec(3, n_bands=2), concepts(3), hidden=(5,)).eval()
    x = features(4, 3, 2)
    assert outputs(network, x).shape == (4, 3)
    assert np.array_equal(outputs(network, x), outputs(network, x.reshape(4, 6)))
    assert {name.split(".")[0] for name in network.state_dict()} == {"l1", "bn1", "l2"}
