"""Disturb a small run at random moments; does the same command, given again, end with the same bytes?

    python tools/chaos.py --repetitions 60 --seed 0

A repetition starts the run of tests/tiny, kills it, fills its disk, or starts it a second time, and then gives the
command again. That must end with exit code 0 and with the files of an undisturbed run (the log aside), and every error
must be one line. Repetition n depends on the seed and n alone. Only root can mount the disks that get full.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "tiny"))
from tiny import tiny_settings, written_files

from neurocanvas import cli
from neurocanvas.artifacts import lock_run
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.workflow import STAGES, run_stage

FORK = multiprocessing.get_context("fork")


def run_until(folder: Path, until: str, **_: object) -> None:
    """The stages of `neurocanvas run` up to one of them."""
    with lock_run(folder, "run"):
        for name in list(STAGES)[: list(STAGES).index(until) + 1]:
            run_stage(RunFolder(folder, tiny_settings()), name)


def be_run(folder: Path, until: str, errors: Path, modules: Path | None) -> None:
    """Be the run, as the command line would do it, in a forked process; stderr goes to a file."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    cli.app = partial(run_until, folder, until)  # type: ignore[assignment]
    cli.main()
    if modules:
        modules.write_text("\n".join(sys.modules), encoding="utf-8")


class Process:
    def __init__(self, root: Path, folder: Path, until: str, modules: Path | None = None) -> None:
        self.errors = Path(tempfile.mkstemp(dir=root, suffix=".txt")[1])
        self.process = FORK.Process(target=be_run, args=(folder, until, self.errors, modules))
        self.process.start()

    def wait(self) -> int:
        """Wait for the end, at most ten minutes, and return the exit code, or minus the signal."""
        self.process.join(600)
        self.kill()
        return int(self.process.exitcode or 0)

    def kill(self) -> bool:
        """Kill it; say whether it was still running."""
        if running := self.process.is_alive():
            self.process.kill()
            self.process.join()
        return running

    def said(self) -> str:
        return self.errors.read_text(encoding="utf-8", errors="replace")


@dataclass
class Case:
    """One repetition: its folder, what happened, what was wrong."""

    root: Path
    until: str
    whole: Path
    seconds: float
    folder: Path
    rng: np.random.Generator
    injected: str = ""
    landed: bool = False
    problems: list[str] = field(default_factory=list)

    def start(self) -> Process:
        return Process(self.root, self.folder, self.until)

    def check(self, process: Process, *allowed: int) -> None:
        """Note an exit code that is not allowed, a traceback, and an error of several lines."""
        code, said = process.wait(), process.said()
        one_line = len([line for line in said.splitlines() if line.startswith("neurocanvas: ")]) == 1
        if code not in allowed or "Traceback" in said or (code == 2 and not one_line):
            self.problems.append(f"exit code {code}: {said[-1500:]}")


def kill(case: Case) -> None:
    """SIGKILL, once or twice, at random moments."""
    for _ in range(int(case.rng.integers(1, 3))):
        process, moment = case.start(), float(case.rng.uniform(0, case.seconds))
        time.sleep(moment)
        case.landed |= process.kill()
        case.injected += f"SIGKILL after {moment:.1f} s; "
        case.check(process, 0, -signal.SIGKILL)


def fill_disk(case: Case) -> None:
    """A file system that is too small, and then grows."""
    size = int(case.rng.uniform(100, sum(map(len, written_files(case.whole).values())) / 1024))
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(case.folder)]
    if subprocess.run(command, capture_output=True).returncode:
        case.injected = "cannot be mounted here"
        return
    process = case.start()
    case.landed, case.injected = process.wait() != 0, f"disk of {size} kB"
    case.check(process, 0, 2)
    subprocess.run(["mount", "-o", "remount,size=256m", str(case.folder)], check=True)


def start_twice(case: Case) -> None:
    """A second command on the folder while the first one works."""
    moment = float(case.rng.uniform(0, case.seconds / 2))
    first = case.start()
    time.sleep(moment)
    both = (first, case.start())
    for process in both:
        case.check(process, 0, 2)
    refused = [process for process in both if process.wait() == 2]
    case.landed, case.injected = bool(refused), f"a second command after {moment:.1f} s"
    if len(refused) > 1 or any("in use by" not in process.said() for process in refused):
        case.problems.append(f"refused: {[process.said() for process in refused]}")


FAULTS = {"killed": kill, "disk full": fill_disk, "started twice": start_twice}


def prepare(root: Path, until: str) -> tuple[Path, float]:
    """Make the undisturbed run twice: to load its modules into this process, then for its bytes and its time."""
    for name in ("first", "whole"):
        started, modules = time.monotonic(), root / "modules"
        process = Process(root, root / name, until, modules)
        if process.wait():
            sys.exit(f"the undisturbed run failed: {process.said()}")
        seconds = time.monotonic() - started
        for module in modules.read_text(encoding="utf-8").split() if name == "first" else ():
            with suppress(Exception):
                import_module(module)
    if written_files(root / "first") != written_files(root / "whole"):
        sys.exit("two undisturbed runs differ")
    return root / "whole", seconds


def repeat(root: Path, until: str, whole: Path, seconds: float, seed: int, number: int) -> dict[str, object]:
    """Do one repetition and print what came of it."""
    fault = list(FAULTS)[number % len(FAULTS)]
    folder = root / f"{number:04d}"
    folder.mkdir()
    case = Case(root, until, whole, seconds, folder, np.random.default_rng([seed, number]))
    try:
        FAULTS[fault](case)
        case.check(case.start(), 0)
        ours, theirs = written_files(folder), written_files(whole)
    finally:
        if os.path.ismount(folder):
            subprocess.run(["umount", str(folder)], check=True)
    differ = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    shutil.rmtree(folder)
    outcome = {"number": number, "fault": fault, "injected": case.injected, "landed": case.landed, "differ": differ,
               "problems": case.problems}  # fmt: skip
    print(json.dumps(outcome), flush=True)
    return outcome


def main() -> None:
    """Repeat and print a summary; exit code 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", choices=STAGES, default=list(STAGES)[-1], help="the last stage of the run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        whole, seconds = prepare(root, options.until)
        outcomes = [repeat(root, options.until, whole, seconds, options.seed, n) for n in range(options.repetitions)]
    wrong = sum(bool(one["differ"] or one["problems"]) for one in outcomes)
    print(f"{len(outcomes)} repetitions, {sum(bool(one['landed']) for one in outcomes)} landed, {wrong} wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
