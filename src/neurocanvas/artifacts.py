"""Artifacts on disk: an atomic write, and a sidecar `<name>.json` with the cache key, sha256 and size.

The sidecar is written last, so a killed run leaves a complete artifact or none.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_file, check_inside, read_csv_cell

# Prefix of temporary files.
PART = ".part-"


def fingerprint(*parts: Any) -> str:
    """Hash of settings, arrays, bytes and JSON values: 16 hex digits."""
    digest = hashlib.sha256()
    for value in parts:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype}{value.shape}".encode())
            objects = value.dtype == object
            digest.update(repr(value.tolist()).encode() if objects else np.ascontiguousarray(value).view(np.uint8).data)
        elif isinstance(value, bytes):
            digest.update(value)
        else:
            plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
            digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
        digest.update(b"\x00")
    return digest.hexdigest()[:16]


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_write(path: Path, *, keep_sidecar: bool = False) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{PART}{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        if not keep_sidecar:  # the sidecar of an earlier artifact does not describe this one
            sidecar_path(path).unlink(missing_ok=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str | bytes) -> None:
    """Write a small file atomically, unless it has this content; text as UTF-8 with Unix line ends."""
    encoded = content.encode("utf-8") if isinstance(content, str) else content
    with suppress(OSError):
        if path.read_bytes() == encoded:
            return
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_text(path: Path, purpose: str) -> str:
    """Read a UTF-8 file; errors mention its `purpose`."""
    try:
        return check_file(path, purpose).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise NeuroCanvasError(f"{path}: not UTF-8 text ({error}); it should hold {purpose}.") from error


def read_json(path: Path, purpose: str) -> Any:
    """Read a JSON file; errors mention its `purpose`."""
    try:
        return json.loads(read_text(path, purpose))
    except (ValueError, RecursionError) as error:
        raise NeuroCanvasError(f"{path}: not valid JSON ({error}); delete it and run again.") from error


def sidecar_path(path: Path) -> Path:
    """Path of an artifact's sidecar."""
    return path.with_name(path.name + ".json")


def write_sidecar(
    path: Path, inputs: str, sidecar: Mapping[str, Any] | None = None, made_from: Iterable[Path] = ()
) -> None:
    """Write the sidecar of a complete artifact, with the cache keys of its inputs in `made_from`."""
    content: dict[str, Any] = {"fingerprint": inputs, "sha256": sha256(path), "size": path.stat().st_size}
    for file in made_from:
        name = Path(os.path.relpath(file, path.parent)).as_posix()
        content.setdefault("made_from", {})[name] = read_sidecar(file)["fingerprint"]
    write_json(sidecar_path(path), {**content, **(sidecar or {})})


