"""Pixel metrics, as MindEye defines them, on images that already have the size they are compared at."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError

# Settings of scikit-image's `structural_similarity`: MindEye compares grey images, `BREAD_SSIM` red, green and blue.
MINDEYE_SSIM: Mapping[str, Any] = MappingProxyType(
    {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
)
BREAD_SSIM: Mapping[str, Any] = MappingProxyType({"channel_axis": -1})


def _check_images(images: np.ndarray, others: np.ndarray, *, table: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return both stacks as float64, or say what is wrong with them."""
    for name, stack in (("images", images), ("others", others)):
        if stack.ndim != 4 or stack.shape[-1] != 3 or not len(stack):
            raise NeuroCanvasError(f"{name}: RGB images, (n, h, w, 3), are needed; got {stack.shape}.")
        if not np.issubdtype(stack.dtype, np.floating) or not (stack.min() >= 0 and stack.max() <= 1):
            raise NeuroCanvasError(
                f"{name}: floats from 0 to 1 are needed; got {stack.dtype} from {stack.min()} to {stack.max()}. "
                "Divide 8-bit images by 255."
            )
    if images.shape[1:] != others.shape[1:] or (not table and len(images) != len(others)):
        raise NeuroCanvasError(
            f"images, others: one size and, for pairs, one number are needed; got {images.shape[:3]} and "
            f"{others.shape[:3]}."
        )
    return images.astype(np.float64, copy=False), others.astype(np.float64, copy=False)


def pixcorr(images: np.ndarray, others: np.ndarray, *, table: bool = False) -> np.ndarray:
    """Pearson correlation of all RGB pixels of each pair of images, or for all pairs, as a table."""
    left, right = _check_images(images, others, table=table)
    if not table:  # pair by pair, so that large images stay in the processor's cache
        return np.array([pixcorr(*pair, table=True).item() for pair in zip(left[:, None], right[:, None], strict=True)])
    units = []
    for stack in (left, right):
        rows = stack.reshape(len(stack), -1)
        rows = rows - rows.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        units.append(np.where(norms > 1e-9, rows / np.maximum(norms, 1e-9), 0.0))  # of one colour: 0
    return np.asarray(np.clip(units[0] @ units[1].T, -1.0, 1.0))


def ssim(
    images: np.ndarray, others: np.ndarray, settings: Mapping[str, Any] = MINDEYE_SSIM, *, table: bool = False
) -> np.ndarray:
    """Structural similarity of each pair of images, or for all pairs, as a table [Wang2004], by scikit-image."""
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    left, right = _check_images(images, others, table=table)
    smallest = 11 if settings.get("gaussian_weights") else 7
    if min(left.shape[1:3]) < smallest:
        raise NeuroCanvasError(f"ssim: {smallest} x {smallest} pixels or more are needed; got {left.shape[1:3]}.")
    if "channel_axis" not in settings:
        left, right = rgb2gray(left), rgb2gray(right)
    pairs = [(a, b) for a in left for b in right] if table else list(zip(left, right, strict=True))
    scores = np.array([structural_similarity(a, b, data_range=1.0, **settings) for a, b in pairs])
    return scores.reshape(len(left), len(right)) if table else scores
