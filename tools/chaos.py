"""Faults at random moments of a small run: does the same command, given again, end with the same bytes?

    python tools/chaos.py --repetitions 200 --seed 0

A repetition starts `neurocanvas run` on the settings of tests/tiny, injects one fault, waits for the end, and gives the
command again. It is good if that ends with exit code 0 and the files of an undisturbed run, the log aside; if no error
was more than one line; if a damaged artifact was named; and if of a run that was complete nothing else was made again.
Repetition n depends on the seed and n alone: `--first 120` goes on where another call stopped. All processes but every
tenth are forked from this one, which has loaded the libraries; the tenth is the command line in an interpreter of its
own. Disks are full only for root, who may mount.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from chaos_runs import LAST, ORDINARY, Process, Stand, prepare
from tiny import artifacts

from neurocanvas.stages import STAGES

DECADE = 10 * 365.25 * 86400
REAL_ONE_IN = 10
WHEN = ("after the end", "while it runs", "after a kill")
TOGETHER = (("data",), ("predictions",))
"""Folders whose files are one piece of work: damage to one of them makes all of them again."""


@dataclass
class Case:
    """One repetition: a folder, a fault, what came of it."""

    stand: Stand
    number: int
    rng: np.random.Generator
    folder: Path
    later: ExitStack
    injected: str = ""
    landed: bool = True
    damaged: Path | None = None
    kept: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    skew: float = 0.0
    ordinary: bool = False

    @property
    def real(self) -> bool:
        """Whether the command line runs in an interpreter of its own."""
        return self.number % REAL_ONE_IN == REAL_ONE_IN - 1 and self.stand.until == LAST

    def start(self, **how: float) -> Process:
        """Start the run."""
        if self.ordinary and os.geteuid() == 0:
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, ORDINARY, ORDINARY, follow_symlinks=False)
        return Process(self.stand, self.folder, real=self.real, ordinary=self.ordinary, **how)  # type: ignore[arg-type]

    def moment(self) -> float:
        """Seconds, drawn from those that an undisturbed run takes; an interpreter of its own starts later."""
        return float(self.rng.uniform(0, self.stand.seconds)) + 5.0 * self.real

    def check(self, process: Process, *allowed: int) -> None:
        """Note what an ended run should not have done."""
        said = process.said()
        if process.wait() not in allowed or any("Traceback" in line for line in said):
            text = process.errors.read_text(encoding="utf-8", errors="replace")[-1500:]
            self.problems.append(f"exit code {process.code}: {text}")


def kill(case: Case) -> None:
    """SIGKILL to the run."""
    process, moment = case.start(), case.moment()
    time.sleep(moment)
    case.landed = process.kill()
    case.injected = f"SIGKILL after {moment:.1f} s"
    case.check(process, 0, -signal.SIGKILL)


def kill_worker(case: Case) -> None:
    """SIGKILL to one of the run's worker processes; the run does without it."""
    process, moment = case.start(workers=2), case.moment()
    time.sleep(moment)
    case.landed, case.injected = False, "no worker"
    while not (case.landed or process.ended()):
        time.sleep(0.05)
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
            workers = [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
            if workers:
                workers[case.rng.integers(len(workers))].kill()
                case.landed, case.injected = True, f"SIGKILL to a worker after {moment:.1f} s"
    process.wait()
    case.check(process, 0)


def fill_disk(case: Case) -> None:
    """A file system that is too small, and then grows."""
    size = int(case.rng.uniform(100, sum(map(len, artifacts(case.stand.whole).values())) / 1024))
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(case.folder)]
    if subprocess.run(command, capture_output=True).returncode:
        case.landed, case.injected = False, "cannot be mounted here"
        return
    case.later.callback(subprocess.run, ["umount", str(case.folder)], check=True)
    process = case.start()
    case.landed, case.injected = process.wait() != 0, f"disk of {size} kB"
    case.check(process, 0, 2)
    subprocess.run(["mount", "-o", "remount,size=256m", str(case.folder)], check=True)