def is_cached(path: Path, inputs: str) -> bool:
    """Whether the artifact has this cache key and its original size."""
    try:
        content = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
        return bool(content["fingerprint"] == inputs and content["size"] == path.stat().st_size)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read the sidecar of an artifact."""
    sidecar = read_json(sidecar_path(path), f"the sidecar of {path.name}; run its stage")
    if not isinstance(sidecar, dict) or "fingerprint" not in sidecar:
        raise NeuroCanvasError(f"{sidecar_path(path)}: not a sidecar; delete it and run again.")
    return sidecar


def write_array(
    path: Path,
    array: np.ndarray | Iterable[np.ndarray],
    inputs: str,
    sidecar: Mapping[str, Any] | None = None,
    made_from: Iterable[Path] = (),
    *,
    shape: tuple[int, ...] = (),
    dtype: Any = None,
) -> None:
    """Write an array, or consecutive rows of an array larger than memory, as `.npy` with its sidecar."""
    if isinstance(array, np.ndarray):
        shape, dtype, array = array.shape, array.dtype, [array]
    if np.dtype(dtype).hasobject:
        raise ValueError("Object arrays would need pickle.")
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for rows in array:
            stream.write(np.ascontiguousarray(rows, dtype).data)
    write_sidecar(path, inputs, sidecar, made_from)


def read_array(path: Path, purpose: str) -> np.ndarray:
    """Memory-map an `.npy` file, read-only; errors mention its `purpose`."""
    try:
        return np.load(check_file(path, purpose), mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, TokenError) as error:  # the last two: damaged header
        reason = " ".join(str(error).split())
        raise NeuroCanvasError(f"{path}: damaged or not an .npy array ({reason}); delete it and run again.") from error


def verify(folder: Path) -> tuple[int, list[Path]]:
    """Compare every artifact in a folder with the sha256 in its sidecar; return their number and damaged files."""
    expected: dict[Path, str] = {}
    damaged, splits = [], 0
    for sidecar in sorted(path for path in folder.rglob("*.json") if not path.name.startswith(PART)):
        try:
            content = json.loads(sidecar.read_text(encoding="utf-8"))
            if isinstance(content, dict) and isinstance(content.get("pictures"), dict):  # a shard of generated images
                for name, entry in content["pictures"].items():
                    expected[check_inside(sidecar.parent, name, str(sidecar))] = str(entry["sha256"])
            elif isinstance(content, dict) and "sha256" in content:
                expected[sidecar.with_suffix("")] = str(content["sha256"])
            elif isinstance(content, dict) and "folds" in content and (digest := content.pop("fingerprint", None)):
                splits += 1  # a split has its own hash
                damaged += [sidecar] if fingerprint(content) != digest else []
        except (OSError, ValueError, LookupError, TypeError, RecursionError, NeuroCanvasError):
            damaged.append(sidecar)
    damaged += [path for path, digest in expected.items() if not path.is_file() or sha256(path) != digest]
    return len(expected) + splits, damaged


def cache_folder() -> Path:
    """The shared cache: NEUROCANVAS_CACHE, else the platform's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("NEUROCANVAS_CACHE") or user_cache_path("neurocanvas", appauthor=False))


def cached(kind: str, keys: Sequence[str], make: Callable[[list[int]], Iterable[np.ndarray]]) -> Iterator[np.ndarray]:
    """Yield one array per key from the shared cache; `make` yields arrays for the positions of missing keys."""
    folder = cache_folder()
    paths = {key: folder / kind / key[:2] / f"{key}.npy" for key in keys}
    first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
    missing = sorted(position for key, position in first.items() if not paths[key].is_file())
    for position, array in zip(missing, make(missing) if missing else (), strict=True):
        try:
            with atomic_write(paths[keys[position]], keep_sidecar=True) as temporary, temporary.open("wb") as stream:
                np.save(stream, array)
        except OSError as error:
            raise NeuroCanvasError(
                f"{folder}: the shared cache cannot be written ({error.strerror}); make room with `neurocanvas "
                "cache --prune`, or name another folder with NEUROCANVAS_CACHE."
            ) from error
    for key in keys:
        try:
            yield np.load(paths[key], allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise NeuroCanvasError(f"{paths[key]}: damaged or just deleted; delete it and run again.") from error


def cache_files() -> dict[str, list[Path]]:
    """Entries of the shared cache by kind."""
    folders = sorted(path for path in cache_folder().glob("*") if path.is_dir())
    return {folder.name: sorted(folder.glob("*/*.npy")) for folder in folders}


# Files in a run folder while a command works on it: the lock, and its owner.
LOCK, OWNER = ".lock", ".lock.json"


@contextmanager
def lock_run(folder: Path, verb: str) -> Iterator[None]:
    """Lock a run folder (re-entrant), and remove partial files left by a killed process."""
    from filelock import FileLock, Timeout

    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1  # `accelerate launch` or torchrun: rank 0 locks
    if distributed and os.environ.get("RANK", "0") != "0":
        yield
        return
    if any(len(name) > 2 and name.endswith(":") for name in folder.parts[:1]):  # avoids a folder named "s3:"
        raise NeuroCanvasError(f"-o: a folder is needed, not a URL; got {folder}. Mount or sync the bucket.")
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.resolve() / LOCK, thread_local=False, is_singleton=True)
    outermost = not lock.is_locked
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise NeuroCanvasError(
            f"{folder}: in use by {_owner(folder)}; wait until that ends, or stop it, then run again."
        ) from error
    try:
        if outermost:
            since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            owner = {"host": socket.gethostname(), "pid": os.getpid(), "verb": verb, "since": since}
            (folder / OWNER).write_text(json.dumps(owner), encoding="utf-8")
            partial = () if distributed else sorted(folder.rglob(f"{PART}*"), reverse=True)  # others may write
            for path in partial:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        yield
    finally:
        if outermost:
            for name in (OWNER, LOCK):
                (folder / name).unlink(missing_ok=True)
        lock.release()
        if not existed:  # removes an empty folder
            with suppress(OSError):
                folder.rmdir()


