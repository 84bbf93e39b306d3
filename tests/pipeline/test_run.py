"""The stages of a run: what is done stays, what changed is made again, what is damaged is noticed."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny import embed_captions, tiny_settings, write_true_captions, written_files

from neurocanvas import artifacts
from neurocanvas.config import load_settings
from neurocanvas.decoder import load_decoder
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.generation.arms import ARMS, image_seed, likeness
from neurocanvas.pipeline.generate import CELL, GAP, LINE, arm_inputs, select_trials
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.pipeline.train import read_predictions
from neurocanvas.targets.captions import read_captions
from neurocanvas.workflow import run_all, run_stage

MAPPING = ("simulate", "features", "caption", "embed", "train", "predict")


def times(folder):
    """When every file but the log was last written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("log.jsonl", "run.toml")
    }


def rewritten(folder, before):
    """Folders (of the run) in which something was written since `before`."""
    return {name.split("/")[0] for name, time in times(folder).items() if before.get(name) != time}


def test_selected_trials_are_even_over_concepts_and_folds():
    eight, three = np.divmod(np.random.default_rng(0).permutation(240), 30)[0], np.arange(240) // 80
    some = select_trials(eight, three, 48)
    table = np.zeros((8, 3), int)
    np.add.at(table, (eight[some], three[some]), 1)
    assert (table == 2).all()
    concepts = np.array(["a"] * 5 + ["b"] * 3 + ["c"] * 1)
    assert select_trials(concepts, np.zeros(9), None).tolist() == list(range(9))
    assert select_trials(concepts, np.zeros(9), 100).tolist() == list(range(9))
    assert select_trials(concepts, np.zeros(9), 3).tolist() == [0, 5, 8]
    assert select_trials(concepts, np.zeros(9), 5).tolist() == [0, 1, 5, 6, 8]
    mixed = np.random.default_rng(0).permutation(np.repeat(list("abcdef"), 8))
    for most in (6, 12, 20):
        counts = np.unique(mixed[select_trials(mixed, np.zeros(len(mixed)), most)], return_counts=True)[1]
        assert counts.sum() == most and counts.max() - counts.min() <= 1 and len(counts) == 6


def test_a_run_leaves_what_the_layout_says(tiny_run):
    files = set(written_files(tiny_run))
    expected = {
        "run.toml", "features/s0_de.npy", "features/s0_de.npy.json", "features/s0_trials.csv", "targets/caption.txt",
        "targets/clip_embeddings.npy", "models/mlp_sd_s0_fold0_model.safetensors", "predictions/s0.npy",
        "images/manifest.jsonl", "scores/summary.json", "scores/trials.csv", "scores/concepts.csv", "report.html",
    }  # fmt: skip
    assert expected <= files
    assert not [name for name in files if name.split("/")[-1].startswith(".") or name.endswith(".state")]
    entries = [json.loads(line) for line in (tiny_run / "images" / "manifest.jsonl").read_text().splitlines()]
    assert {entry["arm"] for entry in entries} == {"eeg", "shuffled", "mean", "oracle"}
    assert len(entries) == len({entry["file"] for entry in entries}) == len({entry["seed"] for entry in entries}) == 32
    for entry in entries:
        assert (tiny_run / "images" / entry["file"]).is_file()
        assert (tiny_run / "images" / "seen" / f"{entry['stimulus']}.png").is_file()


def test_a_second_run_writes_nothing(tiny_copy):
    run = RunFolder(tiny_copy, tiny_settings())
    before, written = times(tiny_copy), (tiny_copy / "run.toml").stat().st_mtime_ns
    run_all(run)
    assert rewritten(tiny_copy, before) == set()
    assert (tiny_copy / "run.toml").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ({"features": {"tmax": 0.4}}, {"features", "models", "predictions"}),
        ({"encoder": {"seed": 1}}, {"models", "predictions"}),
        ({"split": {"seed": 1}}, {"splits", "models", "predictions"}),
        ({"generate": {"seed": 1}}, set()),
        ({"simulate": {"seed": 1}}, {"data", "features", "splits", "targets", "models", "predictions"}),
    ],
    ids=["features", "mapper", "split", "generate", "simulate"],
)
def test_a_copy_with_a_changed_setting_makes_what_depends_on_it(tiny_run, tiny_fork, change, redone):
    run, before = tiny_fork(**change), times(tiny_run)
    for name in MAPPING:
        if name == "caption" and "simulate" in change:
            write_true_captions(run)
        run_stage(run, name)
    assert rewritten(run.folder, before) == redone


