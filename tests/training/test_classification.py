"""Training classifiers: what is chosen on which trials, what is refused, and that every classifier learns."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import released
import torch
from neurocanvas.encoders.estimators import CLASSIFIERS, Estimator, Network, TrialSpec
from neurocanvas.training.classification import HIDDEN, PRETRAINED_WARNING, accuracy_by_epoch, make_optimizer, score
from safetensors.numpy import save_file
from sklearn.svm import SVC
from tiny import Trap

from neurocanvas.config import ClassifySettings
from neurocanvas.data.montage import CH_NAMES
from neurocanvas.data.splits import Fold
from neurocanvas.encoders.rgnn import electrode_graph
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.training import classification

N, N_CLASSES = 240, 4
QUICK = ClassifySettings(epochs=30, patience=10, batch_size=32)
SPLIT = Fold("by hand", np.arange(0, 140), np.arange(140, 180), np.arange(180, N), "trials 140 to 179")


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
    return x.astype(np.float32), y, TrialSpec(CH_NAMES, 1000.0, x.shape[2], N_CLASSES)


X, Y, SPEC = make_data("features")


def train(name, x, y, split, spec, settings):
    """Train as the stages do: without the labels of the test trials."""
    known = y.copy()
    known[split.test] = HIDDEN
    return classification.train_classifier(name, x, known, split, spec, settings)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_learns_what_is_there_and_diagnosing_its_selection_changes_nothing(name):
    x, y, spec = make_data(CLASSIFIERS[name].takes)
    outcome = train(name, x, y, SPLIT, spec, QUICK)
    assert outcome.scores.shape == (60, N_CLASSES) and outcome.scores.dtype == np.float32
    reached = score(outcome, y[180:])
    assert reached["selected"] == np.mean(outcome.scores.argmax(axis=1) == y[180:]) > 0.45
    assert outcome.seconds > 0 and set(reached) == {"selected", "final"}
    diagnosed = train(name, x, y, SPLIT, spec, QUICK.model_copy(update={"diagnose_selection": True}))
    np.testing.assert_array_equal(outcome.scores, diagnosed.scores)
    by_epoch = accuracy_by_epoch(diagnosed, y[180:])
    tried = [line.get("epoch", line.get("candidate")) for line in diagnosed.history]
    final = tried.index(diagnosed.chosen) if isinstance(CLASSIFIERS[name], Estimator) else -1
    assert len(by_epoch) == len(tried) and by_epoch[tried.index(diagnosed.chosen)] == reached["selected"]
    assert score(diagnosed, y[180:]) == {**reached, "final": by_epoch[final], "best_on_test": max(by_epoch)}


@pytest.mark.parametrize("name", ["eegnet", "svm"])
def test_test_trials_are_predicted_at_the_end_alone_unless_selection_is_diagnosed(name, monkeypatch):
    """Counted: 5 epochs and the selected one's last epoch; 4 candidates of SVM."""
    x, y, spec = make_data(CLASSIFIERS[name].takes)
    tested = []
    watched = {"eegnet": "evaluate", "svm": "class_scores"}[name]
    real = getattr(classification, watched)

    def watching(model, inputs, rows):
        tested.append(len(rows) == 60 if name == "eegnet" else len(inputs) == 60)
        return real(model, inputs, rows)

    monkeypatch.setattr(classification, watched, watching)
    for diagnose, expected in ((False, {"eegnet": 2, "svm": 1}), (True, {"eegnet": 7, "svm": 5})):
        tested.clear()
        train(name, x, y, SPLIT, spec, QUICK.model_copy(update={"epochs": 5, "diagnose_selection": diagnose}))
        assert sum(tested) == expected[name]
        assert not any(tested[: -expected[name]]) or diagnose


def test_labels_of_test_trials_are_refused_in_training():
    with pytest.raises(NeuroCanvasError, match="y: labels of test trials must be -1"):
        classification.train_classifier("ridge", X, Y, SPLIT, SPEC, QUICK)


@pytest.mark.parametrize("name", ["mlp", "svm"])
def test_test_trials_do_not_enter_the_standardisation(name):
    moved = X.copy()
    moved[200:] *= 100
    first, second = (train(name, data, Y, SPLIT, SPEC, QUICK) for data in (X, moved))
    np.testing.assert_array_equal(first.scores[:20], second.scores[:20])


