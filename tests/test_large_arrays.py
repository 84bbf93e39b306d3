"""Arrays that are written part by part: killed, damaged, begun again."""

import os

import numpy as np
import pytest

from neurocanvas import store
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.large_arrays import growing_array, write_in_parts

PIECES = [[0], [1], [2], [3]]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_array_that_grows_goes_on_where_it_was_killed(tmp_path):
    path = tmp_path / "a.npy"
    with pytest.raises(ZeroDivisionError), growing_array(path, (4, 2), "inputs", PIECES) as (array, done, note):
        assert done == 0
        array[:3] = 7
        note(2)
        raise ZeroDivisionError
    assert not path.exists()
    with growing_array(path, (4, 2), "inputs", PIECES, {"said": 1}) as (array, done, note):
        assert done == 2 and (array[:2] == 7).all()
        array[2:] = 8
        note(4)
    assert names(tmp_path) == ["a.npy", "a.npy.json"] and store.is_done(path, "inputs")
    assert store.read_array(path, "numbers").tolist() == [[7, 7], [7, 7], [8, 8], [8, 8]]
    assert store.read_card(path)["said"] == 1


def test_an_array_that_grows_begins_anew_with_other_inputs(tmp_path):
    with pytest.raises(ZeroDivisionError), growing_array(tmp_path / "a.npy", (4, 2), "old", PIECES) as (_, _, note):
        note(3)
        raise ZeroDivisionError
    with growing_array(tmp_path / "a.npy", (2, 2), "new", PIECES) as (array, done, _):
        assert done == 0 and array.shape == (2, 2)
        array[:] = 1
    assert names(tmp_path) == ["a.npy", "a.npy.json"]


def test_an_array_that_grows_never_takes_another_ones_progress_for_its_own(tmp_path):
    """A is killed half-way, B before its first note, and A begins again."""
    for inputs, noted in (("A", 2), ("B", 0)):
        growing = growing_array(tmp_path / "a.npy", (4,), inputs, PIECES)
        with pytest.raises(ZeroDivisionError), growing as (array, _, note):
            array[:] = 9
            if noted:
                note(noted)
            raise ZeroDivisionError
    with growing_array(tmp_path / "a.npy", (4,), "A", PIECES) as (array, done, _):
        assert done == 0
        array[:] = 1


@pytest.mark.parametrize("damage", ["cut", "state", "done", "shape", "row"])
def test_a_damaged_beginning_is_begun_anew(tmp_path, damage):
    with pytest.raises(ZeroDivisionError), growing_array(tmp_path / "a.npy", (4,), "A", PIECES) as (_, _, note):
        note(2)
        raise ZeroDivisionError
    growing = tmp_path / ".growing-a.npy"
    if damage == "cut":
        growing.write_bytes(growing.read_bytes()[:20])
    elif damage == "state":
        store.card_path(growing).write_text("[]")
    elif damage == "done":
        state = store.card_path(growing)
        state.write_text(state.read_text().replace('"done": 2', '"done": 3'))
    elif damage == "shape":
        np.save(growing.open("wb"), np.zeros(9, np.float16))
    else:
        content = bytearray(growing.read_bytes())
        content[-5] ^= 1  # in the second row
        growing.write_bytes(content)
    with growing_array(tmp_path / "a.npy", (4,), "A", PIECES) as (array, done, _):
        assert done == 0 and array.shape == (4,)
        array[:] = 1
    assert names(tmp_path) == ["a.npy", "a.npy.json"]


def test_an_array_that_is_done_leaves_nothing_behind_though_it_is_killed_at_its_card(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store, "finish", lambda *_, **__: (_ for _ in ()).throw(ZeroDivisionError))
        growing = growing_array(tmp_path / "a.npy", (4,), "A", PIECES)
        with pytest.raises(ZeroDivisionError), growing as (array, _, note):
            array[:] = 1
            note(4)
    assert names(tmp_path) == ["a.npy"]


def test_a_row_that_is_damaged_before_the_end_is_noticed_and_written_again(tmp_path):
    growing = growing_array(tmp_path / "a.npy", (4,), "A", PIECES)
    with pytest.raises(NeuroCanvasError, match=r"growing-a\.npy: changed on the disk"), growing as (array, _, note):
        array[:] = 1
        note(4)
        array[1] = 2
    assert not (tmp_path / "a.npy").exists()
    with growing_array(tmp_path / "a.npy", (4,), "A", PIECES) as (array, done, note):
        assert done == 0
        array[:] = 1
        note(4)
    assert np.load(tmp_path / "a.npy").tolist() == [1, 1, 1, 1]


def test_a_card_says_what_was_written_and_not_what_lies_there_by_then(tmp_path, monkeypatch):
    replace = os.replace

    def damaged(source, target):
        replace(source, target)
        if target.suffix == ".npy":
            target.write_bytes(b"x" * target.stat().st_size)

    monkeypatch.setattr(os, "replace", damaged)
    store.write_array(tmp_path / "a.npy", np.arange(3), "A")
    write_in_parts(tmp_path / "b.npy", (3,), np.int64, [np.arange(3)], "A")
    assert not store.is_done(tmp_path / "a.npy", "A") and not store.is_done(tmp_path / "b.npy", "A")
    assert store.read_card(tmp_path / "a.npy")["sha256"] == store.read_card(tmp_path / "b.npy")["sha256"]
