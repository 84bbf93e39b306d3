"""The layout of the sources: floors, imports, sizes, names and docstrings, read from the syntax trees."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import neurocanvas

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "neurocanvas"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "__init__": 0,
    "errors": 0,
    "findings": 1,
    "artifacts": 1,
    "config": 1,
    "console": 1,
    "parallel": 2,
    "data": 3,
    "features": 4,
    "targets": 5,
    "encoders": 6,
    "training": 7,
    "decoder": 8,
    "generation": 9,
    "evaluation": 10,
    "audit": 11,
    "simulation": 11,
    "pipeline": 12,
    "report": 13,
    "workflow": 14,
    "reconstruction": 15,
    "doctor": 15,
    "cli": 15,
    "__main__": 15,
}
"""File or folder of the package -> its place in the order of imports; ARCHITECTURE.md shows the same numbers."""

NEVER = {"generation": {"training"}}
"""Part -> parts that it may not import although they are on lower floors."""

RESOLVED_LATE = {("data", "simulation")}
"""Imports up, inside functions: simulated data are a data set, and are there only when one is opened."""

HEAVY = {
    "torch", "torchvision", "mne", "diffusers", "transformers", "matplotlib", "sklearn", "scipy", "ray", "pandas",
    "pyarrow",
}  # fmt: skip
"""Packages that are imported inside functions only."""

AT_THE_TOP = {
    "encoders": {"torch", "sklearn"}, "training": {"torch"}, "decoder": {"torch", "sklearn"}, "generation": {"torch"},
}  # fmt: skip
"""Parts that are imported late themselves -> heavy packages that they may import at the top."""

VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
NUMPY_RANDOM = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "Philox"}
STANDARD_RANDOM = {"Random", "SystemRandom"}
FUNCTION_LINES, DOCSTRING_LINES = 80, 2

# Contracts, and what exported functions return; with the exported names they have numpydoc docstrings.
CONTRACTS = {
    "TrialSpec": "neurocanvas.data.trials", "TargetSpace": "neurocanvas.targets", "Target": "neurocanvas.targets",
    "Generator": "neurocanvas.generation.base", "Reconstruction": "neurocanvas.reconstruction",
    "Classification": "neurocanvas.reconstruction",
}  # fmt: skip

Problems = list[str]


def part_of(path: Path) -> str:
    """File or folder of the package that a source belongs to: its key in `FLOORS`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(node: ast.AST) -> list[str]:
    """Modules that a statement imports, if it is an import; of this package with the name after it."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom) or node.level:
        return []
    base = node.module or ""
    return [f"{base}.{alias.name}" for alias in node.names] if base == "neurocanvas" else [base]


def imported_parts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and part of every import from this package, wherever it stands."""
    for node in ast.walk(tree):
        for package, _, rest in (name.partition(".") for name in imported(node)):
            if package == "neurocanvas":
                part = rest.split(".")[0]
                yield node.lineno, part if part in FLOORS else "__init__"


def floor_problems(part: str, tree: ast.Module) -> Problems:
    """Imports from a floor that is not below, and imports that `NEVER` forbids."""
    problems = []
    for line, other in imported_parts(tree):
        beside = FLOORS[other] == FLOORS[part] and is_file(other) and is_file(part)
        if (part, other) in RESOLVED_LATE:
            continue
        if not (other == part or FLOORS[other] < FLOORS[part] or beside):
            problems.append(f"{line}: {part} (floor {FLOORS[part]}) imports {other} (floor {FLOORS[other]})")
        if other in NEVER.get(part, ()):
            problems.append(f"{line}: {part} may not import {other}")
    relative = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return problems + [f"{node.lineno}: relative import" for node in relative]


def is_file(part: str) -> bool:
    """Tell a file of the package's own folder from a folder."""
    return (PACKAGE / f"{part}.py").is_file()


