"""RGNN: the graph, and the released network to the number."""

import json
from pathlib import Path

import numpy as np
import pytest
import released
import torch
from forward_passes import outputs
from forward_passes import rgnn as reference
from tiny import concepts, trial_spec

from neurocanvas.data.montage import CH_NAMES, POSITIONS
from neurocanvas.encoders.rgnn import GLOBAL_PAIRS, RGNN, electrode_graph
from neurocanvas.errors import NeuroCanvasError

RELEASED = json.loads((Path(__file__).parents[1] / "golden" / "released_graph.json").read_text(encoding="utf-8"))


def features(n, n_chans=62):
    return np.random.default_rng(1).normal(1, 2, (n, n_chans, 5)).astype(np.float32)


def flat(x, layout):
    """Features as vectors, in the order in which the layout reads them."""
    return (x if layout == "channel-major" else x.swapaxes(1, 2)).reshape(len(x), -1)


def test_the_graph_is_the_released_one():
    graph = electrode_graph()
    assert np.array_equal(graph, graph.T) and np.all(np.diag(graph) == 1)
    for name, row in RELEASED["rows"].items():
        np.testing.assert_allclose(graph[CH_NAMES.index(name)], row, atol=3e-3)
    assert graph.sum() == pytest.approx(RELEASED["sum"], abs=0.1)


def test_global_pairs_are_lowered_by_one():
    for first, second in GLOBAL_PAIRS:
        i, j = CH_NAMES.index(first), CH_NAMES.index(second)
        without = min(1, 4.71e-3 / np.sum((POSITIONS[i] - POSITIONS[j]) ** 2))
        assert electrode_graph()[i, j] == pytest.approx(without - 1, abs=1e-6)


def test_other_electrodes_have_the_same_rule_and_the_pairs_that_are_there():
    some = [CH_NAMES.index(name) for name in ("O2", "FP1", "CZ", "O1")]
    np.testing.assert_allclose(electrode_graph(POSITIONS[some]), electrode_graph()[np.ix_(some, some)])
    assert electrode_graph(POSITIONS + 0.01).min() > 0  # no pair is where the montage has it


@pytest.mark.parametrize("layout", ["channel-major", "scrambled", "module"])
def test_it_is_the_published_network(layout, with_drawn_weights):
    """And so is the released module, of which our test tools hold a copy."""
    ours = (
        released.RGNN(electrode_graph(), 80)
        if layout == "module"
        else RGNN(trial_spec(n_bands=5), concepts(80), layout=layout)
    )
    network, state = with_drawn_weights(ours)
    expected = reference(state, flat(features(4), layout))
    assert expected.std() > 0.1
    x = flat(features(4), layout) if layout == "module" else features(4)
    np.testing.assert_allclose(outputs(network, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["channel-major", "scrambled"])
def test_a_training_step_is_the_released_one(layout, random_state, same_training):
    x, vectors = (torch.from_numpy(array) for array in (features(12), flat(features(12), layout)))
    ours = RGNN(trial_spec(n_bands=5), concepts(7), layout=layout, dropout=0)
    same_training(ours, x, released.RGNN(electrode_graph(), 7, dropout=0), vectors, 7)


def test_domains_of_all_nodes_and_their_reversed_gradient_are_the_released_ones(random_state):
    ours = RGNN(trial_spec(n_bands=5), concepts(7), layout="scrambled", domain_adaptation=True)
    theirs = released.RGNN(electrode_graph(), 7, domains=True)
    theirs.load_state_dict(ours.state_dict())
    x = features(6)
    logits, domains = ours(torch.from_numpy(x), 0.3)
    _, expected = theirs(torch.from_numpy(flat(x, "scrambled")), 0.3, need_dat=True)
    assert logits.shape == (6, 7) and domains.shape == (6, 62, 2)
    torch.testing.assert_close(domains.flatten(0, 1), expected, rtol=1e-5, atol=1e-5)
    for found in (domains, expected):
        found.square().mean().backward()
    for name in ("edge_weight", "conv1.lin.weight", "bn.weight", "domain_classifier.weight"):
        gradients = [dict(one.named_parameters())[name].grad for one in (ours, theirs)]
        assert gradients[0].abs().max() > 1e-6, name
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_a_channel_without_edges_is_no_division_by_zero():
    network = RGNN(trial_spec(n_bands=5), concepts(3)).eval()
    with torch.no_grad():
        network.edge_weight.zero_()
    assert np.isfinite(outputs(network, features(2))).all()


def test_other_montages_and_numbers_of_bands():
    network = RGNN(trial_spec(7, n_bands=2), concepts(3)).eval()
    assert outputs(network, features(4, 7)[..., :2]).shape == (4, 3)


@pytest.mark.parametrize("positions", [np.zeros((62, 2)), np.zeros(62), np.full((3, 3), np.nan)])
def test_bad_positions_and_unknown_layouts_are_refused(positions):
    with pytest.raises(NeuroCanvasError, match="positions"):
        electrode_graph(positions)
    with pytest.raises(NeuroCanvasError, match="channel-major, scrambled"):
        RGNN(trial_spec(n_bands=5), concepts(3), layout="band-major")
