"""The verbs classify and benchmark on a small simulated data set: tables, resuming, and what is refused."""

import json
import re
from contextlib import closing

import numpy as np
import pytest

from neurocanvas import artifacts
from neurocanvas.config import RunSettings, load_settings
from neurocanvas.data.splits import Fold
from neurocanvas.decoder import Decoder
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.parallel import Engine
from neurocanvas.pipeline import classify as classifying
from neurocanvas.pipeline import train as training
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.simulation.dataset import simulate
from neurocanvas.workflow import run_stage

QUICK = ("svm", "knn", "mlp")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two subjects, six concepts in blocks of 50."""
    root = tmp_path_factory.mktemp("data")
    settings = load_settings(None, simulate={"design": "block", "subjects": 2, "concepts": 6}).simulate
    simulate(settings, root)
    return root


def settings_for(root, **sections):
    """Settings of a quick benchmark under the released split."""
    base = {
        "data": {"root": str(root)},
        "split": {"protocol": "released", "accept_block_confound": True},
        "classify": {"models": QUICK, "epochs": 5},
        "benchmark": {"granularities": ["all"], "permutations": 99},
    }
    return RunSettings.model_validate({name: {**values, **sections.get(name, {})} for name, values in base.items()})


def scores_in(folder):
    """Bytes of every array of scores."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("classification/**/*.npy"))}


def tables_in(folder):
    """Rows of the table without the time that they took."""
    rows = json.loads((folder / "scores" / "benchmark.json").read_text(encoding="utf-8"))["rows"]
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """A finished benchmark of both subjects."""
    folder = tmp_path_factory.mktemp("run")
    run_stage(RunFolder(folder, settings_for(data)), "benchmark")
    return folder


def test_every_cell_and_every_table_is_there_and_says_that_the_split_is_confounded(done):
    assert len(scores_in(done)) == 2 * len(QUICK)
    found = json.loads((done / "scores" / "benchmark.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in found["rows"]] == list(QUICK)
    assert all(row["subjects"] == ["0", "1"] and row["p_holm"] <= 1 for row in found["rows"])
    for suffix in (".txt", ".csv", ".tex"):
        assert (done / "scores" / f"benchmark{suffix}").stat().st_size > 100
    assert found["rows"][0]["mean"] > 2 / 6 and found["rows"][0]["p_holm"] < 0.05  # drift is decoded from blocks
    for path in [*done.glob("scores/benchmark.*"), *done.glob("[cm]*/**/*.json")]:
        assert re.search(r"Block design|block-", path.read_text(encoding="utf-8")), path


def test_scores_belong_to_the_trials_that_their_rows_name(done, data):
    path = done / "classification" / "released" / "all" / "svm_s1.npy"
    table, sidecar = np.load(path), artifacts.read_sidecar(path)
    trials = RunFolder(done, settings_for(data)).subjects["1"]
    order, concept, fold, unit = table[:, :4].astype(int).T
    by_order = dict(zip(trials.column("order").tolist(), trials.column("concept").tolist(), strict=True))
    assert [by_order[place] for place in order] == [sidecar["concepts"][code] for code in concept]
    assert set(fold) == {0} and len(set(unit)) == 6 and len(order) == 6 * 20
    chosen = table[:, 4:].argmax(axis=1)
    assert np.mean(chosen == concept) == pytest.approx(sidecar["accuracy"]["selected"])


def test_workers_and_a_second_call_change_no_byte(done, data, tmp_path):
    with closing(Engine(workers=2)) as engine:
        run_stage(RunFolder(tmp_path, settings_for(data), engine=engine), "benchmark")
    # estimators and a small network, one thread each: the same bytes
    assert scores_in(tmp_path) == scores_in(done)
    assert tables_in(tmp_path) == tables_in(done)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("classification/**/*")}
    run_stage(RunFolder(tmp_path, settings_for(data)), "benchmark")
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("classification/**/*")}


def test_what_changed_is_done_again_and_nothing_else(done, data, tmp_path):
    run_stage(RunFolder(tmp_path, settings_for(data)), "benchmark")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("classification/**/*.npy")}
    damaged = tmp_path / "classification" / "released" / "all" / "knn_s0.npy"
    damaged.write_bytes(b"not an array")
    run_stage(RunFolder(tmp_path, settings_for(data)), "benchmark")
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("classification/**/*.npy")}
    assert {name for name in before if before[name] != after[name]} == {"knn_s0.npy"}
    run_stage(RunFolder(tmp_path, settings_for(data, classify={"seed": 1})), "benchmark")
    third = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("classification/**/*.npy")}
    assert all(third[name] != after[name] for name in before)
    changed = {"seed": 1, "rgnn_layout": "scrambled", "epochs": 6}
    run_stage(RunFolder(tmp_path, settings_for(data, classify=changed)), "benchmark")
    fourth = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("classification/**/*.npy")}
    assert {name for name in third if third[name] != fourth[name]} == {"mlp_s0.npy", "mlp_s1.npy"}  # they read epochs


def test_the_signal_of_many_trials_is_read_batch_by_batch(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "IN_MEMORY", 300 * 62 * 400 * 4)
    alone, many = (
        RunFolder(tmp_path, settings_for(data, split={"protocol": protocol}))
        for protocol in ("released", "leave-subject-out")
    )
    whole, window = (training.read_inputs(run, "1", Decoder("eegnet")) for run in (alone, many))
    assert isinstance(whole, np.ndarray) and whole.shape == (300, 62, 400)
    assert not isinstance(window, np.ndarray) and window.shape == (600, 62, 400)
    rows = np.flatnonzero(many.pool("1").column("subject") == "1")
    np.testing.assert_array_equal(window[rows[[7, 3, 299]]], whole[[7, 3, 299]])


