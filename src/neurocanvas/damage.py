"""What tells damage: hashes of what was written and read, and the line that says which file is damaged."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from neurocanvas.errors import NeuroCanvasError

_BEFORE_CHECK = ',\n "check": '


def report_damage(path: Path, error: Exception | None = None) -> None:
    """Say which file is damaged; whoever says so makes it again."""
    reason = getattr(error, "strerror", None) or "its bytes are not those that were written"
    logging.getLogger("neurocanvas").warning("%s: damaged (%s); it is made again", path, reason)


def tell_on_stderr() -> None:
    """Let this process print what `report_damage` says, one line each."""
    told = logging.StreamHandler()
    told.setFormatter(logging.Formatter("neurocanvas: %(message)s"))
    logging.getLogger("neurocanvas").handlers[:] = [told]


class Hashed:
    """A file that is written to, and the sha256 of what was."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._digest = stream, hashlib.sha256()

    def write(self, content: Any) -> int:
        """Write bytes, or whatever has some."""
        self._digest.update(content)
        return self._stream.write(content)

    def hexdigest(self) -> str:
        """Give 64 hex digits."""
        return self._digest.hexdigest()


def check_unchanged(what: Path | str, before: str | None, now: str | None) -> None:
    """Refuse to finish an artifact whose input was damaged while it was read."""
    if before != now:
        raise NeuroCanvasError(f"{what}: changed on the disk while it was read; put the right one there and run again.")


def seal(card: Mapping[str, Any]) -> str:
    """Write a card as JSON text whose last entry, `check`, hashes all that stands before it."""
    body = json.dumps(card, indent=1, ensure_ascii=False).removesuffix("\n}")
    return f'{body}{_BEFORE_CHECK}"{_check(body)}"\n}}\n'


def unseal(text: str) -> dict[str, Any]:
    """Read a card, and notice if one byte of it has changed."""
    card = json.loads(text)
    if not isinstance(card, dict) or "check" not in card:
        return {}
    body, _, check = text.rpartition(_BEFORE_CHECK)
    if check != f'"{_check(body)}"\n}}\n':
        raise ValueError("the card is not as it was written")
    return card


def _check(body: str) -> str:
    """16 hex digits that name a text."""
    return hashlib.sha256(body.encode()).hexdigest()[:16]
