"""Controls that take the brain out of the EEG: noise, randomised phases, shuffled pairs; and null generators."""

from __future__ import annotations

from dataclasses import replace
from math import factorial

import numpy as np

from neurocanvas.audit.controls.base import (
    SIGNIFICANT,
    ControlResult,
    NotApplicable,
    above_chance,
    chance_of,
    label_p,
    nothing_decoded,
    relabelled_p,
    survives,
)
from neurocanvas.audit.controls.inputs import ControlInputs, coded, flattened, named_labels
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.statistics import bootstrap_interval, paired_permutation_p
from neurocanvas.findings import finding

# Time bins per channel in `time_course_and_power`.
COURSE_BINS = 10

# Surrogates over which phase-randomised accuracy is averaged; features are extracted anew for each.
PHASE_REPEATS = 2

# Trials per batch; sets memory, not results.
BATCH = 200

# From this mean correlation with the surrogates' features on, features hardly depend on phases.
SAME_FEATURES = 0.5


def matched_noise(features: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Independent Gaussian noise with the mean and covariance of features: (n_trials, n_features)."""
    mean = features.mean(axis=0)
    rest = (features - mean) / np.sqrt(len(features))
    if rest.shape[1] > len(rest):
        return np.asarray(mean + rng.standard_normal((len(rest), len(rest))) @ rest)
    values, vectors = np.linalg.eigh(rest.T @ rest)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    return np.asarray(mean + rng.standard_normal(features.shape) @ root)


def noise_eeg(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Decode noise with the features' covariance: firing means that something other than EEG reaches the decoder."""
    # Trained on noise and, second, on real EEG: the larger effect, and twice the smaller p (Bonferroni).
    named = np.empty((2, inputs.repeats, len(inputs.tested)), dtype=np.int64)
    for repeat in range(inputs.repeats):
        answers = np.full((2, len(inputs.labels)), -1)
        for train, test in inputs.splits:  # new noise per fold, as shared noise would make hits dependent
            noise = matched_noise(inputs.flat, rng=rng)
            for way, trained in enumerate((noise, inputs.flat)):
                answers[way, test] = named_labels(inputs.decode, trained[train], inputs.labels[train], noise[test])
        named[:, repeat] = answers[:, inputs.tested]
    true, units = inputs.labels[inputs.tested], inputs.units[inputs.tested]
    tests = [label_p(answers, true, inputs.strata, units, inputs.permutations, rng=rng) for answers in named]
    ways = [above_chance(inputs, answers, *test, rng=rng) for answers, test in zip(named, tests, strict=True)]
    largest = max(ways, key=lambda found: found.effect)
    p = min(1.0, 2 * min(found.p for found in ways))
    details = {
        f"{name}_{what}": value
        for name, found in zip(("noise", "real_to_noise"), ways, strict=True)
        for what, value in (("accuracy", found.details["accuracy"]), ("p", found.p))
    }
    return ControlResult(largest.effect, largest.low, largest.high, p, p <= SIGNIFICANT, largest.share, details)


def shuffled_pairs(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Train on shuffled labels and test on true ones: firing means that the decoder knows answers from elsewhere."""
    if factorial(inputs.n_concepts) < 1 / SIGNIFICANT:
        return NotApplicable(finding("few-concepts", concepts=inputs.n_concepts))
    tested = inputs.tested
    named = np.empty((inputs.repeats, len(tested)), dtype=np.int64)
    for repeat in range(inputs.repeats):
        named[repeat] = inputs.predict(inputs.flat, rng.permutation(inputs.labels))[tested]
    test = relabelled_p(named, inputs.labels[tested], inputs.permutations, rng=rng)
    return above_chance(inputs, named, *test, rng=rng)


def phase_randomised(signal: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Random phases per trial, the same in all channels [Theiler1992]: (n_trials, n_chans, n_times)."""
    # Keeps mean, spectra and cross-spectra of every trial; nothing remains of when anything happened.
    if np.ndim(signal) != 3:
        raise NeuroCanvasError(f"signal: (n_trials, n_chans, n_times) is needed; got shape {np.shape(signal)}.")
    n_times = signal.shape[2]
    spectrum = np.fft.rfft(signal, axis=2)
    turn = np.exp(2j * np.pi * rng.random((len(signal), 1, spectrum.shape[2])))
    turn[:, :, 0] = 1.0
    if n_times % 2 == 0:
        turn[:, :, -1] = np.sign(turn[:, :, -1].real)
    return np.asarray(np.fft.irfft(spectrum * turn, n_times, axis=2))


def time_course_and_power(signal: np.ndarray) -> np.ndarray:
    """Means of time bins and log variance per channel: (n_trials, n_chans, n_times) -> (n_trials, n_features)."""
    bins = np.array_split(np.arange(signal.shape[2]), min(COURSE_BINS, signal.shape[2]))
    course = np.stack([signal[:, :, places].mean(axis=2) for places in bins], axis=2)
    power = np.log(signal.var(axis=2) + np.finfo(np.float64).tiny)
    return np.concatenate([flattened(course), power], axis=1)


def phase_randomisation(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Decode signals with random phases, in training and test: firing means that timing is not what is decoded."""
    # Band power hardly changes under random phases, so with it this fires whenever enough is decoded; the note says so.
    # Silence never shows that timing counts: too few trials make it silent too.
    if inputs.signal is None:
        return NotApplicable(finding("no-signal"))
    tested = inputs.tested
    true, units = inputs.labels[tested], inputs.units[tested]
    real, *surrogates = _with_surrogates(inputs, rng)
    real_named = inputs.predict(real, inputs.labels)[tested]
    refused = nothing_decoded(inputs, real_named, rng=rng)
    if refused is not None:
        return refused
    named = np.stack([inputs.predict(features, inputs.labels)[tested] for features in surrogates])
    above, chance = label_p(named, true, inputs.strata, units, inputs.permutations, rng=rng)
    right, hits = (real_named == true).astype(float), (named == true).mean(axis=0)
    chances = chance_of(real_named, true), chance
    found = survives(right, hits, chances, above, units, inputs.permutations, rng=rng)
    alike = float(np.mean([_correlation(real[tested], features[tested]) for features in surrogates]))
    details, same = {**found.details, "features_r": alike}, alike >= SAME_FEATURES
    return replace(found, details=details, note=finding("phases-bound") if same else None, bound=found.fired and same)


def _with_surrogates(inputs: ControlInputs, rng: np.random.Generator) -> list[np.ndarray]:
    """Features of the signal, then of its surrogates, each (n_trials, n_features); 0 in rows that no fold uses."""
    signal, extract = inputs.signal, inputs.extract or time_course_and_power
    if signal is None:
        return []
    used = np.unique(np.concatenate([np.concatenate(split) for split in inputs.splits]))
    made: list[np.ndarray] = []
    for start in range(0, len(used), BATCH):
        rows = used[start : start + BATCH]
        given = np.asarray(signal[rows], dtype=np.float64)
        for version in range(1 + PHASE_REPEATS):
            features = flattened(extract(phase_randomised(given, rng=rng) if version else given))
            if start == 0:
                made.append(np.zeros((len(inputs.labels), features.shape[1])))
            made[version][rows] = features
    return made


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Mean over features of the correlation over trials; constant features count as 0."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    size = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return float(np.mean(np.where(size > 0, (x * y).sum(axis=0) / np.where(size > 0, size, 1.0), 0.0)))


def null_generators(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Compare the scores of the arm `eeg` with arms that draw with little or nothing of this trial's EEG."""
    # Fires unless `eeg` is shown to be better than the null arm hardest to beat: the burden of proof is with the EEG.
    if inputs.arms is None or "eeg" not in inputs.arms or len(inputs.arms) < 2:
        return NotApplicable(finding("no-arms"))
    scores = np.asarray(inputs.arms["eeg"], dtype=np.float64)
    units = np.arange(len(scores)) if inputs.arm_units is None else coded(inputs.arm_units)
    details: dict[str, float] = {}
    hardest = ("", -1.0)
    for name, given in inputs.arms.items():
        if name != "eeg":
            null = np.asarray(given, dtype=np.float64)
            p = paired_permutation_p(scores, null, units, rng=rng, count=inputs.permutations)
            details |= {f"{name}_difference": float(np.mean(scores - null)), f"{name}_p": p}
            hardest = max(hardest, (name, p), key=lambda one: one[1])
    name, p = hardest
    difference = scores - np.asarray(inputs.arms[name], dtype=np.float64)
    low, high = bootstrap_interval(difference, units, rng=rng, resamples=inputs.permutations + 1) or (np.nan, np.nan)
    note, effect = finding("hardest-arm", arm=name), float(difference.mean())
    return ControlResult(effect, low, high, p, fired=p > SIGNIFICANT, details=details, note=note)
