"""The training loop of `mlp_sd`; a resumed run gives the same bytes as one that was never stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.artifacts import write_torch
from neurocanvas.config import EncoderSettings
from neurocanvas.encoders.mlp import build_network
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.training.losses import contrastive_error, cosine_error, spread, squared_error

if TYPE_CHECKING:
    import torch

# Epochs between two writes of the training state: a killed training repeats at most this many.
CHECKPOINT_EVERY = 5


def fit(
    train: np.ndarray,
    coordinates: np.ndarray,
    val: np.ndarray,
    val_coordinates: np.ndarray,
    settings: EncoderSettings,
    *,
    state: Path | None = None,
    log: Callable[[dict[str, Any]], None] = lambda _: None,
) -> tuple[torch.nn.Sequential, list[dict[str, float]], int]:
    """Train (n, n_features) -> (n, k); stop after `patience` epochs without a better val_objective, keep the best."""
    # History: losses as shares of the training targets' variance in coordinates (predicting the mean gives about 1);
    # epochs count from 1. A `state` of other data or settings is not used.
    import torch

    # Targets in units of their own spread (undone in the last layer): one learning rate fits all targets.
    scale = spread(coordinates)
    x, y = torch.from_numpy(train), torch.from_numpy((coordinates / scale).astype(np.float32))
    x_val, y_val = torch.from_numpy(val), torch.from_numpy((val_coordinates / scale).astype(np.float32))
    made_from = artifacts.fingerprint(train, coordinates, val, val_coordinates, settings)
    with own_randomness(settings.seed):
        sizes = (train.shape[1], settings.widths, coordinates.shape[1])
        network = build_network(*sizes, settings.dropout, settings.input_dropout, settings.activation)
        optimizer = torch.optim.AdamW(
            network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        best: dict[str, Any] = {"epoch": 0, "loss": float("inf"), "network": _copy(network)}
        history = _restore(state, made_from, network, optimizer, best)
        while len(history) < settings.epochs and len(history) - best["epoch"] < settings.patience:
            train_loss = _epoch(network, optimizer, x, y, settings)
            validation = _validate(network, x_val, y_val, settings)
            history.append({"epoch": len(history) + 1, "train_loss": train_loss, **validation})
            reached = validation["val_objective"]
            if not np.isfinite(reached):
                raise NeuroCanvasError(f"training: loss {reached} in epoch {len(history)}; lower learning_rate.")
            log(history[-1])
            if reached < best["loss"]:
                best.update(epoch=len(history), loss=reached, network=_copy(network))
            if len(history) % CHECKPOINT_EVERY == 0:
                _save(state, made_from, network, optimizer, best, history)
    network.load_state_dict(best["network"])
    with torch.no_grad():
        last: Any = network[-1]
        last.weight *= scale
        last.bias *= scale
    return network.eval(), history, best["epoch"]


def objective(predicted: torch.Tensor, true: torch.Tensor, settings: EncoderSettings) -> torch.Tensor:
    """The training loss: weighted sum of squared, cosine and contrastive error of (n, k) in units of `spread`."""
    loss = settings.mse * squared_error(predicted, true)
    if settings.cosine:
        loss = loss + settings.cosine * cosine_error(predicted, true)
    if settings.contrastive:
        loss = loss + settings.contrastive * contrastive_error(predicted, true, settings.temperature)
    return loss


def _validate(
    network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, settings: EncoderSettings
) -> dict[str, float]:
    """Squared error and objective on validation trials; the latter in shuffled batches, as in training."""
    import torch

    with torch.no_grad():
        found = network(x)
    # The contrastive error depends on the batch: same size as in training, and the same batches in every epoch.
    mixed = torch.randperm(len(x), generator=torch.Generator().manual_seed(settings.seed))
    parts = [
        objective(found[rows], y[rows], settings).item() * len(rows)
        for rows in mixed.tensor_split(-(-len(x) // settings.batch_size))
    ]
    return {"val_loss": squared_error(found, y).item(), "val_objective": sum(parts) / len(x)}


def _epoch(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    x: torch.Tensor,
    y: torch.Tensor,
    settings: EncoderSettings,
) -> float:
    """Train one epoch in random order; return the mean squared error, with the network in evaluation mode."""
    import torch

    network.train()
    total = 0.0
    for batch in torch.randperm(len(x)).split(settings.batch_size):
        if len(batch) > 1:  # BatchNorm has no variance of a single trial
            found = network(x[batch])
            loss = objective(found, y[batch], settings)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += squared_error(found.detach(), y[batch]).item() * len(batch)
    network.eval()
    return total / len(x)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Run a block with torch's global CPU generator seeded, and restore its state afterwards."""
    # Initialisation and dropout draw from the global state and take no generator.
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield


def _copy(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _save(
    path: Path | None,
    made_from: str,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Any],
    history: list[dict[str, float]],
) -> None:
    """Write all that the next epoch depends on, including the random state of dropout and shuffling."""
    import torch

    if path is None:
        return
    parts = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best": best,
        "history": history,
    }
    write_torch(path, {"made_from": made_from, "random": torch.get_rng_state(), **parts})


def _restore(
    path: Path | None,
    made_from: str,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Any],
) -> list[dict[str, float]]:
    """Continue from a state of the same data and settings; return the history so far."""
    import pickle

    import torch

    if path is None or not path.is_file():
        return []
    try:
        saved = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError):
        return []  # damaged: start again
    if not isinstance(saved, dict) or saved.get("made_from") != made_from:
        return []
    network.load_state_dict(saved["network"])
    optimizer.load_state_dict(saved["optimizer"])
    best.update(saved["best"])
    torch.set_rng_state(saved["random"])
    return list(saved["history"])
