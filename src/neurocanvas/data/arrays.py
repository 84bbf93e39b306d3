"""Trials from arrays and from MNE's epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas.artifacts import fingerprint
from neurocanvas.data.trials import Trials, TrialSpec, make_metadata
from neurocanvas.errors import NeuroCanvasError, check_file, check_option

if TYPE_CHECKING:
    import mne
    import pandas as pd

    from neurocanvas.data.images import Images

# Unit -> µV.
UNITS: Mapping[str, float] = {"V": 1e6, "mV": 1e3, "uV": 1.0}


def from_arrays(
    X: np.ndarray,
    y: Sequence[Any],
    *,
    ch_names: Sequence[str],
    sfreq: float,
    tmin: float = 0.0,
    unit: str = "V",
    metadata: pd.DataFrame | Mapping[str, Any] | None = None,
    images: Images | None = None,
) -> Trials:
    """Make trials from an array.

    Parameters
    ----------
    X : array, shape (n_trials, n_chans, n_times)
        Signal. Without a column `order`, rows must be in the order in which they were recorded: whether concepts came
        in blocks is judged by it.
    y : sequence, shape (n_trials,)
        Concepts.
    ch_names : sequence of str
        Channel names, in the order of the signal.
    sfreq : float
        Sampling rate, Hz.
    tmin : float
        Time of the first sample relative to image onset, s.
    unit : {"V", "mV", "uV"}
        Of `X`; MNE gives volts.
    metadata : pandas.DataFrame or mapping, optional
        Columns as in `trials.COLUMNS` and any others, one value per trial. A text index holds the trials' names.
        Without a column `subject` everything is of subject "0".
    images : Images, optional
        The images that the column `image` names.

    Returns
    -------
    Trials
        In µV.

    Raises
    ------
    NeuroCanvasError
        If shapes do not fit, the signal is not finite, the unit is unknown, or names are not unique.

    Examples
    --------
    >>> trials = from_arrays(np.ones((2, 1, 50)), ["cat", "dog"], ch_names=["Oz"], sfreq=100.0, unit="uV")
    >>> trials.names.tolist()
    ['0/0/0000', '0/0/0001']
    """
    signal = np.asarray(X)
    check_option("unit", unit, UNITS)
    _check_signal(signal, ch_names, sfreq)
    columns = {} if metadata is None else {str(name): np.asarray(metadata[name]) for name in metadata}
    for name, values in {"y": np.asarray(y), **columns}.items():
        if values.shape != signal.shape[:1]:
            raise NeuroCanvasError(
                f"{name}: one value for each of the {len(signal)} trials of X is needed; got the shape {values.shape}."
            )
    index = getattr(metadata, "index", None)
    named = index is not None and len(index) and all(isinstance(name, str) for name in index)
    table = make_metadata({**columns, "concept": np.asarray(y)}, list(index) if named else None)  # type: ignore[arg-type]
    unknown = set() if images is None or "image" not in table else {*table["image"]} - {*images.ids}
    if images is not None and unknown:
        raise NeuroCanvasError(
            f"images: {min(unknown)}, which the column image names, is missing; there are {len(images.ids)}, such as "
            f"{images.ids[0]}."
        )
    microvolts = (signal * UNITS[unit]).astype(np.float32)
    spec = TrialSpec(tuple(map(str, ch_names)), float(sfreq), float(tmin), signal.shape[2])
    return Trials(table, spec, partial(np.take, microvolts, axis=0), fingerprint(microvolts), images)


def from_epochs(epochs: mne.Epochs | Path | str, *, images: Images | None = None, concept: str = "concept") -> Trials:
    """Make trials from the EEG channels of MNE epochs.

    Parameters
    ----------
    epochs : mne.Epochs, or path-like
        Epochs around image onset, or a ``-epo.fif`` file. Columns of `epochs.metadata` are taken by their names.
    images : Images, optional
        The images that the column `image` names.
    concept : str
        Column of `epochs.metadata` that holds the concepts; without it the names of the events are the concepts.

    Returns
    -------
    Trials
        In µV; MNE holds volts. The order is that of the events, by subject and session where these are known.

    Raises
    ------
    NeuroCanvasError
        If there is no EEG channel, a name is missing, or as `from_arrays` says.

    Examples
    --------
    >>> trials = from_epochs("sub-01-epo.fif", concept="category")  # doctest: +SKIP
    """
    import mne

    if isinstance(epochs, str | Path):
        path = check_file(epochs, "epochs that MNE wrote, -epo.fif")
        try:
            epochs = mne.read_epochs(path, preload=True, verbose="error")
        except Exception as error:  # MNE's readers raise many kinds
            raise NeuroCanvasError(f"{path}: MNE cannot read epochs from it ({error}); save them again.") from error
    picks = mne.pick_types(epochs.info, eeg=True, exclude=[])
    if not len(picks):
        raise NeuroCanvasError(f"epochs: no EEG channel; the channels are {', '.join(epochs.ch_names[:8])}.")
    columns: dict[str, Any] = {}
    if epochs.metadata is not None:
        columns = {str(name): epochs.metadata[name].to_numpy() for name in epochs.metadata}
    if concept in columns:
        y = columns[concept]
    elif concept != "concept":
        raise NeuroCanvasError(
            f"concept: allowed are the columns of the metadata, {', '.join(columns) or 'none'}; got {concept!r}."
        )
    else:
        words = {number: name for name, number in epochs.event_id.items()}
        y = np.array([words[number] for number in epochs.events[:, 2]])
    if "onset" not in columns:
        columns["onset"] = (epochs.events[:, 0] / epochs.info["sfreq"]).astype(np.float64)
    volts, names = epochs.get_data(picks=picks), [epochs.ch_names[index] for index in picks]
    sfreq = epochs.info["sfreq"]
    return from_arrays(volts, y, ch_names=names, sfreq=sfreq, tmin=epochs.tmin, metadata=columns, images=images)


def _check_signal(signal: np.ndarray, ch_names: Sequence[str], sfreq: float) -> None:
    """Raise unless the signal has three dimensions, a name per channel and finite values."""
    if signal.ndim != 3 or not signal.size or signal.dtype.kind not in "iuf":
        raise NeuroCanvasError(
            f"X: numbers of shape (n_trials, n_chans, n_times) are needed; got {signal.dtype}, {signal.shape}."
        )
    if len(ch_names) != signal.shape[1] or len(set(ch_names)) != len(ch_names):
        raise NeuroCanvasError(
            f"ch_names: {signal.shape[1]} different names are needed, as X has channels; got {len(set(ch_names))} "
            f"in {len(ch_names)}."
        )
    if not sfreq > 0:
        raise NeuroCanvasError(f"sfreq: a sampling rate above 0 Hz is needed; got {sfreq}.")
    broken = ~np.isfinite(signal).all(axis=2)
    if broken.any():
        trial, channel = np.argwhere(broken)[0]
        raise NeuroCanvasError(
            f"X: trial {trial}, channel {ch_names[channel]}: NaN or infinite values; leave the trial or channel out."
        )
