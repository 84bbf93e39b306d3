"""Artifacts: whole files or none, the sidecar, and the lock of a run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import Trap

from neurocanvas import artifacts
from neurocanvas.artifacts import read_torch
from neurocanvas.config import SimulateSettings
from neurocanvas.errors import NeuroCanvasError


def names(folder):
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("old", [False, True])
def test_an_exception_leaves_what_was_there(tmp_path, old):
    if old:
        (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), artifacts.atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert names(tmp_path) == ["a.txt"] * old and (not old or (tmp_path / "a.txt").read_text() == "old")


def test_a_file_appears_when_it_is_whole_and_two_that_write_at_once_do_not_mix(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with artifacts.atomic_write(path) as first, first.open("w") as slow:
        slow.write("fir")
        with artifacts.atomic_write(path) as second:
            assert second != first and second.suffix == first.suffix == ".txt" and second.parent == path.parent
            second.write_text("second")
            assert not path.exists()
        assert path.read_text() == "second"
        slow.write("st")
    assert names(path.parent) == ["a.txt"] and path.read_text() == "first"


def test_the_same_text_is_not_written_again(tmp_path):
    path = tmp_path / "a.txt"
    artifacts.write_text(path, "one\n")
    before = path.stat().st_mtime_ns, path.stat().st_ino
    artifacts.write_text(path, "one\n")
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    artifacts.write_text(path, "two\n")
    assert path.read_bytes() == b"two\n"


def test_done_means_whole_and_made_from_these_inputs(tmp_path):
    path = tmp_path / "a.npy"
    assert not artifacts.is_cached(path, "x")
    artifacts.write_array(path, np.arange(5), "x", {"unit": "µV"})
    assert artifacts.is_cached(path, "x") and not artifacts.is_cached(path, "y")
    assert artifacts.read_sidecar(path)["unit"] == "µV"
    np.testing.assert_array_equal(artifacts.read_array(path, "numbers"), np.arange(5))


def test_what_is_not_finished_is_not_done(tmp_path):
    path = tmp_path / "a.npy"
    artifacts.write_array(path, np.arange(5), "x")
    whole = path.read_bytes()
    artifacts.write_json(artifacts.sidecar_path(path), {"simulated": {}})
    assert not artifacts.is_cached(path, "x")
    artifacts.sidecar_path(path).unlink()
    assert not artifacts.is_cached(path, "x")
    artifacts.write_array(path, np.arange(5), "other")
    assert path.read_bytes() == whole and not artifacts.is_cached(path, "x")
    path.unlink()
    assert not artifacts.is_cached(path, "other")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"fingerprint": "x"}', b"\xff", None])
def test_a_damaged_sidecar_and_an_artifact_of_another_size_mean_not_done(tmp_path, content):
    path = tmp_path / "a.npy"
    artifacts.write_array(path, np.arange(5), "x")
    if content is None:
        path.write_bytes(path.read_bytes()[:-1])
    else:
        artifacts.sidecar_path(path).write_bytes(content)
    assert not artifacts.is_cached(path, "x")


def test_verify_names_what_is_damaged_or_missing(tmp_path):
    for name in "abc":
        artifacts.write_array(tmp_path / "part" / f"{name}.npy", np.arange(5), "x")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(b"picture")
    pictures = {"0.png": {"sha256": artifacts.sha256(tmp_path / "images" / "0.png"), "size": 7}}
    artifacts.write_json(tmp_path / "images" / "shard_00000.json", {"fingerprint": "x", "pictures": pictures})
    assert artifacts.verify(tmp_path) == (4, [])
    damaged = bytearray((tmp_path / "part" / "a.npy").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "part" / "a.npy").write_bytes(damaged)
    (tmp_path / "part" / "b.npy").unlink()
    (tmp_path / "images" / "0.png").write_bytes(b"Picture")
    artifacts.sidecar_path(tmp_path / "part" / "c.npy").write_text("{")
    count, found = artifacts.verify(tmp_path)
    assert count == 3 and {path.name for path in found} == {"a.npy", "b.npy", "0.png", "c.npy.json"}


@pytest.mark.parametrize(
    "pictures", ["{}", '{"a.png": 3}', '{"a.png": {}}', '{"../a.png": {"sha256": "x"}}', "[" * 10**5]
)
def test_verify_names_a_foreign_sidecar_and_passes_over_partial_files(tmp_path, pictures):
    (tmp_path / "shard_00000.json").write_text(f'{{"pictures": {pictures}}}')
    (tmp_path / f"{artifacts.PART}ab-x.npy.json").write_text('{"sha256": "x"}')
    assert artifacts.verify(tmp_path) == (0, [] if pictures == "{}" else [tmp_path / "shard_00000.json"])


def test_the_sidecar_of_an_earlier_artifact_does_not_vouch_for_a_new_one(tmp_path, monkeypatch):
    """The disk is full when the new sidecar is written."""
    path = tmp_path / "a.npy"
    artifacts.write_array(path, np.arange(5), "old")
    with monkeypatch.context() as patch:
        full = OSError(28, "No space left on device")
        patch.setattr(artifacts, "write_sidecar", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(OSError, match="No space left"):
            artifacts.write_array(path, np.arange(5) + 1, "new")
    assert not artifacts.is_cached(path, "old")


def test_a_small_file_that_cannot_be_read_is_written_anew(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("whole")
    before = path.stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        artifacts.write_text(path, "whole")
    assert path.read_text() == "whole" and path.stat().st_ino != before


def test_truncated_empty_absent_and_pickled_arrays_are_refused(tmp_path):
    artifacts.write_array(tmp_path / "short.npy", np.arange(5000.0), "x")
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-100])
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "code.npy", np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
    for name, says in {"short": "damaged", "empty": "", "none": "no such file; it should hold numbers",
                       "code": "damaged or not an"}.items():  # fmt: skip
        with pytest.raises(NeuroCanvasError, match=rf"{name}\.npy: {says}"):
            artifacts.read_array(tmp_path / f"{name}.npy", "numbers")
    assert not (tmp_path / "sprung").exists()


def test_an_error_of_torch_without_words_is_one_clear_error(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise EOFError

    torch.save({}, tmp_path / "a.pth")
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(NeuroCanvasError, match=r"a\.pth: truncated, or not a PyTorch file \(EOFError\)"):
        read_torch(tmp_path / "a.pth", "numbers")


def test_objects_are_not_written_and_damaged_json_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        artifacts.write_array(tmp_path / "a.npy", np.array([{}], dtype=object), "x")
    assert names(tmp_path) == []
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(NeuroCanvasError, match=r"a\.json: not valid JSON"):
        artifacts.read_json(tmp_path / "a.json", "something")


@pytest.mark.parametrize(
    "array", [np.array(3.0), np.zeros((0, 3)), np.zeros((3, 0)), np.arange(20.0).reshape(4, 5).T, np.array(["a", "é"])]
)
def test_arrays_of_any_shape_have_a_fingerprint(array):
    assert artifacts.fingerprint(array) == artifacts.fingerprint(array.copy()) != artifacts.fingerprint(np.arange(3))


def test_fingerprints_tell_inputs_apart():
    array = np.arange(6.0)
    same = [artifacts.fingerprint({"a": 1, "b": 2}, array), artifacts.fingerprint({"b": 2, "a": 1}, array.copy())]
    others = [
        artifacts.fingerprint({"a": 1, "b": 3}, array),
        artifacts.fingerprint({"a": 1, "b": 2}, array.reshape(2, 3)),
        artifacts.fingerprint({"a": 1, "b": 2}, array.astype(np.float32)),
        artifacts.fingerprint({"a": 1, "b": 2}, array[::-1]),
        artifacts.fingerprint({"a": 1}, {"b": 2}, array),
    ]
    assert same[0] == same[1] and len({same[0], *others}) == 6
    assert artifacts.fingerprint("ab", "c") != artifacts.fingerprint("a", "bc")
    assert artifacts.fingerprint(SimulateSettings(seed=1)) != artifacts.fingerprint(SimulateSettings(seed=2))


def test_the_shared_cache_makes_each_entry_once_and_a_damaged_one_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("NEUROCANVAS_CACHE", str(tmp_path))
    made = []

    def make(places):
        made.append(places)
        yield from (np.array(f"caption {place}") for place in places)

    first = list(map(str, artifacts.cached("captions", ["aa", "bb", "aa"], make)))
    assert first == ["caption 0", "caption 1", "caption 0"]
    assert list(map(str, artifacts.cached("captions", ["bb", "cc"], make))) == ["caption 1", "caption 1"]
    assert made == [[0, 1], [1]]
    [entry] = [path for path in artifacts.cache_files()["captions"] if path.stem == "cc"]
    entry.write_bytes(b"\x93NUMPY")
    with pytest.raises(NeuroCanvasError, match=r"cc.npy: damaged or .*; delete it and run again"):
        list(artifacts.cached("captions", ["cc"], make))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
def test_a_cache_that_cannot_be_written_says_so_in_one_line(monkeypatch, tmp_path, error):
    monkeypatch.setenv("NEUROCANVAS_CACHE", str(tmp_path))
    monkeypatch.setattr(np, "save", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(
        NeuroCanvasError, match=f"{tmp_path}: the shared cache cannot be written .{error.strerror}"
    ) as said:
        list(artifacts.cached("features", ["aa"], lambda places: [np.zeros(3)]))
    assert "neurocanvas cache --prune" in str(said.value) and "NEUROCANVAS_CACHE" in str(said.value)
    assert not [*tmp_path.rglob("*.npy")]