def _owner(folder: Path) -> str:
    """The owner of the lock, whose file is written just after locking."""
    try:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return "`neurocanvas {verb}` (process {pid} on {host}, since {since})".format(**owner)
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"


def read_torch(path: Path | str, purpose: str) -> Any:
    """Read a PyTorch file without running code; tensors stay on disk until use."""
    import pickle

    import torch

    check_file(path, purpose)
    try:
        return torch.load(path, mmap=True, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise NeuroCanvasError(
            f"{path}: holds more than tensors and plain values, so loading it could run code; it should hold {purpose}."
        ) from error
    except Exception as error:  # torch's unpickler raises many kinds on damaged data
        raise _damaged(path, error, purpose) from error


def torch_fingerprint(paths: Iterable[Path], purpose: str) -> str:
    """Hash of PyTorch files: their pickles, and name, size and checksum of every tensor, which is not read."""
    parts: list[Any] = []
    for path in paths:
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
                pickled = archive.read(next(file for file in members if file.filename.endswith("data.pkl")))
        except Exception as error:  # zipfile raises many kinds
            raise _damaged(path, error, purpose) from error
        parts += [
            path.name,
            path.stat().st_size,
            [(file.filename, file.file_size, file.CRC) for file in members],
            pickled,
        ]
    return fingerprint(*parts)


def repeated_tensors(paths: Iterable[Path]) -> tuple[int, int]:
    """How many tensors of PyTorch files have the checksum and size of another one, and how many different ones."""
    sums: Counter[tuple[int, int]] = Counter()
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            sums.update((file.CRC, file.file_size) for file in archive.infolist() if "/data/" in file.filename)
    repeated = [count for count in sums.values() if count > 1]
    return sum(repeated), len(repeated)


def _damaged(path: Path | str, error: Exception, purpose: str) -> NeuroCanvasError:
    """The error of an unreadable file."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    with suppress(OSError), Path(path).open("rb") as stream:
        if stream.read(2) == b"\x80\x02":  # a pickle
            return NeuroCanvasError(
                f"{path}: an old PyTorch file (before 1.6), or a pickle; load it where it came from and write it again "
                f"with torch.save; it should hold {purpose}."
            )
    return NeuroCanvasError(f"{path}: truncated, or not a PyTorch file ({reason}); it should hold {purpose}.")


def write_torch(path: Path, value: Any, *, keep_sidecar: bool = False) -> None:
    """Write a PyTorch file atomically."""
    import torch

    # to a stream, because torch writes the file's (temporary) name into the file
    with atomic_write(path, keep_sidecar=keep_sidecar) as temporary, temporary.open("wb") as stream:
        try:
            torch.save(value, stream)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_csv(path: Path, verb: str, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read a CSV file with a header, written by a verb."""
    text = read_text(path, f"a table; run the verb {verb}")
    try:
        lines = [list(map(read_csv_cell, row)) for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise NeuroCanvasError(f"{path}: not CSV ({error}); run {verb} again.") from error
    rows = [dict(zip(lines[0], line, strict=False)) for line in lines[1:]]
    if any(len(line) != len(lines[0]) for line in lines) or (rows and not {*columns} <= {*rows[0]}):
        raise NeuroCanvasError(f"{path}: columns {', '.join(columns) or 'of one length'} are needed; run {verb} again.")
    return rows


def number_in(row: Mapping[str, str], column: str, path: Path, verb: str) -> float:
    """Read a number from a row."""
    try:
        return float(row[column] or "nan")
    except ValueError as error:
        raise NeuroCanvasError(f"{path}: {column} must be a number; got {row[column]!r}; run {verb} again.") from error
