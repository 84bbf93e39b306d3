"""Feature networks: which frozen network compares images, at which layer, after which preprocessing."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.evaluation.pixels import lpips_distance
from neurocanvas.targets.pretrained import batches, device, load_part

if TYPE_CHECKING:
    import torch

# Published scores differ by preprocessing alone, so a step says everything. Up to release 0.16, torchvision resizes
# tensors without antialiasing by default; PIL images are always antialiased.

INTERPOLATIONS = ("bilinear", "bicubic")
SHAPES = ("square", "short side", "short side swapped")
KINDS = ("tensor", "8-bit tensor", "pil")
LIBRARIES = ("transformers", "torchvision", "torch-fidelity")

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


def resize_picture(picture: np.ndarray, steps: Sequence[Resize], on: str = "tensor", crop: int = 0) -> np.ndarray:
    """Resize (h, w, 3), uint8, to float32 in 0..1 and crop the middle; bicubic of floats reaches slightly beyond."""
    # Sizes and the corner of the crop are rounded as in torchvision. PIL rounds to 8 bits after every step.
    import torch
    from PIL import Image

    values = np.asarray(picture)
    if values.ndim != 3 or values.shape[-1] != 3 or values.dtype != np.uint8 or not values.size:
        raise NeuroCanvasError(f"images: RGB, uint8, (h, w, 3), are needed; got {values.dtype} {values.shape}.")
    pil = check_option("on", on, KINDS) == "pil"
    made = values if pil else values.astype(np.float32) / np.float32(255)
    for step in steps:
        check_option("interpolation", step.interpolation, INTERPOLATIONS)
        height, width = made.shape[:2]
        upright = (height > width) != (step.shape == "short side swapped")
        longer = int(step.size * max(height, width) / min(height, width))
        size = (longer, step.size) if upright else (step.size, longer)
        if check_option("shape", step.shape, SHAPES) == "square":
            size = step.size, step.size
        if size == (height, width):
            continue
        if pil:
            made = np.asarray(Image.fromarray(made).resize(size[::-1], Image.Resampling[step.interpolation.upper()]))
            continue
        image = torch.nn.functional.interpolate(
            torch.from_numpy(made).permute(2, 0, 1)[None], size, mode=step.interpolation, align_corners=False,
            antialias=step.antialias,
        )  # fmt: skip
        image = (image.clamp(0, 1) * 255).round() / 255 if on == "8-bit tensor" else image
        made = image[0].permute(1, 2, 0).numpy()
    if pil:
        made = made.astype(np.float32) / np.float32(255)
    if not crop:
        return made
    height, width = made.shape[:2]
    if min(height, width) < crop:
        raise NeuroCanvasError(f"images: at least {crop} x {crop} pixels are needed to crop; got {height} x {width}.")
    top, left = round((height - crop) / 2), round((width - crop) / 2)
    return made[top : top + crop, left : left + crop]


def preprocess(pictures: Sequence[np.ndarray] | np.ndarray, how: Preprocess) -> torch.Tensor:
    """Input of a network, (n, 3, height, width), float32, from images (h, w, 3), uint8, of any size."""
    import torch

    made = [resize_picture(picture, how.resizes, how.on, how.crop) for picture in pictures]
    sizes = {picture.shape[:2] for picture in made}
    if len(sizes) != 1:
        raise NeuroCanvasError(
            f"images: one size is needed after resizing; got {sorted(sizes)}. Add a crop, or resize to a square."
        )
    values = (np.stack(made) - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2), dtype=np.float32))


def through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """Save an image as JPEG and read it again."""
    from PIL import Image

    if not 1 <= quality <= 95:
        raise NeuroCanvasError(f"quality: 1 to 95 is allowed; got {quality}.")
    stream = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(stream, format="JPEG", quality=quality, optimize=True, progressive=True)
    return np.asarray(Image.open(stream).convert("RGB"))


Pictures: TypeAlias = "Sequence[np.ndarray] | np.ndarray"
Prepare: TypeAlias = "Callable[[Pictures], torch.Tensor]"
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
    layers: tuple[str, ...]  # torchvision modules ("logits": the output), or fields of transformers' output
    preprocess: Preprocess | None = None  # None: transformers' own PIL processor, or torch-fidelity's own resizing
    weights: str = ""  # name in torchvision.models, or a URL
    subfolder: str = ""
    options: tuple[tuple[str, Any], ...] = ()  # with which torchvision builds the network
    unread: tuple[str, ...] = ()  # prefixes of weights that may be missing or left over: heads that are not read
    note: str = ""


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
}  # fmt: skip


class NotComputed(NeuroCanvasError):
    """A network's weights are not here and may not be downloaded, or they do not fit it."""


def extract_features(
    pictures: Pictures,
    prepare: Prepare,
    forward: Forward,
    *,
    batch_size: int = 32,
) -> np.ndarray:
    """One layer's output for every image, flattened: (n, n_features), float32; AlexNet(2) has 184,512 features."""
    import torch

    if not len(pictures):
        raise NeuroCanvasError("images: at least one is needed; got none.")
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
        if part.start == 0:  # the first part says how many features there are
            found = np.empty((len(pictures), rows.shape[1]), np.float32)
        found[part] = rows
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
        raise NeuroCanvasError(f"lpips: both need the same number of images; got {len(generated)} and {len(seen)}.")
    distances = []
    for part in batches(len(seen), batch_size):
        with torch.inference_mode():
            pairs = [
                [layer.float().cpu().numpy() for layer in forward(prepare(pictures[part]))]
                for pictures in (generated, seen)
            ]
        distances.append(lpips_distance(pairs[0], pairs[1], heads))
    return np.concatenate(distances)


