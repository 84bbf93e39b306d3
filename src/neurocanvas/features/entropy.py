"""Power spectral density to differential entropy per channel and band; the released formula beside it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neurocanvas.config import FeatureSettings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.features.spectrum import RELEASED_HALF_BANDWIDTH, degrees_of_freedom, power_spectrum
from neurocanvas.montage import BANDS
from neurocanvas.trials import Trials

CHUNK = 128
"""Trials transformed at once; at 62 channels and 400 samples a chunk needs about 30 MB."""

HIGHEST = max(high for _, high in BANDS.values())
"""Hz; the spectrum above is not computed."""

VOLTS = 1e-6
"""Volts per µV: the released features were made on the file's own unit."""

RELEASED_EPSILON = 1e-10
"""Added to the PSD before the logarithm in the released code."""


def bin_shares(freqs: np.ndarray, bands: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """Tell how many Hz of each frequency bin lie in each half-open band [low, high).

    A bin covers half the spacing on both sides of its centre; DC covers half a bin with all of its power. So
    bands that tile the frequency axis share out the power without losing or doubling any.

    Parameters
    ----------
    freqs : array, shape (n_freqs,), in Hz
        Bin centres, evenly spaced from 0.
    bands : dict of str to (low, high), in Hz
        The bands.

    Returns
    -------
    array, shape (n_freqs, n_bands), in Hz
        Integration weights: band power is ``psd @ shares``.

    Examples
    --------
    >>> bin_shares(np.arange(4) * 2.5, {"theta": (4.0, 8.0)}).T
    array([[0.  , 0.  , 2.25, 1.75]])
    """
    freqs = np.asarray(freqs, dtype=np.float64)
    spacing = freqs[1] - freqs[0]
    low, high = np.array(list(bands.values())).T
    below = np.maximum(freqs - spacing / 2, 0)[:, None]
    above = (freqs + spacing / 2)[:, None]
    shares = np.clip(np.minimum(above, high) - np.maximum(below, low), 0, None)
    shares[freqs == 0] *= 2
    return shares


def band_power(
    psd: np.ndarray, freqs: np.ndarray, bands: Mapping[str, tuple[float, float]] = BANDS
) -> np.ndarray:
    """Integrate the power spectral density over each half-open band [low, high).

    Parameters
    ----------
    psd : array, shape (..., n_freqs), in µV²/Hz
        One-sided, as `power_spectrum` gives it.
    freqs : array, shape (n_freqs,), in Hz
        Bin centres, evenly spaced from 0.
    bands : dict of str to (low, high), in Hz
        The bands.

    Returns
    -------
    array, shape (..., n_bands), float64, in µV²

    Raises
    ------
    NeuroCanvasError
        If a band reaches beyond the highest frequency.

    Examples
    --------
    >>> freqs = np.arange(0, 126, 2.5)
    >>> band_power(np.ones(len(freqs)), freqs).tolist()
    [4.25, 4.0, 5.0, 17.0, 50.0]
    """
    freqs = np.asarray(freqs)
    check_bands(bands, nyquist=freqs[-1] + (freqs[1] - freqs[0]) / 2)
    return np.asarray(psd, dtype=np.float64) @ bin_shares(freqs, bands)


def check_bands(bands: Mapping[str, tuple[float, float]], *, nyquist: float) -> None:
    """Raise if a band reaches beyond half the sampling frequency.

    Parameters
    ----------
    bands : dict of str to (low, high), in Hz
        The bands.
    nyquist : float
        Half the sampling frequency, Hz.

    Raises
    ------
    NeuroCanvasError
        Naming the first such band; filling it with less than it says would make recordings incomparable.
    """
    for name, (low, high) in bands.items():
        if high > nyquist:
            raise NeuroCanvasError(
                f"band {name} ({low:g}-{high:g} Hz) needs signal sampled at {2 * high:g} Hz or more; "
                f"this one ends at {nyquist:g} Hz. Use recordings with a higher sampling rate."
            )


def differential_entropy(power: np.ndarray) -> np.ndarray:
    """Entropy of a Gaussian band signal, ½ ln(2πe·power), in nats [Duan2013]_.

    Parameters
    ----------
    power : array, any shape, in µV², > 0
        Variance of the signal in the band.

    Returns
    -------
    array, same shape, in nats
        Relative to a standard deviation of 1 µV.

    Raises
    ------
    NeuroCanvasError
        If a power is zero, negative or not finite: a flat channel has no entropy.

    References
    ----------
    .. [Duan2013] Duan, Zhu, Lu: Differential entropy feature for EEG-based emotion classification. NER 2013.

    Examples
    --------
    >>> differential_entropy(np.array([1.0, 100.0])).round(3).tolist()
    [1.419, 3.722]
    """
    power = np.asarray(power, dtype=np.float64)
    bad = ~(np.isfinite(power) & (power > 0))
    if bad.any():
        raise NeuroCanvasError(
            f"power: every value must be finite and above 0 µV²; got {power[bad][0]} "
            f"({bad.sum()} of {power.size} values). Leave out flat or broken channels."
        )
    return 0.5 * np.log(2 * np.pi * np.e * power)


def gaussian_entropy(signal: np.ndarray, sfreq: float) -> np.ndarray:
    """Differential entropy per band, ½ ln(2πe·power) without the bias of a short window.

    The logarithm of an estimated power is too low on average, by ln(ν/2) - ψ(ν/2) for a χ² estimate with ν
    degrees of freedom; half of that is missing in the entropy (.10 nats in theta after 400 ms). It is added
    back, with the ν that white noise has in this window: one constant per band, which gives the unbiased
    estimate of a Gaussian's entropy [Ahmed1989]_ and lets windows of different length be compared.

    Parameters
    ----------
    signal : array, shape (n_trials, n_chans, n_times), in µV
        The window.
    sfreq : float
        Sampling frequency, Hz.

    Returns
    -------
    array, shape (n_trials, n_chans, n_bands), in nats

    Raises
    ------
    NeuroCanvasError
        If a channel is flat or a band lies above half the sampling frequency.

    Notes
    -----
    White noise of variance σ² gives ½ ln(2πe σ² · width / (sfreq / 2)) ± .05 in every band that is at least
    as wide as 1 / window length and starts above it. A window of 400 ms does not resolve delta (.5-4 Hz):
    its 1.4 bins lose what the removed mean takes (.2 nats of white noise), and hold what leaks in from
    theta. Read it as "slow".

    References
    ----------
    .. [Ahmed1989] Ahmed, Gokhale: Entropy expressions and their estimators for multivariate distributions.
       IEEE Transactions on Information Theory 35, 1989.
    """
    from scipy.special import digamma

    freqs, psd = power_spectrum(signal, sfreq, highest=HIGHEST)
    half = degrees_of_freedom(signal.shape[-1], bin_shares(freqs, BANDS)) / 2
    return differential_entropy(band_power(psd, freqs)) + 0.5 * (np.log(half) - digamma(half))


def released_entropy(signal: np.ndarray, sfreq: float) -> np.ndarray:
    """Compute the feature of the released EEG-ImageNet code: Σ ln(PSD + 1e-10) over the bins of a band.

    The PSD is MNE's default (multitaper, NW = 4, ``normalization="length"``, so not per Hz) of the signal in
    volts; a band holds the bins from `low` to `high` with both ends, so 30 Hz counts twice. It is not a
    differential entropy; DIFFERENCES.md says what that means.

    Parameters
    ----------
    signal : array, shape (n_trials, n_chans, n_times), in µV
        The window.
    sfreq : float
        Sampling frequency, Hz.

    Returns
    -------
    array, shape (n_trials, n_chans, n_bands)

    Raises
    ------
    NeuroCanvasError
        If the window is so short that a band has no bin.

    References
    ----------
    `de_feat_cal.py` of Promise-Z5Q2SQ/EEG-ImageNet-Dataset (MIT).
    """
    freqs, psd = power_spectrum(signal, sfreq, half_bandwidth=RELEASED_HALF_BANDWIDTH, highest=HIGHEST)
    inside = np.stack([(freqs >= low) & (freqs <= high) for low, high in BANDS.values()], axis=-1)
    for name, bins in zip(BANDS, inside.T, strict=True):
        if not bins.any():
            raise NeuroCanvasError(
                f"features: a window of {1 / freqs[1]:.3f} s has no frequency bin in {name} "
                f"({BANDS[name][0]:g}-{BANDS[name][1]:g} Hz); take a longer one (features.tmin, features.tmax)."
            )
    logarithms = np.log(psd.astype(np.float64) * (sfreq * VOLTS**2) + RELEASED_EPSILON)
    return logarithms @ inside.astype(np.float64)


METHODS = {"gaussian": gaussian_entropy, "eeg-imagenet": released_entropy}
"""What `features.method` may name."""

UNITS = {"gaussian": "nats", "eeg-imagenet": "sum of ln PSD over bins, PSD in V² as MNE's normalization=length"}
"""What the numbers of each method are."""


def extract(trials: Trials, settings: FeatureSettings) -> np.ndarray:
    """Compute the features of all trials, a chunk of trials at a time.

    Parameters
    ----------
    trials : Trials
        Any trials; the window must lie inside them.
    settings : FeatureSettings
        Method and window, s after picture onset: samples round(tmin·sfreq) to round(tmax·sfreq), exclusive.

    Returns
    -------
    array, shape (n_trials, n_chans, n_bands), float32
        Channel-major when flattened; bands in the order of `montage.BANDS`.

    Raises
    ------
    NeuroCanvasError
        If the window leaves the trials, a band lies above half the sampling frequency, or a channel is flat
        or not finite in a trial.
    """
    check_bands(BANDS, nyquist=trials.sfreq / 2)
    features = np.empty((len(trials), len(trials.ch_names), len(BANDS)), dtype=np.float32)
    for first in range(0, len(trials), CHUNK):
        chunk = slice(first, first + CHUNK)
        window = cut_window(trials.signal(chunk), trials, settings)
        _check_window(window, trials, first)
        features[chunk] = METHODS[settings.method](window, trials.sfreq)
    return features


def cut_window(signal: np.ndarray, trials: Trials, settings: FeatureSettings) -> np.ndarray:
    """Cut the feature window out of whole trials.

    Parameters
    ----------
    signal : array, shape (..., n_times)
        Signal of some of the trials.
    trials : Trials
        Which say when the signal begins.
    settings : FeatureSettings
        The window, s after picture onset.

    Returns
    -------
    array, shape (..., round(tmax·sfreq) - round(tmin·sfreq))
        A view of the signal.

    Raises
    ------
    NeuroCanvasError
        If the window leaves the trials.
    """
    offset = round(trials.tmin * trials.sfreq)
    start, stop = (round(edge * trials.sfreq) - offset for edge in (settings.tmin, settings.tmax))
    n_times = signal.shape[-1]
    if not 0 <= start < stop <= n_times:
        last = trials.tmin + n_times / trials.sfreq
        raise NeuroCanvasError(
            f"features.tmin, features.tmax: the trials hold {trials.tmin:.3f} to {last:.3f} s after picture "
            f"onset; got {settings.tmin} to {settings.tmax}."
        )
    return signal[..., start:stop]


def _check_window(window: np.ndarray, trials: Trials, first: int) -> None:
    """Raise if a channel is flat or not finite in a trial; `first` is the table's row of the first one."""
    low, high = window.min(axis=-1), window.max(axis=-1)  # what is not finite reaches one of them
    for bad, problem in (
        (~(np.isfinite(low) & np.isfinite(high)), "holds values that are not finite"),
        (low == high, "is flat"),
    ):
        if bad.any():
            row, channel = np.argwhere(bad)[0]
            subject, stimulus = (trials.column(name)[first + row] for name in ("subject", "stimulus"))
            raise NeuroCanvasError(
                f"trial {first + row} (subject {subject}, stimulus {stimulus}): channel "
                f"{trials.ch_names[channel]} {problem} in the feature window; leave trial or channel out."
            )
