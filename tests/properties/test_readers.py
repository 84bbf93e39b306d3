"""Whatever bytes a file holds, its reader keeps its promise or says in one line which file is wrong."""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import pytest
from fuzz_targets import TARGETS, Violation, attempt, here
from hypothesis import given
from hypothesis import strategies as st

from neurocanvas.errors import NeuroCanvasError

MEMORY, SECONDS = 2 << 30, 20
"""What reading one small file may take: bytes beyond what the process has, and s."""

HOSTILE = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"NaN", b"-1", b"1e999", b"99999999999999999999", b"\n", b"\r", b",",
    b"\t", b'"', b"{", b"[" * 2000, b"null", b"true", b"../../x", b"/etc/passwd", b"=1+1", "é\u2028\U0001f600".encode(),
    b"\xed\xa0\x80", b"\x1b[2J", b"a" * 300,
)  # fmt: skip
"""Written over or into a valid file."""


class Hang(BaseException):
    """A reader took too long; no reader catches this."""


@contextmanager
def limits() -> Iterator[None]:
    """Refuse gigabytes of memory, and end what hangs."""

    def end(*_: object) -> None:
        raise Hang(f"took longer than {SECONDS} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, end)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)  # again and again, because a destructor swallows what is raised
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


@lru_cache
def valid(name: str) -> tuple[bytes, ...]:
    """Valid files of a target."""
    return tuple(TARGETS[name][1]())


def damage(data: st.DataObject, content: bytes) -> bytes:
    """Damage a valid file in one of the ways in which files are damaged, or are made to do damage."""
    place = st.integers(0, len(content))
    how = data.draw(st.sampled_from(["cut", "flip", "swap", "insert", "over", "repeat"]))
    first, last = sorted((data.draw(place), data.draw(place)))
    if how == "cut":
        return content[:first]
    if how == "flip":
        bits = data.draw(st.integers(1, 255))
        return content[:first] + bytes(byte ^ bits for byte in content[first : first + 1]) + content[first + 1 :]
    if how == "swap":
        return b"\n".join(data.draw(st.permutations(content.split(b"\n"))))
    if how == "repeat":
        return content[:last] + content[first:last] * data.draw(st.integers(1, 50)) + content[last:]
    hostile = data.draw(st.sampled_from(HOSTILE) | st.binary(max_size=8))
    return content[:first] + hostile + content[first if how == "insert" else first + len(hostile) :]


@pytest.mark.parametrize("name", here())
def test_a_valid_file_is_taken(name, tmp_path):
    """Else the tests below would show nothing."""
    assert any(attempt(name, content, tmp_path) for content in valid(name))


@pytest.mark.parametrize("name", here())
@given(data=st.data())
def test_any_damaged_file_is_taken_or_refused_in_one_line(name, tmp_path_factory, data):
    content = damage(data, data.draw(st.sampled_from(valid(name))))
    if data.draw(st.booleans()):
        content = damage(data, content)
    with limits():
        attempt(name, content, folder_of(name, tmp_path_factory))


@pytest.mark.parametrize("name", here())
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_taken_or_refused_in_one_line(name, tmp_path_factory, content):
    with limits():
        attempt(name, content, folder_of(name, tmp_path_factory))


FOLDERS: dict[str, Path] = {}


def folder_of(name: str, factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a target, because what is made beside a file takes longer than reading it."""
    if name not in FOLDERS:
        FOLDERS[name] = factory.mktemp(name)
    return FOLDERS[name]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("any"), ValueError),
        (MemoryError(), MemoryError),
        (NeuroCanvasError("no file is named"), Violation),
        (Violation("not what it promises"), Violation),
    ],
)
def test_what_a_reader_may_not_do_is_found(raised, expected, tmp_path, monkeypatch):
    def read(folder: Path, content: bytes) -> None:
        raise raised

    monkeypatch.setitem(TARGETS, "captions", (read, lambda: [b""]))
    with pytest.raises(expected):
        attempt("captions", b"", tmp_path)


def test_a_hang_is_ended_whatever_a_reader_catches(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SECONDS", 0.1)
    with pytest.raises(Hang), limits():
        while True:
            with suppress(Exception):
                time.sleep(0.01)


def test_gigabytes_are_refused():
    with pytest.raises(MemoryError), limits():
        bytearray(3 << 30)
