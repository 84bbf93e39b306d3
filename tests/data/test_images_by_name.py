"""Ids find their files: equal names in several folders, endings and accents as copies write them."""

import tarfile
import unicodedata

import numpy as np
import pytest
from PIL import Image

from neurocanvas import cli
from neurocanvas.audit.external import read_pairing
from neurocanvas.data.imagenet import import_pictures
from neurocanvas.data.images import PICTURES_FOLDER, Images
from neurocanvas.errors import NeuroCanvasError

ID = "n02106662_1410.JPEG"
BEAR = [unicodedata.normalize(form, "Bär.png") for form in ("NFC", "NFD")]


def put(root, *names):
    """Write images whose pixels differ."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), 10 * number, np.uint8)).save(root / name)
    return root


@pytest.mark.parametrize("below", [PICTURES_FOLDER, "."])
def test_equal_names_in_several_folders_stay_apart(tmp_path, below):
    put(tmp_path / below, "cat/img_1.png", "dog/img_1.png", "dog/img_2.png")
    images = Images.from_folder(tmp_path)
    assert images.ids == ("cat/img_1.png", "dog/img_1.png", "img_2.png")
    assert list(images.concepts.values()) == ["cat", "dog", "dog"]
    assert [images.picture(name)[0, 0, 0] for name in images.ids] == [0, 10, 20]
    few = Images.from_folder(tmp_path, ["dog/img_1.png", "img_2.png"])
    assert few.concepts == {"dog/img_1.png": "dog", "img_2.png": "dog"} and few.picture("dog/img_1.png")[0, 0, 0] == 10
    message = r"stimulus img_1\.png: .* has 2 such images, cat/img_1\.png and dog/img_1\.png .*; write the folder"
    with pytest.raises(NeuroCanvasError, match=message):
        Images.from_folder(tmp_path, ["img_1.png"])


@pytest.mark.parametrize("ending", ["jpg", "JPG", "jpeg", "JPEG"])
def test_endings_of_jpeg_find_each_other(tmp_path, ending):
    name = f"n02106662/n02106662_1410.{ending}"
    put(tmp_path / PICTURES_FOLDER, name)
    images = Images.from_folder(tmp_path, [ID])
    assert images.ids == (ID,) and images.picture(ID).shape == (4, 4, 3) and images.concepts[ID] == "n02106662"
    assert import_pictures(tmp_path / PICTURES_FOLDER, tmp_path / "data", [ID]) == []
    assert Images.from_folder(tmp_path / "data", [ID]).file_hash(ID) == images.file_hash(ID)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / PICTURES_FOLDER / name, f"n02106662_1410.{ending}")
    assert import_pictures(tmp_path / "a.tar", tmp_path / "of tar", [ID]) == []
    (tmp_path / "a.tar").write_bytes(b"")  # not opened, as the image is there under another ending
    assert import_pictures(tmp_path / "a.tar", tmp_path, [ID.replace("JPEG", "Jpg")]) == []


def test_two_files_of_one_name_in_a_folder(tmp_path):
    put(tmp_path, "cat/a.jpg", "cat/a.JPG")
    assert Images.from_folder(tmp_path).ids == ("cat/a.JPG", "cat/a.jpg")
    assert Images.from_folder(tmp_path, ["a.jpg"]).picture("a.jpg").max() < 5  # the exact name wins
    with pytest.raises(NeuroCanvasError, match=r"cat/a\.JPG and cat/a\.jpg"):
        Images.from_folder(tmp_path, ["a.jpeg"])


@pytest.mark.parametrize("asked", BEAR)
@pytest.mark.parametrize("stored", BEAR)
def test_accents_find_each_other(tmp_path, asked, stored):
    put(tmp_path, f"zoo/{stored}", f"seen/{stored}", f"made/{asked}", f"made/x/{asked}", f"seen/x/{stored}")
    assert Images.from_folder(tmp_path, [f"zoo/{asked}"]).picture(f"zoo/{asked}").shape == (4, 4, 3)
    (tmp_path / "pairs.csv").write_text(f"image,against\n{stored},{asked}\nx/{stored},x/{stored}\n")
    for table in (None, tmp_path / "pairs.csv"):
        pairing = read_pairing(tmp_path / "made", tmp_path / "seen", table)
        assert [path.is_file() for path in (*pairing.images, *pairing.gallery)] == [True] * 4
        assert pairing.seen.tolist() == [0, 1]


def test_names_that_are_alike_are_not_paired_by_chance(tmp_path):
    put(tmp_path, "made/a.jpg", "made/a.JPEG", "seen/a.jpg")
    with pytest.raises(NeuroCanvasError, match=r"made: 'a\.JPEG' and 'a\.jpg' are names of one image"):
        read_pairing(tmp_path / "made", tmp_path / "seen")


def test_a_source_without_any_of_the_images_is_an_error(tiny_data, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "EEG-ImageNet.pth").symlink_to(tiny_data / "EEG-ImageNet.pth")
    with pytest.raises(NeuroCanvasError, match=r"--from .*empty: has none of the \d+ images, such as n0"):
        cli.pictures(data=tmp_path, source=tmp_path / "empty")
