"""CLIP embeddings: captions to hidden states (77, 768) or a pooled vector, images to one vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neurocanvas.targets.pretrained import batches, device, find_family, load_part, load_picture_encoder

N_TOKENS = 77
BATCH = 32


def text_shape(family: str, n_tokens: int = N_TOKENS) -> tuple[int, int]:
    """Shape of one caption's hidden states, (77, width), without loading weights."""
    from transformers import CLIPTextConfig

    source = find_family(family).diffusion
    return n_tokens, load_part(source, CLIPTextConfig.from_pretrained, subfolder="text_encoder").hidden_size


def pooled_shape(family: str) -> tuple[int, int]:
    """Shape of one caption as one vector, (1, width), without loading weights."""
    return text_shape(family, n_tokens=1)


def load_pooled_encoder(family: str) -> Callable[[Sequence[str]], np.ndarray]:
    """Load a Stable Diffusion's text encoder: captions -> (n, 1, width), the hidden state at the last token."""
    return load_text_encoder(family, pooled=True)


def load_text_encoder(family: str, *, pooled: bool = False) -> Callable[[Sequence[str]], np.ndarray]:
    """Load a Stable Diffusion's text encoder: captions -> (n, 77, width) or, pooled, (n, 1, width), float16."""
    # Last hidden states after the final layer norm, padding included, as Stable Diffusion uses them.
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    source = find_family(family).diffusion
    tokenizer: Any = load_part(source, CLIPTokenizer.from_pretrained, subfolder="tokenizer")
    encoder: Any = load_part(
        source, CLIPTextModel.from_pretrained, network=True, subfolder="text_encoder",
        weights="text_encoder/model.safetensors",
    )  # fmt: skip

    def encode(captions: Sequence[str]) -> np.ndarray:
        ids = tokenizer(
            list(captions), padding="max_length", max_length=N_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.inference_mode():
            outputs = encoder(input_ids=ids.to(device()))
        states = outputs.pooler_output[:, None] if pooled else outputs.last_hidden_state
        return np.asarray(states.half().cpu())

    return encode


def count_long(captions: Sequence[str], family: str) -> int:
    """How many captions have more than 77 tokens, the first and the last one included: their ends are cut off."""
    from transformers import CLIPTokenizer

    tokenizer: Any = load_part(find_family(family).diffusion, CLIPTokenizer.from_pretrained, subfolder="tokenizer")
    return sum(len(ids) > N_TOKENS for ids in tokenizer(list(captions), verbose=False).input_ids)


def encode_distinct(captions: Sequence[str], encode: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
    """Encode every distinct caption once: (n_captions, ...), float16."""
    row = {caption: index for index, caption in enumerate(dict.fromkeys(captions))}
    encoded = np.concatenate([encode([*row][batch]) for batch in batches(len(row), BATCH)])
    return encoded[[row[caption] for caption in captions]]


def image_shape(family: str) -> tuple[int, int]:
    """Shape of one image's embedding, (1, width), without loading weights."""
    from transformers import CLIPConfig

    config: Any = load_part(find_family(family).judge, CLIPConfig.from_pretrained)
    return 1, config.projection_dim


def load_image_encoder(family: str) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Load the image encoder of a family's CLIP: images of any size -> (n, 1, width), float16, not normalised."""
    encode, _ = load_picture_encoder(find_family(family).judge)
    return lambda images: encode(images)[:, None].astype(np.float16)


def judge_texts(texts: Sequence[str], family: str) -> np.ndarray:
    """Embed texts with a family's CLIP, in the space of its images: (n, width), float32, not normalised."""
    import torch
    from transformers import AutoTokenizer, CLIPModel

    source = find_family(family).judge
    model: Any = load_part(source, CLIPModel.from_pretrained, network=True)
    tokenizer: Any = load_part(source, AutoTokenizer.from_pretrained)
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=N_TOKENS, return_tensors="pt")
    with torch.inference_mode():
        features = model.get_text_features(**tokens.to(device()))
    return getattr(features, "pooler_output", features).float().cpu().numpy()
