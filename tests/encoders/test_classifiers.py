"""The registry of classifiers: names, what they take, and models of braindecode by name."""

import sys
import types

import numpy as np
import pytest
import released
import torch

from neurocanvas.config import ClassifySettings
from neurocanvas.data.montage import CH_NAMES, positions_of
from neurocanvas.encoders.estimators import CLASSIFIERS, Network, TrialSpec, class_scores, find_classifier, load_network
from neurocanvas.encoders.rgnn import electrode_graph
from neurocanvas.errors import NeuroCanvasError

SPEC = TrialSpec(CH_NAMES, 1000.0, 400, 5)


def test_default_settings_name_every_classifier():
    assert ClassifySettings().models == tuple(CLASSIFIERS)


@pytest.mark.parametrize("name", [name for name, kind in CLASSIFIERS.items() if isinstance(kind, Network)])
@pytest.mark.parametrize("n_chans", [62, 5])
def test_networks_take_any_number_of_channels(name, n_chans):
    kind = CLASSIFIERS[name]
    n_last = 400 if kind.takes == "signal" else 5
    network = kind.build(TrialSpec(CH_NAMES[-n_chans:], 1000.0, n_last, 7), ClassifySettings()).eval()
    assert network(torch.zeros(3, n_chans, n_last)).shape == (3, 7)


def test_class_scores_of_two_concepts_and_of_one_that_was_never_seen():
    x = np.array([[0.0], [1.0], [0.1], [0.9]])
    y = np.array([0, 2, 0, 2])
    estimator = CLASSIFIERS["ridge"].build(1.0, 0).fit(x, y)
    scores = class_scores(estimator, x, 3)
    assert scores.shape == (4, 3) and np.isneginf(scores[:, 1]).all()
    assert scores.argmax(axis=1).tolist() == y.tolist()


RELEASED = ClassifySettings(recipe="released", rgnn_layout="scrambled")


@pytest.mark.parametrize("name", ["eegnet", "mlp", "rgnn"])
def test_a_released_file_gives_the_released_network(name, tmp_path, with_drawn_weights):
    kinds = {"eegnet": released.EEGNet, "mlp": released.MLP, "rgnn": lambda n: released.RGNN(electrode_graph(), n)}
    theirs, _ = with_drawn_weights(kinds[name](7))
    torch.save(theirs.state_dict(), tmp_path / f"{name}_s0_1x_0.pth")
    kind, spec = CLASSIFIERS[name], TrialSpec(CH_NAMES, 1000.0, 400 if name == "eegnet" else 5, 7)
    ours = kind.build(spec, RELEASED)
    load_network(ours, tmp_path / f"{name}_s0_1x_0.pth", spec, RELEASED)
    x = torch.from_numpy(np.random.default_rng(1).normal(1, 2, (4, 62, spec.n_last)).astype(np.float32))
    with torch.no_grad():
        expected = theirs.eval()(x if name == "eegnet" else x.transpose(1, 2).flatten(1))
        assert expected.std() > 0.05
        torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("mlp", {"recipe": "default"}, "classify.recipe must be 'released' for them .*, got 'default'"),
        ("rgnn", {"rgnn_layout": "channel-major"}, "classify.rgnn_layout must be 'scrambled' .* got 'channel-major'"),
    ],
)
def test_a_released_file_is_refused_where_its_inputs_would_mean_something_else(name, change, says, tmp_path):
    spec, settings = TrialSpec(CH_NAMES, 1000.0, 5, 7), RELEASED.model_copy(update=change)
    network = CLASSIFIERS[name].build(spec, settings)
    torch.save(network.state_dict(), tmp_path / "released.pth")
    with pytest.raises(NeuroCanvasError, match=says) as caught:
        load_network(network, tmp_path / "released.pth", spec, settings)
    assert "\n" not in str(caught.value)


class _Net(torch.nn.Module):
    """A network with braindecode's signature."""

    def __init__(self, n_chans, n_outputs, n_times, sfreq):
        super().__init__()
        if n_times < 10:
            raise ValueError("n_times is too\nsmall")
        self.layer = torch.nn.Linear(n_chans * n_times, n_outputs)

    def forward(self, x):
        return self.layer(x.flatten(1))


@pytest.fixture
def braindecode(monkeypatch):
    """A package with one model, in the place of braindecode."""
    models = types.ModuleType("braindecode.models")
    models.Net = _Net
    monkeypatch.setitem(sys.modules, "braindecode", types.ModuleType("braindecode"))
    monkeypatch.setitem(sys.modules, "braindecode.models", models)


def test_models_of_braindecode_are_found_by_name(braindecode):
    kind = find_classifier("braindecode:Net")
    assert (kind.takes, kind.title) == ("signal", "Net*")
    assert kind.build(SPEC, ClassifySettings())(torch.zeros(2, 62, 400)).shape == (2, 5)
    with pytest.raises(NeuroCanvasError, match="has no model 'Nett'"):
        find_classifier("braindecode:Nett")
    with pytest.raises(NeuroCanvasError, match=r"cannot be built for .*too small") as caught:
        kind.build(TrialSpec(CH_NAMES, 1000.0, 5, 5), ClassifySettings())
    assert "\n" not in str(caught.value)


def test_without_braindecode_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "braindecode", None)
    monkeypatch.setitem(sys.modules, "braindecode.models", None)
    with pytest.raises(NeuroCanvasError, match=r"pip install 'neurocanvas\[braindecode\]'"):
        find_classifier("braindecode:ATCNet")


def test_real_models_of_braindecode_classify():
    pytest.importorskip("braindecode")
    kind = find_classifier("braindecode:ShallowFBCSPNet")
    assert kind.build(SPEC, ClassifySettings())(torch.zeros(2, 62, 400)).shape == (2, 5)


def test_positions_are_those_of_the_montage_or_of_mne():
    assert np.allclose(positions_of(("oz",)), positions_of(("OZ",)))
    assert positions_of(("TP9", "AF7", "AF8", "TP10", "POz")).shape == (5, 3)
    with pytest.raises(NeuroCanvasError, match="channel XYZ"):
        positions_of(("CZ", "XYZ"))
