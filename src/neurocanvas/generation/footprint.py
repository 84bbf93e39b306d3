"""How much memory drawing needs beside the weights: read off a pass without numbers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neurocanvas.families import load_part

# Tokens of a condition.
PADDED = 77


def activation_bytes(folder: Path, pictures: int, *, size: int | None = None, precision: str = "float32") -> int:
    """Most memory that a Stable Diffusion's activations take while it draws with guidance."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    def build(source: str) -> tuple[Any, Any]:
        with torch.device("meta"):
            return tuple(  # type: ignore[return-value]
                kind.from_config(kind.load_config(source, subfolder=part)).eval()
                for kind, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"))
            )

    unet, vae = load_part(str(folder), build)
    dtype = getattr(torch, precision)
    for network in (unet, vae):
        for weights in network.parameters():
            weights.data = weights.data.to(dtype)
    side = unet.config.sample_size if size is None else size // 2 ** (len(vae.config.block_out_channels) - 1)
    width = unet.config.cross_attention_dim
    with torch.device("meta"):
        latents = torch.empty((2 * pictures, unet.config.in_channels, side, side), dtype=dtype)
        conditions = torch.empty((2 * pictures, PADDED, width), dtype=dtype)
        time = torch.empty((), dtype=torch.long)
    denoising = _most(unet, lambda: unet(latents, time, encoder_hidden_states=conditions))
    return max(denoising, _most(vae, lambda: vae.decode(latents[:1])))


def _most(network: Any, run: Callable[[], object]) -> int:
    """Most bytes that live at once of tensors that a pass makes: no weights, of which views are made."""
    import torch
    from torch.nn import functional
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    weights = {tensor.untyped_storage()._cdata for tensor in network.parameters()}
    sizes: dict[int, int] = {}
    most = 0

    class Ledger(TorchDispatchMode):
        """Notes every storage that is made, until it is let go."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal most
            made = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(made):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    if storage._cdata not in weights and storage._cdata not in sizes:
                        sizes[storage._cdata] = storage.nbytes()
                        weakref.finalize(storage, sizes.pop, storage._cdata, None)
                        most = max(most, sum(sizes.values()))
            return made

    fused = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = lambda query, *_, **__: torch.empty_like(query)
    try:
        with torch.no_grad(), Ledger():
            run()
    finally:
        functional.scaled_dot_product_attention = fused
    return most
