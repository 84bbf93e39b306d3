"""The lines of a script: open, split, fit, reconstruct, score; and live use of a saved decoder."""

from __future__ import annotations

import numpy as np
import pytest

import neurocanvas as nc
from neurocanvas.config import SplitSettings
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
    from neurocanvas.pipeline.run import Run

    whole = read_predictions(Run(result.folder, load_settings(result.folder / "run.toml"), trials=trials), "0", 0)
    assert predicted.shape == (77, 768)
    np.testing.assert_allclose(predicted, whole[0][0], atol=1e-3)


def test_a_decoder_of_concepts_makes_no_images(made, trials):
    _, split, _ = made
    with pytest.raises(nc.NeuroCanvasError, match="its target is concept"):
        nc.reconstruct(trials, nc.Decoder("ridge"), nc.load_generator("bundled"), split)
