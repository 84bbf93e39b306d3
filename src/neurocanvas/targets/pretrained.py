"""Families of frozen networks: a captioner, a text encoder with its generator, and a judge."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from neurocanvas.artifacts import fingerprint, read_json, sha256
from neurocanvas.errors import NeuroCanvasError

BUNDLED = Path(__file__).parents[1] / "bundled"
Network = TypeVar("Network")


@dataclass(frozen=True)
class Family:
    """Folders in Hugging Face layout or hub ids of the networks of a family."""

    captioner: str  # BLIP
    diffusion: str  # Stable Diffusion: tokenizer, text encoder, UNet, VAE, scheduler
    judge: str  # CLIP, whose embeddings compare images
    preview: str = ""  # TAESD, a small decoder of the same latents; empty: none


FAMILIES: Mapping[str, Family] = {
    "bundled": Family(str(BUNDLED / "blip"), str(BUNDLED / "stable-diffusion"), str(BUNDLED / "clip")),
    "sd14": Family(
        "Salesforce/blip-image-captioning-base",
        "CompVis/stable-diffusion-v1-4",
        "openai/clip-vit-large-patch14",
        "madebyollin/taesd",
    ),
}


def find_family(name: str) -> Family:
    """Look up a family by name, or by a folder with blip, stable-diffusion, clip and perhaps taesd in it."""
    if name in FAMILIES:
        return FAMILIES[name]
    folders, preview = [Path(name) / part for part in ("blip", "stable-diffusion", "clip")], Path(name) / "taesd"
    if all(folder.is_dir() for folder in folders):
        captioner, diffusion, judge = map(str, folders)
        return Family(captioner, diffusion, judge, str(preview) if preview.is_dir() else "")
    raise NeuroCanvasError(
        f"--family: allowed are {', '.join(FAMILIES)}, or a folder with blip, stable-diffusion, clip; got {name!r}."
    )


def local_folder(source: str) -> Path | None:
    """Folder of a network's files: itself, or the newest snapshot in the hub's cache; None if neither exists."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        stored = [revision for repo in scan_cache_dir().repos if repo.repo_id == source for revision in repo.revisions]
    except CacheNotFound:
        return None
    return max(stored, key=lambda revision: revision.last_modified).snapshot_path if stored else None


def load_part(
    source: str, load: Callable[..., Network], *, network: bool = False, weights: str = "", **options: Any
) -> Network:
    """Load one part of a family; damaged files raise in one line. A network comes in float32, on the device."""
    # If the file `weights` exists in half precision only, that is loaded.
    import torch
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub import try_to_load_from_cache
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    if Path(source).is_relative_to(BUNDLED):
        source_hash(source)
    if weights:
        files = weights, weights.replace(".safetensors", ".fp16.safetensors")
        local = os.path.isdir(source)
        exist = [
            (Path(source) / file).is_file() if local else isinstance(try_to_load_from_cache(source, file), str)
            for file in files
        ]
        options["variant"] = "fp16" if exist == [False, True] else None
    for logging in (transformers_logging, diffusers_logging):
        logging.disable_progress_bar()  # each stage has its own progress line
        logging.set_verbosity_error()
    try:
        if not network:
            whole = load(source, **options)
            for part in getattr(whole, "components", {"": whole}).values():
                tensors = part.state_dict() if isinstance(part, torch.nn.Module) else {}
                # diffusers leaves them on the device "meta", from which they cannot be copied
                _check_weights(part, [name for name, tensor in tensors.items() if tensor.is_meta])
            return whole
        with_info: Any = load(source, output_loading_info=True, ignore_mismatched_sizes=True, **options)
        loaded, info = with_info
        wrong = {name: f"{name} {tuple(came)} instead of {tuple(due)}" for name, came, due in info["mismatched_keys"]}
        # transformers fills both with random numbers
        _check_weights(loaded, sorted(set(info["missing_keys"]) - wrong.keys()), sorted(wrong.values()))
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "state_dict" not in str(error):  # not about a file, such as full memory
            raise
        reason = (str(error).strip() or type(error).__name__).replace(":\n", ": ").splitlines()[0]
        reason = " ".join(reason.partition(". If you want")[0].replace("torch.Size", "").split())
        raise NeuroCanvasError(
            f"{source}: the weights cannot be loaded ({reason}); get the files again, name a local folder, or use a "
            "machine with network."
        ) from error
    network_on_device: Network = loaded.float().eval().to(device())
    return network_on_device


def _check_weights(network: Any, missing: Sequence[str], wrong: Sequence[str] = ()) -> None:
    """Raise if weights are missing or have another shape than the network; the first five are named."""
    for names, what in ((missing, "not in it"), (wrong, "of another shape")):
        if names:
            raise ValueError(
                f"{len(names)} weights of {type(network).__name__} are {what}, the first {', '.join(names[:5])}"
            )


@cache
def source_hash(source: str) -> str:
    """Hash of a family, a folder or a hub id, once per process; changed bundled weights raise."""
    folder = BUNDLED if source == "bundled" else Path(source)
    if folder.is_relative_to(BUNDLED):
        listed = read_json(BUNDLED / "card.json", "the sidecar of the bundled weights; reinstall")["sha256"]
        expected = {name: digest for name, digest in listed.items() if (BUNDLED / name).is_relative_to(folder)}
        for name, digest in expected.items():
            path = BUNDLED / name
            if not path.is_file() or sha256(path) != digest:
                raise NeuroCanvasError(f"{path}: missing or not the released bytes; reinstall neurocanvas.")
        return fingerprint(expected)
    if source in FAMILIES:
        family = FAMILIES[source]
        return fingerprint([family.captioner, family.diffusion, family.judge])
    if not source or not folder.is_dir():  # Path("") is the current folder
        return source
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return fingerprint([(str(path.relative_to(folder)), sha256(path)) for path in files])


def device() -> str:
    """Device of pretrained networks: that of --device, else CUDA, else the CPU."""
    name = os.environ.get("NEUROCANVAS_DEVICE", "auto")
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def batches(count: int, size: int) -> list[slice]:
    """Cut `count` rows into consecutive slices of at most `size`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def load_picture_encoder(source: str) -> tuple[Callable[[Sequence[np.ndarray]], np.ndarray], int]:
    """Image encoder of a CLIP, images of any size -> (n, width), float32, projected, not normalised; and width."""
    import torch
    from transformers import AutoImageProcessor, CLIPModel

    model = load_part(source, CLIPModel.from_pretrained, network=True)
    processor = load_part(source, AutoImageProcessor.from_pretrained, backend="pil")  # which needs no torchvision

    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        pixels = processor(images=list(images), return_tensors="pt")["pixel_values"].to(device())
        with torch.inference_mode():
            features = model.get_image_features(pixel_values=pixels)
        return np.asarray(features.pooler_output.float().cpu())

    return encode, int(model.config.projection_dim or 0)
