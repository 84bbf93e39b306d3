"""Peak memory of every verb at 4,000, 16,000 and 64,000 simulated trials (`python tools/memory.py`).

Every verb runs in a process of its own, with a worker per core where it has work for several. What is kept is the
largest sum of resident memory over that process and all its children, seen every 50 ms, or the process's own peak as
the kernel counted it if that is more; what is private of it, since pages of mapped files count too, though the kernel
can take them back; and the largest single process. Writes `benchmarks/memory.json`, from which it goes on after it was
stopped, and the table of `docs/benchmarks.md` between its two marks.

    python tools/memory.py --folder runs/memory              # what is not measured yet
    python tools/memory.py --sizes 4000 --verbs train,predict --again
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypedDict

import psutil
from bench import PAGE, ROOT, machine

RESULTS = ROOT / "benchmarks" / "memory.json"
MARKS = ("<!-- table: tools/memory.py -->", "<!-- end of memory table -->")
SUBJECTS = {4000: 1, 16000: 4, 64000: 16}
"""Trials in all -> subjects; each sees 250 pictures of 16 concepts, because those beyond 18 have no pictures."""

PICTURES = 64
"""Drawn at every size: 32 test trials from EEG, and the same with predictions shuffled."""

EVERY = 0.05
SETTINGS = """[mapper]
epochs = 4
[classify]
models = ["ridge", "mlp", "eegnet"]
epochs = 1
[benchmark]
permutations = 99
[generate]
arms = ["eeg", "shuffled"]
steps = 2
[controls]
permutations = 19
repeats = 1
[evaluate]
permutations = 99
resamples = 100
"""
"""All else is as it comes. Epochs and steps change how long a verb takes, not what it holds; a permutation holds 4
bytes for each tested trial."""


class Peaks(TypedDict):
    """Peak of all processes of a verb, what of it was private, the largest process, MB; and seconds."""

    peak_mb: float
    private_mb: float
    process_mb: float
    seconds: float


class Row(Peaks):
    """One verb at one size, and where."""

    verb: str
    n_trials: int
    machine: str


def commands(n_trials: int, folder: Path) -> dict[str, list[str]]:
    """Arguments of every verb, in the order in which one needs what another wrote."""
    subjects = str(SUBJECTS[n_trials])
    data, converted, run = str(folder / "data"), str(folder / "store"), str(folder / "run")
    settings = folder / "memory.toml"
    opens = ["-c", str(settings), "-d", converted, "--images", data, "-o", run]
    return {
        "simulate": ["-o", data, "--subjects", subjects, "--concepts", "16", "--trials", "250"],
        "inspect": ["-d", data, "--json"],
        "convert": ["-d", data, "-o", converted],
        **dict.fromkeys(("features", "caption", "embed", "train", "predict"), opens),
        "generate": [*opens, "--pictures", str(PICTURES // 2 // SUBJECTS[n_trials])],
        "evaluate": opens,
        "report": ["-o", run],
        "audit": [run, "--json"],
        "export": ["-o", run, "--to", str(folder / "released")],
        **dict.fromkeys(("classify", "benchmark", "controls"), opens),
    }


def measure(arguments: list[str]) -> Peaks:
    """Run the command line."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    command = [sys.executable, "-m", "neurocanvas", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    seen = [(0, 0, 0)]
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        seen.append(_resident(process.pid))
        time.sleep(EVERY)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"memory: `neurocanvas {' '.join(arguments)}` ended with {process.returncode}.")
    total, private, largest = (max(column) / 1e6 for column in zip(*seen, strict=True))
    of_any = usage.ru_maxrss * 1024 / 1e6  # of the process or a child that it waited for
    return {
        "peak_mb": max(total, of_any), "private_mb": private, "process_mb": max(largest, of_any),
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


def _resident(pid: int) -> tuple[int, int, int]:
    """Resident and private bytes of a process and all its children, and resident ones of the largest."""
    total = private = largest = 0
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0, 0
    for process in tree:
        try:
            found = process.memory_info()
        except psutil.NoSuchProcess:
            continue
        total, private, largest = total + found.rss, private + found.rss - found.shared, max(largest, found.rss)
    return total, private, largest


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table: a line per verb, a column per size."""
    sizes = sorted({row["n_trials"] for row in rows})
    found = {(row["verb"], row["n_trials"]): row for row in rows}
    head = "| verb | " + " | ".join(f"{size:,} trials" for size in sizes) + " |\n|---" + "|---:" * len(sizes) + "|\n"
    lines = []
    for verb in dict.fromkeys(row["verb"] for row in rows):
        cells = [found.get((verb, size)) for size in sizes]
        shown = [f"{row['peak_mb']:,.0f} ({row['process_mb']:,.0f})" if row else "" for row in cells]
        lines.append(f"| `{verb}` | " + " | ".join(shown) + " |")
    return head + "\n".join(lines) + "\n\nMachine: " + "; ".join(dict.fromkeys(row["machine"] for row in rows)) + ".\n"


def write(rows: list[Row]) -> None:
    """Write the results, and the table into the page."""
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    before, mark, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    if not mark:
        return
    _, _, after = rest.partition(MARKS[1])
    PAGE.write_text(f"{before}{MARKS[0]}\n\n{table(rows)}\n{MARKS[1]}{after}", encoding="utf-8")


def main(asked: argparse.Namespace, folder: Path) -> None:
    """Measure every verb at every size that is asked for and not known yet; each writes what the next needs."""
    for size in asked.sizes:
        place = folder / str(size)
        place.mkdir(parents=True, exist_ok=True)
        (place / "memory.toml").write_text(SETTINGS, encoding="utf-8")
        order = commands(size, place)
        for verb, arguments in order.items():
            known = any((row["verb"], row["n_trials"]) == (verb, size) for row in _known())
            if verb not in (asked.verbs or order) or (known and not asked.again):
                continue
            found = measure([verb, *arguments])
            print(verb, size, json.dumps(found), flush=True)
            new = Row(verb=verb, n_trials=size, machine=machine(), **found)
            rows = [new, *(row for row in _known() if (row["verb"], row["n_trials"]) != (verb, size))]
            rows.sort(key=lambda row: (row["n_trials"], list(order).index(row["verb"])))
            write(rows)  # after each, so that what is measured is kept
    print(table(_known()))


def _known() -> list[Row]:
    """What is measured already; another call may be measuring, too."""
    rows: list[Row] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="of the data and the runs, which stay there; 40 GB")
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=list(SUBJECTS))
    parser.add_argument("--verbs", type=lambda text: text.split(","), help="as a,b; else all")
    parser.add_argument("--again", action="store_true", help="measure what is known already, too")
    options = parser.parse_args()
    if options.folder is not None:
        main(options, options.folder)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(options, Path(temporary))
