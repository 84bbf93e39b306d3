"""Run the benchmarks of the project (`make bench`): ours against a baseline, in turn, in one process each.

Writes `benchmarks/results.json`, a list of {"name", "baseline", "ours", "unit", "ratio", "machine", "what"}, and the
table of `docs/benchmarks.md` between its two marks. Names on the command line run those alone and keep the other rows.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "benchmarks.md"
MARKS = ("<!-- table: make bench -->", "<!-- end of table -->")
TOPICS = (
    "bench_features", "bench_dataset", "bench_classifiers", "bench_mapper", "bench_generation", "bench_statistics",
    "bench_scaling", "bench_evaluation",
)  # fmt: skip


class Row(TypedDict):
    """One comparison; `ratio` says how many times better ours is, or what `what` says."""

    name: str
    baseline: float
    ours: float
    unit: str
    ratio: float
    what: str


def in_turn(
    baseline: Callable[[], object], ours: Callable[[], object], *, rounds: int = 5, warm_up: int = 1
) -> tuple[float, float]:
    """Time two functions in turn and return the median seconds of each; the warm-up rounds are left out."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(warm_up + rounds):
        for function, spent in zip((baseline, ours), times, strict=True):
            started = time.perf_counter()
            function()
            if round_ >= warm_up:
                spent.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


def compare(name: str, baseline: float, ours: float, unit: str, what: str) -> Row:
    """Make a row whose ratio is baseline / ours: above 1, ours needs less."""
    return Row(name=name, baseline=baseline, ours=ours, unit=unit, ratio=baseline / ours, what=what)


def peak_mb(function: Callable[[], object]) -> float:
    """Most memory that a function holds beyond what the process held before, MB (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the kernel forgets the peak so far
    before = _kib("VmRSS")
    function()
    return (_kib("VmHWM") - before) * 1024 / 1e6


def _kib(name: str) -> int:
    """One of the kernel's figures about this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def machine() -> str:
    """Describe the machine: processor, cores, memory, and the versions that matter."""
    import torch

    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}"
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB; {versions}"


def benchmarks() -> dict[str, tuple[str, Callable[[], list[Row]]]]:
    """Every benchmark by name, with the module that holds it."""
    return {
        name: (topic, function)
        for topic in TOPICS
        for name, function in importlib.import_module(topic).BENCHMARKS.items()
    }


def table(rows: list[dict[str, object]]) -> str:
    """Rows as a Markdown table, with the machines below."""
    head = "| benchmark | baseline | ours | unit | ratio | what is compared |\n|---|---|---|---|---|---|\n"
    lines = [
        f"| `{r['name']}` | {r['baseline']:.4g} | {r['ours']:.4g} | {r['unit']} | {r['ratio']:.3g} | {r['what']} |"
        for r in rows
    ]
    machines = dict.fromkeys(str(row["machine"]) for row in rows)
    return head + "\n".join(lines) + "\n\nMachine: " + "; ".join(machines) + ".\n"


def write(rows: list[dict[str, object]]) -> None:
    """Write the results, and the table into the page."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    PAGE.write_text(f"{before}{MARKS[0]}\n\n{table(rows)}\n{MARKS[1]}{after}", encoding="utf-8")


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all, each in a process of its own so that none warms or fills another's memory."""
    known = benchmarks()
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"bench: allowed are {', '.join(known)}; got {unknown[0]!r}.")
    rows: dict[str, dict[str, object]] = {}
    if RESULTS.is_file():
        rows = {row["name"]: row for row in json.loads(RESULTS.read_text(encoding="utf-8"))}
    for name in names or known:
        program = (
            f"import sys, json; sys.path.insert(0, {str(ROOT / 'tools')!r}); import {known[name][0]} as topic; "
            f"print(json.dumps(topic.BENCHMARKS[{name!r}]()))"
        )
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
        for row in json.loads(done.stdout.splitlines()[-1]):
            rows[row["name"]] = {**row, "machine": machine()}
        write(list(rows.values()))  # after each, so that what is measured is kept
    print(table(list(rows.values())))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tools"))
    main(sys.argv[1:])