# Packages that ship the linear heads of LPIPS for AlexNet -> their file.
LPIPS_HEADS = {"torchmetrics": "functional/image/lpips_models/alex.pth", "lpips": "weights/v0.1/alex.pth"}

# Widths of the five layers that LPIPS reads.
ALEXNET_CHANNELS = (64, 192, 384, 256, 256)


def load_network(network: FeatureNetwork, *, folder: str = "", download: bool = False) -> tuple[Prepare, Forward]:
    """Load a network, never a substitute: images -> (n, 3, height, width), and that -> its layers."""
    if folder and not os.path.isdir(folder):
        raise NotComputed(f"{folder}: no such folder")
    how, layers = network.preprocess, network.layers
    processor: Any = None

    def prepare(pictures: Pictures) -> torch.Tensor:
        import torch

        if how is not None:
            return preprocess(pictures, how)
        if network.library == "torch-fidelity":  # takes 8-bit images and resizes them itself
            return torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2)
        made: torch.Tensor = processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        return made

    if check_option("library", network.library, LIBRARIES) == "transformers":
        import transformers
        from huggingface_hub import snapshot_download

        kinds: dict[str, Any] = {
            "image_embeds": transformers.CLIPVisionModelWithProjection,
            "pooler_output": transformers.AutoModel,
            "logits": transformers.AutoModelForImageClassification,
        }
        kind, subfolder = kinds[check_option("layer", layers[0], kinds)], "" if folder else network.subfolder
        try:
            source = folder or (
                network.source if download else snapshot_download(network.source, local_files_only=True)
            )
        except (OSError, ValueError) as error:
            reason = "is not in the cache of Hugging Face; give a folder, or allow downloads"
            raise NotComputed(f"{network.source} {reason}") from error
        try:
            model = load_part(source, kind.from_pretrained, subfolder=subfolder)
            own = transformers.AutoImageProcessor.from_pretrained
            processor = load_part(source, own, backend="pil") if how is None else None
        except NeuroCanvasError as error:
            raise NotComputed(str(error).rstrip(".")) from error
        model = model.float().eval().to(device())
        return prepare, lambda pixels: (getattr(model(pixel_values=pixels.to(device())), layers[0]),)
    try:
        if network.library == "torchvision":
            import torchvision.models as models
        else:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        needed = "a working torchvision: pip install torchvision"
        if network.library == "torch-fidelity":
            needed = "torch-fidelity and a working torchvision"
        raise NotComputed(f"needs {needed} ({error})") from error
    if network.library == "torch-fidelity":
        file = _weights_file(network.weights, folder, download)
        inception = FeatureExtractorInceptionV3(network.source, list(layers), feature_extractor_weights_path=str(file))
        inception = inception.eval().to(device())
        return prepare, lambda pixels: tuple(inception(pixels.to(device())))
    enum, _, member = network.weights.partition(".")
    url = network.weights if "://" in network.weights else getattr(getattr(models, enum), member).url
    filled = getattr(models, network.source)(weights=None, **dict(network.options))
    _fill(filled, _weights_file(url, folder, download), network.unread)
    filled = filled.float().eval().to(device())
    return prepare, lambda pixels: read_layers(filled, layers, pixels.to(device()))


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
    state = {name.removeprefix("module."): values for name, values in _read_state(file).items()}
    try:
        missing, left_over = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise NotComputed(f"{file}: no weights of this network ({' '.join(str(error).split())[:300]})") from error
    wrong = [name for name in (*missing, *left_over) if not name.startswith(unread)]
    if wrong:
        raise NotComputed(f"{file}: weights of another network; {wrong[0]} and {len(wrong) - 1} more do not fit")


def _read_state(file: Path) -> dict[str, torch.Tensor]:
    """Read a state dict; published ones may predate PyTorch 1.6, a format that `read_torch` cannot map."""
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler passes on whatever error damaged data cause
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise NotComputed(f"{file}: no weights of this network ({reason})") from error
    tensors = isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(values, torch.Tensor) for name, values in state.items()
    )
    if not tensors:
        raise NotComputed(f"{file}: no weights of this network; names of tensors are needed; get it again")
    return state


def read_layers(model: torch.nn.Module, layers: Sequence[str], pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Outputs of chosen modules, in the order of `layers`; "logits" is the network's own output."""
    read: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[[Any, Any, Any], None]:
        # a copy, because the next module may work in place
        return lambda _module, _inputs, output: read.update({name: output.detach().clone()})

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers if name != "logits"]
    try:
        read["logits"] = model(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(read[name] for name in layers)


def load_lpips_heads(folder: str = "") -> tuple[np.ndarray, ...]:
    """Linear heads of LPIPS for AlexNet's five layers, each (n_channels,)."""
    files = [Path(folder) / "alex.pth"] if folder else []
    for package, place in LPIPS_HEADS.items() if not folder else ():
        found = find_spec(package)
        files += [Path(root) / place for root in (found.submodule_search_locations or ())] if found else []
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        where = folder or f"the packages {' and '.join(LPIPS_HEADS)}"
        raise NotComputed(f"its linear heads, alex.pth, are not in {where}")
    state, heads = _read_state(file), []
    for layer, width in enumerate(ALEXNET_CHANNELS):
        head = state.get(f"lin{layer}.model.1.weight")
        if head is None or tuple(head.shape) != (1, width, 1, 1) or not head.is_floating_point():
            raise NotComputed(f"{file}: no linear heads of LPIPS for AlexNet; lin{layer} does not fit")
        heads.append(head.float().flatten().numpy(force=True))
    return tuple(heads)
