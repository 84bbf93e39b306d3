"""Tables: links that save what was measured, and files that are read with care."""

import base64
import csv
import io
import re
from pathlib import Path

import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.report.sections import csv_link, number_in, read_csv


def content_of(link: str) -> list[list[str]]:
    [code] = re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]*)"', link)
    return list(csv.reader(io.StringIO(base64.b64decode(code).decode())))


def test_a_link_saves_what_it_was_given() -> None:
    rows = [["a,b", 0.1, None], ['"q"\n<b>', 2, "é"]]
    assert content_of(csv_link("x.csv", ["name", "p", "n"], rows)) == [
        ["name", "p", "n"], ["a,b", "0.1", ""], ['"q"\n<b>', "2", "é"],
    ]  # fmt: skip
    assert 'download="&lt;b&gt;.csv"' in csv_link("<b>.csv", ["x"], [])


def test_missing_columns_and_short_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(NeuroCanvasError, match=r"t\.csv.*evaluate"):
        read_csv(path, "evaluate")
    path.write_text("a,b\n1,2\n")
    with pytest.raises(NeuroCanvasError, match="columns a, c are needed"):
        read_csv(path, "evaluate", ("a", "c"))
    assert read_csv(path, "evaluate", ("a", "b")) == [{"a": "1", "b": "2"}]


def test_numbers_are_read_or_refused(tmp_path: Path) -> None:
    assert number_in({"n": "2.5"}, "n", tmp_path, "evaluate") == 2.5
    assert number_in({"n": ""}, "n", tmp_path, "evaluate") != number_in({"n": ""}, "n", tmp_path, "evaluate")
    with pytest.raises(NeuroCanvasError, match="n must be a number; got 'x'"):
        number_in({"n": "x"}, "n", tmp_path, "evaluate")
