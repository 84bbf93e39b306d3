"""What is written is read again as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurocanvas.audit.external import read_columns
from neurocanvas.config import RunSettings, load_settings, save_settings
from neurocanvas.pipeline.run import write_table
from neurocanvas.targets.captions import read_captions, write_captions

LINE = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])
TEXT = st.text(LINE) | st.sampled_from([" a ", '"', "=1", "\\", "#"])
"""Any text of one line."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One folder for all examples."""
    return tmp_path_factory.mktemp("written")


@given(captions=st.dictionaries(TEXT, TEXT, max_size=5))
def test_captions(folder, captions):
    write_captions(folder / "caption.txt", captions)
    assert read_captions(folder / "caption.txt") == captions


@given(rows=st.lists(st.tuples(TEXT, TEXT, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=5))
def test_tables(folder, rows):
    texts, others, numbers = zip(*rows, strict=True)
    columns = {"text": np.array(texts), "other": np.array(others), "number": np.array(numbers)}
    write_table(folder / "table.csv", columns)
    found = read_columns(folder / "table.csv", list(columns), "rows")
    assert found["number"].tolist() == [str(number) for number in numbers]
    for name, written in (("text", texts), ("other", others)):  # what a spreadsheet would run has a quote before it
        assert [cell.removeprefix("'") for cell in found[name].tolist()] == [
            one.strip().removeprefix("'") for one in np.array(written).tolist()
        ]


@given(
    name=TEXT, root=TEXT, subjects=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4), seed=st.integers(0, 2**40),
    guidance=st.floats(0, 1e300), events=st.dictionaries(TEXT, st.dictionaries(TEXT, TEXT, max_size=3), max_size=3),
)  # fmt: skip
def test_settings(folder, name, root, subjects, seed, guidance, events):
    settings = RunSettings.model_validate({
        "name": name, "data": {"root": root, "subjects": subjects, "recording": {"events": events}},
        "generate": {"guidance": guidance, "seed": seed},
    })  # fmt: skip
    save_settings(settings, folder / "run.toml")
    assert load_settings(folder / "run.toml") == settings
    assert load_settings(folder / "run.toml", data={"root": "x"}).data.root == "x"
