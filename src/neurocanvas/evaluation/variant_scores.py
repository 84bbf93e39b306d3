"""Scores as the variants of the field compute them, from pictures and embeddings that come in pairs.

Generated and seen stand trial by trial here, as all of these programs have them. Where a program draws at random, give
`rng` to draw as it does; without, the expectation over all draws is returned, which is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.identification import (
    check_table,
    correlation_distance,
    n_way_top_k,
    read_true,
    similarity,
)
from neurocanvas.evaluation.images import pixcorr, ssim
from neurocanvas.evaluation.metrics import METRICS
from neurocanvas.evaluation.networks import (
    FEATURE_NETWORKS,
    FeatureNetwork,
    LoadedNetwork,
    NotComputed,
    extract_features,
)
from neurocanvas.evaluation.preprocessing import crop_middle, resize_picture, through_jpeg
from neurocanvas.evaluation.variants import PixelRule, Variant, find_variant
from neurocanvas.families import batches

SECOND_JUDGE = "dinov2"
"""Always scored beside a variant's networks: CLIP conditions generators, so it must not be the only judge."""

AT_ONCE = 16
"""Pairs of pictures that are compared at once: memory, not result."""


def as_published(pictures: Sequence[np.ndarray] | np.ndarray, variant: Variant) -> list[np.ndarray]:
    """Do to generated pictures what a variant does to them alone, before networks and pixel metrics see them.

    Parameters
    ----------
    pictures : sequence of array, each (h, w, 3), uint8
    variant : Variant

    Returns
    -------
    list of array, each (h', w', 3), uint8

    Examples
    --------
    >>> as_published(np.zeros((1, 8, 8, 3), np.uint8), find_variant("enigma", "pixels"))[0].shape
    (224, 224, 3)
    """
    made = [np.asarray(picture) for picture in pictures]
    if variant.jpeg:
        made = [through_jpeg(picture, variant.jpeg) for picture in made]
    if variant.generated_resize:
        made = [(resize_picture(one, [variant.generated_resize], "pil") * 255).round().astype(np.uint8) for one in made]
    return made


def variant_pixels(
    generated: Sequence[np.ndarray] | np.ndarray, seen: Sequence[np.ndarray] | np.ndarray, name: str = "mindeye"
) -> dict[str, np.ndarray]:
    """PixCorr and SSIM as a variant has them.

    Parameters
    ----------
    generated, seen : sequence of array, each (h, w, 3), uint8
        Pair by pair, of any size.
    name : str
        A variant that compares pixels.

    Returns
    -------
    dict of str to array, shape (n,)
        `pixcorr` and `ssim`; the published score is their mean.

    Raises
    ------
    NeuroCanvasError
        If the variant compares no pixels, the numbers of pictures differ, or one is not an 8-bit RGB picture.
    """
    variant = find_variant(name, "pixels")
    rule = variant.pixels
    if len(generated) != len(seen) or not len(seen) or rule is None:
        raise NeuroCanvasError(f"pictures: as many of both are needed; got {len(generated)} and {len(seen)}.")
    scores: dict[str, list[np.ndarray]] = {"pixcorr": [], "ssim": []}
    for part in batches(len(seen), AT_ONCE):
        drawn = as_published(generated[part], variant)
        if rule.clamped:
            drawn = [np.minimum(picture, 1) for picture in drawn]
        left, right = _compared(drawn, rule), _compared(seen[part], rule)
        scores["pixcorr"].append(pixcorr(left, right))
        scores["ssim"].append(ssim(left, right, rule.window))
    joined = {metric: np.concatenate(values) for metric, values in scores.items()}
    if rule.divisor:  # the mean is then the sum over the first so many, divided by so many, however many there are
        joined["pixcorr"][rule.divisor :] = 0.0
        joined["pixcorr"] *= len(seen) / rule.divisor
    return joined


