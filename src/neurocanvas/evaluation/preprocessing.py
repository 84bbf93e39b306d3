"""What happens to a picture before a network or a pixel metric sees it: resizing, cropping, normalising."""

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
    shape: Literal["square", "short side", "short side swapped"] = "short side"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True


@dataclass(frozen=True)
class Preprocess:
    """Everything that happens to a picture before a network."""

    resizes: tuple[Resize, ...]
    crop: int = 0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    on: Literal["tensor", "8-bit tensor", "pil"] = "tensor"


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
    """Resize one picture."""
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
    """Resize by torch's interpolation, which torchvision calls."""
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
    """Make the tensor that a network reads."""
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
    """Cut the square in the middle of a picture, its corner rounded as torchvision rounds it."""
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
