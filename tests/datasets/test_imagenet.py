"""Pictures out of ImageNet as it comes: only what is needed, nothing outside the folder."""

import io
import tarfile

import pytest

from neurocanvas.datasets.imagenet import import_pictures
from neurocanvas.datasets.stimuli import PICTURES_FOLDER, Stimuli
from neurocanvas.errors import NeuroCanvasError

IDS = ["n01443537_10.JPEG", "n01443537_20.JPEG", "n02106662_1410.JPEG"]
OTHER = "n02106662_9.JPEG"


def content_of(name: str) -> bytes:
    """Bytes that tell which picture they are."""
    return f"picture {name} ".encode() * 500


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar of some files."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return whole.getvalue()


def per_wnid(names) -> dict[str, bytes]:
    """One tar per wnid, by name, as in `ILSVRC2012_img_train.tar`."""
    wnids = sorted({name.split("_")[0] for name in names})
    return {f"{w}.tar": tar_of({n: content_of(n) for n in names if n.startswith(w)}) for w in wnids}


def as_folder(source, below):
    """Write the pictures as <below>/<wnid>/<id>."""
    for name in (*IDS, OTHER):
        path = source / below / name.split("_")[0] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content_of(name))


def make_source(kind: str, folder):
    """ImageNet in one of the forms it comes in; returns what `import_pictures` is given."""
    folder.mkdir()
    if kind in ("train", "ILSVRC/Data/CLS-LOC/train", "."):
        as_folder(folder, kind)
        return folder
    if kind == "image-net":
        path = folder / "ILSVRC2012_img_train.tar"
        path.write_bytes(tar_of(per_wnid([*IDS, OTHER])))
        return path
    if kind == "tar per wnid":
        for name, content in per_wnid([*IDS, OTHER]).items():
            (folder / name).write_bytes(content)
        (folder / "n00000000.tar").write_bytes(b"not needed, so not opened")
        return folder
    twice = {f"x/{name[:-5]}_{name.split('_')[0]}.JPEG": content_of(name) for name in (*IDS, OTHER)}
    (folder / "data").mkdir()
    (folder / "data" / "train_images_0.tar.gz").write_bytes(tar_of(twice, "w:gz"))
    return folder


@pytest.mark.parametrize(
    "kind", ["train", "ILSVRC/Data/CLS-LOC/train", ".", "image-net", "tar per wnid", "hugging face"]
)
def test_only_what_is_needed_is_taken(tmp_path, kind):
    seen = []
    missing = import_pictures(
        make_source(kind, tmp_path / "in"), tmp_path / "data", [*IDS, "n01443537_99.JPEG"], progress=seen.append
    )
    assert missing == ["n01443537_99.JPEG"] and sum(seen) == 3
    files = {path.name: path for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert sorted(files) == IDS
    for name, path in files.items():
        assert path.read_bytes() == content_of(name)
        assert path == Stimuli.from_folder(tmp_path / "data", IDS).path(name)


def test_what_is_there_is_left_alone(tmp_path):
    source = make_source("image-net", tmp_path / "in")
    there = tmp_path / PICTURES_FOLDER / "n01443537" / IDS[0]
    there.parent.mkdir(parents=True)
    there.write_bytes(b"my own")
    assert import_pictures(source, tmp_path, IDS) == []
    assert there.read_bytes() == b"my own"
    source.write_bytes(b"")  # all is there, so the tar is not opened
    assert import_pictures(source, tmp_path, IDS) == []


@pytest.mark.parametrize("kind", ["image-net", "hugging face"])
@pytest.mark.parametrize("keep", [0.2, 0.45, 0.7])
def test_a_truncated_tar_is_one_line_and_half_a_picture_is_not_written(tmp_path, kind, keep):
    source = make_source(kind, tmp_path / "in")
    path = source if source.is_file() else next(source.rglob("*.tar.gz"))
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    try:
        assert len(import_pictures(source, tmp_path / "data", IDS)) > 0  # cut off between two pictures
    except NeuroCanvasError as error:
        assert "truncated, or not a tar" in str(error) and "\n" not in str(error)
    for written in (tmp_path / "data").rglob("*.JPEG"):
        assert written.read_bytes() == content_of(written.name)


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NeuroCanvasError, match="no such file or folder"):
        import_pictures(tmp_path / "none", tmp_path, IDS)
    (tmp_path / "some.tar").write_bytes(b"no tar at all")
    with pytest.raises(NeuroCanvasError, match=r"some\.tar: truncated, or not a tar"):
        import_pictures(tmp_path / "some.tar", tmp_path, IDS)
