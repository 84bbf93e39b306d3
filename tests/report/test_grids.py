"""Pages of comparison: every image in its place, every caption in its line."""

import numpy as np

from neurocanvas.pipeline.generate import CELL, GAP, LINE, comparison_pages


def plain(value, size=64):
    return np.full((size, size, 3), value, np.uint8)


def test_pictures_stand_in_their_rows_and_columns_and_what_is_missing_stays_white():
    rows = [("a cat", {"original": plain(10), "from caption": plain(20, 300)}), ("a dog", {"original": plain(30)})]
    (page,) = comparison_pages(("original", "from caption"), rows)
    centres = [[page[GAP + LINE + row * (CELL + LINE + GAP) + CELL // 2, GAP + column * (CELL + GAP) + CELL // 2, 0]
                for column in (0, 1)] for row in (0, 1)]  # fmt: skip
    assert centres == [[10, 20], [30, 255]]


def test_there_are_as_many_pages_as_rows_need_and_captions_are_written():
    rows = [(f"image {number}", {"original": plain(200)}) for number in range(7)]
    pages = list(comparison_pages(("original",), rows, per_page=3))
    assert [page.shape[0] - GAP - LINE for page in pages] == [(CELL + LINE + GAP) * count for count in (3, 3, 1)]
    below = pages[0][GAP + LINE + CELL + 2 : GAP + LINE + CELL + LINE]
    assert (below < 100).any()
