"""Variants: programs of the field whose metrics share names but give different numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.feature_networks import (
    CLIP_MEAN,
    CLIP_STD,
    FEATURE_NETWORKS,
    SQUARE_256,
    FeatureNetwork,
    Preprocess,
    Resize,
    resize_image,
    through_jpeg,
)
from neurocanvas.evaluation.identification import check_table, n_way_top_k, read_true
from neurocanvas.evaluation.metrics import METRICS
from neurocanvas.evaluation.pixels import BREAD_SSIM, MINDEYE_SSIM, pixcorr, ssim

# Our own two-way score is `identification.two_way`. That of `mindeye` differs: a tie counts as a failure, and an image
# that several trials showed is its own distractor.


@dataclass(frozen=True)
class Variant:
    """The definitions of one program of the field."""

    reference: str
    differs: str
    pixels: Preprocess | None = None  # before PixCorr and SSIM compare two images
    ssim: Mapping[str, Any] = field(default_factory=lambda: MINDEYE_SSIM)  # settings
    clamped: bool = False  # 8-bit generated images are clamped to 0 and 1 of 255 before PixCorr and SSIM
    divisor: int = 0  # of the sum of PixCorr over images; 0: their number
    # distractors (all others; a program that draws some of them has this mean); what is subtracted from the successes
    two_way: tuple[Literal["seen", "generated"], int] | None = None
    networks: Mapping[str, FeatureNetwork] = field(default_factory=dict)
    jpeg: int = 0  # quality at which generated images pass through JPEG first; 0: not
    generated_resize: Resize | None = None  # by PIL, of generated images alone, before all else
    n_way: tuple[int, int] | None = None  # classes, guesses; the mean over all draws of the other classes
    upper_half: int = 0  # distractors of which the true concept must beat more than half; 0: no such score


_MINDEYE_NETWORKS = {
    name: FEATURE_NETWORKS[name] for name in ("alexnet2", "alexnet5", "inception", "clip", "efficientnet-b1", "swav")
}
_224 = Preprocess((Resize(224, "square"),), on="pil")
_FROM_224 = (Resize(224, "square"),)
# BReAD's: the shorter side (by its mistake height and width are swapped), then the middle.
_SWAPPED = {
    size: Preprocess((Resize(size, "short side swapped"),), crop=crop)
    for size, crop in ((256, 224), (299, 299), (240, 240))
}

# `mindeye` is the default.
VARIANTS: dict[str, Variant] = {
    "mindeye": Variant(
        "MedARC-AI/MindEyeV2, src/final_evaluations.ipynb",
        "The default of the field: pixels at 425 from 256, a tie is a failure.",
        pixels=Preprocess((SQUARE_256, Resize(425, antialias=False))),
        two_way=("seen", 0),
        networks=_MINDEYE_NETWORKS,
    ),
    "atm-old": Variant(
        "dongyangli-del/EEG_Image_decode, Generation/Reconstruction_Metrics_ATM.ipynb, first versions",
        "MindEye's, but PixCorr is summed over a constant 982 images and divided by as many, and 8-bit generated "
        "images are clamped to 0 and 1. As committed it stops with fewer images and pairs unsorted folders.",
        pixels=Preprocess((SQUARE_256, Resize(425, antialias=False)), on="8-bit tensor"),
        clamped=True, divisor=982,
        two_way=("seen", 0),
        networks=_MINDEYE_NETWORKS,
    ),
    "ozcelik": Variant(
        "ozcelikfu/brain-diffuser, scripts/evaluate_reconstruction.py, as desa-lab/Perceptogram runs it",
        "All networks see 224 pixels by PIL; pixels are compared at 512 (in brain-diffuser itself at 425).",
        pixels=Preprocess((Resize(512, "square", "bicubic"),), on="pil"),
        two_way=("seen", 0),
        networks={
            **{name: replace(row, preprocess=_224) for name, row in _MINDEYE_NETWORKS.items() if name != "clip"},
            "clip": replace(FEATURE_NETWORKS["clip"], preprocess=replace(_224, mean=CLIP_MEAN, std=CLIP_STD)),
        },
    ),
    "bread": Variant(
        "Promise-Z5Q2SQ/BReAD, src/metric.py",
        "The other direction: a seen image among generated ones, 500 drawn. SSIM of red, green and blue in a "
        "flat window of 7. AlexNet after pooling. Images that are not square are distorted.",
        pixels=Preprocess((Resize(512, "short side swapped"),), crop=512),
        ssim=BREAD_SSIM,
        two_way=("generated", 0),
        networks={
            **_MINDEYE_NETWORKS,
            **{
                name: replace(FEATURE_NETWORKS[name], preprocess=_SWAPPED[size], layers=(layer,))
                for name, size, layer in (
                    ("alexnet2", 256, "features.5"), ("alexnet5", 256, "features.12"), ("inception", 299, "avgpool"),
                    ("efficientnet-b1", 240, "avgpool"), ("swav", 240, "avgpool"),
                )
            },
            "clip": FeatureNetwork(
                "CLIP ViT-L/14 of SD image variations", "transformers",
                "lambdalabs/sd-image-variations-diffusers", ("image_embeds",),
                Preprocess(
                    (Resize(224, interpolation="bicubic"),), crop=224, mean=CLIP_MEAN, std=CLIP_STD, on="pil"
                ),
                subfolder="image_encoder",
            ),
        },
    ),
    "enigma": Variant(
        "Alljoined/ENIGMA, evaluate_recons.py and recon_inference.py",
        "Generated images go through JPEG and 224 pixels, then all is compared from there, pixels at 512. One is "
        "taken off the successes although the image itself is none, so the best score is (n - 2) / (n - 1).",
        pixels=Preprocess((*_FROM_224, Resize(512))),
        two_way=("seen", 1),
        networks={
            name: replace(FEATURE_NETWORKS[name], preprocess=how)
            for name, how in (
                ("alexnet2", Preprocess((*_FROM_224, Resize(256)))),
                ("alexnet5", Preprocess((*_FROM_224, Resize(256)))),
                ("inception", Preprocess((*_FROM_224, Resize(342)))),
                ("clip", Preprocess(_FROM_224, mean=CLIP_MEAN, std=CLIP_STD)),
                ("efficientnet-b1", Preprocess((*_FROM_224, Resize(255)))),
                ("swav", Preprocess(_FROM_224)),
            )
        },
        jpeg=75,
        generated_resize=Resize(224, "square", "bicubic"),
    ),
    "mindvis-nway": Variant(
        "zjc062/mind-vis and bbaaii/DreamDiffusion, code/eval_metrics.py",
        "The true class is what the classifier says of the seen image, not its label; it competes with 49 others "
        "that are drawn 40 times for every image.",
        networks={"top1-of-50": FEATURE_NETWORKS["imagenet"]},
        n_way=(50, 1),
    ),
    "crosspt-upper-half": Variant(
        "Promise-Z5Q2SQ/EEG-ImageNet-anonymous, src/two_way.py",
        "Called two-way identification there: 1 if the true concept beats more than half of 500 others, which are "
        "drawn with replacement. A ranking that is a little better than chance scores much more than .5.",
        upper_half=500,
    ),
}  # fmt: skip


# Always scored beside a variant's networks: CLIP conditions generators, so it must not be the only judge.
SECOND_JUDGE = "dinov2"


def as_published(generated: Sequence[np.ndarray] | np.ndarray, variant: Variant) -> list[np.ndarray]:
    """Process generated images as a variant does before networks and pixel metrics see them."""
    images = [np.asarray(image) for image in generated]
    if variant.jpeg:
        images = [through_jpeg(image, variant.jpeg) for image in images]
    if variant.generated_resize:
        images = [resize_image(image, [variant.generated_resize], "pil") for image in images]
        images = [(image * 255).round().astype(np.uint8) for image in images]
    return images


def pixels_of_pairs(
    generated: Sequence[np.ndarray] | np.ndarray, seen: Sequence[np.ndarray] | np.ndarray, name: str = "mindeye"
) -> np.ndarray:
    """PixCorr and SSIM of each pair as a variant computes them, (n, 2); see `add_up`."""
    variant = VARIANTS[name]
    how = variant.pixels or Preprocess(())
    if len(generated) != len(seen) or not len(seen):
        raise NeuroCanvasError(f"images: both need the same number; got {len(generated)} and {len(seen)}.")
    images = as_published(generated, variant)
    images = [np.minimum(image, 1) for image in images] if variant.clamped else images
    scores = []
    for pair in zip(images, seen, strict=True):  # one at a time: images of 512 pixels take 6 MB each
        resized = (resize_image(image, how.resizes, how.on, how.crop)[None] for image in pair)
        left, right = (image.astype(np.float64).clip(0, 1) for image in resized)
        scores.append([pixcorr(left, right)[0], ssim(left, right, variant.ssim)[0]])
    return np.array(scores)


def add_up(correlations: np.ndarray, divisor: int) -> np.ndarray:
    """Scale PixCorr of each pair so that its mean is the variant's, which divides the sum by a constant."""
    counted = np.arange(len(correlations)) < divisor
    return np.where(counted, correlations, 0.0) * len(correlations) / divisor


