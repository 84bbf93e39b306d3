"""From current dipoles in the head to the 62 electrodes: the forward model of the simulated EEG."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from neurocanvas.montage import CH_NAMES, POSITIONS

N_RESPONDING, N_BACKGROUND = 60, 60
HEAD_RADIUS = 0.085  # metres: the sphere on which the electrodes of the montage lie
_LAYOUT_SEED = 20240611
_LEFT_EYE, _RIGHT_EYE = (-0.030, 0.062, -0.020), (0.030, 0.062, -0.020)


@dataclass(frozen=True)
class Leadfield:
    """Potentials of unit dipoles at the electrodes, average reference."""

    positions: np.ndarray
    gain: np.ndarray
    blink: np.ndarray


def source_positions() -> np.ndarray:
    """Return where the sources lie."""
    rng = np.random.default_rng(_LAYOUT_SEED)
    # Longitude runs from straight back (0) to the side; the ventral stream lies low, early visual cortex at the back.
    side = np.where(np.arange(N_RESPONDING) % 2, 1.0, -1.0)
    longitude = side * rng.uniform(0.05, 1.9, N_RESPONDING)
    latitude = rng.uniform(-0.45, 0.9, N_RESPONDING)
    radius = rng.uniform(0.050, 0.070, N_RESPONDING)
    visual = (
        np.stack(
            [np.sin(longitude) * np.cos(latitude), -np.cos(longitude) * np.cos(latitude), np.sin(latitude)],
            axis=1,
        )
        * radius[:, None]
    )
    directions = rng.normal(size=(N_BACKGROUND, 3))
    directions[:, 2] = np.abs(directions[:, 2]) - 0.35
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # The cube root spreads them evenly over the ball's volume.
    depths = np.cbrt(rng.uniform(0.015**3, 0.068**3, N_BACKGROUND))
    return np.concatenate([visual, directions * depths[:, None]])


@cache
def leadfield() -> Leadfield:
    """Compute the leadfield in MNE's four-shell sphere; kept for the life of the process."""
    import mne

    positions = source_positions()
    places = np.concatenate([positions, [_LEFT_EYE, _RIGHT_EYE]])
    info = mne.create_info(list(CH_NAMES), 1000.0, "eeg")
    montage = mne.channels.make_dig_montage(dict(zip(CH_NAMES, POSITIONS)), coord_frame="head")
    info.set_montage(montage, verbose="error")
    sphere = mne.make_sphere_model((0.0, 0.0, 0.0), HEAD_RADIUS, verbose="error")
    # MNE wants a direction for every point, although the solution below is free to point anywhere.
    grid = {"rr": places, "nn": np.tile([0.0, 0.0, 1.0], (len(places), 1))}
    src = mne.setup_volume_source_space(pos=grid, sphere=sphere, sphere_units="m", verbose="error")
    forward = mne.make_forward_solution(info, None, src, sphere, meg=False, eeg=True, mindist=0.0, verbose="error")
    gain = forward["sol"]["data"].reshape(len(CH_NAMES), len(places), 3)
    gain = gain - gain.mean(axis=0)
    brain, eyes = gain[:, : len(positions)], gain[:, len(positions) :]
    strongest = np.linalg.svd(brain.transpose(1, 0, 2), compute_uv=False)[:, 0] / np.sqrt(len(CH_NAMES))
    blink = eyes @ np.array([0.0, 0.8, 0.6])
    blink = blink.sum(axis=1)
    field = Leadfield(positions, brain / strongest[:, None], blink / blink[np.abs(blink).argmax()])
    for array in (field.positions, field.gain, field.blink):
        array.setflags(write=False)
    return field
