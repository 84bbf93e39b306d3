"""Feature networks: which frozen network compares images, at which layer, after which preprocessing."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.targets.pretrained import batches, device, load_part

if TYPE_CHECKING:
    import torch

# Published scores differ by preprocessing alone, so each step is written out. Releases of torchvision up to 0.16 resize
# tensors without antialiasing by default; PIL always antialiases. The pixel metrics of a default install resize by the
# same steps, so these use torch and PIL, not torchvision.

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Resize:
    """One resizing step."""

    size: int
    # Both sides; or the shorter one, keeping the proportion; or that with height and width exchanged, which distorts.
    shape: Literal["square", "short side", "short side swapped"] = "short side"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True  # average over what a pixel covers when shrinking; PIL always does


@dataclass(frozen=True)
class Preprocess:
    """All preprocessing before a network."""

    resizes: tuple[Resize, ...]
    crop: int = 0  # side of the central square; 0: none
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    on: Literal["tensor", "8-bit tensor", "pil"] = "tensor"  # floats; floats rounded to 8 bits per step; PIL images


def resize_image(image: np.ndarray, steps: Sequence[Resize], on: str = "tensor", crop: int = 0) -> np.ndarray:
    """Resize (h, w, 3), uint8, to float32 in 0..1 and crop the middle; bicubic of floats reaches slightly beyond."""
    # Sizes and the corner of the crop are rounded as in torchvision. PIL rounds to 8 bits after every step.
    import torch
    from PIL import Image

    resized = image if on == "pil" else image.astype(np.float32) / np.float32(255)
    for step in steps:
        height, width = resized.shape[:2]
        upright = (height > width) != (step.shape == "short side swapped")
        longer = int(step.size * max(height, width) / min(height, width))
        size = (longer, step.size) if upright else (step.size, longer)
        if step.shape == "square":
            size = step.size, step.size
        if size == (height, width):
            continue
        if on == "pil":
            filtered_by = Image.Resampling[step.interpolation.upper()]
            resized = np.asarray(Image.fromarray(resized).resize(size[::-1], filtered_by))
            continue
        tensor = torch.nn.functional.interpolate(
            torch.from_numpy(resized).permute(2, 0, 1)[None], size, mode=step.interpolation, align_corners=False,
            antialias=step.antialias,
        )  # fmt: skip
        tensor = (tensor.clamp(0, 1) * 255).round() / 255 if on == "8-bit tensor" else tensor
        resized = tensor[0].permute(1, 2, 0).numpy()
    if on == "pil":
        resized = resized.astype(np.float32) / np.float32(255)
    if not crop:
        return resized
    top, left = (round((side - crop) / 2) for side in resized.shape[:2])
    return resized[top : top + crop, left : left + crop]


def preprocess(images: Images, how: Preprocess) -> torch.Tensor:
    """Input of a network, (n, 3, height, width), float32, from images (h, w, 3), uint8, of any size."""
    import torch

    resized = np.stack([resize_image(image, how.resizes, how.on, how.crop) for image in images])
    values = (resized - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2), dtype=np.float32))


def through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Save an image as JPEG and read it again."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=quality, optimize=True, progressive=True)
    return np.asarray(Image.open(stream).convert("RGB"))


Images: TypeAlias = "Sequence[np.ndarray] | np.ndarray"
Prepare: TypeAlias = "Callable[[Images], torch.Tensor]"
Forward: TypeAlias = "Callable[[torch.Tensor], tuple[torch.Tensor, ...]]"

SWAV = "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar"
FID_INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
# MindEye resizes all images to 256 x 256 first; its log shows a torchvision that did not antialias tensors.
SQUARE_256 = Resize(256, "square", antialias=False)


@dataclass(frozen=True)
class FeatureNetwork:
    """Source, layers and preprocessing of a network."""

    title: str
    library: Literal["transformers", "torchvision", "torch-fidelity"]
    source: str  # hub id; or function in torchvision.models; or name in torch-fidelity
    layers: tuple[str, ...]  # modules of torchvision's network, or fields of transformers' output
    preprocess: Preprocess | None = None  # None: transformers' own PIL processor, or torch-fidelity's own resizing
    weights: str = ""  # name in torchvision.models, or a URL
    subfolder: str = ""
    options: tuple[tuple[str, Any], ...] = ()  # with which torchvision builds the network
    unread: tuple[str, ...] = ()  # prefixes of weights that may be missing or left over: heads that are not read
    note: str = ""

    def prepare(self, images: Images) -> torch.Tensor:
        """Input of the network from images."""
        if self.preprocess is not None:
            return preprocess(images, self.preprocess)
        import torch

        return torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2)  # torch-fidelity resizes 8-bit images


# MindEye's preprocessing: floats, 256 x 256, then the network's size.
_MINDEYE = {size: Preprocess((SQUARE_256, Resize(size, antialias=False))) for size in (224, 255, 256, 342)}

_INCEPTION_OPTIONS = (("transform_input", True), ("init_weights", False))

# Name -> network. What MindEye defines is as MindEye defines it; `variants.VARIANTS` says what others change.
FEATURE_NETWORKS: dict[str, FeatureNetwork] = {
    "alexnet2": FeatureNetwork(
        "AlexNet(2)", "torchvision", "alexnet", ("features.4",), _MINDEYE[256], "AlexNet_Weights.IMAGENET1K_V1"
    ),
    "alexnet5": FeatureNetwork(
        "AlexNet(5)", "torchvision", "alexnet", ("features.11",), _MINDEYE[256], "AlexNet_Weights.IMAGENET1K_V1"
    ),
    "inception": FeatureNetwork(
        "Inception V3", "torchvision", "inception_v3", ("avgpool",), _MINDEYE[342],
        "Inception_V3_Weights.IMAGENET1K_V1", options=_INCEPTION_OPTIONS,
    ),
    "clip": FeatureNetwork(
        "CLIP ViT-L/14", "transformers", "openai/clip-vit-large-patch14", ("image_embeds",),
        replace(_MINDEYE[224], mean=CLIP_MEAN, std=CLIP_STD),
        note="the text encoder of the family sd14 is of the same CLIP",
    ),
    "clip-vit-h": FeatureNetwork(
        "CLIP ViT-H/14", "transformers", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", ("image_embeds",),
        note="CogCapturer Pro calls this one CLIP",
    ),
    "efficientnet-b1": FeatureNetwork(
        "EffNet-B1", "torchvision", "efficientnet_b1", ("avgpool",), _MINDEYE[255],
        "EfficientNet_B1_Weights.IMAGENET1K_V2",
    ),
    "swav": FeatureNetwork(
        "SwAV ResNet-50", "torchvision", "resnet50", ("avgpool",), _MINDEYE[224], SWAV,
        unread=("fc.", "projection_head.", "prototypes."),
    ),
    "dinov2": FeatureNetwork(
        "DINOv2 base", "transformers", "facebook/dinov2-base", ("pooler_output",),
        note="the second judge: it shares nothing with a generator that is conditioned on CLIP",
    ),
    "lpips": FeatureNetwork(
        "LPIPS (AlexNet)", "torchvision", "alexnet",
        ("features.1", "features.4", "features.7", "features.9", "features.11"),
        Preprocess((Resize(256, "square"),), mean=(0.5,) * 3, std=(0.5,) * 3), "AlexNet_Weights.IMAGENET1K_V1",
        note="torchmetrics scales images from -1 to 1 as LPIPS does; the size is ours",
    ),
    "imagenet": FeatureNetwork(
        "ViT-H/14 (ImageNet)", "torchvision", "vit_h_14", ("heads",),
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
}  # fmt: skip


class NotComputed(NeuroCanvasError):
    """A package or weights are missing, or do not fit; the metric is left out with this reason."""


def import_extra(module: str) -> Any:
    """Import a module of the extra `metrics`; a missing package and a broken one raise different messages."""
    import torch

    try:
        return import_module(module)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing in ("torchvision", "torchmetrics", "torch_fidelity"):
            raise NotComputed(f"{missing} is not installed: pip install 'neurocanvas[metrics]'") from error
        package, reason = module.partition(".")[0], " ".join(str(error).split())
        raise NotComputed(
            f"{package} is installed but does not work ({reason}); install the release for torch {torch.__version__}"
        ) from error


def extract_features(images: Images, prepare: Prepare, forward: Forward, *, batch_size: int = 32) -> np.ndarray:
    """One layer's output for every image, flattened: (n, n_features), float32; AlexNet(2) has 184,512 features."""
    import torch

    features = np.empty((0, 0), np.float32)
    for batch in batches(len(images), batch_size):
        with torch.inference_mode():
            [output] = forward(prepare(images[batch]))
        rows = output.float().flatten(1).cpu().numpy()
        if batch.start == 0:  # the first batch shows the number of features
            features = np.empty((len(images), rows.shape[1]), np.float32)
        features[batch] = rows
    return features


