"""Pixel metrics, as MindEye defines them, on pictures that already have the size they are compared at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neurocanvas.errors import NeuroCanvasError

# Weights of red, green and blue in the grey picture (ITU-R BT.709, as scikit-image's rgb2gray has them).
LUMA = (0.2125, 0.7154, 0.0721)


@dataclass(frozen=True)
class Window:
    """Over what SSIM takes local moments, and of what."""

    size: int = 11
    sigma: float = 1.5
    sample_covariance: bool = False
    grey: bool = True

    @property
    def unbiased(self) -> float:
        """Factor that makes variances those of a sample."""
        return self.size**2 / (self.size**2 - 1) if self.sample_covariance else 1.0


# MindEye's settings; `Window(7, 0, True, False)` is what scikit-image does where nothing is said.
MINDEYE_WINDOW = Window()


def _check_pictures(images: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both stacks as float64, or say what is wrong with them."""
    stacks = []
    for name, stack in (("images", images), ("others", others)):
        values = np.asarray(stack)
        if values.ndim != 4 or values.shape[-1] != 3 or not len(values):
            raise NeuroCanvasError(f"{name}: RGB pictures, (n, h, w, 3), are needed; got {values.shape}.")
        if not np.issubdtype(values.dtype, np.floating) or not (values.min() >= 0 and values.max() <= 1):
            raise NeuroCanvasError(
                f"{name}: floats from 0 to 1 are needed; got {values.dtype} from {values.min()} to "
                f"{values.max()}. Divide 8-bit pictures by 255."
            )
        stacks.append(values.astype(np.float64, copy=False))
    if stacks[0].shape[1:] != stacks[1].shape[1:]:
        raise NeuroCanvasError(
            f"images, others: one size is needed; got {stacks[0].shape[1:3]}, {stacks[1].shape[1:3]}."
        )
    return stacks[0], stacks[1]


def _unit_rows(pictures: np.ndarray) -> np.ndarray:
    """Flatten, centre and scale every picture to length 1; a picture of one colour becomes zero."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(norms > 1e-9, rows / np.maximum(norms, 1e-9), 0.0)


def pixcorr_table(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """PixCorr of every picture of one stack with every picture of another."""
    left, right = _check_pictures(images, others)
    return np.asarray(np.clip(_unit_rows(left) @ _unit_rows(right).T, -1.0, 1.0))


def pixcorr(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pearson correlation of all RGB pixels of each pair of pictures."""
    left, right = _check_pictures(images, others)
    _check_pairs(left, right)
    # pair by pair: large pictures are then read from the cache
    found = [(_unit_rows(one[None]) @ _unit_rows(other[None]).T).item() for one, other in zip(left, right, strict=True)]
    return np.clip(np.array(found), -1.0, 1.0)


def _check_pairs(images: np.ndarray, others: np.ndarray) -> None:
    """Raise unless both stacks hold equally many pictures."""
    if len(images) != len(others):
        raise NeuroCanvasError(f"pairs of pictures: as many of both are needed; got {len(images)} and {len(others)}.")


def _smooth(picture: np.ndarray, window: Window) -> np.ndarray:
    """Mean around every pixel whose window lies inside the picture, (h - size + 1, w - size + 1)."""
    from scipy.ndimage import correlate1d

    radius = window.size // 2
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / window.sigma) ** 2) if window.sigma else np.ones(window.size)
    weights /= weights.sum()
    for _ in range(2):  # along rows, which lie together in memory, and then along what were columns
        picture = np.ascontiguousarray(correlate1d(picture, weights, axis=-1)[:, radius:-radius].T)
    return picture


@dataclass(frozen=True)
class _Moments:
    """One channel of one picture, with what SSIM takes from it in every pair."""

    picture: np.ndarray
    mean: np.ndarray
    squared_mean: np.ndarray
    variance: np.ndarray


def _channels(picture: np.ndarray, window: Window) -> list[_Moments]:
    """Local moments of a picture's grey version, or of each of its colours."""
    found = []
    for channel in [picture @ LUMA] if window.grey else np.moveaxis(picture, -1, 0):
        mean = _smooth(channel, window)
        variance = window.unbiased * (_smooth(channel * channel, window) - mean * mean)
        found.append(_Moments(channel, mean, mean * mean, variance))
    return found


def _ssim(left: list[_Moments], right: list[_Moments], window: Window) -> float:
    """SSIM of two pictures from 0 to 1, mean over places and channels [Wang2004]."""
    c1, c2, total = 0.01**2, 0.03**2, 0.0
    for one, other in zip(left, right, strict=True):
        means = one.mean * other.mean
        covariance = window.unbiased * (_smooth(one.picture * other.picture, window) - means)
        local = (2 * means + c1) * (2 * covariance + c2)
        local /= (one.squared_mean + other.squared_mean + c1) * (one.variance + other.variance + c2)
        total += float(local.mean())
    return total / len(left)


def _checked_for_ssim(images: np.ndarray, others: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Return both stacks as float64, or say what is wrong with them or the window."""
    left, right = _check_pictures(images, others)
    if min(left.shape[1:3]) < window.size or window.size % 2 == 0:
        raise NeuroCanvasError(
            f"ssim: at least {window.size} x {window.size} pixels, an odd number, are needed; got {left.shape[1:3]}."
        )
    return left, right


def ssim_table(images: np.ndarray, others: np.ndarray, window: Window = MINDEYE_WINDOW) -> np.ndarray:
    """SSIM of every picture of one stack with every picture of another."""
    left, right = _checked_for_ssim(images, others, window)
    columns = [_channels(picture, window) for picture in right]
    rows = (_channels(picture, window) for picture in left)
    return np.array([[_ssim(row, column, window) for column in columns] for row in rows])


def ssim(images: np.ndarray, others: np.ndarray, window: Window = MINDEYE_WINDOW) -> np.ndarray:
    """Structural similarity of each pair of pictures, of their grey versions unless `window` says otherwise."""
    left, right = _checked_for_ssim(images, others, window)
    _check_pairs(left, right)
    pairs = zip(left, right, strict=True)
    return np.array([_ssim(_channels(one, window), _channels(other, window), window) for one, other in pairs])


def lpips_distance(
    features: Sequence[np.ndarray], others: Sequence[np.ndarray], heads: Sequence[np.ndarray]
) -> np.ndarray:
    """Learned perceptual distance of each pair of pictures from features of several layers [Zhang2018]."""
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
