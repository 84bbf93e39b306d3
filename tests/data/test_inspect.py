"""What `inspect` says of a data set whose content is known."""

import json

import numpy as np
import pytest
import torch

import neurocanvas as nc
from neurocanvas.config import DataSettings, SimulateSettings
from neurocanvas.data.images import PICTURES_FOLDER
from neurocanvas.data.inspect import describe, inspect_dataset, signal_groups
from neurocanvas.data.splits import blocked_trials
from neurocanvas.data.store import convert
from neurocanvas.simulation.dataset import simulate

MITTEN, FRUIT = "n03775071", "n07740461"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Blocks of 5 subjects, 2 of whom come back; the last lacks a concept in stage 1; one image is missing."""
    folder = tmp_path_factory.mktemp("data")
    sizes = {"subjects": 5, "concepts": 4, "trials_per_concept": 5, "stages": 2, "incomplete": True}
    simulate(SimulateSettings(design="block", explained_variance=0.0, **sizes), folder)
    sorted((folder / PICTURES_FOLDER).rglob("*.JPEG"))[0].unlink()
    (folder / PICTURES_FOLDER / "synset_map_ch.txt").write_text(f"\ufeff{MITTEN}\t连指手套\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def report(root):
    """The report, after a trip through JSON."""
    return json.loads(json.dumps(inspect_dataset(DataSettings(root=str(root)))))


def test_counts_sizes_signal_and_recordings(root, report):
    assert [one["file"] for one in report["files"]] == ["EEG-ImageNet.pth", "EEG-ImageNet_stage2.pth"]
    assert report["files"][0]["bytes"] == (root / "EEG-ImageNet.pth").stat().st_size
    assert (report["trials"], report["concepts"]) == (5 * 20 - 5 + 2 * 20, 4)
    assert (report["channels"], report["samples"], report["sampling rate"]) == (62, 501, 1000.0)
    assert report["unit"]["file"] == "V" and 5 < report["unit"]["µV"] < 30
    found = [(one["subject"], one["session"], one["trials"], one["blocks"]) for one in report["recordings"]]
    assert found == [
        ("0", "0", 20, 4), ("0", "1", 20, 8), ("1", "0", 20, 4), ("2", "0", 20, 4), ("3", "0", 20, 4),
        ("4", "0", 15, 3), ("4", "1", 20, 8),
    ]  # fmt: skip
    assert all(one["blocked"] for one in report["recordings"])


def test_the_recording_that_is_short_and_what_it_lacks(report):
    (one,) = report["unusual"]
    assert (one["subject"], one["session"], one["trials"], one["usual"]) == ("4", "0", 15, 20)
    assert list(one["lacking"].values()) == [5]


def test_concepts_pictures_and_names(report):
    assert report["pictures"]["needed"] == 20 and report["pictures"]["missing"] == 1
    assert len(report["pictures"]["first"]) == 1
    assert {one["granularity"] for one in report["by concept"]} == {"coarse"}
    mitten = next(one for one in report["by concept"] if one["concept"] == MITTEN)
    assert (mitten["name"], mitten["Chinese"]) == ("mitten", "连指手套")


def test_a_rapid_design_is_not_blocked_and_fine_concepts_have_their_group(tmp_path):
    simulate(SimulateSettings(concepts=18, trials_per_concept=3, explained_variance=0.0), tmp_path)
    report = inspect_dataset(DataSettings(root=str(tmp_path)))
    assert [one["blocked"] for one in report["recordings"]] == [False] and report["unusual"] == []
    fruit = next(one for one in report["by concept"] if one["concept"] == FRUIT)
    assert fruit["granularity"] == "fine2" and fruit["trials"] == 3 and "Chinese" not in fruit


def test_a_store_reads_as_the_files_it_was_made_from(root, report, tmp_path):
    convert(DataSettings(root=str(root)), tmp_path)
    there = inspect_dataset(DataSettings(root=str(tmp_path), pictures=str(root)))
    assert there["unit"]["file"] == "µV, converted"
    for same in ("trials", "recordings", "by concept", "unusual", "pictures"):
        assert there[same] == report[same]


def test_tables_for_reading(report):
    tables = dict(describe(report))
    assert list(tables) == ["Data set", "Recordings", "Unusual", "Concepts"]
    for rows in tables.values():
        assert len({tuple(row) for row in rows}) == 1 and all(isinstance(v, str) for row in rows for v in row.values())
    assert "19 of 20 are there; missing: n" in tables["Data set"][-1]["found"]
    assert tables["Unusual"][0]["lacking"].endswith(" 5")


def test_arrays_are_inspected_too(tmp_path):
    np.save(tmp_path / "trials.npy", np.random.default_rng(0).normal(0, 1e-5, (6, 2, 50)))
    (tmp_path / "trials.csv").write_text("concept,subject\n" + "cat,anna\ndog,anna\n" * 3)
    array = {"signal": "trials.npy", "ch_names": ["O1", "O2"], "sfreq": 100.0}
    report = inspect_dataset(DataSettings(name="arrays", root=str(tmp_path), array=array))
    assert (report["trials"], report["concepts"], report["files"]) == (6, 2, [])
    assert [one["subject"] for one in report["recordings"]] == ["anna"]
    assert "granularity" not in report["by concept"][0] and report["pictures"]["needed"] == 0


def test_trials_with_the_same_signal_are_found_whatever_their_offset_and_gain():
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 1e-5, (40, 8, 200)).astype(np.float32)
    signal[5], signal[7] = 1.5 * signal[30] + 1e-6, signal[8] + rng.normal(0, 1e-8, (8, 200))
    names = [f"E{number}" for number in range(8)]
    groups = signal_groups(nc.from_arrays(signal, ["a", "b"] * 20, ch_names=names, sfreq=200))
    assert groups[5] == groups[30] and groups[7] == groups[8] and len(set(groups)) == 38
    hum = 2e-5 * np.sin(2 * np.pi * 50 * np.arange(200) / 200 + rng.uniform(0, 6, (40, 1, 1)))
    hummed = nc.from_arrays(signal[:, :2] / 5 + hum, ["a", "b"] * 20, ch_names=names[:2], sfreq=200)
    assert len(set(signal_groups(hummed))) == 40, "line noise alone makes no trials the same"


def test_the_order_of_a_shuffled_file_is_that_of_its_trials_or_of_the_documented_design(tmp_path):
    """A list of trials in random order is not a rapid design; one sorted by image is not a block design."""
    for design, written in (("block", True), ("block", False), ("rapid", True)):
        folder = tmp_path / f"{design}{written}"
        path = simulate(SimulateSettings(design=design, concepts=4, trials_per_concept=10), folder)
        content = torch.load(path, weights_only=True)
        expected = {trial["image"]: trial["order"] for trial in content["dataset"]}
        trials = sorted(content["dataset"], key=lambda trial: trial["image"])
        content["dataset"] = [trials[row] for row in np.random.default_rng(0).permutation(len(trials))]
        if design == "rapid":
            content["dataset"] = trials
        if not written:
            content["dataset"] = [{key: trial[key] for key in trial if key != "order"} for trial in content["dataset"]]
        torch.save(content, path)
        opened = nc.open_dataset("eeg-imagenet", str(folder))
        assert blocked_trials(opened).all() == (design == "block")
        if written:
            by_image = dict(zip(opened.column("image").tolist(), opened.column("order").tolist()))
            assert by_image == expected
