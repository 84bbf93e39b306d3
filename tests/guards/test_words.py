"""What the tracked files may not say, and that the commands in the documents exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer.main

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])

# Put together here, so that this file does not hold what it looks for.
MACHINE_FOLDERS = ("wor" + "k", "hom" + "e", "roo" + "t", "User" + "s", "mn" + "t", "tm" + "p")
INDEX_HOSTS = ("pypi." + "org", "pythonhosted." + "org", "download.pytorch." + "org", "/simp" + "le/")
FORBIDDEN = {
    "machine path": re.compile(r"(?<![\w.~*>)}\]])/(?:" + "|".join(MACHINE_FOLDERS) + r")/"),
    "package index": re.compile("|".join(map(re.escape, INDEX_HOSTS))),
}


def tracked_files() -> list[Path]:
    """Files that git tracks or would track, in a checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


def found_in(text: str) -> list[str]:
    """What a text says that it may not, by line."""
    return [
        f"{number}: {what}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in FORBIDDEN.items()
        if pattern.search(line)
    ]


def test_no_file_names_a_machine_or_a_package_index():
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8", errors="replace") for path in tracked_files()}
    found = [f"{path}:{line}" for path, text in texts.items() for line in found_in(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line", ["cd /" + "home/ann/eeg", '"/' + 'tmp/x"', "pip install -i https://pypi." + "org/simp" + "le x"]
)
def test_the_search_finds_what_it_should(line):
    assert found_in(line)
    assert not found_in("see docs/" + "home/index.html, and root / 'x'")


def commands(document: str) -> list[list[str]]:
    """Commands of a document: lines of its ```sh blocks that call neurocanvas or make."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    split = [shlex.split(line.strip().removeprefix("$ "), comments=True) for line in lines]
    return [words for words in split if words and Path(words[0]).name in ("neurocanvas", "make")]


def make_targets() -> set[str]:
    """Targets of the Makefile."""
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def check_command(words: list[str]) -> None:
    """Raise if the command line does not parse, a target is unknown, or a named settings file is missing."""
    program, *rest = words
    if program == "make":
        unknown = [word for word in rest if "=" not in word and word not in make_targets()]
        if unknown:
            raise ValueError(f"make has no target {unknown}")
        return
    from neurocanvas.cli import app

    group = typer.main.get_command(app)
    if rest and rest[0] in group.commands:  # type: ignore[attr-defined]
        command = group.commands[rest[0]]  # type: ignore[attr-defined]
        if "--help" not in rest:
            command.make_context(rest[0], rest[1:])
    elif rest not in (["--help"], ["--version"]):
        raise ValueError(f"neurocanvas has no verb {rest[:1]}")
    missing = [word for word in rest if word.startswith("configs/") and not (ROOT / word).is_file()]
    if missing:
        raise ValueError(f"no such file: {missing}")


DOCUMENTED = [(document, words) for document in DOCUMENTS for words in commands(document)]


@pytest.mark.parametrize(("document", "words"), DOCUMENTED, ids=lambda value: str(value)[:60])
def test_documented_commands_exist(document, words):
    check_command(words)


def test_the_readme_documents_both_commands():
    assert ("README.md", ["make", "demo"]) in DOCUMENTED and ("README.md", ["make", "test"]) in DOCUMENTED


def test_tests_and_files_that_documents_cite_exist():
    missing = []
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for name, test in re.findall(r"`((?:tests|src|tools|configs)/[\w/.-]+)(?:::(\w+))?`", text):
            path = ROOT / name
            if not path.exists() or (test and f"def {test}(" not in path.read_text(encoding="utf-8")):
                missing.append(f"{document}: {name}::{test}")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize(
    "line", ["make no-such-target", "neurocanvas no-such-verb", "neurocanvas features -o out --no-such-flag 3",
             "neurocanvas features", "neurocanvas run -c configs/none.toml -o out"],
)  # fmt: skip
def test_a_command_that_does_not_exist_is_found(line):
    with pytest.raises(Exception, match=r"no |No |Missing|missing"):
        check_command(shlex.split(line))


def test_every_citation_is_in_the_list_of_references():
    text = (ROOT / "docs" / "references.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^- \*\*\[(\w+)\]", text, re.MULTILINE))
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
    cited = {name for text in sources for name in re.findall(r"\[([A-Za-z]+\d{4})\]", text)}
    assert cited and cited <= listed
