"""Whatever happens to a run at whatever moment, the same command given again ends with the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "tools" / "chaos.py"
FAULTS = {
    "run killed", "worker killed", "disk full", "file unreadable", "file truncated", "bit flipped", "clock skewed",
    "started twice",
}  # fmt: skip


def inject(folder, repetitions, *options):
    """Inject faults; give what came of each."""
    command = [sys.executable, str(PROGRAM), "--repetitions", str(repetitions), "--log", str(folder / "log"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    outcomes = [json.loads(line) for line in (folder / "log").read_text().splitlines()] if done.stdout else []
    wrong = [one for one in outcomes if one["problems"] or not one["identical"]]
    assert not wrong and not done.returncode, f"{wrong} {done.stderr[-3000:]}"
    assert {one["fault"] for one in outcomes} == FAULTS
    return outcomes


def test_faults_of_every_kind_do_no_harm(tmp_path):
    outcomes = inject(tmp_path, 8, "--until", "predict")
    assert sum(one["landed"] for one in outcomes) >= 4, outcomes


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_faults_at_many_moments_do_no_harm(tmp_path):
    outcomes = inject(tmp_path, 80, "--first", "8")
    assert sum(one["landed"] for one in outcomes) >= 50, outcomes
