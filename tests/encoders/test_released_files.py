"""The released decoder's file, read and written: the same outputs, and one line for whatever is something else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from forward_passes import draw_state, perceptron
from released import MLPMapper as Module

from neurocanvas.config import ARCHITECTURES
from neurocanvas.data.montage import CH_NAMES
from neurocanvas.decoder import Decoder, Embeddings, load_decoder
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.pipeline import exchange as released_files
from neurocanvas.pipeline.exchange import SPEC, read_released_mapper, write_released_mapper
from neurocanvas.targets import TargetSpace

NORMS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def shapes(one, two):
    """Names and shapes of the released state dict with hidden layers of these widths."""
    layers = {"fc1": (one, 310), "fc2": (two, one), "fc3": (77 * 768, two)}
    found = {f"{name}.weight": shape for name, shape in layers.items()}
    found |= {f"{name}.bias": shape[:1] for name, shape in layers.items()}
    return found | {f"bn{n}.{name}": (width,) for n, width in ((1, one), (2, two)) for name in NORMS}


def write_state(path, state, **changes):
    """Write a state dict as the released code does."""
    arrays = {name: torch.from_numpy(np.array(array)) for name, array in {**state, **changes}.items()}
    torch.save(arrays, path)
    return path


def expected(state, features):
    """What the released module says of features (n, 62, 5), by its published layers in numpy, flat."""
    band_major = features.transpose(0, 2, 1).reshape(len(features), -1).astype(float)
    return perceptron(state, band_major, ("fc1", "fc2", "fc3"), ("bn1", "bn2"))


@pytest.fixture
def features():
    return np.random.default_rng(1).normal(size=(4, 62, 5)).astype(np.float32)


@pytest.fixture
def narrow(monkeypatch):
    """Released layers of other widths, which are quick to read; their state."""
    monkeypatch.setattr(released_files, "ARCHITECTURES", {"released": ((16, 8), "relu")})
    return draw_state(shapes(16, 8), 0)


def targets(decoder, features):
    """Whole targets that a decoder predicts from features."""
    return decoder.basis_.inverse(decoder.outputs(features))


def make_decoder(hidden, encoder="mlp_sd", activation="relu", spec=SPEC, contrastive=0.0):
    """A decoder of the released inputs and outputs, standardised and with BatchNorm statistics of data."""
    rng = np.random.default_rng(2)
    table = rng.normal(size=(24, 77, 768)).astype(np.float32)
    x = (rng.normal(size=(24, 62, 5)) * rng.uniform(0.5, 2, (62, 5)) - 3).astype(np.float32)
    network = {"encoder__hidden": hidden, "encoder__activation": activation} if encoder == "mlp_sd" else {}
    made = Decoder(encoder, "clip-text@sd14", epochs=1, n_components=5, contrastive=contrastive, **network)
    y = Embeddings(TargetSpace("clip-text", (77, 768), "sd14"), [], table)
    return made.fit_prepared(x, y, spec, train=np.arange(16), validation=np.arange(16, 24))


@pytest.mark.parametrize("widths", [(16, 8), pytest.param((1024, 2048), marks=pytest.mark.slow)])
def test_a_released_file_predicts_what_the_released_module_does(widths, monkeypatch, features, tmp_path):
    monkeypatch.setattr(released_files, "ARCHITECTURES", {"released": (widths, "relu")})
    state = draw_state(shapes(*widths), 0)
    mapper = read_released_mapper(write_state(tmp_path / "mlpsd_s0_0.pth", state))
    np.testing.assert_allclose(targets(mapper, features).reshape(4, -1), expected(state, features), atol=1e-5)
    np.testing.assert_allclose(mapper.basis_.axes @ mapper.basis_.axes.T, np.eye(widths[1]), atol=1e-5)
    mapper.save(tmp_path / "model.safetensors")
    assert np.array_equal(load_decoder(tmp_path / "model.safetensors").outputs(features), mapper.outputs(features))


def test_a_written_file_is_the_released_modules_own(features, tmp_path):
    mapper = make_decoder(ARCHITECTURES["released"][0])
    write_released_mapper(mapper, tmp_path / "mlpsd_s0_0.pth")
    state = torch.load(tmp_path / "mlpsd_s0_0.pth", weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.ndim} == {
        name: shape for name, shape in shapes(1024, 2048).items() if not name.endswith("tracked")
    }
    with torch.device("meta"):
        Module().load_state_dict(state, assign=True)
    some = {name: tensor.numpy()[::77] if "fc3" in name else tensor.numpy() for name, tensor in state.items()}
    np.testing.assert_allclose(expected(some, features), targets(mapper, features).reshape(4, -1)[:, ::77], atol=1e-5)
    assert np.std(targets(mapper, features) - mapper.basis_.mean) > 1e-3


def test_there_and_back_changes_nothing(narrow, features, tmp_path):
    mapper = read_released_mapper(write_state(tmp_path / "one.pth", narrow))
    write_released_mapper(mapper, tmp_path / "two.pth")
    again = read_released_mapper(tmp_path / "two.pth")
    np.testing.assert_allclose(targets(again, features), targets(mapper, features), atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pth", "two.pth"]


def test_what_the_released_module_has_no_room_for_is_refused(tmp_path, narrow):
    posterior, gelu, wide = make_decoder((16, 8)), make_decoder((16, 8), activation="gelu"), make_decoder((16, 9))
    posterior.posterior_ = np.eye(5, dtype="f4"), np.ones(5, "f4"), 1.0
    for decoder in (posterior, gelu, wide, make_decoder((), "ridge")):
        with pytest.raises(NeuroCanvasError, match="train mlp_sd with --recipe released"):
            write_released_mapper(decoder, tmp_path / "mlpsd_s0_0.pth")
    other = make_decoder((16, 8), spec=replace(SPEC, ch_names=CH_NAMES[::-1]))
    with pytest.raises(NeuroCanvasError, match="reads 62 channels and 5 bands"):
        write_released_mapper(other, tmp_path / "mlpsd_s0_0.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fc2.weight": np.zeros((8, 17), "f4")}, r"fc2.weight should have shape \(8, 16\); got \(8, 17\)"),
        ({"fc3.bias": np.zeros(768, "f4")}, r"fc3.bias should have shape \(59136,\)"),
        ({"bn2.running_var": None}, r"bn2.running_var should have shape \(8,\); got none"),
        ({"fc1.bias": np.full(16, np.nan, "f4")}, "fc1.bias holds NaN"),
    ],
    ids=str,
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(narrow, changes, message, tmp_path):
    state = {name: array for name, array in {**narrow, **changes}.items() if array is not None}
    with pytest.raises(NeuroCanvasError, match=message) as caught:
        read_released_mapper(write_state(tmp_path / "mlpsd_s0_0.pth", state))
    assert "\n" not in str(caught.value)
