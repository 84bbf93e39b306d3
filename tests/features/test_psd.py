"""Power spectra: true units, the tapers, and agreement with MNE."""

import numpy as np
import pytest

from neurocanvas.data.montage import BANDS
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.features.differential_entropy import bin_shares
from neurocanvas.features.psd import RELEASED_HALF_BANDWIDTH, _transform, degrees_of_freedom, power_spectrum

WINDOWS = [(400, 1000.0), (102, 256.0), (501, 1000.0)]


@pytest.fixture
def noise() -> np.ndarray:
    """White noise of variance 9 µV² around 50 µV, (600, 2, 501)."""
    return 50 + 3 * np.random.default_rng(0).normal(size=(600, 2, 501))


def tone(frequency: float, n_times: int = 400, sfreq: float = 1000.0) -> np.ndarray:
    """A sine of power ½ in 32 phases, (32, n_times)."""
    phases = np.linspace(0, 2 * np.pi, 32, endpoint=False)[:, None]
    return np.sin(2 * np.pi * frequency * np.arange(n_times) / sfreq + phases)


@pytest.mark.parametrize("half_bandwidth", [0.5, 1.5, 4.0])
@pytest.mark.parametrize(("n_times", "sfreq"), WINDOWS)
def test_equals_mne_multitaper_in_true_units(noise, n_times, sfreq, half_bandwidth):
    from mne.time_frequency import psd_array_multitaper

    signal = noise[:3, :, :n_times]
    freqs, psd = power_spectrum(signal, sfreq, half_bandwidth=half_bandwidth)
    how = {"bandwidth": 2 * half_bandwidth * sfreq / n_times, "normalization": "full", "verbose": "error"}
    expected, expected_freqs = psd_array_multitaper(signal, sfreq, **how)
    np.testing.assert_allclose(freqs, expected_freqs)
    np.testing.assert_allclose(psd, expected, rtol=1e-5, atol=2e-9)  # one taper has bins near 0
    assert psd.dtype == np.float32


@pytest.mark.parametrize("half_bandwidth", [1.5, 4.0])
@pytest.mark.parametrize("added", ["nothing", "offset", "drift", "step"])
def test_float32_finds_gamma_beside_much_stronger_slow_power(added, half_bandwidth):
    from mne.time_frequency import psd_array_multitaper

    rng, slopes = np.random.default_rng(0), np.arange(1, 2050) ** -1.25  # power falls as frequency ** -2.5
    waves = rng.normal(size=(500, 2049)) + 1j * rng.normal(size=(500, 2049))
    signal = np.fft.irfft(waves * slopes)[:, :400]
    signal *= 20 / signal.std()
    time = np.arange(400) / 400
    signal += {"nothing": 0 * time, "offset": 0 * time + 1e4, "drift": 1e4 * time, "step": 1e3 * (time > 0.4)}[added]
    signal = signal.astype(np.float32)
    _, psd = power_spectrum(signal, 1000.0, half_bandwidth=half_bandwidth, highest=80.0)
    how = {"bandwidth": 5 * half_bandwidth, "fmax": 80.0, "normalization": "full", "verbose": "error"}
    exact = psd_array_multitaper(signal.astype(np.float64), 1000.0, **how)[0][:, 1:]
    assert np.median(exact[:, 0] / exact[:, -1]) > 1e3
    np.testing.assert_allclose(psd[:, 1:], exact, rtol=5e-4)
    gamma = slice(11, None)  # of the bins from 2.5 Hz on: those from 30 Hz
    np.testing.assert_allclose(psd[:, 1:][:, gamma].sum(axis=1), exact[:, gamma].sum(axis=1), rtol=2e-5)


@pytest.mark.parametrize("half_bandwidth", [1.5, 4.0])
@pytest.mark.parametrize(("n_times", "sfreq"), WINDOWS)
def test_fewer_bins_are_the_first_ones(noise, n_times, sfreq, half_bandwidth):
    signal = noise[:20, :, :n_times]
    freqs, psd = power_spectrum(signal, sfreq, half_bandwidth=half_bandwidth)
    few_freqs, few = power_spectrum(signal, sfreq, half_bandwidth=half_bandwidth, highest=80.0)
    step = freqs[1]
    np.testing.assert_array_equal(few_freqs, freqs[: len(few_freqs)])
    assert few_freqs[-1] - step / 2 < 80 <= few_freqs[-1] + step / 2
    np.testing.assert_allclose(few, psd[..., : len(few_freqs)], rtol=1e-4)


def test_blocks_do_not_show(noise, monkeypatch):
    _, psd = power_spectrum(noise[..., 40:440], 1000.0)
    monkeypatch.setattr("neurocanvas.features.psd.BLOCK", 7)
    np.testing.assert_allclose(power_spectrum(noise[..., 40:440], 1000.0)[1], psd, rtol=1e-4)


def test_few_coordinates_hold_all_tapers_and_bins():
    assert [factor.shape for factor in _transform(400, 4.0, 33)] == [(462, 84), (84, 400)]


def test_released_tapers_smear_over_20_hz():
    freqs, psd = power_spectrum(tone(50.0), 1000.0, half_bandwidth=RELEASED_HALF_BANDWIDTH)
    within = np.abs(freqs - 50) <= 10
    mean = psd.mean(axis=0)
    assert freqs[within].tolist() == np.arange(40, 61, 2.5).tolist()
    assert mean[within].sum() / mean.sum() > 0.99
    assert mean[np.abs(freqs - 50) <= 7.5].min() > 0.95 * mean.max()


def test_default_tapers_keep_a_tone_in_its_band_and_the_released_ones_do_not():
    shares = {}
    for half_bandwidth in (1.5, 4.0):
        freqs, psd = power_spectrum(tone(10.0), 1000.0, half_bandwidth=half_bandwidth)
        shares[half_bandwidth] = (psd.mean(axis=0) @ bin_shares(freqs, BANDS)) / (psd.mean(axis=0).sum() * freqs[1])
    assert shares[1.5][2] == pytest.approx(0.691, abs=0.003)
    np.testing.assert_allclose(shares[4.0], [0.159, 0.222, 0.279, 0.332, 0.000], atol=0.002)


@pytest.mark.parametrize(("n_times", "sfreq"), WINDOWS)
def test_degrees_of_freedom_are_those_of_white_noise(noise, n_times, sfreq):
    freqs, psd = power_spectrum(noise[..., :n_times], sfreq)
    power = (psd @ bin_shares(freqs, BANDS)).reshape(-1, len(BANDS))
    measured = 2 * power.mean(axis=0) ** 2 / power.var(axis=0)
    freedom = degrees_of_freedom(n_times, bin_shares(freqs, BANDS))
    np.testing.assert_allclose(measured[1:], freedom[1:], rtol=0.2)  # delta loses what the mean takes


@pytest.mark.parametrize("half_bandwidth", [0.2, 3.0])
def test_impossible_bandwidth(half_bandwidth):
    with pytest.raises(NeuroCanvasError, match="half_bandwidth"):
        power_spectrum(np.ones((1, 1, 6)), 1000.0, half_bandwidth=half_bandwidth)
