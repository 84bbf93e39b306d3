"""Images as a viewer shows them: transparency on white, colour profiles, EXIF orientation, CMYK."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from neurocanvas.audit.external import choose_size, read_pairing, read_pictures
from neurocanvas.data.images import Images, as_shown
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.pipeline import run as pipeline

FLAT = np.full((6, 4, 3), 255, np.uint8)  # the upper left corner is dark red, the rest white
FLAT[:2, :2] = (120, 10, 20)
OPAQUE = ((FLAT != 255).any(axis=2) * 255).astype(np.uint8)


def transparent(mode):
    """The same look, made by transparency of this kind, over colours that nobody sees."""
    hidden = np.where(OPAQUE[..., None] == 255, FLAT, np.random.default_rng(0).integers(0, 250, FLAT.shape)).astype(
        np.uint8
    )
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(hidden).convert("L"), Image.fromarray(OPAQUE)])
    if mode == "RGBA":
        return Image.fromarray(np.dstack([hidden, OPAQUE]))
    if mode == "P":
        return Image.fromarray(np.where(OPAQUE[..., None] == 255, FLAT, (0, 200, 0)).astype(np.uint8)).quantize(2)
    return Image.fromarray(np.where(OPAQUE[..., None] == 255, FLAT, (0, 200, 0)).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_parts_are_white_for_every_reader(tmp_path, mode):
    path, image, how = tmp_path / "x.png", transparent(mode), {}
    if mode == "P":
        how["transparency"] = int(np.asarray(image)[-1, -1])
    elif mode == "RGB":
        how["transparency"] = (0, 200, 0)
    image.save(path, **how)
    expected = FLAT if mode != "LA" else np.repeat(np.asarray(Image.fromarray(FLAT).convert("L"))[..., None], 3, axis=2)
    for found in (
        Images(("x",), {"x": "x"}, {"x": "x"}, {"x": path}).picture("x"),
        read_pictures([path], (4, 6))[0], pipeline.read_pictures([path])[0],
    ):  # fmt: skip
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_exif_turns_the_image_and_its_size(tmp_path, orientation, kind):
    exif, pixels = (
        Image.Exif(),
        np.kron(np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3), np.ones((16, 16), np.uint8)),
    )
    exif[0x0112] = orientation
    for folder in ("seen", "made"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / f"x.{kind}"
        Image.fromarray(np.repeat(pixels[..., None], 3, axis=2)).save(path, exif=exif, quality=100)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        np.testing.assert_array_equal(np.asarray(as_shown(image)), expected)
    size, _ = choose_size(read_pairing(tmp_path / "made", tmp_path / "seen"))
    assert size == expected.shape[1::-1]


def linear():
    """A colour profile whose values are proportional to light: sRGB with a straight curve."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for place in range(132, 132 + 12 * struct.unpack(">I", content[128:132])[0], 12):
        name, offset, _ = struct.unpack(">4sII", content[place : place + 12])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            content[offset : offset + 16] = b"para" + bytes(4) + struct.pack(">HHi", 0, 0, 65536)
    return bytes(content)


def test_colour_profiles_are_applied_and_damaged_ones_ignored():
    stream, image = io.BytesIO(), Image.new("RGB", (4, 4), (55, 55, 55))
    image.save(stream, format="PNG", icc_profile=linear())
    assert (
        np.abs(np.asarray(as_shown(Image.open(stream))).astype(int) - 127).max() <= 2
    )  # (55 / 255) ** (1 / 2.2) * 255
    for profile in (b"no profile", linear()[:200]):
        image.info["icc_profile"] = profile
        assert np.asarray(as_shown(image)).tolist() == np.asarray(image).tolist()
    grey = Image.new("L", (4, 4), 55)
    grey.info["icc_profile"] = linear()  # of another colour space than the image
    assert (np.asarray(as_shown(grey)) == 55).all()


def test_cmyk_and_damaged_exif_data(tmp_path):
    Image.fromarray(np.kron(FLAT, np.ones((8, 8, 1), np.uint8))).convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    assert np.abs(pipeline.read_pictures([tmp_path / "x.jpg"])[0][::8, ::8].astype(int) - FLAT).max() < 8
    image = Image.new("RGB", (4, 2))
    image.save(tmp_path / "y.jpg", exif=b"Exif\0\0no such data at all")
    assert pipeline.read_pictures([tmp_path / "y.jpg"]).shape == (1, 2, 4, 3)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 0, 9)])
def test_images_of_one_colour_from_elsewhere_are_refused(tmp_path, colour):
    Image.new("RGB", (4, 6), colour).save(tmp_path / "x.png")
    with pytest.raises(NeuroCanvasError, match=r"x\.png: all pixels have one colour"):
        read_pictures([tmp_path / "x.png"], (4, 6))
