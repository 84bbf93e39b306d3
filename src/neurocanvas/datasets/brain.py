"""A simulated subject: what one person's EEG does while pictures are shown, and how strongly it tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from neurocanvas.datasets.forward import N_RESPONDING, leadfield
from neurocanvas.montage import BANDS, CH_NAMES

SFREQ, N_TIMES = 1000.0, 501
RESPONSE_ONSET, RESPONSE_FULL = 0.050, 0.090  # s: nothing of the picture is in the signal before the first
WINDOW = slice(40, 440)  # the samples whose log band power `explained_variance` speaks of
PARAMETER_SHARES = {"concept": 0.80, "colour": 0.12, "pose": 0.08}  # of the variance that pictures cause
TRIAL_SECONDS = 1.0
DRIFT_SECONDS = 150.0
DRIFT_POWER, DRIFT_COMMON, DRIFT_ANGLE, DRIFT_SENSOR = (
    0.30,
    0.15,
    0.15,
    0.20,
)  # sd: log power, log power, rad, log power
SECOND_DAY = 0.20  # sd of the change of log band power between sessions
BLINK_CHANCE, BLINK_VOLTS = 0.06, 70e-6
LINE_HZ, LINE_VOLTS = 50.0, 0.4e-6
BACKGROUND_VOLTS, RESPONDING_VOLTS, SENSOR_VOLTS = 0.65e-6, 1.0e-6, 1.8e-6
EVOKED_VOLTS = 0.9e-6
MOST_EVENED = 1.8
STRONGEST = 3.0
EVOKED_SHARE = 0.5
SHARED = 0.5  # share of the weights' variance that all subjects have in common
_PERIOD = 2000  # samples of the periodic noise that trials are cut from: half-hertz bins
_FREQS = np.arange(1, 201) * SFREQ / _PERIOD
_BAND_OF_BIN = np.searchsorted([low for low, _ in BANDS.values()][1:], _FREQS, side="right")
_PILOT = 400
# Start and stop, s, of the three bumps of the evoked response.
_BUMPS = ((0.050, 0.150), (0.110, 0.240), (0.190, 0.500))


@dataclass(frozen=True)
class Brain:
    """One simulated subject.

    Parameters
    ----------
    mixing : array, shape (2, n_chans, n_sources)
        Volts at the electrodes per unit of source, for the mean direction of every dipole and for a direction at right
        angles to it, towards which it slowly turns and back.
    amplitude : array, shape (n_sources, n_bins)
        Standard deviation of every frequency bin of every source.
    sensor : array, shape (n_chans,)
        Standard deviation of the electrodes' own noise, volts.
    power_weights : array, shape (N_RESPONDING, n_bands, n_parameters)
        Change of log band power per unit of a picture's parameter, once `power_gain` has multiplied it.
    evoked_weights : array, shape (N_RESPONDING, n_bumps, n_parameters)
        Change of evoked amplitude per unit of a picture's parameter, once `evoked_gain` has multiplied it.
    evoked_mean : array, shape (N_RESPONDING, n_bumps)
        Evoked amplitude that every picture causes.
    power_gain : array, shape (n_bands,)
        Strength of the response per band; 0 without signal.
    evoked_gain : float
        Strength of the evoked response's dependence on the picture.
    """

    mixing: np.ndarray
    amplitude: np.ndarray
    sensor: np.ndarray
    power_weights: np.ndarray
    evoked_weights: np.ndarray
    evoked_mean: np.ndarray
    power_gain: np.ndarray
    evoked_gain: float


@dataclass(frozen=True)
class Drift:
    """What wanders over minutes, one row per trial; standardised random walks times their standard deviations.

    Parameters
    ----------
    power : array, shape (n_trials, n_sources, n_bands)
        Log power of every source and band.
    angle : array, shape (n_trials, n_sources)
        Turn of every dipole, radians.
    sensor : array, shape (n_trials, n_chans)
        Log power of the electrodes' own noise.
    """

    power: np.ndarray
    angle: np.ndarray
    sensor: np.ndarray

    def rows(self, rows: slice) -> Drift:
        """Return the drift of some trials.

        Parameters
        ----------
        rows : slice
            Which trials.

        Returns
        -------
        Drift
        """
        return Drift(self.power[rows], self.angle[rows], self.sensor[rows])


def make_brain(
    seed: int, subject: int, groups: Sequence[str], pictures: np.ndarray, explained_variance: float
) -> Brain:
    """Draw a subject and set the strength of the responses.

    `_PILOT` trials without any picture's influence, with independent drift, give the variance of the log band power
    (Hann window over `WINDOW`) of every channel and band, drift and blinks included. What a picture
    adds follows from the share of a channel's band power that every responding source supplies, evoked response
    included. The gain of each band is then found by bisection: the variance over `pictures` of the log of the
    expected power is `explained_variance` of the whole at the best channel of the band. The evoked
    response gets `EVOKED_SHARE` of that odds ratio at the best channel and sample.

    Parameters
    ----------
    seed : int
        Seed of the whole simulation.
    subject : int
        Which subject; others do not change it.
    groups : sequence of str
        The group ("concept", "colour" or "pose") of every parameter of a picture.
    pictures : array, shape (n_pictures, n_parameters)
        Standardised parameters of the pictures over which variance is explained.
    explained_variance : float
        Single-trial share of the variance of the log band power that the picture's (standardised) parameters explain.

    Returns
    -------
    Brain
    """
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
        amplitude=_spectra(n_sources, own).astype(np.float32),
        sensor=(SENSOR_VOLTS * np.exp(own.normal(0, 0.3, n_chans))).astype(np.float32),
        power_weights=_mixed((N_RESPONDING, len(BANDS), len(sizes)), shared, own) * sizes,
        evoked_weights=_mixed((N_RESPONDING, len(_BUMPS), len(sizes)), shared, own) * sizes,
        evoked_mean=EVOKED_VOLTS / RESPONDING_VOLTS * _mixed((N_RESPONDING, len(_BUMPS)), shared, own),
        power_gain=np.zeros(len(BANDS)),
        evoked_gain=0.0,
    )
    return (
        brain
        if explained_variance == 0
        else _calibrated(brain, pictures, explained_variance, np.random.default_rng([seed, 3, subject]))
    )


def on_another_day(brain: Brain, *, rng: np.random.Generator) -> Brain:
    """Return the same subject in another session: other resting power, a slightly different strength.

    Parameters
    ----------
    brain : Brain
        The subject in the first session.
    rng : numpy.random.Generator
        Random numbers of the session.

    Returns
    -------
    Brain
        Weights and directions are unchanged; log power of every source and band, electrode noise and overall gain moved.
    """
    n_sources = brain.amplitude.shape[0]
    bands = np.exp(0.5 * rng.normal(0, SECOND_DAY, (n_sources, len(BANDS))))
    gain = np.exp(rng.normal(0, SECOND_DAY / 2))
    return replace(
        brain,
        mixing=(brain.mixing * gain).astype(np.float32),
        amplitude=(brain.amplitude * bands[:, _BAND_OF_BIN]).astype(np.float32),
        sensor=(brain.sensor * np.exp(rng.normal(0, SECOND_DAY, len(CH_NAMES)))).astype(np.float32),
    )


def draw_drift(
    brain: Brain, n_trials: int, *, rng: np.random.Generator, seconds: float = TRIAL_SECONDS
) -> Drift:
    """Draw how band power, the dipoles' directions and the electrodes' noise wander over one recording.

    Every quantity is an Ornstein-Uhlenbeck process with time constant `DRIFT_SECONDS`.

    Parameters
    ----------
    brain : Brain
        Whose recording.
    n_trials : int
        How many trials it has.
    rng : numpy.random.Generator
        Random numbers; consumed from first trial to last, so a longer recording begins like a shorter one.
    seconds : float
        Time from one trial to the next.

    Returns
    -------
    Drift
    """
    n_sources, n_bands, n_chans = brain.amplitude.shape[0], len(BANDS), len(CH_NAMES)
    keep = np.exp(-seconds / DRIFT_SECONDS)
    width = n_bands + n_sources * n_bands + n_sources + n_chans
    walk = np.empty((n_trials, width), dtype=np.float32)
    state = rng.standard_normal(width)
    for trial in range(n_trials):
        walk[trial] = state
        state = keep * state + np.sqrt(1 - keep**2) * rng.standard_normal(width)
    common, power, angle, sensor = np.split(
        walk, np.cumsum([n_bands, n_sources * n_bands, n_sources]), axis=1
    )
    powers = DRIFT_POWER * power.reshape(n_trials, n_sources, n_bands) + DRIFT_COMMON * common[:, None]
    return Drift(powers, DRIFT_ANGLE * angle, DRIFT_SENSOR * sensor)


def record(
    brain: Brain, drift: Drift, parameters: np.ndarray, *, rngs: Sequence[np.random.Generator]
) -> np.ndarray:
    """Simulate trials.

    Every part is made inside .5-80 Hz, so no filter follows and nothing of the picture leaks to before its onset.

    Parameters
    ----------
    brain : Brain
        Whose EEG.
    drift : Drift
        One row per trial.
    parameters : array, shape (n_trials, n_parameters)
        Standardised parameters of the picture of each trial.
    rngs : sequence of numpy.random.Generator
        One per trial, so that a trial does not depend on the others.

    Returns
    -------
    array, shape (n_trials, n_chans, n_times), float32, volts
        Average reference, first sample at picture onset.
    """
    n_chans, n_sources = brain.mixing.shape[1:]
    draws = np.stack(
        [rng.standard_normal((n_sources + n_chans, 2 * len(_FREQS)), dtype=np.float32) for rng in rngs]
    )
    angle = drift.angle[:, None, :].astype(np.float32)
    mixing = brain.mixing[0] * np.cos(angle) + brain.mixing[1] * np.sin(angle)
    before = np.exp(0.5 * drift.power).astype(np.float32)
    change = np.einsum("tp,sbp->tsb", parameters, brain.power_weights) * brain.power_gain
    grown = before[:, :N_RESPONDING] * np.expm1(0.5 * change).astype(np.float32)
    # A complex bin is two neighbouring numbers, so amplitudes repeat twice.
    both = np.repeat(_BAND_OF_BIN, 2)
    sources = draws[:, :n_sources] * np.repeat(brain.amplitude, 2, axis=1)
    steady = mixing @ (sources * before[:, :, both])
    answer = mixing[:, :, :N_RESPONDING] @ (sources[:, :N_RESPONDING] * grown[:, :, both])
    level = brain.sensor * np.exp(0.5 * drift.sensor).astype(np.float32)
    steady += draws[:, n_sources:] * (
        level[:, :, None] * np.repeat(_pass_band() / np.linalg.norm(_pass_band()), 2).astype(np.float32)
    )
    evoked = brain.evoked_mean + brain.evoked_gain * np.einsum(
        "tp,skp->tsk", parameters, brain.evoked_weights
    )
    times = np.arange(N_TIMES) / SFREQ
    signal = (
        _waves(steady)
        + _waves(answer) * _ramp(times)
        + mixing[:, :, :N_RESPONDING] @ (evoked @ _bumps(times)).astype(np.float32)
    )
    signal += np.stack([_artefacts(rng) for rng in rngs])
    return (signal - signal.mean(axis=1, keepdims=True)).astype(np.float32)


def log_band_power(signal: np.ndarray) -> np.ndarray:
    """Log band power of the samples in `WINDOW`, Hann window: the feature that `explained_variance` speaks of.

    Parameters
    ----------
    signal : array, shape (n_trials, n_chans, n_times), volts
        Trials.

    Returns
    -------
    array, shape (n_trials, n_chans, n_bands)
        Natural logarithm of the power in V², up to a constant.
    """
    from scipy.fft import rfft

    cut = signal[..., WINDOW]
    freqs = np.fft.rfftfreq(cut.shape[-1], 1 / SFREQ)
    power = (
        np.abs(rfft((cut - cut.mean(axis=-1, keepdims=True)) * np.hanning(cut.shape[-1]).astype(np.float32)))
        ** 2
    )
    bands = [power[..., (freqs >= low) & (freqs < high)].sum(axis=-1) for low, high in BANDS.values()]
    return np.log(np.stack(bands, axis=-1))


def _calibrated(
    brain: Brain, pictures: np.ndarray, explained_variance: float, rng: np.random.Generator
) -> Brain:
    """The brain with its weights evened and its gains set; `make_brain` says how."""
    drift = draw_drift(brain, _PILOT, rng=rng, seconds=np.inf)
    nothing = np.zeros((_PILOT, pictures.shape[1]))
    batches = [slice(start, start + 50) for start in range(0, _PILOT, 50)]
    pilot = np.concatenate(
        [record(brain, drift.rows(rows), nothing[rows], rngs=rng.spawn(50)) for rows in batches]
    )
    logs = log_band_power(pilot)
    noise, level = logs.var(axis=0), np.exp(logs).mean(axis=0)
    wanted = explained_variance / (1 - min(explained_variance, 0.99))
    moved = np.einsum("cs,skp->ckp", brain.mixing[0, :, :N_RESPONDING], brain.evoked_weights)
    waves = np.einsum("ckp,kt->ctp", moved, _bumps(np.arange(N_TIMES) / SFREQ))
    evoked_gain = np.sqrt(EVOKED_SHARE * wanted / ((waves**2).sum(axis=2) / pilot.var(axis=0)).max())
    mean = brain.mixing[0, :, :N_RESPONDING] @ brain.evoked_mean
    added = _evoked_power(mean + evoked_gain * np.einsum("ckp,np->nck", moved, pictures)) - _evoked_power(
        mean
    )
    share = _shares(brain)
    weights = _evened(brain.power_weights, share, noise)
    change = np.einsum("np,sbp->nsb", pictures, weights)

    def explained(gain: np.ndarray) -> np.ndarray:
        """Variance over pictures of the log of the expected band power, against the noise, at the best channel."""
        grown = np.einsum("csb,nsb->ncb", share, np.expm1(gain * change), optimize=True)
        return (np.log(np.maximum(1 + grown + added / level, 0.05)).var(axis=0) / noise).max(axis=0)

    low, high = np.zeros(len(BANDS)), np.full(len(BANDS), STRONGEST)
    for _ in range(14):
        middle = (low + high) / 2
        over = explained(middle) > wanted
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    return replace(brain, power_weights=weights, power_gain=low, evoked_gain=float(evoked_gain))


def _shares(brain: Brain) -> np.ndarray:
    """Share of every channel's band power that every responding source supplies, (n_chans, N_RESPONDING, n_bands)."""
    inside = np.eye(len(BANDS))[_BAND_OF_BIN]
    supplied = np.einsum("cs,sb->csb", brain.mixing[0] ** 2, brain.amplitude**2 @ inside)
    own = brain.sensor[:, None] ** 2 * (_pass_band() ** 2 / (_pass_band() ** 2).sum() @ inside)
    return supplied[:, :N_RESPONDING] / (supplied.sum(axis=1) + own)[:, None]


