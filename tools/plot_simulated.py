"""Draw simulated trials beside real ones: spectrum, amplitude, correlation with distance, rank.

    python tools/plot_simulated.py --data $NEUROCANVAS_TEST_DATA --out docs/simulated_beside_real.png

`--data` holds `eeg_imagenet_trials/trials.npz` (three trials, one in volts) and `recordings/eeglab_data.set` (32
channels). It prints the numbers that the figure shows, and the components of the channels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import mne
import numpy as np

from neurocanvas.config import SimulateSettings
from neurocanvas.data.montage import POSITIONS
from neurocanvas.simulation import dataset as simulated
from neurocanvas.simulation import eeg as brain

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen

REAL, SIMULATED = "#c1440e", "#1f5f8b"
PAIRS = np.triu_indices(len(POSITIONS), 1)
DISTANCE = 1e3 * np.linalg.norm(POSITIONS[:, None] - POSITIONS[None], axis=-1)[PAIRS]  # mm


def simulated_trials(count: int, response: str = "induced") -> np.ndarray:
    """Trials of subject 0 at the default signal, volts."""
    pictures = np.array([stimulus.parameters for stimulus in simulated.draw_stimuli(SimulateSettings())])
    person = brain.make_brain(0, 0, simulated.GROUPS, pictures, SimulateSettings().explained_variance, response)
    shown = np.linspace(0, len(pictures) - 1, count).astype(int)
    drift = brain.draw_drift(person, count, rng=np.random.default_rng(0))
    rngs = [np.random.default_rng([1, trial]) for trial in range(count)]
    return brain.record(person, drift, pictures[shown], rngs=rngs).astype(float)


def spectrum(trial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies, and the power of each channel relative to its mean over 2-40 Hz, dB, (n_chans, n_freqs)."""
    freqs = np.fft.rfftfreq(trial.shape[1], 1e-3)
    power = np.abs(np.fft.rfft((trial - trial.mean(axis=1, keepdims=True)) * np.hanning(trial.shape[1]))) ** 2
    inside = (freqs >= 2) & (freqs <= 40)
    return freqs, 10 * np.log10(power / power[:, inside].mean(axis=1, keepdims=True))


