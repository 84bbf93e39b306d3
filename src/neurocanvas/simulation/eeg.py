"""A simulated subject: dipoles, forward model, spectra, artefacts, and the response to images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from neurocanvas.data.montage import BANDS, CH_NAMES, POSITIONS

N_RESPONDING, N_BACKGROUND = 60, 60
HEAD_RADIUS = 0.085  # metres, of the montage's electrodes
_LAYOUT_SEED = 20240611
_LEFT_EYE, _RIGHT_EYE = (-0.030, 0.062, -0.020), (0.030, 0.062, -0.020)


@dataclass(frozen=True)
class Leadfield:
    """Potentials of unit dipoles at the electrodes, average reference."""

    positions: np.ndarray  # (n_sources, 3), metres; `N_RESPONDING` occipito-temporal ones, then `N_BACKGROUND`
    gain: np.ndarray  # (n_chans, n_sources, 3); the strongest direction of a source has an RMS of 1 over electrodes
    blink: np.ndarray  # (n_chans,), 1 at the largest electrode


def source_positions() -> np.ndarray:
    """Positions of the sources, (n_sources, 3), metres: the same for every subject and seed."""
    rng = np.random.default_rng(_LAYOUT_SEED)
    # Longitude 0 is the back of the head. The ventral stream is low, early visual cortex at the back.
    side = np.where(np.arange(N_RESPONDING) % 2, 1.0, -1.0)
    longitude = side * rng.uniform(0.05, 1.9, N_RESPONDING)
    latitude = rng.uniform(-0.45, 0.9, N_RESPONDING)
    radius = rng.uniform(0.050, 0.070, N_RESPONDING)
    level = np.cos(latitude)
    visual = np.stack([np.sin(longitude) * level, -np.cos(longitude) * level, np.sin(latitude)], 1) * radius[:, None]
    directions = rng.normal(size=(N_BACKGROUND, 3))
    directions[:, 2] = np.abs(directions[:, 2]) - 0.35
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # the cube root gives an even density in the ball
    depths = np.cbrt(rng.uniform(0.015**3, 0.068**3, N_BACKGROUND))
    return np.concatenate([visual, directions * depths[:, None]])


@cache
def leadfield() -> Leadfield:
    """The leadfield of MNE's four-shell sphere; its arrays are cached and therefore read-only."""
    import mne

    positions = source_positions()
    dipoles = np.concatenate([positions, [_LEFT_EYE, _RIGHT_EYE]])
    info = mne.create_info(list(CH_NAMES), 1000.0, "eeg")
    montage = mne.channels.make_dig_montage(dict(zip(CH_NAMES, POSITIONS)), coord_frame="head")
    info.set_montage(montage, verbose="error")
    sphere = mne.make_sphere_model((0.0, 0.0, 0.0), HEAD_RADIUS, verbose="error")
    # MNE requires a direction for every point, although the solution below has free orientation.
    grid = {"rr": dipoles, "nn": np.tile([0.0, 0.0, 1.0], (len(dipoles), 1))}
    src = mne.setup_volume_source_space(pos=grid, sphere=sphere, sphere_units="m", verbose="error")
    forward = mne.make_forward_solution(info, None, src, sphere, meg=False, eeg=True, mindist=0.0, verbose="error")
    gain = forward["sol"]["data"].reshape(len(CH_NAMES), len(dipoles), 3)
    gain = gain - gain.mean(axis=0)
    brain, eyes = gain[:, : len(positions)], gain[:, len(positions) :]
    strongest = np.linalg.svd(brain.transpose(1, 0, 2), compute_uv=False)[:, 0] / np.sqrt(len(CH_NAMES))
    blink = (eyes @ np.array([0.0, 0.8, 0.6])).sum(axis=1)
    field = Leadfield(positions, brain / strongest[:, None], blink / blink[np.abs(blink).argmax()])
    for array in (field.positions, field.gain, field.blink):
        array.setflags(write=False)
    return field


