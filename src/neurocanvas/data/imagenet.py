"""Import the images that were shown from ImageNet, as image-net.org, Kaggle or Hugging Face distribute it."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from neurocanvas.artifacts import write_text
from neurocanvas.data.images import IMAGENET_FOLDERS, PICTURES_FOLDER, alike, find_files
from neurocanvas.errors import NeuroCanvasError, check_inside

# Most bytes of an image in a tar, or of a tar header; ImageNet's largest image has 15 MB.
LARGEST = 64 * 2**20

_ID = re.compile(r"n\d+_\w+\.(?i:jpe?g|png)")
_HUGGING_FACE = re.compile(r"^(?P<stem>n\d+_\d+)_n\d+(?P<ending>\.\w+)$")


def import_pictures(
    source: Path | str, root: Path | str, ids: Iterable[str], *, progress: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Copy the images of `ids` to `root/imageNet_images/<wnid>/<image id>`; returns the ids that no source had."""
    # Tars are streamed, no further than the last image needed; links and folders in them are ignored. A tar cut off
    # exactly between two images cannot be told from a shorter one: what it lacks is reported as missing.
    names = sorted(set(ids))
    for name in names:
        if not _ID.fullmatch(name):
            raise NeuroCanvasError(f"images: ids of ImageNet look like n02106662_1410.JPEG; got {name!r}.")
    wanted = find_files(Path(root) / PICTURES_FOLDER, names)
    missing = {name: path for name, path in wanted.items() if not path.is_file()}
    progress(len(wanted) - len(missing))
    for name, content in _pictures(Path(source), missing):
        check_inside(Path(root) / PICTURES_FOLDER, f"{missing[name].parent.name}/{name}", "images")
        write_text(missing.pop(name), content)
        progress(1)
    return sorted(missing)


def _pictures(source: Path, missing: dict[str, Path]) -> Iterator[tuple[str, bytes]]:
    """Yield every missing image in the source, name and bytes; the caller removes it from `missing`."""
    if source.is_file():
        if missing:
            yield from _in_tar(source, missing)
        return
    if not source.is_dir():
        raise NeuroCanvasError(f"{source}: no such file or folder; it should hold images of ImageNet, or tars.")
    for folder in IMAGENET_FOLDERS:
        for name, path in find_files(source / folder, sorted(missing)).items():
            if path.is_file():
                yield name, path.read_bytes()
    for path in sorted([*source.glob("*.tar*"), *source.glob("data/*.tar*")]):
        if missing and path.is_file() and _may_hold(path.name, missing):
            yield from _in_tar(path, missing)


def _in_tar(path: Path, missing: dict[str, Path]) -> Iterator[tuple[str, bytes]]:
    """Yield every missing image of a tar, or of the tars in it."""
    try:
        with tarfile.open(path, "r|*", tarinfo=_Member) as archive:
            yield from _members(archive, missing)
    except Exception as error:  # tarfile and its decompressors raise many kinds on damaged bytes
        if isinstance(error, NeuroCanvasError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise NeuroCanvasError(f"{path}: truncated, or not a tar ({error}); get it again.") from error


class _Member(tarfile.TarInfo):
    """A member whose long-name and other extended headers, which are read whole, are of a plausible size."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Check the size; tarfile calls this hook before it reads anything of a member."""
        if self.size > LARGEST and self.type not in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE):
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member


def _members(archive: tarfile.TarFile, missing: dict[str, Path], *, inner: bool = False) -> Iterator[tuple[str, bytes]]:
    """Yield every missing image of an open tar and of the tars in it, one level deep."""
    ids = {alike(name): name for name in missing}
    for member in archive:
        if not missing:
            return
        name = PurePosixPath(member.name).name
        stream = archive.extractfile(member) if member.isfile() else None
        if stream is None:
            continue
        if name.endswith(".tar"):
            if not inner and _may_hold(name, missing):
                with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as inner_archive:
                    yield from _members(inner_archive, missing, inner=True)
            continue
        # Hugging Face's train_images_0.tar.gz names them <image>_<wnid>.JPEG
        name = _HUGGING_FACE.sub(r"\g<stem>\g<ending>", name)
        name = ids.get(alike(name), name)
        if name in missing:
            if member.size > LARGEST:
                raise tarfile.ReadError(f"{name} of {member.size:,} bytes, {LARGEST:,} are allowed")
            yield name, stream.read()


def _may_hold(tar: str, missing: dict[str, Path]) -> bool:
    """Whether a tar is worth opening: one named by a wnid holds only that concept."""
    wnid = re.fullmatch(r"(n\d+)\.tar.*", tar)
    return wnid is None or any(name.startswith(f"{wnid[1]}_") for name in missing)
