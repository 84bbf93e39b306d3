"""Test the lowest versions that pyproject.toml admits: python tools/lower_bounds.py

An environment of its own, in build/lower-bounds, gets exactly the lower bound of every package that pyproject.toml
names, of the build backend too, and the newest of what these in turn need. In it every module is imported and the quick
tests run. What fails there is a bound that is too low, or code that asks for more than the bound promises.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "lower-bounds"
EXTRAS = ("test", "ray", "parquet")
"""Extras that the quick tests use; the others ask for packages that no quick test loads."""

QUICK = (
    "tests/test_config.py", "tests/test_store.py", "tests/test_trials.py", "tests/test_montage.py",
    "tests/test_families.py", "tests/test_doctor.py", "tests/test_package.py", "tests/test_locks.py", "tests/contracts",
    "tests/scale", "tests/datasets", "tests/features", "tests/targets", "tests/models", "tests/training",
    "tests/generation", "tests/stages", "tests/report", "tests/end_to_end/test_cli.py",
)  # fmt: skip
"""Tests of every package that is bounded, and the tiny run from end to end."""

IMPORT_ALL = """
import importlib, pkgutil, neurocanvas
for found in pkgutil.walk_packages(neurocanvas.__path__, "neurocanvas."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""


def lowest(project: dict, extras: Sequence[str] = EXTRAS) -> list[str]:
    """Pin every requirement of a project to its lower bound.

    Parameters
    ----------
    project : dict
        The content of a pyproject.toml.
    extras : sequence of str
        Whose requirements are pinned besides those of the package and of its build.

    Returns
    -------
    list of str
        Such as ``numpy==1.26``, sorted.

    Raises
    ------
    ValueError
        If a requirement has no lower bound.
    """
    optional = project["project"]["optional-dependencies"]
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    wanted += [requirement for extra in extras for requirement in optional[extra]]
    pins = set()
    for requirement in wanted:
        bound = re.match(r"([\w.-]+)(?:\[[\w,.-]+\])?>=([\w.]+)", requirement)
        if not bound:
            raise ValueError(f"pyproject.toml: {requirement!r} has no lower bound; write it as 'name>=version'")
        pins.add(f"{bound[1]}=={bound[2]}")
    return sorted(pins)


def install(folder: Path) -> None:
    """Make the environment anew, or bring one that is there up to date with the bounds."""
    folder.mkdir(parents=True, exist_ok=True)
    pins = folder / "constraints.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pins.write_text("\n".join(lowest(project)) + "\n", encoding="utf-8")
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    # by the variable, not by -c: the environment that builds the package obeys it too
    bounded = {**os.environ, "PIP_CONSTRAINT": str(pins)}
    package = f"{ROOT}[{','.join(EXTRAS)}]"
    call([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--editable", package], bounded)


def call(command: Sequence[object], environment: dict[str, str] | None = None) -> None:
    """Run a command in the repository's root; the program ends with its exit code where it fails."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """Make the environment, import every module in it, run the quick tests in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=QUICK, help="test files or folders, instead of the quick ones")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the environment is made")
    chosen = parser.parse_args()
    install(chosen.folder)
    python = chosen.folder / "bin" / "python"
    call([python, "-m", "pip", "freeze", "--exclude-editable"])
    call([python, "-W", "error::SyntaxWarning", "-c", IMPORT_ALL])
    call([python, "-m", "pytest", "-m", "not slow", *chosen.tests])


if __name__ == "__main__":
    main()
