"""Images: one helper opens them all, and what is no image, too large or damaged is one line that names the file."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import neurocanvas
from neurocanvas.data.images import FORMATS, Images
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.report.sections import data_uri

SOURCES = Path(neurocanvas.__file__).parent


def picture(kind="PNG", size=(9, 7), mode="RGB", **how):
    """The bytes of an image of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, format=kind, **how)
    return stream.getvalue()


def test_pictures_are_opened_in_one_place():
    opening = re.compile(r"Image\.open\(|ImageFile\.|imread\(")
    found = {path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py") if opening.search(path.read_text())}
    assert found <= {"data/images.py", "evaluation/feature_networks.py"}  # the latter of bytes that it made itself
    converted = re.compile(r"\.convert\(")  # what transparency, profiles and EXIF data would be lost by
    found = {
        path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py") if converted.search(path.read_text())
    }
    assert found <= {"data/images.py", "evaluation/feature_networks.py"}


@pytest.mark.parametrize("kind", sorted(set(FORMATS.values())))
def test_every_format_is_told_from_its_content(kind, tmp_path):
    path = tmp_path / "n02106662_1.JPEG"  # as some images of ImageNet are PNG by another name
    path.write_bytes(picture(kind))
    found = Images(("x",), {"x": "x"}, {"x": "x"}, {"x": path}).picture("x")
    assert found.shape == (7, 9, 3) and found.dtype == np.uint8


def deep(kind):
    """The bytes of an image of 16 bits per channel."""
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(stream, format=kind)
    return stream.getvalue()


def animated(kind):
    """The bytes of a file with two images."""
    stream, frames = io.BytesIO(), [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(stream, format=kind, save_all=True, append_images=frames[1:])
    return stream.getvalue()


def chunk(kind, content):
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *chunks):
    """A PNG that claims a size."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


REFUSED = {
    **{kind: (content, "not an image") for kind, content in {
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "empty": b"",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "pdf": b"%PDF-1.4\n", "text": b"hello",
        "gif": picture("GIF"), "ico": picture("ICO", size=(16, 16)), "psd": b"8BPS\0\x01" + bytes(40),
    }.items()},
    "our limit": (png(8_000, 8_000), r"claims 8000 x 8000 pixels, 50,000,000 are allowed"),
    "long and thin": (png(2**31 - 1, 1), r"claims (2147483647 x 1|to have too many)"),
    "Pillow's limit": (png(60_000, 60_000), "claims to have too many pixels"),
    "no size": (png(0, 0), "damaged|not an image"),
    "cut off": (picture()[:-60], "damaged"),
    "cut off jpeg": (picture("JPEG", size=(64, 64))[:400], "damaged"),
    "text bomb": (png(4, 4, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6)))] * 80), "damaged|not an image"),
    "deep": (deep("PNG"), "8 bits per channel are needed; it has the mode I"),
    **{f"frames {kind}": (animated(kind), "one image is needed; it has 2 frames") for kind in ("PNG", "WEBP", "TIFF")},
    "deep tiff": (deep("TIFF"), "8 bits per channel are needed; it has the mode I"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, tmp_path, recwarn):
    content, says = REFUSED[name]
    path = tmp_path / "imageNet_images" / "n01" / "n01_1.JPEG"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    for read in (
        lambda: data_uri(path),
        lambda: Images.from_folder(tmp_path, ["n01_1.JPEG"]).picture("n01_1.JPEG"),
    ):  # fmt: skip
        with pytest.raises(NeuroCanvasError, match=says) as caught:
            read()
        assert str(path) in str(caught.value) and str(caught.value).isprintable()
    assert not recwarn.list
