"""The part of each trial that an encoder sees, read and checked when it is indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.data.trials import TrialSpec
from neurocanvas.errors import NeuroCanvasError

MICROVOLTS = 1e6

# Trials that are read at once; at 62 channels and 400 samples a chunk needs about 30 MB.
CHUNK = 128


def window_samples(spec: TrialSpec, tmin: float, tmax: float, name: str) -> slice:
    """The samples of a trial between two times in s after image onset, end exclusive; `name` is for the error."""
    offset = round(spec.tmin * spec.sfreq)
    start, stop = (round(edge * spec.sfreq) - offset for edge in (tmin, tmax))
    if not 0 <= start < stop <= spec.n_times:
        last = spec.tmin + spec.n_times / spec.sfreq
        raise NeuroCanvasError(
            f"{name}: the trials hold {spec.tmin:.3f} to {last:.3f} s after image onset; got {tmin} to {tmax}; choose "
            "a window inside the trials."
        )
    return slice(start, stop)


class Window:
    """Signal of trials between two times, (n_trials, n_chans, n_times), float32, µV; `sources` are Trials or arrays."""

    def __init__(
        self, sources: Sequence[Any], spec: TrialSpec, window: tuple[float, float], *, flat: bool = True,
        name: str = "window",
    ) -> None:  # fmt: skip
        self.sources, self.samples = sources, window_samples(spec, *window, name)
        self.ch_names, self.flat = spec.ch_names, flat  # `flat`: whether channels may be flat
        self.shape = (sum(map(len, sources)), len(spec.ch_names), self.samples.stop - self.samples.start)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        rows = np.atleast_1d(np.arange(len(self))[rows])
        window, first = np.empty((len(rows), *self.shape[1:]), np.float32), 0
        for source in self.sources:
            inside = (rows >= first) & (rows < first + len(source))
            if inside.any():
                trials, in_volts = rows[inside] - first, isinstance(source, np.ndarray)
                signal = np.multiply(source[trials], MICROVOLTS, dtype=float) if in_volts else source.signal(trials)
                signal = signal[..., self.samples] if signal.shape[-1] != self.shape[-1] else signal
                with np.errstate(invalid="ignore"):
                    peak_to_peak = np.ptp(signal, axis=-1)  # not finite if a sample is not
                if (bad := ~np.isfinite(peak_to_peak) | ((peak_to_peak == 0) & (not self.flat))).any():
                    trial, channel = np.argwhere(bad)[0]
                    name = trials[trial] if in_volts else source.names[trials[trial]]
                    problem = "flat" if peak_to_peak[trial, channel] == 0 else "NaN or infinite"
                    raise NeuroCanvasError(
                        f"X: trial {name}: channel {self.ch_names[channel]} is {problem} in the window; leave out that "
                        "trial or channel."
                    )
                window[inside] = signal
            first += len(source)
        return window

    def chunks(self) -> list[slice]:
        """Consecutive trials, a chunk at a time."""
        return [slice(first, min(first + CHUNK, len(self))) for first in range(0, len(self), CHUNK)]

    def read(self) -> np.ndarray:
        """Read all trials."""
        signal = np.empty(self.shape, np.float32)
        for rows in self.chunks():
            signal[rows] = self[rows]
        return signal

    def fingerprint(self) -> str:
        """Hash the trials and the window."""
        sources = [source if isinstance(source, np.ndarray) else source.fingerprint() for source in self.sources]
        return artifacts.fingerprint(*sources, self.samples.start, self.samples.stop)