SFREQ, N_TIMES = 1000.0, 501
TIMES = np.arange(N_TIMES) / SFREQ
RESPONSE_ONSET, RESPONSE_FULL = 0.050, 0.090  # s: the image changes no sample before the first
BUMPS = ((0.050, 0.150), (0.110, 0.240), (0.190, 0.500))  # s: start and stop of the parts of the evoked response
WINDOW = slice(40, 440)  # samples of which `log_band_power` is taken
BLINK_CHANCE, BLINK_VOLTS = 0.06, 70e-6
LINE_HZ, LINE_VOLTS = 50.0, 0.4e-6
EXPONENT = 1.15
_PERIOD = 2000  # samples of the periodic noise of which trials are a part: half-hertz bins
FREQS = np.arange(1, 201) * SFREQ / _PERIOD
BAND_OF_BIN = np.searchsorted([low for low, _ in BANDS.values()][1:], FREQS, side="right")
# Amplitude response of the .5-80 Hz recording filter: (n_bins,).
PASS_BAND = 1 / np.sqrt((1 + (0.5 / FREQS) ** 8) * (1 + (FREQS / 80) ** 24))
# Share of the induced response over time, (n_times,): 0 until `RESPONSE_ONSET`, 1 from `RESPONSE_FULL` on.
_RISE = np.clip((TIMES - RESPONSE_ONSET) / (RESPONSE_FULL - RESPONSE_ONSET), 0, 1)
RAMP = (_RISE**2 * (3 - 2 * _RISE)).astype(np.float32)
# Time courses of the evoked response's parts: raised cosines, (n_bumps, n_times).
COURSES = np.stack([
    0.5 - 0.5 * np.cos(2 * np.pi * np.clip((TIMES - start) / (stop - start), 0, 1)) for start, stop in BUMPS
])  # fmt: skip
# Parts of a response whose phase tells the image: two cycles under a raised cosine, analytic, so that a turn of the
# phase leaves the power in every band as it is: (n_parts, n_times).
PHASE_PARTS = ((0.050, 0.200), (0.200, 0.440))  # s
PHASE_WAVES = np.stack([
    0.5 * (1 - np.exp(2j * np.pi * cycle).real) * np.exp(4j * np.pi * cycle)
    for cycle in (np.clip((TIMES - start) / (stop - start), 0, 1) for start, stop in PHASE_PARTS)
])  # fmt: skip


def spectra(n_sources: int, rng: np.random.Generator) -> np.ndarray:
    """Standard deviation per bin, (n_sources, n_bins): 1/f, each with its own exponent, alpha in responding ones."""
    exponent = rng.normal(EXPONENT, 0.12) + rng.normal(0, 0.15, n_sources)
    power = FREQS ** -exponent[:, None]
    peak = rng.normal(10.2, 0.6)
    alpha = np.zeros(n_sources)
    alpha[:N_RESPONDING] = 1.2 * rng.gamma(1.0, 1.0, N_RESPONDING)
    power *= 1 + alpha[:, None] * np.exp(-0.5 * ((FREQS - peak) / 1.2) ** 2)
    amplitude = np.sqrt(power) * PASS_BAND
    return amplitude / np.sqrt((FREQS**-EXPONENT * PASS_BAND**2).sum())


