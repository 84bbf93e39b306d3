"""One process at a time works on a run folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.store import PART

# Files in the folder while it is held: what the operating system locks, and who has it.
LOCK, OWNER = ".lock", ".lock.json"


@contextmanager
def hold(folder: Path, verb: str) -> Iterator[None]:
    """Keep other processes from working on a folder; what killed ones left half-written there is deleted first."""
    from filelock import FileLock, Timeout

    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if together and os.environ.get("RANK", "0") != "0":
        yield
        return
    there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.resolve() / LOCK, thread_local=False, is_singleton=True)
    first = not lock.is_locked
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise NeuroCanvasError(
            f"{folder}: in use by {_owner(folder)}; wait until that ends, or stop it, then run again."
        ) from error
    try:
        if first:
            _claim(folder, verb)
            if not together:  # the others may be writing already
                sweep(folder)
        yield
    finally:
        if first:  # while it is locked: whoever has opened the file by now sees that it is gone, and opens anew
            for name in (OWNER, LOCK):
                (folder / name).unlink(missing_ok=True)
        lock.release()
        if not there:  # and nothing was made
            with suppress(OSError):
                folder.rmdir()


def sweep(folder: Path) -> None:
    """Delete what killed processes left half-written, anywhere in a folder."""
    for where, folders, files in os.walk(folder):
        for name in files:
            if name.startswith(PART):
                Path(where, name).unlink(missing_ok=True)
        for name in [name for name in folders if name.startswith(PART)]:
            folders.remove(name)
            shutil.rmtree(Path(where, name))


def _claim(folder: Path, verb: str) -> None:
    """Write down who has the folder."""
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "verb": verb, "since": since}
    (folder / OWNER).write_text(json.dumps(owner), encoding="utf-8")  # not synced, not renamed: nothing depends on it


def _owner(folder: Path) -> str:
    """Who has the folder, in words; a holder is written down a moment after it takes the lock."""
    try:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return "`neurocanvas {verb}` (process {pid} on {host}, since {since})".format(**owner)
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"
