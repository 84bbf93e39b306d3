"""Scores as the variants of the field compute them, from pictures and embeddings that come in pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.identification import check_table, n_way_top_k, read_true
from neurocanvas.evaluation.images import pixcorr, ssim
from neurocanvas.evaluation.metrics import METRICS
from neurocanvas.evaluation.preprocessing import crop_middle, resize_picture, through_jpeg
from neurocanvas.evaluation.variants import PixelRule, Variant, find_variant
from neurocanvas.families import batches

# Always scored beside a variant's networks: CLIP conditions generators, so it must not be the only judge.
SECOND_JUDGE = "dinov2"

# Pairs of pictures that are compared at once: memory, not result.
AT_ONCE = 16


def as_published(pictures: Sequence[np.ndarray] | np.ndarray, variant: Variant) -> list[np.ndarray]:
    """Do to generated pictures what a variant does to them alone, before networks and pixel metrics see them."""
    made = [np.asarray(picture) for picture in pictures]
    if variant.jpeg:
        made = [through_jpeg(picture, variant.jpeg) for picture in made]
    if variant.generated_resize:
        made = [(resize_picture(one, [variant.generated_resize], "pil") * 255).round().astype(np.uint8) for one in made]
    return made


def pixels_of_pairs(
    generated: Sequence[np.ndarray] | np.ndarray, seen: Sequence[np.ndarray] | np.ndarray, name: str = "mindeye"
) -> np.ndarray:
    """PixCorr and SSIM of each pair as a variant computes them, (n, 2); see `add_up`."""
    variant = find_variant(name, "pixels")
    rule = variant.pixels
    if len(generated) != len(seen) or not len(seen) or rule is None:
        raise NeuroCanvasError(f"pictures: as many of both are needed; got {len(generated)} and {len(seen)}.")
    scores = []
    for part in batches(len(seen), AT_ONCE):
        drawn = as_published(generated[part], variant)
        if rule.clamped:
            drawn = [np.minimum(picture, 1) for picture in drawn]
        left, right = _compared(drawn, rule), _compared(seen[part], rule)
        scores.append(np.stack([pixcorr(left, right), ssim(left, right, rule.window)], axis=1))
    return np.concatenate(scores)


def add_up(correlations: np.ndarray, name: str) -> np.ndarray:
    """PixCorr of each pair, such that the mean is what a variant reports that divides a sum by a constant."""
    rule = find_variant(name, "pixels").pixels
    if rule is None or not rule.divisor:
        return correlations
    counted = np.arange(len(correlations)) < rule.divisor
    return np.where(counted, correlations, 0.0) * len(correlations) / rule.divisor


def _compared(pictures: Sequence[np.ndarray] | np.ndarray, rule: PixelRule) -> np.ndarray:
    """Pictures at the size at which their pixels are compared, from 0 to 1."""
    made = [crop_middle(resize_picture(picture, rule.resizes, rule.on), rule.crop) for picture in pictures]
    return np.clip(np.stack(made).astype(np.float64), 0.0, 1.0)


def variant_two_way(sim: np.ndarray, name: str = "mindeye", *, rng: np.random.Generator | None = None) -> np.ndarray:
    """Two-way identification as a variant counts it."""
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


def score_similarity(sim: np.ndarray, metric: str, name: str) -> np.ndarray:
    """A metric of pairs from their correlations: two-way identification as a variant counts it, or a distance."""
    if METRICS[metric].better == "lower":
        return np.asarray(1.0 - np.diagonal(sim))
    return variant_two_way(sim, name)


def n_way_class(
    logits: np.ndarray,
    seen_logits: np.ndarray,
    name: str = "mindvis-nway",
    *,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Is the class of the seen picture among the best of n for the generated one?"""
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
    """Does the true concept beat more than half of the distractors?"""
    from scipy.stats import binom

    count = find_variant(name, "upper_half").upper_half
    table = check_table(scores, "scores")
    beaten = (table < read_true(table, np.asarray(true))[:, None]).sum(axis=1) / (table.shape[1] - 1)
    if rng is None:
        return np.asarray(binom.sf(count // 2, count, beaten))
    return np.asarray((rng.binomial(count, beaten) > count // 2).astype(np.float64))
