"""Images out of ImageNet as it comes: only what is needed, nothing outside the folder."""

import io
import os
import re
import tarfile

import pytest

from neurocanvas.data.imagenet import import_pictures
from neurocanvas.data.images import PICTURES_FOLDER, Images
from neurocanvas.errors import NeuroCanvasError

IDS = ["n01443537_10.JPEG", "n01443537_20.JPEG", "n02106662_1410.JPEG"]
OTHER = "n02106662_9.JPEG"


def content_of(name: str) -> bytes:
    """Bytes that tell which image they are."""
    return f"image {name} ".encode() * 500


def tar_of(files: dict[str, bytes], mode: str = "w", **links: str) -> bytes:
    """A tar of some files, and of symbolic links."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode=mode) as archive:
        for name, content in {**files, **links}.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if member.size else None)
    return whole.getvalue()


def per_wnid(names) -> dict[str, bytes]:
    """One tar per wnid, by name, as in `ILSVRC2012_img_train.tar`."""
    wnids = sorted({name.split("_")[0] for name in names})
    return {f"{w}.tar": tar_of({n: content_of(n) for n in names if n.startswith(w)}) for w in wnids}


def as_folder(source, below):
    """Write the images as <below>/<wnid>/<id>."""
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
        assert path == Images.from_folder(tmp_path / "data", IDS).path(name)


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
        assert len(import_pictures(source, tmp_path / "data", IDS)) > 0  # cut off between two images
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


ID = IDS[2]


def refused(tmp_path, name, content):
    """What is said when a tar is refused."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NeuroCanvasError) as caught:
        import_pictures(tmp_path / name, tmp_path / "data", [ID])
    return str(caught.value)


def test_members_of_a_tar_go_where_their_ids_belong(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    files = {"../../evil.png": b"x", "/evil.png": b"x", f"../../../{ID}": b"picture"}
    (tmp_path / "a.tar").write_bytes(tar_of(files, **{ID: str(tmp_path / "secret.png")}))
    assert import_pictures(tmp_path / "a.tar", tmp_path / "data", [ID]) == []
    written = [path for path in (tmp_path / "data").rglob("*") if not path.is_dir()]
    assert written == [tmp_path / "data" / PICTURES_FOLDER / "n02106662" / ID]
    assert written[0].read_bytes() == b"picture" and not written[0].is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "data", "secret.png"]
    for name in ("../../n01_1.JPEG", "n01_1.JPEG/../x", "n01_1.JPEG\n", "/n01_1.JPEG"):
        with pytest.raises(NeuroCanvasError, match="ids of ImageNet look like"):
            import_pictures(tmp_path / "a.tar", tmp_path / "data", [name])


def test_pictures_are_not_written_through_a_link(tmp_path):
    (tmp_path / "data" / PICTURES_FOLDER).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / PICTURES_FOLDER / "n02106662")
    assert re.search("images: .* is a link that leaves", refused(tmp_path, "a.tar", tar_of({ID: b"picture"})))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_tars_that_fill_the_memory_or_the_stack(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("neurocanvas.data.imagenet.LARGEST", 10_000)
        large, named = tar_of({ID: bytes(20_000)}, "w:gz"), tar_of({"x" * 20_000: b""}, "w:gz")
        assert f"{ID} of 20,000 bytes, 10,000 are allowed" in refused(tmp_path, "large.tar.gz", large)
        assert re.search(r"a header of 20,0\d\d bytes", refused(tmp_path, "named.tar.gz", named))
    inner = tar_of({ID: b"picture"})
    for _ in range(3):
        inner = tar_of({"n02106662.tar": inner})
    (tmp_path / "inner.tar").write_bytes(inner)
    assert import_pictures(tmp_path / "inner.tar", tmp_path / "data", [ID]) == [ID]  # deeper than one is not looked for
    assert "truncated, or not a tar" in refused(tmp_path, "b.tar.bz2", b"BZh9" + bytes(200))
