"""`mlp`, the classifier on features: layers of Linear, BatchNorm, ReLU and dropout."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from neurocanvas.models.dropout import kept

if TYPE_CHECKING:
    import torch


def build_perceptron(
    n_features: int, n_outputs: int, hidden: tuple[int, ...] = (256, 128), dropout: float = 0.5
) -> torch.nn.Module:
    """Build the multi-layer perceptron; the defaults are the released sizes."""
    network: torch.nn.Module = _network_class()((n_features, *hidden, n_outputs), dropout)
    return network


@lru_cache(1)
def _network_class() -> type[torch.nn.Module]:
    """The module's class, made once torch is asked for."""
    from torch import nn

    class Perceptron(nn.Module):
        def __init__(self, widths: tuple[int, ...], dropout: float) -> None:
            super().__init__()
            self.hidden, self.dropout = list(widths[1:-1]), dropout
            for number, (n_in, n_out) in enumerate(pairwise(widths), 1):
                self.add_module(f"l{number}", nn.Linear(n_in, n_out))
                if number <= len(self.hidden):
                    self.add_module(f"bn{number}", nn.BatchNorm1d(n_out))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1)
            drops = self.training and self.dropout > 0
            if drops:  # one draw for all layers
                masks = kept((len(x), sum(self.hidden)), self.dropout, x).split(self.hidden, dim=1)
            for number in range(1, len(self.hidden) + 1):
                x = self.get_submodule(f"bn{number}")(self.get_submodule(f"l{number}")(x)).relu_()
                if drops:
                    x = x * masks[number - 1]
            logits: torch.Tensor = self.get_submodule(f"l{len(self.hidden) + 1}")(x)
            return logits

    return Perceptron
