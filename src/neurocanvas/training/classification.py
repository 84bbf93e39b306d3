"""Training one classifier on one split, selected on validation trials; its test labels are read by `score` alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neurocanvas.config import ClassifySettings
from neurocanvas.data.splits import Fold
from neurocanvas.encoders.base import standardisation
from neurocanvas.encoders.estimators import Estimator, Network, TrialSpec, class_scores, find_classifier, load_network
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.training.loop import own_randomness

if TYPE_CHECKING:
    import torch

PRETRAINED_WARNING = (
    "Training started from the weights of a file, which does not say which trials trained it or chose its epoch: if "
    "trials that are tested here were among them, the scores are too high."
)
RELEASED_EPOCHS = 1000

# Stands for the concept of a test trial while classifiers are trained: cross-entropy refuses it, and no concept has it.
HIDDEN = -1

MICROVOLTS_PER_VOLT = 1e6

# Trials that are read or evaluated at once: memory, not result.
AT_ONCE = 400


class Indexed(Protocol):
    """An array of trials, or what is indexed like one."""

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Inputs:
    """Trials, standardised when they are indexed: the whole signal is never copied."""

    x: np.ndarray
    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def make(cls, x: np.ndarray, split: Fold, takes: str, settings: ClassifySettings) -> Inputs:
        """Fit the standardisation on training trials; the released recipe has none, and signal in volts."""
        rows = np.concatenate([split.pretrain, split.train])
        if settings.recipe == "released":
            unit = 1 if takes == "features" else MICROVOLTS_PER_VOLT
            return cls(x, np.zeros(1, np.float32), np.array([unit], np.float32))
        if takes == "features":
            mean, sd = standardisation(x[rows].reshape(len(rows), -1))
            return cls(x, mean.reshape(x.shape[1:]), sd.reshape(x.shape[1:]))
        sums = np.zeros((2, x.shape[1]))
        for part in np.array_split(rows, -(-len(rows) // AT_ONCE)):
            signal = x[part]
            sums += signal.sum(axis=(0, 2), dtype=np.float64), np.square(signal, dtype=np.float64).sum(axis=(0, 2))
        mean, square = sums / (len(rows) * x.shape[2])
        sd = np.sqrt(np.maximum(square - mean**2, 1e-12))
        return cls(x, mean.astype(np.float32)[:, None], sd.astype(np.float32)[:, None])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        standardised: np.ndarray = (self.x[rows] - self.mean) / self.sd
        return standardised


@dataclass(frozen=True)
class Outcome:
    """A trained classifier and its answers to the test trials, made without their labels."""

    scores: np.ndarray  # (n_test, n_concepts), of the selected epoch or candidate
    final: np.ndarray  # (n_test,), the concepts that the last epoch names
    history: list[dict[str, Any]]
    chosen: Any
    seconds: float = 0.0
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    every: Sequence[np.ndarray] = ()  # with `diagnose_selection`: the concepts that each epoch or candidate names


def train_classifier(
    name: str, x: np.ndarray, y: np.ndarray, split: Fold, spec: TrialSpec, settings: ClassifySettings
) -> Outcome:
    """Train on the training trials, select on the validation trials, predict the test trials, whose `y` is `HIDDEN`."""
    kind = find_classifier(name)
    if np.any(y[split.test] != HIDDEN):
        raise NeuroCanvasError(f"y: labels of test trials must be {HIDDEN} while a classifier is trained.")
    known = np.unique(y[np.concatenate([*trained_rows(split, settings).values()])])
    if len(known) < 2:
        raise NeuroCanvasError(
            f"split {split.name}: training trials of 2 or more concepts are needed, got {len(known)}; choose another "
            "granularity or protocol."
        )
    started = time.perf_counter()
    inputs = Inputs.make(x, split, kind.takes, settings)
    fit = _fit_network if isinstance(kind, Network) else _fit_estimator
    outcome = fit(kind, inputs, y, split, spec, settings)  # type: ignore[arg-type]
    return replace(outcome, seconds=time.perf_counter() - started)


def score(outcome: Outcome, true: np.ndarray) -> dict[str, float]:
    """Accuracy of what was predicted, and with `diagnose_selection` what selecting on the test trials would report."""
    found = {"selected": _share_right(outcome.scores, true), "final": float(np.mean(outcome.final == true))}
    return found | ({"best_on_test": max(accuracy_by_epoch(outcome, true))} if len(outcome.every) else {})


def accuracy_by_epoch(outcome: Outcome, true: np.ndarray) -> list[float]:
    """Accuracy on the test trials after each epoch, or of each candidate: a diagnostic."""
    return [float(np.mean(named == true)) for named in outcome.every]


def trained_rows(split: Fold, settings: ClassifySettings) -> dict[str, np.ndarray]:
    """Rows of the trials of every phase of training."""
    train = np.concatenate([split.train, split.validation]) if settings.recipe == "released" else split.train
    return {"pretrain": split.pretrain, "train": train} if len(split.pretrain) else {"train": train}


def _fit_estimator(
    kind: Estimator, inputs: Inputs, y: np.ndarray, split: Fold, spec: TrialSpec, settings: ClassifySettings
) -> Outcome:
    """Fit every candidate, keep the one with the highest validation accuracy."""
    rows = np.concatenate([*trained_rows(split, settings).values()])
    x, val, test = (inputs[part].reshape(len(part), -1) for part in (rows, split.validation, split.test))
    candidates = (kind.released,) if settings.recipe == "released" else kind.candidates
    if kind.counts_trials:
        candidates = tuple(value for value in candidates if value <= len(rows)) or (len(rows),)
    history: list[dict[str, Any]] = []
    every, highest, best, chosen = [], -1.0, None, None
    for value in candidates:
        estimator, line = kind.build(value, settings.seed).fit(x, y[rows]), {"candidate": value}
        if settings.recipe == "default":
            line["val_accuracy"] = _share_right(class_scores(estimator, val, spec.n_outputs), y[split.validation])
        if line.get("val_accuracy", 0.0) > highest:
            highest, best, chosen = line.get("val_accuracy", 0.0), estimator, value
        if settings.diagnose_selection:
            every.append(class_scores(estimator, test, spec.n_outputs).argmax(axis=1))
        history.append(line)
    scores = class_scores(best, test, spec.n_outputs)
    return Outcome(scores, scores.argmax(axis=1), history, chosen, every=every)


def _fit_network(
    kind: Network, inputs: Inputs, y: np.ndarray, split: Fold, spec: TrialSpec, settings: ClassifySettings
) -> Outcome:
    """Train in one phase, or first on the trials of others; each phase ends at its selected epoch."""
    with own_randomness(settings.seed):
        network = kind.build(spec, settings)
        if settings.pretrained:
            load_network(network, settings.pretrained, spec, settings)
        history: list[dict[str, Any]] = []
        state = network.state_dict()
        for phase, rows in trained_rows(split, settings).items():
            network.load_state_dict(state)
            lines, chosen, state, every = _train(network, kind, inputs, y, rows, split, settings)
            history += [{"phase": phase, **line} for line in lines]
    final = evaluate(network, inputs, split.test).argmax(axis=1)
    network.load_state_dict(state)
    scores = evaluate(network, inputs, split.test)
    weights = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    weights |= {"mean": inputs.mean, "sd": inputs.sd}
    warnings = (PRETRAINED_WARNING,) if settings.pretrained else ()
    return Outcome(scores, final, history, chosen, weights=weights, warnings=warnings, every=every)


def _train(
    network: torch.nn.Module,
    kind: Network,
    inputs: Inputs,
    y: np.ndarray,
    rows: np.ndarray,
    split: Fold,
    settings: ClassifySettings,
) -> tuple[list[dict[str, Any]], int, dict[str, torch.Tensor], list[np.ndarray]]:
    """Train until neither validation loss nor accuracy improved for `patience` epochs; return the best state."""
    import torch
    from torch.nn import functional

    chooses = settings.recipe == "default"
    epochs, patience = (settings.epochs, settings.patience) if chooses else (RELEASED_EPOCHS,) * 2
    adapts = settings.domain_adaptation and hasattr(network, "domain_classifier")
    optimizer, labels = make_optimizer(network, kind, settings), torch.from_numpy(y)
    lines: list[dict[str, Any]] = []
    every: list[np.ndarray] = []
    best = lowest = 0
    state = network.state_dict()  # the live weights, unless an epoch is selected
    while len(lines) < epochs and len(lines) - max(best, lowest) < patience:
        adversary = _Adversary(inputs, split.test, len(lines) / epochs) if adapts else None
        loss = train_epoch(network, optimizer, inputs, labels, rows, settings, adversary)
        line = {"epoch": len(lines) + 1, "train_loss": loss}
        if chooses:
            val = evaluate(network, inputs, split.validation)
            line["val_loss"] = functional.cross_entropy(torch.from_numpy(val), labels[split.validation]).item()
            line["val_accuracy"] = _share_right(val, y[split.validation])
        if settings.diagnose_selection:
            every.append(evaluate(network, inputs, split.test).argmax(axis=1))
        if not np.isfinite([*line.values()]).all():
            raise NeuroCanvasError(f"training: loss {loss} in epoch {line['epoch']}; look for broken trials.")
        lines.append(line)
        if chooses and (lowest == 0 or line["val_loss"] < lines[lowest - 1]["val_loss"]):
            lowest = len(lines)
        if chooses and (best == 0 or _quality(line) > _quality(lines[best - 1])):
            best, state = len(lines), {key: tensor.clone() for key, tensor in network.state_dict().items()}
    return lines, best or len(lines), state, every


def _share_right(scores: np.ndarray, y: np.ndarray) -> float:
    """Accuracy: how often the highest score is that of the concept."""
    return float(np.mean(scores.argmax(axis=1) == y))


def _quality(line: Mapping[str, Any]) -> tuple[float, float]:
    """What epochs are selected by."""
    return line["val_accuracy"], -line["val_loss"]


def make_optimizer(network: torch.nn.Module, kind: Network, settings: ClassifySettings) -> torch.optim.Optimizer:
    """Make the optimiser that the recipe names."""
    import torch

    if settings.recipe == "default" or kind.released is None:
        return torch.optim.AdamW(network.parameters(), kind.learning_rate, weight_decay=kind.weight_decay, fused=True)
    name, rate, decay = kind.released
    if name == "adam":
        return torch.optim.Adam(network.parameters(), rate, weight_decay=decay, fused=True)
    return torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=decay, fused=True)


def train_epoch(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Indexed,
    labels: torch.Tensor,
    rows: np.ndarray,
    settings: ClassifySettings,
    adversary: _Adversary | None = None,
) -> float:
    """Train once on every trial, in random order."""
    import torch
    from torch.nn import functional

    network.train()
    order = torch.from_numpy(rows)[torch.randperm(len(rows))]
    total = torch.zeros(())
    for batch in order.split(settings.batch_size):
        if len(batch) == 1:  # BatchNorm has no variance of a single trial
            continue
        x = torch.from_numpy(inputs[batch.numpy()])
        if adversary is None:
            loss = task = functional.cross_entropy(network(x), labels[batch])
        else:
            task, domain = adversary.losses(network, x, labels[batch])
            loss = task + domain
        edges = dict(network.named_parameters()).get("edge_weight") if settings.edge_penalty else None
        if edges is not None:
            loss = loss + settings.edge_penalty * edges.abs().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += task.detach() * len(batch)
    network.eval()
    return total.item() / len(rows)


def evaluate(network: torch.nn.Module, inputs: Indexed, rows: np.ndarray) -> np.ndarray:
    """Logits of some trials."""
    import torch

    with torch.no_grad():
        parts = [
            network(torch.from_numpy(inputs[part])).numpy() for part in np.array_split(rows, -(-len(rows) // AT_ONCE))
        ]
    return np.concatenate(parts)


@dataclass(frozen=True)
class _Adversary:
    """Node-wise domain adversarial training (NodeDAT) of RGNN: hide from every node whether a trial is a test trial."""

    inputs: Inputs
    test: np.ndarray
    progress: float

    def losses(
        self, network: torch.nn.Module, x: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of the concepts, and of the domains of as many test trials, its gradient reversed."""
        import torch
        from torch.nn import functional

        # the schedule of Ganin and Lempitsky (2015): from 0 to 1 as training goes on
        alpha = 2 / (1 + np.exp(-10 * self.progress)) - 1
        drawn = torch.randint(len(self.test), (len(x),)).numpy()
        others = torch.from_numpy(self.inputs[self.test[drawn]])
        logits, domains = network(torch.cat([x, others]), alpha)  # (2 n, n_outputs), (2 n, n_nodes, 2)
        domain = torch.zeros(domains.shape[:2], dtype=torch.int64)
        domain[len(x) :] = 1
        return (
            functional.cross_entropy(logits[: len(x)], labels),
            functional.cross_entropy(domains.flatten(0, 1), domain.flatten()),
        )
