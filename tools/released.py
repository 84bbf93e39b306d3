"""The networks and loops of the released code (EEG-ImageNet-Dataset, commit 7c781571), stated again in plain torch.

Benchmarks time them and tests compare with them. Layers, their order, names in the state dict and what is done per
trial and per batch are the released ones; torch_geometric's SGConv is stated by what it does: gather, weigh, scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset


class EEGNet(nn.Module):
    """EEGNet, every channel filtered by every kernel."""

    def __init__(self, num_classes: int, chans: int = 62, samples: int = 400, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, (1, 200), padding=(0, 100), bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.depthwise_conv = nn.Conv2d(8, 16, (chans, 1), groups=8, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.separable_conv1 = nn.Conv2d(16, 16, (1, 16), padding=(0, 8), groups=16, bias=False)
        self.separable_conv2 = nn.Conv2d(16, 16, (1, 1), bias=False)
        self.bn3 = nn.BatchNorm2d(16)
        self.fc1 = nn.Linear(16 * (samples // 40), num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Signal (n, chans, samples) to logits."""
        x = self.bn1(self.conv1(x.unsqueeze(1)))
        x = functional.elu(self.bn2(self.depthwise_conv(x)))
        x = self.dropout(functional.avg_pool2d(x, (1, 4)))
        x = self.separable_conv2(self.separable_conv1(x))
        x = self.dropout(functional.avg_pool2d(functional.elu(self.bn3(x)), (1, 10)))
        logits: torch.Tensor = self.fc1(x.flatten(1))
        return logits


