"""What fuzzing kept: inputs that reach every part of the readers, and inputs that once broke one (tools/fuzz.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_targets import TARGETS, attempt, here

FOLDERS = [Path(__file__).parent / kind for kind in ("corpus", "regressions")]


def kept(name: str) -> list[Path]:
    """Files that are kept of a target."""
    return sorted(path for folder in FOLDERS for path in (folder / name).glob("*"))


@pytest.mark.parametrize("name", here())
def test_a_reader_takes_or_refuses_what_fuzzing_kept(name, tmp_path):
    for path in kept(name):
        attempt(name, path.read_bytes(), tmp_path)


def test_every_folder_belongs_to_a_target_and_is_small():
    for folder in FOLDERS:
        assert {path.name for path in folder.glob("*")} <= set(TARGETS)
    for name in TARGETS:
        files = list((FOLDERS[0] / name).glob("*"))
        assert len(files) <= 30 and all(path.stat().st_size <= 4096 for path in files)