def _compared(pictures: Sequence[np.ndarray] | np.ndarray, rule: PixelRule) -> np.ndarray:
    """Pictures at the size at which their pixels are compared, from 0 to 1."""
    made = [crop_middle(resize_picture(picture, rule.resizes, rule.on), rule.crop) for picture in pictures]
    return np.clip(np.stack(made).astype(np.float64), 0.0, 1.0)


def variant_two_way(sim: np.ndarray, name: str = "mindeye", *, rng: np.random.Generator | None = None) -> np.ndarray:
    """Two-way identification as a variant counts it.

    Parameters
    ----------
    sim : array, shape (n, n)
        Correlation of every generated picture (row) with every seen one (column); pairs stand on the diagonal.
    name : str
        A variant that has two-way identification.
    rng : numpy.random.Generator, optional
        Where distractors are drawn from, if the variant draws them; all others are used without.

    Returns
    -------
    array, shape (n,)
        One score per pair, of the generated picture or, for `bread`, of the seen one; chance is .5, for `enigma`
        .5 - 1 / (n - 1). A tie is a failure.

    Raises
    ------
    NeuroCanvasError
        If the table is not square and finite, or there are too few others to draw from.

    Examples
    --------
    >>> sim = np.array([[0.9, 0.1, 0.2], [0.95, 0.3, 0.2], [0.1, 0.2, 0.4]])
    >>> variant_two_way(sim).tolist(), variant_two_way(sim, "bread").tolist()
    ([1.0, 0.5, 1.0], [0.5, 1.0, 1.0])
    """
    rule = find_variant(name, "two_way").two_way
    table = check_table(sim, "similarities")
    n = len(table)
    if table.shape != (n, n) or rule is None:
        raise NeuroCanvasError(f"similarities: pairs are needed, as many rows as columns; got {table.shape}.")
    table = table if rule.distractors == "seen" else table.T
    wins = table < np.diagonal(table)[:, None]
    if not rule.drawn or rng is None:
        return np.asarray((wins.sum(axis=1) - rule.subtracted) / (n - 1))
    if n - 1 < rule.drawn:
        raise NeuroCanvasError(
            f"variant {name}: {rule.drawn} others are drawn, so {rule.drawn + 1} pairs are needed; got {n}. "
            "Give no rng for the expectation over all others."
        )
    others = [np.delete(np.arange(n), row) for row in range(n)]
    return np.array([wins[i, rng.choice(others[i], rule.drawn, replace=False)].mean() for i in range(n)])


def variant_networks(
    generated: Sequence[np.ndarray] | np.ndarray,
    seen: Sequence[np.ndarray] | np.ndarray,
    load: Callable[[FeatureNetwork], LoadedNetwork | NotComputed],
    name: str = "mindeye",
    *,
    rng: np.random.Generator | None = None,
    batch_size: int = 32,
) -> dict[str, np.ndarray | NotComputed]:
    """Every score of a variant that needs a network, and that of the second judge.

    Parameters
    ----------
    generated, seen : sequence of array, each (h, w, 3), uint8
        Pair by pair, of any size.
    load : callable
        Network of the table to a loaded one or to what is missing; usually `weights.load_network`.
    name : str
        A variant with networks.
    rng : numpy.random.Generator, optional
        As in `variant_two_way` and `n_way_class`.
    batch_size : int
        Pictures that a network reads at a time.

    Returns
    -------
    dict of str to array, shape (n,), or NotComputed
        Key of `metrics.METRICS` to two-way identification, correlation distance or success among n classes, pair by
        pair; where a network is missing, the reason.

    Raises
    ------
    NeuroCanvasError
        If the variant has no networks, the numbers of pictures differ, or one is not an 8-bit RGB picture.
    """
    variant = find_variant(name, "networks")
    if len(generated) != len(seen) or not len(seen):
        raise NeuroCanvasError(f"pictures: as many of both are needed; got {len(generated)} and {len(seen)}.")
    networks = dict(variant.networks)
    if variant.two_way:
        networks[SECOND_JUDGE] = FEATURE_NETWORKS[SECOND_JUDGE]
    drawn = as_published(generated, variant)
    scores: dict[str, np.ndarray | NotComputed] = {}
    for metric, network in networks.items():
        loaded = load(network)
        if isinstance(loaded, NotComputed):
            scores[metric] = loaded
            continue
        ours, theirs = (
            extract_features(some, loaded.prepare, loaded.forward, batch_size=batch_size) for some in (drawn, seen)
        )
        if variant.n_way:
            scores[metric] = n_way_class(ours, theirs, name, rng=rng)
        elif METRICS[metric].better == "lower":
            scores[metric] = correlation_distance(ours, theirs)
        else:
            scores[metric] = variant_two_way(similarity(ours, theirs), name, rng=rng)
    return scores