def test_arms_are_added_and_nothing_is_drawn_twice(tiny_run, tiny_fork):
    run, before = tiny_fork(generate={"arms": ["random"]}), times(tiny_run)
    run_stage(run, "generate")
    changed = {name for name, time in times(run.folder).items() if before.get(name) != time}
    assert {name.split("/")[2] for name in changed if name.startswith("images/s0/")} == {"random"}
    assert load_settings(run.folder / "run.toml").generate.arms[-1] == "random"
    run_stage(run, "evaluate")
    arms = json.loads((run.folder / "scores" / "summary.json").read_text())["arms"]
    assert set(arms) == {"eeg", "shuffled", "mean", "oracle", "random"}


def test_other_steps_draw_every_picture_anew(tiny_run, tiny_fork):
    run, before = tiny_fork(generate={"arms": ["eeg"], "steps": 1}), times(tiny_run)
    assert not (run.folder / "images").exists()
    run_stage(run, "generate")
    assert rewritten(run.folder, before) == {"images"}


@pytest.mark.parametrize(
    ("pattern", "stage"),
    [
        ("data/EEG-ImageNet.pth", "simulate"),
        ("features/s0_de.npy", "features"),
        ("splits/0.json", "train"),
        ("targets/clip_embeddings.npy", "embed"),
        ("models/*.safetensors", "train"),
        ("predictions/s0.npy", "predict"),
        ("images/s0/oracle/*.png", "generate"),
        ("images/seen/*.png", "generate"),
    ],
)
def test_verify_names_a_flipped_byte_and_what_is_deleted_is_made_again(tiny_copy, tiny_run, pattern, stage):
    assert artifacts.verify(tiny_copy)[1] == []
    path = sorted(tiny_copy.glob(pattern))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert artifacts.verify(tiny_copy)[1] == [path]
    path.unlink()
    run_stage(RunFolder(tiny_copy, tiny_settings()), stage)
    assert written_files(tiny_copy) == written_files(tiny_run)


@pytest.mark.parametrize(
    ("missing", "stage", "advice"),
    [
        ("features", "train", "neurocanvas features"),
        ("targets/caption.txt", "embed", "neurocanvas caption"),
        ("targets/clip_embeddings.npy", "train", "neurocanvas embed"),
        ("models", "predict", "train"),
        ("predictions", "generate", "neurocanvas predict"),
        ("images", "evaluate", "neurocanvas generate"),
    ],
)
def test_a_stage_out_of_order_says_what_to_run_first(tiny_copy, missing, stage, advice):
    path = tiny_copy / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(NeuroCanvasError, match=advice):
        run_stage(RunFolder(tiny_copy, tiny_settings()), stage)


def test_bad_settings_are_not_kept(tiny_copy):
    before = (tiny_copy / "run.toml").read_bytes()
    with pytest.raises(NeuroCanvasError, match="subject"):
        run_stage(RunFolder(tiny_copy, tiny_settings(data={"subjects": [7]})), "features")
    with pytest.raises(NeuroCanvasError) as refused:
        run_stage(RunFolder(tiny_copy, tiny_settings(generate={"steps": 20})), "generate")
    assert f"generate.steps: {tiny_copy} was made with 2; got 20" in str(refused.value)
    assert f"neurocanvas fork {tiny_copy} NEW --set generate.steps=20" in str(refused.value)
    for verb in ("train", "classify", "benchmark", "controls"):
        with pytest.raises(NeuroCanvasError, match=r"split\.seed: .*neurocanvas fork .* --set split\.seed=5"):
            run_stage(RunFolder(tiny_copy, tiny_settings(split={"seed": 5})), verb)
    assert (tiny_copy / "run.toml").read_bytes() == before
    with pytest.raises(NeuroCanvasError, match="no such folder"):
        run_stage(RunFolder(tiny_copy / "new", tiny_settings(simulate=None)), "features")
    assert not (tiny_copy / "new" / "run.toml").exists()


