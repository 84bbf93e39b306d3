"""Names from files never lead out of their folder: data sets and run folders of others."""

from __future__ import annotations

import json
import os

import pytest
from PIL import Image

from neurocanvas import artifacts
from neurocanvas.data.images import Images
from neurocanvas.errors import NeuroCanvasError, check_inside
from neurocanvas.report.sections import ranked_pictures

OUTSIDE = ["../x.png", "a/../../x.png", "..", "/etc/passwd", "C:x.png", "c:\\x.png", "a\\b.png", "\\\\host\\x.png", "",
           ".", "a\0.png", "a\n.png", "\x1b[2J.png", None, 7, ["a.png"], {"a": 1}]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_are_no_place_in_a_folder(name, tmp_path):
    with pytest.raises(NeuroCanvasError, match="here: a name inside") as caught:
        check_inside(tmp_path, name, "here")
    assert str(caught.value).isprintable()
    if isinstance(name, str) and name.strip("."):
        with pytest.raises(NeuroCanvasError, match="stimulus: a name inside"):
            Images.from_folder(tmp_path, [name])


def test_names_inside_and_links(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "part/é b.png", "..a.png", "./a.png", "a" * 5000):
        assert check_inside(tmp_path / "in", name, "here") == tmp_path / "in" / name
    os.symlink(tmp_path, tmp_path / "in" / "up")
    os.symlink("a.png", tmp_path / "in" / "beside.png")
    assert check_inside(tmp_path / "in", "beside.png", "here").name == "beside.png"
    for name in ("up", "up/x.png"):
        with pytest.raises(NeuroCanvasError, match="is a link that leaves"):
            check_inside(tmp_path / "in", name, "here")
    os.symlink(tmp_path / "in", tmp_path / "linked")  # the folder itself may be a link
    assert check_inside(tmp_path / "linked", "a.png", "here")


@pytest.fixture
def secret(tmp_path):
    """An image beside the folder that is asked for."""
    Image.new("RGB", (4, 4), "red").save(tmp_path / "secret.png")
    return tmp_path / "secret.png"


def test_pictures_that_are_links(tmp_path, secret):
    folder = tmp_path / "data" / "imageNet_images" / "n01"
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "n01_1.png")
    os.symlink(secret, folder / "n01_2.png")
    stimuli = Images.from_folder(tmp_path / "data")
    assert stimuli.picture("n01_1.png").shape == (4, 4, 3) and stimuli.file_hash("n01_1.png")
    for read in (stimuli.picture, stimuli.path, stimuli.file_hash):
        with pytest.raises(NeuroCanvasError, match=r"stimulus n01_2.png: .* is a link that leaves"):
            read("n01_2.png")
    with pytest.raises(NeuroCanvasError, match="link that leaves"):
        stimuli.fingerprint()
    (folder / "n01_\x1b[2J.png").write_bytes(b"")
    with pytest.raises(NeuroCanvasError, match="stimulus: a name inside"):
        Images.from_folder(tmp_path / "data")


MANIFEST = {"subject": 0, "arm": "eeg", "trial": 0, "stimulus": "a.png", "concept": "c", "file": "s0/eeg/0.png"}


def shown(folder, *, stimulus="a.png", **changes):
    """A run folder of somebody else, with one image, as the report reads it."""
    for name in ("images/seen/a.png.png", "images/s0/eeg/0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)
    artifacts.write_text(folder / "images" / "manifest.jsonl", json.dumps(MANIFEST | changes) + "\n")
    row = f'0,0,eeg,"{stimulus}",c,0.5\n'
    artifacts.write_text(folder / "scores" / "trials.csv", f"subject,trial,arm,stimulus,concept,two_way\n{row}")
    return ranked_pictures(folder, ["eeg"], {}, {})


@pytest.mark.parametrize("name", [name for name in OUTSIDE if name])
def test_a_manifest_shows_no_picture_from_elsewhere(name, tmp_path, secret):
    assert shown(tmp_path / "run")["groups"][0]["trials"][0]["pictures"][1][1].startswith("data:image/png;base64,")
    with pytest.raises(NeuroCanvasError, match=r"images: a name inside|no such file"):
        shown(tmp_path / "run", file=name)
    with pytest.raises(NeuroCanvasError, match=r"images: a name inside|no such file"):
        shown(tmp_path / "run", stimulus="../../../secret")
    (tmp_path / "run" / "images" / "s0" / "eeg" / "link.png").unlink(missing_ok=True)
    os.symlink(secret, tmp_path / "run" / "images" / "s0" / "eeg" / "link.png")
    with pytest.raises(NeuroCanvasError, match=r"images: .* is a link that leaves"):
        shown(tmp_path / "run", file="s0/eeg/link.png")


@pytest.mark.parametrize(
    "line", ["{", "[]", "7", '{"subject": "x"}', '{"subject": [], "trial": 0, "arm": "eeg", "file": "x"}',
             '{"trial": 0}', "[" * 100_000, '"\\ud800"'],
)  # fmt: skip
def test_damaged_manifests_are_one_line(line, tmp_path):
    shown(tmp_path / "run")
    (tmp_path / "run" / "images" / "manifest.jsonl").write_text(line)
    with pytest.raises(NeuroCanvasError, match=r"manifest.jsonl"):
        ranked_pictures(tmp_path / "run", ["eeg"], {}, {})
