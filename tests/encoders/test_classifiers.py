"""The registry of encoders: released files, models of braindecode by name, and what is refused."""

import sys
import types

import numpy as np
import pytest
import released
import torch
from sklearn.linear_model import RidgeClassifier
from tiny import concepts, trial_spec

from neurocanvas import decoder
from neurocanvas.config import ClassifySettings
from neurocanvas.data.montage import positions_of
from neurocanvas.decoder import Decoder
from neurocanvas.encoders import ENCODERS, build, find_encoder
from neurocanvas.encoders.rgnn import electrode_graph
from neurocanvas.errors import NeuroCanvasError


def test_default_settings_name_encoders_of_concepts():
    assert all(ENCODERS[name].concept for name in ClassifySettings().models)
    with pytest.raises(NeuroCanvasError, match=r"encoder of embeddings: allowed are mlp_sd, mean, ridge.*got 'svm'"):
        find_encoder("svm", "embedding")


def test_scores_of_two_concepts_and_of_one_that_was_never_seen():
    x, y = np.array([[0.0], [1.0], [0.1], [0.9]]), np.array([0, 2, 0, 2])
    scores = decoder._concept_scores(RidgeClassifier().fit(x, y), x, 3)
    assert scores.shape == (4, 3) and np.isneginf(scores[:, 1]).all()
    assert scores.argmax(axis=1).tolist() == y.tolist()


def made(name, **parameters):
    """A network and the decoder around it, of 62 channels and 7 concepts, as the released recipe takes them."""
    recipe = parameters.pop("recipe", "released")
    one = Decoder(name, recipe=recipe, **parameters)
    spec = trial_spec(n_times=400, n_bands=0 if one.takes == "signal" else 5)
    what, of_encoder = one.encoder_class()
    return build(what, spec, concepts(7), of_encoder), spec


@pytest.mark.parametrize("name", ["eegnet", "mlp", "rgnn"])
def test_a_released_file_gives_the_released_network(name, tmp_path, with_drawn_weights):
    kinds = {"eegnet": released.EEGNet, "mlp": released.MLP, "rgnn": lambda n: released.RGNN(electrode_graph(), n)}
    theirs, _ = with_drawn_weights(kinds[name](7))
    torch.save(theirs.state_dict(), tmp_path / f"{name}_s0_1x_0.pth")
    ours, spec = made(name, **({"encoder__layout": "scrambled"} if name == "rgnn" else {}))
    decoder._start_from(ours, tmp_path / f"{name}_s0_1x_0.pth", spec, "released")
    x = np.random.default_rng(1).normal(1, 2, (4, 62, len(spec.bands) or 400)).astype(np.float32)
    x = torch.from_numpy(x)
    with torch.no_grad():
        expected = theirs.eval()(x if name == "eegnet" else x.transpose(1, 2).flatten(1))
        assert expected.std() > 0.05
        torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "recipe", "says"),
    [
        ("mlp", "default", "classify.recipe must be 'released' for them .*, got 'default'"),
        ("rgnn", "released", "classify.rgnn_layout must be 'scrambled' .* got 'channel-major'"),
    ],
)
def test_a_released_file_is_refused_where_its_inputs_would_mean_something_else(name, recipe, says, tmp_path):
    network, spec = made(name)
    torch.save(network.state_dict(), tmp_path / "released.pth")
    with pytest.raises(NeuroCanvasError, match=says) as caught:
        decoder._start_from(network, tmp_path / "released.pth", spec, recipe)
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
    row = find_encoder("braindecode:Net")
    assert (row.inputs, row.title) == (("signal",), "Net*")
    network, _ = made("braindecode:Net")
    assert network(torch.zeros(2, 62, 400)).shape == (2, 7)
    with pytest.raises(NeuroCanvasError, match="has no model 'Nett'"):
        find_encoder("braindecode:Nett")
    with pytest.raises(NeuroCanvasError, match=r"cannot be built for .*too small") as caught:
        build(row.concept, trial_spec(n_times=5), concepts(5), {})
    assert "\n" not in str(caught.value)


def test_without_braindecode_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "braindecode", None)
    monkeypatch.setitem(sys.modules, "braindecode.models", None)
    with pytest.raises(NeuroCanvasError, match=r"pip install 'neurocanvas\[braindecode\]'"):
        find_encoder("braindecode:ATCNet")


def test_real_models_of_braindecode_classify():
    pytest.importorskip("braindecode")
    assert made("braindecode:ShallowFBCSPNet")[0](torch.zeros(2, 62, 400)).shape == (2, 7)


def test_positions_are_those_of_the_montage_or_of_mne():
    assert np.allclose(positions_of(("oz",)), positions_of(("OZ",)))
    assert positions_of(("TP9", "AF7", "AF8", "TP10", "POz")).shape == (5, 3)
    with pytest.raises(NeuroCanvasError, match="channel XYZ"):
        positions_of(("CZ", "XYZ"))
