"""The command line, called in this process."""

from __future__ import annotations

import sys

import pytest

from neurocanvas import cli


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command line in this process: call(*words) -> (exit code, stdout, stderr)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["neurocanvas", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
