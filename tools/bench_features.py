"""Benchmarks of the features: `extract` against the five MNE calls of the released code, on one thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from bench import Row, compare, in_turn, peak_mb
from threadpoolctl import threadpool_limits

from neurocanvas.config import FeatureSettings
from neurocanvas.data.montage import BANDS, CH_NAMES
from neurocanvas.data.trials import Trials, TrialSpec, make_metadata
from neurocanvas.features.differential_entropy import VOLTS, extract

N_TRIALS, N_TIMES, SFREQ = 4000, 400, 1000.0


def make_trials(n_trials: int) -> tuple[Trials, np.ndarray]:
    """Noise of 10 µV with a 1/f spectrum as float32 trials in µV, and the same in volts, float64, as MNE takes it."""
    rng = np.random.default_rng(0)
    falling = np.arange(1, N_TIMES // 2 + 2, dtype=np.float32) ** -0.5
    signal = np.empty((n_trials, len(CH_NAMES), N_TIMES), dtype=np.float32)
    for trial in signal:
        phases = np.exp(2j * np.pi * rng.random((len(CH_NAMES), len(falling))))
        trial[:] = np.fft.irfft(phases * falling, n=N_TIMES)
    signal *= 10 / signal.std()
    table, spec = make_metadata({"order": np.arange(n_trials)}), TrialSpec(CH_NAMES, SFREQ, 0.0, N_TIMES)
    return Trials(table, spec, lambda rows: signal[rows], "bench"), signal.astype(np.float64) * VOLTS


def released(volts: np.ndarray) -> np.ndarray:
    """Do what the released `de_feat_cal.py` does: for each band MNE's default spectrum of all trials."""
    import mne

    epochs = mne.EpochsArray(volts, mne.create_info(volts.shape[1], SFREQ, "eeg"), verbose="error")
    bands = []
    for low, high in BANDS.values():
        psd = epochs.compute_psd(fmin=low, fmax=high, verbose="error").get_data() + 1e-10
        bands.append(np.log(psd).sum(axis=-1))
    return np.concatenate(bands, axis=1)


def speed(name: str, method: Literal["gaussian", "eeg-imagenet"]) -> list[Row]:
    """Seconds for the features of one subject's 4,000 trials."""
    (trials, volts), settings = make_trials(N_TRIALS), FeatureSettings(method=method, tmin=0.0, tmax=0.4)
    what = (
        f"{N_TRIALS:,} trials x {len(CH_NAMES)} x {N_TIMES}, one thread: five `compute_psd` calls of MNE as in "
        f"`de_feat_cal.py`; `extract` with method {method}, from signal in memory to features"
    )
    with threadpool_limits(1):
        few, few_volts = make_trials(50)  # the warm-up
        theirs, ours = released(few_volts), extract(few, settings)
        if method == "eeg-imagenet":
            theirs = theirs.reshape(len(few), len(BANDS), len(CH_NAMES)).transpose(0, 2, 1)
            what += f" (relative difference of the results at most {np.abs(ours / theirs - 1).max():.0e})"
        seconds = in_turn(lambda: released(volts), lambda: extract(trials, settings), rounds=3, warm_up=0)
    return [compare(name, *seconds, "s", what)]


def memory() -> list[Row]:
    """Peak memory above the input."""
    trials, volts = make_trials(N_TRIALS)
    settings = FeatureSettings(method="eeg-imagenet", tmin=0.0, tmax=0.4)
    for warm_up in (lambda: released(volts[:2]), lambda: extract(trials[np.arange(2)], settings)):
        warm_up()  # imports
    ours, theirs = peak_mb(lambda: extract(trials, settings)), peak_mb(lambda: released(volts))
    what = f"most memory above the input, for {N_TRIALS:,} trials x {len(CH_NAMES)} x {N_TIMES}, as in `de_features`"
    return [compare("de_features_peak_mb", theirs, ours, "MB", what)]


BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "de_features": partial(speed, "de_features", "eeg-imagenet"),
    "de_features_gaussian": partial(speed, "de_features_gaussian", "gaussian"),
    "de_features_peak_mb": memory,
}
