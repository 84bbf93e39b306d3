"""Damaged and foreign files: every reader takes what it gets, or refuses it in one line that names the file."""

from __future__ import annotations

import os
import pickle
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from foreign_files import IMAGE, READERS, attempt, npy, pickle_of, released, repacked, torch_file
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tiny import Trap

MEMORY = 2 << 30  # what reading one small file may take beyond what the process has
PAGE = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"
HOSTILE = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"NaN", b"-1", b"1e999", b"99999999999999999999", b"\n", b"\r", b",",
    b"\t", b'"', b"{", b"[" * 2000, b"null", b"../../x", b"/etc/passwd", b"=1+1", "é\u2028\U0001f600".encode(),
    b"\xed\xa0\x80", b"\x1b[2J", b"a" * 300,
)  # fmt: skip


@contextmanager
def little_memory() -> Iterator[None]:
    """Refuse gigabytes, so that a file that claims to be huge is an error and not the end of the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@lru_cache
def valid(name: str) -> tuple[bytes, ...]:
    return tuple(READERS[name][1]())


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One folder per reader, because what has to lie beside the file takes longer to make than the file to read."""
    return {name: tmp_path_factory.mktemp("files") for name in READERS}


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_taken_and_foreign_and_truncated_ones_end_in_one_line(name, folders):
    for content in valid(name):
        assert attempt(name, content, folders[name])
    foreign = [PAGE, b"", b"\0" * 4096, *(other for kind in READERS if kind != name for other in valid(kind)[:1])]
    content = valid(name)[0]
    cut = [content[: int(len(content) * share)] for share in (0.1, 0.5, 0.9)]
    zeroed = content[: len(content) // 2] + bytes(len(content) - len(content) // 2)  # as after a full disk
    with little_memory():
        for damaged in (*foreign, *cut, content[:-1], zeroed):
            attempt(name, damaged, folders[name])


def damage(data: st.DataObject, content: bytes) -> bytes:
    """Damage a valid file in one of the ways in which files are damaged, or are made to do damage."""
    how = data.draw(st.sampled_from(["cut", "flip", "swap", "insert", "over", "repeat"]))
    first, last = sorted(data.draw(st.integers(0, len(content))) for _ in range(2))
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


@pytest.mark.parametrize("name", READERS)
@settings(
    deadline=None, derandomize=True, database=None, max_examples=int(os.environ.get("NEUROCANVAS_EXAMPLES", "25")),
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate, Phase.shrink],
)  # fmt: skip
@given(data=st.data())
def test_any_damaged_file_is_taken_or_refused_in_one_line(name, folders, data):
    content = damage(data, data.draw(st.sampled_from(valid(name))))
    if data.draw(st.booleans()):
        content = damage(data, content)
    with little_memory():
        attempt(name, content, folders[name])


@pytest.mark.parametrize("name", ["features", "eeg-imagenet", "embeddings", "mapper", "network"])
@pytest.mark.parametrize("how", ["alone", "in a dictionary", "in a PyTorch file", "in an array"])
def test_pickles_that_run_code_are_refused_and_do_not_run(name, how, tmp_path):
    trap = Trap(tmp_path / "sprung")
    content = {
        "alone": lambda: pickle.dumps(trap), "in a dictionary": lambda: pickle.dumps({"dataset": [trap], "labels": []}),
        "in a PyTorch file": lambda: torch_file({"dataset": [trap], "labels": []}),
        "in an array": lambda: npy(np.zeros(1))[:128].replace(b"'<f8'", b"'|O' ") + pickle.dumps(trap),
    }[how]()  # fmt: skip
    assert not attempt(name, content, tmp_path / "files")
    assert not (tmp_path / "sprung").exists()


def header(shape: str, kind: str = "'<f4'") -> bytes:
    """An .npy that claims a shape, and 80 bytes of content."""
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(80)


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0) + bytes(40)


CLAIMS = {
    "trials": ("features", header("(1000000000000, 10)")),
    "overflow": ("features", header("(4294967296, 4294967296)")),
    "negative": ("features", header("(-1,)")),
    "objects": ("features", header("(1,)", "'|O'")),
    "code": ("features", header("__import__('os').system('touch x')")),
    "deep": ("features", header("(" * 5000 + ")" * 5000)),
    "header": ("features", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{"),
    "safetensors": ("checkpoint", struct.pack("<Q", 2**62) + b"{}"),
    "pixels": ("stimulus", png(60_000, 60_000)),
    "rate": ("edf", READERS["edf"][1]()[0].replace(b"64      ", b"9999999 ")),
    "channels": ("edf", READERS["edf"][1]()[0].replace(b"1       3   ", b"1       9999")),
    "no sample": ("muse", b"timestamps,TP9,Marker0\n0,1,0\n100000,2,1\n200000,1,0\n"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_absurd_claims_are_refused_without_taking_the_memory(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with little_memory():
        assert not attempt(*CLAIMS[name], tmp_path / "files")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["../../x.JPEG", "..", "/etc/x", "a\0.JPEG", "a\n.JPEG", "<img src=x>", "a" * 300])
def test_names_of_pictures_in_a_data_file_do_not_leave_its_folder(name, tmp_path):
    changed = pickle_of(released()).replace(
        b"X\x10\x00\x00\x00n02106662_1.JPEG", b"X" + struct.pack("<I", len(name)) + name.encode()
    )
    assert changed != pickle_of(released()) and len(IMAGE) == 16
    taken = attempt("eeg-imagenet", repacked(released(), changed), tmp_path)
    assert taken == (name == "<img src=x>")  # a name like any other; the report escapes it
