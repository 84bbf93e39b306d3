"""Import every module and run the quick tests with the lowest versions that pyproject.toml admits.

An environment in build/lower-bounds gets the lower bound of every package that pyproject.toml names, of the build
backend too, and the newest of what these need.
"""

from __future__ import annotations

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
PYTHON = FOLDER / "bin" / "python"
EXTRAS = ("test", "ray", "parquet")  # those that the quick tests use
QUICK = (
    "tests/test_artifacts.py", "tests/test_config.py", "tests/test_doctor.py", "tests/test_locks.py",
    "tests/test_package.py", "tests/contracts", "tests/data", "tests/encoders", "tests/features", "tests/generation",
    "tests/parallel", "tests/pipeline", "tests/report", "tests/targets", "tests/training",
    "tests/end_to_end/test_cli.py",
)  # fmt: skip
IMPORT_ALL = """
import importlib, pkgutil, neurocanvas
for found in pkgutil.walk_packages(neurocanvas.__path__, "neurocanvas."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""


def lowest(project: dict, extras: Sequence[str] = EXTRAS) -> list[str]:
    """Pin every requirement of a project, its build and some extras to its lower bound, such as ``numpy==1.26``."""
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


def install() -> None:
    """Make the environment, or bring it up to date with the bounds."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    pins = FOLDER / "constraints.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pins.write_text("\n".join(lowest(project)) + "\n", encoding="utf-8")
    if not PYTHON.exists():
        venv.create(FOLDER, with_pip=True)
    # as a variable and not with -c, because the environment that builds the package obeys it too
    bounded = {**os.environ, "PIP_CONSTRAINT": str(pins)}
    call([PYTHON, "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[{','.join(EXTRAS)}]"], bounded)


def call(command: Sequence[object], environment: dict[str, str] | None = None) -> None:
    """Run a command in the repository's root; the program ends with its exit code where it fails."""
    if code := subprocess.run([str(word) for word in command], cwd=ROOT, env=environment, check=False).returncode:
        sys.exit(code)


if __name__ == "__main__":
    install()
    call([PYTHON, "-m", "pip", "freeze", "--exclude-editable"])
    call([PYTHON, "-W", "error::SyntaxWarning", "-c", IMPORT_ALL])
    call([PYTHON, "-m", "pytest", "-m", "not slow", *(sys.argv[1:] or QUICK)])
