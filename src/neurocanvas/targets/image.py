"""Pictures to CLIP image embeddings: one vector each, in the space that CLIP's pictures and texts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neurocanvas.families import find_family, load_part, load_picture_encoder


def image_shape(family: str) -> tuple[int, int]:
    """Say the shape of one picture's embedding, without loading weights."""
    from transformers import CLIPConfig

    config: Any = load_part(find_family(family).judge, CLIPConfig.from_pretrained)
    return 1, config.projection_dim


def load_image_encoder(family: str) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Load the image side of a family's CLIP."""
    encode, _ = load_picture_encoder(find_family(family).judge)
    return lambda pictures: encode(pictures)[:, None].astype(np.float16)
