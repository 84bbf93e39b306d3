"""Decoders of concepts: what is chosen on which trials, what is refused, and that every encoder learns."""

import pickle

import numpy as np
import pytest
import released
import torch
from sklearn.svm import SVC
from tiny import Trap, trial_spec

from neurocanvas import decoder
from neurocanvas.data.montage import CH_NAMES
from neurocanvas.decoder import Decoder
from neurocanvas.encoders import ENCODERS
from neurocanvas.encoders.eegnet import EEGNet
from neurocanvas.encoders.rgnn import electrode_graph
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.training import loop

N, N_CLASSES = 240, 4
QUICK = {"epochs": 30, "patience": 10, "batch_size": 32, "device": "cpu"}
PARTS = {"train": np.arange(0, 140), "validation": np.arange(140, 180)}
TEST = np.arange(180, N)
NAMES = [name for name, row in ENCODERS.items() if row.concept and name != "mlp_sd"]


def make_data(takes, signal=1.5, seed=0):
    """Trials whose occipital gamma (or whose 20 Hz amplitude there) tells the concept."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(N) % N_CLASSES)
    strength = np.linspace(-1, 1, N_CLASSES)[y]
    where = np.array([name.startswith(("O", "PO")) for name in CH_NAMES])
    if takes == "features":
        x = rng.normal(5, 1, (N, 62, 5))
        x[:, where, 4] += signal * strength[:, None]
    else:
        wave = np.sin(2 * np.pi * 20 * np.arange(400) / 1000)
        x = rng.normal(0, 10, (N, 62, 400))
        x[:, where] += 10 * signal * strength[:, None, None] * wave
    return x.astype(np.float32), y


X, Y = make_data("features")
SIGNAL, Y_SIGNAL = make_data("signal")


def fit(name, x=X, y=Y, *, parts=PARTS, diagnose=False, adapt_to=None, start="", **changes):
    """Fit as `classify` does: without the labels of the test trials."""
    known = y.copy()
    known[TEST] = -1
    made = Decoder(name, "concept", **{**QUICK, **changes})
    return made.fit_prepared(
        x, known, trial_spec(), **parts, watch=TEST, watch_epochs=diagnose, adapt_to=adapt_to, start=start
    )


def right(scores, rows=TEST, y=Y):
    return np.mean(scores.argmax(axis=1) == y[rows])


@pytest.mark.parametrize("name", NAMES)
def test_every_encoder_learns_what_is_there_and_watching_the_test_trials_changes_nothing(name):
    x, y = (X, Y) if ENCODERS[name].inputs[0] == "features" else (SIGNAL, Y_SIGNAL)
    plain, watched = fit(name, x, y), fit(name, x, y, diagnose=True)
    scores = plain.outputs(x[TEST])
    assert scores.shape == (60, N_CLASSES) and scores.dtype == np.float32
    assert right(scores, y=y) > 0.45
    np.testing.assert_array_equal(scores, watched.outputs(x[TEST]))
    tried = [line.get("epoch", line.get("candidate")) for line in watched.history_]
    assert len(watched.every_) == len(tried) and plain.every_ == []
    np.testing.assert_array_equal(watched.every_[tried.index(watched.chosen_)], scores.argmax(axis=1))
    if plain.is_module_:
        np.testing.assert_array_equal(plain.final_, watched.every_[-1])


@pytest.mark.parametrize("name", ["eegnet", "svm"])
def test_test_trials_are_predicted_at_the_end_alone_unless_they_are_watched(name, monkeypatch):
    """Counted: the last of 5 epochs; of SVM, which has 4 candidates, none."""
    tested = []
    watched = {"eegnet": (loop, "evaluate"), "svm": (decoder, "_concept_scores")}[name]
    real = getattr(*watched)

    def watching(model, inputs, rows):
        tested.append(len(rows if name == "eegnet" else inputs) == 60)
        return real(model, inputs, rows)

    monkeypatch.setattr(*watched, watching)
    x, y = (SIGNAL, Y_SIGNAL) if name == "eegnet" else (X, Y)
    for diagnose, expected in ((False, {"eegnet": 1, "svm": 0}), (True, {"eegnet": 6, "svm": 4})):
        tested.clear()
        fit(name, x, y, epochs=5, diagnose=diagnose)
        assert sum(tested) == expected[name]


@pytest.mark.parametrize("name", ["mlp", "svm"])
def test_test_trials_do_not_enter_the_standardisation(name):
    moved = X.copy()
    moved[200:] *= 100
    first, second = (fit(name, data).outputs(data[180:200]) for data in (X, moved))
    np.testing.assert_array_equal(first, second)


def test_the_epoch_has_the_lowest_loss_on_validation_trials_and_patience_ends_it():
    made = fit("mlp", epochs=200, patience=8, batch_size=80)
    losses = [line["val_loss"] for line in made.history_]
    accurate = [(line["val_accuracy"], -line["val_loss"]) for line in made.history_]
    assert losses[made.chosen_ - 1] == min(losses)
    assert len(losses) - 8 == max(made.chosen_, 1 + accurate.index(max(accurate))) < 192


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_callers_random_state_alone():
    before = torch.get_rng_state()
    first, second, third = (fit("rgnn", epochs=3, seed=seed).outputs(X) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first, second)
    assert np.abs(third - first).max() > 0


@pytest.mark.parametrize("name", ["mlp", "svm"])
def test_the_trials_of_others_help_where_ones_own_are_few(name):
    few = {**PARTS, "train": np.arange(100, 124)}
    reached = []
    for parts in (few, {**few, "pretrain": np.arange(100)}):
        made = [fit(name, parts=parts, seed=seed) for seed in range(3 if name == "mlp" else 1)]
        reached.append(np.mean([right(one.outputs(X[TEST])) for one in made]))
    assert reached[1] > reached[0] + 0.05
    if name == "mlp":
        assert {line["phase"] for line in made[0].history_} == {"pretrain", "train"}


def test_domain_adaptation_reads_the_features_of_test_trials():
    moved = X.copy()
    moved[180:] *= 2
    first, second = (
        fit("rgnn", data, epochs=4, adapt_to=TEST, encoder__domain_adaptation=True).encoder_.fc.weight
        for data in (X, moved)
    )
    assert (first - second).abs().max() > 1e-4


def test_domain_adaptation_edge_penalty_and_layout_change_the_training_of_rgnn():
    plain = fit("rgnn", epochs=4).outputs(X)
    for change in ({"domain_adaptation": True}, {"edge_penalty": 10.0}, {"layout": "scrambled"}):
        changed = {f"encoder__{name}": value for name, value in change.items()}
        assert np.abs(fit("rgnn", epochs=4, adapt_to=TEST, **changed).outputs(X) - plain).max() > 1e-4, change


def test_the_edge_penalty_shrinks_edges():
    edges = [fit("rgnn", epochs=10, encoder__edge_penalty=penalty).encoder_.edge_weight for penalty in (0.0, 100.0)]
    assert edges[1].abs().mean() < edges[0].abs().mean() - 0.005


class Watching(torch.nn.Module):
    """A small network on signal that keeps what it is trained on."""

    input = "signal"
    seen: list = []  # noqa: RUF012

    def __init__(self, spec, target):
        super().__init__()
        self.layer = torch.nn.Linear(len(spec.ch_names), target.shape[0])
        Watching.seen = []

    def forward(self, x):
        if self.training:
            Watching.seen.append(x)
        return self.layer(x.mean(dim=2))


def test_the_released_recipe_gives_volts_and_does_not_choose(monkeypatch):
    assert decoder.RELEASED_EPOCHS == 1000
    monkeypatch.setattr(decoder, "RELEASED_EPOCHS", 3)
    made = fit(Watching, SIGNAL, Y_SIGNAL, recipe="released", epochs=1, batch_size=80)
    seen = torch.cat(Watching.seen).numpy().reshape(3, 180, 62, 400)  # three epochs of train and validation
    for epoch in seen:
        in_order = np.argsort(epoch[:, 0, 0])
        expected = SIGNAL[:180][np.argsort(SIGNAL[:180, 0, 0])] / 1e6
        np.testing.assert_allclose(epoch[in_order], expected, rtol=1e-5)
    assert made.chosen_ == 3 and set(made.history_[0]) == {"phase", "epoch", "train_loss"}
    np.testing.assert_array_equal(made.final_, made.outputs(SIGNAL[TEST]).argmax(axis=1))


def test_the_released_recipe_fits_one_estimator_to_features_as_they_are():
    made = fit("svm", recipe="released")
    assert made.chosen_ == 1.0 and set(made.history_[0]) == {"candidate"}
    flat = X.reshape(N, -1)
    expected = SVC(kernel="linear", C=1.0).fit(flat[:180], Y[:180]).decision_function(flat[180:])
    np.testing.assert_allclose(made.outputs(X[TEST]), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["eegnet", "mlp", "rgnn"])
def test_the_released_recipe_has_the_released_optimisers(name):
    theirs = {"eegnet": released.EEGNet, "mlp": released.MLP, "rgnn": lambda n: released.RGNN(electrode_graph(), n)}
    expected = released.make_optimizer(theirs[name](4))
    found = Decoder(name, recipe="released")._recipe(torch.nn.Linear(2, 2))[-1]
    assert type(found) is type(expected)
    for option in {"lr", "weight_decay", "momentum", "betas", "nesterov"} & set(expected.defaults):
        assert found.defaults[option] == expected.defaults[option], option


def test_by_default_every_channel_of_the_signal_is_standardised_on_training_trials():
    made = fit(Watching, SIGNAL, Y_SIGNAL)
    assert made.sd_.shape == (62, 1)
    np.testing.assert_allclose(made.sd_[:, 0], SIGNAL[:140].std(axis=(0, 2)), rtol=1e-4)
    first = torch.cat(Watching.seen[:5]).numpy()
    np.testing.assert_allclose(first.mean(axis=(0, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(first.std(axis=(0, 2)), 1, rtol=1e-3)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_training_can_start_from_saved_weights_and_says_so(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(decoder, "RELEASED_EPOCHS", 1)
    trained, path = fit("mlp"), tmp_path / f"mlp{suffix}"
    if suffix == ".pth":
        state = dict(trained.encoder_.state_dict())
        state["l1.weight"] = state["l1.weight"].reshape(-1, 62, 5).transpose(1, 2).reshape(-1, 310)  # band-major
        torch.save(state, path)
    else:
        trained.save(path)
    how = {"epochs": 1, "batch_size": 80, "recipe": "released" if suffix == ".pth" else "default"}
    fresh, again = fit("mlp", **how), fit("mlp", start=str(path), **how)
    assert again.history_[0]["train_loss"] < fresh.history_[0]["train_loss"] - 0.3
    assert (again.findings_, fresh.findings_) == (["pretrained-unknown"], [])
    assert fit("ridge", start=str(path), **how).findings_ == []  # no network, nothing is loaded


def test_bad_weights_are_refused_in_one_line_and_run_no_code(tmp_path):
    def start_from(path):
        return fit("mlp", recipe="released", start=str(path))

    with pytest.raises(NeuroCanvasError, match="no such file"):
        start_from(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"l1.weight": torch.zeros(3, 3)}, tmp_path / "small.pth")
    with (tmp_path / "code.pth").open("wb") as stream:
        pickle.dump(Trap(tmp_path / "ran"), stream)
    torch.save({"l1.weight": Trap(tmp_path / "ran")}, tmp_path / "code2.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    torch.save({"l1.weight": [0.0]}, tmp_path / "value.pth")
    torch.save({0: torch.zeros(3)}, tmp_path / "number.pth")
    says = {"tensor": ".*allowed is a state dict.*got a Tensor", "list": ".*allowed is a state dict.*got a list"}
    for name in ("text", "small", "code", "code2", "tensor", "list", "value", "number"):
        with pytest.raises(NeuroCanvasError, match=f"{name}.pth{says.get(name, '')}") as caught:
            start_from(tmp_path / f"{name}.pth")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_single_concept_and_labels_that_do_not_fit_are_refused():
    for name in ("svm", "mlp"):
        with pytest.raises(NeuroCanvasError, match="training trials of 2 or more concepts are needed, got 1"):
            fit(name, y=np.zeros_like(Y))
    with pytest.raises(NeuroCanvasError, match="one target for each of 240 trials is needed; got 239"):
        Decoder("ridge").fit_prepared(X, Y[:-1], trial_spec(), **PARTS)
    with pytest.raises(NeuroCanvasError, match=r"features: NaN or infinite at trial 3, channel FP1, band delta"):
        fit("ridge", np.where(np.arange(N)[:, None, None] == 3, np.nan, X))
    with pytest.raises(NeuroCanvasError, match=r"shape \(n, 62 channels, 5 bands\) is needed; got \(240, 61, 5\)"):
        fit("ridge", X[:, 1:])


@pytest.mark.parametrize(("n", "recipe", "tried"), [(20, "default", [17, 9, 5, 3, 1]), (2, "released", [3])])
def test_knn_asks_for_no_more_neighbours_than_there_are_training_trials(n, recipe, tried):
    few = {"train": np.arange(n), "validation": np.arange(140, 140 + n // 2)}
    made = fit("knn", parts=few, recipe=recipe)
    assert [line["candidate"] for line in made.history_] == tried


def test_in_volts_the_first_batchnorm_of_eegnet_is_all_epsilon(test_data):
    from neurocanvas.targets import TargetSpace

    trial = np.load(test_data / "eeg_imagenet_trials" / "trials.npz")["trial0_volts"][:, 40:440]
    network = EEGNet(trial_spec(n_times=400), TargetSpace("concept", (80,)))
    kernels = network.conv1.weight.detach().numpy().reshape(8, -1)
    filtered = [np.convolve(channel, kernel, "same") for channel in trial for kernel in kernels]
    assert np.mean(np.var(filtered, axis=1)) < 1e-5 * network.bn1.eps
