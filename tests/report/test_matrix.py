"""The confusion matrix: every count in its cell, in every order."""

import re
from pathlib import Path

import numpy as np

from neurocanvas.report.figures import confusion, matrix

COUNTS = "arm,true,named,count\neeg,a,a,1\neeg,a,c,3\neeg,b,b,4\neeg,c,b,2\nshuffled,a,b,4\nother,a,a,9\n"
ORDER = "concept,name,semantic,block\na,ape,2,0\nb,bee,0,2\nc,cat,1,1\n"


def write(folder: Path, counts: str = COUNTS, order: str = ORDER) -> Path:
    (folder / "scores").mkdir(exist_ok=True)
    (folder / "scores" / "confusion.csv").write_text(counts)
    (folder / "scores" / "concept_order.csv").write_text(order)
    return folder


def cells(svg: str) -> dict[tuple[int, int], int]:
    """(row, column) of every coloured cell -> its level."""
    found = {}
    for level, path in re.findall(r'class="level-(\d)" d="([^"]*)"', svg):
        found |= {(int(y), int(x)): int(level) for x, y in re.findall(r"M(\d+) (\d+)h", path)}
    return found


def test_cells_stand_where_they_were_counted() -> None:
    counts = np.array([[1, 0, 3], [0, 4, 0], [0, 2, 0]])
    assert cells(matrix(counts, [*"abc"], "eeg")["svg"]) == {(0, 0): 4, (0, 2): 6, (1, 1): 7, (2, 1): 7}
    nothing = matrix(np.zeros((3, 3)), [*"abc"], "eeg")
    assert cells(nothing["svg"]) == {} and nothing["sentence"] == "nothing named."


def test_both_orders_hold_the_same_counts(tmp_path: Path) -> None:
    found = confusion(write(tmp_path), ["eeg", "shuffled", "mean"], {})
    assert list(found["orders"]) == ["semantic", "block"] and found["arms"] == ["eeg", "shuffled"]
    drawn = {(one["arm"], one["order"]): one for one in found["figures"]}
    assert drawn["eeg", "semantic"]["names"] == ["bee", "cat", "ape"]
    assert drawn["eeg", "block"]["names"] == ["ape", "cat", "bee"]
    for one in (drawn["eeg", "semantic"], drawn["eeg", "block"]):
        counted = {
            (one["names"][int(row)], one["names"][int(column)]): float(count)
            for row, column, count in re.findall(r"(\d+),(\d+):([\d.]+)", one["cells"])
        }
        assert counted == {("ape", "ape"): 1, ("ape", "cat"): 3, ("bee", "bee"): 4, ("cat", "bee"): 2}
    assert [(row["seen"], row["named"], row["count"], row["of"]) for row in found["listed"]] == [
        ("cat", "bee", "2", "2"), ("ape", "cat", "3", "4"),
    ]  # fmt: skip


def test_without_blocks_there_is_one_order_and_a_concept_without_a_place_comes_last(tmp_path: Path) -> None:
    folder = write(tmp_path, order="concept,name,semantic,block\na,,2,\nb,bee,0,\nc,cat,1,\n")
    found = confusion(folder, ["eeg"], {"a": "ant"})
    assert list(found["orders"]) == ["semantic"]
    assert found["figures"][0]["names"] == ["bee", "cat", "a"]
    found = confusion(write(tmp_path, counts=COUNTS + "eeg,z,a,1\n"), ["eeg"], {"z": "zebra"})
    assert [one["names"][-1] for one in found["figures"]] == ["zebra", "zebra"]


def test_nothing_is_drawn_without_tables_or_arms(tmp_path: Path) -> None:
    assert confusion(tmp_path, ["eeg"], {}) is None
    assert confusion(write(tmp_path), ["oracle"], {}) is None


def test_near_errors_are_counted_against_an_even_spread() -> None:
    def said(counts: np.ndarray) -> list[str]:
        return re.findall(
            r"\d+(?=\N{NO-BREAK SPACE}%)", matrix(counts, [*"abcdefghi"][: len(counts)], "eeg")["sentence"]
        )

    assert said(np.ones((9, 9))) == ["11", "42", "42"]
    assert said(np.eye(9) * 5 + np.eye(9, k=1))[1] == "100"
    assert said(np.eye(4)) == ["100"]