def correlation_by_distance(trial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of bins of electrode distance, mm, and the mean correlation of the pairs in each."""
    edges = np.arange(20, 171, 10)
    place, values = np.digitize(DISTANCE, edges), np.corrcoef(trial)[PAIRS]
    kept = [b for b in range(1, len(edges)) if np.any(place == b)]
    return edges[kept] - 5.0, np.array([values[place == b].mean() for b in kept])


def rank(trial: np.ndarray) -> float:
    """Effective number of independent channels: exp of the entropy of the correlation matrix's eigenvalues."""
    share = np.clip(np.linalg.eigvalsh(np.corrcoef(trial)) / len(trial), 1e-12, 1)
    return float(np.exp(-(share * np.log(share)).sum()))


def components(trial: np.ndarray, lowest: float) -> np.ndarray:
    """Participation ratio, components for 90 and 99 % of the variance, r of correlation and distance; up to 80 Hz."""
    freqs = np.fft.rfftfreq(trial.shape[1], 1e-3)
    signal = np.fft.irfft(np.where((freqs >= lowest) & (freqs <= 80), np.fft.rfft(trial), 0), n=trial.shape[1])
    parts = np.linalg.eigvalsh(np.cov(signal))[::-1].clip(0) / np.cov(signal).trace()
    counts = [1 + (np.cumsum(parts) < share).sum() for share in (0.9, 0.99)]
    return np.array([1 / (parts**2).sum(), *counts, np.corrcoef(np.corrcoef(signal)[PAIRS], DISTANCE)[0, 1]])


def real_microvolts(data: Path) -> np.ndarray:
    """Standard deviation of .5 s pieces of a real recording, average reference, .5-80 Hz."""
    raw = mne.io.read_raw_eeglab(data / "recordings" / "eeglab_data.set", preload=True, verbose="error")
    raw.filter(0.5, None, verbose="error").set_eeg_reference("average", verbose="error")
    length = round(0.501 * raw.info["sfreq"])
    signal = raw.get_data()[:, : raw.n_times // length * length]
    return signal.reshape(len(signal), -1, length).std(axis=(0, 2)) * 1e6


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real recordings")
    parser.add_argument("--out", type=Path, default=Path("docs/simulated_beside_real.png"))
    options = parser.parse_args()
    trials = np.load(options.data / "eeg_imagenet_trials" / "trials.npz")
    real = [np.asarray(trials[name], float) for name in trials.files if trials[name].shape == (62, 501)]
    made = simulated_trials(100)
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.2), layout="constrained")

    freqs, _ = spectrum(real[0])
    shown = (freqs >= 2) & (freqs <= 80)
    bands = np.percentile([np.median(spectrum(trial)[1], axis=0) for trial in made], [5, 50, 95], axis=0)
    axes[0].fill_between(freqs[shown], bands[0, shown], bands[2, shown], color=SIMULATED, alpha=0.25, lw=0)
    axes[0].plot(freqs[shown], bands[1, shown], color=SIMULATED)
    for trial in real:
        axes[0].plot(freqs[shown], np.median(spectrum(trial)[1], axis=0)[shown], color=REAL, lw=0.9)
    axes[0].set(xscale="log", xlabel="Hz", ylabel="dB", title="Spectrum, median over channels")
    axes[0].set_xticks([2, 5, 10, 20, 40, 80], ["2", "5", "10", "20", "40", "80"], minor=False)
    axes[0].minorticks_off()

    curves = np.array([correlation_by_distance(trial)[1] for trial in made])
    centres, _ = correlation_by_distance(made[0])
    low, middle, high = np.percentile(curves, [5, 50, 95], axis=0)
    axes[1].fill_between(centres, low, high, color=SIMULATED, alpha=0.25, lw=0)
    axes[1].plot(centres, middle, color=SIMULATED)
    for trial in real:
        axes[1].plot(*correlation_by_distance(trial), color=REAL, lw=0.9)
    axes[1].set(xlabel="electrode distance, mm", ylabel="r", title="Channel correlation")

    ranks = [rank(trial) for trial in made]
    axes[2].hist(ranks, bins=20, color=SIMULATED, alpha=0.6)
    for trial in real:
        axes[2].axvline(rank(trial), color=REAL)
    axes[2].set(xlabel="effective rank of the channels", ylabel="simulated trials", title="Independence of channels")

    volts = made.std(axis=(1, 2)) * 1e6
    wide = real_microvolts(options.data)
    axes[3].hist(wide, bins=30, range=(0, 40), density=True, color=REAL, alpha=0.35, label="real: 32-channel recording")
    axes[3].hist(volts, bins=30, range=(0, 40), density=True, color=SIMULATED, alpha=0.6, label="simulated")
    own = np.asarray(trials["trial0_volts"]).std() * 1e6
    axes[3].axvline(own, color=REAL, label="real: EEG-ImageNet")
    axes[3].set(xlabel="standard deviation, µV", yticks=[], title="Amplitude of a trial")
    axes[3].legend(fontsize=7, frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)

    print(f"rank            real {', '.join(f'{rank(t):.1f}' for t in real)}; simulated median {np.median(ranks):.1f}")
    print(f"amplitude, µV   real {np.percentile(wide, 2.5):.1f} to {np.percentile(wide, 97.5):.1f}, {own:.1f}; "
          f"simulated median {np.median(volts):.1f}")  # fmt: skip
    made_by = {name: simulated_trials(100, name) for name in ("induced", "evoked", "mixed")}
    for name, group in [*(("real", [trial]) for trial in real), *made_by.items()]:
        bands = [np.median([components(trial, low) for trial in group], axis=0).round(2) for low in (0.5, 20)]
        print(f"{name}: participation ratio, components for 90 and 99 %, r: .5-80 Hz {bands[0]}, 20-80 Hz {bands[1]}")


if __name__ == "__main__":
    main()
