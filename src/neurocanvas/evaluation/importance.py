"""Which bands and electrodes a prediction rests on: what is lost when they say nothing of the trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from neurocanvas.errors import NeuroCanvasError

KINDS = ("permutation", "occlusion")
"""Values dealt out anew among trials; or replaced by their mean over training trials."""


def importance(
    score: Callable[[np.ndarray], np.ndarray],
    features: np.ndarray,
    groups: Mapping[str, tuple[int | slice, int | slice]],
    training_mean: np.ndarray,
    *,
    rng: np.random.Generator,
    repeats: int = 5,
) -> dict[str, dict[str, np.ndarray]]:
    """Measure what every trial's score loses without a group of features.

    Parameters
    ----------
    score : callable
        Gives the score of every trial for features of the same shape.
    features : array, shape (n_trials, n_chans, n_bands)
        Of test trials of one subject and fold.
    groups : mapping of str to (int or slice, int or slice)
        Name of a group -> which channels and which bands it is.
    training_mean : array, shape (n_chans, n_bands)
        What occluded features are replaced by.
    rng : numpy.random.Generator
        Deals the values out anew.
    repeats : int
        How often; the mean of the losses is taken.

    Returns
    -------
    dict of str to dict of str to array, shape (n_trials,)
        Of each of `KINDS`, of each group: score of the whole minus score without; below 0 where a group misleads.
        Groups that carry the same information hide one another: neither is missed while the other is there.

    Raises
    ------
    NeuroCanvasError
        If there are fewer than two trials, or the mean has another shape.

    References
    ----------
    .. [Breiman2001] Breiman. Random forests. Machine Learning 45, 5-32, 2001 (permutation importance).

    Examples
    --------
    >>> values = np.arange(6.0).reshape(3, 2, 1)
    >>> found = importance(lambda x: x[:, 0, 0], values, {"O1": (0, slice(None)), "O2": (1, slice(None))},
    ...                    np.zeros((2, 1)), rng=np.random.default_rng(0))
    >>> {name: lost.tolist() for name, lost in found["occlusion"].items()}
    {'O1': [0.0, 2.0, 4.0], 'O2': [0.0, 0.0, 0.0]}
    """
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