def run_on_import(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that importing a module executes: no function bodies, no TYPE_CHECKING blocks."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from run_on_import(node.orelse)
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from run_on_import(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from run_on_import(handler.body)


def heavy_import_problems(part: str, tree: ast.Module) -> Problems:
    """Heavy packages that are imported when the module is."""
    found = [(node.lineno, name) for node in run_on_import(tree.body) for name in imported(node)]
    late = HEAVY - AT_THE_TOP.get(part, set())
    return [f"{line}: {name} at the top" for line, name in found if name.split(".")[0] in late]


def construct_problems(tree: ast.Module) -> Problems:
    """Asserts, star imports, mutable defaults and global random state."""
    problems = []
    lent = {
        id(inner)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and "fork_rng" in ast.unparse(function)
        for inner in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            problems.append(f"{node.lineno}: assert")
        elif isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            problems.append(f"{node.lineno}: star import")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            defaults = [*node.args.defaults, *(value for value in node.args.kw_defaults if value)]
            problems += [f"{value.lineno}: mutable default" for value in defaults if is_mutable(value)]
        elif isinstance(node, ast.Attribute) and (name := global_random(node)):
            borrowed = name.startswith("torch.") and id(node) in lent
            problems += [] if borrowed else [f"{node.lineno}: {name}"]
    return problems


def is_mutable(value: ast.expr) -> bool:
    """Tell whether a default is a list, dictionary or set."""
    made = isinstance(value, ast.Call) and ast.unparse(value.func) in ("list", "dict", "set", "bytearray")
    return made or isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def global_random(node: ast.Attribute) -> str:
    """Name of a function that reads or changes global random state, or nothing."""
    name = ast.unparse(node)
    base, _, last = name.rpartition(".")
    if base in ("np.random", "numpy.random"):
        return "" if last in NUMPY_RANDOM else name
    if base == "random":
        return "" if last in STANDARD_RANDOM else name
    return name if name in ("torch.manual_seed", "torch.random.manual_seed", "torch.seed") else ""


def size_problems(tree: ast.Module) -> Problems:
    """Functions that are too long."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = [(node, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions]
    long = [(node, length) for node, length in lengths if length > FUNCTION_LINES]
    return [f"{node.lineno}: {node.name} has {length} lines; {FUNCTION_LINES} are allowed" for node, length in long]


def docstring_problems(tree: ast.Module, exported: frozenset[str] = frozenset()) -> Problems:
    """No module docstring, an exported name without numpydoc, or a docstring elsewhere of more than two lines."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    problems = [] if ast.get_docstring(tree) else ["1: the module has no docstring"]
    public = [node for node in tree.body if isinstance(node, kinds) and node.name in exported]
    inside = {id(node) for top in public for node in ast.walk(top)}
    for node in ast.walk(tree):
        lines = len((ast.get_docstring(node) or "").splitlines()) if isinstance(node, kinds) else 0
        if id(node) not in inside and lines > DOCSTRING_LINES:
            problems.append(f"{node.lineno}: {node.name}: docstring of {lines} lines; {DOCSTRING_LINES} are allowed")
        elif node in public and lines < 2:
            problems.append(f"{node.lineno}: {node.name} is exported and needs a numpydoc docstring")
    return problems


def full_docstrings(path: Path) -> frozenset[str]:
    """Names in a file whose docstrings are written out: exported names and contracts."""
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    return frozenset(name for name, where in {**neurocanvas._PUBLIC, **CONTRACTS}.items() if where == module)


def found(check: str, path: Path, source: str) -> Problems:
    """Problems of one kind in one source."""
    return CHECKS[check](path, ast.parse(source))


CHECKS = {
    "floors": lambda path, tree: floor_problems(part_of(path), tree),
    "heavy imports": lambda path, tree: heavy_import_problems(part_of(path), tree),
    "constructs": lambda _, tree: construct_problems(tree), "sizes": lambda _, tree: size_problems(tree),
    "docstrings": lambda path, tree: docstring_problems(tree, full_docstrings(path)),
}  # fmt: skip


@pytest.mark.parametrize("check", CHECKS)
def test_sources(check):
    problems = [
        f"{path.relative_to(ROOT)}:{problem}"
        for path in FILES
        for problem in found(check, path, path.read_text(encoding="utf-8"))
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("check", "part", "source"),
    [
        ("floors", "features", "def f():\n    from neurocanvas.training.loop import fit"),
        ("floors", "artifacts", "import neurocanvas.cli"),
        ("floors", "training", "from neurocanvas.generation import conditioning"),
        ("floors", "encoders", "from neurocanvas.report import page"),
        ("floors", "encoders", "from . import base"),
        ("floors", "errors", "from neurocanvas import report"),
        ("heavy imports", "features", "import torch"),
        ("heavy imports", "encoders", "import mne"),
        ("heavy imports", "features", "try:\n    from scipy.signal import welch\nexcept ImportError:\n    pass"),
        ("heavy imports", "features", "if x:\n    pass\nelse:\n    import mne.io"),
        ("constructs", "features", "def f(x):\n    assert x"),
        ("constructs", "features", "from numpy import *"),
        ("constructs", "features", "def f(*, x=[]):\n    pass"),
        ("constructs", "features", "def f(x=dict()):\n    pass"),
        ("constructs", "features", "np.random.seed(0)"),
        ("constructs", "features", "x = np.random.normal(size=3)"),
        ("constructs", "features", "import random\nrandom.shuffle(x)"),
        ("constructs", "features", "torch.manual_seed(0)"),
        ("sizes", "features", "def f():\n" + "    pass\n" * 80),
        ("docstrings", "features", '"""Module."""\ndef f():\n    """One.\n\n    Two.\n\n    Three.\n    """'),
        ("docstrings", "features", "x = 1"),
    ],
)
def test_each_check_can_fail(check, part, source):
    assert found(check, PACKAGE / part / "example.py", source)


def test_lent_random_state_and_type_checking_are_allowed():
    lent = "def f():\n    with torch.random.fork_rng():\n        torch.manual_seed(0)\n        yield"
    assert not construct_problems(ast.parse(lent))
    assert not heavy_import_problems("data", ast.parse("if TYPE_CHECKING:\n    import torch"))


def test_names_say_what_is_inside():
    vague = [str(path.relative_to(ROOT)) for path in FILES if {path.stem, path.parent.name} & VAGUE_NAMES]
    assert not vague


def test_architecture_lists_every_part_in_its_order():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| \S.*\|$", text, re.MULTILINE)
    assert [(name, int(order)) for name, order in rows] == list(FLOORS.items())
    assert set(FLOORS) == {part_of(path) for path in FILES}


def loaded_by(program: str) -> set[str]:
    """Top-level packages that a program loads, the standard library and what Python starts with aside."""
    report = "\nimport sys; print('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    started, ended = (
        subprocess.run([sys.executable, "-c", text + report], capture_output=True, text=True, check=True).stdout
        for text in ("", program)
    )
    return {*ended.splitlines()[-1].split()} - {*started.split()} - set(sys.stdlib_module_names)


def test_importing_the_package_loads_numpy_at_most():
    assert loaded_by("import neurocanvas") <= {"neurocanvas", "numpy"}
    assert "scipy" in loaded_by("import scipy"), "what is loaded is seen"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_loads_no_heavy_package(arguments):
    program = f"import sys\nfrom neurocanvas.cli import main\nsys.argv = ['neurocanvas', *{arguments!r}]\nmain()\n"
    assert not loaded_by(program) & HEAVY