def waves(bins: np.ndarray) -> np.ndarray:
    """Inverse FFT: (..., 2 * n_bins), real and imaginary parts interleaved, -> (..., n_times), float32."""
    from scipy.fft import irfft

    spectrum = np.zeros((*bins.shape[:-1], _PERIOD // 2 + 1), dtype=np.complex64)
    spectrum[..., 1 : len(FREQS) + 1] = np.ascontiguousarray(bins).view(np.complex64)
    return irfft(spectrum, n=_PERIOD)[..., :N_TIMES] * np.float32(_PERIOD / 2)


def artefacts(rng: np.random.Generator) -> np.ndarray:
    """Draw one trial's line noise and, on some trials, a blink: (n_chans, n_times), volts."""
    phase, level = rng.uniform(0, 2 * np.pi), rng.gamma(4.0, LINE_VOLTS / 4)
    gains = 1 + 0.5 * np.sin(np.arange(len(CH_NAMES)) * 1.7)  # line noise differs between leads
    signal = level * gains[:, None] * np.sin(2 * np.pi * LINE_HZ * TIMES + phase)
    if rng.random() < BLINK_CHANCE:
        centre, width = rng.uniform(-0.1, 0.6), rng.uniform(0.04, 0.07)
        size = BLINK_VOLTS * rng.uniform(0.6, 1.4)
        signal += size * leadfield().blink[:, None] * np.exp(-0.5 * ((TIMES - centre) / width) ** 2)
    return signal.astype(np.float32)


def log_band_power(signal: np.ndarray) -> np.ndarray:
    """Log band power in `WINDOW`, Hann-tapered, for calibration: (..., n_times) -> (..., n_bands), ln V² + const."""
    return np.log(_band_power(signal[..., WINDOW]))


def _band_power(cut: np.ndarray) -> np.ndarray:
    """Hann-tapered power per band: (..., n_samples) -> (..., n_bands)."""
    from scipy.fft import rfft

    freqs = np.fft.rfftfreq(cut.shape[-1], 1 / SFREQ)
    taper = np.hanning(cut.shape[-1]).astype(np.float32)
    power = np.abs(rfft((cut - cut.mean(axis=-1, keepdims=True)) * taper)) ** 2
    inside = [(freqs >= low) & (freqs < high) for low, high in BANDS.values()]
    return np.stack([power[..., band].sum(axis=-1) for band in inside], axis=-1)


# Shares of the variance that images cause; the background fills most of the visual field.
PARAMETER_SHARES = {"concept": 0.55, "colour": 0.10, "background": 0.32, "pose": 0.03}
BACKGROUND_VOLTS, RESPONDING_VOLTS, SENSOR_VOLTS, EVOKED_VOLTS = 0.65e-6, 1.0e-6, 2.6e-6, 0.9e-6
# Strength by band, mean 1: 400 ms do not resolve the slow bands, and visual gamma depends on the image.
BAND_SHARES = {"delta": 0.2, "theta": 0.4, "alpha": 0.9, "beta": 1.4, "gamma": 2.1}
SHARED = 0.5  # share of the weights' variance that all subjects have in common
TUNING_METRES = 0.025  # nearer sources respond alike
EVOKED_SHARE = 0.5
PHASE_RADIANS, PHASE_METRES = 0.8, 0.060  # sd over images of a source's phase; sources this near have a like phase
LARGEST_CHANGE = 9.0  # of a source's log power in a band, over images: beyond it, volts are not those of EEG
NOISE_METRES, NOISE_ALONE = 0.030, 0.02  # noise of "evoked" and "mixed": its reach, and the share without neighbours
TRIAL_SECONDS, DRIFT_SECONDS = 1.0, 150.0
DRIFT_POWER, DRIFT_COMMON = 0.30, 0.15  # sd of log power: of one source and band, of all sources in a band
DRIFT_ANGLE, DRIFT_SENSOR = 0.15, 0.20  # sd: radians; log power
SECOND_DAY = 0.20  # sd of the change of log band power between sessions
_PILOT = 400


@dataclass(frozen=True)
class Brain:
    """One simulated subject."""

    mixing: np.ndarray  # (2, n_chans, n_sources), volts per unit: mean direction, and one at right angles
    amplitude: np.ndarray  # (n_sources, n_bins), standard deviation per bin
    sensor: np.ndarray  # (n_chans,), standard deviation of the electrodes' own noise, volts
    power_weights: np.ndarray  # (N_RESPONDING, n_bands, n_parameters), change of log power, times `power_gain`
    evoked_weights: np.ndarray  # (N_RESPONDING, n_bumps, n_parameters), change of amplitude, times `evoked_gain`
    evoked_mean: np.ndarray  # (N_RESPONDING, n_bumps), amplitude that every image evokes
    power_gain: np.ndarray  # (n_bands,)
    evoked_gain: float
    noise_mixing: np.ndarray  # (n_chans, n_chans), of the electrodes' own noise
    phase_coded: bool = False  # the image turns the phase of the evoked response, else it changes amplitudes
    reached: float = 0.0  # share of the variance that images explain after calibration


@dataclass(frozen=True)
class Drift:
    """Slow changes over minutes, one row per trial: standardised random walks times their standard deviations."""

    power: np.ndarray  # (n_trials, n_sources, n_bands), log power
    angle: np.ndarray  # (n_trials, n_sources), turn of the dipoles, radians
    sensor: np.ndarray  # (n_trials, n_chans), log power

    def rows(self, rows: slice) -> Drift:
        return Drift(self.power[rows], self.angle[rows], self.sensor[rows])


def make_brain(
    seed: int, subject: int, groups: Sequence[str], images: np.ndarray, explained_variance: float,
    response: str = "induced",
) -> Brain:  # fmt: skip
    """Draw a subject; `images`, (n_images, n_parameters), explain this share of single-trial variance, if possible."""
    # "induced": of log band power, with a weak evoked response beside it. "evoked": of voltage at an electrode's
    # best sample, mean over electrodes, by the phase of the response, at constant power. "mixed": of both.
    shared, own = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2, subject])
    field = leadfield()
    n_chans, n_sources, _ = field.gain.shape
    direction = _unit(_mixed((n_sources, 3), shared, own))
    across = _unit(np.cross(direction, own.normal(size=(n_sources, 3))))
    volts = np.where(np.arange(n_sources) < N_RESPONDING, RESPONDING_VOLTS, BACKGROUND_VOLTS)
    strength = volts * np.exp(own.normal(0, 0.35, n_sources)) * np.exp(own.normal(0, 0.15))
    mixing = np.stack([np.einsum("csx,sx->cs", field.gain, turn) for turn in (direction, across)]) * strength
    sizes = np.sqrt([PARAMETER_SHARES[group] / list(groups).count(group) for group in groups])
    brain = Brain(
        mixing=mixing.astype(np.float32),
        amplitude=spectra(n_sources, own).astype(np.float32),
        sensor=(SENSOR_VOLTS * np.exp(own.normal(0, 0.15, n_chans))).astype(np.float32),
        power_weights=_mixed((N_RESPONDING, len(BANDS), len(sizes)), shared, own) * sizes,
        evoked_weights=_mixed((N_RESPONDING, len(BUMPS), len(sizes)), shared, own) * sizes,
        evoked_mean=EVOKED_VOLTS / RESPONDING_VOLTS * _mixed((N_RESPONDING, len(BUMPS)), shared, own),
        power_gain=np.zeros(len(BANDS)),
        evoked_gain=0.0,
        noise_mixing=np.eye(n_chans, dtype=np.float32) if response == "induced" else _neighbours(),
    )
    if explained_variance == 0:
        return brain
    return _calibrated(brain, images, explained_variance, response, np.random.default_rng([seed, 3, subject]))


