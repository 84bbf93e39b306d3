"""Target spaces: what an encoder predicts. Images to captions (BLIP), captions and images to embeddings (CLIP)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TargetSpace:
    """What an encoder predicts: concepts, or an embedding of a frozen network.

    Parameters
    ----------
    name : str
        A key of `TARGETS`: concept, clip-text, clip-pooled or clip-image.
    shape : tuple of int
        Of one target: (n_concepts,), (77, 768), (1, width).
    network : str
        What made the embeddings: bundled, sd14, a hub id or a folder; empty for concepts.
    layer : str
        Which of its outputs: "last hidden state", "pooled", "projection"; empty for concepts.
    """

    name: str
    shape: tuple[int, ...]
    network: str = ""
    layer: str = ""

    @property
    def width(self) -> int:
        """Numbers per target."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name}@{self.network}" if self.network else self.name
