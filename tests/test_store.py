"""The artifact store: whole files or none, and damage that is noticed."""

from __future__ import annotations

import numpy as np
import pytest

from neurocanvas import store
from neurocanvas.config import SimulateSettings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.torch_files import read_torch


def names(folder):
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), store.atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_an_exception_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), store.atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.npy"
    with store.atomic(path) as temporary:
        assert temporary.suffix == ".npy" and temporary.parent == path.parent
        temporary.write_text("whole")
        assert not path.exists()
    assert names(path.parent) == ["a.npy"]


def test_what_a_killed_run_left_is_written_over(tmp_path):
    with store.atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    (tmp_path / "a.txt").unlink()
    temporary.write_text("a longer text that a killed run left half-written")
    store.write_text(tmp_path / "a.txt", "whole")
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "whole"


def test_the_same_text_is_not_written_again(tmp_path):
    path = tmp_path / "a.txt"
    store.write_text(path, "one\n")
    before = path.stat().st_mtime_ns, path.stat().st_ino
    store.write_text(path, "one\n")
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    store.write_text(path, "two\n")
    assert path.read_bytes() == b"two\n"


def test_done_means_whole_and_made_from_these_inputs(tmp_path):
    path = tmp_path / "a.npy"
    assert not store.is_done(path, "x")
    store.write_array(path, np.arange(5), "x", {"unit": "µV"})
    assert store.is_done(path, "x") and not store.is_done(path, "y")
    assert store.read_card(path)["unit"] == "µV"
    np.testing.assert_array_equal(store.read_array(path, "numbers"), np.arange(5))


def test_without_its_card_an_artifact_is_not_done(tmp_path):
    path = tmp_path / "a.npy"
    store.write_array(path, np.arange(5), "x")
    card = store.card_path(path)
    card.write_text(card.read_text()[:10])
    assert not store.is_done(path, "x")
    card.unlink()
    assert not store.is_done(path, "x")


@pytest.mark.parametrize("place", [0, 70, -1])
def test_one_flipped_byte_is_noticed(tmp_path, place):
    path = tmp_path / "a.npy"
    store.write_array(path, np.arange(50), "x")
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert not store.is_done(path, "x")


def test_a_truncated_array_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    store.write_array(path, np.arange(5000.0), "x")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(NeuroCanvasError, match=r"a\.npy: damaged"):
        store.read_array(path, "numbers")


def test_an_empty_or_absent_array_is_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(NeuroCanvasError, match=r"a\.npy"):
        store.read_array(tmp_path / "a.npy", "numbers")
    with pytest.raises(NeuroCanvasError, match="no such file; it should hold numbers"):
        store.read_array(tmp_path / "b.npy", "numbers")


