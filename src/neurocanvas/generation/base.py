"""What every generator is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np


class Generator(Protocol):
    """Conditions to images.

    Attributes
    ----------
    accepts : tuple of str
        Names of the target spaces whose embeddings are its conditions; anything else is refused by name.
    size : int
        Width and height of the images, px.
    """

    accepts: ClassVar[tuple[str, ...]]

    @property
    def size(self) -> int: ...

    def generate(self, conditions: np.ndarray, seeds: Sequence[int], init: np.ndarray | None = None) -> np.ndarray:
        """Generate one image per condition.

        Parameters
        ----------
        conditions : array, shape (n, *shape of the target space)
            Embeddings, predicted or true.
        seeds : sequence of int, length n
            One per image: its noise depends on nothing else, so any batch gives the same images.
        init : array, shape (n, size, size, 3), uint8, optional
            Images to start from.

        Returns
        -------
        array, shape (n, size, size, 3), uint8

        Raises
        ------
        NeuroCanvasError
            If the conditions do not fit, or memory does not hold a single image.
        """
        ...
