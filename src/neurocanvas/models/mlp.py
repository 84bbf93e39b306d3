"""`mlp_sd`: layers of Linear, BatchNorm, GELU and dropout, then a linear one into principal coordinates."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.models.base import Mapper

if TYPE_CHECKING:
    import torch


def build_network(
    n_features: int,
    hidden: tuple[int, ...],
    n_coordinates: int,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
) -> torch.nn.Sequential:
    """Build the network of `mlp_sd`: with three hidden layers, the four layers of the published description.

    Parameters
    ----------
    n_features : int
        Inputs.
    hidden : tuple of int
        Width of every hidden layer.
    n_coordinates : int
        Outputs.
    dropout, input_dropout : float
        Share of hidden units and of inputs that are left out in training.

    Returns
    -------
    torch.nn.Sequential
        Initialised from torch's global random state (its layers take no generator): fork that state around
        the call.

    Examples
    --------
    >>> network = build_network(310, (512, 512, 512), 64)
    >>> sum(type(layer).__name__ == "Linear" for layer in network)
    4
    """
    from torch import nn

    layers: list[nn.Module] = [nn.Dropout(input_dropout)]
    width = n_features
    for units in hidden:
        layers += [nn.Linear(width, units), nn.BatchNorm1d(units), nn.GELU(), nn.Dropout(dropout)]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, n_coordinates))


TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0)
"""Temperatures of the posterior that are tried on validation trials, in units of the contrastive loss's."""


def target_posterior(atoms: np.ndarray, counts: np.ndarray, temperature: float) -> torch.nn.Module:
    """Build the last layer of a contrastively trained network: the posterior mean over the training targets.

    The output of a network trained by `training.losses.contrastive_error` says by its product with the direction of a
    target how probable that target is. The prediction with the least squared error is then

        sum_j p_j atoms_j,   p_j proportional to counts_j exp(output @ atoms_j / |atoms_j| / temperature).

    Parameters
    ----------
    atoms : array, shape (m, k), float32
        Coordinates of the distinct training targets.
    counts : array, shape (m,)
        How many training trials each has.
    temperature : float
        In the unit of the coordinates; the larger, the closer to the mean training target.

    Returns
    -------
    torch.nn.Module
        Maps (n, k) to (n, k); its arrays are part of its state dict.
    """
    import torch

    class TargetPosterior(torch.nn.Module):
        atoms: torch.Tensor
        log_counts: torch.Tensor
        temperature: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("atoms", torch.from_numpy(np.array(atoms, np.float32)))
            self.register_buffer("log_counts", torch.from_numpy(np.log(np.array(counts, np.float32))))
            self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))

        def forward(self, output: torch.Tensor) -> torch.Tensor:
            along = output @ torch.nn.functional.normalize(self.atoms, dim=1).T
            return torch.softmax(along / self.temperature + self.log_counts, dim=1) @ self.atoms

    return TargetPosterior()


class MLPMapper(Mapper):
    """The multi-layer perceptron of the main job; `training.loop.fit` trains its network.

    Parameters
    ----------
    spec, basis, feature_mean, feature_sd, prediction_sd
        See `Mapper`.
    """

    network: torch.nn.Sequential

    def weights(self) -> dict[str, np.ndarray]:
        """Return the network's parameters and BatchNorm statistics.

        Returns
        -------
        dict of str to array
            Named as in the network's state dict, with ``network.`` before.
        """
        return {
            f"network.{name}": tensor.numpy().copy() for name, tensor in self.network.state_dict().items()
        }

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take the network's parameters; the widths of its layers follow from their shapes.

        Parameters
        ----------
        weights : mapping of str to array

        Raises
        ------
        NeuroCanvasError
            If one is missing or the shapes do not fit one another, the spec and the basis.
        """
        import torch

        state = {
            name.removeprefix("network."): torch.from_numpy(np.array(array))
            for name, array in weights.items()
        }
        matrices = {name: tensor for name, tensor in state.items() if tensor.ndim == 2 and name.endswith("weight")}
        atoms = [tensor for name, tensor in state.items() if name.endswith(".atoms")]
        try:
            in_order = sorted(matrices, key=lambda name: int(name.split(".")[0]))
            hidden = tuple(len(matrices[name]) for name in in_order[:-1])
            network = build_network(self.spec.n_features, hidden, len(self.basis.target_sd))
            if atoms:
                if atoms[0].ndim != 2 or atoms[0].shape[1] != len(self.basis.target_sd):
                    raise ValueError(f"atoms of {len(self.basis.target_sd)} coordinates; got {tuple(atoms[0].shape)}")
                network.append(target_posterior(atoms[0].numpy(), np.ones(len(atoms[0])), 1.0))
            network.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise NeuroCanvasError(
                f"mlp_sd: weights do not fit {self.spec.n_features} features ({reason})."
            ) from error
        self.network = network.eval()

    def folded(self) -> torch.nn.Sequential:
        """Fold standardisation and basis into the outer layers: one network, features to (77, 768).

        Returns
        -------
        torch.nn.Sequential
            Maps raw features (n, n_features), channel-major, to (n, 77, 768) in evaluation mode; equal to
            `predict` up to rounding. The last layer alone has 59,136 x width weights, which is why training
            does without it.
        """
        import torch

        layers: list[Any] = list(copy.deepcopy(self.network.eval()))
        posterior = [layers.pop()] if hasattr(layers[-1], "atoms") else []
        sd, mean = torch.from_numpy(self.feature_sd), torch.from_numpy(self.feature_mean)
        axes = torch.from_numpy(self.basis.axes)
        with torch.no_grad():
            first, last = layers[1], layers[-1]
            first.weight /= sd
            first.bias -= first.weight @ mean
            if posterior:  # nonlinear, so the way from coordinates to targets is a layer of its own
                layers.append(posterior[0])
                weight, bias = torch.eye(len(axes)), torch.zeros(len(axes))
            else:
                layers.pop()
                weight, bias = last.weight, last.bias
            whole = torch.nn.utils.skip_init(torch.nn.Linear, weight.shape[1], self.spec.n_outputs)
            whole.weight.copy_(axes.T @ weight)
            whole.bias.copy_(axes.T @ bias + torch.from_numpy(self.basis.mean.reshape(-1)))
        unflatten = torch.nn.Unflatten(1, self.spec.target_shape)
        return torch.nn.Sequential(*layers, whole, unflatten).eval()

    def _map(self, standardised: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return self.network.eval()(torch.from_numpy(standardised)).numpy()
