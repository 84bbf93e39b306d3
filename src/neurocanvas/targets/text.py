"""Captions to CLIP text embeddings: the hidden states (77, 768) that Stable Diffusion is conditioned on, or pooled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neurocanvas.families import batches, device, find_family, load_network, load_part, variant

N_TOKENS = 77
BATCH = 32
"""Captions at a time."""


def text_shape(family: str, *, pooled: bool = False) -> tuple[int, int]:
    """Say the shape of one caption's embedding, without loading weights.

    Parameters
    ----------
    family : str
        A name in `families.FAMILIES` or a folder.
    pooled : bool
        As `load_text_encoder` takes it.

    Returns
    -------
    tuple of int
        (77, width), or (1, width); width is 768 for Stable Diffusion 1.x and 1024 for 2.x.

    Raises
    ------
    NeuroCanvasError
        If the encoder's configuration cannot be read.
    """
    from transformers import CLIPTextConfig

    config = load_part(
        find_family(family).diffusion, lambda name: CLIPTextConfig.from_pretrained(name, subfolder="text_encoder")
    )
    return 1 if pooled else N_TOKENS, int(config.hidden_size)


def load_text_encoder(family: str, *, pooled: bool = False) -> Callable[[Sequence[str]], np.ndarray]:
    """Load the text encoder of a family's Stable Diffusion.

    Parameters
    ----------
    family : str
        A name in `families.FAMILIES` or a folder.
    pooled : bool
        Whether a caption is one vector, the hidden state at its last token, instead of all 77.

    Returns
    -------
    callable
        Takes captions, gives an array of shape (n_captions, 77, width), float16: last hidden states after the final
        layer norm, padding included, as Stable Diffusion uses them. Pooled: (n_captions, 1, width).

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

    return encode


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
    return encode_distinct(captions, load_text_encoder(family))


def encode_distinct(captions: Sequence[str], encode: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
    """Encode captions, each distinct one once.

    Parameters
    ----------
    captions : sequence of str
    encode : callable
        From `load_text_encoder`.

    Returns
    -------
    array, shape (n_captions, ...), float16
    """
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
        source, lambda name: load_network(CLIPTextModel, name, subfolder="text_encoder", variant=half)
    )
    return tokenizer, encoder
