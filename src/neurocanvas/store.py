"""Artifacts on disk: written once, atomically, named by everything they depend on, memory-mapped when read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from neurocanvas.damage import Hashed, report_damage, seal, unseal
from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.pages import pieces

# How the names of files begin that are being written.
PART = ".part-"


def fingerprint(*parts: Any) -> str:
    """Hash settings, arrays, paths' contents and other fingerprints into 16 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            for piece in pieces(part):
                digest.update(piece.data)
        elif isinstance(part, bytes):
            digest.update(part)
        else:
            plain = part.model_dump(mode="json") if hasattr(part, "model_dump") else part
            digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
        digest.update(b"\x00")
    return digest.hexdigest()[:16]


def sha256(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`, and rename it to `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{PART}{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8 with Unix line ends, unless it says the same already."""
    write_bytes(path, text.encode("utf-8"), sync=True)


def write_bytes(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Write a small file atomically, unless it holds the same already."""
    with suppress(OSError):  # not there, or unreadable
        if path.read_bytes() == content:
            return
    with atomic(path) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        if sync:
            stream.flush()
            os.fsync(stream.fileno())


def write_artifact(path: Path, content: bytes, print_of_inputs: str, card: Mapping[str, Any] | None = None) -> None:
    """Write a small file with its card, atomically."""
    write_bytes(path, content)
    finish(path, print_of_inputs, card, digest=hashlib.sha256(content).hexdigest())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_text(path: Path, purpose: str) -> str:
    """Read a text file, UTF-8."""
    try:
        return check_file(path, purpose).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise NeuroCanvasError(f"{path}: not UTF-8 text ({error}); it should hold {purpose}.") from error


def read_json(path: Path, purpose: str) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(read_text(path, purpose))
    except (ValueError, RecursionError) as error:
        raise NeuroCanvasError(f"{path}: not valid JSON ({error}); delete it and run again.") from error


def card_path(path: Path) -> Path:
    """Return where the card of the artifact `path` lies."""
    return path.with_name(path.name + ".json")


def finish(path: Path, print_of_inputs: str, card: Mapping[str, Any] | None = None, *, digest: str = "") -> None:
    """Write the card of an artifact that is complete: from here on it counts as done."""
    digest = digest or sha256(path)
    write_text(card_path(path), seal({"fingerprint": print_of_inputs, "sha256": digest, **(card or {})}))


def is_done(path: Path, print_of_inputs: str) -> bool:
    """Tell whether the artifact exists, is undamaged, and was made from these inputs."""
    at_fault = card_path(path)
    if not (path.is_file() and at_fault.is_file()):
        return False
    try:
        card = unseal(at_fault.read_text(encoding="utf-8"))
        if card.get("fingerprint") != print_of_inputs:
            return False
        at_fault = path
        if card.get("sha256") == sha256(path):
            return True
        report_damage(path)
    except (OSError, ValueError) as error:
        report_damage(at_fault, error)
    return False


def read_card(path: Path) -> dict[str, Any]:
    """Read the card of an artifact."""
    card = read_json(card_path(path), f"the card of {path.name}; run the stage that makes it")
    if not isinstance(card, dict):
        raise NeuroCanvasError(f"{card_path(path)}: not a card; delete it and run again.")
    return card


def write_array(path: Path, array: np.ndarray, print_of_inputs: str, card: Mapping[str, Any] | None = None) -> None:
    """Write an array as `.npy` with its card, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as stream:
        hashed = Hashed(stream)
        np.save(hashed, array, allow_pickle=False)
    finish(path, print_of_inputs, card, digest=hashed.hexdigest())


def read_whole_array(path: Path, purpose: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Read an artifact that is an array into memory, and make sure that it is what was written."""
    try:
        content = check_file(path, purpose).read_bytes()
    except OSError as error:
        raise NeuroCanvasError(f"{path}: cannot be read ({error.strerror}); it should hold {purpose}.") from error
    card = read_card(path)
    if hashlib.sha256(content).hexdigest() != card.get("sha256"):
        raise NeuroCanvasError(f"{path}: damaged: not the bytes that were written; it should hold {purpose}.")
    return np.load(io.BytesIO(content), allow_pickle=False), card


def read_array(path: Path, purpose: str) -> np.ndarray:
    """Memory-map an `.npy` file."""
    try:
        return np.load(check_file(path, purpose), mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, TokenError) as error:  # the last two of a damaged header
        reason = " ".join(str(error).split())
        raise NeuroCanvasError(f"{path}: damaged or not an .npy array ({reason}); delete it and run again.") from error
