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
    kept = concentration > 0.9
    if not kept.any():
        kept = concentration == concentration.max()
    return windows[kept], concentration[kept] / concentration[kept].sum()


def power_spectrum(
    signal: np.ndarray, sfreq: float, *, half_bandwidth: float = HALF_BANDWIDTH, highest: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """One-sided PSD over Slepian tapers: µV (..., n_times) -> frequencies (n_freqs,), PSD (..., n_freqs) in µV²/Hz."""
    # As MNE's psd_array_multitaper(normalization="full"): the sum over bins times their spacing is the variance. Two
    # small float32 matrix products replace an FFT per taper: gamma agrees with float64 to 2e-5, also beside slow power
    # 10,000 times as high or a drift of 10,000 µV; single bins to 5e-4. No filter: line noise stays in gamma.
    signal = np.asarray(signal)
    n_times = signal.shape[-1]
    freqs = np.fft.rfftfreq(n_times, 1 / sfreq)
    freqs = freqs[freqs - freqs[1] / 2 < highest]  # those above would take most of the time
    factors = _factors(n_times, half_bandwidth, len(freqs))
    rows = signal.reshape(-1, n_times)
    psd = np.empty((len(rows), len(freqs)), dtype=np.float32)
    half, pairs = n_times // 2 + 1, (n_times - 1) // 2
    for first in range(0, len(rows), BLOCK):
        block = rows[first : first + BLOCK]
        centred = (block - block.mean(axis=-1, keepdims=True)).astype(np.float32, copy=False)
        centred -= centred.mean(axis=-1, keepdims=True)  # of float32 around a large offset the first mean is rounded
        mirrored = centred[:, : -pairs - 1 : -1]  # of samples 1 to pairs; the first and the middle one have no partner
        power = np.zeros((len(freqs), len(block)), dtype=np.float32)
        for fold, (to_parts, to_coordinates) in zip((np.add, np.subtract), factors, strict=True):
            folded = centred[:, :half].copy()
            fold(folded[:, 1 : 1 + pairs], mirrored, out=folded[:, 1 : 1 + pairs])
            parts = to_parts @ (to_coordinates @ folded.T)
            power += np.square(parts, out=parts).reshape(-1, len(freqs), len(block)).sum(axis=0)
        psd[first : first + BLOCK] = power.T
    # a one-sided bin counts for two, except DC and Nyquist
    psd *= (np.where(np.arange(len(freqs)) % (n_times / 2) == 0, 1.0, 2.0) / sfreq).astype(np.float32)
    return freqs, psd.reshape(*signal.shape[:-1], len(freqs))


@lru_cache(maxsize=8)
def _factors(n_times: int, half_bandwidth: float, n_freqs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Factor the Fourier transform of all tapers: two pairs (coordinates to parts, folded window to coordinates)."""
    # Around the middle of the window tapers, cosines and sines are even or odd: half of the real and imaginary parts
    # need only sums of mirrored samples (first pair), the others only differences (second). Tapers and neighbouring
    # bins overlap so much that few coordinates hold them: 42 for 7 tapers x 33 bins x 201 folded samples at 400 ms.
    windows, weights = tapers(n_times, half_bandwidth)
    half = np.arange(n_times // 2 + 1)
    phases = 2 * np.pi / n_times * (np.outer(np.arange(n_freqs), half) % n_times)
    even = (np.arange(len(windows)) % 2 == 0)[:, None, None]  # tapers are even, odd, even, ...
    weighted = (np.sqrt(weights)[:, None] * windows[:, half])[:, None]
    factors = []
    for waves in (
        np.where(even, np.cos(phases), np.sin(phases)),
        np.where(even, np.sin(phases), np.cos(phases)),
    ):
        left, values, right = np.linalg.svd((weighted * waves).reshape(-1, len(half)), full_matrices=False)
        kept = values > RANK_TOLERANCE * values[0]
        factors.append(((left * values)[:, kept].astype(np.float32), right[kept].astype(np.float32)))
    return factors


def degrees_of_freedom(n_times: int, shares: np.ndarray, *, half_bandwidth: float = HALF_BANDWIDTH) -> np.ndarray:
    """χ² degrees of freedom of each band's power under white noise: shares (n_freqs, n_bands) -> (n_bands,)."""
    # ν = 2 mean² / variance; bins d apart have the covariance Σ_kl w_k w_l |FFT(taper_k · taper_l)(d)|².
    windows, weights = tapers(n_times, half_bandwidth)
    products = np.fft.fft(windows[:, None] * windows[None], axis=-1)
    covariance = np.einsum("k,l,kld->d", weights, weights, np.abs(products) ** 2)
    amounts = np.asarray(shares).T * np.where(np.arange(len(shares)) % (n_times / 2) == 0, 1.0, 2.0)
    variance = []
    for amount in amounts:
        used = np.flatnonzero(amount)
        gaps = np.abs(used[:, None] - used)
        variance.append(amount[used] @ covariance[gaps] @ amount[used])
    return 2 * amounts.sum(axis=1) ** 2 / np.array(variance)
