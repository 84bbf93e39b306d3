"""Trials from arrays and from MNE's epochs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas.artifacts import fingerprint
from neurocanvas.config import DataSettings
from neurocanvas.data.trials import Trials, TrialSpec, make_metadata, unique_names
from neurocanvas.errors import NeuroCanvasError, check_file, check_option
from neurocanvas.findings import finding

if TYPE_CHECKING:
    import mne
    import pandas as pd

    from neurocanvas.data.images import Images

# Unit -> µV.
UNITS: Mapping[str, float] = {"V": 1e6, "mV": 1e3, "uV": 1.0}

# Range in which the standard deviation of scalp EEG lies.
PLAUSIBLE_MICROVOLTS = (1.0, 500.0)


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
        Signal. Without a column `order`, rows must be in recording order. Block designs are detected from it.
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
        Without a column `subject`, all trials belong to subject "0".
    images : Images, optional
        The images that the column `image` names.

    Returns
    -------
    Trials
        In µV.

    Raises
    ------
    NeuroCanvasError
        If shapes do not fit, the signal is not finite or in another unit, or names are missing or not unique.

    Examples
    --------
    >>> trials = from_arrays(np.ones((2, 1, 50)), ["cat", "dog"], ch_names=["Oz"], sfreq=100.0, unit="uV")
    >>> trials.names.tolist()
    ['0/0/0000', '0/0/0001']
    """
    signal = np.asarray(X)
    check_option("unit", unit, UNITS)
    names = [str(name) for name in np.ravel(ch_names)]
    microvolts = _checked(signal, names, sfreq, tmin, unit)
    columns = {} if metadata is None else {str(name): metadata[name] for name in metadata}
    for name, values in {"y": y, **columns}.items():
        if (shape := np.shape(values)) != signal.shape[:1]:
            raise NeuroCanvasError(
                f"{name}: one value for each of the {len(signal)} trials of X is needed; got the shape {shape}."
            )
    if not np.array_equal(np.asarray(columns.setdefault("concept", y)), np.asarray(y)):
        raise NeuroCanvasError("metadata: column concept differs from y, which holds the concepts; leave it out.")
    index = getattr(metadata, "index", None)
    named = index is not None and len(index) and all(isinstance(name, str) for name in index)
    table = make_metadata({**columns, "concept": y}, list(index) if named else None)  # type: ignore[arg-type]
    unknown = set() if images is None or "image" not in table else {*table["image"]} - {*images.ids}
    if images is not None and unknown:
        raise NeuroCanvasError(
            f"images: the column image names {min(unknown)}, which is not among the {len(images.ids)} images, such as "
            f"{images.ids[0]}."
        )
    spec = TrialSpec(tuple(names), float(sfreq), float(tmin), signal.shape[2])
    return Trials(table, spec, partial(np.take, microvolts, axis=0), fingerprint(microvolts), images)


def from_epochs(epochs: mne.Epochs | Path | str, *, images: Images | None = None, concept: str = "concept") -> Trials:
    """Make trials from the EEG channels of MNE epochs.

    Parameters
    ----------
    epochs : mne.Epochs, or path-like
        Epochs around image onset, or a ``-epo.fif`` file. Columns of `epochs.metadata` keep their names.
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
        If there is no EEG channel or no such column, or for the reasons listed at `from_arrays`.

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
    if not isinstance(epochs, mne.BaseEpochs):
        raise NeuroCanvasError(f"epochs: mne.Epochs are needed, or from_arrays; got {type(epochs).__name__}.")
    picks = mne.pick_types(epochs.info, eeg=True, exclude="bads")
    if not len(picks):
        raise NeuroCanvasError(f"epochs: no EEG channel; the channels are {', '.join(epochs.ch_names[:8])}.")
    columns: dict[str, Any] = {} if epochs.metadata is None else epochs.metadata.rename(columns=str).to_dict("series")
    if concept in columns:
        y = columns[concept]
    elif concept != "concept":
        raise NeuroCanvasError(
            f"concept: allowed are the columns of the metadata, {', '.join(columns) or 'none'}; got {concept!r}."
        )
    else:
        words = {number: name for name, number in epochs.event_id.items()}
        y = np.array([words[number] for number in epochs.events[:, 2]])
    rate = getattr(epochs, "_raw_sfreq", None)  # of the samples that events count; other rates give no seconds
    if rate is not None:
        columns.setdefault("onset", (epochs.events[:, 0] / float(np.ravel(rate)[0])).astype(np.float64))
    volts, names = epochs.get_data(picks=picks), [epochs.ch_names[index] for index in picks]
    sfreq, tmin = epochs.info["sfreq"], epochs.tmin
    trials = from_arrays(volts, y, ch_names=names, sfreq=sfreq, tmin=tmin, metadata=columns, images=images)
    reasons = Counter(reason for log in epochs.drop_log for reason in log if reason != "IGNORED")
    found = []
    if reasons:
        n_events = sum("IGNORED" not in log for log in epochs.drop_log)
        dropped = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        found.append(finding("events", events=n_events, trials=len(trials), dropped=dropped))
    if bads := [name for name in epochs.info["bads"] if name in epochs.ch_names]:
        found.append(finding("bad-channels", names=", ".join(bads)))
    return replace(trials, findings=tuple(found))


def open_arrays(root: Path | str, settings: DataSettings) -> Trials:
    """Open an array of trials with its table, or epochs that MNE wrote."""
    array, unit = settings.array, "V" if settings.unit == "auto" else settings.unit
    path = check_file(Path(root) / array.signal, "the trials (data.array.signal)")
    if path.name.endswith((".fif", ".fif.gz")):
        trials = from_epochs(path, concept=array.concept)
    else:
        for name, value in (("ch_names", array.ch_names), ("sfreq", array.sfreq)):
            if not value:
                raise NeuroCanvasError(f"data.array.{name}: needed, because {path.name} does not hold it; got none.")
        table = read_table(check_file(Path(root) / array.table, "one row per trial (data.array.table)"))
        if array.concept not in table:
            raise NeuroCanvasError(
                f"data.array.concept: allowed are columns of {array.table}: {', '.join(table)}; got {array.concept!r}."
            )
        columns = table.drop(columns=[array.concept, "concept"], errors="ignore")
        trials = from_arrays(
            _read_array(path, array.key), table[array.concept].to_numpy(), ch_names=array.ch_names, sfreq=array.sfreq,
            tmin=array.tmin, unit=unit, metadata=columns,
        )  # fmt: skip
    if "image" in trials.metadata and settings.pictures:
        from neurocanvas.data.images import Images

        trials = replace(trials, images=Images.from_folder(settings.pictures, trials.column("image").tolist()))
    present = unique_names(trials.column("subject"))
    for subject in settings.subjects:
        check_option("subject", subject, present)
    return trials[np.isin(trials.column("subject"), settings.subjects or present)]


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or TSV table of text with stripped column names."""
    import pandas as pd

    try:
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NeuroCanvasError(f"{path}: not a table with one header line ({reason}); save it again.") from error
    return table.rename(columns=str.strip)