def damage(case: Case, how: Callable[[Case, Path], str]) -> None:
    """Damage a file of a run that is complete, at work, or killed."""
    turn, kind = divmod(case.number, len(FAULTS))
    when = WHEN[(turn + kind) % len(WHEN)]
    process = None
    if when == WHEN[0]:
        shutil.copytree(case.stand.whole, case.folder, dirs_exist_ok=True)
    else:
        process = case.start()
        time.sleep(case.moment())
        case.landed = not process.ended()
        if when == WHEN[2]:
            process.kill()
    there = [name for name in artifacts(case.folder) if not Path(name).name.startswith(".")]
    parts = sorted({Path(name).parts[0] for name in there})
    if not parts:
        case.landed, case.injected = False, f"{when}: no file yet"
    else:
        part = parts[(turn + turn // len(WHEN) + kind) % len(parts)]  # at each time of damage, every part in turn
        name = str(case.rng.choice([name for name in there if Path(name).parts[0] == part]))
        with suppress(FileNotFoundError):  # a file of progress, gone by now
            case.injected = f"{when}: {name}: {how(case, case.folder / name)}"
            if process is None:
                case.damaged, case.kept = case.folder / name, stamps(case.folder)
    case.landed &= bool(case.injected)
    if process is not None:
        process.wait()
        case.check(process, 0, 2, *([-signal.SIGKILL] if when == WHEN[2] else []))


def cut(case: Case, path: Path) -> str:
    """Truncate."""
    size = int(case.rng.integers(max(1, path.stat().st_size)))
    os.truncate(path, size)
    return f"cut to {size} bytes"


def flip(case: Case, path: Path) -> str:
    """Flip one bit, in place."""
    size = path.stat().st_size
    if not size:
        return "empty"
    place, bit = int(case.rng.integers(size)), int(case.rng.integers(8))
    with path.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 1 << bit]))
    return f"bit {bit} of byte {place} flipped"


def hide(case: Case, path: Path) -> str:
    """Make a file unreadable: nobody may read it, or its name leads nowhere."""
    if case.ordinary:
        path.chmod(0)
        return "mode 000"
    path.unlink()
    path.symlink_to(case.stand.root / "nowhere")
    return "a link to nowhere"


def hide_file(case: Case) -> None:
    """A file that cannot be read; the mode of a file means nothing to root, so the run is an ordinary user's then."""
    case.ordinary = not case.real and case.number // len(FAULTS) % 2 == 0
    damage(case, hide)


def skew_clock(case: Case) -> None:
    """A clock that is years ahead, then years behind, and files from all times."""
    process = case.start(skew=DECADE)
    time.sleep(case.moment())
    case.landed = process.kill()
    case.check(process, 0, -signal.SIGKILL)
    for path in case.folder.rglob("*"):
        stamp = time.time() + case.rng.uniform(-2, 2) * DECADE
        os.utime(path, (stamp, stamp), follow_symlinks=False)
    case.skew, case.injected = -DECADE, "ten years ahead, killed, ten years behind"


def start_twice(case: Case) -> None:
    """The same run, started a second time while the first is at work."""
    moment = case.moment() / 2
    first = case.start()
    time.sleep(moment)
    second = case.start()
    first.wait()
    second.wait()
    case.check(first, 0, 2)
    case.check(second, 0, 2)
    refused = [process for process in (first, second) if process.code == 2]
    case.landed, case.injected = bool(refused), f"a second one after {moment:.1f} s"
    if len(refused) > 1 or any("in use by" not in " ".join(process.said()) for process in refused):
        case.problems.append(f"refused: {[process.said() for process in refused]}")


FAULTS: Mapping[str, Callable[[Case], None]] = {
    "run killed": kill,
    "worker killed": kill_worker,
    "disk full": fill_disk,
    "file unreadable": hide_file,
    "file truncated": lambda case: damage(case, cut),
    "bit flipped": lambda case: damage(case, flip),
    "clock skewed": skew_clock,
    "started twice": start_twice,
}
"""What happens to runs, in the order in which repetitions take turns."""


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file but the log."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in folder.rglob("*") if not path.is_dir() and path.name != "log.jsonl"
    }  # fmt: skip


