"""Whatever happens to a run at whatever moment, the same command given again ends with the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "tools" / "chaos.py"


@pytest.mark.parametrize(
    "options",
    [
        ["--repetitions", "3", "--until", "predict"],
        pytest.param(["--repetitions", "30", "--seed", "1"], marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
    ids=["few", "many"],
)
def test_kills_full_disks_and_second_commands_do_no_harm(options):
    command = [sys.executable, str(PROGRAM), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert not done.returncode, done.stdout + done.stderr[-3000:]
    outcomes = [json.loads(line) for line in done.stdout.splitlines()[:-1]]
    assert len(outcomes) == int(options[1]) and 2 * sum(one["landed"] for one in outcomes) >= len(outcomes), outcomes
