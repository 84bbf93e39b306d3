"""Variants: programs of the field whose metrics share names but give different numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.evaluation.feature_networks import (
    CLIP_MEAN,
    CLIP_STD,
    FEATURE_NETWORKS,
    SQUARE_256,
    FeatureNetwork,
    Preprocess,
    Resize,
    crop_middle,
    resize_picture,
    through_jpeg,
)
from neurocanvas.evaluation.identification import check_table, n_way_top_k, read_true
from neurocanvas.evaluation.metrics import METRICS
from neurocanvas.evaluation.pixels import MINDEYE_WINDOW, Window, pixcorr, ssim
from neurocanvas.targets.pretrained import batches

# Our own two-way score is `identification.two_way`. That of `mindeye` differs: a tie counts as a failure, and a picture
# that several trials showed is its own distractor.


@dataclass(frozen=True)
class PixelRule:
    """How PixCorr and SSIM compare two pictures."""

    resizes: tuple[Resize, ...]
    on: Literal["tensor", "8-bit tensor", "pil"] = "tensor"
    window: Window = MINDEYE_WINDOW  # of SSIM
    crop: int = 0
    clamped: bool = False  # 8-bit generated pictures are clamped to 0 and 1 of 255 first
    divisor: int = 0  # of the sum of PixCorr over pictures; 0: their number


@dataclass(frozen=True)
class TwoWayRule:
    """How two-way identification counts."""

    distractors: Literal["seen", "generated"] = "seen"
    drawn: int = 0  # distractors drawn per trial; 0: all others
    subtracted: int = 0  # from the number of successes


@dataclass(frozen=True)
class Variant:
    """The definitions of one program of the field."""

    reference: str
    differs: str
    pixels: PixelRule | None = None
    two_way: TwoWayRule | None = None
    networks: Mapping[str, FeatureNetwork] = field(default_factory=dict)
    jpeg: int = 0  # quality at which generated pictures pass through JPEG first; 0: not
    generated_resize: Resize | None = None  # by PIL, of generated pictures alone, before all else
    n_way: tuple[int, int, int] | None = None  # classes, guesses, draws of the other classes
    upper_half: int = 0  # distractors of which the true concept must beat more than half; 0: no such score


def _changed(name: str, how: Preprocess, layer: str = "") -> FeatureNetwork:
    """A row of `FEATURE_NETWORKS` with another preprocessing and perhaps another layer."""
    network = FEATURE_NETWORKS[name]
    return replace(network, preprocess=how, layers=(layer,) if layer else network.layers)


def _cropped(size: int, crop: int) -> Preprocess:
    """BReAD's preprocessing: the shorter side (by its mistake height and width are swapped), then the middle."""
    return Preprocess((Resize(size, "short side swapped"),), crop=crop)


_MINDEYE_NETWORKS = MappingProxyType(
    {name: FEATURE_NETWORKS[name] for name in ("alexnet2", "alexnet5", "inception", "clip", "efficientnet-b1", "swav")}
)
_224 = Preprocess((Resize(224, "square"),), on="pil")
_FROM_224 = (Resize(224, "square"),)

