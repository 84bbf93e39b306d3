"""The stages that train and predict under protocols that use several subjects or sessions."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tiny import tiny_settings, write_true_captions

from neurocanvas import artifacts
from neurocanvas.config import load_settings
from neurocanvas.data.splits import make_split
from neurocanvas.decoder import load_decoder
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.pipeline.train import (
    made_from,
    make_decoder,
    read_inputs,
    read_predictions,
    select_inputs,
    train,
    training_table,
)
from neurocanvas.targets.captions import prompt, read_captions, write_captions
from neurocanvas.targets.pretrained import BUNDLED
from neurocanvas.workflow import STAGES, run_stage

UNTIL_PREDICT = list(STAGES)[1 : list(STAGES).index("predict") + 1]
SEVERAL = {"subjects": 3, "stages": 2}


def people(folder, protocol, subjects):
    """A run on three subjects, of whom subject 0 came back, until its predictions."""
    run = RunFolder(folder, tiny_settings(simulate=SEVERAL, data={"subjects": subjects}, split={"protocol": protocol}))
    run_stage(run, "simulate")
    write_true_captions(run)
    for name in UNTIL_PREDICT:
        run_stage(run, name)
    return run


@pytest.fixture(scope="module")
def without_one(tmp_path_factory):
    """Subject 1, predicted by a mapper of the others."""
    return people(tmp_path_factory.mktemp("others"), "leave-subject-out", [1])


def test_all_subjects_train_but_only_those_asked_for_are_tested(without_one):
    run = without_one
    assert list(run.subjects) == ["1"] and list(run.opened) == ["0", "1", "2"]
    made = {path.name for part in ("features", "models", "predictions") for path in (run.folder / part).iterdir()}
    features = {f"s{subject}_{name}" for subject in (0, 1, 2) for name in ("de.npy", "de.npy.json", "trials.csv")}
    names = ("mlp_sd", "ridge", "mean")
    tested = {"s1.npy", *(run.path("decoder", "1", 0, name).name for name in names)}
    assert made == features | tested | {f"{name}.json" for name in tested}


def test_features_of_the_pool_stand_in_its_order(without_one):
    run, pool = without_one, without_one.pool("1")
    values = read_inputs(run, "1")
    assert len(values) == len(pool) == 24 * 4
    for subject in "012":
        own = np.load(run.path("features", subject))
        np.testing.assert_array_equal(values[pool.column("subject") == subject], own)
    assert made_from(run, "1", make_decoder(run, "ridge"))[0] == [run.path("features", subject) for subject in "012"]


def test_predictions_name_rows_of_the_subjects_own_table(without_one):
    sidecar = json.loads((without_one.folder / "predictions" / "s1.npy.json").read_text())
    assert sidecar["trials"] == list(range(24))
    decoder, own = load_decoder(without_one.path("decoder", "1", 0)), np.load(without_one.path("features", "1"))
    coordinates = np.load(without_one.folder / "predictions" / "s1.npy")
    np.testing.assert_allclose(coordinates, decoder.outputs(own), rtol=1e-4, atol=1e-4)
    rows = np.array([5, 2, 23])
    predicted = read_predictions(without_one, "1", rows)[0]
    np.testing.assert_allclose(predicted, decoder.basis_.inverse(coordinates[rows]), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(predicted, read_predictions(without_one, "1")[0][rows])
    model = json.loads(without_one.path("decoder", "1", 0).with_suffix(".safetensors.json").read_text())
    (split,) = make_split(without_one.pool("1"), settings=without_one.settings.split, subject="1")
    assert model["split"]["train"] == len(split.train)
    assert "1" not in without_one.pool("1").column("subject")[split.train]


def test_features_made_in_another_way_do_not_train_together(without_one, tmp_path):
    shutil.copytree(without_one.folder, tmp_path / "run")
    run = RunFolder(tmp_path / "run", without_one.settings)
    sidecar = run.path("features", "2").with_name("s2_de.npy.json")
    sidecar.write_text(sidecar.read_text().replace('"gaussian"', '"eeg-imagenet"'))
    shutil.rmtree(run.folder / "models")
    with pytest.raises(NeuroCanvasError, match=r"s2_de.npy: made in another way than those of subject 1"):
        train(run)


def test_trials_that_pretrain_train_with_the_subjects_own(tmp_path):
    run = people(tmp_path, "pretrain-finetune", [0])
    (split,) = make_split(run.pool("0"), settings=run.settings.split, subject="0")
    model = json.loads(run.path("decoder", "0", 0).with_suffix(".safetensors.json").read_text())
    assert model["split"]["train"] == len(split.pretrain) + len(split.train) == 48 + len(split.train)
    sidecar = json.loads((tmp_path / "predictions" / "s0.npy.json").read_text())
    session = run.subjects["0"].column("session")
    assert sidecar["trials"] == np.flatnonzero(session == "1").tolist() and len(sidecar["trials"]) == 24


def test_averaging_never_mixes_subjects(without_one):
    pool, values = without_one.pool("1"), read_inputs(without_one, "1")
    averaged, rows, showings = select_inputs(values, pool, np.arange(len(pool)), average=True)
    showings_of_subjects = np.bincount(pool.column("subject")[rows].astype(int), showings)
    assert len(averaged) == 3 * 24 and showings_of_subjects.tolist() == [48, 24, 24]
    shown = pool.column("image")
    same = (shown == shown[rows[0]]) & (pool.column("subject") == pool.column("subject")[rows[0]])
    np.testing.assert_allclose(averaged[0], values[same].mean(axis=0), rtol=1e-6)


def test_a_subject_of_one_session_is_refused_and_others_are_named(without_one):
    settings = tiny_settings(simulate=SEVERAL, split={"protocol": "leave-session-out"})
    with pytest.raises(NeuroCanvasError, match=r"subject 1 has one\. Subjects with more: 0\."):
        RunFolder(without_one.folder, settings).pool("1")
    assert set(RunFolder(without_one.folder, settings).pool("0").column("subject")) == {"0"}


def test_an_unknown_subject_is_refused_where_all_are_open(without_one):
    settings = tiny_settings(simulate=SEVERAL, split={"protocol": "leave-subject-out"}, data={"subjects": [5]})
    with pytest.raises(NeuroCanvasError, match="subject: allowed are 0, 1, 2; got '5'"):
        _ = RunFolder(without_one.folder, settings).subjects


def captions_of(folder):
    """Captions in a run folder."""
    return read_captions(folder / "targets" / "caption.txt")


def test_captions_can_be_concepts_names_or_a_file(tiny_fork, tmp_path):
    run = tiny_fork(caption={"source": "class-names"})
    run_stage(run, "caption")
    names, concepts = run.images.names, run.images.concepts
    assert all(caption == prompt(names[concepts[name]]) for name, caption in captions_of(run.folder).items())
    write_captions(tmp_path / "mine.txt", {name: f"my {name}" for name in [*run.stimuli, "another"]})
    run = tiny_fork(caption={"source": str(tmp_path / "mine.txt")})
    run_stage(run, "caption")
    assert captions_of(run.folder) == {name: f"my {name}" for name in run.stimuli}
    write_captions(tmp_path / "mine.txt", dict.fromkeys(run.stimuli[1:], "x"))
    with pytest.raises(NeuroCanvasError, match=f"mine.txt: no caption of {run.stimuli[0]}"):
        run_stage(run, "caption")


def test_an_image_to_text_model_in_a_folder_captions(tiny_fork):
    run = tiny_fork(caption={"source": str(BUNDLED / "blip")})
    run_stage(run, "caption")
    assert set(captions_of(run.folder)) == set(run.stimuli)
    assert artifacts.read_sidecar(run.folder / "targets" / "caption.txt")["source"] == str(BUNDLED / "blip")


def test_seeds_give_a_spread_and_ridge_stands_beside_the_network_with_a_paired_test(without_one, tmp_path):
    shutil.copytree(without_one.folder, tmp_path / "run")
    encoder = without_one.settings.encoder.model_copy(update={"seeds": 3})
    run = RunFolder(tmp_path / "run", without_one.settings.model_copy(update={"encoder": encoder}))
    before = run.path("decoder", "1", 0).read_bytes()
    sidecars = [artifacts.read_sidecar(path) for path in train(run)]
    assert [(one["encoder"], one["repetition"]) for one in sidecars] == [
        ("mlp_sd", 0), ("mlp_sd", 1), ("mlp_sd", 2), ("ridge", 0), ("mean", 0),
    ]  # fmt: skip
    assert run.path("decoder", "1", 0).read_bytes() == before, "the first seed predicts, as without others"
    table = training_table(sidecars)
    network, ridge, mean = table["lines"]
    scores = [one["scores"]["mlp_sd"]["test_two_way"] for one in sidecars[:3]]
    assert network[4] == f"{np.mean(scores):.4f} ± {np.std(scores, ddof=1):.4f}" and "over 3 seeds" in table["title"]
    assert ridge[5] == "" and "±" not in ridge[4]
    of_seeds = np.mean([one["of_trials"]["two_way"] for one in sidecars[:3]], axis=0)
    difference = of_seeds - sidecars[3]["of_trials"]["two_way"]  # belongs to the mean that stands beside it
    assert network[5].startswith(f"{difference.mean():+.4f} (") and ", p " in network[5]
    assert len(set(sidecars[0]["of_trials"]["units"])) == 4, "names of concepts are exchanged where others train"
    assert mean[5].startswith("-0."), "the mean target is worse than ridge"


def test_the_released_recipe_is_one_switch(tmp_path):
    settings = load_settings(None, encoder={"recipe": "released"})
    assert settings.features.method == "eeg-imagenet"
    decoder = make_decoder(RunFolder(tmp_path, settings), "mlp_sd")
    assert (decoder.recipe, decoder.features, decoder.encoder__hidden) == ("released", "eeg-imagenet", (1024, 2048))
    assert make_decoder(RunFolder(tmp_path, settings), "ridge").recipe == "default"
    other = load_settings(None, encoder={"recipe": "released"}, features={"method": "gaussian"})
    assert other.features.method == "gaussian", "what is said stays"


def test_a_stored_split_of_other_trials_is_refused(without_one, tmp_path):
    shutil.copytree(without_one.folder, tmp_path / "run")
    assert RunFolder(tmp_path / "run", without_one.settings).split("1")
    run = RunFolder(tmp_path / "run", without_one.settings)
    run.__dict__["dataset"] = without_one.dataset[1:]  # one trial fewer, as when another event is dropped
    with pytest.raises(NeuroCanvasError, match=r"1\.json: the trials of subject 1 are not those that were split"):
        run.split("1")
