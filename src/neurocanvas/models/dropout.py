"""Dropout for the networks that are trained on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def drop_units(x: torch.Tensor, share: float, training: bool) -> torch.Tensor:
    """Leave out a share of the values and scale up the others, as torch's own dropout does in five times the time.

    Every value takes one random byte where torch's takes a random number.

    Parameters
    ----------
    x : tensor
    share : float
        In [0, 1), rounded to 1/256.
    training : bool
        If false, `x` is returned.

    Returns
    -------
    tensor
        Like `x`; drawn from torch's global random state.
    """
    import torch

    if not training or share == 0:
        return x
    left_out = round(share * 256)
    draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    octets = draws.view(torch.uint8)[: x.numel()].view(x.shape)
    return x * octets.to(x.dtype).ge_(left_out).mul_(256 / (256 - left_out))