# `mindeye` is the default.
VARIANTS: dict[str, Variant] = {
        "mindeye": Variant(
            "MedARC-AI/MindEyeV2, src/final_evaluations.ipynb",
            "The default of the field: pixels at 425 from 256, a tie is a failure.",
            pixels=PixelRule((SQUARE_256, Resize(425, antialias=False))),
            two_way=TwoWayRule(),
            networks=_MINDEYE_NETWORKS,
        ),
        "atm-old": Variant(
            "dongyangli-del/EEG_Image_decode, Generation/Reconstruction_Metrics_ATM.ipynb, first versions",
            "MindEye's, but PixCorr is summed over a constant 982 pictures and divided by as many, and 8-bit generated "
            "pictures are clamped to 0 and 1. As committed it stops with fewer pictures and pairs unsorted folders.",
            pixels=PixelRule(
                (SQUARE_256, Resize(425, antialias=False)), on="8-bit tensor", clamped=True, divisor=982
            ),
            two_way=TwoWayRule(),
            networks=_MINDEYE_NETWORKS,
        ),
        "ozcelik": Variant(
            "ozcelikfu/brain-diffuser, scripts/evaluate_reconstruction.py, as desa-lab/Perceptogram runs it",
            "All networks see 224 pixels by PIL; pixels are compared at 512 (in brain-diffuser itself at 425).",
            pixels=PixelRule((Resize(512, "square", "bicubic"),), on="pil"),
            two_way=TwoWayRule(),
            networks=MappingProxyType(
                {name: _changed(name, _224) for name in _MINDEYE_NETWORKS if name != "clip"}
                | {"clip": _changed("clip", replace(_224, mean=CLIP_MEAN, std=CLIP_STD))}
            ),
        ),
        "bread": Variant(
            "Promise-Z5Q2SQ/BReAD, src/metric.py",
            "The other direction: a seen picture among generated ones, 500 drawn. SSIM of red, green and blue in a "
            "flat window of 7. AlexNet after pooling. Pictures that are not square are distorted.",
            pixels=PixelRule(
                (Resize(512, "short side swapped"),), window=Window(7, 0, sample_covariance=True, grey=False), crop=512
            ),
            two_way=TwoWayRule("generated", drawn=500),
            networks=MappingProxyType(
                {
                    "alexnet2": _changed("alexnet2", _cropped(256, 224), "features.5"),
                    "alexnet5": _changed("alexnet5", _cropped(256, 224), "features.12"),
                    "inception": _changed("inception", _cropped(299, 299)),
                    "clip": FeatureNetwork(
                        "CLIP ViT-L/14 of SD image variations", "transformers",
                        "lambdalabs/sd-image-variations-diffusers", ("image_embeds",),
                        Preprocess(
                            (Resize(224, interpolation="bicubic"),), crop=224, mean=CLIP_MEAN, std=CLIP_STD, on="pil"
                        ),
                        subfolder="image_encoder",
                    ),
                    "efficientnet-b1": _changed("efficientnet-b1", _cropped(240, 240)),
                    "swav": _changed("swav", _cropped(240, 240)),
                }
            ),
        ),
        "enigma": Variant(
            "Alljoined/ENIGMA, evaluate_recons.py and recon_inference.py",
            "Generated pictures go through JPEG and 224 pixels, then all is compared from there, pixels at 512. One is "
            "taken off the successes although the picture itself is none, so the best score is (n - 2) / (n - 1).",
            pixels=PixelRule((*_FROM_224, Resize(512))),
            two_way=TwoWayRule(subtracted=1),
            networks=MappingProxyType(
                {
                    "alexnet2": _changed("alexnet2", Preprocess((*_FROM_224, Resize(256)))),
                    "alexnet5": _changed("alexnet5", Preprocess((*_FROM_224, Resize(256)))),
                    "inception": _changed("inception", Preprocess((*_FROM_224, Resize(342)))),
                    "clip": _changed("clip", Preprocess(_FROM_224, mean=CLIP_MEAN, std=CLIP_STD)),
                    "efficientnet-b1": _changed("efficientnet-b1", Preprocess((*_FROM_224, Resize(255)))),
                    "swav": _changed("swav", Preprocess(_FROM_224)),
                }
            ),
            jpeg=75,
            generated_resize=Resize(224, "square", "bicubic"),
        ),
        "mindvis-nway": Variant(
            "zjc062/mind-vis and bbaaii/DreamDiffusion, code/eval_metrics.py",
            "The true class is what the classifier says of the seen picture, not its label; it competes with 49 others "
            "that are drawn 40 times for every picture.",
            networks=MappingProxyType({"top1-of-50": FEATURE_NETWORKS["imagenet"]}),
            n_way=(50, 1, 40),
        ),
        "crosspt-upper-half": Variant(
            "Promise-Z5Q2SQ/EEG-ImageNet-anonymous, src/two_way.py",
            "Called two-way identification there: 1 if the true concept beats more than half of 500 others, which are "
            "drawn with replacement. A ranking that is a little better than chance scores much more than .5.",
            upper_half=500,
        ),
    }  # fmt: skip


def find_variant(name: str, part: str) -> Variant:
    """Look up a variant that defines a metric, the field `part`."""
    allowed = [key for key, variant in VARIANTS.items() if getattr(variant, part)]
    return VARIANTS[check_option(f"variant for {part}", name, allowed)]


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
