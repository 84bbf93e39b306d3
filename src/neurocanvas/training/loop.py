"""The training loop of every network; on a CPU, a resumed training gives the same bytes as an uninterrupted one."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neurocanvas.artifacts import write_torch
from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.training.losses import ConceptLoss, EmbeddingLoss

# Epochs between two writes of the training state: a killed training repeats at most this many.
CHECKPOINT_EVERY = 5

# Trials of signal that are read or evaluated at once; sets memory, not results.
AT_ONCE = 400

# Factor, constant and size by which a loss x of the history becomes (factor * x + constant) / size.
Units = Mapping[str, tuple[float, float, int]]

PRECISIONS = ("auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Inputs:
    """Trials, standardised when they are indexed."""

    x: Any  # (n, n_chans, n_bands) or (n, n_chans, n_times): an array, or what is indexed like one
    mean: np.ndarray
    sd: np.ndarray
    device: torch.device

    def __getitem__(self, rows: np.ndarray | slice) -> Tensor:
        standardised = ((self.x[rows] - self.mean) / self.sd).astype(np.float32, copy=False)
        return torch.from_numpy(standardised).to(self.device)


def train(
    network: nn.Module, inputs: Inputs | Tensor, y: Tensor, rows: np.ndarray, validation: np.ndarray,
    objective: ConceptLoss | EmbeddingLoss, optimizer: torch.optim.Optimizer, *, epochs: int, patience: int,
    batch_size: int, units: Units, precision: str = "float32",
    adapt_to: np.ndarray | None = None, watch: np.ndarray | None = None, watch_epochs: bool = False,
    state: Path | None = None, made_from: str = "", log: Callable[[dict[str, Any]], None] = lambda _: None,
) -> tuple[list[dict[str, Any]], int, Tensor | None, list[Tensor]]:  # fmt: skip
    """Train until the objective has not improved for `patience` epochs on `validation`; without any, to the end."""
    # Returns the history, with losses in `units`; the selected epoch, from 1, whose weights the network keeps; and the
    # outputs on the trials to `watch` after the last epoch, and after each.
    scaler = torch.amp.GradScaler(inputs.device.type, enabled=precision == "float16")
    parts: dict[str, Any] = {"network": network, "optimizer": optimizer, "scaler": scaler}
    # Epoch and value of each quality at its best, and the weights at the best of the first.
    best: dict[str, Any] = {"epochs": [0, 0], "values": [(-float("inf"),)] * 2, "state": {}}
    history, every = _restore(state, made_from, parts, best)
    while len(history) < epochs and len(history) - max(best["epochs"]) < patience:
        adapt = None
        if adapt_to is not None and hasattr(network, "domain_classifier"):
            adapt = partial(_outputs_and_domain_loss, network, inputs, adapt_to, len(history) / epochs)
        loss = _epoch(network, inputs, y, rows, objective, batch_size, optimizer, scaler, precision, adapt)
        line: dict[str, Any] = {"epoch": len(history) + 1, "train_loss": loss}
        qualities: list[tuple[float, ...]] = []
        if len(validation):
            true = y[torch.from_numpy(validation).to(inputs.device)]
            with torch.no_grad():
                scores, qualities = objective.validate(evaluate(network, inputs, validation), true)
            line |= scores
        if watch_epochs and watch is not None:
            every.append(evaluate(network, inputs, watch).cpu())
        for name, value in line.items():
            if not np.isfinite(value):
                raise NeuroCanvasError(
                    f"training: {name} {value} in epoch {line['epoch']}; lower learning_rate, or leave out bad trials."
                )
            if name in units:
                factor, constant, size = units[name]
                line[name] = (value * factor + constant) / size
        history.append(line)
        log(line)
        for which, quality in enumerate(qualities):
            if quality > best["values"][which]:
                best["epochs"][which], best["values"][which] = line["epoch"], quality
                if which == 0:
                    best["state"] = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        if state is not None and len(history) % CHECKPOINT_EVERY == 0:
            # everything that the next epoch depends on, including the random state of dropout and shuffling
            random = {"cpu": torch.get_rng_state()}
            if torch.cuda.is_available():
                random["cuda"] = torch.cuda.get_rng_state()
            progress = {"made_from": made_from, "random": random, "best": best, "history": history, "every": every}
            write_torch(state, progress | {name: part.state_dict() for name, part in parts.items()})
    final = None if watch is None else evaluate(network, inputs, watch).cpu()
    if best["state"]:
        network.load_state_dict(best["state"])
    return history, best["epochs"][0] or len(history), final, every


def evaluate(network: nn.Module, inputs: Inputs | Tensor, rows: np.ndarray) -> Tensor:
    """Outputs of some trials, in float32 whatever the precision of training."""
    batches = [rows] if isinstance(inputs, Tensor) else np.array_split(rows, max(1, -(-len(rows) // AT_ONCE)))
    network.eval()
    with torch.no_grad():
        return torch.cat([network(inputs[batch]) for batch in batches])


def find_device(name: str = "auto") -> torch.device:
    """The device of a setting; `auto` is CUDA, else MPS, else the CPU."""
    available = [kind for kind in ("cuda", "mps") if getattr(torch, kind).is_available()] + ["cpu"]
    if name == "auto":
        return torch.device(available[0])
    kind, _, number = str(name).partition(":")
    check_option("device", kind, ("cpu", "cuda", "mps"))
    if kind not in available or (number and not (number.isdigit() and int(number) < torch.cuda.device_count())):
        raise NeuroCanvasError(f"device: this machine has {', '.join(available)}; got {name!r}. Use auto.")
    return torch.device(name)


def find_precision(name: str, device: torch.device) -> str:
    """The precision of a setting; `auto` is mixed on CUDA, and float32 elsewhere."""
    check_option("precision", name, PRECISIONS)
    if device.type != "cuda":
        if name not in ("auto", "float32"):
            raise NeuroCanvasError(f"precision: on {device.type} auto and float32 are allowed; got {name!r}.")
        return "float32"
    return ("bfloat16" if torch.cuda.is_bf16_supported() else "float16") if name == "auto" else name


@contextmanager
def own_randomness(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Run a block with torch's global generators seeded, and restore their states afterwards."""
    # Initialisation and dropout draw from the global state and take no generator.
    kind = device.type if device else "cpu"
    of_mps = torch.mps.get_rng_state() if kind == "mps" else None  # which `fork_rng` leaves out
    try:
        with torch.random.fork_rng(devices=[device] if device is not None and kind == "cuda" else []):
            torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
            if kind != "cpu":
                getattr(torch, kind).manual_seed(seed)
            yield
    finally:
        if of_mps is not None:
            torch.mps.set_rng_state(of_mps)


