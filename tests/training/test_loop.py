"""The loop: resumed training ends with the same bytes, and nobody else's randomness is touched."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from neurocanvas.config import EncoderSettings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.training.loop import CHECKPOINT_EVERY, fit, objective
from neurocanvas.training.losses import contrastive_error, cosine_error, squared_error

SETTINGS = EncoderSettings(hidden=(12, 8), dropout=0.3, input_dropout=0.1, epochs=13, patience=13, batch_size=16)


def make_data(seed=0):
    """Features, coordinates of training and of validation trials; 33 trials leave a batch of one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(53, 10)).astype(np.float32)
    y = (x @ rng.normal(size=(10, 4)) + rng.normal(size=(53, 4))).astype(np.float32)
    return x[:33], y[:33], x[33:], y[33:]


def same(one, other):
    """Whether two networks have the same bytes."""
    first, second = one.state_dict(), other.state_dict()
    return all(first[name].numpy().tobytes() == second[name].numpy().tobytes() for name in first)


def test_a_killed_training_continues_to_the_same_bytes(tmp_path):
    path = tmp_path / "state"
    killed = subprocess.run([sys.executable, __file__, path])
    assert killed.returncode == -signal.SIGKILL
    assert path.is_file()
    lines = []
    resumed = fit(*make_data(), SETTINGS, state=path, log=lines.append)
    whole = fit(*make_data(), SETTINGS)
    assert lines[0]["epoch"] == CHECKPOINT_EVERY + 1, "it should continue, not start again"
    assert resumed[1:] == whole[1:]
    assert same(resumed[0], whole[0])


def test_a_state_of_other_data_or_a_damaged_one_is_not_used(tmp_path):
    path = tmp_path / "state"
    short = SETTINGS.model_copy(update={"epochs": 5})
    fit(*make_data(1), short, state=path)
    whole = fit(*make_data(), short)
    assert same(fit(*make_data(), short, state=path)[0], whole[0])
    path.write_bytes(path.read_bytes()[:1000])
    assert same(fit(*make_data(), short, state=path)[0], whole[0])


@pytest.mark.parametrize("contrastive", [0.0, 10.0])
def test_the_epoch_is_the_one_with_the_lowest_validation_objective_and_patience_ends_it(contrastive):
    train, y, val, _ = make_data()
    noise = np.random.default_rng(3).normal(size=(len(val), 4)).astype(np.float32)
    settings = SETTINGS.model_copy(update={"patience": 3, "weight_decay": 0.01, "contrastive": contrastive})
    network, history, selected = fit(train, y, val, noise, settings)
    losses = [line["val_objective"] for line in history]
    assert selected == 1 + int(np.argmin(losses))
    assert len(history) == selected + 3 < settings.epochs
    if not contrastive:
        assert losses == pytest.approx([line["val_loss"] for line in history])
    with torch.no_grad():
        error = np.mean(np.sum((network(torch.from_numpy(val)).numpy() - noise) ** 2, axis=1))
    assert error / np.mean(np.sum(y**2, axis=1)) == pytest.approx(history[selected - 1]["val_loss"], rel=1e-4)


def test_global_randomness_is_neither_read_nor_changed():
    short = SETTINGS.model_copy(update={"epochs": 2})
    torch.manual_seed(1)
    first = fit(*make_data(), short)[0]
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))
    assert same(first, fit(*make_data(), short)[0])
    assert not same(first, fit(*make_data(), short.model_copy(update={"seed": 1}))[0])


def test_the_objective_is_the_weighted_sum_of_the_three_errors():
    one, two = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 9, 4)))
    alone = [squared_error(one, two), cosine_error(one, two), contrastive_error(one, two, 0.1)]
    for weights in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 3, 4)]:
        settings = EncoderSettings(**dict(zip(("mse", "cosine", "contrastive"), weights, strict=True)))
        expected = sum(weight * float(error) for weight, error in zip(weights, alone, strict=True))
        assert float(objective(one, two, settings)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="must be above 0"):
        EncoderSettings(mse=0, cosine=0, contrastive=0)


def test_a_loss_that_is_not_finite_stops_with_one_line():
    train, y, val, y_val = make_data()
    with pytest.raises(NeuroCanvasError, match="learning_rate"):
        fit(train, y, np.full_like(val, np.inf), y_val, SETTINGS)


def _train_until_killed(path):
    """Train, and be killed in epoch 8 as if from outside."""
    torch.set_num_threads(1)

    def log(line):
        if line["epoch"] == 8:
            os.kill(os.getpid(), signal.SIGKILL)

    fit(*make_data(), SETTINGS, state=path, log=log)


if __name__ == "__main__":
    _train_until_killed(Path(sys.argv[1]))
