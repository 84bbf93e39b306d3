"""Picture files, opened in one place: known formats only, of a bounded size, and every damage is one line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_file

if TYPE_CHECKING:
    from PIL import Image

# Suffixes of pictures -> what Pillow may decode; nothing else is tried, whatever a file is called.
FORMATS: Mapping[str, str] = MappingProxyType(
    {
        ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP", ".tif": "TIFF",
        ".tiff": "TIFF",
    }
)  # fmt: skip

# A picture of more pixels is refused: a few bytes of a file can claim to be any size.
MANY_PIXELS = 50_000_000


@contextmanager
def open_picture(path: Path, remedy: str) -> Iterator[Image.Image]:
    """Open a picture; what goes wrong inside of the block, where it is decoded, is said of the file as well."""
    from PIL import Image

    check_file(path, f"a picture; {remedy}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit below is stricter than Pillow's, and damage is an error here
            with Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
                _check(path, image, remedy)
                yield image
    except NeuroCanvasError:
        raise
    except Image.DecompressionBombError as error:
        raise NeuroCanvasError(f"{path}: claims to have too many pixels ({error}); {remedy}.") from error
    except Image.UnidentifiedImageError as error:
        raise NeuroCanvasError(f"{path}: not a picture; allowed are {', '.join(FORMATS)}; {remedy}.") from error
    except Exception as error:  # decoders raise whatever damaged bytes lead them to
        raise NeuroCanvasError(f"{path}: damaged, or not a picture ({error}); {remedy}.") from error


def read_picture(path: Path, remedy: str) -> np.ndarray:
    """Read a picture."""
    with open_picture(path, remedy) as image:
        return np.asarray(image.convert("RGB"))


def _check(path: Path, image: Image.Image, remedy: str) -> None:
    """Raise if a picture is too large, or too deep to be shown as it is."""
    width, height = image.size
    if width * height > MANY_PIXELS:
        raise NeuroCanvasError(f"{path}: claims {width} x {height} pixels, {MANY_PIXELS:,} are allowed; {remedy}.")
    if image.mode.startswith(("I", "F")):
        raise NeuroCanvasError(
            f"{path}: 8 bits per channel are needed; it has the mode {image.mode}; convert it, or {remedy}."
        )