def test_max_trials_limits_the_pictures_of_each_arm(tiny_fork):
    run = tiny_fork(generate={"max_trials": 5, "arms": ["eeg"], "steps": 1})
    tiny_copy, _ = run.folder, run_stage(run, "generate")
    entries = [json.loads(line) for line in (tiny_copy / "images" / "manifest.jsonl").read_text().splitlines()]
    assert len(entries) == 5 and len({entry["concept"] for entry in entries}) == 4


def test_arms_that_retrieve_name_start_and_choose(tiny_fork):
    arms = ["retrieval", "class-name", "retrieved-start", "best-of"]
    run = tiny_fork(generate={"max_trials": 4, "arms": arms, "steps": 2, "samples": 2})
    tiny_copy = run.folder
    run_stage(run, "generate")
    entries = [json.loads(line) for line in (tiny_copy / "images" / "manifest.jsonl").read_text().splitlines()]
    assert [entry["arm"] for entry in entries[::4]] == arms
    sidecar = json.loads((tiny_copy / "predictions" / "s0.npy.json").read_text())
    tested = {entry["stimulus"] for entry in entries}
    assert not tested & {run.stimuli[row] for row in sidecar["known"][0]}
    for entry in entries:
        first, second = (
            Image.open(tiny_copy / "images" / name)
            for name in (entry["file"], f"{entry['file'].removesuffix('.png')}_1.png")
        )
        about = [json.loads(picture.text["neurocanvas"]) for picture in (first, second)]
        assert not any("predictions" in said for said in about), "which change when another trial's prediction does"
        assert [said["sample"] for said in about] == [0, 1] and {said["trial"] for said in about} == {entry["trial"]}
        assert about[0]["scheduler"] == "dpm-solver++" and about[0]["steps"] == 2
        seeds = {entry["seed"], image_seed(entry["seed"], "sample", 0, 1)}
        assert {said["seed"] for said in about} == seeds
        assert entry["arm"] == "best-of" or about[0]["seed"] == entry["seed"]
        assert np.asarray(first).tobytes() != np.asarray(second).tobytes()
    run_stage(run, "evaluate")
    assert list(json.loads((tiny_copy / "scores" / "summary.json").read_text())["arms"]) == arms


def test_best_of_keeps_the_picture_whose_caption_is_nearest(tiny_fork, monkeypatch):
    """The captioner is replaced by one that reads the caption off the image's brightness."""
    run = tiny_fork(generate={"max_trials": 4, "arms": ["best-of"], "samples": 3})
    tiny_copy = run.folder
    captions = list(read_captions(tiny_copy / "targets" / "caption.txt").values())
    monkeypatch.setattr(
        "neurocanvas.pipeline.generate.load_captioner",
        lambda family: lambda pictures: [captions[int(picture.mean()) % len(captions)] for picture in pictures],
    )
    run_stage(run, "generate")
    files = [json.loads(line)["file"] for line in (tiny_copy / "images" / "manifest.jsonl").read_text().splitlines()]
    path = tiny_copy / "predictions" / "s0.npy"
    sidecar, (predicted, means) = artifacts.read_sidecar(path), read_predictions(run, "0")
    for file in files:
        samples = [file, *(f"{file.removesuffix('.png')}_{number}.png" for number in (1, 2))]
        pictures = [np.asarray(Image.open(tiny_copy / "images" / name)) for name in samples]
        said = embed_captions([captions[int(picture.mean()) % len(captions)] for picture in pictures], "bundled")
        trial = json.loads(Image.open(tiny_copy / "images" / file).text["neurocanvas"])["trial"]
        near = likeness(predicted[sidecar["trials"].index(trial)], said.astype(np.float32), means[0])
        assert list(near) == sorted(near, reverse=True)