class Trap:
    """What unpickling would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickled_array_is_refused_and_does_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
    with pytest.raises(NeuroCanvasError, match=r"a\.npy: damaged or not an"):
        store.read_array(tmp_path / "a.npy", "numbers")
    assert not (tmp_path / "sprung").exists()


def test_an_error_of_torch_without_words_is_one_clear_error(tmp_path, monkeypatch):
    import torch

    def fail(*_, **__):
        raise EOFError

    monkeypatch.setattr(torch, "load", fail)
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(NeuroCanvasError, match=r"a\.pth: truncated, or not a PyTorch file \(EOFError\)"):
        read_torch(tmp_path / "a.pth", "numbers")


def test_objects_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        store.write_array(tmp_path / "a.npy", np.array([{}], dtype=object), "x")
    assert names(tmp_path) == []


def test_damaged_json_is_one_clear_error(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(NeuroCanvasError, match=r"a\.json: not valid JSON"):
        store.read_json(tmp_path / "a.json", "something")


def test_fingerprints_tell_inputs_apart():
    array = np.arange(6.0)
    same = [store.fingerprint({"a": 1, "b": 2}, array), store.fingerprint({"b": 2, "a": 1}, array.copy())]
    others = [
        store.fingerprint({"a": 1, "b": 3}, array),
        store.fingerprint({"a": 1, "b": 2}, array.reshape(2, 3)),
        store.fingerprint({"a": 1, "b": 2}, array.astype(np.float32)),
        store.fingerprint({"a": 1, "b": 2}, array[::-1]),
        store.fingerprint({"a": 1}, {"b": 2}, array),
    ]
    assert same[0] == same[1] and len({same[0], *others}) == 6
    assert store.fingerprint("ab", "c") != store.fingerprint("a", "bc")
    assert store.fingerprint(SimulateSettings(seed=1)) != store.fingerprint(SimulateSettings(seed=2))


def test_an_array_that_grows_goes_on_where_it_was_killed(tmp_path):
    path = tmp_path / "a.npy"
    with pytest.raises(ZeroDivisionError), store.growing_array(path, (4, 2), "inputs") as (array, done, note):
        assert done == 0
        array[:3] = 7
        note(2)
        raise ZeroDivisionError
    assert not path.exists()
    with store.growing_array(path, (4, 2), "inputs", {"said": 1}) as (array, done, note):
        assert done == 2 and (array[:2] == 7).all()
        array[2:] = 8
        note(4)
    assert names(tmp_path) == ["a.npy", "a.npy.json"] and store.is_done(path, "inputs")
    assert store.read_array(path, "numbers").tolist() == [[7, 7], [7, 7], [8, 8], [8, 8]]
    assert store.read_card(path)["said"] == 1


def test_an_array_that_grows_begins_anew_with_other_inputs(tmp_path):
    with pytest.raises(ZeroDivisionError), store.growing_array(tmp_path / "a.npy", (4, 2), "old") as (_, _, note):
        note(3)
        raise ZeroDivisionError
    with store.growing_array(tmp_path / "a.npy", (2, 2), "new") as (array, done, _):
        assert done == 0 and array.shape == (2, 2)
        array[:] = 1
    assert names(tmp_path) == ["a.npy", "a.npy.json"]


def test_an_array_that_grows_never_takes_another_ones_progress_for_its_own(tmp_path):
    """A is killed half-way, B before its first note, and A begins again."""
    for inputs, noted in (("A", 2), ("B", 0)):
        growing = store.growing_array(tmp_path / "a.npy", (4,), inputs)
        with pytest.raises(ZeroDivisionError), growing as (array, _, note):
            array[:] = 9
            if noted:
                note(noted)
            raise ZeroDivisionError
    with store.growing_array(tmp_path / "a.npy", (4,), "A") as (array, done, _):
        assert done == 0
        array[:] = 1


@pytest.mark.parametrize("damage", ["cut", "state", "shape"])
def test_a_damaged_beginning_is_begun_anew(tmp_path, damage):
    with pytest.raises(ZeroDivisionError), store.growing_array(tmp_path / "a.npy", (4,), "A") as (_, _, note):
        note(2)
        raise ZeroDivisionError
    growing = tmp_path / ".growing-a.npy"
    if damage == "cut":
        growing.write_bytes(growing.read_bytes()[:20])
    elif damage == "state":
        store.card_path(growing).write_text("[]")
    else:
        np.save(growing.open("wb"), np.zeros(9, np.float16))
    with store.growing_array(tmp_path / "a.npy", (4,), "A") as (array, done, _):
        assert done == 0 and array.shape == (4,)
        array[:] = 1
    assert names(tmp_path) == ["a.npy", "a.npy.json"]


def test_an_array_that_is_done_leaves_nothing_behind_though_it_is_killed_at_its_card(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store, "finish", lambda *_: (_ for _ in ()).throw(ZeroDivisionError))
        growing = store.growing_array(tmp_path / "a.npy", (4,), "A")
        with pytest.raises(ZeroDivisionError), growing as (array, _, note):
            array[:] = 1
            note(4)
    assert names(tmp_path) == ["a.npy"]
