"""Differential entropy: white noise has the entropy that it should, the released formula equals MNE's."""

import numpy as np
import pytest
from scipy.special import digamma

from neurocanvas.config import DataSettings, FeatureSettings
from neurocanvas.data import open_trials
from neurocanvas.data.montage import BANDS
from neurocanvas.data.trials import Trials, TrialSpec, make_metadata
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.features.differential_entropy import (
    METHODS,
    RELEASED_EPSILON,
    UNITS,
    bin_shares,
    differential_entropy,
    extract,
    gaussian_entropy,
    released_entropy,
)
from neurocanvas.features.psd import RELEASED_HALF_BANDWIDTH, degrees_of_freedom, power_spectrum

WIDTHS = np.array([high - low for low, high in BANDS.values()])


def trials_of(signal: np.ndarray, *, sfreq: float = 1000.0, tmin: float = 0.0) -> Trials:
    """Trials that read from an array, and fail on a whole-table read of more than a chunk."""
    spec = TrialSpec(tuple(f"C{channel}" for channel in range(signal.shape[1])), sfreq, tmin, signal.shape[2])
    metadata = make_metadata({"order": np.arange(len(signal))})
    return Trials(metadata, spec, lambda rows: signal[rows].astype(np.float32), "test")


def noise(n_trials: int, n_chans: int, n_times: int, *, sd: float = 10.0) -> np.ndarray:
    return sd * np.random.default_rng(1).normal(size=(n_trials, n_chans, n_times))


@pytest.fixture(scope="module")
def real_trial(test_data) -> np.ndarray:
    """The window of a real EEG-ImageNet trial, (62, 400), volts."""
    with np.load(test_data / "eeg_imagenet_trials" / "trials.npz") as arrays:
        return arrays["trial0_volts"][:, 40:440]


def mne_feature(volts: np.ndarray, sfreq: float, *, epsilon: float = RELEASED_EPSILON) -> tuple[np.ndarray, list[int]]:
    """The released feature as MNE computes it, and the number of bins per band."""
    import mne

    info = mne.create_info(volts.shape[1], sfreq, "eeg")
    epochs = mne.EpochsArray(volts, info, verbose="error")
    sums, bins = [], []
    for low, high in BANDS.values():
        psd = epochs.compute_psd(fmin=low, fmax=high, verbose="error").get_data()
        sums.append(np.log(psd + epsilon).sum(axis=-1))
        bins.append(psd.shape[-1])
    return np.stack(sums, axis=-1), bins


@pytest.mark.parametrize(("n_times", "sfreq", "resolved"), [(400, 1000.0, 1), (102, 256.0, 1), (1024, 256.0, 0)])
def test_white_noise_has_its_entropy(n_times, sfreq, resolved):
    expected = 0.5 * np.log(2 * np.pi * np.e * 100 * WIDTHS / (sfreq / 2))
    measured = gaussian_entropy(noise(500, 4, n_times), sfreq).mean(axis=(0, 1))
    np.testing.assert_allclose(measured[resolved:], expected[resolved:], atol=0.05)


def test_without_the_correction_a_short_window_reads_too_low():
    freqs, psd = power_spectrum(noise(500, 4, 400), 1000.0)
    power = psd @ bin_shares(freqs, BANDS)
    expected = 0.5 * np.log(2 * np.pi * np.e * 100 * WIDTHS / 500)
    # 400 ms do not resolve delta
    assert gaussian_entropy(noise(500, 4, 400), 1000.0)[..., 0].mean() == pytest.approx(expected[0] - 0.21, abs=0.05)
    assert differential_entropy(power)[..., 1].mean() == pytest.approx(expected[1] - 0.10, abs=0.03)
    np.testing.assert_allclose(differential_entropy(power.mean(axis=(0, 1)))[1:], expected[1:], atol=0.02)


