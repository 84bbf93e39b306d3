"""Images: from an id to its image, concept and name."""

import numpy as np
import pytest
from PIL import Image

from neurocanvas.data.images import FINE_GROUP, IMAGENET_CONCEPTS, N_FINE, PICTURES_FOLDER, Images, read_names
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.simulation.images import CONCEPTS, GRATINGS

BANANA = "n07753592"


@pytest.fixture
def root(tmp_path):
    """A data folder with two images of a banana, one of them wide."""
    folder = tmp_path / PICTURES_FOLDER / BANANA
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 20), (250, 0, 0)).save(folder / f"{BANANA}_2.JPEG")
    Image.new("L", (16, 16), 90).save(folder / f"{BANANA}_1.JPEG")
    return tmp_path


def test_finds_the_pictures_of_a_folder(root):
    images = Images.from_folder(root)
    assert images.ids == (f"{BANANA}_1.JPEG", f"{BANANA}_2.JPEG")
    assert images.concepts[images.ids[0]] == BANANA
    assert images.names == {BANANA: "banana"}
    assert images.path(images.ids[0]).parent.name == BANANA
    (root / "synset_map_en.txt").write_text(f"{BANANA}\tyellow_thing, other\n")
    assert Images.from_folder(root).names == {BANANA: "yellow thing"}


@pytest.mark.parametrize("folder", [".", PICTURES_FOLDER])
@pytest.mark.parametrize("line", [f"\ufeff{BANANA}   香蕉", f"{BANANA}\t香蕉, y"])
def test_names_are_found_where_the_release_has_them(root, folder, line):
    (root / folder / "synset_map_ch.txt").write_text(line + "\n", encoding="utf-8")
    assert read_names(root, "ch") == {BANANA: "香蕉"}
    assert read_names(root) == {}


@pytest.mark.parametrize("folder", ["ILSVRC/Data/CLS-LOC/train", "train", "."])
def test_an_imagenet_folder_does_as_well(root, folder):
    target = root / "elsewhere" / folder / BANANA
    target.parent.mkdir(parents=True, exist_ok=True)
    (root / PICTURES_FOLDER / BANANA).rename(target)
    found = Images.from_folder(root / "elsewhere", [f"{BANANA}_1.JPEG"])
    assert found.path(f"{BANANA}_1.JPEG") == target / f"{BANANA}_1.JPEG"
    assert len(Images.from_folder(root / "elsewhere").ids) == 2


def test_pictures_are_rgb_and_cut_square_when_a_size_is_asked_for(root):
    images = Images.from_folder(root)
    assert images.picture(images.ids[0]).shape == (16, 16, 3)
    assert images.picture(images.ids[1]).shape == (20, 40, 3)
    cut = images.picture(images.ids[1], size=8)
    assert cut.shape == (8, 8, 3) and cut.dtype == np.uint8
    assert cut[4, 4, 0] > 240 and cut[4, 4, 1] < 15


def test_missing_pictures_unknown_stimuli_and_empty_folders_are_errors(root, tmp_path):
    with pytest.raises(NeuroCanvasError, match=f"{BANANA}_9.JPEG: no such file"):
        Images.from_folder(root, [f"{BANANA}_9.JPEG"]).picture(f"{BANANA}_9.JPEG")
    with pytest.raises(NeuroCanvasError, match="unknown"):
        Images.from_folder(root).picture("n1_1.JPEG")
    with pytest.raises(NeuroCanvasError, match="no such folder"):
        Images.from_folder(tmp_path / "elsewhere")
    (tmp_path / "bare" / PICTURES_FOLDER).mkdir(parents=True)
    with pytest.raises(NeuroCanvasError, match="no images"):
        Images.from_folder(tmp_path / "bare")


def test_the_fingerprint_follows_the_pixels(root):
    before = Images.from_folder(root).fingerprint()
    assert Images.from_folder(root).fingerprint() == before
    Image.new("L", (16, 16), 91).save(root / PICTURES_FOLDER / BANANA / f"{BANANA}_1.JPEG")
    assert Images.from_folder(root).fingerprint() != before


def test_gratings_are_drawn_on_demand():
    images = Images.from_gratings()
    assert images.ids == tuple(GRATINGS)
    assert images.picture("grating_low_0").shape == (64, 64, 3)
    assert images.concepts["grating_high_45"] == "grating_high_45"
    assert images.path("grating_low_0") is None


def test_eighty_concepts_fine_ones_first():
    wnids = list(IMAGENET_CONCEPTS)
    assert len(wnids) == 80 and all(len(wnid) == 9 for wnid in wnids)
    fruits = set(wnids[2 * FINE_GROUP : 3 * FINE_GROUP])
    assert fruits == {wnid for wnid, concept in CONCEPTS.items() if concept.granularity == "fine"}
    assert {wnid for wnid, concept in CONCEPTS.items() if concept.granularity == "coarse"} < set(wnids[N_FINE:])


def test_restates_the_released_names(test_data):
    lines = (test_data / "eeg_imagenet_trials" / "synset_map_en.txt").read_text().splitlines()
    names = {line.split()[0]: line.split(None, 1)[1].split(",")[0].replace("_", " ").strip() for line in lines}
    assert names == dict(IMAGENET_CONCEPTS)
