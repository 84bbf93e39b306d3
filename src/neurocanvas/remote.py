"""A run folder at a URL that fsspec knows (s3://, gs://, sftp://, file://), worked on in a copy on this machine."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from neurocanvas.errors import NeuroCanvasError

# Folders of a run that only a few stages read, and that are large.
PICTURES = ("images", "generated_from_captions")


def is_url(folder: Path | str) -> bool:
    """Tell a URL from a folder."""
    return "://" in str(folder)


@dataclass
class Copy:
    """A copy of a run folder; every process has one of its own."""

    url: str
    folder: Path
    _theirs: dict[str, Any] = field(default_factory=dict, repr=False)
    _ours: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    def pull(self, parts: Sequence[str] | None = None) -> None:
        """Fetch what is at the URL and not here, or another there; drop what is there no more."""
        listed = self._listed(parts)
        for name, info in listed.items():
            token = _token(info)
            if self._theirs.get(name) == token:
                continue
            local = self.folder / name
            local.parent.mkdir(parents=True, exist_ok=True)
            fetched = local.with_name(f".fetched-{local.name}")
            self._do("get_file", f"{self._root}/{name}", str(fetched))
            os.replace(fetched, local)
            self._theirs[name], self._ours[name] = token, _stamp(local)
        for name in [name for name in self._theirs if name not in listed and self._wanted(name, parts)]:
            (self.folder / name).unlink(missing_ok=True)
            del self._theirs[name], self._ours[name]

    def push(self) -> None:
        """Bring what was made, changed or removed here to the URL; cards after what they are of, each file whole."""
        here = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}
        here = {name: path for name, path in here.items() if not path.name.startswith(".")}
        changed = [name for name, path in here.items() if self._ours.get(name) != _stamp(path)]
        for name in sorted(changed, key=lambda name: (name.endswith(".json"), name)):
            stamp, remote = _stamp(here[name]), f"{self._root}/{name}"
            self._do("makedirs", remote.rpartition("/")[0], exist_ok=True)
            part = f"{remote.rpartition('/')[0]}/.part-{secrets.token_hex(8)}-{here[name].name}"
            self._do("put_file", str(here[name]), part)
            self._do("mv", part, remote)
            self._theirs[name], self._ours[name] = _token(self._do("info", remote)), stamp
        for name in [name for name in self._ours if name not in here]:
            self._do("rm_file", f"{self._root}/{name}")
            self._theirs.pop(name, None)
            del self._ours[name]

    @property
    def _root(self) -> str:
        """The URL as its file system calls it."""
        return str(_file_system(self.url)[1]).rstrip("/")

    def _listed(self, parts: Sequence[str] | None) -> dict[str, dict[str, Any]]:
        """Files at the URL by their names in the run folder."""
        folders = [self._root] if parts is None else [f"{self._root}/{part}" for part in parts]
        found: dict[str, dict[str, Any]] = {}
        for folder in folders:
            found |= self._do("find", folder, detail=True)
        begin = len(self._root) + 1
        named = {path[begin:]: info for path, info in found.items() if not Path(path).name.startswith(".")}
        outside = [name for name in named if ".." in Path(name).parts]
        if outside:
            raise NeuroCanvasError(f"{self.url}: holds {outside[0]!r}, which leaves the run folder.")
        return {name: info for name, info in named.items() if self._wanted(name, parts)}

    def _wanted(self, name: str, parts: Sequence[str] | None) -> bool:
        """Whether a file belongs to some folders."""
        if parts is None:
            return name.split("/")[0] not in PICTURES
        return any(name.startswith(f"{part}/") for part in parts)

    def _do(self, what: str, *given: Any, **how: Any) -> Any:
        """Ask the file system; what it refuses is one line."""
        try:
            return getattr(_file_system(self.url)[0], what)(*given, **how)
        except Exception as error:  # every file system has errors of its own
            raise NeuroCanvasError(f"{self.url}: {what} failed ({type(error).__name__}: {error}).") from error


def _token(info: Mapping[str, Any]) -> list[Any]:
    """What changes at the URL when a file is written again, as far as file systems say."""
    return [info.get(key) for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created", "size")]


def _stamp(path: Path) -> tuple[int, int]:
    """What tells whether a file was written since."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4)
def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, which sees what others write, and the path in it."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url, use_listings_cache=False)
    except (ValueError, ImportError, OSError) as error:
        raise NeuroCanvasError(f"--output: a URL that fsspec can open is needed; got {url!r} ({error}).") from error
    return system, path


@lru_cache(maxsize=4)
def copy_of(url: str) -> Copy:
    """Make this process's copy of a run folder; it is empty until something is pulled, and ends with the process."""
    folder = tempfile.mkdtemp(prefix="neurocanvas-run-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Copy(url, Path(folder))
