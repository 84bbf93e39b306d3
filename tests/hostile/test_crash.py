"""However a command fails, one line says so; what should not happen leaves a log that holds no secrets."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import typer

from neurocanvas import crash
from neurocanvas.errors import NeuroCanvasError


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Logs go to the test's own folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def ended(capsys):
    """Call something that fails: (exit code, the one line that it says)."""

    def call(fail):
        with pytest.raises(SystemExit) as stop:
            crash.guarded(fail)
        said = capsys.readouterr().err
        said = said.removeprefix("\n")  # typer answers the end of a file with an empty line
        assert said.count("\n") == 1 and said.startswith("neurocanvas: ") and said.strip().isprintable()
        return stop.value.code, said

    return call


def raising(error):
    """A function that raises."""

    def fail():
        raise error

    return fail


def endless():
    """A function that calls itself."""
    return endless()


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (NeuroCanvasError("--steps:\x1b[31m\n  a number"), 2, "neurocanvas: --steps:?[31m a number\n"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
        (PermissionError(13, "Permission denied", "/x/run.toml"), 2, "/x/run.toml: Permission denied; free space"),
        (OSError("odd"), 2, "file: odd"),
        (MemoryError(), 2, "not enough memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), 2, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "not enough memory"),
        (ZeroDivisionError("division by zero"), 1, "unexpected ZeroDivisionError: division by zero; this is a bug"),
        (KeyError("\x1b[2J\n"), 1, "unexpected KeyError"),
    ],
)  # fmt: skip
def test_how_a_command_ends(error, code, says, ended):
    found, said = ended(raising(error))
    assert found == code and says in said


def test_calls_without_end_are_a_bug(ended, temporary):
    code, said = ended(endless)
    assert code == 1 and "unexpected RecursionError" in said and list(temporary.glob("neurocanvas-*/crash.log"))


def test_success_says_nothing(capsys):
    crash.guarded(lambda: None)
    crash.guarded(lambda: 0)
    assert capsys.readouterr().err == ""


def test_the_log_says_what_a_developer_needs_and_no_more(temporary, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hush-4711")
    try:
        secret_of_the_data = "value-0815"
        [secret_of_the_data][1]
    except IndexError as error:
        said = crash.report(error, ["neurocanvas", "run", "-o", "\ud800 é"])
    [log] = temporary.glob("neurocanvas-*/crash.log")
    assert str(log) in said and "\n" not in said and "this is a bug" in said and "the project's issue tracker" in said
    assert oct(log.parent.stat().st_mode)[-3:] == "700"
    text = log.read_text(encoding="utf-8")
    for word in ("'run'", "Python 3", "torch: ", "numpy: ", "neurocanvas: ", "IndexError", "test_crash.py"):
        assert word in text
    assert "hush-4711" not in text and "SECRET_TOKEN" not in text


def test_the_tracker_is_the_one_of_the_package(monkeypatch):
    class Links:
        """Metadata with links."""

        def get_all(self, name):
            return ["Homepage, https://a", "Issues, https://b/issues"]

    monkeypatch.setattr(crash, "metadata", lambda name: Links())
    assert "Report it to https://b/issues, with the log" in crash.report(ValueError("x"), [])


def test_without_a_place_for_the_log_it_is_still_one_line(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    assert "no log could be written" in crash.report(ValueError("x"), [])


app = typer.Typer(no_args_is_help=True)


@app.command()
def verb(steps: int = 1):
    """A verb that fails as it is told."""
    if steps == 2:
        raise KeyboardInterrupt
    if steps == 3:
        raise EOFError("of a file")
    if steps == 4:
        raise typer.Exit(7)
    if steps == 5:
        raise NeuroCanvasError("five")


@app.callback()
def _first():
    """More than one verb may come."""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["verb", "--none"], 2, r"No such option: --none; see .* --help\."),
        (["verb", "--steps", "[red]x\x1b"], 2, "Invalid value for '--steps'"),
        (["other\x1b[2J"], 2, r"No such command 'other.*; see"),
        (["verb", "--steps", "2"], 130, "interrupted"),
        (["verb", "--steps", "3"], 1, "unexpected EOFError: of a file; this is a bug"),
        (["verb", "--steps", "5"], 2, "neurocanvas: five"),
    ],
)  # fmt: skip
def test_options_and_interruptions_of_the_command_line(words, code, says, ended):
    found, said = ended(lambda: app(words, standalone_mode=False))
    assert found == code and re.search(says, said)


def test_exit_codes_help_and_nothing_to_do(capsys):
    for words, code in ((["verb", "--steps", "4"], 7), ([], 2)):
        with pytest.raises(SystemExit) as stop:
            crash.guarded(lambda words=words: app(words, standalone_mode=False))
        assert stop.value.code == code
    crash.guarded(lambda: app(["--help"], standalone_mode=False))
    crash.guarded(lambda: app(["verb"], standalone_mode=False))
    assert "verb" in capsys.readouterr().out


def test_a_reader_that_has_enough_is_no_error():
    calls = "guarded(lambda: [print('x' * 80) for _ in range(100_000)] and None)"
    program = f"from neurocanvas.crash import guarded\n{calls}"
    source = Path(crash.__file__).parents[1]
    ran = subprocess.run(
        f"'{sys.executable}' -c \"{program}\" | head -1", shell=True, capture_output=True, text=True, cwd=source
    )
    assert ran.stderr == "" and ran.stdout == "x" * 80 + "\n"
