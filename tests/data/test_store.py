"""The converted store: equal to the released files, opened without reading signal, never half-written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from neurocanvas.config import DataSettings, SimulateSettings
from neurocanvas.data import open_trials
from neurocanvas.data import store as converted
from neurocanvas.data.store import ARRAY, TABLE, convert
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.simulation.dataset import simulate

MEBIBYTE = 2**20
ROOT = Path(__file__).parents[2]


def settings_for(folder, **others) -> DataSettings:
    """Settings that name a folder."""
    return DataSettings(root=str(folder), **others)


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """A block design of two subjects and two stages; subjects alternate in the file. Only for reading."""
    root = tmp_path_factory.mktemp("released")
    sizes = {"subjects": 2, "concepts": 3, "trials_per_concept": 4, "stages": 2}
    path = simulate(SimulateSettings(design="block", explained_variance=0.0, **sizes), root)
    content = torch.load(path, weights_only=True)
    content["dataset"] = [record for pair in zip(content["dataset"][:12], content["dataset"][12:]) for record in pair]
    torch.save(content, path)
    return root


@pytest.fixture
def store(released, tmp_path) -> Path:
    """The folder of a fresh store of `released`."""
    return convert(settings_for(released), tmp_path / "store").parent


def test_a_store_is_the_released_files_sorted_by_subject(released, store):
    there = open_trials(settings_for(store, pictures=str(released)))
    before = open_trials(settings_for(released))
    rows = np.argsort(before.column("subject"), kind="stable")
    assert rows.tolist() != sorted(rows)
    for name in before.metadata:
        assert there.column(name).dtype.kind == before.column(name).dtype.kind
        np.testing.assert_array_equal(there.column(name), before.column(name)[rows])
    np.testing.assert_array_equal(there.signal(), before.signal(rows))
    assert there.spec == before.spec and there.images.fingerprint() == before.images.fingerprint()
    assert there.names.tolist() == before.names[rows].tolist()


@pytest.mark.parametrize("chosen", [{"subjects": ("1",)}, {"granularity": "coarse", "subjects": ("0",)}])
def test_a_choice_of_a_store_is_that_choice_of_the_files(released, store, chosen):
    there = open_trials(settings_for(store, **chosen))
    before = open_trials(settings_for(released, **chosen))
    np.testing.assert_array_equal(there.signal(), before.signal())
    np.testing.assert_array_equal(there.column("order"), before.column("order"))


def test_opening_reads_no_trial_and_a_subject_only_its_rows(store, monkeypatch):
    touched = []

    class Watched:
        def __init__(self, array):
            self.array, self.shape, self.dtype = array, array.shape, array.dtype

        def __getitem__(self, rows):
            touched.extend(np.atleast_1d(rows).tolist())
            return self.array[rows]

    original = converted.read_array
    monkeypatch.setattr(converted, "read_array", lambda *given: Watched(original(*given)))
    trials = open_trials(settings_for(store, subjects=("1",)))
    assert not touched
    trials.signal()
    assert sorted(touched) == list(range(24, 36))


def test_nothing_is_done_twice_and_a_truncated_file_is_made_again(released, store):
    before, seen, opened = (store / ARRAY).stat().st_mtime_ns, [], []

    def track(*line):
        opened.append(line)
        return seen.append

    convert(settings_for(released), store, track=track)
    assert (store / ARRAY).stat().st_mtime_ns == before and not seen and not opened
    content = (store / ARRAY).read_bytes()
    for name in (ARRAY, TABLE):
        (store / name).write_bytes((store / name).read_bytes()[:-3])
        convert(settings_for(released), store, track=track)
    assert (store / ARRAY).read_bytes() == content and sum(seen) == 2 * 36 and opened == 2 * [("convert", 36)]
    assert sorted(path.name for path in store.iterdir()) == [TABLE, ARRAY, f"{ARRAY}.json"]


def test_files_of_the_same_content_in_another_folder_are_read_there(released, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(released, tmp_path / name)
        made = convert(settings_for(tmp_path / name), tmp_path / f"{name} store").read_bytes()
        shutil.rmtree(tmp_path / name)
    assert made == (tmp_path / "one store" / ARRAY).read_bytes()


def test_a_killed_conversion_leaves_no_store_or_the_old_one(released, tmp_path, store, monkeypatch):
    def kill(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(settings_for(released), tmp_path / "new", track=lambda *_: kill)
    assert list((tmp_path / "new").iterdir()) == []
    before = (store / ARRAY).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        convert(settings_for(released, unit="mV"), store, track=lambda *_: kill)
    assert len(open_trials(settings_for(store))) == 36 and (store / ARRAY).read_bytes() == before
    with monkeypatch.context() as patch:  # when the array is new and its table and sidecar are not
        patch.setattr(converted, "write_text", kill)
        with pytest.raises(KeyboardInterrupt):
            convert(settings_for(released, unit="mV"), store)
    assert (store / ARRAY).read_bytes() != before
    with pytest.raises(NeuroCanvasError, match=r"no EEG-ImageNet\.pth"):
        open_trials(settings_for(store))
    convert(settings_for(released), store)
    assert (store / ARRAY).read_bytes() == before and len(open_trials(settings_for(store))) == 36


def test_a_store_made_with_another_unit_is_refused(released, store):
    assert open_trials(settings_for(store, unit="V"))
    with pytest.raises(NeuroCanvasError, match="made with other settings, unit auto where mV is asked for; run `conv"):
        open_trials(settings_for(store, unit="mV"))
    convert(settings_for(released, unit="mV"), store)
    np.testing.assert_allclose(
        open_trials(settings_for(store)).signal([0]) * 1e3,
        open_trials(settings_for(released, subjects=("0",))).signal([0]),
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", [ARRAY, TABLE, f"{ARRAY}.json"])
def test_a_truncated_store_is_refused_in_one_line(store, name):
    content = (store / name).read_bytes()
    (store / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(NeuroCanvasError, match=re.escape(ARRAY)) as caught:
        open_trials(settings_for(store))
    assert "\n" not in str(caught.value)


def test_damage_stops_the_conversion_and_leaves_nothing(tmp_path):
    path = simulate(SimulateSettings(concepts=2, trials_per_concept=20, explained_variance=0.0), tmp_path / "released")
    content = torch.load(path, weights_only=True)
    content["dataset"][2]["eeg_data"][5, 5] = float("nan")
    torch.save(content, path)
    with pytest.raises(NeuroCanvasError, match=r"trial 2 of the file .*NaN or infinite"):
        convert(settings_for(tmp_path / "released"), tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def peak_mebibytes(program: str, *arguments: Path) -> float:
    """Peak memory above the imports that a program reports, run by `tools/bench_dataset.py`."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import bench_dataset; bench_dataset.{program}"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_of_16_000_trials(tmp_path):
    root, store = tmp_path / "released", tmp_path / "store"
    simulate(SimulateSettings(subjects=4, concepts=80, trials_per_concept=50, explained_variance=0.0), root)
    assert (root / "EEG-ImageNet.pth").stat().st_size > 1900 * MEBIBYTE
    assert peak_mebibytes("peak_of_convert()", root, store) <= 1024
    assert peak_mebibytes("peak_of_open()", root) <= 100
    assert peak_mebibytes("peak_of_open()", store) <= 100
    subject = 4000 * 62 * 501 * 4 / MEBIBYTE
    assert peak_mebibytes("peak_of_reading_a_subject()", store) <= 2.2 * subject + 100
