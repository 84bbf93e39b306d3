"""Controls that take the brain out of the EEG: noise, randomised phases, shuffled pairs; and null generators."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from math import factorial

import numpy as np

from neurocanvas.audit.controls.base import (
    NO_INTERVAL,
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
from neurocanvas.audit.controls.inputs import ControlInputs, coded, flattened
from neurocanvas.evaluation.statistics import mean_interval, paired_permutation_p
from neurocanvas.findings import finding
from neurocanvas.targets.pretrained import batches

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
    named = np.full((2, inputs.repeats, len(inputs.labels)), -1)
    for repeat in range(inputs.repeats):
        for train, test in inputs.splits:  # new noise per fold, as shared noise would make hits dependent
            noise = matched_noise(inputs.flat, rng=rng)
            for way, trained in enumerate((noise, inputs.flat)):
                named[way, repeat, test] = inputs.decode(trained[train], inputs.labels[train], noise[test])
    tested = inputs.tested
    true, units, answers = inputs.labels[tested], inputs.units[tested], named[:, :, tested]
    tests = [label_p(way, true, inputs.strata, units, inputs.permutations, rng=rng) for way in answers]
    results = [above_chance(inputs, way, *test, rng=rng) for way, test in zip(answers, tests, strict=True)]
    p = min(1.0, 2 * min(result.p for result in results))
    details: dict[str, float] = {}
    for name, result in zip(("noise", "real_to_noise"), results, strict=True):
        details |= {f"{name}_accuracy": result.details["accuracy"], f"{name}_p": result.p}
    largest = max(results, key=lambda result: result.effect)
    return replace(largest, p=p, fired=p <= SIGNIFICANT, details=details)


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
    course = np.stack([signal[:, :, times].mean(axis=2) for times in bins], axis=2)
    power = np.log(signal.var(axis=2) + np.finfo(np.float64).tiny)
    return np.concatenate([flattened(course), power], axis=1)


def phase_randomisation(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Decode signals with random phases, in training and test: firing means that timing is not what is decoded."""
    # Band power hardly changes under random phases, so with it this fires whenever enough is decoded; the note says so.
    # Silence never shows that timing counts: too few trials make it silent too.
    tested, extract = inputs.tested, inputs.extract or time_course_and_power
    true, units = inputs.labels[tested], inputs.units[tested]
    used = np.unique(np.concatenate([*chain.from_iterable(inputs.splits)]))
    versions: list[list[np.ndarray]] = [[] for _ in range(1 + PHASE_REPEATS)]
    for part in batches(len(used), BATCH):
        signal = np.asarray(inputs.signal[used[part]], dtype=np.float64)
        for number, parts in enumerate(versions):
            parts.append(flattened(extract(phase_randomised(signal, rng=rng) if number else signal)))
    features = np.zeros((len(versions), len(inputs.labels), versions[0][0].shape[1]))
    features[:, used] = [np.concatenate(parts) for parts in versions]
    real, surrogates = features[0], features[1:]
    real_named = inputs.predict(real, inputs.labels)[tested]
    refused = nothing_decoded(inputs, real_named, rng=rng)
    if refused is not None:
        return refused
    named = np.stack([inputs.predict(surrogate, inputs.labels)[tested] for surrogate in surrogates])
    above, chance = label_p(named, true, inputs.strata, units, inputs.permutations, rng=rng)
    right, hits = (real_named == true).astype(float), (named == true).mean(axis=0)
    chances = chance_of(real_named, true), chance
    result = survives(right, hits, chances, above, units, inputs.permutations, rng=rng)
    alike = float(np.mean([_correlation(real[tested], surrogate[tested]) for surrogate in surrogates]))
    bound = alike >= SAME_FEATURES
    return replace(
        result, details={**result.details, "features_r": alike}, note=finding("phases-bound") if bound else None,
        bound=result.fired and bound,
    )  # fmt: skip


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Mean over features of the correlation over trials; constant features count as 0."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    size = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return float(np.mean((x * y).sum(axis=0) / np.where(size > 0, size, np.inf)))


def null_generators(inputs: ControlInputs, *, rng: np.random.Generator) -> ControlResult | NotApplicable:
    """Compare the scores of the arm `eeg` with arms that draw with little or nothing of this trial's EEG."""
    # Fires unless `eeg` is shown to be better than the null arm hardest to beat: the burden of proof is with the EEG.
    arms = {name: np.asarray(scores, dtype=np.float64) for name, scores in (inputs.arms or {}).items()}
    if "eeg" not in arms or len(arms) < 2:
        return NotApplicable(finding("no-arms"))
    eeg = arms.pop("eeg")
    units = np.arange(len(eeg)) if inputs.arm_units is None else coded(inputs.arm_units)
    p_values = {
        name: paired_permutation_p(eeg, null, units, rng=rng, count=inputs.permutations) for name, null in arms.items()
    }
    details: dict[str, float] = {}
    for name, null in arms.items():
        details |= {f"{name}_difference": float(np.mean(eeg - null)), f"{name}_p": p_values[name]}
    hardest = max(p_values, key=lambda name: p_values[name])
    p, difference = p_values[hardest], eeg - arms[hardest]
    low, high = mean_interval(difference, units, rng=rng, resamples=inputs.permutations + 1) or NO_INTERVAL
    return ControlResult(
        float(difference.mean()), low, high, p, fired=p > SIGNIFICANT, details=details,
        note=finding("hardest-arm", arm=hardest, arms=", ".join(arms)),
    )  # fmt: skip
