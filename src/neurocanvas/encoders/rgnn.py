"""`rgnn`, the classifier on a graph of electrodes: two hops along learned edges, then one layer at every node."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from neurocanvas.data.montage import CH_NAMES, POSITIONS, positions_of
from neurocanvas.data.trials import TrialSpec
from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.targets import TargetSpace

# How a trial's features become nodes: a node per channel, or the released reading of band-major features.
LAYOUTS = ("channel-major", "scrambled")

# m²; electrodes up to its square root (69 mm) apart have an edge of weight 1, farther ones NEAR / distance².
NEAR = 4.71e-3

# Electrodes across the midline whose edge is lowered by 1, to represent asymmetry of the hemispheres.
GLOBAL_PAIRS = (
    ("FP1", "FP2"), ("AF3", "AF4"), ("F5", "F6"), ("FC5", "FC6"), ("C5", "C6"), ("CP5", "CP6"), ("P5", "P6"),
    ("PO5", "PO6"), ("O1", "O2"),
)  # fmt: skip

N_HOPS = 2
N_HIDDEN = 200


def electrode_graph(positions: np.ndarray = POSITIONS) -> np.ndarray:
    """Edge weights that training starts from; by default the released graph."""
    if positions.ndim != 2 or positions.shape[1] != 3 or not np.isfinite(positions).all():
        raise NeuroCanvasError(f"positions: finite metres of shape (n_chans, 3) are needed; got {positions.shape}.")
    squared = np.square(positions[:, None] - positions).sum(axis=2)
    weights = NEAR / np.maximum(squared, NEAR)
    for pair in GLOBAL_PAIRS:
        first, second = (np.isclose(positions, POSITIONS[CH_NAMES.index(name)], atol=1e-4).all(axis=1) for name in pair)
        weights -= np.outer(first, second) | np.outer(second, first)
    return weights.astype(np.float32)


class RGNN(nn.Module):
    """RGNN [Zhong2020] with the released sizes, as products with a dense (n_chans, n_chans) matrix."""

    input: ClassVar = "features"
    edge_index: Tensor

    def __init__(
        self, spec: TrialSpec, target: TargetSpace, *, layout: str = "channel-major",
        domain_adaptation: bool = False, edge_penalty: float = 0.0, dropout: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        graph = electrode_graph(positions_of(spec.ch_names))
        self.scrambled = check_option("rgnn layout", layout, LAYOUTS) == "scrambled"
        self.edge_penalty = edge_penalty
        self.shape = n_chans, n_bands = len(graph), len(spec.bands)
        self.edge_weight = nn.Parameter(torch.from_numpy(graph[np.tril_indices(n_chans)]))
        low, high = np.sort(np.indices(graph.shape), axis=0)
        self.register_buffer("edge_index", torch.from_numpy(high * (high + 1) // 2 + low), persistent=False)
        self.conv1 = nn.ModuleDict({"lin": nn.Linear(n_bands, N_HIDDEN)})
        self.fc = nn.Linear(N_HIDDEN, target.shape[0])
        if domain_adaptation:
            self.domain_classifier = nn.Linear(N_HIDDEN, 2)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
        self.bn = nn.BatchNorm1d(n_chans * n_bands)
        self.bn1 = nn.BatchNorm1d(N_HIDDEN)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, alpha: float | None = None) -> Tensor | tuple[Tensor, Tensor]:
        features = (x.transpose(1, 2) if self.scrambled else x).flatten(1)
        nodes = self.bn(features).view(-1, *self.shape)
        hidden = self.conv1["lin"](self._hops() @ nodes).relu_()
        pooled = self.bn1(hidden.sum(dim=1))
        logits: Tensor = self.fc(self.dropout(pooled))
        if alpha is None:
            return logits
        detached = hidden.detach()
        reversed_ = detached + alpha * (detached - hidden)  # the value of hidden, -alpha times its gradient
        return logits, self.domain_classifier(reversed_)

    def penalty(self) -> Tensor | float:
        """Term added to the loss: the weighted mean absolute edge weight."""
        return self.edge_penalty * self.edge_weight.abs().mean() if self.edge_penalty else 0.0

    def _hops(self) -> Tensor:
        """Matrix of all hops: the normalised edge weights to the power N_HOPS."""
        weights = self.edge_weight[self.edge_index]
        scale = weights.abs().sum(dim=1).clamp_min(torch.finfo(weights.dtype).tiny).rsqrt()
        return torch.linalg.matrix_power(scale[:, None] * weights * scale, N_HOPS)