def test_gaussian_entropy_is_that_of_the_float64_spectrum(real_trial):
    from mne.time_frequency import psd_array_multitaper

    signal = np.concatenate([real_trial[None] * 1e6, real_trial[None] * 1e6 + 1e4 * np.linspace(0, 1, 400)])
    psd, freqs = psd_array_multitaper(signal, 1000.0, bandwidth=7.5, normalization="full", verbose="error")
    half = degrees_of_freedom(400, bin_shares(freqs, BANDS)) / 2
    expected = differential_entropy(psd @ bin_shares(freqs, BANDS)) + 0.5 * (np.log(half) - digamma(half))
    np.testing.assert_allclose(gaussian_entropy(signal.astype(np.float32), 1000.0), expected, atol=1e-4)


def test_doubling_the_amplitude_adds_ln_2():
    once, twice = (gaussian_entropy(factor * noise(2, 3, 400), 1000.0) for factor in (1, 2))
    np.testing.assert_allclose(twice - once, np.log(2), atol=1e-6)


def test_bands_that_tile_the_axis_share_out_all_power():
    freqs, psd = power_spectrum(noise(3, 2, 400), 1000.0)
    parts = psd @ bin_shares(freqs, {"low": (0.0, 7.0), "middle": (7.0, 31.3), "high": (31.3, 501.25)})
    np.testing.assert_allclose(parts.sum(axis=-1), psd.sum(axis=-1) * freqs[1], rtol=1e-6)
    # a bin is split at the edge of a band
    assert bin_shares(np.arange(5) * 2.5, {"delta": (0.5, 4.0)})[:, 0].tolist() == [1.5, 2.5, 0.25, 0.0, 0.0]


def test_released_formula_equals_mne_on_simulated_trials(tiny_data):
    trials = open_trials(DataSettings(name="eeg-imagenet", root=str(tiny_data)))
    volts = trials.signal()[..., 40:440].astype(np.float64) * 1e-6
    expected, bins = mne_feature(volts, 1000.0)
    np.testing.assert_allclose(extract(trials, FeatureSettings(method="eeg-imagenet")), expected, rtol=1e-5)
    assert len(expected) == 24 and bins == [1, 2, 2, 7, 21]


@pytest.mark.parametrize(("n_times", "sfreq"), [(0, 1000.0), (400, 1000.0), (102, 256.0), (501, 1000.0)])
def test_released_formula_equals_mne_on_a_real_trial_and_on_noise(n_times, sfreq, request):
    signal = noise(3, 4, n_times) if n_times else request.getfixturevalue("real_trial")[None] * 1e6
    expected, bins = mne_feature(signal * 1e-6, sfreq)
    np.testing.assert_allclose(released_entropy(signal, sfreq), expected, rtol=1e-5)
    assert bins == [1, 2, 2, 7, 21] or signal.shape[-1] != 400


def test_released_formula_counts_30_hz_twice_and_its_psd_is_not_per_hertz(real_trial):
    from mne.time_frequency import psd_array_multitaper

    length, freqs = psd_array_multitaper(real_trial, 1000.0, normalization="length", verbose="error")
    full, _ = psd_array_multitaper(real_trial, 1000.0, normalization="full", verbose="error")
    variance = real_trial.var(axis=-1)
    assert np.mean(length.sum(axis=-1) * freqs[1] / variance) == pytest.approx(1009, abs=1)
    assert np.mean(full.sum(axis=-1) * freqs[1] / variance) == pytest.approx(1.009, abs=0.001)
    counted = [((freqs >= low) & (freqs <= high)).sum() for low, high in BANDS.values()]
    assert sum(counted) == ((freqs >= 0.5) & (freqs <= 80)).sum() + 1


def test_epsilon_bends_the_released_feature_most_where_power_is_low(real_trial):
    with_epsilon, _ = mne_feature(real_trial[None], 1000.0)
    without, _ = mne_feature(real_trial[None], 1000.0, epsilon=0.0)
    correlation = [np.corrcoef(with_epsilon[0, :, band], without[0, :, band])[0, 1] for band in range(len(BANDS))]
    np.testing.assert_allclose(correlation, [0.998, 0.998, 0.997, 0.990, 0.975], atol=0.001)
    shift = (with_epsilon - without)[0].mean(axis=0) / [1, 2, 2, 7, 21]  # of the logarithm of one bin
    np.testing.assert_allclose(shift, [0.104, 0.130, 0.201, 0.467, 0.857], atol=0.001)


