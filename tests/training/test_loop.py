"""The loop: resumed training ends with the same bytes, and nobody else's randomness is touched."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import trial_spec

from neurocanvas.config import EncoderSettings
from neurocanvas.decoder import Decoder, Embeddings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets import TargetSpace
from neurocanvas.training.loop import CHECKPOINT_EVERY, find_device, find_precision
from neurocanvas.training.losses import EmbeddingLoss, contrastive_error, cosine_error, squared_error

SETTINGS = {
    "encoder__hidden": (12, 8), "encoder__dropout": 0.3, "encoder__input_dropout": 0.1, "epochs": 13, "patience": 13,
    "batch_size": 16, "n_components": 4, "device": "cpu",
}  # fmt: skip
TRAIN, VALIDATION = np.arange(33), np.arange(33, 53)


def make_data(seed=0):
    """Features of two channels, and targets of four numbers; 33 training trials leave a batch of one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(53, 2, 5)).astype(np.float32)
    y = (x.reshape(53, 10) @ rng.normal(size=(10, 4)) + rng.normal(size=(53, 4))).astype(np.float32)
    return x, y[:, None]


def fit(x, y, *, state=None, log=lambda _: None, **changes):
    decoder = Decoder("mlp_sd", "clip-text@none", **{**SETTINGS, **changes})
    targets = Embeddings(TargetSpace("clip-text", (1, 4), "none"), [], y)
    return decoder.fit_prepared(x, targets, trial_spec(2), train=TRAIN, validation=VALIDATION, state=state, log=log)


def same(one, other):
    """Whether the networks of two decoders have the same bytes."""
    first, second = one.encoder_.state_dict(), other.encoder_.state_dict()
    return all(first[name].numpy().tobytes() == second[name].numpy().tobytes() for name in first)


def test_a_killed_training_continues_to_the_same_bytes(tmp_path):
    path = tmp_path / "state"
    killed = subprocess.run(
        [sys.executable, __file__, path], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert killed.returncode == -signal.SIGKILL
    assert path.is_file()
    lines = []
    resumed, whole = fit(*make_data(), state=path, log=lines.append), fit(*make_data())
    assert lines[0]["epoch"] == CHECKPOINT_EVERY + 1, "it should continue, not start again"
    assert (resumed.history_, resumed.chosen_) == (whole.history_, whole.chosen_)
    assert same(resumed, whole)


def test_a_state_of_other_data_or_a_damaged_one_is_not_used(tmp_path):
    path = tmp_path / "state"
    fit(*make_data(1), epochs=5, state=path)
    whole = fit(*make_data(), epochs=5)
    assert same(fit(*make_data(), epochs=5, state=path), whole)
    path.write_bytes(path.read_bytes()[:1000])
    assert same(fit(*make_data(), epochs=5, state=path), whole)


@pytest.mark.parametrize("contrastive", [0.0, 10.0])
def test_the_epoch_is_the_one_with_the_lowest_validation_objective_and_patience_ends_it(contrastive):
    x, y = make_data()
    y[VALIDATION] = np.random.default_rng(3).normal(size=(20, 1, 4))
    decoder = fit(x, y, patience=3, weight_decay=0.01, contrastive=contrastive)
    losses = [line["val_objective"] for line in decoder.history_]
    assert decoder.chosen_ == 1 + int(np.argmin(losses))
    assert len(losses) == decoder.chosen_ + 3 < SETTINGS["epochs"]
    if not contrastive:
        found = decoder.basis_.inverse(decoder.outputs(x[VALIDATION]))
        error = np.mean((found - y[VALIDATION]) ** 2)
        assert error == pytest.approx(decoder.history_[decoder.chosen_ - 1]["val_loss"], rel=1e-4)


def test_global_randomness_is_neither_read_nor_changed():
    torch.manual_seed(1)
    first = fit(*make_data(), epochs=2)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))
    assert same(first, fit(*make_data(), epochs=2))
    assert not same(first, fit(*make_data(), epochs=2, seed=1))


def test_the_objective_is_the_weighted_sum_of_the_three_errors():
    one, two = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 9, 4)))
    alone = [squared_error(one, two), cosine_error(one, two), contrastive_error(one, two, 0.1)]
    for weights in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 3, 4)]:
        expected = sum(weight * float(error) for weight, error in zip(weights, alone, strict=True))
        assert float(EmbeddingLoss(*weights).loss(one, two)[0]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="must be above 0"):
        EncoderSettings(mse=0, cosine=0, contrastive=0)


def test_a_loss_that_is_not_finite_stops_with_one_line():
    with pytest.raises(NeuroCanvasError, match="lower learning_rate"):
        fit(*make_data(), learning_rate=1e30)


def test_threads_are_bounded_while_fitting_and_restored():
    before, seen = torch.get_num_threads(), []
    fit(*make_data(), epochs=1, threads=before + 1, log=lambda _: seen.append(torch.get_num_threads()))
    assert seen == [before + 1] and torch.get_num_threads() == before


def test_devices_and_precisions_that_are_not_there_are_refused():
    assert find_device("cpu").type == "cpu" and find_precision("auto", torch.device("cpu")) == "float32"
    for name, says in (("tpu", "cpu, cuda, mps; got 'tpu'"), ("cuda:99", "got 'cuda:99'"), ("cpu:x", "got 'cpu:x'")):
        with pytest.raises(NeuroCanvasError, match=f"device: .*{says}"):
            find_device(name)
    with pytest.raises(NeuroCanvasError, match="on cpu auto and float32 are allowed; got 'bfloat16'"):
        fit(*make_data(), precision="bfloat16")


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("precision", ["auto", "float32", "float16"])
def test_other_devices_find_about_what_the_cpu_does(device, precision):
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available() and precision != "float16"}
    if not there[device]:
        pytest.skip(f"no {device} here, or none with this precision")
    x, y = make_data()
    decoder = fit(x, y, device=device, precision=precision)
    assert decoder.device_ == device and decoder.outputs(x).shape == (53, 4)
    mse = [min(line["val_loss"] for line in one.history_) for one in (decoder, fit(x, y))]
    assert mse[0] == pytest.approx(mse[1], rel=0.3)


def _train_until_killed(path):
    """Train, and be killed in epoch 8 as if from outside."""
    torch.set_num_threads(1)

    def log(line):
        if line["epoch"] == 8:
            os.kill(os.getpid(), signal.SIGKILL)

    fit(*make_data(), state=path, log=log)


if __name__ == "__main__":
    _train_until_killed(Path(sys.argv[1]))
