"""Plots: values, electrodes and counts stand in their positions; trials are selected by rank."""

import re
from pathlib import Path

import numpy as np
import pytest

from neurocanvas.data.montage import CH_NAMES
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.report.figures import at, axis, confusion, curves, matrix, scalp_map
from neurocanvas.report.sections import choose_trials, importance


def test_scales_hold_their_values_and_stay_round() -> None:
    for values in ([0.2, 0.61], [-0.03, 0.57], [0.0], [1.0], [0.004, float("nan")], [-0.4, -0.1]):
        scale, drawn = axis(values, True)
        finite = np.array([value for value in values if np.isfinite(value)])
        assert scale[0] <= finite.min() and scale[-1] >= finite.max() and scale[0] < scale[-1]
        assert 2 <= len(scale) <= 7 and drawn.count("<text") == len(scale)
    assert (at(-9.0, scale), at(9.0, scale)) == ("0.00%", "100.00%")


def test_curves_mark_the_kept_epoch_where_the_validation_loss_is() -> None:
    history = [{"epoch": e, "train_loss": 5.0 - e, "val_loss": 5.0 - e / 2} for e in range(1, 5)]
    drawn = curves(history, 3, {"ridge": 2.0})
    assert 'cx="66.67%"' in drawn and drawn.count('class="ridge"') == 1 and drawn.count("<polyline") == 2
    assert "kept" not in curves(history[:1], None, {})


def test_bars_begin_at_zero_and_end_at_their_value(tmp_path: Path) -> None:
    path = tmp_path / "importance.csv"
    rows = ["kind,group,name,drop,low,high", "permutation,band,alpha,.1,.08,.12", "permutation,band,beta,-.02,-.05,.15",
            "permutation,band,gamma,,,"]  # fmt: skip
    path.write_text("\n".join(rows) + "\n")
    alpha, beta, gamma = importance(path)["kinds"][0]["bands"]  # the axis runs from -5 to 15 points
    assert re.search(r'class="bar-of" x="25.00%" width="50.00%"', alpha["bar"])
    assert re.search(r'class="whisker-of" x1="65.00%" x2="85.00%"', alpha["bar"])
    assert re.search(r'class="bar-of" x="15.00%" width="10.00%"', beta["bar"])
    assert "bar-of" not in gamma["bar"] and "whisker-of" not in gamma["bar"]
    assert (alpha["drop"], beta["interval"], gamma["drop"], gamma["interval"]) == ("10.0", "−5.0 – 15.0", "–", "–")


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
    assert cells(nothing["svg"]) == {} and nothing["sentence"] == "no predictions."


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


MUSE = ("TP9", "AF7", "AF8", "TP10", "POz")


def test_electrodes_of_any_cap_stand_where_they_sit() -> None:
    drawn = scalp_map(np.arange(5.0), MUSE, (0.0, 4.0))
    places = [(float(x), float(y)) for x, y in re.findall(r'class="dot" cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    left, front_left, _, right, back = places  # nose up
    assert left[0] < 100 < right[0] and front_left[1] < 100 < back[1]


def test_scalp_map_interpolates_only_between_many_electrodes() -> None:
    assert scalp_map(np.arange(5.0), MUSE, (0.0, 4.0)).count('class="dot"') == 5
    assert scalp_map(np.arange(5.0), (*MUSE[:4], "nowhere"), (0.0, 4.0)).count('class="dot"') == 4
    assert scalp_map(np.ones(62), CH_NAMES, (1.0, 1.0)).startswith("<img")
    with pytest.raises(NeuroCanvasError, match="one per channel"):
        scalp_map(np.ones(4), MUSE, (0.0, 1.0))


def test_trials_are_chosen_by_rank() -> None:
    scores = {("0", trial): trial / 99 for trial in range(100)}
    groups = choose_trials(scores)
    assert groups[0][1] == [("0", 99), ("0", 98), ("0", 97), ("0", 96)]
    assert groups[1][1] == [("0", 51), ("0", 50), ("0", 49), ("0", 48)]
    assert groups[2][1] == [("0", 3), ("0", 2), ("0", 1), ("0", 0)]
    shown = [key for _, keys in groups for key in keys]
    assert len(set(shown)) == len(shown) == 24
    spaced = [scores[key] for key in groups[3][1]]
    assert np.ptp(np.diff(spaced)) < 0.06  # even, but for the gap that the middle leaves
    assert choose_trials({("0", 1): 0.2, ("1", 0): 0.9}) == [("All 2 trials, best first", [("1", 0), ("0", 1)])]
