"""How a command ends: one line and exit code 2 for what a user can mend, a traceback for a bug."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from neurocanvas import cli
from neurocanvas.errors import NeuroCanvasError


@pytest.fixture
def ended(capsys):
    """Call something that fails: (exit code, the one line that it prints)."""

    def call(fail):
        with pytest.raises(SystemExit) as stop:
            cli.guarded(fail)
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and line.startswith("neurocanvas: ") and line.strip().isprintable()
        return stop.value.code, line

    return call


def raising(error):
    """A function that raises."""

    def fail():
        raise error

    return fail


def hub_error(name):
    """An error as libraries of the hub have them: an OSError without a number."""
    return type(name, (OSError,), {"__module__": "requests.exceptions"})


def wrapped(error, cause):
    """An error with a cause."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (NeuroCanvasError("--steps:\x1b[31m\n  a number"), 2, "neurocanvas: --steps:?[31m a number\n"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again"),
        (PermissionError(13, "Permission denied", "/x/run.toml"), 2, "/x/run.toml: Permission denied; change its perm"),
        (OSError(28, "No space left on device", "a.npy"), 2, "a.npy: No space left on device; free space, or name"),
        (OSError("odd"), 2, "file: odd; check the file"),
        (ConnectionResetError(104, "Connection reset by peer"), 2, "network: [Errno 104] Connection reset by peer; ch"),
        (OSError(101, "Network is unreachable"), 2, "network: [Errno 101] Network is unreachable; check the conn"),
        (socket.gaierror(-2, "Name or service not known"), 2, "network: [Errno -2] Name or service not known; check"),
        (TimeoutError("timed out"), 2, "network: timed out; check the connection"),
        (hub_error("ConnectTimeout")("HTTPSConnectionPool"), 2, "network: HTTPSConnectionPool; check the connection"),
        (wrapped(OSError("We could not connect"), ConnectionError("x")), 2, "network: We could not connect; check the"),
        (hub_error("GatedRepoError")("401 Client Error"), 2, "file: 401 Client Error; check the file"),
        (MemoryError(), 2, "not enough memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), 2, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "not enough memory"),
    ],
)  # fmt: skip
def test_how_a_command_ends(error, code, says, ended):
    found, line = ended(raising(error))
    assert found == code and says in line
    assert "network" not in says or "space" not in line


def test_a_bug_is_a_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.guarded(raising(ZeroDivisionError("division by zero")))


app = typer.Typer(no_args_is_help=True)


@app.command()
def verb(steps: int = 1):
    """A verb that ends in the given way."""
    if steps == 2:
        raise KeyboardInterrupt
    if steps == 4:
        raise typer.Exit(7)
    if steps == 5:
        raise NeuroCanvasError("five")


@app.callback()
def _first():
    """Make typer expect a verb."""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["verb", "--none"], 2, r"No such option: --none; see .* --help\."),
        (["verb", "--steps", "[red]x\x1b"], 2, "Invalid value for '--steps'"),
        (["other\x1b[2J"], 2, r"No such command 'other.*; see"),
        (["verb", "--steps", "2"], 130, "interrupted"),
        (["verb", "--steps", "5"], 2, "neurocanvas: five"),
    ],
)
def test_options_and_interruptions_of_the_command_line(words, code, says, ended):
    found, line = ended(lambda: app(words, standalone_mode=False))
    assert found == code and re.search(says, line)


def test_exit_codes_help_and_nothing_to_do(capsys):
    for words, code in ((["verb", "--steps", "4"], 7), ([], 2)):
        with pytest.raises(SystemExit) as stop:
            cli.guarded(lambda words=words: app(words, standalone_mode=False))
        assert stop.value.code == code
    cli.guarded(lambda: app(["--help"], standalone_mode=False))
    cli.guarded(lambda: app(["verb"], standalone_mode=False))
    assert "verb" in capsys.readouterr().out


def test_a_closed_pipe_is_no_error():
    calls = "guarded(lambda: [print('x' * 80) for _ in range(100_000)] and None)"
    program = f"from neurocanvas.cli import guarded\n{calls}"
    source = Path(cli.__file__).parents[1]
    ran = subprocess.run(
        f"'{sys.executable}' -c \"{program}\" | head -1", shell=True, capture_output=True, text=True, cwd=source
    )
    assert ran.stderr == "" and ran.stdout == "x" * 80 + "\n"