def _epoch(
    network: nn.Module, inputs: Inputs | Tensor, y: Tensor, rows: np.ndarray, objective: ConceptLoss | EmbeddingLoss,
    batch_size: int, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, precision: str,
    adapt: Callable[[Tensor], tuple[Tensor, Tensor]] | None,
) -> float:  # fmt: skip
    """Train once on every trial, in random order; return the mean training loss."""
    network.train()
    losses = []
    for batch in torch.from_numpy(rows)[torch.randperm(len(rows))].split(batch_size):
        if len(batch) == 1:  # BatchNorm has no variance of a single trial
            continue
        x, true = inputs[batch.numpy()], y[batch.to(y.device)]
        with torch.autocast(x.device.type, getattr(torch, precision), enabled=precision != "float32"):
            output, domain = (network(x), x.new_zeros(())) if adapt is None else adapt(x)
        loss, reported = objective.loss(output.float(), true)
        loss = loss + domain + (network.penalty() if hasattr(network, "penalty") else 0)  # type: ignore[operator]
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append((reported.detach(), len(batch)))
    network.eval()
    return sum(loss.item() * count for loss, count in losses) / sum(count for _, count in losses)


def _outputs_and_domain_loss(
    network: nn.Module, inputs: Inputs | Tensor, rows: np.ndarray, progress: float, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs of trials, and the loss of telling them from as many trials of `rows`, its gradient reversed."""
    # Node-wise domain adversarial training (NodeDAT) of RGNN: it hides from every node whether a trial is a test trial.
    # alpha follows Ganin and Lempitsky (2015): from 0 to 1 as training goes on.
    alpha = 2 / (1 + np.exp(-10 * progress)) - 1
    drawn = torch.randint(len(rows), (len(x),)).numpy()
    output, domains = network(torch.cat([x, inputs[rows[drawn]]]), alpha)  # (2 n, ...), (2 n, n_nodes, 2)
    domain = torch.zeros(domains.shape[:2], dtype=torch.int64, device=x.device)
    domain[len(x) :] = 1
    return output[: len(x)], functional.cross_entropy(domains.flatten(0, 1).float(), domain.flatten())


def _restore(
    path: Path | None, made_from: str, parts: Mapping[str, Any], best: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[Tensor]]:
    """Continue from a state of the same data and settings, if there is one; return the history and watched outputs."""
    if path is None or not path.is_file():
        return [], []
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError):
        return [], []  # damaged: start again
    if not isinstance(saved, dict) or saved.get("made_from") != made_from:
        return [], []
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    best.update(saved["best"])
    torch.set_rng_state(saved["random"]["cpu"])
    if "cuda" in saved["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(saved["random"]["cuda"])
    return list(saved["history"]), list(saved["every"])