def variant_two_way(sim: np.ndarray, name: str = "mindeye") -> np.ndarray:
    """Two-way identification as a variant counts it."""
    rule, table = VARIANTS[name].two_way, check_table(sim, "similarities")
    n = len(table)
    if table.shape != (n, n) or rule is None:
        raise NeuroCanvasError(f"similarities: pairs are needed, as many rows as columns; got {table.shape}.")
    distractors, subtracted = rule
    table = table if distractors == "seen" else table.T
    wins = table < np.diagonal(table)[:, None]
    return np.asarray((wins.sum(axis=1) - subtracted) / (n - 1))


def score_similarity(sim: np.ndarray, metric: str, name: str) -> np.ndarray:
    """A metric of pairs from their correlations: two-way identification as a variant counts it, or a distance."""
    if METRICS[metric].better == "lower":
        return np.asarray(1.0 - np.diagonal(sim))
    return variant_two_way(sim, name)


def n_way_class(logits: np.ndarray, seen_logits: np.ndarray, name: str = "mindvis-nway") -> np.ndarray:
    """Is the class of the seen image among the best of n for the generated one?"""
    n_way, guesses = VARIANTS[name].n_way or (0, 0)
    table, seen = check_table(logits, "logits"), check_table(seen_logits, "seen logits")
    if table.shape != seen.shape or table.shape[1] < n_way or not n_way:
        raise NeuroCanvasError(
            f"logits: equal shapes with {n_way} classes or more are needed; got {table.shape} and {seen.shape}."
        )
    return n_way_top_k(table, seen.argmax(axis=1), n_way, guesses)


def upper_half(scores: np.ndarray, true: np.ndarray, name: str = "crosspt-upper-half") -> np.ndarray:
    """How often the true concept beats more than half of the distractors that are drawn."""
    from scipy.stats import binom

    count, table = VARIANTS[name].upper_half, check_table(scores, "scores")
    if not count:
        raise NeuroCanvasError(f"variant {name}: has no upper half.")
    beaten = (table < read_true(table, np.asarray(true))[:, None]).sum(axis=1) / (table.shape[1] - 1)
    return np.asarray(binom.sf(count // 2, count, beaten))