def test_captions_are_drawn_without_eeg_and_set_side_by_side(tiny_copy, tmp_path):
    folder = tmp_path / "captions"
    for name in ("data", "targets"):
        shutil.copytree(tiny_copy / name, folder / name)
    run = RunFolder(folder, tiny_settings(generate={"arms": ["caption"], "max_trials": 5}))
    pages = run_stage(run, "generate")
    assert [page.name for page in pages] == ["page_001.png"] and not (folder / "images").exists()
    drawn = sorted((folder / "generated_from_captions").glob("n*.png"))
    assert len(drawn) == 5
    alone = np.asarray(Image.open(pages[0]))
    whole = RunFolder(tiny_copy, tiny_settings(generate={"arms": ["caption"]}))
    run_stage(whole, "generate")  # where images from EEG are there as well
    for path in drawn:  # in batches of other sizes
        again = np.asarray(Image.open(tiny_copy / "generated_from_captions" / path.name)).astype(int)
        assert abs(again - np.asarray(Image.open(path))).max() <= 2
    beside = np.asarray(Image.open(tiny_copy / "generated_from_captions" / "page_001.png"))
    assert beside.shape[1] == alone.shape[1] + CELL + GAP
    first = beside[GAP + LINE : GAP + LINE + CELL, -GAP - CELL : -GAP]
    assert first.std() > 1  # rows with an image from EEG come first
    run_stage(whole, "report")
    assert (tiny_copy / "report.html").read_text().count("Page 1: original, from caption, from EEG") == 1
    assert load_settings(tiny_copy / "run.toml").generate.arms == ("eeg", "shuffled", "mean", "oracle", "caption")


@pytest.mark.parametrize(
    ("change", "stage", "says"),
    [({"fingerprint": "0" * 16}, "evaluate", "subject 0 was drawn from other predictions"),
     ({"known": None}, "generate", "by another version; run `neurocanvas predict` again")],
)  # fmt: skip
def test_predictions_of_another_time_are_noticed(tiny_copy, change, stage, says):
    sidecar = tiny_copy / "predictions" / "s0.npy.json"
    said = {**json.loads(sidecar.read_text()), **change}
    sidecar.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))
    with pytest.raises(NeuroCanvasError, match=says):
        run_stage(RunFolder(tiny_copy, tiny_settings()), stage)


def test_what_is_drawn_does_not_depend_on_the_shard(tiny_copy):
    """Conditions of a few trials are those of all; shuffled gives every trial the prediction of another."""
    run = RunFolder(tiny_copy, tiny_settings())
    trials = artifacts.read_sidecar(tiny_copy / "predictions" / "s0.npy")["trials"]
    made = {}
    for arm in ("eeg", "shuffled", "mean", "random", "oracle", "retrieval", "class-name"):
        made[arm] = ARMS[arm].condition(arm_inputs(run, "0", arm, trials))
        parts = [trials[start : start + 3] for start in (0, 3, 6)]
        some = [ARMS[arm].condition(arm_inputs(run, "0", arm, part)) for part in parts]
        np.testing.assert_array_equal(np.concatenate(some), made[arm])
    origin = [int(np.flatnonzero((made["eeg"] == row).all(axis=(1, 2)))[0]) for row in made["shuffled"]]
    assert sorted(origin) == list(range(8)) and not np.any(np.array(origin) == np.arange(8))


def test_test_trials_of_one_picture_can_be_averaged(tmp_path):
    settings = tiny_settings(simulate={"trials_per_concept": 6, "repeats": 3}, split={"average_test": True})
    run = RunFolder(tmp_path, settings)
    run_stage(run, "simulate")
    write_true_captions(run)
    for name in MAPPING[1:]:
        run_stage(run, name)
    sidecar = json.loads((tmp_path / "predictions" / "s0.npy.json").read_text())
    trials, features = run.subjects["0"], np.load(tmp_path / "features" / "s0_de.npy")
    shown = trials.column("image")
    assert len(trials) == 72 and len(sidecar["trials"]) == 8 == len(set(shown[sidecar["trials"]]))
    assert ("averaged-showings", {"most": 3}) in [(one["code"], one["numbers"]) for one in sidecar["findings"]]
    expected = np.stack([features[shown == shown[row]].mean(axis=0) for row in sidecar["trials"]])
    predicted = load_decoder(run.path("decoder", "0", 0)).outputs(expected)
    np.testing.assert_allclose(np.load(tmp_path / "predictions" / "s0.npy"), predicted, atol=1e-3)