def _read_array(path: Path, key: str) -> np.ndarray:
    """The array of trials in a .npy, .npz or .mat file."""
    from scipy.io import loadmat

    readers = {".npy": lambda: {"": np.load(path)}, ".npz": lambda: dict(np.load(path)), ".mat": lambda: loadmat(path)}
    read = readers[check_option("data.array.signal: suffix", path.suffix.lower(), readers)]
    try:
        arrays = {name: values for name, values in read().items() if not name.startswith("__")}
    except NotImplementedError as error:
        raise NeuroCanvasError(f"{path}: MATLAB 7.3 files are HDF5, which is not read; save it with -v7.") from error
    except Exception as error:  # damaged files raise many kinds, pickles a ValueError
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NeuroCanvasError(f"{path}: damaged, or not an array of numbers ({reason}); save it again.") from error
    fitting = [name for name, values in arrays.items() if getattr(values, "ndim", 0) == 3]
    if key:
        return np.asarray(arrays[check_option("data.array.key", key, arrays)])
    if len(fitting) != 1:
        raise NeuroCanvasError(
            f"{path}: one array of shape (n_trials, n_chans, n_times) is needed, or its name in data.array.key; got "
            f"{', '.join(f'{name} {np.shape(values)}' for name, values in arrays.items())}."
        )
    return np.asarray(arrays[fitting[0]])


def _checked(signal: np.ndarray, names: list[str], sfreq: float, tmin: float, unit: str) -> np.ndarray:
    """The signal in µV, float32; raise unless shape, names, timing and values are those of EEG trials."""
    if signal.ndim != 3 or not signal.size or signal.dtype.kind not in "iuf":
        raise NeuroCanvasError(
            f"X: numbers of shape (n_trials, n_chans, n_times) are needed; got {signal.dtype}, {signal.shape}."
        )
    if len(names) != signal.shape[1] or len(set(names)) != len(names):
        raise NeuroCanvasError(
            f"ch_names: {signal.shape[1]} unique names are needed, one per channel of X; got {len(names)}, of which "
            f"{len(set(names))} are unique."
        )
    for name, value in {"sfreq": sfreq, "tmin": tmin}.items():
        if not isinstance(value, int | float | np.number) or not np.isfinite(value) or (name == "sfreq" and value <= 0):
            raise NeuroCanvasError(f"{name}: a finite number is needed, sfreq above 0; got {value!r}.")
    microvolts: np.ndarray = (signal * np.float32(UNITS[unit])).astype(np.float32)  # float16 becomes float32 first
    broken = ~np.isfinite(microvolts).all(axis=2)
    if broken.any():
        trial, channel = np.argwhere(broken)[0]
        raise NeuroCanvasError(
            f"X: trial {trial}, channel {names[channel]}: NaN or infinite values; leave the trial or channel out."
        )
    deviation = float(np.median(microvolts[:: max(1, len(signal) // 8)].std(axis=2, dtype=np.float64)))
    low, high = PLAUSIBLE_MICROVOLTS
    if deviation and not low / 1000 <= deviation <= high * 10:  # 0: a flat signal, of any unit
        fits = (f"pass unit={name!r}" for name in UNITS if low <= deviation / UNITS[unit] * UNITS[name] <= high)
        raise NeuroCanvasError(
            f"X: a standard deviation of {deviation:.3g} µV is not EEG; {next(fits, 'convert to volts')}."
        )
    return microvolts