def lpips(generated: Images, seen: Images, prepare: Prepare, forward: Forward, *, batch_size: int = 32) -> np.ndarray:
    """Learned perceptual distance of each pair [Zhang2018], (n,); `forward` is AlexNet, torchmetrics does the rest."""
    import torch

    distance = import_extra("torchmetrics.functional.image.lpips")._LPIPS(pnet_rand=True)
    distance.net.forward = forward  # its own AlexNet, with random weights here, would fetch trained ones
    distance.to(device())
    distances = []
    for batch in batches(len(seen), batch_size):
        with torch.inference_mode():
            pairs = [prepare(images[batch]).to(device()) for images in (generated, seen)]
            distances.append(distance(*pairs).flatten().cpu().numpy())
    return np.concatenate(distances)


def load_network(network: FeatureNetwork, *, folder: str = "", download: bool = False) -> tuple[Prepare, Forward]:
    """Load a network, never a substitute: images -> (n, 3, height, width), and that -> its layers."""
    if folder and not os.path.isdir(folder):
        raise NotComputed(f"{folder}: no such folder")
    if network.library == "transformers":
        return _load_transformers(network, folder, download)
    if network.library == "torch-fidelity":
        extractor = import_extra("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
        file = _weights_file(network.weights, folder, download)
        inception = extractor(network.source, list(network.layers), feature_extractor_weights_path=str(file))
        inception = inception.eval().to(device())
        return network.prepare, lambda pixels: tuple(inception(pixels.to(device())))
    models = import_extra("torchvision.models")
    url = network.weights if "://" in network.weights else models.get_weight(network.weights).url
    model = models.get_model(network.source, weights=None, **dict(network.options)).float().eval()
    _fill(model, _weights_file(url, folder, download), network.unread)
    create = import_extra("torchvision.models.feature_extraction").create_feature_extractor
    extract = create(model, list(network.layers)).to(device())

    def forward(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = extract(pixels.to(device()))
        return tuple(outputs[layer] for layer in network.layers)

    return network.prepare, forward


def _load_transformers(network: FeatureNetwork, folder: str, download: bool) -> tuple[Prepare, Forward]:
    """Load a network of transformers, with its own processor where the table names no preprocessing."""
    import transformers
    from huggingface_hub import snapshot_download

    kinds: dict[str, Any] = {
        "image_embeds": transformers.CLIPVisionModelWithProjection,
        "pooler_output": transformers.AutoModel,
        "logits": transformers.AutoModelForImageClassification,
    }
    [layer] = network.layers
    try:
        source = folder or (network.source if download else snapshot_download(network.source, local_files_only=True))
    except (OSError, ValueError) as error:
        reason = "is not in the cache of Hugging Face; give a folder, or allow downloads"
        raise NotComputed(f"{network.source} {reason}") from error
    prepare: Prepare = network.prepare
    try:
        model = load_part(source, kinds[layer].from_pretrained, subfolder="" if folder else network.subfolder)
        if network.preprocess is None:
            processor = load_part(source, transformers.AutoImageProcessor.from_pretrained, backend="pil")
            prepare = partial(_process, processor)
    except NeuroCanvasError as error:
        raise NotComputed(str(error).rstrip(".")) from error
    model = model.float().eval().to(device())
    return prepare, lambda pixels: (getattr(model(pixel_values=pixels.to(device())), layer),)


def _process(processor: Any, images: Images) -> torch.Tensor:
    pixels: torch.Tensor = processor(images=list(images), return_tensors="pt")["pixel_values"]
    return pixels


def _weights_file(url: str, folder: str, download: bool) -> Path:
    """File of weights in a folder or in the cache of torch.hub; downloaded only if allowed."""
    import torch

    file = Path(folder or Path(torch.hub.get_dir()) / "checkpoints") / url.rsplit("/", 1)[-1]
    if file.is_file():
        return file
    if not download:
        raise NotComputed(f"{file.name} is not in {file.parent}; put it there, or allow downloads")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(file), progress=False)
    except OSError as error:
        raise NotComputed(f"{url} cannot be fetched ({error})") from error
    return file


def _fill(model: torch.nn.Module, file: Path, unread: tuple[str, ...]) -> None:
    """Load weights into a network, except those of heads that are not read."""
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        state = {name.removeprefix("module."): values for name, values in state.items()}
        missing, left_over = model.load_state_dict(state, strict=False)
    except Exception as error:  # torch's unpickler passes on whatever error damaged data cause
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise NotComputed(f"{file}: no weights of this network ({reason})") from error
    wrong = [name for name in (*missing, *left_over) if not name.startswith(unread)]
    if wrong:
        raise NotComputed(f"{file}: weights of another network; {wrong[0]} and {len(wrong) - 1} more do not fit")
