"""Text from elsewhere: on the terminal, in CSV files, in LaTeX and in the report it is text and nothing else."""

from __future__ import annotations

import base64
import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurocanvas.audit.external import read_columns
from neurocanvas.errors import NeuroCanvasError, check_file, check_option, csv_text, latex, printable, read_csv_cell
from neurocanvas.evaluation.benchmark import as_csv
from neurocanvas.findings import finding, listed
from neurocanvas.report.sections import csv_link, read_csv
from neurocanvas.report.tables import as_latex, as_text

FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=HYPERLINK(\"http://x\",\"y\")", "-", "=",
            "-1e5x", "+inf+", "'=1", "''=1", "−1", "=cmd|' /C calc'!A0"]  # fmt: skip
DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")
STEERING = "a[red]b[/red]\x1b[2J\x1b]0;title\x07\x9b31m\u202egnp\r\nend :cat: \ud800"


def written(value):
    """The cell that a CSV file holds for a value."""
    ((cell,),) = csv.reader(io.StringIO(csv_text([[value]]), newline=""))
    return cell


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_and_every_cell_comes_back(text):
    cell = written(text)
    assert not cell.startswith(DANGEROUS) and read_csv_cell(cell) == text


@given(st.text(alphabet="'=+-@\t\r\n1.e a", max_size=6))
def test_every_text_comes_back(text):
    cell = written(text)
    assert read_csv_cell(cell) == text
    assert not cell.startswith(DANGEROUS) or float(cell) is not None


@pytest.mark.parametrize("number", [-0.5, "-0.5", "+1", "-1e-05", "-.5", 3, None, "-inf", "+nan", ""])
def test_numbers_stay_numbers(number):
    assert written(number) == ("" if number is None else str(number))


def test_our_readers_read_what_our_links_save(tmp_path):
    link = csv_link("a.csv", ["=name", "n"], [[name, -1.5] for name in FORMULAS])
    content = base64.b64decode(re.search(r'base64,([^"]*)"', link)[1])
    cells = list(csv.reader(io.StringIO(content.decode(), newline="")))
    assert not [cell for row in cells for cell in row if cell.startswith(DANGEROUS) and cell != "-1.5"]
    (tmp_path / "a.csv").write_bytes(content)
    rows = read_csv(tmp_path / "a.csv", "evaluate", ("=name", "n"))
    kept = [text.replace("\r", "\n") for text in FORMULAS]  # as every text file is read
    assert [row["=name"] for row in rows] == kept and rows[0]["n"] == "-1.5"
    columns = read_columns(tmp_path / "a.csv", ["n"], "names")
    assert columns["=name"].tolist() == kept and columns["n"].tolist() == ["-1.5"] * len(FORMULAS)
    again = csv_link("a.csv", [*rows[0]], [row.values() for row in rows])
    saved = base64.b64decode(re.search(r'base64,([^"]*)"', again)[1])
    assert saved == content.replace(b"\r", b"\n")  # once, not twice


def test_messages_cannot_steer_the_terminal(tmp_path):
    for make in (lambda: check_option(STEERING, "", [STEERING]), lambda: check_file(tmp_path / "\x1b[2J", "x\ny")):
        with pytest.raises(NeuroCanvasError) as caught:
            make()
        said = str(caught.value)
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e\ud800]", said)
    assert printable("é – ±\u00a0猫 🐈") == "é – ±\u00a0猫 🐈"


ROW = {"protocol": f"p{STEERING}", "granularity": "all", "model": f"=m{STEERING}", "title": f"=m_&{STEERING}",
       "subjects": [0], "accuracy": [0.5], "final": [0.5], "best_on_test": [0.4], "two_way": [0.5], "upper_half": [0.5],
       "n": [9], "largest_class": [0.5], "balanced_accuracy": [0.5], "auc": [0.5], "chance_of_subject": [0.5],
       "n_above": 0, "p_subjects": None,
       "seconds": [1.0], "mean": 0.5, "sd": None, "gap": -0.1, "chance": 0.5, "p": 0.5, "p_holm": 0.5, "p_best": None,
       "released": None, "findings": listed([finding("columns-unread", columns=f"=w{STEERING}")])}  # fmt: skip


def test_tables_of_the_benchmark(capsys):
    text = as_text([ROW])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    cells = [cell for row in csv.reader(io.StringIO(as_csv([ROW]), newline="")) for cell in row]
    assert [cell for cell in cells if cell.startswith(DANGEROUS)] == ["-0.1"]
    odd = r"\input{/etc/passwd}$x$ #1 50% ~ ^ _ & < >"
    tex = as_latex([{**ROW, "title": odd, "findings": listed([finding("columns-unread", columns=odd)])}])
    assert r"\input{" not in tex and latex(odd) in tex
    left = re.sub(r"\\[&%$#_{}]|\\text(backslash|asciitilde|asciicircum)\{\}|\$[<>]\$", "", latex(odd))
    assert not set(left) & set("\\{}$&#_^~%<>")
