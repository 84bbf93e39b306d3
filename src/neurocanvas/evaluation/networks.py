"""Feature networks: which frozen network compares pictures, at which layer, after which preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.images import lpips_distance
from neurocanvas.evaluation.preprocessing import CLIP_MEAN, CLIP_STD, Preprocess, Resize
from neurocanvas.families import batches

if TYPE_CHECKING:
    import torch

Pictures: TypeAlias = "Sequence[np.ndarray] | np.ndarray"
Prepare: TypeAlias = "Callable[[Pictures], torch.Tensor]"
Forward: TypeAlias = "Callable[[torch.Tensor], tuple[torch.Tensor, ...]]"

SWAV = "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar"
FID_INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
# MindEye resizes all pictures to 256 x 256 first; its log shows a torchvision that did not antialias tensors.
SQUARE_256 = Resize(256, "square", antialias=False)


@dataclass(frozen=True)
class FeatureNetwork:
    """Source, layers and preprocessing of a network."""

    title: str
    library: Literal["transformers", "torchvision", "torch-fidelity"]
    source: str  # hub id; or function in torchvision.models; or name in torch-fidelity
    layers: tuple[str, ...]  # torchvision modules ("logits": the output), or fields of transformers' output
    preprocess: Preprocess | None = None  # None: transformers' own PIL processor, or torch-fidelity's own resizing
    weights: str = ""  # name in torchvision.models, or a URL
    subfolder: str = ""
    options: tuple[tuple[str, Any], ...] = ()  # with which torchvision builds the network
    unread: tuple[str, ...] = ()  # prefixes of weights that may be missing or left over: heads that are not read
    note: str = ""


def _mindeye(size: int, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None) -> Preprocess:
    """MindEye's preprocessing: floats, 256 x 256, then the network's size; ImageNet's mean by default."""
    steps = (SQUARE_256, Resize(size, antialias=False))
    return Preprocess(steps, mean=mean, std=std) if mean and std else Preprocess(steps)


_INCEPTION_OPTIONS = (("transform_input", True), ("init_weights", False))

# Name -> network. What MindEye defines is as MindEye defines it; `variants.VARIANTS` says what others change.
FEATURE_NETWORKS: Mapping[str, FeatureNetwork] = MappingProxyType(
    {
        "alexnet2": FeatureNetwork(
            "AlexNet(2)", "torchvision", "alexnet", ("features.4",), _mindeye(256), "AlexNet_Weights.IMAGENET1K_V1"
        ),
        "alexnet5": FeatureNetwork(
            "AlexNet(5)", "torchvision", "alexnet", ("features.11",), _mindeye(256), "AlexNet_Weights.IMAGENET1K_V1"
        ),
        "inception": FeatureNetwork(
            "Inception V3", "torchvision", "inception_v3", ("avgpool",), _mindeye(342),
            "Inception_V3_Weights.IMAGENET1K_V1", options=_INCEPTION_OPTIONS,
        ),
        "clip": FeatureNetwork(
            "CLIP ViT-L/14", "transformers", "openai/clip-vit-large-patch14", ("image_embeds",),
            _mindeye(224, CLIP_MEAN, CLIP_STD), note="the text encoder of the family sd14 is of the same CLIP",
        ),
        "clip-vit-h": FeatureNetwork(
            "CLIP ViT-H/14", "transformers", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", ("image_embeds",),
            note="CogCapturer Pro calls this one CLIP",
        ),
        "efficientnet-b1": FeatureNetwork(
            "EffNet-B1", "torchvision", "efficientnet_b1", ("avgpool",), _mindeye(255),
            "EfficientNet_B1_Weights.IMAGENET1K_V2",
        ),
        "swav": FeatureNetwork(
            "SwAV ResNet-50", "torchvision", "resnet50", ("avgpool",), _mindeye(224), SWAV,
            unread=("fc.", "projection_head.", "prototypes."),
        ),
        "dinov2": FeatureNetwork(
            "DINOv2 base", "transformers", "facebook/dinov2-base", ("pooler_output",),
            note="the second judge: it shares nothing with a generator that is conditioned on CLIP",
        ),
        "lpips": FeatureNetwork(
            "LPIPS (AlexNet)", "torchvision", "alexnet",
            ("features.1", "features.4", "features.7", "features.9", "features.11"),
            Preprocess((Resize(256, "square"),)), "AlexNet_Weights.IMAGENET1K_V1",
            note="LPIPS's own scaling of -1 to 1 is ImageNet's mean and deviation of 0 to 1; the size is ours",
        ),
        "imagenet": FeatureNetwork(
            "ViT-H/14 (ImageNet)", "torchvision", "vit_h_14", ("logits",),
            Preprocess((Resize(518, interpolation="bicubic"),), crop=518, on="pil"),
            "ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1", options=(("image_size", 518),),
        ),
        "imagenet-transformers": FeatureNetwork(
            "ViT-L/16 (ImageNet)", "transformers", "google/vit-large-patch16-384", ("logits",),
            note="another classifier than MinD-Vis has: its numbers are not comparable",
        ),
        "fid-64": FeatureNetwork(
            "FID Inception, 64", "torch-fidelity", "inception-v3-compat", ("64",), weights=FID_INCEPTION,
            note="DreamDiffusion's and MinD-Vis's FID",
        ),
        "fid-2048": FeatureNetwork(
            "FID Inception, 2048", "torch-fidelity", "inception-v3-compat", ("2048",), weights=FID_INCEPTION,
            note="BrainVis's and GWIT's FID",
        ),
        "fid-logits": FeatureNetwork(
            "FID Inception, logits", "torch-fidelity", "inception-v3-compat", ("logits_unbiased",),
            weights=FID_INCEPTION, note="of the inception score",
        ),
    }
)  # fmt: skip


