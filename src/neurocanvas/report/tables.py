"""The verbs classify and benchmark: their tables as plain text and LaTeX."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neurocanvas import artifacts
from neurocanvas.errors import latex, printable
from neurocanvas.evaluation.benchmark import explanation, paper_tables
from neurocanvas.pipeline import classify as grid
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.report.text import sentence

WIDTH = 120


def classify(run: RunFolder) -> list[Path]:
    """Train the classifiers of the settings with their protocol, and write the tables."""
    return _written(grid.classify(run))


def benchmark(run: RunFolder) -> list[Path]:
    """Train every classifier with every protocol on every granularity and subject, and write the tables."""
    return _written(grid.benchmark(run))


def _written(paths: list[Path]) -> list[Path]:
    """Write the rows of the JSON file as text and LaTeX."""
    rows = artifacts.read_json(paths[-1], "the rows of a benchmark")["rows"]
    texts = {".txt": as_text(rows), ".tex": as_latex(rows)}
    for suffix, text in texts.items():
        artifacts.write_text(paths[-1].with_suffix(suffix), text)
    return [*paths, *(paths[-1].with_suffix(suffix) for suffix in texts)]


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables as plain text."""
    parts = []
    for table in paper_tables(rows):
        lines = [list(map(printable, line)) for line in [table["header"], *table["lines"]]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        parts.append(printable(table["title"]))
        for line in lines:
            parts.append("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())
        warnings = [f"Warning: {sentence(finding)}" for finding in table["findings"]]
        parts += [*(textwrap.fill(printable(text), WIDTH) for text in warnings), ""]
    return "\n".join([*parts, textwrap.fill(explanation(rows), WIDTH), ""])


def as_latex(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables as LaTeX (booktabs)."""
    parts = []
    for table in paper_tables(rows):
        sentences = [f"{table['title']}. {table['explanation']}", *map(sentence, table["findings"])]
        caption = latex(" ".join(sentences))
        body = [" & ".join(map(latex, line)) + r" \\" for line in [table["header"], *table["lines"]]]
        columns = "l" + "c" * (len(table["header"]) - 1)
        parts += [r"\begin{table}", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        parts += [body[0], r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(parts)
