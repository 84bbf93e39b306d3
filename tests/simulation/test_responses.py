"""What images change in simulated EEG: readable from the features, the time course or both, at the amplitude of EEG."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import neurocanvas as nc
from neurocanvas import cli
from neurocanvas.config import SimulateSettings
from neurocanvas.data.montage import POSITIONS
from neurocanvas.report.text import decodability
from neurocanvas.simulation import eeg
from neurocanvas.simulation.dataset import GROUPS, draw_stimuli, simulate
from neurocanvas.simulation.decodability import measure, read_out


def measured(folder, **options):
    """Decodability of a simulation with these settings."""
    settings = SimulateSettings(**options)
    simulate(settings, folder)
    return measure(folder, settings)


@pytest.fixture(scope="module")
def by_response(tmp_path_factory):
    """Decodability of 900 single trials of each response at the default signal."""
    return {
        name: measured(tmp_path_factory.mktemp(name), response=name) for name in ("induced", "evoked", "mixed")
    }  # fmt: skip


def test_power_is_read_from_features_and_phase_from_the_time_course(by_response):
    two_way = {
        name: tuple(result[part]["two_way"] for part in ("differential_entropy", "time_course"))
        for name, result in by_response.items()
    }
    # one subject and seed; over seeds two-way without a response has a standard deviation of about .01
    assert two_way["induced"][0] > 0.8 and 0.5 < two_way["induced"][1] < 0.6
    assert abs(two_way["evoked"][0] - 0.5) < 0.03 and two_way["evoked"][1] > 0.57
    assert two_way["mixed"][0] > 0.8 and two_way["mixed"][1] > 0.55


def test_five_percent_per_channel_and_band_is_far_more_of_the_concept_code(by_response):
    induced = by_response["induced"]
    assert induced["explained_variance"] == pytest.approx(induced["reached"]) == 0.05
    assert 0.15 < induced["differential_entropy"]["concept_r2"] < 0.3
    assert abs(by_response["evoked"]["differential_entropy"]["concept_r2"]) < 0.01


def test_without_a_response_nothing_is_read(tmp_path):
    result = measured(tmp_path, response="evoked", explained_variance=0.0, concepts=6, trials_per_concept=40)
    for part in ("differential_entropy", "time_course"):
        assert abs(result[part]["two_way"] - 0.5) < 0.06 and abs(result[part]["concept_r2"]) < 0.02


def test_ridge_is_tested_on_other_images_only():
    """Features that name the image, not its code: read only by whoever trains on the tested image."""
    rng = np.random.default_rng(0)
    codes, image = rng.normal(size=(60, 20)), np.repeat(np.arange(60), 4)
    result = read_out(np.eye(60)[image] + 0.01 * rng.normal(size=(240, 60)), codes, image)
    assert abs(result["two_way"] - 0.5) < 0.1 and result["concept_r2"] < 0.05
    assert read_out(codes[image], codes, image)["two_way"] > 0.99


def test_the_phase_of_a_response_leaves_its_power_in_every_band():
    turned = np.exp(1j * np.linspace(0, 2 * np.pi, 13))[:, None, None] * eeg.PHASE_WAVES
    power = np.abs(np.fft.rfft(turned.real)) ** 2
    bands = np.add.reduceat(power, [0, 2, 4, 7, 15], axis=-1)
    assert np.ptp(bands, axis=0).max() < 0.02 * bands.sum(axis=-1).max()


def test_noise_is_shared_by_neighbours_as_in_real_trials():
    """Components for 99 % of the variance above 20 Hz; `tools/plot_simulated.py` prints 24 to 30 for real trials."""
    images = np.array([stimulus.parameters for stimulus in draw_stimuli(SimulateSettings())])
    components = {}
    for response in ("induced", "evoked"):
        brain = eeg.make_brain(0, 0, GROUPS, images, 0.0, response)
        drift = eeg.draw_drift(brain, 10, rng=np.random.default_rng(0))
        trials = eeg.record(brain, drift, images[:10], rngs=[np.random.default_rng([1, trial]) for trial in range(10)])
        spectrum = np.fft.rfft(trials)[..., 10:41]  # 20-80 Hz
        values = np.linalg.eigvalsh(np.einsum("tcf,tdf->tcd", spectrum, spectrum.conj()).real)[:, ::-1]
        components[response] = np.median((np.cumsum(values, axis=1) < 0.99 * values.sum(axis=1)[:, None]).sum(axis=1))
    assert 24 <= components["evoked"] <= 33 < components["induced"]
    mixing = brain.noise_mixing @ brain.noise_mixing.T
    order = np.linalg.norm(POSITIONS - POSITIONS[0], axis=1).argsort()
    assert mixing[0, order[1]] > 0.3 and abs(mixing[0, order[-1]]) < 1e-3
    np.testing.assert_allclose(np.diag(mixing), 1, rtol=1e-5)


SMALL = {"concepts": 3, "trials_per_concept": 20}
OPTIONS = [
    *({"response": name, "explained_variance": signal, **SMALL}
      for name in ("induced", "evoked", "mixed") for signal in (0.0, 0.5, 1.0)),
    {"explained_variance": 0.05, "concepts": 2, "trials_per_concept": 2, "incomplete": True},
    {"explained_variance": 0.5, "concepts": 2, "trials_per_concept": 20, "incomplete": True},
    {"explained_variance": 1.0, "concepts": 2, "trials_per_concept": 2, "response": "mixed", "subjects": 2},
    {"explained_variance": 0.5, "design": "block", "repeats": 3, "stages": 2, "incomplete": True, **SMALL},
    {"explained_variance": 1.0, "concepts": 20, "trials_per_concept": 3, "stages": 2, "subjects": 5, "seed": 7},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_is_written_can_be_opened_at_the_amplitude_of_eeg(tmp_path, options):
    result = measured(tmp_path, **options)
    trials = nc.open_dataset("eeg-imagenet", tmp_path)
    assert len(trials) == SimulateSettings(**options).n_trials
    microvolts = trials.signal().std(axis=(1, 2))
    assert microvolts.min() > 1 and microvolts.max() < 500
    said = "would not have the amplitude of EEG" in " ".join(decodability(result))
    assert said == (result["reached"] < 0.95 * options["explained_variance"])
    assert ("time_course" in result) == (result["n_images"] >= 10)


def test_simulate_prints_and_writes_the_decodability(tmp_path):
    words = ["simulate", "-o", str(tmp_path), "--concepts", "3", "--trials", "20", "--signal", ".5"]
    shown = " ".join(CliRunner().invoke(cli.app, words).output.split())
    assert "two-way" in shown and "not 0.5" in shown
    assert str(CliRunner().invoke(cli.app, [*words, "--signal", "2"]).exception).startswith("--signal: ")
    written = json.loads((tmp_path / "decodability.json").read_text())
    assert json.loads(CliRunner().invoke(cli.app, [*words, "--json"]).output)["decodability"] == written
