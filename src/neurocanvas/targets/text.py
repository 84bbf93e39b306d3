"""Captions to CLIP text embeddings: the hidden states (77, 768) that Stable Diffusion is conditioned on, or pooled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neurocanvas.families import batches, device, find_family, load_part, variant

N_TOKENS = 77
BATCH = 32
"""Captions at a time."""


def load_text_encoder(
    family: str, *, pooled: bool = False
) -> tuple[Callable[[Sequence[str]], np.ndarray], tuple[int, int]]:
    """Load the text encoder of a family's Stable Diffusion.

    Parameters
    ----------
    family : str
        A name in `families.FAMILIES` or a folder.
    pooled : bool
        Whether a caption is one vector, the hidden state at its last token, instead of all 77.

    Returns
    -------
    encode : callable
        Takes captions, gives an array of shape (n_captions, 77, width), float16: last hidden states after the final
        layer norm, padding included, as Stable Diffusion uses them. Pooled: (n_captions, 1, width).
    shape : tuple of int
        Of one caption's embedding; `width` is the encoder's, 768 for Stable Diffusion 1.x and 1024 for 2.x.

    Raises
    ------
    NeuroCanvasError
        If the encoder's weights cannot be loaded.
    """
    import torch

    tokenizer, encoder = _load(find_family(family).diffusion)

    def encode(captions: Sequence[str]) -> np.ndarray:
        ids = tokenizer(
            list(captions), padding="max_length", max_length=N_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.inference_mode():
            said = encoder(input_ids=ids.to(device()))
        states = said.pooler_output[:, None] if pooled else said.last_hidden_state
        found: np.ndarray = states.half().cpu().numpy()
        return found

    return encode, (1 if pooled else N_TOKENS, encoder.config.hidden_size)


def embed_captions(captions: Sequence[str], family: str) -> np.ndarray:
    """Encode a few captions with the text encoder of a family's Stable Diffusion.

    Parameters
    ----------
    captions : sequence of str
        May repeat; each distinct one is encoded once.
    family : str
        A name in `families.FAMILIES` or a folder.

    Returns
    -------
    array, shape (n_captions, 77, width), float16
        As from `load_text_encoder`.

    Raises
    ------
    NeuroCanvasError
        If the encoder's weights cannot be loaded.
    """
    encode, _ = load_text_encoder(family)
    distinct = list(dict.fromkeys(captions))
    encoded = np.concatenate([encode(distinct[part]) for part in batches(len(distinct), BATCH)])
    row = {caption: index for index, caption in enumerate(distinct)}
    return encoded[[row[caption] for caption in captions]]


def _load(source: str) -> tuple[Any, Any]:
    """The tokenizer and text encoder of a Stable Diffusion."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = load_part(source, lambda name: CLIPTokenizer.from_pretrained(name, subfolder="tokenizer"))
    half = variant(source, "text_encoder/model.safetensors")
    encoder = load_part(
        source, lambda name: CLIPTextModel.from_pretrained(name, subfolder="text_encoder", variant=half)
    )
    return tokenizer, encoder.float().eval().to(device())
