"""The judge: a CLIP whose picture and text embeddings compare what was generated with what was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from neurocanvas.families import batches, device, find_family, load_network, load_part, load_picture_encoder


def judge_pictures(
    pictures: Sequence[np.ndarray] | np.ndarray,
    family: str,
    *,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """Embed pictures with a family's judge.

    Parameters
    ----------
    pictures : sequence of array, each (height, width, 3), uint8
        Any size; the judge's own preprocessing resizes them.
    family : str
        A name in `families.FAMILIES` or a folder.
    batch_size : int
        Pictures at a time.
    progress : callable
        Is told how many pictures were embedded since the last call.

    Returns
    -------
    array, shape (n_pictures, width), float32
        Projected image embeddings, not normalised.

    Raises
    ------
    NeuroCanvasError
        If the judge's weights cannot be loaded.
    """
    encode, _ = load_picture_encoder(find_family(family).judge)
    embedded = []
    for part in batches(len(pictures), batch_size):
        embedded.append(encode(list(pictures[part])))
        progress(part.stop - part.start)
    return np.concatenate(embedded)


def judge_texts(texts: Sequence[str], family: str) -> np.ndarray:
    """Embed texts with a family's judge, in the same space as its pictures.

    Parameters
    ----------
    texts : sequence of str
        For instance "a photo of a banana".
    family : str
        A name in `families.FAMILIES` or a folder.

    Returns
    -------
    array, shape (n_texts, width), float32

    Raises
    ------
    NeuroCanvasError
        If the judge's weights cannot be loaded.
    """
    import torch
    from transformers import AutoTokenizer, CLIPModel

    source = find_family(family).judge
    model = load_part(source, partial(load_network, CLIPModel))
    tokenizer = load_part(source, AutoTokenizer.from_pretrained)
    words = tokenizer(list(texts), padding=True, truncation=True, max_length=77, return_tensors="pt").to(
        device()
    )
    with torch.inference_mode():
        features = model.get_text_features(**words)
    return getattr(features, "pooler_output", features).float().cpu().numpy()
