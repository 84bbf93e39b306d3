"""Which bands and electrodes a prediction rests on: the loss when they carry nothing about the trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from neurocanvas.errors import NeuroCanvasError

# Values permuted among trials [Breiman2001], or replaced by their mean over training trials.
KINDS = ("permutation", "occlusion")


def importance(
    score: Callable[[np.ndarray], np.ndarray],
    features: np.ndarray,
    groups: Mapping[str, tuple[int | slice, int | slice]],
    training_mean: np.ndarray,
    *,
    rng: np.random.Generator,
    repeats: int = 5,
) -> dict[str, dict[str, np.ndarray]]:
    """Loss of each trial's score, (n_trials,), without a group of features (n_trials, n_chans, n_bands)."""
    # Groups that carry the same information hide one another: neither is missed while the other is there. Below 0, a
    # group misleads.
    if len(features) < 2 or training_mean.shape != features.shape[1:]:
        raise NeuroCanvasError(
            f"importance: 2 or more trials and a mean of one trial's shape are needed; got features {features.shape}, "
            f"mean {training_mean.shape}."
        )
    whole = score(features)
    orders = [rng.permutation(len(features)) for _ in range(repeats)]
    found: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in KINDS}
    for name, (chans, bands) in groups.items():
        without = []
        for order in orders:
            changed = features.copy()
            changed[:, chans, bands] = features[order][:, chans, bands]
            without.append(score(changed))
        found["permutation"][name] = whole - np.mean(without, axis=0)
        changed = features.copy()
        changed[:, chans, bands] = training_mean[chans, bands]
        found["occlusion"][name] = whole - score(changed)
    return found