class MLP(nn.Module):
    """310-256-128-classes."""

    def __init__(self, num_classes: int, chans: int = 62, dropout: float = 0.5) -> None:
        super().__init__()
        self.l1, self.bn1 = nn.Linear(chans * 5, 256), nn.BatchNorm1d(256)
        self.l2, self.bn2 = nn.Linear(256, 128), nn.BatchNorm1d(128)
        self.l3 = nn.Linear(128, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features (n, ...), flattened, to logits."""
        x = self.dropout(functional.relu(self.bn1(self.l1(x.flatten(1)))))
        x = self.dropout(functional.relu(self.bn2(self.l2(x))))
        logits: torch.Tensor = self.l3(x)
        return logits


class MLPMapper(nn.Module):
    """310-1024-2048-(77 x 768)."""

    def __init__(self, input_dim: int = 310, shape: tuple[int, int] = (77, 768), dropout: float = 0.5) -> None:
        super().__init__()
        self.shape = shape
        self.fc1, self.bn1 = nn.Linear(input_dim, 1024), nn.BatchNorm1d(1024)
        self.fc2, self.bn2 = nn.Linear(1024, 2048), nn.BatchNorm1d(2048)
        self.fc3 = nn.Linear(2048, shape[0] * shape[1])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features (n, input_dim) to targets (n, 77, 768)."""
        x = self.dropout(functional.relu(self.bn1(self.fc1(x))))
        x = self.dropout(functional.relu(self.bn2(self.fc2(x))))
        targets: torch.Tensor = self.fc3(x).view(-1, *self.shape)
        return targets


class SGConv(nn.Module):
    """Messages along weighted edges, twice, then a linear layer at every node; degrees count absolute weights."""

    def __init__(self, n_in: int, n_out: int, hops: int) -> None:
        super().__init__()
        self.lin, self.hops = nn.Linear(n_in, n_out), hops
        nn.init.xavier_normal_(self.lin.weight)

    @staticmethod
    def loops_last(edges: torch.Tensor, weights: torch.Tensor, nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Move the edges from nodes to themselves to the end, in the order of the nodes."""
        source, target = edges
        between = source != target
        loops = torch.ones(nodes, dtype=weights.dtype)
        loops[source[~between]] = weights[~between]
        to_self = torch.arange(nodes).expand(2, -1)
        return torch.cat([edges[:, between], to_self], dim=1), torch.cat([weights[between], loops])

    def forward(self, x: torch.Tensor, edges: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Nodes (m, n_in) of all graphs of a batch, edges (2, e), weights (e,) to nodes (m, n_out)."""
        edges, weights = self.loops_last(edges, weights, len(x))
        source, target = edges
        degree = torch.zeros(len(x)).scatter_add(0, source, weights.abs())
        root = degree.pow(-0.5)
        root = root.masked_fill(root == float("inf"), 0)
        norm = root[source] * weights * root[target]
        for _ in range(self.hops):
            messages = norm.view(-1, 1) * x.index_select(0, source)
            x = torch.zeros_like(x).index_add(0, target, messages)
        nodes: torch.Tensor = self.lin(x)
        return nodes


class ReverseGradient(torch.autograd.Function):
    """The identity; its gradient is turned round and weighed by alpha."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, alpha: float) -> torch.Tensor:
        """Return x."""
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return -alpha times the gradient."""
        return -ctx.alpha * gradient, None


class RGNN(nn.Module):
    """The graph network: a block-diagonal graph of all trials of the batch is made anew for every batch."""

    def __init__(self, graph: np.ndarray, num_classes: int, dropout: float = 0.5, domains: bool = False) -> None:
        super().__init__()
        self.nodes, self.dropout = len(graph), dropout
        self.rows, self.columns = torch.tril_indices(self.nodes, self.nodes)
        self.edges = torch.cartesian_prod(torch.arange(self.nodes), torch.arange(self.nodes)).T.contiguous()
        self.edge_weight = nn.Parameter(torch.as_tensor(graph, dtype=torch.float32)[self.rows, self.columns])
        self.conv1 = SGConv(5, 200, hops=2)
        self.fc = nn.Linear(200, num_classes)
        nn.init.xavier_normal_(self.fc.weight)
        if domains:
            self.domain_classifier = nn.Linear(200, 2)
            nn.init.xavier_normal_(self.domain_classifier.weight)
        self.bn = nn.BatchNorm1d(self.nodes * 5)
        self.bn1 = nn.BatchNorm1d(200)

    def append(self, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Repeat the edges for every trial, with node numbers of their own; and the trial of every node."""
        count = self.edges.shape[1]
        edges = torch.empty(2, count * batch_size, dtype=torch.int64)
        trial_of = torch.empty(self.nodes * batch_size, dtype=torch.int64)
        for trial in range(batch_size):
            edges[:, trial * count : (trial + 1) * count] = self.edges + trial * self.nodes
            trial_of[trial * self.nodes : (trial + 1) * self.nodes] = trial
        return edges, trial_of

    def forward(self, x: torch.Tensor, alpha: float = 0.0, need_dat: bool = False) -> Any:
        """Features (n, nodes * 5) to logits, and with `need_dat` also the domains of all nodes (n * nodes, 2)."""
        n = len(x)
        x = self.bn(x).view(-1, 5)
        edges, trial_of = self.append(n)
        weights = torch.zeros(self.nodes, self.nodes)
        weights[self.rows, self.columns] = self.edge_weight
        weights = weights + weights.T - torch.diag(weights.diagonal())
        x = functional.relu(self.conv1(x, edges, weights.reshape(-1).repeat(n)))
        pooled = torch.zeros(n, x.shape[1]).index_add(0, trial_of, x)
        logits = self.fc(functional.dropout(self.bn1(pooled), self.dropout, self.training))
        return (logits, self.domain_classifier(ReverseGradient.apply(x, alpha))) if need_dat else logits


class Trials(Dataset):
    """A subject's trials, as dictionaries; `features` in their place if given. One trial is read at a time."""

    def __init__(
        self, trials: Sequence[dict[str, Any]], labels: Sequence[str], features: torch.Tensor | None = None
    ) -> None:
        self.trials, self.labels, self.features = trials, labels, features

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        label = self.labels.index(self.trials[index]["label"])
        if self.features is not None:
            return self.features[index], label
        return self.trials[index]["eeg_data"].float()[:, 40:440], label


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """The released optimiser of a classifier."""
    if isinstance(model, RGNN):
        return torch.optim.Adam(model.parameters(), lr=1e-3)
    rate, decay = (1e-2, 1e-3) if isinstance(model, EEGNet) else (1e-4, 1e-4)
    return torch.optim.SGD(model.parameters(), lr=rate, weight_decay=decay, momentum=0.9)


def train_epoch_released(
    model: nn.Module, dataset: Dataset, optimizer: torch.optim.Optimizer, num_classes: int, batch_size: int
) -> float:
    """Train a classifier for an epoch as the released loop does, trial by trial; return the mean loss."""
    number_of = {label: number for number, label in enumerate(range(num_classes))}
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True)
    total = 0.0
    model.train()
    for inputs, labels in loader:
        mapped = torch.tensor([number_of[label.item()] for label in labels])
        loss = functional.cross_entropy(model(inputs), mapped)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


def test_epoch_released(model: nn.Module, dataset: Dataset, num_classes: int, batch_size: int) -> float:
    """Accuracy on test trials as the released loop takes it after every epoch, trial by trial."""
    from sklearn.metrics import accuracy_score

    number_of = {label: number for number, label in enumerate(range(num_classes))}
    correct, total = 0, 0
    loss = torch.zeros(())
    model.eval()
    with torch.no_grad():
        for inputs, labels in DataLoader(dataset, batch_size=batch_size, shuffle=False):
            mapped = torch.tensor([number_of[label.item()] for label in labels])
            outputs = model(inputs)
            loss += functional.cross_entropy(outputs, mapped)
            correct += accuracy_score(mapped, outputs.argmax(dim=1), normalize=False)
            total += len(labels)
    return correct / total
