"""A run at a URL: the bytes of one in a folder, whole files only, resumed from another machine's copy."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing

import pytest
from tiny import artifacts, tiny_settings, write_true_captions

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.remote import Copy, copy_of
from neurocanvas.scale import Local
from neurocanvas.stages import STAGES, run_stage
from neurocanvas.stages.run import Run


@pytest.fixture
def there(tmp_path):
    """A folder that is only reached by its URL."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def copies(there, tmp_path, count=2):
    """Copies as processes on different machines have them."""
    made = [Copy(f"file://{there}", tmp_path / f"copy{number}") for number in range(count)]
    for copy in made:
        copy.folder.mkdir()
    return made


def test_what_one_copy_makes_changes_and_removes_the_other_gets(there, tmp_path):
    ours, theirs = copies(there, tmp_path)
    (ours.folder / "models").mkdir()
    (ours.folder / "models" / "a").write_text("one")
    (ours.folder / ".lock").write_text("not an artifact")
    ours.push()
    theirs.pull()
    assert artifacts(theirs.folder) == {"models/a": b"one"}
    (theirs.folder / "models" / "a").write_text("two!")
    (theirs.folder / "b").write_text("b")
    theirs.push()
    ours.pull()
    assert (ours.folder / "models" / "a").read_text() == "two!" and (ours.folder / "b").read_text() == "b"
    (ours.folder / "b").unlink()
    ours.push()
    theirs.pull()
    assert not (theirs.folder / "b").exists()
    assert sorted(path.name for path in there.rglob("*") if path.is_file()) == ["a"]


def test_pictures_are_fetched_where_they_are_asked_for(there, tmp_path):
    ours, _ = copies(there, tmp_path)
    for name in ("images/s0/eeg/1.png", "images/s1/eeg/1.png", "scores/a.csv"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(name)
    ours.pull()
    assert set(artifacts(ours.folder)) == {"scores/a.csv"}
    ours.pull(["images/s0/eeg"])
    assert set(artifacts(ours.folder)) == {"scores/a.csv", "images/s0/eeg/1.png"}


def test_a_card_comes_after_what_it_is_of(there, tmp_path, monkeypatch):
    ours, _ = copies(there, tmp_path)
    for name in ("a.npy", "a.npy.json", "b.npy", "b.npy.json"):
        (ours.folder / name).write_text(name)
    put = []
    done = Copy._do

    def watch(self, what, *given, **how):
        put.append(given[1]) if what == "mv" else None
        return done(self, what, *given, **how)

    monkeypatch.setattr(Copy, "_do", watch)
    ours.push()
    assert [os.path.basename(name) for name in put] == ["a.npy", "b.npy", "a.npy.json", "b.npy.json"]


def test_a_url_that_cannot_be_opened_is_one_line(tmp_path):
    for url in ("nonsense://bucket/run", f"file://{tmp_path}/a-file/run"):
        (tmp_path / "a-file").touch()
        with pytest.raises(NeuroCanvasError, match=r"URL that fsspec can open|failed \("):
            copy = Copy(url, tmp_path)
            copy.pull()
            copy.push()


def test_names_that_leave_the_folder_are_refused(there, tmp_path, monkeypatch):
    (copy,) = copies(there, tmp_path, 1)
    monkeypatch.setattr(Copy, "_do", lambda self, *_, **__: {f"{self._root}/../outside": {"size": 1}})
    with pytest.raises(NeuroCanvasError, match="leaves the run folder"):
        copy.pull()


def test_a_run_at_a_url_by_workers_with_copies_of_their_own(there, tiny_run):
    """Each of two processes has its own copy; a second command starts from an empty one and makes nothing again."""
    url = f"file://{there}"
    copy_of.cache_clear()
    with closing(Local(workers=2)) as engine:
        run = Run(copy_of(url).folder, tiny_settings(), engine=engine, url=url)
        run_stage(run, "simulate")
        write_true_captions(run)
        copy_of(url).push()
        for stage in STAGES:
            run_stage(run, stage)
    shutil.rmtree(run.folder)
    ours, theirs = artifacts(there), artifacts(tiny_run)
    assert ours.keys() == theirs.keys() and [name for name in ours if ours[name] != theirs[name]] == []
    copy_of.cache_clear()
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*.npy")}
    again = Run(copy_of(url).folder, tiny_settings(), url=url)
    run_stage(again, "train")
    run_stage(again, "predict")
    assert {path: path.stat().st_mtime_ns for path in there.rglob("*.npy")} == before
    assert json.loads((there / "log.jsonl").read_text().splitlines()[-1])["stage"] == "predict"


def test_what_workers_made_of_two_subjects_is_found_in_the_commands_copy(there):
    url, two = f"file://{there}", {"simulate": {"subjects": 2}, "classify": {"models": ["ridge"]}}
    copy_of.cache_clear()
    with closing(Local(workers=2)) as engine:
        run = Run(copy_of(url).folder, tiny_settings(**two, benchmark={"permutations": 19}), engine=engine, url=url)
        run_stage(run, "simulate")
        assert run_stage(run, "features") == [run.folder / "features" / f"s{subject}_de.npy" for subject in (0, 1)]
        run_stage(run, "benchmark")
    assert len(list(there.glob("classification/*/all/ridge_s*.npy"))) == 2
    assert [json.loads(line)["stage"] for line in (there / "log.jsonl").read_text().splitlines()] == [
        "simulate", "features", "benchmark",
    ]  # fmt: skip
