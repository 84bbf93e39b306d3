"""Preprocessing of pictures for networks and pixel metrics: resizing, cropping, normalising."""

# Published scores differ by this alone, so a step says everything. torchvision resizes tensors without antialiasing up
# to release 0.16 unless told otherwise, and PIL pictures always with it.

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_option

if TYPE_CHECKING:
    import torch

INTERPOLATIONS = ("bilinear", "bicubic")
SHAPES = ("square", "short side", "short side swapped")
KINDS = ("tensor", "8-bit tensor", "pil")

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Resize:
    """One resizing step."""

    size: int
    # Both sides; or the shorter one, keeping the proportion; or that with height and width exchanged, which distorts.
    shape: Literal["square", "short side", "short side swapped"] = "short side"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True  # average over what a pixel covers when shrinking; PIL always does


@dataclass(frozen=True)
class Preprocess:
    """All preprocessing before a network."""

    resizes: tuple[Resize, ...]
    crop: int = 0  # side of the central square; 0: none
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    on: Literal["tensor", "8-bit tensor", "pil"] = "tensor"  # floats; floats rounded to 8 bits per step; PIL pictures


def resized_shape(height: int, width: int, step: Resize) -> tuple[int, int]:
    """Height and width after a resizing step, as torchvision rounds them."""
    if check_option("shape", step.shape, SHAPES) == "square":
        return step.size, step.size
    longer = int(step.size * max(height, width) / min(height, width))
    upright = height > width
    if step.shape == "short side swapped":
        upright = not upright
    return (longer, step.size) if upright else (step.size, longer)


def resize_picture(picture: np.ndarray, steps: Sequence[Resize], on: str = "tensor") -> np.ndarray:
    """Resize (h, w, 3), uint8, to float32 in 0..1; bicubic interpolation of floats reaches slightly beyond."""
    values = np.asarray(picture)
    if values.ndim != 3 or values.shape[-1] != 3 or values.dtype != np.uint8 or not values.size:
        raise NeuroCanvasError(f"pictures: RGB, uint8, (h, w, 3), are needed; got {values.dtype} {values.shape}.")
    for step in steps:
        check_option("interpolation", step.interpolation, INTERPOLATIONS)
    if check_option("on", on, KINDS) == "pil":
        return _resize_8_bit(values, steps).astype(np.float32) / np.float32(255)
    return _resize_floats(values.astype(np.float32) / np.float32(255), steps, rounded=on == "8-bit tensor")


def _resize_8_bit(values: np.ndarray, steps: Sequence[Resize]) -> np.ndarray:
    """Resize by PIL, which rounds to 8 bits after every step."""
    from PIL import Image

    image = Image.fromarray(values)
    for step in steps:
        height, width = resized_shape(image.height, image.width, step)
        if (height, width) != (image.height, image.width):
            image = image.resize((width, height), Image.Resampling[step.interpolation.upper()])
    return np.asarray(image)


def _resize_floats(values: np.ndarray, steps: Sequence[Resize], rounded: bool) -> np.ndarray:
    """Resize by torch's interpolation, as torchvision does."""
    import torch

    image = torch.from_numpy(values).permute(2, 0, 1)[None]
    for step in steps:
        size = resized_shape(image.shape[-2], image.shape[-1], step)
        if size != tuple(image.shape[-2:]):
            image = torch.nn.functional.interpolate(
                image, size, mode=step.interpolation, align_corners=False, antialias=step.antialias
            )
            image = (image.clamp(0, 1) * 255).round() / 255 if rounded else image
    return np.asarray(image[0].permute(1, 2, 0).numpy())


def preprocess(pictures: Sequence[np.ndarray] | np.ndarray, how: Preprocess) -> torch.Tensor:
    """Input of a network, (n, 3, height, width), float32, from pictures (h, w, 3), uint8, of any size."""
    import torch

    made = [crop_middle(resize_picture(picture, how.resizes, how.on), how.crop) for picture in pictures]
    sizes = {picture.shape[:2] for picture in made}
    if len(sizes) != 1:
        raise NeuroCanvasError(
            f"pictures: one size is needed after resizing; got {sorted(sizes)}. Add a crop, or resize to a square."
        )
    values = (np.stack(made) - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2), dtype=np.float32))


def crop_middle(picture: np.ndarray, side: int) -> np.ndarray:
    """Crop the central square, with the corner rounded as in torchvision; 0 leaves the picture as it is."""
    if not side:
        return picture
    height, width = picture.shape[:2]
    if min(height, width) < side:
        raise NeuroCanvasError(f"pictures: at least {side} x {side} pixels are needed to crop; got {height} x {width}.")
    top, left = round((height - side) / 2), round((width - side) / 2)
    return picture[top : top + side, left : left + side]


def through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """Save a picture as JPEG and read it again."""
    from PIL import Image

    if not 1 <= quality <= 95:
        raise NeuroCanvasError(f"quality: 1 to 95 is allowed; got {quality}.")
    stream = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(stream, format="JPEG", quality=quality, optimize=True, progressive=True)
    return np.asarray(Image.open(stream).convert("RGB"))
