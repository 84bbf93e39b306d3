"""Whatever the command line is given, it ends with code 0, or with code 2 and one line: never with a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from neurocanvas import cli
from neurocanvas.simulation import dataset as simulated
from neurocanvas.simulation import decodability

COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]

MEASURED = {"n_images": 0, "design": "rapid", "reached": 0.0, "explained_variance": 0.0}

SLOW = ("doctor",)
"""Verbs of which every call takes a second."""

GIVEN = {"output": "run", "data": "data", "source": "data", "to": "to", "path": "table.csv", "config": "settings.toml"}
"""Values of options that are needed, or that start nothing; of verbs that have them."""

VALUES = st.sampled_from([
    "", " ", "0", "-1", "1", "0.5", "nan", "inf", "1e999", "-99999999999999999999", "1" + "0" * 30, "0x10", "a,b", ",",
    ".", "..", "../x", "~", "-", "--", "=1+1", "{0.__class__}", "*", "no/such/file", "no://such/place", "/dev/null",
    "data", "settings.toml", "table.csv", "all", "auto", "bundled", "class-names", "é", "\u2028", "\U0001f600",
    "\x1b[2J", "a\nb", "a" * 5000,
]) | st.just("\udcff") | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))  # fmt: skip
"""A byte that is no UTF-8, which Python gives as \\udcff, is drawn often: every place that writes must refuse it."""


@contextlib.contextmanager
def folder() -> Iterator[None]:
    """Work in a folder with an empty data folder, a table and settings that start nothing."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as made:
        os.chdir(made)
        try:
            Path("data").mkdir()
            Path("settings.toml").write_text('[data]\nroot = "data"\n', encoding="utf-8")
            Path("table.csv").write_text("true,predicted\na,b\nb,b\n", encoding="utf-8")
            yield
        finally:
            os.chdir(before)


def call(*words: str) -> tuple[int, str]:
    """Exit code and stderr of a command line, run in this process; a traceback where it would show one."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    argv, sys.argv = sys.argv, ["neurocanvas", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        code = 1
        err.write(traceback.format_exc(limit=-3))
    finally:
        sys.argv = argv
    err.flush()
    return code, err.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]


def words_of(verb: str, drawn: st.DataObject) -> list[str]:
    """A verb with what it needs, and up to three other options of any value."""
    options = {one.name: one for one in COMMANDS[verb].params if one.name != "help"}
    kept = {name: value for name, value in GIVEN.items() if name in options}
    chosen = drawn.draw(st.lists(st.sampled_from(sorted(options)), max_size=3, unique=True))
    kept |= {name: drawn.draw(VALUES) for name in chosen}
    words = [verb]
    for name, value in kept.items():
        option = options[name]
        if option.param_type_name == "argument":
            words.append(value)
        else:
            words.append(option.opts[-1] if getattr(option, "is_flag", False) else f"{option.opts[-1]}={value}")
    return words


def check(code: int, said: str) -> None:
    """Raise unless it went well or was refused in one line, or in the box in which typer explains usage."""
    assert "Traceback" not in said, said
    assert code in (0, 2), (code, said)
    if code == 2 and not said.lstrip().startswith("Usage:"):
        assert said.startswith("neurocanvas: ") and len(said.splitlines()) == 1, said


@pytest.fixture(autouse=True, scope="module")
def nothing_is_simulated() -> Iterator[None]:
    """A simulation of any size is what was asked for; here it only has to be asked for rightly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated, "simulate", lambda settings, output, progress: Path(output) / str(settings.n_trials))
        patch.setattr(decodability, "measure", lambda folder, settings: MEASURED)
        yield


@pytest.mark.parametrize("verb", [pytest.param(one, marks=[pytest.mark.slow] * (one in SLOW)) for one in COMMANDS])
@given(drawn=st.data())
def test_any_options_end_well_or_in_one_line(verb, drawn):
    words = words_of(verb, drawn)
    with folder():
        check(*call(*words))