def test_signal_that_is_not_in_memory_gives_the_same_scores(data, tmp_path, monkeypatch):
    settings = {"data": {"subjects": ["1"]}, "classify": {"models": ["eegnet"], "epochs": 1}}
    for name, limit in (("whole", training.IN_MEMORY), ("read", 0)):
        monkeypatch.setattr(training, "IN_MEMORY", limit)
        run_stage(RunFolder(tmp_path / name, settings_for(data, **settings)), "classify")
    whole, read = (next((tmp_path / name).glob("classification/**/eegnet_s1.npy")) for name in ("whole", "read"))
    assert whole.read_bytes() == read.read_bytes()


def test_classify_is_one_granularity_and_keeps_the_networks(data, tmp_path):
    settings = settings_for(data, data={"subjects": [1]}, classify={"models": ["mlp", "svm"]})
    run_stage(RunFolder(tmp_path, settings), "classify")
    assert [path.name for path in sorted(tmp_path.glob("models/**/*.safetensors"))] == ["mlp_s1_fold0.safetensors"]
    assert (tmp_path / "scores" / "classification.txt").is_file()


def test_a_granularity_without_trials_is_refused(data, tmp_path):
    settings = settings_for(data, benchmark={"granularities": ["fine"]})
    with pytest.raises(NeuroCanvasError, match=r"benchmark.granularities: the data have all, coarse, of two or more"):
        run_stage(RunFolder(tmp_path, settings), "benchmark")


def test_without_a_choice_the_granularities_are_those_of_the_data(tmp_path):
    simulated = {"design": "block", "concepts": 18, "trials_per_concept": 8}
    settings = load_settings(
        None, simulate=simulated, split={"protocol": "by-stimulus", "accept_block_confound": True},
        classify={"models": ["ridge"]}, benchmark={"permutations": 19},
    )  # fmt: skip
    run_stage(RunFolder(tmp_path, settings), "benchmark")
    assert [row["granularity"] for row in tables_in(tmp_path)] == ["all", "coarse", "fine"]
    assert [path.parent.name for path in sorted(tmp_path.glob("classification/**/*.npy"))] == ["all", "coarse", "fine2"]


def test_features_of_a_part_stay_beside_those_of_all(data, tmp_path):
    settings = settings_for(data, data={"granularity": "coarse"}, classify={"models": ["ridge"]})
    run = RunFolder(tmp_path, settings)
    run_stage(run, "features")
    before = run.path("features", "0").read_bytes()
    run_stage(run, "benchmark")
    assert run.path("features", "0").read_bytes() == before and run.path("features", "0").parent.name == "coarse"
    assert (tmp_path / "features" / "s0_de.npy").is_file()


def test_a_confounded_split_is_refused_before_anything_is_trained(tmp_path):
    simulated = {"design": "block", "subjects": 3, "concepts": 2}
    settings = load_settings(
        None, simulate=simulated, classify={"models": ["ridge"]},
        benchmark={"protocols": ["leave-subject-out", "released"], "permutations": 19},
    )  # fmt: skip
    with pytest.raises(NeuroCanvasError, match="accept-block-confound"):
        run_stage(RunFolder(tmp_path, settings), "benchmark")
    assert not list(tmp_path.glob("classification/**/*.npy"))


def test_a_concept_that_is_tested_but_never_trained_is_refused_before_anything_is_trained(data, tmp_path, monkeypatch):
    def unfair(run, subject, *_):
        trials = run.pool(subject)
        first = trials.column("concept") == trials.column("concept")[0]
        others = np.flatnonzero(~first)
        return [Fold("unfair", others[::2], others[1::2], np.flatnonzero(first), "")]

    monkeypatch.setattr(RunFolder, "split", unfair)
    with pytest.raises(NeuroCanvasError, match=r"split unfair: concept n\d+ is tested but never trained"):
        run_stage(RunFolder(tmp_path, settings_for(data)), "classify")


def test_without_the_flag_test_labels_are_hidden_until_all_is_predicted_and_with_it_the_card_says_more(
    data, tmp_path, monkeypatch
):
    done, real = [], Decoder.fit_prepared

    def watching(self, x, y, spec, *, train, watch, **options):
        assert set(y[watch]) == {classifying.HIDDEN} and classifying.HIDDEN not in y[train]
        done.append(real(self, x, y, spec, train=train, watch=watch, **options))
        return done[-1]

    monkeypatch.setattr(Decoder, "fit_prepared", watching)
    cells = {}
    for diagnose in (False, True):
        changes = {"models": ["mlp", "knn"], "diagnose_selection": diagnose}
        settings = settings_for(data, data={"subjects": [1]}, classify=changes)
        run_stage(RunFolder(tmp_path / str(diagnose), settings), "benchmark")
        paths = sorted((tmp_path / str(diagnose)).glob("classification/**/*.npy"))
        cells[diagnose] = [(path.read_bytes(), artifacts.read_sidecar(path)) for path in paths]
    assert len(done) == 4
    for (plain, sidecar), (diagnosed, more) in zip(cells[False], cells[True], strict=True):
        assert plain == diagnosed
        [by_epoch] = more["test_accuracy_by_epoch_diagnostic"]
        assert more["accuracy"] == {**sidecar["accuracy"], "best_on_test": max(by_epoch)}
        assert len(by_epoch) == len(more["history"][0]) and "test_accuracy_by_epoch_diagnostic" not in sidecar


def test_an_unknown_model_is_refused():
    for name in ("svn", "mean"):
        with pytest.raises(NeuroCanvasError, match=rf"classify\.models\.1: allowed are mlp_sd, eegnet, .*got '{name}'"):
            load_settings(None, classify={"models": ["ridge", name]})