def _neighbours() -> np.ndarray:
    """Mixing matrix of noise of variance 1 whose correlation falls with the distance of electrodes."""
    from scipy.spatial.distance import cdist

    near = np.exp(-cdist(POSITIONS, POSITIONS, "sqeuclidean") / (2 * NOISE_METRES**2))
    return np.linalg.cholesky((1 - NOISE_ALONE) * near + NOISE_ALONE * np.eye(len(near))).astype(np.float32)


def on_another_day(brain: Brain, *, rng: np.random.Generator) -> Brain:
    """The same subject in another session: resting power and gain differ, weights and directions do not."""
    n_sources = brain.amplitude.shape[0]
    bands = np.exp(0.5 * rng.normal(0, SECOND_DAY, (n_sources, len(BANDS))))
    gain = np.exp(rng.normal(0, SECOND_DAY / 2))
    return replace(
        brain,
        mixing=(brain.mixing * gain).astype(np.float32),
        amplitude=(brain.amplitude * bands[:, BAND_OF_BIN]).astype(np.float32),
        sensor=(brain.sensor * np.exp(rng.normal(0, SECOND_DAY, len(CH_NAMES)))).astype(np.float32),
    )


def draw_drift(brain: Brain, n_trials: int, *, rng: np.random.Generator, seconds: float = TRIAL_SECONDS) -> Drift:
    """Draw the drift of band power, dipole directions and electrode noise: Ornstein-Uhlenbeck, from trial to trial."""
    # trial by trial, so that a longer recording begins like a shorter one
    n_sources, n_bands, n_chans = brain.amplitude.shape[0], len(BANDS), len(CH_NAMES)
    decay = np.exp(-seconds / DRIFT_SECONDS)
    width = n_bands + n_sources * n_bands + n_sources + n_chans
    walk = np.empty((n_trials, width), dtype=np.float32)
    state = rng.standard_normal(width)
    for trial in range(n_trials):
        walk[trial] = state
        state = decay * state + np.sqrt(1 - decay**2) * rng.standard_normal(width)
    common, power, angle, sensor = np.split(walk, np.cumsum([n_bands, n_sources * n_bands, n_sources]), axis=1)
    powers = DRIFT_POWER * power.reshape(n_trials, n_sources, n_bands) + DRIFT_COMMON * common[:, None]
    return Drift(powers, DRIFT_ANGLE * angle, DRIFT_SENSOR * sensor)


