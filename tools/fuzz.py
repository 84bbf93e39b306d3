"""Coverage-guided fuzzing of every reader: `python tools/fuzz.py [NAMES] --seconds 60`; needs the extra `fuzz`.

Every target of fuzz_targets.py runs in a process of its own for so many seconds. What reached something new is kept
in tests/fuzz/corpus/<target>/ (a few small files), and every input that broke a reader in
tests/fuzz/regressions/<target>/, once per place in the code; tests/fuzz/test_corpus.py replays both.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORPUS, REGRESSIONS = ROOT / "tests" / "fuzz" / "corpus", ROOT / "tests" / "fuzz" / "regressions"
MOST_FILES, MOST_BYTES = 30, 4096
"""Of a target's corpus that are kept."""

MEMORY, SECONDS = 3 << 30, 10
"""What reading one file may take beyond what the packages take: bytes of address space, and s."""


def main() -> None:
    """Run the targets one after another, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="targets; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for every target")
    parser.add_argument("--inside", nargs=2, metavar=("CORPUS", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        _fuzz(asked.names[0], *map(Path, asked.inside), seconds=asked.seconds)
    sys.path.insert(0, str(ROOT / "src"))
    from fuzz_targets import TARGETS

    unknown = [name for name in asked.names if name not in TARGETS]
    if unknown:
        parser.error(f"targets: allowed are {', '.join(TARGETS)}; got {unknown[0]}")
    print(f"{'target':<22}{'executions':>12}{'per second':>12}{'edges':>8}{'corpus':>8}{'crashes':>9}", flush=True)
    for name in asked.names or TARGETS:
        print(_run(name, asked.seconds), flush=True)


def _run(name: str, seconds: int) -> str:
    """Fuzz a target in a process of its own; give its line of the table."""
    from fuzz_targets import TARGETS

    with tempfile.TemporaryDirectory() as temporary:
        grown, folder = Path(temporary) / "grown", Path(temporary) / "read"
        for one in (grown, folder):
            one.mkdir()
        given = [*TARGETS[name][1](), *(path.read_bytes() for path in _kept(CORPUS / name))]
        for content in given:
            (grown / hashlib.sha1(content).hexdigest()).write_bytes(content)
        known = {path.name for path in _kept(REGRESSIONS / name)}
        command = [sys.executable, __file__, name, "--seconds", str(seconds), "--inside", str(grown), str(folder)]
        (REGRESSIONS / name).mkdir(parents=True, exist_ok=True)  # libFuzzer makes no folder
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        wall = time.perf_counter() - started
        if not _kept(REGRESSIONS / name):
            (REGRESSIONS / name).rmdir()
        said, crashes = done.stderr, [path for path in _kept(REGRESSIONS / name) if path.name not in known]
        executions = int((re.findall(r"(?:number_of_executed_units: |#)(\d+)", said) or [0])[-1])
        edges = int((re.findall(r"cov: (\d+)", said) or [0])[-1])
        if not executions:
            print(said[-3000:], file=sys.stderr)
        corpus = _keep(name, grown, {hashlib.sha1(content).hexdigest() for content in TARGETS[name][1]()})
    for path in crashes:
        print(f"  {path.relative_to(ROOT)}", file=sys.stderr)
    return f"{name:<22}{executions:>12,}{executions / wall:>12,.0f}{edges:>8}{corpus:>8}{len(crashes):>9}"


def _kept(folder: Path) -> list[Path]:
    """Files of a folder, in the order of their names; none without it."""
    return sorted(path for path in folder.glob("*") if path.is_file())


def _keep(name: str, grown: Path, seeds: set[str]) -> int:
    """Keep a few small files of those that libFuzzer found worth keeping, spread over their sizes."""
    found = [path for path in _kept(grown) if path.name not in seeds and path.stat().st_size <= MOST_BYTES]
    found.sort(key=lambda path: (path.stat().st_size, path.name))
    step = max(1, -(-len(found) // MOST_FILES))
    shutil.rmtree(CORPUS / name, ignore_errors=True)
    for path in found[::step]:
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, CORPUS / name / path.name)
    return len(found[::step])


def _fuzz(name: str, grown: Path, folder: Path, *, seconds: int) -> None:
    """Fuzz a target in this process, which ends here; inputs that break the reader are saved, once per place."""
    import atheris

    sys.path.insert(0, str(ROOT / "src"))
    with atheris.instrument_imports(include=["neurocanvas"]):  # other packages are not looked into
        import fuzz_targets

        for content in fuzz_targets.TARGETS[name][1]():  # what readers import when they are called, as well
            _attempt(fuzz_targets, name, content, folder, set())
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY, resource.RLIM_INFINITY))
    places: set[str] = set()
    for path in _kept(REGRESSIONS / name):  # what is not mended yet is not kept again
        _attempt(fuzz_targets, name, path.read_bytes(), folder, places)
    arguments = [
        sys.argv[0], str(grown), f"-max_total_time={seconds}", f"-timeout={SECONDS}", "-seed=1", "-rss_limit_mb=0",
        f"-max_len={MOST_BYTES}", "-reduce_inputs=1", "-print_final_stats=1",
        f"-artifact_prefix={REGRESSIONS / name}/",
    ]  # fmt: skip
    atheris.Setup(arguments, lambda content: _attempt(fuzz_targets, name, bytes(content), folder, places))
    atheris.Fuzz()


def _attempt(targets, name: str, content: bytes, folder: Path, places: set[str]) -> None:  # type: ignore[no-untyped-def]
    """Let a target read a file; save the file if that breaks it at a place that is not known yet."""
    try:
        targets.attempt(name, content, folder)
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "neurocanvas" in frame.filename]
        at = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "fuzz"
        place = f"{type(error).__name__} at {at}"
        if place in places:
            return
        places.add(place)
        path = REGRESSIONS / name / hashlib.sha1(content).hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        sys.stderr.write(f"BROKEN {path.name}: {place}: {str(error)[:300]!r}\n")


def _address_space() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
