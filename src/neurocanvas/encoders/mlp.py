"""Multi-layer perceptrons on features: `mlp_sd`, which predicts embeddings, and the released classifier `mlp`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neurocanvas.data.trials import TrialSpec
from neurocanvas.errors import check_option
from neurocanvas.targets import TargetSpace


class MLPSD(nn.Sequential):
    """Hidden layers with BatchNorm, GELU or ReLU and dropout, then a linear one."""

    input: ClassVar = "features"

    def __init__(
        self, spec: TrialSpec, target: TargetSpace, *, hidden: Sequence[int] = (512, 512, 512), dropout: float = 0.5,
        input_dropout: float = 0.0, activation: str = "gelu",
    ) -> None:  # fmt: skip
        activations = {"gelu": nn.GELU, "relu": nn.ReLU}
        active = activations[check_option("activation", activation, activations)]
        layers: list[nn.Module] = [nn.Dropout(input_dropout)]
        widths = [len(spec.ch_names) * (len(spec.bands) or spec.n_times), *hidden]
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), active(), nn.Dropout(dropout)]
        super().__init__(*layers, nn.Linear(widths[-1], target.shape[0]))
        self.hidden, self.activation = tuple(hidden), activation

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = super().forward(x.flatten(1))
        return output

    @torch.no_grad()
    def scale_outputs(self, scale: float) -> None:
        """Multiply the outputs by a number."""
        last: Any = self[-1]
        last.weight *= scale
        last.bias *= scale


class MLP(nn.Sequential):
    """The classifier of EEG-ImageNet; sizes and names of layers are the released ones."""

    input: ClassVar = "features"

    def __init__(
        self, spec: TrialSpec, target: TargetSpace, *, hidden: Sequence[int] = (256, 128), dropout: float = 0.5
    ) -> None:
        layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        widths = [len(spec.ch_names) * (len(spec.bands) or spec.n_times), *hidden]
        for number, (n_in, n_out) in enumerate(pairwise(widths), 1):
            layers |= {f"l{number}": nn.Linear(n_in, n_out), f"bn{number}": nn.BatchNorm1d(n_out)}
            layers |= {f"relu{number}": nn.ReLU(), f"dropout{number}": nn.Dropout(dropout)}
        layers[f"l{len(hidden) + 1}"] = nn.Linear(widths[-1], target.shape[0])
        super().__init__(OrderedDict(layers))
