"""Rhythms and waves of the simulated EEG: spectra, time courses, artefacts, and the log band power that is read off."""

from __future__ import annotations

import numpy as np

from neurocanvas.datasets.forward import N_RESPONDING, leadfield
from neurocanvas.montage import BANDS, CH_NAMES

SFREQ, N_TIMES = 1000.0, 501
TIMES = np.arange(N_TIMES) / SFREQ
RESPONSE_ONSET, RESPONSE_FULL = 0.050, 0.090  # s: nothing of the picture is in the signal before the first
BUMPS = ((0.050, 0.150), (0.110, 0.240), (0.190, 0.500))  # s: start and stop of the parts of the evoked response
WINDOW = slice(40, 440)  # samples of which `log_band_power` is taken
BLINK_CHANCE, BLINK_VOLTS = 0.06, 70e-6
LINE_HZ, LINE_VOLTS = 50.0, 0.4e-6
EXPONENT = 1.15
_PERIOD = 2000  # samples of the periodic noise that trials are cut from: half-hertz bins
FREQS = np.arange(1, 201) * SFREQ / _PERIOD
BAND_OF_BIN = np.searchsorted([low for low, _ in BANDS.values()][1:], FREQS, side="right")


def pass_band() -> np.ndarray:
    """Return the amplitude response of the .5-80 Hz recording filter."""
    return 1 / np.sqrt((1 + (0.5 / FREQS) ** 8) * (1 + (FREQS / 80) ** 24))


def spectra(n_sources: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the spectra of a subject's sources: 1/f with exponents of their own, and alpha in the responding ones."""
    exponent = rng.normal(EXPONENT, 0.12) + rng.normal(0, 0.15, n_sources)
    power = FREQS ** -exponent[:, None]
    peak = rng.normal(10.2, 0.6)
    alpha = np.zeros(n_sources)
    alpha[:N_RESPONDING] = 1.2 * rng.gamma(1.0, 1.0, N_RESPONDING)
    power *= 1 + alpha[:, None] * np.exp(-0.5 * ((FREQS - peak) / 1.2) ** 2)
    amplitude = np.sqrt(power) * pass_band()
    return amplitude / np.sqrt((FREQS**-EXPONENT * pass_band() ** 2).sum())


def waves(bins: np.ndarray) -> np.ndarray:
    """Turn bins into time courses."""
    from scipy.fft import irfft

    whole = np.zeros((*bins.shape[:-1], _PERIOD // 2 + 1), dtype=np.complex64)
    whole[..., 1 : len(FREQS) + 1] = np.ascontiguousarray(bins).view(np.complex64)
    return irfft(whole, n=_PERIOD)[..., :N_TIMES] * np.float32(_PERIOD / 2)


def ramp() -> np.ndarray:
    """Return how much of the change of band power is there."""
    part = np.clip((TIMES - RESPONSE_ONSET) / (RESPONSE_FULL - RESPONSE_ONSET), 0, 1)
    return (part**2 * (3 - 2 * part)).astype(np.float32)


def bumps() -> np.ndarray:
    """Return the time courses of the evoked response's parts."""
    inside = [np.clip((TIMES - start) / (stop - start), 0, 1) for start, stop in BUMPS]
    return np.stack([0.5 - 0.5 * np.cos(2 * np.pi * part) for part in inside])


def artefacts(rng: np.random.Generator) -> np.ndarray:
    """Draw one trial's line noise and, on some trials, a blink."""
    phase, level = rng.uniform(0, 2 * np.pi), rng.gamma(4.0, LINE_VOLTS / 4)
    gains = 1 + 0.5 * np.sin(np.arange(len(CH_NAMES)) * 1.7)  # every lead catches the line differently
    signal = level * gains[:, None] * np.sin(2 * np.pi * LINE_HZ * TIMES + phase)
    if rng.random() < BLINK_CHANCE:
        centre, width, size = (
            rng.uniform(-0.1, 0.6),
            rng.uniform(0.04, 0.07),
            BLINK_VOLTS * rng.uniform(0.6, 1.4),
        )
        signal += size * leadfield().blink[:, None] * np.exp(-0.5 * ((TIMES - centre) / width) ** 2)
    return signal.astype(np.float32)


def log_band_power(signal: np.ndarray) -> np.ndarray:
    """Log band power of the samples in `WINDOW`, Hann window: the feature by which strength is set."""
    return np.log(_band_power(signal[..., WINDOW]))


def evoked_power(sizes: np.ndarray) -> np.ndarray:
    """Band power of evoked responses, in the unit of `log_band_power`."""
    return _band_power((sizes @ bumps())[..., WINDOW])


def bin_leakage() -> np.ndarray:
    """Return how much power every bin of the noise adds to the bands of `log_band_power`."""
    samples = np.arange(WINDOW.stop - WINDOW.start) / SFREQ
    waves = np.exp(2j * np.pi * FREQS[:, None] * samples)
    sine, cosine = (_band_power(part) for part in (waves.imag, waves.real))
    return sine + cosine


def _band_power(cut: np.ndarray) -> np.ndarray:
    """Power per band, (..., n_bands), of the samples in `WINDOW`."""
    from scipy.fft import rfft

    freqs = np.fft.rfftfreq(cut.shape[-1], 1 / SFREQ)
    taper = np.hanning(cut.shape[-1]).astype(np.float32)
    power = np.abs(rfft((cut - cut.mean(axis=-1, keepdims=True)) * taper)) ** 2
    inside = [(freqs >= low) & (freqs < high) for low, high in BANDS.values()]
    return np.stack([power[..., one].sum(axis=-1) for one in inside], axis=-1)