@dataclass(frozen=True)
class NotComputed:
    """A network or metric that is missing, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: not computed ({self.reason})"


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that is ready."""

    title: str
    prepare: Prepare  # pictures, (h, w, 3), uint8 -> (n, 3, height, width)
    forward: Forward  # that -> one tensor per layer, each with n rows
    source: str


def extract_features(
    pictures: Pictures,
    prepare: Prepare,
    forward: Forward,
    *,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """One layer's output for every picture, flattened: (n, n_features), float32; AlexNet(2) has 184,512 features."""
    import torch

    if not len(pictures):
        raise NeuroCanvasError("pictures: at least one is needed; got none.")
    found = np.empty((0, 0), np.float32)
    for part in batches(len(pictures), batch_size):
        with torch.inference_mode():
            outputs = forward(prepare(pictures[part]))
        if len(outputs) != 1 or len(outputs[0]) != part.stop - part.start:
            raise NeuroCanvasError(
                f"network: one layer with {part.stop - part.start} rows is needed; got {len(outputs)} with "
                f"{[len(output) for output in outputs]} rows."
            )
        rows = outputs[0].float().flatten(1).cpu().numpy()
        if part.start == 0:  # now it is known how many features there are
            found = np.empty((len(pictures), rows.shape[1]), np.float32)
        found[part] = rows
        progress(part.stop - part.start)
    return found


def lpips(
    generated: Pictures,
    seen: Pictures,
    prepare: Prepare,
    forward: Forward,
    heads: Sequence[np.ndarray],
    *,
    batch_size: int = 32,
) -> np.ndarray:
    """Learned perceptual distance of each pair, (n,), lower is better; batched, as features would not fit in memory."""
    import torch

    if len(generated) != len(seen) or not len(seen):
        raise NeuroCanvasError(f"lpips: as many pictures of both are needed; got {len(generated)} and {len(seen)}.")
    distances = []
    for part in batches(len(seen), batch_size):
        with torch.inference_mode():
            pairs = [
                [layer.float().cpu().numpy() for layer in forward(prepare(pictures[part]))]
                for pictures in (generated, seen)
            ]
        distances.append(lpips_distance(pairs[0], pairs[1], heads))
    return np.concatenate(distances)
