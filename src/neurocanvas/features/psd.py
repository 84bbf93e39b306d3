"""Signal to power spectral density, with Slepian tapers, in µV²/Hz."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from neurocanvas.errors import NeuroCanvasError

# Time-half-bandwidth product NW of the default spectrum: 2 tapers, smoothing over ±3.75 Hz after 400 ms, 4 degrees of
# freedom per bin. NW = 4 (MNE's default) smears over ±10 Hz and leaves only 28 % of a 10 Hz tone in alpha (here 68 %).
# One Hann window is narrower (83 %) but uses only the middle of the window and gives 2 degrees of freedom. On the real
# grating recordings NW = 1.5 decoded frequency and orientation at least as well as ten other windows.
HALF_BANDWIDTH = 1.5

# NW of MNE's default multitaper spectrum, which the released features were made with.
RELEASED_HALF_BANDWIDTH = 4.0

# Rows (channels of trials) transformed at once: few enough to stay in a core's cache.
BLOCK = 512

# Singular values below this share of the largest are left out: less than float32 resolves.
RANK_TOLERANCE = 1e-6


@lru_cache(maxsize=8)
def tapers(n_times: int, half_bandwidth: float) -> tuple[np.ndarray, np.ndarray]:
    """Slepian tapers with over 90 % of their energy in the band: (n_tapers, n_times), and weights that sum to 1."""
    from scipy.signal.windows import dpss

    if not 0.5 <= half_bandwidth < n_times / 2:
        raise NeuroCanvasError(
            f"half_bandwidth: allowed is 0.5 to half of the window's {n_times} samples; got {half_bandwidth}."
        )
    windows, concentration = dpss(n_times, half_bandwidth, int(2 * half_bandwidth), sym=False, return_ratios=True)
    concentrated = (concentration > 0.9) | (concentration == concentration.max())
    return windows[concentrated], concentration[concentrated] / concentration[concentrated].sum()


def power_spectrum(
    signal: np.ndarray, sfreq: float, *, half_bandwidth: float = HALF_BANDWIDTH, highest: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """One-sided PSD over Slepian tapers: µV (..., n_times) -> frequencies (n_freqs,), PSD (..., n_freqs) in µV²/Hz."""
    # As MNE's psd_array_multitaper(normalization="full"): the sum over bins times their spacing is the variance. Two
    # float32 matrix products replace an FFT per taper: gamma agrees with float64 to 2e-5, also beside slow power
    # 10,000 times as high or a drift of 10,000 µV; single bins to 5e-4. No filter: line noise stays in gamma.
    signal = np.asarray(signal)
    n_times = signal.shape[-1]
    freqs = np.fft.rfftfreq(n_times, 1 / sfreq)
    freqs = freqs[freqs - freqs[1] / 2 < highest]  # those above would take most of the time
    to_parts, to_coordinates = _transform(n_times, half_bandwidth, len(freqs))
    rows = signal.reshape(-1, n_times)
    psd = np.empty((len(rows), len(freqs)), dtype=np.float32)
    for first in range(0, len(rows), BLOCK):
        block = rows[first : first + BLOCK]
        centred = (block - block.mean(axis=-1, keepdims=True)).astype(np.float32, copy=False)
        centred -= centred.mean(axis=-1, keepdims=True)  # in float32 the mean of a large offset was rounded
        parts = to_parts @ (to_coordinates @ centred.T)
        psd[first : first + BLOCK] = np.square(parts, out=parts).reshape(-1, len(freqs), len(centred)).sum(axis=0).T
    # a one-sided bin counts for two, except DC and Nyquist
    psd *= (np.where(np.arange(len(freqs)) % (n_times / 2) == 0, 1.0, 2.0) / sfreq).astype(np.float32)
    return freqs, psd.reshape(*signal.shape[:-1], len(freqs))


@lru_cache(maxsize=8)
def _transform(n_times: int, half_bandwidth: float, n_freqs: int) -> tuple[np.ndarray, np.ndarray]:
    """Fourier transform of all tapers as two factors: window -> coordinates -> real and imaginary parts."""
    # Tapers and neighbouring bins overlap so much that few coordinates hold them: 84 for 2 x 7 tapers x 33 bins.
    windows, weights = tapers(n_times, half_bandwidth)
    waves = np.exp(-2j * np.pi / n_times * (np.outer(np.arange(n_freqs), np.arange(n_times)) % n_times))
    tapered = (np.sqrt(weights)[:, None, None] * windows[:, None] * waves).reshape(-1, n_times)
    left, values, right = np.linalg.svd(np.concatenate([tapered.real, tapered.imag]), full_matrices=False)
    rank = np.count_nonzero(values > RANK_TOLERANCE * values[0])
    return (left * values)[:, :rank].astype(np.float32), right[:rank].astype(np.float32)


def degrees_of_freedom(n_times: int, shares: np.ndarray, *, half_bandwidth: float = HALF_BANDWIDTH) -> np.ndarray:
    """χ² degrees of freedom of each band's power under white noise: shares (n_freqs, n_bands) -> (n_bands,)."""
    from scipy.linalg import toeplitz

    # ν = 2 mean² / variance; bins d apart have the covariance Σ_kl w_k w_l |FFT(taper_k · taper_l)(d)|².
    windows, weights = tapers(n_times, half_bandwidth)
    products = np.fft.fft(windows[:, None] * windows[None], axis=-1)
    covariance = np.einsum("k,l,kld->d", weights, weights, np.abs(products) ** 2)
    amounts = np.asarray(shares).T * np.where(np.arange(len(shares)) % (n_times / 2) == 0, 1.0, 2.0)
    variance = np.einsum("bi,ij,bj->b", amounts, toeplitz(covariance[: len(shares)]), amounts)
    return 2 * amounts.sum(axis=1) ** 2 / variance
