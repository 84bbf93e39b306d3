"""`mlp_sd`: hidden layers with BatchNorm and dropout, a linear one into principal coordinates, and a posterior."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas.encoders.base import Mapper
from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.targets.pretrained import batches

if TYPE_CHECKING:
    import torch


def build_network(
    n_features: int,
    hidden: tuple[int, ...],
    n_coordinates: int,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    activation: str = "gelu",
) -> torch.nn.Sequential:
    """Build the network of `mlp_sd`: per hidden layer Linear, BatchNorm, activation, dropout; then a Linear."""
    # Its layers take no generator: weights come from torch's global random state, so fork that around the call.
    from torch import nn

    activations = {"gelu": nn.GELU, "relu": nn.ReLU}
    active = activations[check_option("activation", activation, activations)]
    layers: list[nn.Module] = [nn.Dropout(input_dropout)]
    width = n_features
    for units in hidden:
        layers += [nn.Linear(width, units), nn.BatchNorm1d(units), active(), nn.Dropout(dropout)]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, n_coordinates))


# Pairs of trial and training target per batch; sets memory, not results.
AT_ONCE = 16_000_000

# Temperatures of the posterior to try on validation trials, as multiples of the contrastive loss's.
TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0)


@dataclass(frozen=True)
class TargetPosterior:
    """Posterior over the training targets, given the output of a contrastively trained network."""

    # The least-squares prediction is Σ_j p_j atoms_j, p_j ∝ counts_j exp(output @ atoms_j / |atoms_j| / temperature).
    atoms: np.ndarray  # (m, k), coordinates of the distinct training targets
    counts: np.ndarray  # (m,), training trials of each
    temperature: float  # in the unit of the coordinates; the larger, the closer to the mean training target

    @classmethod
    def fit(
        cls, coordinates: np.ndarray, output: np.ndarray, val_coordinates: np.ndarray, unit: float
    ) -> TargetPosterior:
        """Training targets, (n, k), become atoms; the temperature has the least squared error on validation trials."""
        atoms, counts = np.unique(coordinates, axis=0, return_counts=True)
        tried = [cls(atoms, counts.astype(np.float32), float(np.float32(t * unit))) for t in TEMPERATURES]
        return min(tried, key=lambda one: float(np.mean((one.mean(output) - val_coordinates) ** 2)))

    def mean(self, output: np.ndarray) -> np.ndarray:
        """Posterior mean: network output (n, k) -> coordinates (n, k)."""
        length = np.maximum(np.linalg.norm(self.atoms, axis=1), np.finfo(np.float32).tiny)
        directions, found = (self.atoms / length[:, None]).T, np.empty_like(output)
        for rows in batches(len(output), max(1, AT_ONCE // len(self.atoms))):
            logits = output[rows] @ directions / np.float32(self.temperature) + np.log(self.counts)
            share = np.exp(logits - logits.max(axis=1, keepdims=True))
            found[rows] = (share / share.sum(axis=1, keepdims=True)) @ self.atoms
        return found


class MLPMapper(Mapper):
    """The multi-layer perceptron `mlp_sd`; `training.loop.fit` trains its network."""

    network: torch.nn.Sequential
    posterior: TargetPosterior | None = None  # without one, the network's output is the prediction

    @property
    def hidden(self) -> tuple[int, ...]:
        weights = [tensor for tensor in self.network.state_dict().values() if tensor.ndim == 2]
        return tuple(len(weight) for weight in weights[:-1])

    @property
    def activation(self) -> str:
        return "relu" if any(type(layer).__name__ == "ReLU" for layer in self.network) else "gelu"

    def weights(self) -> dict[str, np.ndarray]:
        """The network's state dict under `network.`, a posterior under `posterior.`, `activation.relu` if not GELU."""
        named = {f"network.{name}": tensor.numpy().copy() for name, tensor in self.network.state_dict().items()}
        if self.activation != "gelu":
            named[f"activation.{self.activation}"] = np.ones(1, np.float32)
        if self.posterior is not None:
            named["posterior.atoms"], named["posterior.counts"] = self.posterior.atoms, self.posterior.counts
            named["posterior.temperature"] = np.array([self.posterior.temperature], np.float32)
        return named

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Load the network, whose parameter shapes give the layers' widths, and the posterior."""
        import torch

        state = {
            name.removeprefix("network."): torch.from_numpy(np.array(array, order="C"))
            for name, array in weights.items()
            if not name.startswith(("posterior.", "activation."))
        }
        activation = "relu" if "activation.relu" in weights else "gelu"
        matrices = {name: tensor for name, tensor in state.items() if tensor.ndim == 2}
        try:
            in_order = sorted(matrices, key=lambda name: int(name.split(".")[0]))
            hidden = tuple(len(matrices[name]) for name in in_order[:-1])
            with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
                network = build_network(self.spec.n_features, hidden, len(self.basis.target_sd), activation=activation)
            network.load_state_dict(state, assign=True)
            posterior = _read_posterior(weights, len(self.basis.target_sd))
        except (RuntimeError, ValueError, LookupError) as error:
            reason = " ".join(str(error).split())
            raise NeuroCanvasError(f"mlp_sd: weights do not fit {self.spec.n_features} features ({reason}).") from error
        self.network, self.posterior = network.eval(), posterior

    def folded(self) -> torch.nn.Sequential:
        """Fold standardisation and basis into the outer layers: raw (n, n_features) -> (n, 77, 768)."""
        # Equals `predict` up to rounding. The last layer has 59,136 x width weights, which is why training avoids it.
        import torch

        if self.posterior is not None:
            raise NeuroCanvasError("mlp_sd: trained contrastively, so not one network; train with contrastive = 0.")

        layers: list[Any] = list(copy.deepcopy(self.network.eval()))
        sd, mean = torch.from_numpy(self.feature_sd), torch.from_numpy(self.feature_mean)
        axes = torch.from_numpy(self.basis.axes / self.basis.scale)
        with torch.no_grad():
            first, last = layers[1], layers[-1]
            first.weight /= sd
            first.bias -= first.weight @ mean
            whole = torch.nn.utils.skip_init(torch.nn.Linear, last.in_features, self.spec.n_outputs)
            whole.weight.copy_(axes.T @ last.weight)
            whole.bias.copy_(axes.T @ last.bias + torch.from_numpy(self.basis.mean.reshape(-1)))
        unflatten = torch.nn.Unflatten(1, self.spec.target_shape)
        return torch.nn.Sequential(*layers[:-1], whole, unflatten).eval()

    def _map(self, standardised: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            output: np.ndarray = self.network.eval()(torch.from_numpy(standardised)).numpy()
        return output if self.posterior is None else self.posterior.mean(output)


def _read_posterior(weights: Mapping[str, np.ndarray], n_coordinates: int) -> TargetPosterior | None:
    if "posterior.atoms" not in weights:
        return None
    atoms, counts = weights["posterior.atoms"], weights["posterior.counts"]
    if atoms.ndim != 2 or atoms.shape[1] != n_coordinates or counts.shape != atoms.shape[:1]:
        raise ValueError(f"posterior atoms of {n_coordinates} coordinates; got {atoms.shape} and {counts.shape}")
    return TargetPosterior(atoms, counts, float(weights["posterior.temperature"][0]))
