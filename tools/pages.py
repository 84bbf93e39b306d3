"""Tables of the docs that a program writes: each stands between two comments that name it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def write_table(page: str, name: str, lines: Iterable[str]) -> None:
    """Put lines between `<!-- name -->` and `<!-- end -->` of a page."""
    path = DOCS / page
    text = path.read_text(encoding="utf-8")
    content = "".join(f"{line}\n" for line in lines)
    place = rf"(?s)(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)"
    written, count = re.subn(place, lambda found: found[1] + content + found[2], text)
    if count != 1:
        raise SystemExit(f"{path}: one place for the table {name} is needed; it has {count}.")
    path.write_text(written, encoding="utf-8")
