"""What is there on this machine: packages, devices, weights with their sizes and licences, pictures of the data set."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from neurocanvas.config import DataSettings, GenerateSettings
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.families import BUNDLED, check_bundled, find_family, local_folder, precision_of

PACKAGES = (
    "torch", "diffusers", "transformers", "accelerate", "mne", "scikit-learn", "numpy", "mne-bids", "braindecode",
    "pyarrow", "ray",
)  # fmt: skip

# Of the hub ids in `FAMILIES`, as their model cards state them.
LICENCES: Mapping[str, str] = MappingProxyType(
    {
        "Salesforce/blip-image-captioning-base": "BSD-3-Clause",
        "CompVis/stable-diffusion-v1-4": "CreativeML OpenRAIL-M",
        "openai/clip-vit-large-patch14": "MIT",
        "madebyollin/taesd": "MIT",
    }
)

# Of its memory that weights and pictures may take: libraries need the rest.
SHARE_OF_DEVICE = 0.85

BYTES: Mapping[str, int] = MappingProxyType({"float32": 4, "float16": 2, "bfloat16": 2})


def examine(settings: GenerateSettings, data: DataSettings | None = None) -> dict[str, Any]:
    """Look at the machine, touching no network."""
    family = find_family(settings.family)
    parts = {"captioner": family.captioner, "diffusion": family.diffusion, "judge": family.judge}
    if family.preview:
        parts["preview"] = family.preview
    devices = _devices()
    weights = [_weights(part, source) for part, source in parts.items()]
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": devices,
        "weights": weights,
        "needs": _needs(family.diffusion, settings, devices[-1]),
        "pictures": _pictures(data),
    }


def describe(report: Mapping[str, Any]) -> tuple[list[tuple[str, list[str], list[list[str]]]], list[str]]:
    """Put what `examine` found into words."""
    packages = [[name, found or "not installed"] for name, found in report["packages"].items()]
    devices = [[one["name"], f"{one['mb']:,.0f} MB"] for one in report["devices"]]
    weights = [
        [one["part"], one["source"], one["where"], f"{one['mb']:,.0f} MB" if one["mb"] else "–", one["licence"]]
        for one in report["weights"]
    ]
    needs, notes = report["needs"], []
    if needs["mb"] is None:
        notes.append(
            "The generator's weights are not all here: name a folder that holds them, or go where there is network."
        )
    else:
        room = (
            f"{needs['at_once']} of {needs['shard']} at once fit" if needs["at_once"]
            else "that does not fit: take a smaller size, precision float16, offload, or another device"
        )  # fmt: skip
        of_size = f" of {needs['size']} px" if needs["size"] else ""
        notes.append(
            f"On {needs['device']} in {needs['precision']} the generator needs {needs['mb']:,.0f} MB for weights, and "
            f"about {needs['one_mb']:,.0f} MB to draw one picture{of_size}, {needs['shard_mb']:,.0f} MB for "
            f"{needs['shard']}: {room}."
        )
    if report["pictures"]:
        found = report["pictures"]
        first = f", first {found['first'][0]}" if found["missing"] else ""
        notes.append(f"Pictures of the data set: {found['missing']} of {found['needed']} are missing{first}.")
    return [
        ("Packages", ["package", "version"], packages),
        ("Devices", ["device", "memory"], devices),
        ("Weights", ["part", "source", "where", "size", "licence"], weights),
    ], notes


def _version(package: str) -> str | None:
    """The version that is installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    """The CPU and every GPU; the last is the one that networks run on."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    found = [{"name": f"CPU, {os.cpu_count()} cores", "mb": memory}]
    for number in reversed(range(torch.cuda.device_count())):
        card = torch.cuda.get_device_properties(number)
        found.append({"name": f"GPU {number}, {card.name}", "mb": card.total_memory / 1e6})
    return found


def _weights(part: str, source: str) -> dict[str, Any]:
    """Where a network's weights are, how large, and under which licence."""
    folder = local_folder(source)
    files = [] if folder is None else _weight_files(folder)
    wanted = ("unet", "vae", "text_encoder") if part == "diffusion" else ()
    lacking = [name for name in wanted if not any(name in path.parts for path in files)]
    where = "missing" if not files else "folder" if os.path.isdir(source) else "cache"
    bundled = Path(source).is_relative_to(BUNDLED)
    if bundled:
        check_bundled()
    return {
        "part": part, "source": "bundled" if bundled else source,
        "where": f"incomplete: no {lacking[0]}" if files and lacking else where,
        "mb": sum(path.stat().st_size for path in files) / 1e6,
        "licence": "MIT" if bundled else LICENCES.get(source, "see its model card"),
    }  # fmt: skip


def _weight_files(folder: Path) -> list[Path]:
    """Files with weights, of each network those that are read: not a second precision or format beside them."""
    files = [path for suffix in ("*.safetensors", "*.bin") for path in folder.rglob(suffix)]
    kept: dict[Path, list[Path]] = {}
    for path in files:
        if "safety_checker" not in path.parts:
            kept.setdefault(path.parent, []).append(path)
    chosen = []
    for paths in kept.values():
        for kind in (".safetensors", ".bin"):
            for half in (False, True):
                some = [path for path in paths if path.suffix == kind and (".fp16." in path.name) == half]
                if some:
                    chosen += some
                    break
            else:
                continue
            break
    return sorted(chosen)


def _needs(source: str, settings: GenerateSettings, device: Mapping[str, Any]) -> dict[str, Any]:
    """Memory that drawing needs in the precision that is asked for, and how many pictures at once fit."""
    from neurocanvas.generation.footprint import activation_bytes

    folder, precision = local_folder(source), precision_of(settings)
    files = [] if folder is None else _weight_files(folder)
    needs = {"mb": None, "precision": precision, "device": device["name"], "shard": settings.shard, "at_once": 0}
    if folder is None or not all((folder / part / "config.json").is_file() for part in ("unet", "vae")) or not files:
        return needs
    mb = {path: _count_numbers(path) * BYTES[precision] / 1e6 for path in files}
    # where networks take turns on the card, the largest of them is there
    resident = max(mb.values()) if settings.offload and device["name"].startswith("GPU") else sum(mb.values())

    def beside(pictures: int) -> float:
        return activation_bytes(folder, pictures, size=settings.size, precision=precision) / 1e6

    at_once = settings.shard
    while at_once and resident + beside(at_once) > SHARE_OF_DEVICE * device["mb"]:
        at_once //= 2  # as the generator does
    return needs | {
        "mb": sum(mb.values()), "one_mb": beside(1), "shard_mb": beside(settings.shard), "at_once": at_once,
        "size": settings.size,
    }  # fmt: skip


def _count_numbers(path: Path) -> float:
    """How many numbers a file of weights holds: from the header of safetensors, else by its size as float32."""
    if path.suffix != ".safetensors":
        return path.stat().st_size / 4
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (struct.error, ValueError, LookupError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise NeuroCanvasError(f"{path}: no safetensors file, or cut off; get it again.") from error


def _pictures(data: DataSettings | None) -> dict[str, Any] | None:
    """Pictures of the data set that are missing."""
    from neurocanvas.datasets.inspection import inspect_dataset

    found: dict[str, Any] | None = None if data is None else inspect_dataset(data)["pictures"]
    return found
