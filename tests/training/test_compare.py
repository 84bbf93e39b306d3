"""Training one subject: what the card says, reuse, and continuing after a kill."""

import numpy as np
import pytest
from neurocanvas.encoders.checkpoint import load_mapper
from neurocanvas.training.compare import mapper_table, train_and_save, train_mapper

from neurocanvas import artifacts
from neurocanvas.config import EncoderSettings
from neurocanvas.data.splits import BLOCK_WARNING, Fold
from neurocanvas.encoders import EEGSpec, Mapper
from neurocanvas.errors import NeuroCanvasError

SPEC = EEGSpec(("O1", "Oz", "O2"), ("alpha", "beta"), (5, 8))
SETTINGS = EncoderSettings(hidden=(8,), components=3, epochs=12, patience=12, batch_size=16)


@pytest.fixture
def data():
    """60 trials of 20 stimuli, and a split that carries a warning."""
    rng = np.random.default_rng(0)
    target_of = rng.permutation(np.arange(60) % 20)
    targets = rng.normal(size=(20, 5, 8)).astype(np.float16)
    features = rng.normal(size=(60, 3, 2)) + targets[target_of, :3, :2]
    parts = [np.flatnonzero(np.isin(target_of, ids)) for ids in (range(12), range(12, 16), range(16, 20))]
    return features.astype(np.float32), targets, target_of, Fold("by hand", *parts, "4 stimuli", (BLOCK_WARNING,))


def test_the_card_holds_what_a_reader_needs(data, tmp_path):
    lines = []
    card = train_and_save(*data, SPEC, SETTINGS, path=tmp_path / "m.safetensors", log=lines.append)
    assert card["history"] == lines
    assert card["selected_epoch"] == 1 + int(np.argmin([line["val_objective"] for line in lines]))
    plain = SETTINGS.model_copy(update={"contrastive": 0.0})
    mse_alone = train_mapper(*data, SPEC, plain)[1]
    least = min(line["val_loss"] for line in mse_alone["history"])
    assert least == pytest.approx(mse_alone["scores"]["mlp_sd"]["val_mse"], rel=1e-4)
    sizes = {"train": 36, "val": 12, "test": 12}
    assert card["split"] == {"name": "by hand", "fingerprint": data[3].fingerprint(), **sizes}
    assert card["warnings"] == [BLOCK_WARNING]
    assert "4 stimuli" in card["selection"]
    assert 0 < card["explained"] < 1
    assert card["settings"]["components"] == 3 and card["licence"]


def test_scores_are_those_of_the_saved_mapper(data, tmp_path):
    features, targets, target_of, split = data
    card = train_and_save(*data, SPEC, SETTINGS, path=tmp_path / "m.safetensors")
    mapper = load_mapper(tmp_path / "m.safetensors")
    errors = mapper.predict(features[split.test]) - targets[target_of[split.test]].astype(np.float32)
    assert card["scores"]["mlp_sd"]["test_mse"] == pytest.approx(np.mean(errors**2), rel=1e-5)
    predicted = mapper.coordinates(features[split.validation])
    np.testing.assert_allclose(mapper.prediction_sd, predicted.std(axis=0), rtol=1e-5)


def test_what_test_trials_saw_is_not_read_before_every_mapper_has_predicted_them(data, monkeypatch):
    features, targets, target_of, split = data
    read = []

    class Watched(np.ndarray):
        def __getitem__(self, rows):
            if np.shape(rows) and np.isin(rows, split.test).any():
                read.append("label")
            return np.asarray(self)[rows]

    real = Mapper.coordinates

    def predict(self, rows):
        read.append(type(self).__name__)
        return real(self, rows)

    monkeypatch.setattr(Mapper, "coordinates", predict)
    train_mapper(features, targets, target_of.view(Watched), split, SPEC, SETTINGS)
    first = read.index("label")
    assert len({*read[:first]}) == 3 and {*read[first:]} == {"label"}


def test_mean_and_ridge_stand_beside_the_mapper_in_the_table(data):
    cards = [train_mapper(*data, SPEC, SETTINGS.model_copy(update={"seed": seed}))[1] for seed in (0, 1)]
    table = mapper_table(cards)
    assert [line[0] for line in table["lines"]] == ["mlp_sd", "ridge", "mean"]
    mean = np.mean([card["scores"]["mlp_sd"]["test_two_way"] for card in cards])
    assert table["lines"][0][table["header"].index("test two-way")] == f"{mean:.4f}"
    assert table["warnings"] == [BLOCK_WARNING]


def test_with_weights_of_tokens_scores_are_weighted_errors(data):
    features, targets, target_of, split = data
    weighted = SETTINGS.model_copy(update={"token_weights": (5.0, 1.0)})
    mapper, card = train_mapper(*data, SPEC, weighted)
    errors = (mapper.predict(features[split.test]) - targets[target_of[split.test]].astype(np.float32)) ** 2
    weight = np.array([5, 1, 1, 1, 1]) / 1.8
    assert card["scores"]["mlp_sd"]["test_mse"] == pytest.approx(np.mean(errors * weight[:, None]), rel=1e-5)


def test_a_stopped_training_ends_with_the_same_bytes_and_a_finished_one_is_reused(data, tmp_path):
    class Stopped(Exception):
        pass

    def stop(line):
        if line["epoch"] == 7:
            raise Stopped

    whole, stopped = tmp_path / "a" / "m.safetensors", tmp_path / "b" / "m.safetensors"
    train_and_save(*data, SPEC, SETTINGS, path=whole)
    with pytest.raises(Stopped):
        train_and_save(*data, SPEC, SETTINGS, path=stopped, log=stop)
    assert not stopped.exists()
    lines = []
    train_and_save(*data, SPEC, SETTINGS, path=stopped, log=lines.append)
    assert lines[0]["epoch"] == 6
    assert whole.read_bytes() == stopped.read_bytes()
    assert artifacts.card_path(whole).read_bytes() == artifacts.card_path(stopped).read_bytes()
    assert sorted(file.name for file in stopped.parent.iterdir()) == ["m.safetensors", "m.safetensors.json"]
    train_and_save(*data, SPEC, SETTINGS, path=stopped, log=stop)
    with pytest.raises(Stopped):
        train_and_save(*data, SPEC, SETTINGS.model_copy(update={"seed": 1}), path=stopped, log=stop)


def test_arrays_that_do_not_fit_are_refused(data):
    features, targets, target_of, split = data
    for bad, message in [
        ((features[:, :2], targets, target_of, split), "3 channels"),
        ((features, targets[:, :4], target_of, split), "targets"),
        ((features, targets, target_of + 1, split), "target_of"),
        ((features[:50], targets, target_of[:50], split), "there are 50 trials"),
        ((np.where(features > 2, np.nan, features), targets, target_of, split), "NaN"),
        ((features, np.full_like(targets, np.nan), target_of, split), "NaN"),
    ]:
        with pytest.raises(NeuroCanvasError, match=message):
            train_mapper(*bad, SPEC, SETTINGS)
