"""What `doctor` says of the machine, of weights and of images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from neurocanvas.config import DataSettings
from neurocanvas.doctor import describe, examine
from neurocanvas.targets.pretrained import BUNDLED


def test_the_bundled_family_is_here():
    report = examine("bundled")
    assert report["packages"]["torch"] and report["devices"][0]["mb"] > 1000
    assert [(one["part"], one["where"], one["licence"]) for one in report["weights"]] == [
        ("captioner", "folder", "MIT"), ("diffusion", "folder", "MIT"), ("judge", "folder", "MIT"),
    ]  # fmt: skip
    sizes = sum(path.stat().st_size for path in BUNDLED.rglob("*.safetensors")) / 1e6
    assert sum(one["mb"] for one in report["weights"]) == pytest.approx(sizes)
    assert report["pictures"] is None


def test_weights_that_are_not_here_are_missing_and_no_network_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    report = examine("sd14")
    assert {one["where"] for one in report["weights"]} == {"missing"}
    assert {one["part"]: one["licence"] for one in report["weights"]}["diffusion"] == "CreativeML OpenRAIL-M"
    tables, notes = describe(report)
    assert [title for title, *_ in tables] == ["Packages", "Devices", "Weights"]
    assert notes[0].startswith("Some weights are missing")


def test_missing_pictures_are_counted(tiny_copy):
    stimulus = sorted((tiny_copy / "data").rglob("*.JPEG"))[0]
    stimulus.unlink()
    report = examine("bundled", DataSettings(root=str(tiny_copy / "data")))
    assert (report["pictures"]["missing"], report["pictures"]["first"]) == (1, [stimulus.name])
    assert "1 of 24 are missing" in describe(report)[1][-1]


def test_a_second_precision_counts_once_and_an_incomplete_folder_is_named(tmp_path):
    for part in ("blip", "clip"):
        (tmp_path / part).symlink_to(BUNDLED / part)
    diffusion = Path(shutil.copytree(BUNDLED / "stable-diffusion", tmp_path / "stable-diffusion"))
    weights = next((diffusion / "unet").glob("*.safetensors"))
    before = examine(str(tmp_path))["weights"]
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert examine(str(tmp_path))["weights"] == before
    shutil.rmtree(diffusion / "unet")
    assert examine(str(tmp_path))["weights"][1]["where"] == "incomplete: no unet"
