"""Power spectra: true units, the tapers, and agreement with MNE and SciPy."""

from __future__ import annotations

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.features.entropy import band_power, bin_shares
from neurocanvas.features.spectrum import degrees_of_freedom, power_spectrum, tapers
from neurocanvas.montage import BANDS

WINDOWS = [(400, 1000.0), (102, 256.0), (501, 1000.0)]


@pytest.fixture
def noise() -> np.ndarray:
    """White noise of variance 9 µV² around 50 µV, (600, 2, 501)."""
    return 50 + 3 * np.random.default_rng(0).normal(size=(600, 2, 501))


def tone(frequency: float, n_times: int = 400, sfreq: float = 1000.0) -> np.ndarray:
    """A sine of power ½ in 32 phases, (32, n_times)."""
    phases = np.linspace(0, 2 * np.pi, 32, endpoint=False)[:, None]
    return np.sin(2 * np.pi * frequency * np.arange(n_times) / sfreq + phases)


@pytest.mark.parametrize("half_bandwidth", [1.5, 4.0])
@pytest.mark.parametrize(("n_times", "sfreq"), WINDOWS)
def test_equals_mne_multitaper_in_true_units(noise, n_times, sfreq, half_bandwidth):
    from mne.time_frequency import psd_array_multitaper

    signal = noise[:3, :, :n_times]
    freqs, psd = power_spectrum(signal, sfreq, half_bandwidth=half_bandwidth)
    bandwidth = 2 * half_bandwidth * sfreq / n_times
    expected, expected_freqs = psd_array_multitaper(
        signal, sfreq, bandwidth=bandwidth, normalization="full", verbose="error"
    )
    np.testing.assert_allclose(freqs, expected_freqs)
    np.testing.assert_allclose(psd, expected, rtol=1e-6)
    assert psd.dtype == np.float32


def test_one_taper_equals_scipy_periodogram(noise):
    from scipy.signal import periodogram

    signal = noise[:3, :, :400] - noise[:3, :, :400].mean(axis=-1, keepdims=True)
    window = tapers(400, 0.5)[0][0]
    freqs, psd = power_spectrum(signal, 1000.0, half_bandwidth=0.5)
    expected_freqs, expected = periodogram(signal, 1000.0, window=window, detrend=False)
    np.testing.assert_allclose(freqs, expected_freqs)
    np.testing.assert_allclose(psd, expected * (window @ window), rtol=1e-6)


@pytest.mark.parametrize(("n_times", "sfreq"), WINDOWS)
def test_integral_is_the_variance(noise, n_times, sfreq):
    freqs, psd = power_spectrum(noise[..., :n_times], sfreq)
    assert psd.sum(axis=-1).mean() * freqs[1] == pytest.approx(9.0, rel=0.02)


def test_offset_and_unit_do_not_matter(noise):
    signal = noise[:2, :, :400]
    _, psd = power_spectrum(signal, 1000.0)
    _, shifted = power_spectrum(signal + 1e4, 1000.0)
    _, volts = power_spectrum(signal * 1e-6, 1000.0)
    np.testing.assert_allclose(shifted, psd, rtol=1e-5)
    np.testing.assert_allclose(volts * 1e12, psd, rtol=1e-6)


def test_default_tapers_keep_a_tone_in_its_band_and_the_released_ones_do_not():
    shares = {}
    for half_bandwidth in (1.5, 4.0):
        freqs, psd = power_spectrum(tone(10.0), 1000.0, half_bandwidth=half_bandwidth)
        shares[half_bandwidth] = band_power(psd.mean(axis=0), freqs) / (psd.mean(axis=0).sum() * freqs[1])
    assert shares[1.5][2] == pytest.approx(0.691, abs=0.003)
    np.testing.assert_allclose(shares[4.0], [0.159, 0.222, 0.279, 0.332, 0.000], atol=0.002)


@pytest.mark.parametrize(("n_times", "sfreq"), WINDOWS)
def test_degrees_of_freedom_are_those_of_white_noise(noise, n_times, sfreq):
    freqs, psd = power_spectrum(noise[..., :n_times], sfreq)
    power = band_power(psd, freqs).reshape(-1, len(BANDS))
    measured = 2 * power.mean(axis=0) ** 2 / power.var(axis=0)
    freedom = degrees_of_freedom(n_times, bin_shares(freqs, BANDS))
    np.testing.assert_allclose(measured[1:], freedom[1:], rtol=0.2)  # delta loses what the mean takes


def test_number_of_tapers():
    assert [len(tapers(400, half_bandwidth)[0]) for half_bandwidth in (0.5, 1.5, 4.0)] == [1, 2, 7]
    windows, weights = tapers(400, 4.0)
    np.testing.assert_allclose(windows @ windows.T, np.eye(7), atol=0.003)
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("half_bandwidth", [0.2, 3.0])
def test_impossible_bandwidth(half_bandwidth):
    with pytest.raises(NeuroCanvasError, match="half_bandwidth"):
        power_spectrum(np.ones((1, 1, 6)), 1000.0, half_bandwidth=half_bandwidth)
