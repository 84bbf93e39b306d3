"""The lines of a script: open, split, fit, reconstruct, score; and live use of a saved decoder."""

from __future__ import annotations

import numpy as np
import pytest

import neurocanvas as nc
from neurocanvas.config import SplitSettings
from neurocanvas.encoders.linear import Ridge
from neurocanvas.pipeline.train import read_predictions

QUICK = {"evaluate": {"permutations": 99, "resamples": 100}}


@pytest.fixture(scope="module")
def trials(tiny_data):
    return nc.open_dataset("eeg-imagenet", tiny_data)


@pytest.fixture(scope="module")
def made(trials, tmp_path_factory):
    split = nc.make_split(trials, settings=SplitSettings(test_fraction=0.34, val_fraction=0.25))
    decoder = nc.Decoder("ridge", target="clip-text@bundled")
    folder = tmp_path_factory.mktemp("reconstruction") / "run"
    arms = ("eeg", "shuffled", "oracle")
    result = nc.reconstruct(
        trials, decoder, nc.load_generator("bundled", steps=2), split, arms, folder=folder, progress=False, **QUICK
    )
    return result, split, decoder


def test_a_script_gets_scores_images_an_audit_and_a_page(made, tmp_path):
    result, split, _ = made
    assert set(result.scores.index.get_level_values("arm")) == {"eeg", "shuffled", "oracle"}
    assert 0 <= result.scores.loc[("two_way", "eeg"), "value"] <= 1
    assert len(result.images("oracle")) == len(split[0].test) and "<table" in result._repr_html_()
    assert result.audit()["cases"][0]["results"][0]["model"] == "ridge"
    assert result.report(tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_the_decoder_of_a_run_predicts_one_window_without_data_or_run(made, trials, tmp_path):
    result, split, _ = made
    [saved] = (result.folder / "models").glob("ridge_*_model.safetensors")
    alone = nc.load_decoder(saved.rename(tmp_path / "decoder.safetensors"))
    window = trials[split[0].test].signal()[0].astype(np.float64) * 1e-6  # V, as MNE gives it
    predicted = alone.predict(window)
    saved.hardlink_to(tmp_path / "decoder.safetensors")
    from neurocanvas.config import load_settings
    from neurocanvas.pipeline.run import RunFolder

    whole = read_predictions(RunFolder(result.folder, load_settings(result.folder / "run.toml"), trials=trials), "0", 0)
    assert predicted.shape == (77, 768)
    np.testing.assert_allclose(predicted, whole[0][0], atol=1e-3)


def test_a_decoder_of_concepts_makes_no_images(made, trials):
    _, split, _ = made
    with pytest.raises(nc.NeuroCanvasError, match="its target is concept"):
        nc.reconstruct(trials, nc.Decoder("ridge"), nc.load_generator("bundled"), split)


class Flat:
    """A generator of one colour with a dark corner that takes image embeddings, and remembers their shapes."""

    accepts, size = ("clip-image",), 64

    def __init__(self, colour):
        self.colour, self.shapes = colour, set()

    def generate(self, conditions, seeds, init=None):
        self.shapes.add(conditions.shape[1:])
        images = np.full((len(seeds), self.size, self.size, 3), self.colour, np.uint8) + np.uint8(len(seeds) > 99)
        images[:, 0, 0] = 0
        return images


class Own(Ridge):
    """An encoder of somebody's own."""


@pytest.mark.filterwarnings("ignore")
def test_a_script_brings_its_own_encoder_parameters_and_generator(trials, tmp_path):
    split = nc.make_split(trials, settings=SplitSettings(test_fraction=0.34, val_fraction=0.25))
    decoder = nc.Decoder(Own, target="clip-image@bundled", n_components=3)
    dark, light = Flat(10), Flat(200)
    for generator in (dark, light):
        result = nc.reconstruct(
            trials, decoder, generator, split, ("eeg", "oracle"), folder=tmp_path / "run", progress=False, **QUICK
        )
        assert {int(image.max()) for image in result.images("oracle").values()} == {generator.colour}
        assert len(generator.shapes) == 1, "what is predicted and what is true come in one space"
    [model] = (tmp_path / "run" / "models").glob("*.safetensors")
    assert len(nc.load_decoder(model, Own).basis_.axes) == 3
    for wrong, said in (
        ({"arms": ("class-name",)}, "--arm class-name: .* Flat accepts clip-image"),
        ({"split": nc.make_split(trials, settings=SplitSettings(seed=5))}, "made with another split"),
        ({"decoder": nc.Decoder(Own, target="clip-image@bundled", n_components=4)}, "components: .* made with 3"),
        ({"split": split[0]}, "split: what make_split returns is needed; got Fold"),
        ({"generator": 3}, "generator: .*got int"),
    ):
        given = {"decoder": decoder, "generator": dark, "split": split, "arms": ("eeg",), **wrong}
        with pytest.raises(nc.NeuroCanvasError, match=said):
            nc.reconstruct(trials, **given, folder=tmp_path / "run", progress=False, **QUICK)
