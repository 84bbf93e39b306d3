"""Captions to CLIP text embeddings: the hidden states (77, 768) that Stable Diffusion is conditioned on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from neurocanvas.families import batches, device, find_family, load_part, variant


def embed_captions(
    captions: Sequence[str],
    family: str,
    *,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """Encode captions with the text encoder of a family's Stable Diffusion.

    Parameters
    ----------
    captions : sequence of str
        May repeat; each distinct one is encoded once.
    family : str
        A name in `families.FAMILIES` or a folder.
    batch_size : int
        Captions at a time.
    progress : callable
        Is told how many captions were encoded since the last call.

    Returns
    -------
    array, shape (n_captions, 77, width), float16
        Last hidden states after the final layer norm, padding included, as Stable Diffusion uses them; `width` is the
        encoder's, 768 for Stable Diffusion 1.x and 1024 for 2.x.

    Raises
    ------
    NeuroCanvasError
        If the encoder's weights cannot be loaded.
    """
    import torch

    tokenizer, encoder = _load_encoder(find_family(family).diffusion)
    distinct = list(dict.fromkeys(captions))
    encoded: list[np.ndarray] = []
    for part in batches(len(distinct), batch_size):
        ids = tokenizer(
            distinct[part], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.inference_mode():
            encoded.append(encoder(input_ids=ids.to(device())).last_hidden_state.half().cpu().numpy())
        progress(part.stop - part.start)
    row = {caption: index for index, caption in enumerate(distinct)}
    return np.concatenate(encoded)[[row[caption] for caption in captions]]


@lru_cache(1)
def _load_encoder(source: str) -> tuple[Any, Any]:
    """The tokenizer and text encoder of a Stable Diffusion."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = load_part(source, lambda name: CLIPTokenizer.from_pretrained(name, subfolder="tokenizer"))
    half = variant(source, "text_encoder/model.safetensors")
    encoder = load_part(
        source, lambda name: CLIPTextModel.from_pretrained(name, subfolder="text_encoder", variant=half)
    )
    return tokenizer, encoder.float().eval().to(device())
