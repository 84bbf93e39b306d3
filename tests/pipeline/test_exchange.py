"""Files of the released code, out of a run and into another: the stages that follow go on with them."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from tiny import tiny_settings, written_files

from neurocanvas import artifacts
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.pipeline import exchange as released_files
from neurocanvas.pipeline.exchange import STAGED, export, import_files
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.pipeline.train import read_predictions
from neurocanvas.targets.captions import write_captions
from neurocanvas.workflow import run_stage

EXCHANGED = ["de_feat/0_all_de.npy", "output/caption.txt", "output/clip_embeddings.pth", "output/mlpsd_s0_0.pth"]
RELEASED = {"architecture": "released", "hidden": (16, 8), "contrastive": 0.0, "epochs": 2}


@pytest.fixture
def narrow(monkeypatch):
    """Released layers of other widths, which are quick to read."""
    monkeypatch.setattr(released_files, "ARCHITECTURES", {"released": ((16, 8), "relu")})


@pytest.fixture
def exported(tiny_fork, narrow, tmp_path):
    """A run whose mapper has the released layers, and the folder of what it exports."""
    run = tiny_fork(encoder=RELEASED)
    for stage in ("train", "predict"):
        run_stage(run, stage)
    export(run, tmp_path / "released")
    return run, tmp_path / "released"


@pytest.fixture
def empty(tiny_data, tmp_path):
    """A run of the same data without artifacts."""
    shutil.copytree(tiny_data, tmp_path / "empty" / "data")
    return RunFolder(tmp_path / "empty", tiny_settings(encoder=RELEASED))


def test_a_run_goes_out_and_another_goes_on_with_it(exported, empty):
    run, folder = exported
    assert sorted(written_files(folder)) == EXCHANGED
    paths = import_files(empty, folder)
    assert [artifacts.read_sidecar(path)["imported"] for path in paths] == [True] * 4
    assert [artifacts.read_sidecar(path)["from"] for path in paths] == [
        "caption.txt", "clip_embeddings.pth", "0_all_de.npy", "mlpsd_s0_0.pth",
    ]  # fmt: skip
    for name in ("targets/caption.txt", "targets/clip_embeddings.npy", "features/s0_trials.csv", "features/s0_de.npy"):
        assert (empty.folder / name).read_bytes() == (run.folder / name).read_bytes(), name
    run_stage(empty, "predict")
    ours, theirs = (read_predictions(one, "0")[0] for one in (run, empty))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    sidecar = artifacts.read_sidecar(empty.folder / "predictions" / "s0.npy")
    assert [one["code"] for one in sidecar["findings"]] == ["imported-unknown"] and sidecar["gains"] == [1.0]
    before = written_files(empty.folder)
    import_files(empty, folder)
    assert written_files(empty.folder) == before, "a second time changes nothing"


@pytest.mark.parametrize(
    ("without", "stage", "artifact"),
    [("mlpsd_s0_0.pth", "train", "models/mlp_sd_s0_fold0_model.safetensors"),
     ("clip_embeddings.pth", "embed", "targets/clip_embeddings.npy")],
)  # fmt: skip
def test_a_stage_makes_of_imported_files_what_it_makes_of_our_own(exported, empty, without, stage, artifact):
    run, folder = exported
    (folder / "output" / without).unlink()
    import_files(empty, folder)
    run_stage(empty, stage)
    assert (empty.folder / artifact).read_bytes() == (run.folder / artifact).read_bytes()


def test_imported_features_are_classified_as_they_are(exported, empty):
    _, folder = exported
    import_files(empty, folder)
    before = empty.path("features", "0").read_bytes()
    other = empty.settings.model_copy(update={"features": empty.settings.features.model_copy(update={"tmax": 0.3})})
    classify = other.classify.model_copy(update={"models": ("ridge",)})
    run_stage(RunFolder(empty.folder, other.model_copy(update={"classify": classify})), "classify")
    assert empty.path("features", "0").read_bytes() == before
    run_stage(RunFolder(empty.folder, other), "features")
    assert empty.path("features", "0").read_bytes() != before


def test_the_other_name_of_the_mapper_and_files_beside_one_another_are_found(exported, empty, tmp_path):
    _, folder = exported
    (tmp_path / "flat").mkdir()
    (folder / "de_feat" / "0_all_de.npy").rename(tmp_path / "flat" / "0_all_de.npy")
    (folder / "output" / "mlpsd_s0_0.pth").rename(tmp_path / "flat" / "mlp_sd_s0_model.pth")
    paths = import_files(empty, tmp_path / "flat")
    assert paths == [empty.path("features", "0"), empty.path("decoder", "0", 0)]


def test_a_mapper_that_has_no_room_there_is_left_out_with_a_word(tiny_copy, tmp_path):
    told = []
    paths = export(RunFolder(tiny_copy, tiny_settings()), tmp_path / "released", tell=told.append)
    assert [str(path.relative_to(tmp_path / "released")) for path in paths] == EXCHANGED[:3]
    assert len(told) == 1 and told[0].startswith("left out mlpsd_s0_0.pth: ") and "--recipe released" in told[0]


def test_where_there_is_nothing_both_say_so(empty, tmp_path):
    with pytest.raises(NeuroCanvasError, match="nothing to export yet"):
        export(empty, tmp_path / "released")
    with pytest.raises(NeuroCanvasError, match="no such folder"):
        import_files(empty, tmp_path / "released")
    (tmp_path / "released").mkdir()
    with pytest.raises(NeuroCanvasError, match=r"none of caption.txt, .*<subject>_all_de.npy .*of subjects 0 in it"):
        import_files(empty, tmp_path / "released")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("output/caption.txt", "no caption of .*choose its data set"),
        ("output/clip_embeddings.pth", "should have an embedding"),
        ("de_feat/0_all_de.npy", "features of 20 trials, but subject 0 has 24"),
        ("output/mlpsd_s0_0.pth", "not the released decoder: fc1.weight"),
    ],
)
def test_one_bad_file_is_refused_in_one_line_and_leaves_nothing_of_the_good_ones(exported, empty, name, message):
    _, folder = exported
    path = folder / name
    if path.suffix == ".txt":
        path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    elif path.suffix == ".npy":
        np.save(path, np.load(path)[:20])
    else:
        torch.save(dict(list(torch.load(path).items())[1:]), path)
    write_captions(empty.folder / "targets" / "caption.txt", {"mine.png": "a caption that stays"})
    before = written_files(empty.folder)
    with pytest.raises(NeuroCanvasError, match=message) as caught:
        import_files(empty, folder)
    assert "\n" not in str(caught.value) and written_files(empty.folder) == before


def test_what_a_killed_import_left_is_not_taken(exported, empty):
    _, folder = exported
    import_files(empty, folder)
    before = written_files(empty.folder)
    waiting = empty.folder / STAGED / empty.path("decoder", "0", 0).relative_to(empty.folder)
    waiting.parent.mkdir(parents=True)
    waiting.write_bytes(b"half a mapper")
    import_files(empty, folder)
    assert written_files(empty.folder) == before


def test_embeddings_go_out_whole_though_some_subjects_are_chosen(exported, tmp_path):
    run, _ = exported
    shown = run.stimuli[1:]
    fewer = RunFolder(run.folder, run.settings)
    vars(fewer)["stimuli"] = shown
    export(fewer, tmp_path / "fewer")
    assert list(torch.load(tmp_path / "fewer" / "output" / "clip_embeddings.pth")) == run.stimuli


def test_a_mapper_is_refused_where_features_or_the_runs_mapper_are_others(exported, empty):
    _, folder = exported
    (folder / "de_feat" / "0_all_de.npy").unlink()
    with pytest.raises(NeuroCanvasError, match="reads the released features, and the run's are 'gaussian'"):
        import_files(empty, folder)
    ridge = RunFolder(empty.folder, tiny_settings(encoder={"name": "ridge"}, features={"method": "eeg-imagenet"}))
    with pytest.raises(NeuroCanvasError, match=r"encoder\.name is 'ridge'"):
        import_files(ridge, folder)
    released = RunFolder(empty.folder, tiny_settings(encoder=RELEASED, features={"method": "eeg-imagenet"}))
    assert empty.path("decoder", "0", 0) in import_files(released, folder)


def test_released_files_that_are_links(empty, tmp_path):
    (tmp_path / "theirs" / "output").mkdir(parents=True)
    write_captions(tmp_path / "secret.txt", dict.fromkeys(empty.stimuli, "a cat"))
    os.symlink(tmp_path / "secret.txt", tmp_path / "theirs" / "output" / "caption.txt")
    with pytest.raises(NeuroCanvasError, match=r"import: .* is a link that leaves"):
        import_files(empty, tmp_path / "theirs")
    (tmp_path / "theirs" / "output" / "caption.txt").unlink()
    (tmp_path / "theirs" / "output" / "caption.txt").write_bytes((tmp_path / "secret.txt").read_bytes())
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", empty.folder / STAGED)
    assert import_files(empty, tmp_path / "theirs") == [empty.folder / "targets" / "caption.txt"]
    assert not list((tmp_path / "elsewhere").iterdir())
