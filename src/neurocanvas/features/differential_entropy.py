"""Power spectral density to differential entropy per channel and band; the released formula beside it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neurocanvas.config import FeatureSettings
from neurocanvas.data.montage import BANDS
from neurocanvas.data.trials import Trials, TrialSpec
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.features.psd import RELEASED_HALF_BANDWIDTH, degrees_of_freedom, power_spectrum
from neurocanvas.features.window import Window

# Volts per µV: the released features were made on the file's own unit.
VOLTS = 1e-6

# Added to the PSD before the logarithm in the released code.
RELEASED_EPSILON = 1e-10


def usable_bands(bands: Mapping[str, tuple[float, float]], spec: TrialSpec) -> dict[str, tuple[float, float]]:
    """The bands, by default `BANDS`, that lie below half the sampling rate and below the recorded low-pass."""
    wanted = {name: (float(low), float(high)) for name, (low, high) in (bands or BANDS).items()}
    highest = min(spec.sfreq / 2, spec.lowpass or np.inf)
    usable = {name: edges for name, edges in wanted.items() if edges[1] <= highest}
    if not usable:
        raise NeuroCanvasError(
            f"features.bands: none of {', '.join(wanted)} lies below {highest:g} Hz, where these recordings end; set "
            "others."
        )
    return usable


def bin_shares(freqs: np.ndarray, bands: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """Hz of each frequency bin that lie in each half-open band [low, high): (n_freqs, n_bands)."""
    # A bin covers half the spacing on both sides, so bands that tile the axis neither lose nor double any power.
    spacing = freqs[1] - freqs[0]
    for name, (low, high) in bands.items():  # a band covered only in part would not be comparable
        if high > freqs[-1] + spacing / 2:
            raise NeuroCanvasError(
                f"band {name} ({low:g}-{high:g} Hz) needs signal sampled at {2 * high:g} Hz or more; "
                f"this one ends at {freqs[-1]:g} Hz. Use recordings with a higher sampling rate."
            )
    lows, highs = np.array(list(bands.values())).T
    below, above = np.maximum(freqs - spacing / 2, 0)[:, None], (freqs + spacing / 2)[:, None]
    shares = np.maximum(np.minimum(above, highs) - np.maximum(below, lows), 0)
    shares[freqs == 0] *= 2  # DC covers only half a bin, with all of its power
    return shares


def differential_entropy(power: np.ndarray) -> np.ndarray:
    """Entropy of a Gaussian band signal of that power in µV², ½ ln(2πe·power), in nats [Duan2013]."""
    power = np.asarray(power, dtype=np.float64)
    bad = ~(np.isfinite(power) & (power > 0))
    if bad.any():
        raise NeuroCanvasError(
            f"power: every value must be finite and above 0 µV²; got {power[bad][0]} "
            f"({bad.sum()} of {power.size} values). Leave out flat or broken channels."
        )
    return 0.5 * np.log(2 * np.pi * np.e * power)


def gaussian_entropy(
    signal: np.ndarray, sfreq: float, bands: Mapping[str, tuple[float, float]] = BANDS
) -> np.ndarray:
    """Differential entropy in nats without short-window bias: µV (..., n_chans, n_times) -> (..., n_chans, n_bands)."""
    # Valid for bands at least 1 / window length wide that start above it: white noise comes out within .05 nats. 400 ms
    # do not resolve delta (.5-4 Hz): removing the mean costs .2 nats, and theta leaks in. Read it as "slow".
    from scipy.special import digamma

    freqs, psd = power_spectrum(signal, sfreq, highest=_highest(bands))
    shares = bin_shares(freqs, bands)
    half = degrees_of_freedom(signal.shape[-1], shares) / 2
    # The log of a χ² estimate is too low by ln(ν/2) - ψ(ν/2) on average (half of it is .10 nats in theta after 400 ms).
    # Added back, it is unbiased for a Gaussian [Ahmed1989], and windows of different length can be compared.
    return differential_entropy(psd.astype(np.float64) @ shares) + 0.5 * (np.log(half) - digamma(half))


def _highest(bands: Mapping[str, tuple[float, float]]) -> float:
    """Hz; the spectrum above it is not computed."""
    return max(high for _, high in bands.values())


def released_entropy(
    signal: np.ndarray, sfreq: float, bands: Mapping[str, tuple[float, float]] = BANDS
) -> np.ndarray:
    """Feature of the released `de_feat_cal.py`, Σ ln(PSD + 1e-10) over a band's bins: (n_trials, n_chans, n_bands)."""
    # No differential entropy (DIFFERENCES.md): V², not per Hz, and closed bands, so that the bin at 30 Hz counts twice.
    freqs, psd = power_spectrum(signal, sfreq, half_bandwidth=RELEASED_HALF_BANDWIDTH, highest=_highest(bands))
    inside = np.stack([(freqs >= low) & (freqs <= high) for low, high in bands.values()], axis=-1)
    for (name, (low, high)), bins in zip(bands.items(), inside.T, strict=True):
        if high > sfreq / 2 or not bins.any():
            raise NeuroCanvasError(
                f"band {name} ({low:g}-{high:g} Hz) needs signal sampled at {2 * high:g} Hz or more, and a window with "
                f"a frequency bin in it; this one ends at {sfreq / 2:g} Hz and has {1 / freqs[1]:.3f} s "
                "(features.tmin, features.tmax)."
            )
    logarithms = np.log(psd.astype(np.float64) * (sfreq * VOLTS**2) + RELEASED_EPSILON)
    return logarithms @ inside.astype(np.float64)


# What `features.method` may name.
METHODS = {"gaussian": gaussian_entropy, "eeg-imagenet": released_entropy}

# Unit of each method.
UNITS = {"gaussian": "nats", "eeg-imagenet": "sum of ln PSD over bins, PSD in V² as MNE's normalization=length"}


def extract(trials: Trials, settings: FeatureSettings) -> np.ndarray:
    """Compute the features of all trials: (n_trials, n_chans, n_bands), float32."""
    edges = settings.tmin, settings.tmax
    window = Window([trials], trials.spec, edges, flat=False, name="features.tmin, features.tmax")
    return band_features(window, settings.method, trials.spec.sfreq, usable_bands(settings.bands, trials.spec))


def band_features(
    window: Window, method: str, sfreq: float, bands: Mapping[str, tuple[float, float]] = BANDS
) -> np.ndarray:
    """Compute features by one of `METHODS`, a chunk of trials at a time."""
    features = np.empty((*window.shape[:2], len(bands)), np.float32)
    for rows in window.chunks():
        features[rows] = METHODS[method](window[rows], sfreq, bands)
    return features
