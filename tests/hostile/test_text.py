"""Text from elsewhere: on the terminal, in CSV files, in LaTeX and in the report it is text and nothing else."""

from __future__ import annotations

import base64
import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurocanvas.errors import NeuroCanvasError, check_file, check_option
from neurocanvas.evaluation.benchmark import as_csv, as_latex, as_text
from neurocanvas.evaluation.pairing import read_columns
from neurocanvas.printing import print_controls, print_inspection, print_scores, print_table, print_tables
from neurocanvas.report.tables import csv_link, file_link, read_csv
from neurocanvas.safe_text import csv_cell, latex, printable, read_csv_cell

FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=HYPERLINK(\"http://x\",\"y\")", "-", "=",
            "-1e5x", "+inf+", "'=1", "''=1", "−1", "=cmd|' /C calc'!A0"]  # fmt: skip
DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")
STEERING = "a[red]b[/red]\x1b[2J\x1b]0;title\x07\x9b31m\u202egnp\r\nend :cat: \ud800"


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_and_every_cell_comes_back(text):
    cell = csv_cell(text)
    assert not cell.startswith(DANGEROUS) and read_csv_cell(cell) == text


@given(st.text(alphabet="'=+-@\t\r\n1.e a", max_size=6))
def test_every_text_comes_back(text):
    cell = csv_cell(text)
    assert read_csv_cell(cell) == text
    assert not str(cell).startswith(DANGEROUS) or float(cell) is not None


@pytest.mark.parametrize("number", [-0.5, "-0.5", "+1", "-1e-05", "-.5", 3, None, "-inf", "+nan", ""])
def test_numbers_stay_numbers(number):
    assert csv_cell(number) == number


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
    saved = base64.b64decode(re.search(r'base64,([^"]*)"', file_link(tmp_path / "a.csv", "evaluate"))[1])
    assert saved == content.replace(b"\r", b"\n")  # once, not twice
    (tmp_path / "theirs.csv").write_text("name\n=1+1\n")
    saved = base64.b64decode(re.search(r'base64,([^"]*)"', file_link(tmp_path / "theirs.csv", "evaluate"))[1])
    assert saved == b"name\n'=1+1\n"


def test_tables_that_are_none_are_one_line(tmp_path):
    path = tmp_path / "a.csv"
    for content in (b"\xff\xfe", b'a,"b\n', b"a\n" + b"x" * 200_000):
        path.write_bytes(content)
        try:
            rows = read_csv(path, "evaluate", ("q",))
        except NeuroCanvasError as error:
            assert str(error).isprintable()
        else:
            assert rows == []
    path.write_bytes(b"")
    assert read_csv(path, "evaluate", ("a",)) == []


def test_messages_cannot_steer_the_terminal(tmp_path):
    for make in (lambda: check_option(STEERING, "", [STEERING]), lambda: check_file(tmp_path / "\x1b[2J", "x\ny")):
        with pytest.raises(NeuroCanvasError) as caught:
            make()
        said = str(caught.value)
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e\ud800]", said)
    assert printable("é – ±\u00a0猫 🐈") == "é – ±\u00a0猫 🐈"


def printed(capsys):
    """What was printed, which has no control characters but line ends, and says what looks like markup."""
    out = capsys.readouterr().out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", out)
    assert "[red]b[/red]" in out and ":cat:" in out
    return out


SCORE = {"value": 0.5, "low": 0.4, "high": 0.6, "chance": 0.5, "p": 0.2}
ROW = {"protocol": f"p{STEERING}", "granularity": "all", "model": f"=m{STEERING}", "title": f"=m_&{STEERING}",
       "subjects": [0], "accuracy": [0.5], "final": [0.5], "best_on_test": [0.4], "two_way": [0.5], "upper_half": [0.5],
       "seconds": [1.0], "mean": 0.5, "sd": None, "gap": -0.1, "chance": 0.5, "p": 0.5, "p_holm": 0.5, "p_best": None,
       "released": None, "warnings": [f"=w{STEERING}"]}  # fmt: skip


def test_what_is_printed_cannot_steer_the_terminal(capsys):
    print_tables([(STEERING, [STEERING, "b"], [[STEERING, STEERING]])], [STEERING, (STEERING, STEERING)])
    assert printed(capsys).count("[red]b[/red]") == 7
    print_table({"title": STEERING, "header": ["a"], "lines": [[STEERING]], "warnings": [STEERING]})
    assert printed(capsys).count("[red]b[/red]") == 3
    control = {"control": STEERING, "fired": None, "verdict": STEERING, "note": STEERING, "effect": None, "low": None,
               "high": None, "p": None, "p_holm": None}  # fmt: skip
    print_controls({"protocol": STEERING, "rows": [control], "verdict": STEERING})
    printed(capsys)
    print_scores({
        "arms": {STEERING: {STEERING: SCORE}}, "n_trials": 1, "n_pictures": 1, "unit": STEERING, "exchanged": "trials",
        "retrieval": {STEERING: {"transductive": False, "n_pictures": 2, "top1": 0, "chance1": 0, "top5": 0,
                                 "chance5": 0, "median_rank": 1}},
        "not_computed": {STEERING: "x"}, "warnings": [STEERING],
    })  # fmt: skip
    assert printed(capsys).count("[red]b[/red]") >= 6
    print_inspection({
        "pictures": {"needed": 1, "missing": 1, "first": [STEERING]}, "unit": {"file": "V", "µV": 1}, "trials": 1,
        "files": [], "concepts": 1, "channels": 1, "samples": 1, "sampling rate": 1.0, "recordings": [], "unusual": [],
        "by concept": [{"concept": "n1", "name": STEERING}],
    })  # fmt: skip
    assert printed(capsys).count("[red]b[/red]") == 2


def test_tables_of_the_benchmark(capsys):
    text = as_text([ROW])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    cells = [cell for row in csv.reader(io.StringIO(as_csv([ROW]), newline="")) for cell in row]
    assert [cell for cell in cells if cell.startswith(DANGEROUS)] == ["-0.1"]
    odd = r"\input{/etc/passwd}$x$ #1 50% ~ ^ _ & < >"
    tex = as_latex([{**ROW, "title": odd, "warnings": [odd]}])
    assert r"\input{" not in tex and latex(odd) in tex
    left = re.sub(r"\\[&%$#_{}]|\\text(backslash|asciitilde|asciicircum)\{\}|\$[<>]\$", "", latex(odd))
    assert not set(left) & set("\\{}$&#_^~%<>")