def _evoked_power(sizes: np.ndarray) -> np.ndarray:
    """Band power, (..., n_chans, n_bands), as in `log_band_power`, of bumps of these sizes, (..., n_chans, n_bumps)."""
    cut = _bumps(np.arange(N_TIMES) / SFREQ)[:, WINDOW]
    bins = np.fft.rfft((cut - cut.mean(axis=1, keepdims=True)) * np.hanning(cut.shape[1]))
    freqs = np.fft.rfftfreq(cut.shape[1], 1 / SFREQ)
    inside = [bins[:, (freqs >= low) & (freqs < high)] for low, high in BANDS.values()]
    return np.stack([(np.abs(sizes @ part) ** 2).sum(axis=-1) for part in inside], axis=-1)


def _evened(weights: np.ndarray, share: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Weights with sources that few electrodes see turned up and others down, so that no electrode stands out."""
    evened = weights
    for _ in range(40):
        part = (np.einsum("csb,sbp->cbp", share, evened) ** 2).sum(axis=2) / noise
        reach = share**2 / noise[:, None]
        want = (reach * (part.mean(axis=0) / part)[:, None]).sum(axis=0) / reach.sum(axis=0)
        factor = np.sqrt((evened**2).sum(axis=2) / (weights**2).sum(axis=2)) * want**0.25
        factor = np.clip(factor / np.exp(np.log(factor).mean(axis=0)), 1 / MOST_EVENED, MOST_EVENED)
        evened = weights * factor[:, :, None]
    return evened


def _mixed(shape: tuple[int, ...], shared: np.random.Generator, own: np.random.Generator) -> np.ndarray:
    """Standard normal numbers, partly the same for all subjects."""
    return np.sqrt(SHARED) * shared.normal(size=shape) + np.sqrt(1 - SHARED) * own.normal(size=shape)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors, scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _pass_band() -> np.ndarray:
    """Amplitude response of the .5-80 Hz recording filter, per bin."""
    return 1 / np.sqrt((1 + (0.5 / _FREQS) ** 8) * (1 + (_FREQS / 80) ** 24))


def _spectra(n_sources: int, rng: np.random.Generator) -> np.ndarray:
    """Amplitudes per source and bin: 1/f with an exponent of its own, and alpha in part of the responding sources."""
    exponent = rng.normal(1.15, 0.12) + rng.normal(0, 0.15, n_sources)
    power = _FREQS ** -exponent[:, None]
    peak = rng.normal(10.2, 0.6)
    alpha = np.zeros(n_sources)
    alpha[:N_RESPONDING] = 1.2 * rng.gamma(1.0, 1.0, N_RESPONDING)
    power *= 1 + alpha[:, None] * np.exp(-0.5 * ((_FREQS - peak) / 1.2) ** 2)
    amplitude = np.sqrt(power) * _pass_band()
    return amplitude / np.sqrt((_FREQS**-1.15 * _pass_band() ** 2).sum())


def _waves(bins: np.ndarray) -> np.ndarray:
    """Time courses, (..., n_times), of bins given as neighbouring real and imaginary parts."""
    from scipy.fft import irfft

    whole = np.zeros((*bins.shape[:-1], _PERIOD // 2 + 1), dtype=np.complex64)
    whole[..., 1 : len(_FREQS) + 1] = np.ascontiguousarray(bins).view(np.complex64)
    return irfft(whole, n=_PERIOD)[..., :N_TIMES] * np.float32(_PERIOD / 2)


def _ramp(times: np.ndarray) -> np.ndarray:
    """How much of the change of band power is there: 0 until `RESPONSE_ONSET`, 1 from `RESPONSE_FULL` on."""
    part = np.clip((times - RESPONSE_ONSET) / (RESPONSE_FULL - RESPONSE_ONSET), 0, 1)
    return (part**2 * (3 - 2 * part)).astype(np.float32)


def _bumps(times: np.ndarray) -> np.ndarray:
    """Time courses of the evoked response, (n_bumps, n_times): raised cosines, none before `RESPONSE_ONSET`."""
    inside = [np.clip((times - start) / (stop - start), 0, 1) for start, stop in _BUMPS]
    return np.stack([0.5 - 0.5 * np.cos(2 * np.pi * part) for part in inside])


def _artefacts(rng: np.random.Generator) -> np.ndarray:
    """Blinks (on some trials) and line noise of one trial, (n_chans, n_times), volts."""
    times = np.arange(N_TIMES) / SFREQ
    phase, level = rng.uniform(0, 2 * np.pi), rng.gamma(4.0, LINE_VOLTS / 4)
    gains = 1 + 0.5 * np.sin(np.arange(len(CH_NAMES)) * 1.7)  # every lead catches the line differently
    signal = level * gains[:, None] * np.sin(2 * np.pi * LINE_HZ * times + phase)
    if rng.random() < BLINK_CHANCE:
        centre, width, size = (
            rng.uniform(-0.1, 0.6),
            rng.uniform(0.04, 0.07),
            BLINK_VOLTS * rng.uniform(0.6, 1.4),
        )
        signal += size * leadfield().blink[:, None] * np.exp(-0.5 * ((times - centre) / width) ** 2)
    return signal.astype(np.float32)