def record(brain: Brain, drift: Drift, parameters: np.ndarray, *, rngs: Sequence[np.random.Generator]) -> np.ndarray:
    """Simulate trials of images (n_trials, n_parameters): (n_trials, n_chans, n_times), float32, volts."""
    # Every part lies inside .5-80 Hz: a filter afterwards would smear the response to before its onset. One generator
    # per trial makes a trial independent of the number of others.
    n_chans, n_sources = brain.mixing.shape[1:]
    draws = np.stack([rng.standard_normal((n_sources + n_chans, 2 * len(FREQS)), dtype=np.float32) for rng in rngs])
    angle = drift.angle[:, None, :].astype(np.float32)
    mixing = brain.mixing[0] * np.cos(angle) + brain.mixing[1] * np.sin(angle)
    resting = np.exp(0.5 * drift.power).astype(np.float32)
    change = np.einsum("tp,sbp->tsb", parameters, brain.power_weights) * brain.power_gain
    grown = resting[:, :N_RESPONDING] * np.expm1(0.5 * change).astype(np.float32)
    # a complex bin is two neighbouring numbers
    both = np.repeat(BAND_OF_BIN, 2)
    sources = draws[:, :n_sources] * np.repeat(brain.amplitude, 2, axis=1)
    steady = mixing @ (sources * resting[:, :, both])
    induced = mixing[:, :, :N_RESPONDING] @ (sources[:, :N_RESPONDING] * grown[:, :, both])
    level = brain.sensor * np.exp(0.5 * drift.sensor).astype(np.float32)
    shape = np.repeat(PASS_BAND / np.linalg.norm(PASS_BAND), 2).astype(np.float32)
    steady += (brain.noise_mixing @ draws[:, n_sources:]) * (level[:, :, None] * shape)
    evoked = _evoked(brain, parameters).astype(np.float32)
    signal = waves(steady) + waves(induced) * RAMP + mixing[:, :, :N_RESPONDING] @ evoked
    signal += np.stack([artefacts(rng) for rng in rngs])
    return (signal - signal.mean(axis=1, keepdims=True)).astype(np.float32)


def _evoked(brain: Brain, parameters: np.ndarray) -> np.ndarray:
    """Phase-locked response of the sources: (n_trials, N_RESPONDING, n_times)."""
    change = np.einsum("tp,skp->tsk", parameters, brain.evoked_weights)
    if not brain.phase_coded:
        return (brain.evoked_mean + brain.evoked_gain * change) @ COURSES
    parts = len(PHASE_WAVES)
    turned = brain.evoked_mean[:, :parts] * np.exp(1j * PHASE_RADIANS * change[..., :parts])
    return brain.evoked_gain * (turned @ PHASE_WAVES).real


