"""The size of the repository stays within its budgets; `pytest -rP` shows the numbers."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BUDGETS = {
    "source files": 95,
    "source lines": 20_500,
    "docstring lines per code line": 0.30,
    "test lines": 18_800,
    "tool lines": 2_900,
    "tracked files": 380,
}


def texts(folder: str) -> list[str]:
    """Contents of all Python files below a folder of the repository."""
    return [path.read_text(encoding="utf-8") for path in sorted((ROOT / folder).rglob("*.py"))]


def lines(sources: list[str]) -> int:
    """Number of lines, blank ones included."""
    return sum(len(source.splitlines()) for source in sources)


def docs_per_code(sources: list[str]) -> float:
    """Docstring lines per line that is neither blank, nor docstring, nor comment."""
    filled, docs, comments = 0, 0, 0
    for source in sources:
        stripped = [line.strip() for line in source.splitlines()]
        filled += sum(map(bool, stripped))
        comments += sum(line.startswith("#") for line in stripped)
        bare = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
        for text in (value.value for value in bare if isinstance(value, ast.Constant)):
            docs += sum(bool(line.strip()) for line in text.splitlines()) if isinstance(text, str) else 0
    return round(docs / max(1, filled - docs - comments), 2)


def tracked_files() -> int:
    """Number of files in the repository."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a checkout")
    return listed.stdout.count("\0")


MEASURES = {
    "source files": lambda: len(texts("src/neurocanvas")),
    "source lines": lambda: lines(texts("src/neurocanvas")),
    "docstring lines per code line": lambda: docs_per_code(texts("src/neurocanvas")),
    "test lines": lambda: lines(texts("tests")),
    "tool lines": lambda: lines(texts("tools")),
    "tracked files": tracked_files,
}


@pytest.mark.parametrize("name", BUDGETS)
def test_budget(name, record_property):
    value = MEASURES[name]()
    record_property(name, value)
    print(f"{name}: {value} of at most {BUDGETS[name]}")  # noqa: T201
    assert value <= BUDGETS[name]


def test_docstrings_are_counted_apart_from_code_blanks_and_comments():
    source = '"""Module.\n\nMore."""\n# comment\nx = 1\n\n\ndef f():\n    """One."""\n    return x\n'
    assert docs_per_code([source]) == 1.0  # three lines of docstrings, three of code
