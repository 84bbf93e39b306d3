"""Forward passes of the networks in evaluation mode, in numpy and float64, from their published layer definitions.

A state is a dict of arrays named as in the released state dicts. `draw_state` makes one that depends on the shapes and
the seed alone, so that two implementations can be given the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

State = Mapping[str, np.ndarray]


def draw_state(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Weights of moderate size, and BatchNorm statistics that are not the initial ones, float32."""
    rng = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}
    for name, shape in sorted(shapes.items()):
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(7)
        elif name.endswith("running_var"):
            state[name] = rng.uniform(0.5, 2, shape).astype(np.float32)
        elif name == "edge_weight":
            state[name] = rng.normal(0.2, 0.3, shape).astype(np.float32)
        elif len(shape) > 1:
            state[name] = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
        else:
            around = 1 if "bn" in name and name.endswith("weight") else 0
            state[name] = rng.normal(around, 0.2, shape).astype(np.float32)
    return state


def linear(state: State, name: str, x: np.ndarray) -> np.ndarray:
    """Product with the transposed weights, plus bias."""
    return x @ state[f"{name}.weight"].T.astype(float) + state[f"{name}.bias"]


def normalise(state: State, name: str, x: np.ndarray, axis: int = 1, eps: float = 1e-5) -> np.ndarray:
    """BatchNorm with its running statistics."""
    shape = [1] * x.ndim
    shape[axis] = -1
    parts = ("weight", "bias", "running_mean", "running_var")
    weight, bias, mean, variance = (state[f"{name}.{part}"].astype(float).reshape(shape) for part in parts)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def elu(x: np.ndarray) -> np.ndarray:
    """x, and exp(x) - 1 below 0."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def average(x: np.ndarray, width: int) -> np.ndarray:
    """Mean of every `width` samples; what is left at the end is dropped."""
    n = x.shape[-1] // width
    return x[..., : n * width].reshape(*x.shape[:-1], n, width).mean(axis=-1)


def windows(x: np.ndarray, length: int) -> np.ndarray:
    """All windows of signals padded by half their length, (..., n_out, length)."""
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(length // 2, length // 2)])
    return sliding_window_view(padded, length, axis=-1)


def shortened(weights: np.ndarray, norm: float) -> np.ndarray:
    """Rows no longer than `norm`."""
    rows = weights.reshape(len(weights), -1).astype(float)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows * np.minimum(1, norm / length)


def eegnet(
    state: State,
    x: np.ndarray,
    pools: tuple[int, int] = (4, 10),
    eps: float = 1e-5,
    norms: tuple[float, float] = (np.inf, np.inf),
) -> np.ndarray:
    """Signal (n, n_chans, n_times) to logits; the defaults are the released network."""
    kernels = state["conv1.weight"].reshape(8, -1).astype(float)
    filtered = np.moveaxis(windows(x.astype(float), kernels.shape[1]) @ kernels.T, -1, 1)  # (n, 8, n_chans, n_out)
    filtered = normalise(state, "bn1", filtered, eps=eps)
    spatial = shortened(state["depthwise_conv.weight"], norms[0]).reshape(8, 2, -1)
    maps = np.einsum("nfct,fdc->nfdt", filtered, spatial).reshape(len(x), 16, -1)
    maps = average(elu(normalise(state, "bn2", maps, eps=eps)), pools[0])
    maps = np.einsum("nmtk,mk->nmt", windows(maps, 16), state["separable_conv1.weight"].reshape(16, 16).astype(float))
    maps = np.einsum("nmt,om->not", maps, state["separable_conv2.weight"].reshape(16, 16).astype(float))
    maps = average(elu(normalise(state, "bn3", maps, eps=eps)), pools[1])
    return maps.reshape(len(x), -1) @ shortened(state["fc1.weight"], norms[1]).T + state["fc1.bias"]


def perceptron(state: State, x: np.ndarray, layers: tuple[str, ...], norms: tuple[str, ...]) -> np.ndarray:
    """Linear, BatchNorm, ReLU, again and again; at the end Linear. Features (n, n_features) to outputs."""
    x = x.astype(float)
    for layer, norm in zip(layers[:-1], norms, strict=True):
        x = np.maximum(normalise(state, norm, linear(state, layer, x)), 0)
    return linear(state, layers[-1], x)


def rgnn(state: State, vectors: np.ndarray, n_nodes: int = 62) -> np.ndarray:
    """Features (n, n_nodes * n_bands), cut into nodes as they come, to logits, one trial and edge after the other."""
    weights = np.zeros((n_nodes, n_nodes))
    weights[np.tril_indices(n_nodes)] = state["edge_weight"]
    weights = weights + np.tril(weights, -1).T
    degree = np.abs(weights).sum(axis=1)
    normalised = weights / np.sqrt(np.outer(degree, degree))
    logits = []
    for vector in normalise(state, "bn", vectors.astype(float)):
        nodes = vector.reshape(n_nodes, -1)
        for _ in range(2):
            nodes = np.array([sum(weight * node for weight, node in zip(row, nodes)) for row in normalised])
        pooled = np.maximum(linear(state, "conv1.lin", nodes), 0).sum(axis=0)
        logits.append(linear(state, "fc", normalise(state, "bn1", pooled[None]))[0])
    return np.array(logits)


def outputs(network, x):
    """What a network of PyTorch puts out for an array."""
    import torch

    with torch.no_grad():
        return network(torch.from_numpy(x)).numpy()