def n_way_class(
    logits: np.ndarray,
    seen_logits: np.ndarray,
    name: str = "mindvis-nway",
    *,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Is the class of the seen picture among the best of n for the generated one?

    Parameters
    ----------
    logits, seen_logits : array, shape (n, n_classes)
        What an ImageNet classifier says of the generated pictures and of those that were seen.
    name : str
        A variant with n-way classification.
    rng : numpy.random.Generator, optional
        Where the other classes are drawn from, as often as the variant does; all draws are counted without.

    Returns
    -------
    array, shape (n,), from 0 to 1
        More is better, chance is k / n. Drawn, a tie is a success, because the true class stands first there; in
        expectation it counts one half.

    Raises
    ------
    NeuroCanvasError
        If the shapes differ, a value is not finite, or there are fewer classes than are drawn.
    """
    n_way, guesses, draws = find_variant(name, "n_way").n_way or (0, 0, 0)
    table, seen = check_table(logits, "logits"), check_table(seen_logits, "seen logits")
    if table.shape != seen.shape or table.shape[1] < n_way:
        raise NeuroCanvasError(
            f"logits: equal shapes with {n_way} classes or more are needed; got {table.shape} and {seen.shape}."
        )
    true = seen.argmax(axis=1)
    if rng is None:
        return n_way_top_k(table, true, n_way, guesses)
    above = table > read_true(table, true)[:, None]
    shares = np.empty(len(table))
    for row, column in enumerate(true):
        others = np.delete(above[row], column)
        drawn = rng.permuted(np.tile(others, (draws, 1)), axis=1)[:, : n_way - 1]
        shares[row] = (drawn.sum(axis=1) < guesses).mean()
    return shares


def upper_half(
    scores: np.ndarray,
    true: np.ndarray,
    name: str = "crosspt-upper-half",
    *,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Does the true concept beat more than half of the distractors?

    Parameters
    ----------
    scores : array, shape (n_trials, n_concepts)
        The larger, the more probable.
    true : array of int, shape (n_trials,)
        The concept that was seen.
    name : str
        A variant with this indicator.
    rng : numpy.random.Generator, optional
        Where the distractors are drawn from, with replacement; the probability of success is returned without.

    Returns
    -------
    array, shape (n_trials,), 0 or 1, or from 0 to 1 without `rng`
        Chance is about .5.

    Raises
    ------
    NeuroCanvasError
        If the shapes do not fit or a value is not finite.

    Examples
    --------
    >>> upper_half(np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), np.array([0, 2])).tolist()
    [1.0, 0.0]
    """
    from scipy.stats import binom

    count = find_variant(name, "upper_half").upper_half
    table = check_table(scores, "scores")
    beaten = (table < read_true(table, np.asarray(true))[:, None]).sum(axis=1) / (table.shape[1] - 1)
    if rng is None:
        return np.asarray(binom.sf(count // 2, count, beaten))
    return np.asarray((rng.binomial(count, beaten) > count // 2).astype(np.float64))
