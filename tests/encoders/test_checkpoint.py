"""Files that are not what they should be."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from neurocanvas import artifacts
from neurocanvas.encoders import EEGSpec, RidgeMapper, TargetBasis
from neurocanvas.encoders.checkpoint import load_mapper, save_mapper
from neurocanvas.errors import NeuroCanvasError


@pytest.fixture
def saved(tmp_path):
    """A small ridge mapper on disk."""
    rng = np.random.default_rng(0)
    basis = TargetBasis.fit(rng.normal(size=(9, 4, 16)), np.ones(9, int), 5)
    mapper = RidgeMapper(EEGSpec(("O1", "O2"), ("alpha",), (4, 16)), basis, np.zeros(2, "f4"), np.ones(2, "f4"))
    mapper.load_weights({"coefficients": rng.normal(size=(2, 5)).astype("f4"), "penalty": np.ones(1)})
    path = tmp_path / "ridge_s0_fold0_model.safetensors"
    save_mapper(mapper, path, "f" * 16, {"licence": "MIT"})
    return path


def rewrite(path, metadata=None, **changes):
    """Write the file again with some arrays or its head changed, without a card."""
    head = {"mapper": "ridge", "spec": {"ch_names": ["O1", "O2"], "bands": ["alpha"], "target_shape": [4, 16]}}
    save_file({**load_file(path), **changes}, path, {"neurocanvas": json.dumps({**head, **(metadata or {})})})
    artifacts.card_path(path).unlink()


def test_card_and_arrays_are_there(saved):
    assert artifacts.is_done(saved, "f" * 16)
    card = artifacts.read_card(saved)
    assert (card["mapper"], card["licence"], card["spec"]["ch_names"]) == ("ridge", "MIT", ["O1", "O2"])
    assert {"target_mean", "target_axes", "target_sd", "prediction_sd"} <= set(load_file(saved))
    assert "token_scale" not in load_file(saved)
    rewrite(saved)
    assert load_mapper(saved).predict(np.zeros((1, 2, 1))).shape == (1, 4, 16)


def test_damage_is_found_with_and_without_the_card(saved):
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(NeuroCanvasError, match="differs from what its card says"):
        load_mapper(saved)
    artifacts.card_path(saved).unlink()
    for damaged in (content[:200], b"not safetensors", b""):
        saved.write_bytes(damaged)
        with pytest.raises(NeuroCanvasError, match="damaged, or not a mapper"):
            load_mapper(saved)
    with pytest.raises(NeuroCanvasError, match="verb train"):
        load_mapper(saved.with_name("missing.safetensors"))


@pytest.mark.parametrize(
    ("metadata", "changes", "message"),
    [
        (None, {"target_axes": np.zeros((5, 60), "f4")}, r"target_axes should have shape \(5, 64\)"),
        (None, {"token_scale": np.ones(3, "f4")}, r"token_scale should have shape \(4,\)"),
        (None, {"coefficients": np.zeros((3, 5), "f4")}, r"shape \(2, 5\)"),
        ({"mapper": "oracle"}, {}, "allowed are mlp_sd, ridge, mean"),
        ({"spec": {"ch_names": ["O1"], "bands": ["alpha"], "target_shape": [4, 16]}}, {}, "feature_mean should"),
        ({"spec": {"channels": ["O1"]}}, {}, "damaged, or not a mapper"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(saved, metadata, changes, message):
    rewrite(saved, metadata, **changes)
    with pytest.raises(NeuroCanvasError, match=message) as caught:
        load_mapper(saved)
    assert "\n" not in str(caught.value)
