"""Pictures to CLIP image embeddings: one vector each, in the space that CLIP's pictures and texts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from neurocanvas.families import device, find_family, load_part, pil_processor


def load_image_encoder(family: str) -> tuple[Callable[[Sequence[np.ndarray]], np.ndarray], tuple[int, int]]:
    """Load the image side of a family's CLIP.

    Parameters
    ----------
    family : str
        A name in `families.FAMILIES` or a folder.

    Returns
    -------
    encode : callable
        Takes pictures, (height, width, 3), uint8, of any size; gives an array of shape (n_pictures, 1, width), float16,
        projected and not normalised.
    shape : tuple of int
        (1, width).

    Raises
    ------
    NeuroCanvasError
        If the weights cannot be loaded.
    """
    import torch
    from transformers import CLIPModel

    source = find_family(family).judge
    model = load_part(source, CLIPModel.from_pretrained).float().eval().to(device())
    processor = load_part(source, pil_processor)

    def encode(pictures: Sequence[np.ndarray]) -> np.ndarray:
        pixels = processor(images=list(pictures), return_tensors="pt")["pixel_values"].to(device())
        with torch.inference_mode():
            features = model.get_image_features(pixel_values=pixels)
        # transformers 5 wraps the tensor in an object, 4.x does not
        found: np.ndarray = getattr(features, "pooler_output", features)[:, None].half().cpu().numpy()
        return found

    return encode, (1, model.config.projection_dim)
