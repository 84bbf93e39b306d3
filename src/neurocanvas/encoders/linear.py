"""Encoders in closed form: ridge regression, and the mean training target."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from neurocanvas.data.trials import TrialSpec
from neurocanvas.targets import TargetSpace

# Candidate penalties, in units of the mean squared singular value of the training inputs.
PENALTIES = np.logspace(-3, 4, 29)


class Mean(nn.Module):
    """Predicts the mean training target for every trial: it knows the data set, not the EEG."""

    input: ClassVar = "features"

    def __init__(self, spec: TrialSpec, target: TargetSpace) -> None:  # noqa: ARG002
        super().__init__()
        self.width = target.shape[0]

    def fit_closed_form(self, x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor) -> None:
        """Nothing to fit: zero is the mean training target in its principal coordinates."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), self.width)


class Ridge(nn.Module):
    """Ridge regression; coordinates have mean zero over training trials, so only x is centred."""

    input: ClassVar = "features"
    mean: Tensor
    coefficients: Tensor
    penalty: Tensor

    def __init__(self, spec: TrialSpec, target: TargetSpace) -> None:
        super().__init__()
        n_inputs = len(spec.ch_names) * (len(spec.bands) or spec.n_times)
        self.register_buffer("mean", torch.zeros(n_inputs))
        self.register_buffer("coefficients", torch.zeros(n_inputs, target.shape[0]))
        self.register_buffer("penalty", torch.zeros(()))

    @torch.no_grad()
    def fit_closed_form(self, x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor) -> None:
        """Solve for all `PENALTIES` by one decomposition; keep the best on validation trials."""
        device = torch.device("cpu") if x.device.type == "mps" else x.device  # MPS has no float64
        x, y, x_val, y_val = (tensor.flatten(1).to(device, torch.float64) for tensor in (x, y, x_val, y_val))
        self.mean.copy_(x.mean(dim=0))
        x, x_val = x - self.mean, x_val - self.mean
        if x.shape[1] > len(x):  # more numbers than trials: the products of trials are the smaller matrix
            squared, left = torch.linalg.eigh(x @ x.T)
            unit, some = squared.clamp_min(0).mean().item(), squared > squared[-1] * 1e-12
            left, singular = left[:, some], squared[some].sqrt()
            right = (left / singular).T @ x
        else:
            left, singular, right = torch.linalg.svd(x, full_matrices=False)
            unit = singular.square().mean().item()
        rotated, rotated_val = left.T @ y, x_val @ right.T
        lowest = float("inf")
        for penalty in (PENALTIES * unit).tolist():
            gain = singular / (singular.square() + penalty)
            error = ((rotated_val * gain) @ rotated - y_val).square().sum(dim=1).mean().item()
            if error < lowest:
                lowest = error
                self.coefficients.copy_((right.T * gain) @ rotated)
                self.penalty.fill_(penalty)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - self.mean) @ self.coefficients
