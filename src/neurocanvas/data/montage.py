"""The 62 channels of EEG-ImageNet: names in file order, regions and positions; and the five bands in Hz."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError

# Name -> region of the scalp, and position in mm: x to the right ear, y to the nose, z up, from the centre of the head.
# The positions restate `montage.fif` of EEG-ImageNet (github.com/Promise-Z5Q2SQ/EEG-ImageNet-Dataset, MIT
# licence, commit 7c781571; that file gives them in units of a micrometre). All but CB1 and CB2 lie on a
# sphere of 85 mm.
_ELECTRODES: dict[str, tuple[str, float, float, float]] = {
    "FP1": ("frontal", -26.1, 80.8, -4.0),
    "FPZ": ("frontal", 0.0, 85.0, -1.8),
    "FP2": ("frontal", 26.1, 80.8, -4.0),
    "AF3": ("frontal", -31.5, 76.2, 20.8),
    "AF4": ("frontal", 31.5, 76.2, 20.8),
    "F7": ("frontal", -68.4, 49.9, -7.5),
    "F5": ("frontal", -63.1, 54.0, 18.1),
    "F3": ("frontal", -48.2, 57.6, 39.9),
    "F1": ("frontal", -26.0, 59.9, 54.4),
    "FZ": ("frontal", 0.0, 60.7, 59.5),
    "F2": ("frontal", 26.0, 59.9, 54.4),
    "F4": ("frontal", 48.1, 57.6, 39.9),
    "F6": ("frontal", 63.0, 54.0, 18.2),
    "F8": ("frontal", 68.4, 49.9, -7.5),
    "FT7": ("temporal", -80.4, 26.2, -8.5),
    "FC5": ("central", -76.2, 28.8, 24.2),
    "FC3": ("central", -59.3, 31.0, 52.5),
    "FC1": ("central", -32.4, 32.4, 71.6),
    "FCZ": ("central", 0.0, 32.9, 78.4),
    "FC2": ("central", 32.4, 32.4, 71.6),
    "FC4": ("central", 59.3, 31.0, 52.5),
    "FC6": ("central", 76.2, 28.8, 24.2),
    "FT8": ("temporal", 80.4, 26.2, -8.5),
    "T7": ("temporal", -84.5, 0.0, -8.8),
    "C5": ("central", -80.8, 0.0, 26.3),
    "C3": ("central", -63.2, 0.0, 56.9),
    "C1": ("central", -34.5, 0.0, 77.7),
    "CZ": ("central", 0.0, 0.0, 85.0),
    "C2": ("central", 34.6, 0.0, 77.6),
    "C4": ("central", 63.2, 0.0, 56.9),
    "C6": ("central", 80.8, 0.0, 26.3),
    "T8": ("temporal", 84.5, 0.0, -8.8),
    "TP7": ("temporal", -80.4, -26.2, -8.5),
    "CP5": ("parietal", -76.2, -28.8, 24.2),
    "CP3": ("parietal", -59.3, -31.0, 52.5),
    "CP1": ("parietal", -32.4, -32.4, 71.6),
    "CPZ": ("parietal", 0.0, -32.9, 78.4),
    "CP2": ("parietal", 32.4, -32.4, 71.6),
    "CP4": ("parietal", 59.3, -31.0, 52.5),
    "CP6": ("parietal", 76.2, -28.8, 24.2),
    "TP8": ("temporal", 80.4, -26.3, -8.5),
    "P7": ("parietal", -68.4, -49.9, -7.5),
    "P5": ("parietal", -63.1, -54.0, 18.1),
    "P3": ("parietal", -48.2, -57.6, 39.9),
    "P1": ("parietal", -26.0, -59.9, 54.4),
    "PZ": ("parietal", 0.0, -60.7, 59.5),
    "P2": ("parietal", 26.0, -59.9, 54.4),
    "P4": ("parietal", 48.1, -57.6, 39.9),
    "P6": ("parietal", 63.0, -54.0, 18.2),
    "P8": ("parietal", 68.4, -49.9, -7.5),
    "PO7": ("occipital", -49.7, -68.7, -6.0),
    "PO5": ("occipital", -43.0, -72.8, 8.9),
    "PO3": ("occipital", -31.5, -76.2, 20.8),
    "POZ": ("occipital", 0.0, -79.0, 31.3),
    "PO4": ("occipital", 31.5, -76.2, 20.8),
    "PO6": ("occipital", 43.0, -72.8, 8.9),
    "PO8": ("occipital", 49.7, -68.7, -6.0),
    "CB1": ("occipital", -20.8, -85.4, -28.8),
    "O1": ("occipital", -26.1, -80.8, -4.0),
    "OZ": ("occipital", 0.0, -85.0, -1.8),
    "O2": ("occipital", 26.1, -80.8, -4.0),
    "CB2": ("occipital", 20.8, -85.4, -28.8),
}

# The 62 channel names, in the order of the rows of `eeg_data`.
CH_NAMES: tuple[str, ...] = tuple(_ELECTRODES)

# Electrode positions, shape (62, 3), metres, in the order of `CH_NAMES`; read-only. x right, y front, z up.
POSITIONS: np.ndarray = np.array([row[1:] for row in _ELECTRODES.values()]) / 1000
POSITIONS.setflags(write=False)

# Channel name -> frontal, central, temporal, parietal or occipital (CB1 and CB2 count as occipital).
REGIONS: Mapping[str, str] = {name: row[0] for name, row in _ELECTRODES.items()}

# Band name -> (low, high) in Hz; half-open: low <= f < high.
BANDS: Mapping[str, tuple[float, float]] = {
    "delta": (0.5, 4.0), "theta": (4.0, 8.0), "alpha": (8.0, 13.0), "beta": (13.0, 30.0), "gamma": (30.0, 80.0),
}  # fmt: skip


@cache
def standard_positions() -> dict[str, np.ndarray]:
    """Electrode positions of MNE's 10-05 montage on the Colin27 head by upper-case name, metres."""
    import mne

    # MNE 1.13 renamed standard_1005 to colin27_1005, and 1.14 drops the old name; the positions are the same.
    builtin = mne.channels.get_builtin_montages()
    name = "colin27_1005" if "colin27_1005" in builtin else "standard_1005"
    montage = mne.channels.make_standard_montage(name)
    return {channel.upper(): position for channel, position in montage.get_positions()["ch_pos"].items()}


def channel_info(ch_names: Sequence[str], sfreq: float) -> Any:
    """MNE's Info of EEG channels, with a position for every name that is known."""
    import mne

    known = {**standard_positions(), **dict(zip(CH_NAMES, POSITIONS, strict=True))}
    places = {name: known[name.upper()] for name in ch_names if name.upper() in known}
    info = mne.create_info(list(ch_names), sfreq, "eeg", verbose="error")
    montage = mne.channels.make_dig_montage(places, coord_frame="head")
    return info.set_montage(montage, on_missing="ignore", verbose="error")


def positions_of(ch_names: tuple[str, ...]) -> np.ndarray:
    """Electrode positions by channel name in any case, ours before MNE's 10-05 ones: (n_chans, 3), metres."""
    known = dict(zip(CH_NAMES, POSITIONS, strict=True))
    if not known.keys() >= {name.upper() for name in ch_names}:
        known = standard_positions() | known
    missing = [name for name in ch_names if name.upper() not in known]
    if missing:
        raise NeuroCanvasError(
            f"channel {missing[0]}: no position is known for this name; rename it to a 10-05 name "
            "([data.recording] rename), or use a model that needs no positions."
        )
    return np.array([known[name.upper()] for name in ch_names])
