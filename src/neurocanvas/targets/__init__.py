"""Target spaces, which encoders predict: concepts, and CLIP embeddings of captions (by BLIP) and of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, Literal

import numpy as np

from neurocanvas.artifacts import cached, fingerprint
from neurocanvas.errors import check_option


@dataclass(frozen=True)
class TargetSpace:
    """What an encoder predicts: concepts, or an embedding of a frozen network.

    Parameters
    ----------
    name : str
        A key of `TARGETS`.
    shape : tuple of int
        Of one target: (n_concepts,), (77, 768), (1, width).
    network : str
        Networks of the embeddings: bundled, sd14, a hub id or a folder; empty for concepts.
    layer : str
        Output of the network; empty for concepts.
    """

    name: str
    shape: tuple[int, ...]
    network: str = ""
    layer: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.network}" if self.network else self.name


@dataclass(frozen=True)
class Target:
    """A row of `TARGETS`; its functions are written "module:function".

    Parameters
    ----------
    of : {"concept", "caption", "image"}
        Input of the network.
    shape : str
        Names ``shape(network) -> tuple``, which loads no weights.
    load : str
        Names ``load(network) -> encode``; ``encode(captions or images)`` gives (n, *shape), float16.
    layer : str
        Output of the network.
    """

    of: Literal["concept", "caption", "image"]
    shape: str = ""
    load: str = ""
    layer: str = ""


# Name of a target space -> its row.
TARGETS: dict[str, Target] = {
    "concept": Target("concept"),
    "clip-text": Target(
        "caption", "neurocanvas.targets.clip:text_shape", "neurocanvas.targets.clip:load_text_encoder",
        "last hidden state",
    ),
    "clip-pooled": Target(
        "caption", "neurocanvas.targets.clip:pooled_shape", "neurocanvas.targets.clip:load_pooled_encoder",
        "pooled output",
    ),
    "clip-image": Target(
        "image", "neurocanvas.targets.clip:image_shape", "neurocanvas.targets.clip:load_image_encoder",
        "projected image embedding",
    ),
}  # fmt: skip


def target_space(name: str) -> TargetSpace:
    """The space of embeddings with a name such as "clip-text@bundled"."""
    kind, _, network = name.partition("@")
    row = TARGETS[check_option("target", kind, [key for key, target in TARGETS.items() if target.of != "concept"])]
    network = network or "bundled"
    return TargetSpace(kind, tuple(resolve_name(row.shape)(network)), network, row.layer)


def embed(images: Any, ids: Sequence[str], space: TargetSpace) -> np.ndarray:
    """Embeddings of images by name, (n, *space.shape), float16, from the shared cache or computed."""
    from neurocanvas.targets.captions import load_captioner
    from neurocanvas.targets.pretrained import find_family, source_hash

    row, weights = TARGETS[space.name], source_hash(space.network)
    sources = [images.file_hash(name) or name for name in ids]

    def describe(indices: list[int]) -> Iterator[np.ndarray]:
        caption = load_captioner(space.network)
        for index in indices:
            yield np.array(caption([images.picture(ids[index])])[0])

    if row.of == "caption":
        captioner = source_hash(find_family(space.network).captioner)
        keys = [fingerprint("caption", captioner, "default", source) for source in sources]
        sources = list(map(str, cached("captions", keys, describe)))

    def encode(indices: list[int]) -> Iterator[np.ndarray]:
        encoder = resolve_name(row.load)(space.network)
        for index in indices:
            yield encoder([sources[index] if row.of == "caption" else images.picture(ids[index])])[0]

    keys = [fingerprint("embedding", str(space), weights, source) for source in sources]
    return np.stack(list(cached("embeddings", keys, encode)))