def check_rebuilt(case: Case, process: Process) -> None:
    """Of a run that was complete: was the damaged file named, and was only what belongs to it made again?"""
    if case.damaged is None:
        return
    name = str(case.damaged.relative_to(case.folder))
    of_card = name.removesuffix(".json")
    together = {name, of_card, f"{name}.json"}
    now = stamps(case.folder)
    if Path(name).parts[:1] in TOGETHER:
        together |= {other for other in now if Path(other).parts[0] == Path(name).parts[0]}
    again = {other for other, stamp in case.kept.items() if now.get(other) != stamp} - together
    if again:
        case.problems.append(f"made again though whole: {sorted(again)}")
    carded = (case.folder / f"{of_card}.json").is_file() and (case.folder / of_card).is_file()
    if carded and "nowhere" not in case.injected and not any(str(case.damaged) in line for line in process.said()):
        case.problems.append(f"nobody said that {name} is damaged")


def repeat(stand: Stand, seed: int, number: int, *, keep: bool) -> dict[str, object]:
    """Do one repetition."""
    fault = list(FAULTS)[number % len(FAULTS)]
    folder = stand.root / f"{number:04d}"
    folder.mkdir()
    started = time.monotonic()
    with ExitStack() as later:
        case = Case(stand, number, np.random.default_rng([seed, number]), folder, later)
        FAULTS[fault](case)
        again = case.start(skew=case.skew)
        again.wait()
        case.check(again, 0)
        ours, theirs = artifacts(folder), artifacts(stand.whole)
        differ = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        if differ:
            case.problems.append(f"differ: {differ}")
        check_rebuilt(case, again)
    if not (keep and case.problems):
        shutil.rmtree(folder)
    return {
        "number": number, "fault": fault, "injected": case.injected, "real": case.real, "landed": case.landed,
        "identical": not differ, "seconds": round(time.monotonic() - started, 1), "problems": case.problems,
    }  # fmt: skip


def print_table(outcomes: list[dict[str, object]]) -> None:
    """Print what came of each fault, as Markdown."""
    print("\n| fault | repetitions | landed | ended identically | without any problem | seconds each |")
    print("|---|---|---|---|---|---|")
    for fault in (*FAULTS, "all"):
        some = [one for one in outcomes if fault in ("all", one["fault"])]
        if some:
            counts = [sum(bool(one[key]) for one in some) for key in ("landed", "identical")]
            seconds = np.mean([one["seconds"] for one in some])
            print(f"| {fault} | {len(some)} | {counts[0]} | {counts[1]} | "
                  f"{sum(not one['problems'] for one in some)} | {seconds:.0f} |")  # fmt: skip


def main() -> None:
    """Parse, repeat, print; exit code 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first repetition")
    parser.add_argument("--fault", choices=FAULTS, help="this one only")
    parser.add_argument("--until", choices=STAGES, default=LAST, help="the run's last stage")
    parser.add_argument("--log", type=Path, help="file that one line of JSON per repetition is added to")
    parser.add_argument("--keep", type=Path, help="folder to work in, where runs with problems stay")
    asked = parser.parse_args()
    with ExitStack() as later:
        root = asked.keep or Path(later.enter_context(tempfile.TemporaryDirectory()))
        root.mkdir(parents=True, exist_ok=True)
        stand, outcomes = prepare(root, asked.until), []
        print(f"undisturbed: {stand.seconds:.1f} s", flush=True)
        for number in range(asked.first, asked.first + asked.repetitions):
            if asked.fault in (None, list(FAULTS)[number % len(FAULTS)]):
                outcomes.append(repeat(stand, asked.seed, number, keep=asked.keep is not None))
                line = json.dumps(outcomes[-1])
                print(line, flush=True)
                if asked.log:
                    with asked.log.open("a", encoding="utf-8") as stream:
                        stream.write(line + "\n")
    print_table(outcomes)
    sys.exit(any(one["problems"] for one in outcomes))


if __name__ == "__main__":
    main()
