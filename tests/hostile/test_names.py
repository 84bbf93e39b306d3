"""Names from files never lead out of their folder: data sets, tars, run folders of others, released files."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest
from PIL import Image
from tiny import tiny_settings

from neurocanvas import store
from neurocanvas.datasets.imagenet import import_pictures
from neurocanvas.datasets.stimuli import Stimuli
from neurocanvas.errors import NeuroCanvasError, check_inside
from neurocanvas.report.gallery import ranked_pictures
from neurocanvas.stages.exchange import STAGED, import_files
from neurocanvas.stages.records import drawn_stimuli
from neurocanvas.stages.run import Run
from neurocanvas.targets.captions import write_captions

OUTSIDE = ["../x.png", "a/../../x.png", "..", "/etc/passwd", "C:x.png", "c:\\x.png", "a\\b.png", "\\\\host\\x.png", "",
           ".", "a\0.png", "a\n.png", "\x1b[2J.png", None, 7, ["a.png"], {"a": 1}]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_are_no_place_in_a_folder(name, tmp_path):
    with pytest.raises(NeuroCanvasError, match="here: a name inside") as caught:
        check_inside(tmp_path, name, "here")
    assert str(caught.value).isprintable()


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
    """A picture beside the folder that is asked for."""
    Image.new("RGB", (4, 4), "red").save(tmp_path / "secret.png")
    return tmp_path / "secret.png"


@pytest.mark.parametrize("name", [name for name in OUTSIDE if isinstance(name, str) and name])
def test_stimuli_of_a_data_set(name, tmp_path):
    if name != ".":
        with pytest.raises(NeuroCanvasError, match="stimulus: a name inside"):
            Stimuli.from_folder(tmp_path, [name])


def test_pictures_that_are_links(tmp_path, secret):
    folder = tmp_path / "data" / "imageNet_images" / "n01"
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "n01_1.png")
    os.symlink(secret, folder / "n01_2.png")
    stimuli = Stimuli.from_folder(tmp_path / "data")
    assert stimuli.picture("n01_1.png").shape == (4, 4, 3) and stimuli.print_of("n01_1.png")
    for read in (stimuli.picture, stimuli.path, stimuli.print_of):
        with pytest.raises(NeuroCanvasError, match=r"stimulus n01_2.png: .* is a link that leaves"):
            read("n01_2.png")
    with pytest.raises(NeuroCanvasError, match="link that leaves"):
        stimuli.fingerprint()
    (folder / "n01_\x1b[2J.png").write_bytes(b"")
    with pytest.raises(NeuroCanvasError, match="stimulus: a name inside"):
        Stimuli.from_folder(tmp_path / "data")


ID = "n02106662_1410.JPEG"


def tar_of(path, *members, mode="w"):
    """A tar of (name, content, type) members."""
    with tarfile.open(path, mode) as archive:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.size, info.linkname = 0, content.decode()
            archive.addfile(info, io.BytesIO(content) if info.size else None)
    return path


def files_below(folder):
    """Every file and link, by its name in the folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def test_members_of_a_tar_go_where_their_ids_belong(tmp_path, secret):
    tar = tar_of(
        tmp_path / "a.tar", ("../../evil.png", b"x", tarfile.REGTYPE), ("/evil.png", b"x", tarfile.REGTYPE),
        (ID, str(secret).encode(), tarfile.SYMTYPE), ("dev", b"", tarfile.CHRTYPE),
        (f"../../../{ID}", b"picture", tarfile.REGTYPE),
    )  # fmt: skip
    assert import_pictures(tar, tmp_path / "data", [ID]) == []
    assert files_below(tmp_path) == ["a.tar", f"data/imageNet_images/n02106662/{ID}", "secret.png"]
    assert (tmp_path / "data/imageNet_images/n02106662" / ID).read_bytes() == b"picture"
    for name in ("../../n01_1.JPEG", "n01_1.JPEG/../x", "n01_1.JPEG\n", "/n01_1.JPEG"):
        with pytest.raises(NeuroCanvasError, match="ids of ImageNet look like"):
            import_pictures(tar, tmp_path / "data", [name])


