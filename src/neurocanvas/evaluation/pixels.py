"""Pixel metrics, as MindEye defines them, on images that already have the size they are compared at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neurocanvas.errors import NeuroCanvasError

# Weights of red, green and blue in the grey image (ITU-R BT.709, as scikit-image's rgb2gray has them).
LUMA = (0.2125, 0.7154, 0.0721)


@dataclass(frozen=True)
class Window:
    """Window and channels of SSIM's local moments."""

    size: int = 11
    sigma: float = 1.5
    sample_covariance: bool = False
    grey: bool = True


# MindEye's settings; `Window(7, 0, True, False)` is scikit-image's default.
MINDEYE_WINDOW = Window()


def _check_pictures(images: np.ndarray, others: np.ndarray, *, table: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return both stacks as float64, or say what is wrong with them."""
    stacks = []
    for name, stack in (("images", images), ("others", others)):
        values = np.asarray(stack)
        if values.ndim != 4 or values.shape[-1] != 3 or not len(values):
            raise NeuroCanvasError(f"{name}: RGB images, (n, h, w, 3), are needed; got {values.shape}.")
        if not np.issubdtype(values.dtype, np.floating) or not (values.min() >= 0 and values.max() <= 1):
            raise NeuroCanvasError(
                f"{name}: floats from 0 to 1 are needed; got {values.dtype} from {values.min()} to "
                f"{values.max()}. Divide 8-bit images by 255."
            )
        stacks.append(values.astype(np.float64, copy=False))
    left, right = stacks
    if left.shape[1:] != right.shape[1:]:
        raise NeuroCanvasError(f"images, others: one size is needed; got {left.shape[1:3]}, {right.shape[1:3]}.")
    if not table and len(left) != len(right):
        raise NeuroCanvasError(f"pairs of images: both need the same number; got {len(left)} and {len(right)}.")
    return left, right


def pixcorr(images: np.ndarray, others: np.ndarray, *, table: bool = False) -> np.ndarray:
    """Pearson correlation of all RGB pixels of each pair of images, or for all pairs, as a table."""
    left, right = _check_pictures(images, others, table=table)
    if not table:  # pair by pair, so that large images stay in the processor's cache
        return np.array([pixcorr(*pair, table=True).item() for pair in zip(left[:, None], right[:, None], strict=True)])
    units = []
    for stack in (left, right):
        rows = stack.reshape(len(stack), -1)
        rows = rows - rows.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        units.append(np.where(norms > 1e-9, rows / np.maximum(norms, 1e-9), 0.0))  # of one colour: 0
    return np.asarray(np.clip(units[0] @ units[1].T, -1.0, 1.0))


def _smooth(picture: np.ndarray, window: Window) -> np.ndarray:
    """Mean around every pixel whose window lies inside the image, (h - size + 1, w - size + 1)."""
    from scipy.ndimage import correlate1d

    radius = window.size // 2
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / window.sigma) ** 2) if window.sigma else np.ones(window.size)
    weights /= weights.sum()
    for _ in range(2):  # rows first, which are contiguous, then columns
        picture = np.ascontiguousarray(correlate1d(picture, weights, axis=-1)[:, radius:-radius].T)
    return picture


def ssim(images: np.ndarray, others: np.ndarray, window: Window = MINDEYE_WINDOW, *, table: bool = False) -> np.ndarray:
    """Structural similarity of each pair of images, or for all pairs, as a table [Wang2004]."""
    left, right = _check_pictures(images, others, table=table)
    if min(left.shape[1:3]) < window.size or window.size % 2 == 0:
        raise NeuroCanvasError(
            f"ssim: at least {window.size} x {window.size} pixels, an odd number, are needed; got {left.shape[1:3]}."
        )
    if not table:
        pairs = zip(left[:, None], right[:, None], strict=True)
        return np.array([ssim(*pair, window, table=True).item() for pair in pairs])
    c1, c2 = 0.01**2, 0.03**2
    unbiased = window.size**2 / (window.size**2 - 1) if window.sample_covariance else 1.0
    moments: list[list[tuple[np.ndarray, ...]]] = []  # per image and channel: itself, mean, squared mean, variance
    for picture in (*left, *right):
        moments.append([])
        for channel in [picture @ LUMA] if window.grey else np.moveaxis(picture, -1, 0):
            mean = _smooth(channel, window)
            variance = unbiased * (_smooth(channel * channel, window) - mean * mean)
            moments[-1].append((channel, mean, mean * mean, variance))
    found = np.zeros((len(left), len(right)))
    for row, column in np.ndindex(found.shape):
        for (x, x_mean, x_squared, x_variance), (y, y_mean, y_squared, y_variance) in zip(
            moments[row], moments[len(left) + column], strict=True
        ):
            means = x_mean * y_mean
            covariance = unbiased * (_smooth(x * y, window) - means)
            local = (2 * means + c1) * (2 * covariance + c2)
            local /= (x_squared + y_squared + c1) * (x_variance + y_variance + c2)
            found[row, column] += local.mean()
    return found / len(moments[0])


def lpips_distance(
    features: Sequence[np.ndarray], others: Sequence[np.ndarray], heads: Sequence[np.ndarray]
) -> np.ndarray:
    """Learned perceptual distance of each pair of images from features of several layers [Zhang2018]."""
    shapes = [[np.shape(layer) for layer in layers] for layers in (features, others)]
    fits = shapes[0] == shapes[1] and len(shapes[0]) == len(heads) > 0
    if not fits or any(len(s) != 4 or s[1:2] != np.shape(head) for s, head in zip(shapes[0], heads, strict=True)):
        raise NeuroCanvasError(
            "lpips: layers (n, n_channels, height, width), equal of both, and a head (n_channels,) for each, are "
            f"needed; got {shapes[0]}, {shapes[1]} and {[np.shape(head) for head in heads]}."
        )
    total = np.zeros(shapes[0][0][0])
    for left, right, head in zip(features, others, heads, strict=True):
        squared = (_unit_channels(left) - _unit_channels(right)) ** 2
        total += np.einsum("nchw,c->nhw", squared, head).mean(axis=(1, 2))
    return total


def _unit_channels(layer: np.ndarray) -> np.ndarray:
    """Scale features to length 1 over channels at every place."""
    values = np.asarray(layer, dtype=np.float64)
    return np.asarray(values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-10))
