"""Every metric with what a reader needs: which direction is better, what chance gives, where it is defined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from neurocanvas.evaluation.statistics import OTHERS


@dataclass(frozen=True)
class Metric:
    """What a metric is."""

    title: str
    better: Literal["higher", "lower"]
    chance: float | str
    unit: str
    reference: str
    networks: tuple[str, ...] = ()
    # How `evaluate` computes it: two-way, distance, n-way, lpips, set or pixels; "" = always, or elsewhere.
    kind: str = ""
    function: Callable[[np.ndarray, np.ndarray], float] | None = None  # of kind pixels: generated, seen image -> score
    meaning: str = ""  # for the report; {n} stands for the number of images to choose from


PERMUTED = "the mean over permuted pairs, not 0"
OTHER_PICTURES = f"the mean with up to {OTHERS} other images, not 0"
NOT_COMPUTED = "no chance level (true pairs only)"
SHARE, CORRELATION, DISTANCE = "share", "correlation", "distance"
COLLAPSED = "1 where all predictions are one; compare with that of the targets"
_OF_N = "depends on N; compare at equal N only"

# Metrics of the judge, which identifies images and names what they show; scores say which judge it was.
JUDGED = ("two_way", "n_way", "concept_top1", "concept_top5", "upper_half")

# Name -> metric; the report prints these words beside the numbers.
METRICS: dict[str, Metric] = {
    "two_way": Metric(
        "two-way identification", "higher", 0.5, SHARE, "Ozcelik 2023", ("clip", "dinov2"),
        meaning="share of the other seen images that are less like the generated image than the one that was seen, "
        "to the judge; ties count one half",
    ),
    "n_way": Metric(
        "n-way top-k identification", "higher", "k / n", SHARE, "Chen 2023", ("clip", "dinov2"),
        meaning="how often the seen image is the most similar of {n}, the others drawn from the seen images",
    ),
    "retrieval_top1": Metric("retrieval top-1", "higher", "1 / size of the gallery", SHARE, "Song 2024 (NICE)"),
    "retrieval_top5": Metric("retrieval top-5", "higher", "5 / size of the gallery", SHARE, "Song 2024 (NICE)"),
    "median_rank": Metric("median rank", "lower", "(size of the gallery + 1) / 2", "rank", "Song 2024 (NICE)"),
    "pixcorr": Metric(
        "PixCorr", "higher", OTHER_PICTURES, CORRELATION, "Scotti 2023 (MindEye)",
        meaning="correlation of the pixels of the generated and the seen image",
    ),
    "ssim": Metric(
        "SSIM", "higher", OTHER_PICTURES, "index", "Wang 2004, as in MindEye",
        meaning="structural similarity of the two images in grey, from −1 to 1",
    ),
    "alexnet2": Metric("AlexNet(2)", "higher", 0.5, SHARE, "Scotti 2023 (MindEye)", ("alexnet2",), "two-way"),
    "alexnet5": Metric("AlexNet(5)", "higher", 0.5, SHARE, "Scotti 2023 (MindEye)", ("alexnet5",), "two-way"),
    "inception": Metric("Inception", "higher", 0.5, SHARE, "Scotti 2023 (MindEye)", ("inception",), "two-way"),
    "clip": Metric("CLIP", "higher", 0.5, SHARE, "Scotti 2023 (MindEye)", ("clip",), "two-way"),
    "clip-vit-h": Metric("CLIP ViT-H", "higher", 0.5, SHARE, "CogCapturer Pro", ("clip-vit-h",), "two-way"),
    "dinov2": Metric("DINOv2", "higher", 0.5, SHARE, "Oquab 2023; the second judge", ("dinov2",), "two-way"),
    "efficientnet-b1": Metric(
        "EffNet-B", "lower", PERMUTED, DISTANCE, "Scotti 2023 (MindEye)", ("efficientnet-b1",), "distance"
    ),
    "swav": Metric("SwAV", "lower", PERMUTED, DISTANCE, "Scotti 2023 (MindEye)", ("swav",), "distance"),
    "lpips": Metric("LPIPS", "lower", NOT_COMPUTED, DISTANCE, "Zhang 2018", ("lpips",), "lpips"),
    "fid-64": Metric("FID (64)", "lower", _OF_N, DISTANCE, "Heusel 2017; DreamDiffusion", ("fid-64",), "set"),
    "fid-2048": Metric("FID (2048)", "lower", _OF_N, DISTANCE, "Heusel 2017", ("fid-2048",), "set"),
    "kid": Metric("KID", "lower", "0 for the same images", DISTANCE, "Binkowski 2018", ("fid-2048",), "set"),
    "inception-score": Metric("IS", "higher", _OF_N, "score", "Salimans 2016", ("fid-logits",), "set"),
    "top1-of-50": Metric(
        "50-way top-1", "higher", 0.02, SHARE, "Chen 2023 (MinD-Vis)", ("imagenet", "imagenet-transformers"),
        "n-way",
    ),
    "concept_accuracy": Metric(
        "concept accuracy", "higher", "share of the gallery that shows the concept", SHARE, "this package"
    ),
    "concept_top1": Metric(
        "concept top-1", "higher", "1 / number of concepts", SHARE, "this package", ("clip",),
        meaning="how often the judge names the seen concept first",
    ),
    "concept_top5": Metric(
        "concept top-5", "higher", "5 / number of concepts", SHARE, "this package", ("clip",),
        meaning="how often the seen concept is among the judge's first five",
    ),
    "upper_half": Metric("upper half", "higher", 0.5, SHARE, "CrossPT-EEG 2025, called two-way there"),
    "effective_rank": Metric("effective rank", "higher", COLLAPSED, "dimensions", "Roy & Vetterli 2007"),
    "mean_cosine": Metric("mean pairwise cosine", "lower", COLLAPSED, "cosine", "this package"),
}  # fmt: skip
