"""EEGNet on the signal; spatial filters are applied first, which is faster and gives the same outputs."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from neurocanvas.data.trials import TrialSpec
from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.targets import TargetSpace

# F1 temporal kernels, D spatial filters for each, F2 maps after the separable convolution.
N_KERNELS, N_SPATIAL, N_SEPARABLE = 8, 2, 16

DROPOUT = 0.5


@dataclass(frozen=True)
class EEGNetSize:
    """What differs between the released EEGNet and the paper's."""

    kernel: float
    pools: tuple[int, int]
    max_norms: tuple[float, float] | None
    eps: float
    momentum: float


# Layer sizes by name; the paper's normalisation is that of its Keras code.
EEGNET_SIZES = {
    "released": EEGNetSize(kernel=0.2, pools=(4, 10), max_norms=None, eps=1e-5, momentum=0.1),
    "paper": EEGNetSize(kernel=0.5, pools=(4, 8), max_norms=(1.0, 0.25), eps=1e-3, momentum=0.01),
}


def filtered_moments(x: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of all signals correlated with each kernel, over signals and times, without filtering them."""
    length, n_times = kernels.shape[1], x.shape[-1]
    pad, signals = length // 2, x.reshape(-1, n_times)
    n_out = n_times + 2 * pad - length + 1
    sums = functional.pad(signals.sum(dim=0), (pad, pad)).unfold(0, n_out, 1).sum(dim=1)
    products = functional.pad(signals.T @ signals, (pad, pad + length - 1, pad, pad))
    # row t, lag d: product of times t and t + d; then row i, lag d: its sum over the n_out times of kernel sample i
    lagged = products.as_strided((n_times + 2 * pad, length), (products.shape[1] + 1, 1)).double()
    summed = functional.pad(lagged.cumsum(dim=0), (0, 0, 1, 0))
    gram = (summed[n_out:] - summed[:length]).to(x.dtype)
    shifted = functional.pad(kernels, (0, length - 1)).unfold(1, length, 1)
    by_lag = torch.einsum("ki,kid,id->kd", kernels, shifted, gram)
    count = len(signals) * n_out
    mean = kernels @ sums / count
    variance = (2 * by_lag.sum(dim=1) - by_lag[:, 0]) / count - mean.square()  # lags count both ways
    return mean, variance.clamp_min(0)  # rounding


def filter_signals(x: Tensor, kernels: Tensor) -> Tensor:
    """Correlate signals with kernels by FFT, as a convolution layer padded by half a kernel does."""
    from scipy.fft import next_fast_len

    length, n_times = kernels.shape[1], x.shape[-1]
    pad = length // 2
    n = next_fast_len(n_times + pad, real=True)  # what wraps around is cut off
    spectrum = torch.fft.rfft(x, n) * torch.fft.rfft(kernels.flip(-1), n)[:, None]
    return torch.fft.irfft(spectrum, n)[..., length - 1 - pad : n_times + pad]


class EEGNet(nn.Module):
    """EEGNet [Lawhern2018], with the released sizes or the paper's."""

    input: ClassVar = "signal"

    def __init__(self, spec: TrialSpec, target: TargetSpace, *, size: str = "released") -> None:
        super().__init__()
        sizes = EEGNET_SIZES[check_option("eegnet size", size, EEGNET_SIZES)]
        n_chans, n_times, length = len(spec.ch_names), spec.n_times, max(1, round(sizes.kernel * spec.sfreq))
        shortest = sizes.pools[0] * sizes.pools[1]
        if n_times < shortest:
            raise NeuroCanvasError(f"eegnet: trials of {shortest} samples or more are needed; got {n_times}.")
        maps = N_KERNELS * N_SPATIAL
        norm: dict[str, Any] = {"eps": sizes.eps, "momentum": sizes.momentum}
        self.sizes = sizes
        self.conv1 = nn.Conv2d(1, N_KERNELS, (1, length), bias=False)  # it and depthwise_conv only hold weights
        self.bn1 = nn.BatchNorm2d(N_KERNELS, **norm)
        self.depthwise_conv = nn.Conv2d(N_KERNELS, maps, (n_chans, 1), groups=N_KERNELS, bias=False)
        self.bn2 = nn.BatchNorm2d(maps, **norm)
        self.separable_conv1 = nn.Conv2d(maps, maps, (1, 16), padding=(0, 8), groups=maps, bias=False)
        self.separable_conv2 = nn.Conv2d(maps, N_SEPARABLE, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(N_SEPARABLE, **norm)
        pooled = ((n_times + (length + 1) % 2) // sizes.pools[0] + 1) // sizes.pools[1]
        self.dropout = nn.Dropout(DROPOUT)
        self.fc1 = nn.Linear(N_SEPARABLE * pooled, target.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.sizes.pools
        maps = self.dropout(functional.avg_pool2d(functional.elu(self.bn2(self._filtered(x))), (1, first)))
        maps = self.bn3(self.separable_conv2(self.separable_conv1(maps)))
        maps = self.dropout(functional.avg_pool2d(functional.elu(maps), (1, second)))
        return functional.linear(maps.flatten(1), self._weight(self.fc1, 1), self.fc1.bias)

    def _filtered(self, x: Tensor) -> Tensor:
        """Output of conv1, bn1 and depthwise_conv, (n, maps, 1, n_out), with the channels weighted first."""
        kernels = self.conv1.weight.flatten(1)
        spatial = self._weight(self.depthwise_conv, 0).flatten(1)
        mean, variance = self._statistics(x, kernels)
        scale = self.bn1.weight * (variance + self.bn1.eps).rsqrt()
        shift = self.bn1.bias - mean * scale
        weighted = torch.bmm(spatial.expand(len(x), -1, -1), x).unflatten(1, (N_KERNELS, N_SPATIAL))
        filtered = filter_signals(weighted, kernels * scale[:, None])
        shifts = shift[:, None] * spatial.sum(dim=1).view(N_KERNELS, N_SPATIAL)
        return (filtered + shifts[..., None]).flatten(1, 2)[:, :, None]

    def _statistics(self, x: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance for bn1; in training those of the batch, which update the running ones."""
        bn: Any = self.bn1
        if not self.training:
            return bn.running_mean, bn.running_var
        # in full precision: the variance is a small difference of large numbers
        with torch.autocast("cuda", enabled=False) if x.is_cuda else nullcontext():
            mean, variance = filtered_moments(x.float(), kernels)
        n_out = x.shape[-1] + (kernels.shape[1] + 1) % 2
        count = len(x) * x.shape[1] * n_out
        with torch.no_grad():
            bn.num_batches_tracked += 1
            bn.running_mean.lerp_(mean, bn.momentum)
            bn.running_var.lerp_(variance * count / (count - 1), bn.momentum)
        return mean, variance

    def _weight(self, layer: nn.Conv2d | nn.Linear, index: int) -> Tensor:
        """A layer's weights, scaled down to the largest norm that the size allows."""
        norms = self.sizes.max_norms
        return layer.weight if norms is None else layer.weight.renorm(2, 0, norms[index])
