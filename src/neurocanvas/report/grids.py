"""Comparison grids: pages of pictures side by side, a row per stimulus, with its caption below."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from neurocanvas.safe_text import printable

# Width of a picture, space between two, height of a line of text; px.
CELL, GAP, LINE = 192, 12, 22

PAPER, INK = (255, 255, 255), (32, 32, 32)


def comparison_pages(
    columns: Sequence[str],
    rows: Sequence[tuple[str, Mapping[str, np.ndarray]]],
    *,
    per_page: int = 6,
) -> Iterator[np.ndarray]:
    """Set pictures side by side."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=14)
    width = GAP + len(columns) * (CELL + GAP)
    for start in range(0, len(rows), per_page):
        part = rows[start : start + per_page]
        page = Image.new("RGB", (width, GAP + LINE + len(part) * (CELL + LINE + GAP)), PAPER)
        pen = ImageDraw.Draw(page)
        lefts = [GAP + number * (CELL + GAP) for number in range(len(columns))]
        for left, column in zip(lefts, columns, strict=True):
            pen.text((left, GAP), column, INK, font)
        for number, (caption, pictures) in enumerate(part):
            top = GAP + LINE + number * (CELL + LINE + GAP)
            for left, column in zip(lefts, columns, strict=True):
                if column in pictures:
                    picture = Image.fromarray(pictures[column])
                    small = min(picture.size) < CELL
                    page.paste(
                        picture.resize((CELL, CELL), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS),
                        (left, top),
                    )
            pen.text((GAP, top + CELL + 2), _shortened(printable(caption), width - 2 * GAP, font.getlength), INK, font)
        yield np.asarray(page)


def _shortened(text: str, width: int, measure: Callable[[str], float]) -> str:
    """A text that fits into a line, with three dots where it was cut."""
    if measure(text) <= width:
        return text
    while text and measure(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
