"""Families: found by name or folder; damaged weights are refused in one clear line."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import embed_captions

from neurocanvas.doctor import examine
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets import pretrained as families
from neurocanvas.targets.captions import load_captioner
from neurocanvas.targets.pretrained import (
    BUNDLED,
    FAMILIES,
    Family,
    find_family,
    load_part,
    load_picture_encoder,
    source_hash,
)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the bundled weights that the package takes for its own."""
    folder = shutil.copytree(BUNDLED, tmp_path / "bundled")
    row = Family(*(str(folder / part) for part in ("blip", "stable-diffusion", "clip")))
    monkeypatch.setattr(families, "BUNDLED", folder)
    monkeypatch.setattr("neurocanvas.doctor.BUNDLED", folder)
    monkeypatch.setattr(families, "FAMILIES", {**FAMILIES, "bundled": row})
    source_hash.cache_clear()
    yield folder
    source_hash.cache_clear()


def test_an_unknown_family_names_the_known_ones(tmp_path):
    with pytest.raises(NeuroCanvasError, match=r"--family: allowed are bundled, sd14, or a folder .*got 'sd99'"):
        find_family("sd99")
    (tmp_path / "blip").mkdir()
    with pytest.raises(NeuroCanvasError, match="stable-diffusion, clip"):
        find_family(str(tmp_path))


def test_a_folder_is_a_family(tmp_path, copied):
    assert find_family(str(copied)) == families.FAMILIES["bundled"]
    other = shutil.copytree(copied, tmp_path / "other")
    assert find_family(str(other)).judge == str(other / "clip")
    before = source_hash(str(other))
    assert before == source_hash(str(other)) != source_hash("bundled")
    weights = other / "clip" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"0")  # of the same length
    source_hash.cache_clear()
    assert source_hash(str(other)) != before


def test_the_bundled_weights_are_the_released_ones(copied):
    assert source_hash("bundled") != source_hash(str(copied / "clip"))
    assert source_hash("") == "", "no folder, not the current one"
    listed = families.read_json(copied / "card.json", "card")["sha256"]
    assert set(listed) == {str(path.relative_to(copied)) for path in copied.rglob("*.safetensors")}


@pytest.mark.parametrize("part", ["blip", "stable-diffusion/unet", "clip"])
def test_a_flipped_byte_and_a_missing_file_are_noticed_before_loading(copied, part):
    (weights,) = (copied / part).glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    source = str(copied / part.split("/")[0])
    for notice in (lambda: load_part(source, lambda _: pytest.fail("loaded damage")), lambda: examine("bundled")):
        source_hash.cache_clear()
        with pytest.raises(NeuroCanvasError, match=rf"{part}/.*safetensors: missing or not the released bytes"):
            notice()
        weights.unlink(missing_ok=True)


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign"])
def test_damaged_weights_of_ones_own_family_are_one_line(tmp_path, damage):
    for part in ("blip", "stable-diffusion", "clip"):
        (tmp_path / part).mkdir()
    if damage != "missing":
        shutil.copytree(BUNDLED / "blip", tmp_path / "blip", dirs_exist_ok=True)
        weights = tmp_path / "blip" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000] if damage == "truncated" else b"no weights at all" * 100)
    with pytest.raises(NeuroCanvasError, match=r"blip: the weights cannot be loaded") as caught:
        load_captioner(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_are_not_drawn_at_random(tmp_path):
    family = tmp_path / "family"
    shutil.copytree(BUNDLED, family)

    def judge(pictures, name):
        return load_picture_encoder(find_family(name).judge)[0](pictures)

    for network, load in (("clip", judge), ("stable-diffusion/text_encoder", embed_captions)):
        file = family / network / "model.safetensors"
        weights = load_file(file)
        first = min(name for name in weights if "layers.0" in name)
        save_file({name: array for name, array in weights.items() if name != first}, file)
        with pytest.raises(NeuroCanvasError, match=f"1 weights of CLIP.* are not in it, the first .*{first[-20:]}"):
            load([np.zeros((8, 8, 3), np.uint8)] if network == "clip" else ["a cat"], str(family))
