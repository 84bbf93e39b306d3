"""What `doctor` says of the machine, of weights and of pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from neurocanvas import families
from neurocanvas.config import DataSettings, GenerateSettings
from neurocanvas.doctor import describe, examine
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.families import BUNDLED


def test_the_bundled_family_is_here_and_fits():
    report = examine(GenerateSettings())
    assert report["packages"]["torch"] and report["devices"][0]["mb"] > 1000
    assert [(one["part"], one["where"], one["licence"]) for one in report["weights"]] == [
        ("captioner", "folder", "MIT"), ("diffusion", "folder", "MIT"), ("judge", "folder", "MIT"),
    ]  # fmt: skip
    sizes = sum(path.stat().st_size for path in BUNDLED.rglob("*.safetensors")) / 1e6
    assert sum(one["mb"] for one in report["weights"]) == pytest.approx(sizes)
    assert report["needs"]["at_once"] == 24 and 0 < report["needs"]["mb"] < 200 and report["pictures"] is None


def test_damaged_bundled_weights_are_named(monkeypatch):
    families.check_bundled.cache_clear()
    monkeypatch.setattr(families, "sha256", lambda path: "of other bytes")
    with pytest.raises(NeuroCanvasError, match=r"model.safetensors: missing or not the released bytes; reinstall"):
        examine(GenerateSettings())


def test_needs_are_the_numbers_of_the_generator_in_its_precision():
    from neurocanvas.generation.diffusion import load_generator

    pipeline = load_generator(GenerateSettings()).pipeline
    parts = pipeline.unet, pipeline.vae, pipeline.text_encoder
    numbers = sum(weights.numel() for part in parts for weights in part.parameters())
    needs = {name: examine(GenerateSettings(precision=name))["needs"]["mb"] for name in ("float32", "float16")}
    assert needs["float32"] == pytest.approx(numbers * 4 / 1e6, rel=0.01) and needs["float16"] == needs["float32"] / 2


def test_weights_that_are_not_here_are_missing_and_no_network_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    report = examine(GenerateSettings(family="sd14"))
    assert {one["where"] for one in report["weights"]} == {"missing"}
    assert {one["part"]: one["licence"] for one in report["weights"]}["diffusion"] == "CreativeML OpenRAIL-M"
    assert report["needs"]["mb"] is None and report["needs"]["at_once"] == 0
    tables, notes = describe(report)
    assert [title for title, *_ in tables] == ["Packages", "Devices", "Weights"] and "not all here" in notes[0]


def test_missing_pictures_are_counted(tiny_copy):
    stimulus = sorted((tiny_copy / "data").rglob("*.JPEG"))[0]
    stimulus.unlink()
    report = examine(GenerateSettings(), DataSettings(root=str(tiny_copy / "data")))
    assert (report["pictures"]["missing"], report["pictures"]["first"]) == (1, [stimulus.name])
    assert "1 of 24 are missing" in describe(report)[1][-1]


def test_a_card_that_is_too_small_is_said(monkeypatch):
    whole = examine(GenerateSettings(precision="float32"))["needs"]
    assert whole["at_once"] == 24 and 0 < whole["one_mb"] < whole["shard_mb"] < 24 * whole["one_mb"]

    def on_a_card_of(mb, **how):
        monkeypatch.setattr("neurocanvas.doctor._devices", lambda: [{"name": "GPU 0, small", "mb": mb}])
        return examine(GenerateSettings(precision="float32", **how))

    report = on_a_card_of(1.0)
    assert report["needs"]["at_once"] == 0 and "does not fit" in describe(report)[1][0]
    tight = (whole["mb"] + whole["one_mb"]) / 0.85
    assert on_a_card_of(tight + 0.1)["needs"]["at_once"] >= 1 and on_a_card_of(tight - 0.1)["needs"]["at_once"] == 0
    assert "of 24 at once fit" in describe(on_a_card_of(tight + 0.1))[1][0]
    assert on_a_card_of(tight - 0.1, offload=True)["needs"]["at_once"] >= 1


def test_an_unknown_family_is_refused():
    with pytest.raises(NeuroCanvasError, match="--family: allowed are bundled, sd14"):
        examine(GenerateSettings(family="nowhere"))


def test_a_second_precision_counts_once_and_an_incomplete_or_damaged_folder_is_named(tmp_path):
    for part in ("blip", "clip"):
        (tmp_path / part).symlink_to(BUNDLED / part)
    family = GenerateSettings(family=str(tmp_path))
    diffusion = Path(shutil.copytree(BUNDLED / "stable-diffusion", tmp_path / "stable-diffusion"))
    weights = next((diffusion / "unet").glob("*.safetensors"))
    before = examine(family)["needs"]["mb"]
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert examine(family)["needs"]["mb"] == before
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(NeuroCanvasError, match=r"diffusion_pytorch_model.safetensors: no safetensors file, or cut off"):
        examine(family)
    shutil.rmtree(diffusion / "unet")
    assert examine(family)["weights"][1]["where"] == "incomplete: no unet"