def _calibrated(brain: Brain, images: np.ndarray, share: float, response: str, rng: np.random.Generator) -> Brain:
    """Even the weights over electrodes, and set the gains so that images explain this share of the variance."""
    # Pilot trials without images, with independent drift and blinks, give the variance of log band power. The gain of
    # each band is iterated until the linear part of the log of expected power explains `share` times the band's
    # `BAND_SHARES`, averaged over channels; the best channels reach about 2.5 times that. The evoked response gets
    # `EVOKED_SHARE` of the odds at its best channel and sample.
    drift = draw_drift(brain, _PILOT, rng=rng, seconds=np.inf)
    blank = np.zeros((_PILOT, images.shape[1]))
    batches = [slice(start, start + 50) for start in range(0, _PILOT, 50)]
    pilot = np.concatenate([record(brain, drift.rows(rows), blank[rows], rngs=rng.spawn(50)) for rows in batches])
    logs = log_band_power(pilot)
    noise, level = logs.var(axis=0), np.exp(logs).mean(axis=0)
    sample = images[np.linspace(0, len(images) - 1, min(len(images), 400)).astype(int)]
    shares = np.minimum(share * np.array([BAND_SHARES[band] for band in BANDS]), 0.99)
    odds = shares / (1 - shares)

    mean = brain.mixing[0, :, :N_RESPONDING] @ brain.evoked_mean
    if response == "induced":
        moved = np.einsum("cs,skp->ckp", brain.mixing[0, :, :N_RESPONDING], brain.evoked_weights)
        largest = (np.einsum("ckp,kt->ctp", moved, COURSES) ** 2).sum(axis=2) / pilot.var(axis=0)
        brain = replace(brain, evoked_gain=float(np.sqrt(EVOKED_SHARE * odds.mean() / largest.max())))
        evoked = (mean + brain.evoked_gain * np.einsum("ckp,np->nck", moved, sample)) @ COURSES
    else:
        # where an electrode adds sources of different phases, power would depend on the image
        total, turns = min(share, 0.99), np.tensordot(_alike(PHASE_METRES), brain.evoked_weights, 1)
        brain = replace(brain, evoked_gain=1.0, evoked_weights=turns, phase_coded=True, reached=total)
        evoked = (brain.mixing[0, :, :N_RESPONDING] @ _evoked(brain, sample))[..., WINDOW]
        ratio = (evoked.var(axis=0) / pilot[..., WINDOW].var(axis=0)).max(axis=-1).mean()
        brain = replace(brain, evoked_gain=float(np.sqrt(total / (1 - total) / ratio)))
        if response == "evoked":
            return brain
        evoked = brain.mixing[0, :, :N_RESPONDING] @ _evoked(brain, sample)
    added = _band_power(evoked[..., WINDOW]) - _band_power((mean @ COURSES)[..., WINDOW])

    # Expected power that a bin of unit variance adds to each band, (n_bins, n_bands); 400 ms mix delta to alpha.
    oscillations = np.exp(2j * np.pi * FREQS[:, None] * (np.arange(WINDOW.stop - WINDOW.start) / SFREQ))
    leakage = _band_power(oscillations.imag) + _band_power(oscillations.real)
    inside = np.eye(len(BANDS))[BAND_OF_BIN]
    # power that band b of a source adds to band a of the feature at an electrode
    leak = np.einsum("sk,kb,ka->sba", brain.amplitude[:N_RESPONDING] ** 2, inside, leakage)
    squared = brain.mixing[0, :, :N_RESPONDING] ** 2
    reach = np.einsum("cs,sbb->csb", squared, leak) / level[:, None]
    weights = np.stack([_evened(brain.power_weights[:, b], reach[..., b], noise[:, b]) for b in range(len(BANDS))], 1)
    change = np.einsum("np,sbp->nsb", sample, weights)
    design = np.linalg.qr(np.column_stack([np.ones(len(sample)), sample]))[0][:, 1:]
    largest_gain = LARGEST_CHANGE / np.einsum("np,sbp->nsb", images, weights).max(axis=(0, 1))
    gain = np.full(len(BANDS), 0.1)
    for _ in range(25):
        grown = np.einsum("sba,nsb->nsa", leak, np.expm1(gain * change))
        grown = np.einsum("cs,nsa->nca", squared, grown, optimize=True) + added
        # at least .05, because evoked and induced power do not add exactly
        logs = np.log(np.maximum(1 + grown / level, 0.05)).reshape(len(sample), -1)
        linear = ((design.T @ logs) ** 2).sum(axis=0).reshape(level.shape) / len(sample)
        ratio = (linear / noise).mean(axis=0)
        gain = np.minimum(gain * np.clip(odds / ratio, 0.25, 4) ** 0.4, largest_gain)
    return replace(brain, power_weights=weights, power_gain=gain, reached=float((ratio / (1 + ratio)).mean()))


def _evened(weights: np.ndarray, share: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Weights of one band, changed so that all electrodes hold about the same information about the image."""
    evened = _alike(TUNING_METRES) @ weights
    reach = share / np.sqrt(noise[:, None])
    stay = 0.02 * np.linalg.eigvalsh(reach.T @ reach)[-1]
    step = np.linalg.inv(reach.T @ reach + stay * np.eye(N_RESPONDING))
    for _ in range(40):
        length = np.linalg.norm(evened, axis=1, keepdims=True)
        # a source that responds much more strongly than the others would leave the linear range
        evened = evened / length * np.clip(length / length.mean(), 0.6, 1.4)
        at_electrodes = reach @ evened
        size = np.linalg.norm(at_electrodes, axis=1, keepdims=True)
        evened = step @ (reach.T @ (at_electrodes / size * size.mean()) + stay * evened)
    return evened / np.linalg.norm(evened) * np.linalg.norm(weights)


def _alike(metres: float) -> np.ndarray:
    """Mixing matrix that makes weights of responding sources alike within this distance."""
    from scipy.spatial.distance import cdist

    positions = leadfield().positions[:N_RESPONDING]
    squared = cdist(positions, positions, "sqeuclidean")
    return np.linalg.cholesky(np.exp(-squared / (2 * metres**2)) + 1e-6 * np.eye(N_RESPONDING))


def _mixed(shape: tuple[int, ...], shared: np.random.Generator, own: np.random.Generator) -> np.ndarray:
    """Standard normal numbers; all subjects share `SHARED` of their variance."""
    return np.sqrt(SHARED) * shared.normal(size=shape) + np.sqrt(1 - SHARED) * own.normal(size=shape)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
