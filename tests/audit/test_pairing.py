"""Two folders of images: paired by a table or by equal names, and everything that must be refused."""

import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from neurocanvas.audit.external import choose_size, images_in, inside, read_pairing, read_pictures
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.findings import finding


def picture(path, size=(8, 8), seed=0, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def folders(tmp_path):
    """Three images that were made, and two that were seen."""
    for number, name in enumerate(("r10.png", "r9.png", "deep/r1.jpg")):
        picture(tmp_path / "made" / name, seed=number)
    for number, name in enumerate(("cat.png", "dog.png")):
        picture(tmp_path / "seen" / name, seed=9 + number)
    return tmp_path / "made", tmp_path / "seen"


def table(folders, *rows, header="image,against,subject,trial"):
    path = folders[0].parent / "pairs.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


ROWS = ("r9.png,dog.png,1,5", "r10.png,cat.png,1,6", "deep/r1.jpg,dog.png,2,5")


def test_a_table_pairs_by_what_it_says_in_its_own_order(folders):
    pairing = read_pairing(*folders, table(folders, *ROWS))
    assert [path.name for path in pairing.images] == ["r9.png", "r10.png", "r1.jpg"]
    assert [path.name for path in pairing.gallery] == ["cat.png", "dog.png"] and pairing.seen.tolist() == [1, 0, 1]
    assert {name: column.tolist() for name, column in pairing.columns.items()} == {
        "subject": ["1", "1", "2"], "trial": ["5", "6", "5"],
    }  # fmt: skip
    assert pairing.findings == (finding("paired-by-table", table="pairs.csv", n=3),)
    pairing = read_pairing(*folders, table(folders, *ROWS, header="Image, against ,Subjekt,=1+1"))
    assert pairing.columns == {} and pairing.findings[1].numbers == {"columns": "subjekt, =1+1"}


def test_without_a_table_only_equal_names_are_paired(folders, tmp_path):
    with pytest.raises(NeuroCanvasError, match=r"'deep/r1.jpg' has no file of the same name .* nor have 4 more"):
        read_pairing(*folders)
    for name in ("b.png", "a.png", "deep/a.png"):
        picture(tmp_path / "one" / name)
        picture(tmp_path / "two" / name, seed=len(name))
    (tmp_path / "one" / ".hidden.png").write_bytes(b"")
    (tmp_path / "two" / "readme.txt").write_text("no image")
    pairing = read_pairing(tmp_path / "one", tmp_path / "two")
    names = [path.relative_to(tmp_path / "one").as_posix() for path in pairing.images]
    assert names == ["a.png", "b.png", "deep/a.png"] and pairing.seen.tolist() == [0, 1, 2]
    assert finding("paired-by-name", n=3) in pairing.findings


def test_seen_pictures_that_are_equal_are_said(folders):
    shutil.copyfile(folders[1] / "cat.png", folders[1] / "dog.png")
    found = read_pairing(*folders, table(folders, *ROWS)).findings
    assert found[1] == finding("equal-pictures", n=2, first="cat.png", second="dog.png")


# What a row says, and the error.
REFUSED = {
    "missing": ("r8.png,dog.png,1,5", r"image, row 1: no file 'r8.png'"),
    "missing seen": ("r9.png,cow.png,1,5", r"against, row 1: no file 'cow.png'"),
    "twice": ("r10.png,dog.png,1,5", r"rows 1 and 2 both name 'r10.png'"),
    "above": ("../seen/cat.png,dog.png,1,5", r"a name inside .*made is needed.*got '../seen/cat.png'"),
    "above inside": ("deep/../r9.png,dog.png,1,5", r"a name inside"),
    "absolute": ("/etc/passwd,dog.png,1,5", r"a name inside"),
    "drive": (r"C:r9.png,dog.png,1,5", r"a name inside"),
    "backslash": (r"deep\r1.jpg,dog.png,1,5", r"a name inside"),
    "no name": (",dog.png,1,5", r"a name inside .* got ''"),
    "folder": ("deep,dog.png,1,5", r"no file 'deep'"),
    "too long": (f"{'a' * 5000}.png,dog.png,1,5", r"no file 'aaa"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_a_table_may_not_name(fault, folders):
    row, says = REFUSED[fault]
    with pytest.raises(NeuroCanvasError, match=says):
        read_pairing(*folders, table(folders, row, *ROWS[1:]))


def test_pictures_in_no_row_are_refused(folders):
    with pytest.raises(NeuroCanvasError, match=r"1 images of .*made are in no row, the first 'deep/r1.jpg'"):
        read_pairing(*folders, table(folders, *ROWS[:2]))
    picture(folders[1] / "cow.png")
    with pytest.raises(NeuroCanvasError, match=r"1 images of .*seen are in no row, the first 'cow.png'"):
        read_pairing(*folders, table(folders, *ROWS))


def test_links_may_not_leave_their_folder(folders):
    link = folders[0] / "r9.png"
    to_elsewhere, circle = picture(folders[0].parent / "secret.png"), "r9.png"
    for target, says in ((to_elsewhere, r"'r9.png' is a link that leaves"), (circle, r"no file 'r9.png'")):
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(NeuroCanvasError, match=says):
            read_pairing(*folders, table(folders, *ROWS))
    link.unlink()
    link.symlink_to("r10.png")
    assert len(read_pairing(*folders, table(folders, *ROWS)).images) == 3
    (folders[0] / "linked").symlink_to(folders[1])
    with pytest.raises(NeuroCanvasError, match=r"is a link that leaves"):
        inside(folders[0], "linked/cat.png", "here")


def test_faults_of_tables_and_folders_are_one_sentence(folders, tmp_path):
    (tmp_path / "bare").mkdir()
    (folders[0] / "notes.txt").write_text("no image")
    for read, says in (
        (lambda: read_pairing(*folders, table(folders, "a;b", header="image;against")), "the column image is missing"),
        (lambda: read_pairing(*folders, table(folders, *ROWS, header="image,against")), "in line 2, saw 4"),
        (lambda: read_pairing(*folders, tmp_path / "none.csv"), r"no such file"),
        (lambda: read_pairing(folders[0], tmp_path / "none"), r"none: no such folder"),
        (lambda: images_in(tmp_path / "bare"), r"bare: no images in it; allowed are .png"),
        (lambda: read_pairing(*folders, table(folders, "notes.txt,cat.png,,")), "row 1: allowed are .*got 'notes.txt'"),
    ):
        with pytest.raises(NeuroCanvasError, match=says):
            read()


def test_pictures_of_another_size_are_cut_and_resized_and_that_is_said(folders):
    pairing = read_pairing(*folders, table(folders, *ROWS))
    assert choose_size(pairing) == ((8, 8), ())
    large = picture(folders[1] / "dog.png", (32, 20), seed=4)
    size, [found] = choose_size(pairing)
    assert size == (8, 8) and found.numbers == {"n": 1, "of": 5, "width": 8, "height": 8}
    found = read_pictures(pairing.gallery, size)
    assert found.shape == (2, 8, 8, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], np.asarray(Image.open(folders[1] / "cat.png")))
    with Image.open(large) as whole:
        expected = whole.resize((8, 8), Image.Resampling.LANCZOS, box=(6, 0, 26, 20))
    np.testing.assert_array_equal(found[1], np.asarray(expected))
    picture(folders[0] / "r9.png", (12, 6))
    size, [found] = choose_size(pairing)
    assert size == (6, 6) and found.numbers["n"] == 5


def test_grey_and_transparent_pictures_are_read_as_colour_and_deep_ones_refused(tmp_path):
    paths = [picture(tmp_path / f"{mode}.png", mode=mode) for mode in ("L", "RGBA", "P", "1", "LA")]
    assert read_pictures(paths, (8, 8)).shape == (5, 8, 8, 3)
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(NeuroCanvasError, match=r"deep.png: 8 bits per channel are needed; it has the mode I"):
        read_pictures([tmp_path / "deep.png"], (8, 8))


def bomb(path, width, height):
    """A PNG of a few bytes that claims to be large."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize("side", [8_000, 11_000, 60_000], ids=["ours", "Pillow warns", "Pillow refuses"])
def test_a_picture_that_claims_to_be_huge_is_not_decoded(side, tmp_path, recwarn):
    path = bomb(tmp_path / "bomb.png", side, side)
    with pytest.raises(NeuroCanvasError, match=r"bomb.png: claims"):
        read_pictures([path], (8, 8))
    assert not recwarn.list


def test_what_cannot_be_decoded_is_refused(folders):
    path = folders[0] / "r9.png"
    pairing = read_pairing(*folders, table(folders, *ROWS))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(NeuroCanvasError, match=r"r9.png: damaged"):
        read_pictures(pairing.images, (8, 8))
    for content in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", b""):  # the first is for another program
        path.write_bytes(content)
        with pytest.raises(NeuroCanvasError, match=r"r9.png: not an image; allowed are .png"):
            choose_size(pairing)
