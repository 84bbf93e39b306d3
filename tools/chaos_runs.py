"""Runs in processes that can be killed, for chaos.py: forked from one that has loaded all, or started anew."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "tiny"))
from neurocanvas.locks import hold
from tiny import artifacts, tiny_settings

from neurocanvas import cli
from neurocanvas.config import save_settings
from neurocanvas.scale import make_engine
from neurocanvas.stages import STAGES, run_stage
from neurocanvas.stages.run import Run

ORDINARY = 65534
"""User and group of a run that must not read everything, where this is root."""

LAST = list(STAGES)[-1]


@dataclass(frozen=True)
class Stand:
    """Where the runs are, what the undisturbed one made, and how long it took."""

    root: Path
    until: str
    whole: Path
    seconds: float


class Process:
    """A run in a process of its own; what it says on stderr is in a file."""

    def __init__(
        self, stand: Stand, folder: Path, *, real: bool = False, ordinary: bool = False, skew: float = 0.0,
        workers: int = 1, listing: Path | None = None,
    ) -> None:  # fmt: skip
        self.errors = Path(tempfile.mkstemp(dir=stand.root, suffix=".txt")[1])
        self.code: int | None = None
        words = ["run", "-c", str(stand.root / "tiny.toml"), "-o", str(folder), "--json", "--workers", str(workers)]
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            few = None if stand.until == LAST else partial(_run_until, folder, stand.until, workers)
            _be_run(words, self.errors, few or cli.app, real, ordinary, skew, listing)

    def ended(self) -> bool:
        """Tell whether it has ended, and note its exit code, or the signal with a minus sign."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def wait(self, most: float = 600.0) -> int:
        """Wait for its end, at most so many seconds, then kill it."""
        until = time.monotonic() + most
        while not self.ended() and time.monotonic() < until:
            time.sleep(0.005)
        self.kill()
        return -1 if self.code is None else self.code

    def kill(self) -> bool:
        """Kill it; tell whether it was at work."""
        if self.ended():
            return False
        os.kill(self.pid, signal.SIGKILL)
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code == -signal.SIGKILL

    def said(self) -> list[str]:
        """Lines on stderr that speak of this package, and those of a traceback."""
        lines = self.errors.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if line.startswith("neurocanvas: ") or "Traceback" in line or "damaged" in line]


def _be_run(
    words: list[str], errors: Path, app: Callable[..., object], real: bool, ordinary: bool, skew: float,
    listing: Path | None,
) -> None:
    """Become the run, in a child; never returns."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_APPEND), 2)
        if ordinary and os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(ORDINARY, ORDINARY, ORDINARY)
            os.setresuid(ORDINARY, ORDINARY, ORDINARY)
        if real:
            os.execv(sys.executable, [sys.executable, "-m", "neurocanvas", *words])
        now = time.time
        time.time = lambda: now() + skew
        sys.argv = ["neurocanvas", *words]
        cli.app = app  # type: ignore[assignment]
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        if listing and code == 0:
            listing.write_text("\n".join(sys.modules), encoding="utf-8")
        sys.stderr.flush()
        os._exit(code)


def _run_until(folder: Path, until: str, workers: int, **_: object) -> None:
    """The first stages of `neurocanvas run`, in place of the command line's application."""
    with hold(folder, "run"), closing(make_engine(workers=workers)) as engine:
        for name in list(STAGES)[: list(STAGES).index(until) + 1]:
            run_stage(Run(folder, tiny_settings(), engine=engine), name)


def prepare(root: Path, until: str) -> Stand:
    """Make the undisturbed run twice: once to load what it loads into this process too, once for its time and bytes."""
    root.chmod(0o755)
    save_settings(tiny_settings(), root / "tiny.toml")
    for name in ("first", "whole"):
        stand = Stand(root, until, root / name, 0.0)
        stand.whole.mkdir()
        started, modules = time.monotonic(), root / f"{name}.txt"
        process = Process(stand, stand.whole, listing=modules)
        if process.wait():
            sys.exit(f"the undisturbed run failed: {process.errors.read_text(encoding='utf-8')}")
        seconds = time.monotonic() - started
        for module in modules.read_text().split() if name == "first" else ():
            with suppress(Exception):
                import_module(module)
    if artifacts(root / "first") != artifacts(root / "whole"):
        sys.exit("two undisturbed runs differ")
    return Stand(root, until, root / "whole", seconds)
