"""What holds for every mapper in MAPPERS."""

import numpy as np
import pytest
from neurocanvas.encoders.checkpoint import load_mapper, save_mapper
from neurocanvas.training.compare import train_mapper

from neurocanvas.config import EncoderSettings
from neurocanvas.data.splits import Split
from neurocanvas.encoders import MAPPERS, EEGSpec
from neurocanvas.errors import NeuroCanvasError

SPEC = EEGSpec(("O1", "Oz", "O2", "Pz"), ("alpha", "beta"), (7, 24))
SETTINGS = EncoderSettings(hidden=(24, 24), components=6, epochs=40, patience=15, batch_size=32, dropout=0.2)


def make_data(signal, seed=0):
    """Trials whose features hold `signal` parts of a code of four numbers that decides the target, and noise."""
    rng = np.random.default_rng(seed)
    code = rng.normal(size=(240, 4))
    targets = (code @ rng.normal(size=(4, 7 * 24)) + 0.1 * rng.normal(size=(240, 7 * 24)) + 3).reshape(-1, 7, 24)
    features = signal * code @ rng.normal(size=(4, 8)) + rng.normal(size=(240, 8))
    rows = rng.permutation(240)
    split = Split("by hand", rows[:140], rows[140:180], rows[180:], "40 trials")
    return (5 + 2 * features).reshape(-1, 4, 2), targets.astype(np.float32), np.arange(240), split


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """These networks are too small to share between threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def noise_scores():
    """Scores of all mappers where features and targets have nothing in common, for two sets of data."""
    return [train_mapper(*make_data(0.0, seed), SPEC, SETTINGS)[1]["scores"] for seed in (1, 2)]


@pytest.fixture(scope="module")
def data():
    return make_data(1.0)


@pytest.fixture(scope="module", params=MAPPERS)
def trained(request, data):
    """Name, mapper and card of every mapper, trained on easy data."""
    return request.param, *train_mapper(*data, SPEC, SETTINGS.model_copy(update={"name": request.param}))


def test_predictions_have_the_target_shape_and_are_repeatable(trained, data):
    _, mapper, _ = trained
    features = data[0]
    first = mapper.predict(features[:9])
    assert (first.shape, first.dtype) == ((9, 7, 24), np.float32)
    assert mapper.coordinates(features[:9]).shape == (9, len(mapper.basis.target_sd))
    assert np.array_equal(first, mapper.predict(features[:9]))
    np.testing.assert_allclose(first[4:5], mapper.predict(features[4:5]), atol=1e-5)


def test_training_again_gives_the_same_mapper(trained, data):
    name, mapper, card = trained
    again, card_again = train_mapper(*data, SPEC, SETTINGS.model_copy(update={"name": name}))
    assert np.array_equal(mapper.predict(data[0]), again.predict(data[0]))
    assert card == card_again


def test_saving_and_loading_changes_no_bit(trained, data, tmp_path):
    name, mapper, card = trained
    path = tmp_path / "model.safetensors"
    save_mapper(mapper, path, "0" * 16, card)
    loaded = load_mapper(path)
    assert type(loaded) is MAPPERS[name]
    assert loaded.spec == SPEC
    assert np.array_equal(loaded.predict(data[0]), mapper.predict(data[0]))
    assert np.array_equal(loaded.prediction_sd, mapper.prediction_sd)
    save_mapper(loaded, tmp_path / "again.safetensors", "0" * 16, card)
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_wrong_shapes_and_nan_are_refused_in_one_line(trained, data):
    _, mapper, _ = trained
    features = data[0].copy()
    features[3, 1, 0] = np.nan
    for bad, message in [
        (features[:, :3], r"4 channels, 2 bands"),
        (features.reshape(240, -1), r"got \(240, 8\)"),
        (features, "trial 3, channel Oz, band alpha"),
    ]:
        with pytest.raises(NeuroCanvasError, match=message) as caught:
            mapper.predict(bad)
        assert "\n" not in str(caught.value)


def test_it_beats_the_mean_where_there_is_signal(trained):
    name, mapper, card = trained
    scores = card["scores"]
    assert set(scores) == set(MAPPERS)
    if name == "mean":
        assert scores[name]["test_two_way"] == 0.5
        assert np.all(mapper.prediction_sd == 0)
    else:
        assert scores[name]["test_mse"] < 0.7 * scores["mean"]["test_mse"]
        assert scores[name]["test_two_way"] > 0.75
        shrinkage = np.sum(mapper.prediction_sd**2) / np.sum(mapper.basis.target_sd**2)
        assert 0.2 < shrinkage < 1.1


@pytest.mark.parametrize(
    "changes",
    [
        {"contrastive": 0.0},
        {"mse": 0.0},
        {"mse": 0.0, "contrastive": 0.0, "cosine": 1.0},
        {"cosine": 1.0},
        {"architecture": "released", "hidden": (24, 24)},
        {"token_weights": (1.0, 2.0, 0.5)},
    ],
    ids=str,
)
def test_every_loss_architecture_and_weighting_finds_the_signal(changes, data, tmp_path):
    mapper, card = train_mapper(*data, SPEC, SETTINGS.model_copy(update=changes))
    assert card["scores"]["mlp_sd"]["test_two_way"] > 0.8
    save_mapper(mapper, tmp_path / "model.safetensors", "0" * 16, card)
    assert np.array_equal(load_mapper(tmp_path / "model.safetensors").predict(data[0]), mapper.predict(data[0]))


@pytest.mark.parametrize("name", MAPPERS)
def test_without_signal_it_is_no_better_than_the_mean(name, noise_scores):
    ratio = np.mean([scores[name]["test_mse"] / scores["mean"]["test_mse"] for scores in noise_scores])
    assert ratio > 0.98
    assert abs(np.mean([scores[name]["test_two_way"] for scores in noise_scores]) - 0.5) < 0.08


def test_test_trials_influence_nothing_but_the_scores(trained, data):
    name, mapper, _ = trained
    features, targets, target_of, split = data
    changed, other = features.copy(), targets.copy()
    changed[split.test], other[split.test] = 1e3, -5
    again, _ = train_mapper(changed, other, target_of, split, SPEC, SETTINGS.model_copy(update={"name": name}))
    assert np.array_equal(again.predict(features), mapper.predict(features))