def test_half_of_the_gamma_bins_of_a_real_trial_lie_below_the_epsilon(real_trial):
    _, psd = power_spectrum(real_trial[None] * 1e6, 1000.0, half_bandwidth=RELEASED_HALF_BANDWIDTH, highest=80.0)
    below = psd[0, :, 12:] * 1000.0 * 1e-12 < RELEASED_EPSILON
    assert below.mean() == pytest.approx(0.515, abs=0.002)


@pytest.mark.parametrize("method", list(METHODS))
def test_extract_is_the_method_on_the_window_whatever_the_chunk(method, monkeypatch):
    signal, settings = noise(7, 3, 501).astype(np.float32), FeatureSettings(method=method)
    assert UNITS.keys() == METHODS.keys() and (UNITS[method] == "nats") == (method == "gaussian")
    features = extract(trials_of(signal), settings)
    assert features.shape == (7, 3, 5) and features.dtype == np.float32
    np.testing.assert_allclose(features, METHODS[method](signal[..., 40:440], 1000.0), rtol=1e-6)
    monkeypatch.setattr("neurocanvas.features.window.CHUNK", 3)
    np.testing.assert_allclose(extract(trials_of(signal), settings), features, rtol=1e-6)


def test_window_counts_from_the_onset():
    signal = noise(2, 1, 358)
    features = extract(trials_of(signal, sfreq=256.0, tmin=-102 / 256), FeatureSettings(tmin=0.0, tmax=0.4))
    np.testing.assert_allclose(features, gaussian_entropy(signal[..., 102:204].astype(np.float32), 256.0), rtol=1e-6)


@pytest.mark.parametrize(("tmin", "tmax"), [(-0.1, 0.3), (0.2, 0.6), (0.3, 0.3)])
def test_window_must_lie_inside_the_trials(tmin, tmax):
    with pytest.raises(NeuroCanvasError, match=r"the trials hold 0\.000 to 0\.501 s"):
        extract(trials_of(noise(2, 1, 501)), FeatureSettings(tmin=tmin, tmax=tmax))


@pytest.mark.parametrize(
    ("times", "value", "problem"),
    # a single sample is enough
    [*((100, value, "NaN") for value in (np.nan, np.inf, -np.inf)), (slice(None), np.inf, "NaN"),
     (slice(None), 0.1, "flat")],
)  # fmt: skip
def test_bad_channels_are_named(times, value, problem):
    signal = noise(4, 3, 501)
    signal[2, 1, times] = value
    with pytest.raises(NeuroCanvasError, match=rf"trial 0/0/0002: channel C1 is {problem}"):
        extract(trials_of(signal), FeatureSettings())


def test_power_that_has_no_entropy_and_windows_without_bands_are_refused():
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(NeuroCanvasError, match="power"):
            differential_entropy(np.array([1.0, bad]))
    slow = trials_of(noise(2, 1, 128), sfreq=128.0)
    for method in METHODS:
        assert extract(slow, FeatureSettings(method=method, tmin=0.0, tmax=1.0)).shape[2] == 4, "128 Hz hold no gamma"
    with pytest.raises(NeuroCanvasError, match=r"none of high lies below 64 Hz"):
        extract(slow, FeatureSettings(bands={"high": (30, 80)}, tmin=0.0, tmax=1.0))
    with pytest.raises(NeuroCanvasError, match=r"gamma \(30-80 Hz\).*160 Hz or more.*64 Hz"):
        gaussian_entropy(noise(1, 1, 128), 128.0)
    with pytest.raises(NeuroCanvasError, match="delta"):
        released_entropy(noise(1, 1, 100), 1000.0)