def test_the_epoch_is_the_most_accurate_on_validation_trials_and_patience_ends_it():
    outcome = train("mlp", X, Y, SPLIT, SPEC, ClassifySettings(epochs=200, patience=8))
    losses = [line["val_loss"] for line in outcome.history]
    right = [line["val_accuracy"] for line in outcome.history]
    assert right[outcome.chosen - 1] == max(right)
    assert losses[outcome.chosen - 1] == min(np.extract(np.equal(right, max(right)), losses))
    assert len(losses) - 8 == max(outcome.chosen, 1 + int(np.argmin(losses))) < 192


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_callers_random_state_alone():
    before = torch.get_rng_state()
    first, second = (train("rgnn", X, Y, SPLIT, SPEC, ClassifySettings(epochs=3)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first.scores, second.scores)
    third = train("rgnn", X, Y, SPLIT, SPEC, ClassifySettings(epochs=3, seed=1))
    assert np.abs(third.scores - first.scores).max() > 0


@pytest.mark.parametrize("name", ["mlp", "svm"])
def test_the_trials_of_others_help_where_ones_own_are_few(name):
    few = Fold("alone", np.arange(100, 124), SPLIT.validation, SPLIT.test, "")
    right = []
    for split in (few, replace(few, name="with others", pretrain=np.arange(100))):
        seeds = [QUICK.model_copy(update={"seed": seed}) for seed in range(3 if name == "mlp" else 1)]
        outcomes = [train(name, X, Y, split, SPEC, settings) for settings in seeds]
        right.append(np.mean([score(outcome, Y[SPLIT.test])["selected"] for outcome in outcomes]))
    assert right[1] > right[0] + 0.05
    if name == "mlp":
        assert {line["phase"] for line in outcomes[0].history} == {"pretrain", "train"}


def test_domain_adaptation_reads_the_features_of_test_trials():
    settings = ClassifySettings(epochs=4, domain_adaptation=True)
    moved = X.copy()
    moved[180:] *= 2
    first, second = (train("rgnn", data, Y, SPLIT, SPEC, settings).weights["fc.weight"] for data in (X, moved))
    assert np.abs(first - second).max() > 1e-4


def test_domain_adaptation_and_edge_penalty_change_the_training_of_rgnn_alone():
    plain = ClassifySettings(epochs=4)
    for change in ({"domain_adaptation": True}, {"edge_penalty": 10.0}, {"rgnn_layout": "scrambled"}):
        changed = plain.model_copy(update=change)
        rgnn = [train("rgnn", X, Y, SPLIT, SPEC, settings).scores for settings in (plain, changed)]
        assert np.abs(rgnn[0] - rgnn[1]).max() > 1e-4, change
        mlp = [train("mlp", X, Y, SPLIT, SPEC, settings).scores for settings in (plain, changed)]
        np.testing.assert_array_equal(*mlp)


def test_the_edge_penalty_shrinks_edges():
    asked = [ClassifySettings(epochs=10, edge_penalty=penalty) for penalty in (0.0, 100.0)]
    edges = [train("rgnn", X, Y, SPLIT, SPEC, settings).weights["edge_weight"] for settings in asked]
    assert np.abs(edges[1]).mean() < np.abs(edges[0]).mean() - 0.005


class Watching(torch.nn.Module):
    """A small network on signal that keeps what it is trained on."""

    def __init__(self, spec):
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(len(spec.ch_names), spec.n_outputs), []

    def forward(self, x):
        if self.training:
            self.seen.append(x)
        return self.layer(x.mean(dim=2))


@pytest.fixture
def watching(monkeypatch):
    """Networks that were built for the classifier `watching`, and 3 epochs for the released 1000."""
    assert classification.RELEASED_EPOCHS == 1000
    monkeypatch.setattr(classification, "RELEASED_EPOCHS", 3)
    built = []

    def build(spec, settings):
        built.append(Watching(spec))
        return built[-1]

    kind = Network("Watching", "signal", build, released=("sgd", 1e-2, 1e-3))
    monkeypatch.setattr(classification, "find_classifier", {"watching": kind, **CLASSIFIERS}.__getitem__)
    return built


def test_the_released_recipe_gives_volts_and_does_not_choose(watching):
    signal, y, spec = make_data("signal")
    outcome = train("watching", signal, y, SPLIT, spec, ClassifySettings(recipe="released", epochs=1))
    seen = torch.cat(watching[0].seen).numpy().reshape(3, 180, 62, 400)  # three epochs of train and val
    for epoch in seen:
        in_order = np.argsort(epoch[:, 0, 0])
        expected = signal[:180][np.argsort(signal[:180, 0, 0])] / 1e6
        np.testing.assert_allclose(epoch[in_order], expected, rtol=1e-5)
    assert outcome.chosen == 3 and set(outcome.history[0]) == {"phase", "epoch", "train_loss"}
    np.testing.assert_array_equal(outcome.final, outcome.scores.argmax(axis=1))


def test_the_released_recipe_fits_one_estimator_to_features_as_they_are():
    outcome = train("svm", X, Y, SPLIT, SPEC, ClassifySettings(recipe="released"))
    assert outcome.chosen == 1.0 and set(outcome.history[0]) == {"candidate"}
    flat = X.reshape(N, -1)
    expected = SVC(kernel="linear", C=1.0).fit(flat[:180], Y[:180]).decision_function(flat[180:])
    np.testing.assert_allclose(outcome.scores, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["eegnet", "mlp", "rgnn"])
def test_the_released_recipe_has_the_released_optimisers(name):
    theirs = {"eegnet": released.EEGNet, "mlp": released.MLP, "rgnn": lambda n: released.RGNN(electrode_graph(), n)}
    expected = released.make_optimizer(theirs[name](4))
    found = make_optimizer(torch.nn.Linear(2, 2), CLASSIFIERS[name], ClassifySettings(recipe="released"))
    assert type(found) is type(expected)
    for option in {"lr", "weight_decay", "momentum", "betas", "nesterov"} & set(expected.defaults):
        assert found.defaults[option] == expected.defaults[option], option


def test_by_default_every_channel_of_the_signal_is_standardised_on_training_trials(watching):
    signal, y, spec = make_data("signal")
    weights = train("watching", signal, y, SPLIT, spec, QUICK).weights
    assert weights["sd"].shape == (62, 1)
    np.testing.assert_allclose(weights["sd"][:, 0], signal[:140].std(axis=(0, 2)), rtol=1e-4)
    first = torch.cat(watching[0].seen[:5]).numpy()
    np.testing.assert_allclose(first.mean(axis=(0, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(first.std(axis=(0, 2)), 1, rtol=1e-3)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_training_can_start_from_saved_weights_and_says_so(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(classification, "RELEASED_EPOCHS", 1)
    trained = train("mlp", X, Y, SPLIT, SPEC, QUICK)
    path = tmp_path / f"mlp{suffix}"
    if suffix == ".pth":
        state = {name: torch.from_numpy(a) for name, a in trained.weights.items() if name not in ("mean", "sd")}
        state["l1.weight"] = state["l1.weight"].reshape(-1, 62, 5).transpose(1, 2).reshape(-1, 310)  # band-major
        torch.save(state, path)
    else:
        save_file(dict(trained.weights), path)
    settings = ClassifySettings(epochs=1, recipe="released" if suffix == ".pth" else "default")
    fresh = train("mlp", X, Y, SPLIT, SPEC, settings)
    from_file = settings.model_copy(update={"pretrained": str(path)})
    again = train("mlp", X, Y, SPLIT, SPEC, from_file)
    assert again.history[0]["train_loss"] < fresh.history[0]["train_loss"] - 0.3
    assert (again.warnings, fresh.warnings) == ((PRETRAINED_WARNING,), ())
    assert train("ridge", X, Y, SPLIT, SPEC, from_file).warnings == ()  # no network, nothing is loaded


def test_bad_weights_are_refused_in_one_line_and_run_no_code(tmp_path):

    def start_from(path):
        return train("mlp", X, Y, SPLIT, SPEC, ClassifySettings(recipe="released", pretrained=str(path)))

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


def test_a_single_concept_is_refused():
    for name in ("svm", "mlp"):
        with pytest.raises(NeuroCanvasError, match="training trials of 2 or more concepts are needed, got 1"):
            train(name, X, np.zeros_like(Y), SPLIT, replace(SPEC, n_outputs=1), QUICK)


@pytest.mark.parametrize(("n", "recipe", "tried"), [(20, "default", [17, 9, 5, 3, 1]), (2, "released", [3])])
def test_knn_asks_for_no_more_neighbours_than_there_are_training_trials(n, recipe, tried):
    few = Fold("few", np.arange(n), np.arange(140, 140 + n // 2), np.flatnonzero(np.isin(Y, Y[:n]))[-20:], "")
    outcome = train("knn", X, Y, few, SPEC, ClassifySettings(recipe=recipe))
    assert [line["candidate"] for line in outcome.history] == tried


def test_in_volts_the_first_batchnorm_of_eegnet_is_all_epsilon(test_data):
    trial = np.load(test_data / "eeg_imagenet_trials" / "trials.npz")["trial0_volts"][:, 40:440]
    network = CLASSIFIERS["eegnet"].build(TrialSpec(CH_NAMES, 1000.0, 400, 80), QUICK)
    kernels = network.conv1.weight.detach().numpy().reshape(8, -1)
    filtered = [np.convolve(channel, kernel, "same") for channel in trial for kernel in kernels]
    assert np.mean(np.var(filtered, axis=1)) < 1e-5 * network.bn1.eps