def test_pictures_are_not_written_through_a_link(tmp_path):
    tar = tar_of(tmp_path / "a.tar", (ID, b"picture", tarfile.REGTYPE))
    (tmp_path / "data" / "imageNet_images").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "imageNet_images" / "n02106662")
    with pytest.raises(NeuroCanvasError, match=r"pictures: .* is a link that leaves"):
        import_pictures(tar, tmp_path / "data", [ID])
    assert not list((tmp_path / "elsewhere").iterdir())


def test_tars_that_fill_the_memory_or_the_stack(tmp_path, monkeypatch):
    monkeypatch.setattr("neurocanvas.datasets.imagenet.LARGEST", 10_000)
    large = tar_of(tmp_path / "large.tar.gz", (ID, bytes(20_000), tarfile.REGTYPE), mode="w:gz")
    with pytest.raises(NeuroCanvasError, match=r"n02106662_1410.JPEG of 20,000 bytes, 10,000 are allowed"):
        import_pictures(large, tmp_path / "data", [ID])
    named = tar_of(tmp_path / "named.tar.gz", ("x" * 20_000, b"", tarfile.REGTYPE), mode="w:gz")
    with pytest.raises(NeuroCanvasError, match=r"a header of 20,0\d\d bytes"):
        import_pictures(named, tmp_path / "data", [ID])
    monkeypatch.undo()
    inner = tar_of(tmp_path / "inner.tar", (ID, b"picture", tarfile.REGTYPE))
    for _ in range(3):
        inner = tar_of(tmp_path / "inner.tar", ("n02106662.tar", inner.read_bytes(), tarfile.REGTYPE))
    assert import_pictures(inner, tmp_path / "data", [ID]) == [ID]  # deeper than one tar in another is not looked for
    (tmp_path / "b.tar.bz2").write_bytes(b"BZh9" + bytes(200))
    with pytest.raises(NeuroCanvasError, match="truncated, or not a tar"):
        import_pictures(tmp_path / "b.tar.bz2", tmp_path / "data", [ID])


MANIFEST = {"subject": 0, "arm": "eeg", "trial": 0, "stimulus": "a.png", "concept": "c", "file": "s0/eeg/0.png"}


def shown(folder, *, stimulus="a.png", **changes):
    """A run folder of somebody else, with one picture, as the report reads it."""
    for name in ("images/seen/a.png.png", "images/s0/eeg/0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)
    store.write_text(folder / "images" / "manifest.jsonl", json.dumps(MANIFEST | changes) + "\n")
    row = f'0,0,eeg,"{stimulus}",c,0.5\n'
    store.write_text(folder / "scores" / "trials.csv", f"subject,trial,arm,stimulus,concept,two_way\n{row}")
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
    with pytest.raises(NeuroCanvasError, match=r"manifest.jsonl"):
        drawn_stimuli(tmp_path / "run")


def test_released_files_that_are_links(tiny_data, tmp_path):
    settings = tiny_settings(simulate=None, data={"root": str(tiny_data)})
    run = Run(tmp_path / "run", settings)
    (tmp_path / "theirs" / "output").mkdir(parents=True)
    write_captions(tmp_path / "secret.txt", dict.fromkeys(run.stimuli, "a cat"))
    os.symlink(tmp_path / "secret.txt", tmp_path / "theirs" / "output" / "caption.txt")
    with pytest.raises(NeuroCanvasError, match=r"import: .* is a link that leaves"):
        import_files(run, tmp_path / "theirs")
    (tmp_path / "theirs" / "output" / "caption.txt").unlink()
    (tmp_path / "theirs" / "output" / "caption.txt").write_bytes((tmp_path / "secret.txt").read_bytes())
    (tmp_path / "elsewhere").mkdir()
    run.folder.mkdir(exist_ok=True)
    os.symlink(tmp_path / "elsewhere", run.folder / STAGED)
    assert import_files(run, tmp_path / "theirs") == [run.folder / "targets" / "caption.txt"]
    assert not list((tmp_path / "elsewhere").iterdir())
