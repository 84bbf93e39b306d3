"""Load the feature networks: from the caches, from a local folder or, where allowed, by download."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.evaluation.networks import FeatureNetwork, LoadedNetwork, NotComputed, Pictures, Prepare
from neurocanvas.evaluation.preprocessing import Preprocess, preprocess
from neurocanvas.families import device, load_part, pil_processor

if TYPE_CHECKING:
    import torch

# Packages that ship the linear heads of LPIPS for AlexNet -> their file.
LPIPS_HEADS = {"torchmetrics": "functional/image/lpips_models/alex.pth", "lpips": "weights/v0.1/alex.pth"}

# Widths of the five layers that LPIPS reads.
ALEXNET_CHANNELS = (64, 192, 384, 256, 256)


def load_network(network: FeatureNetwork, *, folder: str = "", download: bool = False) -> LoadedNetwork | NotComputed:
    """Load a network, or return `NotComputed` with the reason, never another network in its place."""
    if folder and not os.path.isdir(folder):
        return NotComputed(network.title, f"{folder}: no such folder")
    loaders = {"transformers": _load_transformers, "torchvision": _load_torchvision, "torch-fidelity": _load_fidelity}
    check_option("library", network.library, loaders)
    try:
        return loaders[network.library](network, folder, download)
    except NeuroCanvasError as error:
        return NotComputed(network.title, str(error).rstrip("."))


def _load_transformers(network: FeatureNetwork, folder: str, download: bool) -> LoadedNetwork:
    """A transformers model with its own PIL processor, unless the row names another preprocessing."""
    import transformers

    kinds: dict[str, Any] = {
        "image_embeds": transformers.CLIPVisionModelWithProjection,
        "pooler_output": transformers.AutoModel,
        "logits": transformers.AutoModelForImageClassification,
    }
    layer = network.layers[0]
    kind = kinds[check_option("layer", layer, kinds)]
    source = folder or (network.source if download else _cached_folder(network.source))
    subfolder = "" if folder else network.subfolder
    model = load_part(source, lambda name: kind.from_pretrained(name, subfolder=subfolder)).float().eval().to(device())

    def forward(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (getattr(model(pixel_values=pixels.to(device())), layer),)

    if network.preprocess is not None:
        return LoadedNetwork(network.title, _with(network.preprocess), forward, source)
    processor = load_part(source, pil_processor)

    def prepare(pictures: Pictures) -> torch.Tensor:
        made: torch.Tensor = processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        return made

    return LoadedNetwork(network.title, prepare, forward, source)


def _cached_folder(source: str) -> str:
    """Cached folder of a hub id; never downloads."""
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(source, local_files_only=True)
    except (OSError, ValueError) as error:
        raise NeuroCanvasError(
            f"{source} is not in the cache of Hugging Face; give a folder, or allow downloads."
        ) from error


def _with(how: Preprocess) -> Prepare:
    return lambda pictures: preprocess(pictures, how)


def _load_torchvision(network: FeatureNetwork, folder: str, download: bool) -> LoadedNetwork:
    """A torchvision model, its layers read by hooks."""
    try:
        import torchvision.models as models
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise NeuroCanvasError(f"needs a working torchvision: pip install torchvision ({error})") from error
    if network.preprocess is None:
        raise NeuroCanvasError(f"{network.title}: a network of torchvision needs a preprocessing.")
    enum, _, member = network.weights.partition(".")
    url = network.weights if "://" in network.weights else getattr(getattr(models, enum), member).url
    file = _weights_file(url, folder, download)
    model = getattr(models, network.source)(weights=None, **dict(network.options))
    _fill(model, file, network.unread)
    model = model.float().eval().to(device())

    def forward(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return read_layers(model, network.layers, pixels.to(device()))

    return LoadedNetwork(network.title, _with(network.preprocess), forward, str(file))


def _weights_file(url: str, folder: str, download: bool) -> Path:
    """File of weights in a folder or in the cache of torch.hub; downloaded only if allowed."""
    import torch

    file = Path(folder or Path(torch.hub.get_dir()) / "checkpoints") / url.rsplit("/", 1)[-1]
    if file.is_file():
        return file
    if not download:
        raise NeuroCanvasError(f"{file.name} is not in {file.parent}; put it there, or allow downloads.")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(file), progress=False)
    except OSError as error:
        raise NeuroCanvasError(f"{url} cannot be fetched ({error}).") from error
    return file


def _fill(model: torch.nn.Module, file: Path, unread: tuple[str, ...]) -> None:
    """Load weights into a network, except those of heads that are not read."""
    state = {name.removeprefix("module."): values for name, values in _read_state(file).items()}
    try:
        missing, left_over = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise NeuroCanvasError(f"{file}: no weights of this network ({' '.join(str(error).split())[:300]}).") from error
    wrong = [name for name in (*missing, *left_over) if not name.startswith(unread)]
    if wrong:
        raise NeuroCanvasError(f"{file}: weights of another network; {wrong[0]} and {len(wrong) - 1} more do not fit.")


def _read_state(file: Path) -> dict[str, torch.Tensor]:
    """Read a state dict; published ones may predate PyTorch 1.6, a format that `read_torch` cannot map."""
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler lets whatever damaged data provoke pass
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise NeuroCanvasError(f"{file}: no weights of this network ({reason}).") from error
    tensors = isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(values, torch.Tensor) for name, values in state.items()
    )
    if not tensors:
        raise NeuroCanvasError(f"{file}: no weights of this network; names of tensors are needed; get it again.")
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


def _load_fidelity(network: FeatureNetwork, folder: str, download: bool) -> LoadedNetwork:
    """The Inception network of the published FID and IS; takes 8-bit pictures and resizes them itself."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise NeuroCanvasError(f"needs torch-fidelity and a working torchvision ({error})") from error
    import torch

    file = _weights_file(network.weights, folder, download)
    model = FeatureExtractorInceptionV3(network.source, list(network.layers), feature_extractor_weights_path=str(file))
    model = model.eval().to(device())

    def prepare(pictures: Pictures) -> torch.Tensor:
        return torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2)

    def forward(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(model(pixels.to(device())))

    return LoadedNetwork(network.title, prepare, forward, str(file))


def load_lpips_heads(folder: str = "") -> tuple[np.ndarray, ...] | NotComputed:
    """Linear heads of LPIPS for AlexNet's five layers, each (n_channels,)."""
    files = [Path(folder) / "alex.pth"] if folder else []
    for package, place in LPIPS_HEADS.items() if not folder else ():
        found = find_spec(package)
        files += [Path(root) / place for root in (found.submodule_search_locations or ())] if found else []
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        where = folder or f"the packages {' and '.join(LPIPS_HEADS)}"
        return NotComputed("LPIPS (AlexNet)", f"its linear heads, alex.pth, are not in {where}")
    try:
        return _heads(file)
    except NeuroCanvasError as error:
        return NotComputed("LPIPS (AlexNet)", str(error).rstrip("."))


def _heads(file: Path) -> tuple[np.ndarray, ...]:
    state, heads = _read_state(file), []
    for layer, width in enumerate(ALEXNET_CHANNELS):
        head = state.get(f"lin{layer}.model.1.weight")
        if head is None or tuple(head.shape) != (1, width, 1, 1) or not head.is_floating_point():
            raise NeuroCanvasError(f"{file}: no linear heads of LPIPS for AlexNet; lin{layer} does not fit.")
        heads.append(head.float().flatten().numpy(force=True))
    return tuple(heads)
