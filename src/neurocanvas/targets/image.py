"""Pictures to CLIP image embeddings: one vector each, in the space that CLIP's pictures and texts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from neurocanvas.families import find_family, load_picture_encoder


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
    encode, width = load_picture_encoder(find_family(family).judge)
    return lambda pictures: encode(pictures)[:, None].astype(np.float16), (1, width)
