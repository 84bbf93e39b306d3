"""What holds for every row of ENCODERS, and for a row that a test adds."""

import json
import pickle
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import tomli_w
import torch
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from tiny import Planted, trial_spec

from neurocanvas.data.arrays import from_arrays
from neurocanvas.data.trials import TrialSpec
from neurocanvas.decoder import Decoder, Embeddings, Window, _held_out, load_decoder
from neurocanvas.encoders import ENCODERS, Encoder, build, find_encoder
from neurocanvas.encoders.mlp import MLPSD
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets import TargetSpace

SPEC = TrialSpec(("O1", "OZ", "O2", "PO3", "PO4", "PZ"), 250.0, -0.1, 150)
QUICK = {"spec": SPEC, "window": (0.0, 0.4), "epochs": 40, "patience": 15, "batch_size": 32, "device": "cpu"}
N = 240
TEST = np.arange(N) % 5 == 4
CASES = [
    (name, kind, takes)
    for name, row in ENCODERS.items()
    for kind in ("concept", "embedding") if getattr(row, kind)
    for takes in row.inputs
]  # fmt: skip


def make_data(seed=0):
    """Trials in volts whose waves of 10, 20 and 45 Hz show a code; their concepts, and embeddings of images."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(N // 5), 5)
    code = (np.eye(3, 4)[:, np.arange(N // 5) % 4] + 0.3 * rng.normal(size=(3, N // 5))).T
    waves = np.sin(2 * np.pi * np.outer((10, 20, 45), np.arange(150) / 250)) * (np.arange(150) >= 25)
    x = (5 * rng.normal(size=(N, 6, 150)) + ((1.5 + 2 * code[image]) @ waves)[:, None]) * 1e-6
    table = (code @ rng.normal(size=(3, 20)) + 0.1 * rng.normal(size=(N // 5, 20)) + 1).reshape(-1, 4, 5)
    space = TargetSpace("clip-text", (4, 5), "none")
    names = [f"{one}.png" for one in range(N // 5)]
    y = Embeddings(space, names, table.astype(np.float32)).of([names[one] for one in image])
    return x, np.array(["cat", "dog", "owl", "bee"])[image % 4], y


X, Y, E = make_data()


def fitted(name, kind, takes="", **changes):
    """A decoder of one kind of target, fitted on the training trials."""
    parameters = {"encoder__input": takes} if takes and len(find_encoder(name, kind).inputs) > 1 else {}
    parameters |= {"encoder__n_estimators": 20} if name == "rf" else {}
    target = "concept" if kind == "concept" else "clip-text@none"
    decoder = Decoder(name, target, **{**QUICK, **parameters, **changes})
    return decoder.fit(X[~TEST], (Y if kind == "concept" else E)[~TEST])


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
    name, kind, takes = request.param
    return name, kind, fitted(name, kind, takes), (Y if kind == "concept" else E)


def test_it_finds_what_is_planted_and_the_mean_finds_nothing(case):
    name, kind, decoder, y = case
    reached = decoder.score(X[TEST], y[TEST])
    assert reached == 0.5 if name == "mean" else reached > {"concept": 0.5, "embedding": 0.7}[kind]


def test_predictions_have_their_shape_and_that_of_one_window_has_no_trials(case):
    _, kind, decoder, _ = case
    found = decoder.predict(X[TEST])
    shape = (48,) if kind == "concept" else (48, 4, 5)
    assert found.shape == shape
    numbers = decoder.decision_function if kind == "concept" else decoder.coordinates
    for one in (X[4], X[4, :, 25:125]):
        assert np.shape(decoder.predict(one)) == shape[1:]
        np.testing.assert_allclose(numbers(one), numbers(X[TEST])[0], rtol=1e-3, atol=1e-4)
    assert numbers(X[TEST]).shape[1] == (4 if kind == "concept" else len(decoder.basis_.target_sd))


def test_saved_pickled_printed_and_fitted_again_it_is_the_same(case, tmp_path):
    name, _, decoder, y = case
    decoder.save(tmp_path / "one.safetensors")
    loaded = load_decoder(tmp_path / "one.safetensors")
    again = clone(decoder).fit(X[~TEST], y[~TEST])
    for other in (loaded, pickle.loads(pickle.dumps(decoder)), again):
        np.testing.assert_array_equal(other.predict(X[TEST]), decoder.predict(X[TEST]))
    for number, other in enumerate((loaded, again)):
        other.save(tmp_path / f"{number}.safetensors")
        assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / f"{number}.safetensors").read_bytes()
    assert name in repr(decoder) or name == "mlp_sd"  # the default, which scikit-learn leaves out
    assert "Decoder" in decoder._repr_html_()
    assert str(loaded.encoder_) == str(decoder.encoder_)


def test_probabilities_of_concepts_are_there_where_the_encoder_has_them(case):
    name, kind, decoder, _ = case
    if kind == "embedding" or name in ("ridge", "svm"):
        with pytest.raises(AttributeError):
            decoder.predict_proba(X[TEST])
    else:
        shares = decoder.predict_proba(X[TEST])
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(decoder.classes_[shares.argmax(axis=1)], decoder.predict(X[TEST]))
    assert hasattr(decoder, "decision_function") == (kind == "concept")


def test_other_trials_are_refused_in_one_line_that_names_both(case):
    _, _, decoder, _ = case
    for bad, says in (
        (X[:3, :4], "6 channels"),
        (X[:3, :, :90], "150 samples, or the 100 of the window"),
        (X[0, 0], "6 channels"),
    ):
        with pytest.raises(NeuroCanvasError, match=says) as caught:
            decoder.predict(bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(NeuroCanvasError, match="arrays are in volts"):
        decoder.predict(X * 1e6)


def networks():
    """Name of every network of the registry."""
    for name, row in ENCODERS.items():
        what = Decoder(name, "concept" if row.concept else "a@b").encoder_class()[0]
        if issubclass(what, torch.nn.Module):
            yield name


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("n_chans", [62, 5])
def test_networks_take_any_number_of_channels_on_the_meta_device(name, n_chans):
    takes = ENCODERS[name].inputs[0]
    spec = trial_spec(n_chans, 400, n_bands=5 if takes == "features" else 0)
    module_class = Decoder(name, "concept" if ENCODERS[name].concept else "a@b").encoder_class()[0]
    network = build(module_class, spec, TargetSpace("concept", (7,)), {})
    assert type(network).__module__.startswith("neurocanvas.encoders") and pickle.loads(pickle.dumps(network))
    network = network.to("meta")
    x = torch.zeros(3, n_chans, 5 if takes == "features" else 400, device="meta", requires_grad=True)
    found = network(x)
    assert found.shape == (3, 7)
    if found.requires_grad:
        found.sum().backward()
        assert x.grad.shape == x.shape
        assert all(one.grad.shape == one.shape for one in network.parameters())


def test_scikit_learn_searches_and_validates():
    groups = np.arange(N) // 5
    decoder = Decoder("ridge", encoder__input="signal", **QUICK)
    assert cross_val_score(decoder, X, Y, groups=groups, cv=GroupKFold(3)).mean() > 0.5
    small = Decoder("mlp_sd", **{**QUICK, "epochs": 3})
    search = GridSearchCV(small, {"encoder__hidden": [(8,), (16,)], "patience": [2]}, cv=2).fit(X, Y)
    assert search.best_estimator_.encoder_.hidden in ((8,), (16,))
    of_images = Decoder("ridge", "clip-text@none", **QUICK)
    assert cross_val_score(of_images, X, E, groups=groups, cv=GroupKFold(3)).mean() > 0.7
    with pytest.raises(ValueError, match="epoch"):
        Decoder(epoch=3)


def test_trials_are_read_by_rows_and_others_are_refused():
    names, images = [*SPEC.ch_names], [f"{one // 5}.png" for one in range(N)]

    def trials(x=X, ch_names=names, sfreq=250.0, tmin=-0.1):
        return from_arrays(x, Y, ch_names=ch_names, sfreq=sfreq, tmin=tmin, metadata={"image": images})

    decoder = Decoder("ridge", **{**QUICK, "spec": None})
    seen = trials()
    assert cross_val_score(decoder, seen, seen.y, groups=seen.column("image"), cv=GroupKFold(3)).mean() > 0.5
    decoder.fit(seen[~TEST])
    np.testing.assert_array_equal(decoder.predict(seen[TEST]), fitted("ridge", "concept", "features").predict(X[TEST]))
    for other, says in (
        (trials(ch_names=names[::-1]), "channel 1 is PZ, .* on O1; reorder"),
        (trials(X[:, :4], names[:4]), "4 channels, .* on 6"),
        (trials(sfreq=200.0), r"200.0 Hz, .* on 250.0 Hz"), (trials(tmin=0.0), r"\(0.0, 0.6\) s of window, .* \(-0.1"),
    ):  # fmt: skip
        with pytest.raises(NeuroCanvasError, match=says) as caught:
            decoder.predict(other)
        assert "\n" not in str(caught.value)


class Linear(torch.nn.Module):
    """A network of somebody else."""

    input = "signal"

    def __init__(self, spec, target, bias=True):
        super().__init__()
        self.layer = torch.nn.Linear(len(spec.ch_names) * spec.n_times, target.shape[0], bias=bias)

    def forward(self, x):
        return self.layer(x.flatten(1))


@pytest.mark.parametrize("kind", ["concept", "embedding"])
def test_a_module_class_is_an_encoder_and_its_file_names_no_code_to_run(kind, tmp_path):
    decoder = fitted(Linear, kind, encoder__bias=False)
    assert decoder.score(X[TEST], (Y if kind == "concept" else E)[TEST]) > 0.5
    decoder.save(tmp_path / "one.safetensors")
    with pytest.raises(NeuroCanvasError, match="class Linear, not one of ENCODERS; pass it"):
        load_decoder(tmp_path / "one.safetensors")
    loaded = load_decoder(tmp_path / "one.safetensors", encoder=Linear)
    np.testing.assert_array_equal(loaded.predict(X[TEST]), decoder.predict(X[TEST]))


def test_an_estimator_of_scikit_learn_is_an_encoder(tmp_path):
    decoder = fitted(LogisticRegression(C=0.1), "concept", encoder__max_iter=300)
    assert decoder.get_params()["encoder__C"] == 0.1 and decoder.encoder_.max_iter == 300
    assert decoder.score(X[TEST], Y[TEST]) > 0.5
    decoder.save(tmp_path / "one.safetensors")
    np.testing.assert_array_equal(load_decoder(tmp_path / "one.safetensors").predict(X[TEST]), decoder.predict(X[TEST]))


def test_files_that_are_damaged_or_something_else_are_refused_in_one_line(tmp_path):
    path = tmp_path / "one.safetensors"
    fitted("ridge", "embedding").save(path)
    content, arrays = path.read_bytes(), load_file(path)
    sidecar = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    with pytest.raises(NeuroCanvasError, match="no such file; it should hold a trained decoder"):
        load_decoder(tmp_path / "none.safetensors")
    for damaged in (content[:300], b"no safetensors", b"", content.replace(b"ridge", b"rigid")):
        path.write_bytes(damaged)
        with pytest.raises(NeuroCanvasError, match=r"damaged, or not a decoder|got .rigid") as caught:
            load_decoder(path)
        assert "\n" not in str(caught.value)
    for name in ("target_axes", "target_mean", "input_sd", "module.coefficients", "prediction_sd"):
        bad = {key: array[..., :-1].copy() if key == name else array for key, array in arrays.items()}
        save_file(bad, path, sidecar)
        with pytest.raises(NeuroCanvasError, match=r"needed|do not fit|damaged"):
            load_decoder(path)


def test_an_estimator_of_types_that_are_not_trusted_is_refused(tmp_path):
    decoder = fitted("svm", "concept")
    decoder.encoder_ = Planted(tmp_path / "ran")
    decoder.save(tmp_path / "one.safetensors")
    with pytest.raises(NeuroCanvasError, match=r"holds the types tiny\.Planted, which are not trusted"):
        load_decoder(tmp_path / "one.safetensors")
    assert not (tmp_path / "ran").exists()


def test_without_validation_trials_the_last_images_of_every_concept_are_held_out():
    held = _held_out(X, Y)
    for concept in np.unique(Y):
        of_concept = np.flatnonzero(concept == Y)
        assert held[of_concept].sum() == 9 and held[of_concept[-9:]].all()
    by_image = _held_out(X, E)
    assert by_image[-35:].all() and by_image.sum() == 35
    decoder, own = Decoder("ridge", "clip-text@none", **QUICK), Decoder("ridge", "clip-text@none", **QUICK).fit(X, E)
    decoder.fit(X[~by_image], E[~by_image], validation=(X[by_image], E[by_image]))
    np.testing.assert_array_equal(decoder.predict(X[:5]), own.predict(X[:5]))


@pytest.mark.parametrize(("name", "allowed", "values"), [
    ("batch_size", "2", [1, 0]), ("epochs", "1", [0, -3]), ("epochs", "integer", ["3", 2.5]), ("seed", "0", [-1]),
    ("patience", "1", [0]), ("n_components", "1", [0, -5]), ("n_components", "integer", [2.5, None]),
    ("contrastive", "0", [-1]), ("temperature", "0", [0]), ("temperature", "finite", [np.inf]),
    ("mse", "finite", [np.inf]), ("window", "start, stop", [0.4, None, (0, np.nan)]),
    ("token_weights", "array", [3]), ("threads", "1", ["2", 0]), ("target", "clip-text", ["clip", None, "concept@x"]),
    ("encoder", "name", [torch.nn.Linear(3, 2), None, 3]), ("spec", "TrialSpec", [{}]), ("device", "cpu", [3]),
])  # fmt: skip
def test_parameters_out_of_bounds_are_refused_in_one_line(name, allowed, values):
    for value in values:
        with pytest.raises(NeuroCanvasError, match=rf"^{name}.*{allowed}.*; got") as caught:
            Decoder(**{**QUICK, name: value}).fit(X, Y)
        assert "\n" not in str(caught.value)
    with pytest.raises(NeuroCanvasError, match="must be above 0"):
        Decoder("mlp_sd", "clip-text", mse=0, contrastive=0, **QUICK).fit(X, E)


def test_bad_signal_labels_and_estimators_are_refused_in_one_line(tmp_path):
    broken, flat, gap = X.copy(), X.copy(), Y.astype(object)
    broken[7, 2, 60], flat[8, 1], gap[5] = np.inf, 0, None
    trials = from_arrays(X, Y, ch_names=SPEC.ch_names, sfreq=250.0, tmin=-0.1)
    fine = {name: Decoder(name, **{**QUICK, "epochs": 1}).fit(X, Y) for name in ("ridge", "eegnet")}
    for act, says in (
        (lambda: fine["ridge"].predict(broken), "trial 7: channel O2 is NaN"),
        (lambda: fine["eegnet"].predict(broken), "trial 7: channel O2 is NaN"),
        (lambda: clone(fine["eegnet"]).fit(broken, Y), "trial 7: channel O2 is NaN"),
        (lambda: clone(fine["ridge"]).fit(flat, Y), "trial 8: channel OZ is flat"),
        (lambda: fine["ridge"].predict(X[:0]), "got 0 trials"), (lambda: fine["ridge"].save(tmp_path), "is a folder"),
        (lambda: clone(fine["ridge"]).fit(X, gap), "none for trial 5"),
        (lambda: clone(fine["ridge"]).fit(X, Y[:, None]), r"got \(240, 1\)"),
        (lambda: clone(fine["ridge"]).fit(trials, Y, validation=trials), r"validation: pass \(X, y\)"),
        (lambda: fine["ridge"].score(X, np.arange(N)), "the decoder knows"),
        (lambda: Decoder("knn", encoder__n_neighbors=900, **QUICK).fit(X, Y), "encoder KNN: .*900"),
        (lambda: Decoder("svm", encoder__C=-3, **QUICK).fit(X, Y), "encoder SVM: .*'C'"),
    ):  # fmt: skip
        with pytest.raises(NeuroCanvasError, match=says) as caught:
            act()
        assert "\n" not in str(caught.value)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        Decoder(**QUICK).predict(X)


def test_labels_small_floats_seeds_and_loaded_decoders_mean_what_they_say(tmp_path):
    code = np.unique(Y, return_inverse=True)[1]
    trials = from_arrays(X, code, ch_names=SPEC.ch_names, sfreq=250.0, tmin=-0.1)
    decoder = Decoder("ridge", **QUICK).fit(trials)
    assert decoder.score(trials, code) == decoder.score(trials) > 0.5
    half = (1000 * X + 0.07).astype(np.float16)  # in µV more than float16 holds
    np.testing.assert_allclose(Window([half], SPEC, (0.0, 0.4)).read(), half[..., 25:125] * np.float64(1e6), rtol=1e-6)
    assert _held_out(trials, np.zeros(N))[-36:].all()  # by the concepts that were given
    decoder.save(tmp_path / "one.safetensors")
    assert load_decoder(tmp_path / "one.safetensors").fit(X, code).score(X, code) > 0.5
    assert cross_val_score(decoder.set_params(spec=SPEC), X, code > 1, scoring="roc_auc", cv=2).mean() > 0.8
    own = LogisticRegression(random_state=5, C=3)
    made = Decoder(own, encoder__C=0.1, **QUICK).fit(X, Y).encoder_
    assert (made.random_state, made.C, own.C) == (5, 0.1, 3)


def test_a_toy_encoder_is_one_row_and_runs_through_the_command_line(tiny_run, tmp_path, call, monkeypatch):
    monkeypatch.setitem(ENCODERS, "toy", Encoder("Toy*", Linear, Linear, ("signal",)))
    run, settings = tmp_path / "run", tmp_path / "settings.toml"
    kept = shutil.ignore_patterns("models", "predictions", "images", "scores", "run.toml", "*.html", "classification")
    shutil.copytree(tiny_run, run, ignore=kept)
    saved = tomllib.loads((tiny_run / "run.toml").read_text())
    saved = {key: value for key, value in saved.items() if key not in ("format", "used")}
    settings.write_text(tomli_w.dumps({**saved, "encoder": {**saved["encoder"], "name": "toy"}}))
    for verb in (("train", "--baselines", ""), ("predict",)):
        code, _, err = call(*verb, "-c", settings, "-o", run)
        assert code == 0, err
    assert [path.name for path in (run / "models").glob("*.safetensors")] == ["toy_s0_fold0_model.safetensors"]
    assert np.load(run / "predictions" / "s0.npy").ndim == 2
    code, out, err = call("classify", "-m", "toy", "-o", run)
    assert code == 0 and "Toy*" in out, err


def test_an_unknown_encoder_is_refused_before_anything_runs(tmp_path, call):
    code, _, err = call("run", "-m", "forest", "-d", tmp_path, "-o", tmp_path / "run")
    assert code == 2 and "--model: allowed are mlp_sd, mean, ridge" in err and "'forest'" in err


def test_the_registry_imports_no_network():
    program = "import sys, neurocanvas.encoders; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    assert find_encoder(MLPSD).inputs == ("features",)
