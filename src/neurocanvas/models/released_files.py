"""The released code's mapper file, `mlpsd_s{subject}_0.pth`: a state dict from band-major features to whole targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neurocanvas.config import ARCHITECTURES
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.models.base import TARGET_SHAPE, EEGSpec, Mapper
from neurocanvas.models.basis import TargetBasis
from neurocanvas.models.mlp import MLPMapper
from neurocanvas.montage import BANDS, CH_NAMES
from neurocanvas.torch_files import read_torch, write_torch

if TYPE_CHECKING:
    import torch

# Input and output of the released mapper: 62 channels, 5 bands, (77, 768).
SPEC = EEGSpec(CH_NAMES, tuple(BANDS), TARGET_SHAPE)

ROWS_AT_ONCE = 4096
SMALLEST_SHARE = 1e-12  # of the largest squared length: what is below is rounding
NORMS = ("weight", "bias", "running_mean", "running_var")


def read_released_mapper(path: Path | str) -> MLPMapper:
    """Read a mapper that the released code trained; it takes *released* features, (n, 62, 5), not standardised."""
    # The axes span the last layer's columns: predictions are the released module's up to rounding. `target_sd` is
    # unknown and 0.
    import torch

    state = _checked(Path(path))
    axes, last = _factors(state["fc3.weight"])
    first = state["fc1.weight"].reshape(-1, len(BANDS), len(CH_NAMES)).transpose(1, 2).reshape(-1, SPEC.n_features)
    mean = state["fc3.bias"].numpy().reshape(TARGET_SHAPE)
    basis = TargetBasis(mean, axes.numpy(), np.zeros(len(axes), np.float32))
    layers = {"1.weight": first, "1.bias": state["fc1.bias"], "5.weight": state["fc2.weight"]}
    layers |= {"5.bias": state["fc2.bias"], "9.weight": last, "9.bias": torch.zeros(len(axes))}
    for number, place in ((1, 2), (2, 6)):
        layers |= {f"{place}.{name}": state[f"bn{number}.{name}"] for name in NORMS}
        layers[f"{place}.num_batches_tracked"] = torch.tensor(0)
    mapper = MLPMapper(SPEC, basis, np.zeros(SPEC.n_features, np.float32), np.ones(SPEC.n_features, np.float32))
    weights = {f"network.{name}": tensor.numpy() for name, tensor in layers.items()}
    mapper.load_weights({**weights, "activation.relu": np.ones(1, np.float32)})
    return mapper


def write_released_mapper(mapper: Mapper, path: Path) -> None:
    """Write a mapper as the released code saves its own: 490 MB, standardisation and basis folded in, band-major."""
    import torch

    released = ARCHITECTURES["released"]
    if not isinstance(mapper, MLPMapper) or mapper.posterior or (mapper.hidden, mapper.activation) != released:
        raise NeuroCanvasError(
            f"{path.name}: the released module has hidden layers {released[0]} with ReLU and no posterior; train "
            "mlp_sd with mapper.architecture = 'released' and mapper.contrastive = 0."
        )
    if mapper.spec != SPEC:
        raise NeuroCanvasError(
            f"{path.name}: the released module reads {len(CH_NAMES)} channels and {len(BANDS)} bands of EEG-ImageNet; "
            f"this mapper reads {len(mapper.spec.ch_names)} and {len(mapper.spec.bands)}, or in another order."
        )
    network = mapper.folded()
    state: dict[str, torch.Tensor] = {}
    for kind, word in ((torch.nn.Linear, "fc"), (torch.nn.BatchNorm1d, "bn")):
        layers = [layer for layer in network if isinstance(layer, kind)]
        for number, layer in enumerate(layers, 1):
            state |= {f"{word}{number}.{name}": tensor for name, tensor in layer.state_dict().items()}
    first = state["fc1.weight"].reshape(-1, len(CH_NAMES), len(BANDS)).transpose(1, 2)
    write_torch(path, {**state, "fc1.weight": first.reshape(-1, SPEC.n_features)})


def _factors(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal rows (k, n_outputs) and a matrix (k, width) with weight = rows.T @ matrix, largest part first."""
    import torch

    # Through the Gram matrix: unlike a QR decomposition, it leaves small numbers of a large matrix exact.
    parts = (part.double() for part in weight.split(ROWS_AT_ONCE))
    size, vectors = torch.linalg.eigh(sum(part.T @ part for part in parts))
    keep = size.flip(0) > SMALLEST_SHARE * size[-1]
    length, vectors = size.flip(0)[keep].sqrt(), vectors.flip(1)[:, keep]
    return (vectors / length).float().T @ weight.T, (vectors * length).float().T


def _checked(path: Path) -> dict[str, torch.Tensor]:
    """Arrays of a released state dict as float32; raise if a shape is not the released one."""
    import torch

    found = read_torch(path, "the released mapper's state dict")
    one, two = ARCHITECTURES["released"][0]
    shapes = {"fc1.weight": (one, SPEC.n_features), "fc1.bias": (one,), "fc2.weight": (two, one), "fc2.bias": (two,)}
    shapes |= {"fc3.weight": (SPEC.n_outputs, two), "fc3.bias": (SPEC.n_outputs,)}
    shapes |= {f"bn{number}.{name}": (width,) for number, width in ((1, one), (2, two)) for name in NORMS}
    state = {}
    for name, shape in shapes.items():
        tensor = found.get(name) if isinstance(found, dict) else None
        if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape:
            came = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else "none"
            raise NeuroCanvasError(
                f"{path}: not the released mapper: {name} should have shape {shape}; got {came}. Such files are made "
                "by `image_generation.py` or `neurocanvas export`."
            )
        state[name] = tensor.detach().float().resolve_neg()
        if not torch.isfinite(state[name]).all():
            raise NeuroCanvasError(f"{path}: {name} holds NaN or infinite values; train again.")
    return state
