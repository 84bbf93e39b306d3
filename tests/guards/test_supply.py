"""The supply chain: what sources may not use, what is pinned, what the wheel and the source archive hold."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import lower_bounds
import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "tools").glob("*.py")])

RUNS_CODE = {
    "eval", "exec", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads",
    "pickle.Unpickler", "pickle._Unpickler", "cloudpickle.load", "cloudpickle.loads", "dill.load", "dill.loads",
    "joblib.load", "marshal.load", "marshal.loads", "shelve.open", "pandas.read_pickle", "yaml",
}  # fmt: skip
"""Names of what can run code that stands in a file or a string."""

UNSAFE = {"allow_pickle": "False", "trust_remote_code": "False", "shell": "False", "weights_only": "True"}
"""Arguments that only ever have this value."""


def dangers(source: str) -> Iterator[str]:
    """What in a source can run code out of a file or a string, by line."""
    tree = ast.parse(source)
    meant = dict(imported_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            name = ".".join(filter(None, (meant.get(root, root), rest)))
            if name in RUNS_CODE:
                yield f"{node.lineno}: {name}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            roots = {full.split(".")[0] for _, full in imported_names(node)}
            yield from (f"{node.lineno}: import of {root}" for root in sorted(roots & RUNS_CODE))
        if isinstance(node, ast.Call):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            yield from (f"{node.lineno}: {w}={given[w]}" for w in UNSAFE if given.get(w, UNSAFE[w]) != UNSAFE[w])
            root, _, rest = ast.unparse(node.func).partition(".")
            if ".".join(filter(None, (meant.get(root, root), rest))) == "torch.load" and "weights_only" not in given:
                yield f"{node.lineno}: torch.load without weights_only=True"


def imported_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local and full name of what a source imports: ``np`` and ``numpy``, ``loads`` and ``pickle.loads``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname, alias.name) if alias.asname else (alias.name,) * 2 for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def test_no_source_runs_what_a_file_holds():
    names = [path.relative_to(ROOT).as_posix() for path in SOURCES]
    found = [f"{name}:{line}" for name in names for line in dangers((ROOT / name).read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source", ["from pickle import loads as read\nread(content)", "class Mine(pickle.Unpickler): pass",
               "torch.load(path)", "from torch import load\nload(path)", "torch.load(path, weights_only=False)",
               "np.load(path, allow_pickle=wanted)", "from yaml import safe_load", "exec(text)",
               "subprocess.run(line, shell=True)", "AutoModel.from_pretrained(name, trust_remote_code=True)"],
)  # fmt: skip
def test_the_search_finds_each_danger(source):
    assert list(dangers(source))


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    """Package -> version out of constraints.txt, each line of which is an exact pin."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines]
    assert all(pins), [line for line, pin in zip(lines, pins, strict=True) if not pin]
    return {plain(pin[1]): pin[2] for pin in pins if pin}


def release(version: str) -> tuple[int, ...]:
    """A version's numbers, to compare by."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def test_everything_that_the_makefile_installs_is_pinned_within_its_range():
    pins = pinned()
    extras = ("test", "dev", "ray")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(",".join(re.findall(r"-e '\.\[([\w,]+)\]'", makefile)).split(",")) == set(extras)
    for requirement in lower_bounds.lowest(PROJECT, extras):
        name, low = requirement.split("==")
        assert release(pins[plain(name)]) >= release(low), requirement
    for name, high in re.findall(r'"([\w-]+)>=[\w.]+,<([\w.]+)"', (ROOT / "pyproject.toml").read_text()):
        assert release(pins[plain(name)]) < release(high), name


def test_lower_bounds_are_read_and_a_requirement_without_one_is_refused():
    project = {
        "build-system": {"requires": ["hatchling>=1.27"]},
        "project": {"dependencies": ["torch>=2.6,<3"], "optional-dependencies": {"ray": ["ray[client]>=2.40"]}},
    }
    assert lower_bounds.lowest(project, ["ray"]) == ["hatchling==1.27", "ray==2.40", "torch==2.6"]
    project["project"]["dependencies"] = ["torch"]
    with pytest.raises(ValueError, match=r"'torch' has no lower bound"):
        lower_bounds.lowest(project, [])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_quick_tests_pass_with_the_lowest_versions():
    subprocess.run([sys.executable, ROOT / "tools" / "lower_bounds.py"], check=True)


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> Path:
    """A folder with the wheel and the source archive, built as a release is."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True)
    return folder


def data_files() -> set[str]:
    """Files of the package that are no Python, as the wheel names them."""
    files = (path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT / "src").as_posix() for path in files if path.suffix != ".py"}


def test_the_wheel_holds_the_package_and_nothing_else(archives):
    (wheel,) = archives.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    needed = data_files()
    assert {"neurocanvas/bundled/card.json", "neurocanvas/bundled/demo.toml"} <= needed
    assert {Path(name).suffix for name in needed} >= {".safetensors", ".j2", ".json", ".toml"}
    assert needed | {"neurocanvas/cli.py"} <= names
    assert all(name.startswith(("neurocanvas/", "neurocanvas-")) and "__pycache__" not in name for name in names)
    assert wheel.stat().st_size < 32 * 2**20


def test_the_source_archive_holds_what_builds_the_package_and_nothing_else(archives):
    (archive,) = archives.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    assert {f"src/{name}" for name in data_files()} | {"pyproject.toml", "LICENSE", "README.md"} <= names
    assert {name.split("/")[0] for name in names} <= {
        "src", "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "PKG-INFO", ".gitignore",
    }  # fmt: skip
    assert archive.stat().st_size < 32 * 2**20


LOADS = """
import neurocanvas
from neurocanvas.targets.pretrained import find_family, load_part
from transformers import CLIPModel
print(neurocanvas.__file__, load_part(find_family("bundled").judge, CLIPModel.from_pretrained).num_parameters() > 0)
"""


@pytest.mark.slow
def test_the_wheel_works_where_there_is_no_repository(archives, tmp_path):
    venv.create(tmp_path / "clean")
    program = tmp_path / "clean" / "bin" / "python"
    (wheel,) = archives.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", program, "install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run(pip, check=True)
    (packages,) = (tmp_path / "clean").glob("lib/python*/site-packages")
    # what the wheel needs is taken from the environment of the tests; its own editable install is not, as .pth files
    # of a folder that stands in a .pth file are not read
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "others.pth").write_text("\n".join(others), encoding="utf-8")
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def call(*command: object) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        return done.stdout

    script = program.with_name("neurocanvas")
    assert PROJECT["project"]["version"] in call(script, "--version")
    assert "bundled" in call(script, "doctor")
    assert call(program, "-c", LOADS).split() == [str(packages / "neurocanvas" / "__init__.py"), "True"]
