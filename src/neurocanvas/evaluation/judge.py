"""The judge: a CLIP whose embeddings compare what was generated with what was seen; here its side of texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from neurocanvas.targets.pretrained import device, find_family, load_network, load_part


def judge_texts(texts: Sequence[str], family: str) -> np.ndarray:
    """Embed texts with a family's judge, in the same space as its pictures."""
    import torch
    from transformers import AutoTokenizer, CLIPModel

    source = find_family(family).judge
    model = load_part(source, partial(load_network, CLIPModel))
    tokenizer = load_part(source, AutoTokenizer.from_pretrained)
    words = tokenizer(list(texts), padding=True, truncation=True, max_length=77, return_tensors="pt").to(device())
    with torch.inference_mode():
        features = model.get_text_features(**words)
    return getattr(features, "pooler_output", features).float().cpu().numpy()
