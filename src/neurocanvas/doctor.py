"""Packages, devices, weights with sizes and licences, and images of the data set on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from neurocanvas.config import DataSettings
from neurocanvas.data.inspect import inspect_dataset
from neurocanvas.targets.pretrained import BUNDLED, find_family, local_folder, source_hash

PACKAGES = (
    "torch", "diffusers", "transformers", "accelerate", "mne", "scikit-learn", "numpy", "mne-bids", "braindecode",
    "pyarrow", "ray",
)  # fmt: skip

# Licences of the hub ids in `FAMILIES`, from their model cards.
LICENCES: Mapping[str, str] = {
    "Salesforce/blip-image-captioning-base": "BSD-3-Clause",
    "CompVis/stable-diffusion-v1-4": "CreativeML OpenRAIL-M",
    "openai/clip-vit-large-patch14": "MIT",
    "madebyollin/taesd": "MIT",
}


def examine(family: str, data: DataSettings | None = None) -> dict[str, Any]:
    """Examine the machine without using the network."""
    networks = find_family(family)
    parts = {"captioner": networks.captioner, "diffusion": networks.diffusion, "judge": networks.judge}
    if networks.preview:
        parts["preview"] = networks.preview
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "packages": versions,
        "devices": _devices(),
        "weights": [_weights(part, source) for part, source in parts.items()],
        "pictures": None if data is None else inspect_dataset(data)["pictures"],
    }


def describe(report: Mapping[str, Any]) -> tuple[list[tuple[str, list[str], list[list[str]]]], list[str]]:
    """The results of `examine` as tables and sentences."""
    packages = [[name, installed or "not installed"] for name, installed in report["packages"].items()]
    devices = [[device["name"], f"{device['mb']:,.0f} MB"] for device in report["devices"]]
    weights = [
        [row["part"], row["source"], row["where"], f"{row['mb']:,.0f} MB" if row["mb"] else "–", row["licence"]]
        for row in report["weights"]
    ]
    notes = []
    if any(row["where"] not in ("folder", "cache") for row in report["weights"]):
        notes.append("Some weights are missing: name their folder with --family, or run once with network access.")
    if images := report["pictures"]:
        first = f", first {images['first'][0]}" if images["missing"] else ""
        notes.append(f"Images of the data set: {images['missing']} of {images['needed']} are missing{first}.")
    return [
        ("Packages", ["package", "version"], packages),
        ("Devices", ["device", "memory"], devices),
        ("Weights", ["part", "source", "where", "size", "licence"], weights),
    ], notes


def _devices() -> list[dict[str, Any]]:
    """The CPU and every GPU; networks run on the last one."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    devices = [{"name": f"CPU, {os.cpu_count()} cores", "mb": memory}]
    for number in reversed(range(torch.cuda.device_count())):
        gpu = torch.cuda.get_device_properties(number)
        devices.append({"name": f"GPU {number}, {gpu.name}", "mb": gpu.total_memory / 1e6})
    return devices


def _weights(part: str, source: str) -> dict[str, Any]:
    """Location, size and licence of a network's weights."""
    folder = local_folder(source)
    files = [] if folder is None else _weight_files(folder)
    needed = ("unet", "vae", "text_encoder") if part == "diffusion" else ()
    lacking = [name for name in needed if not any(name in path.parts for path in files)]
    where = "missing" if not files else "folder" if os.path.isdir(source) else "cache"
    bundled = Path(source).is_relative_to(BUNDLED)
    if bundled:
        source_hash("bundled")
    return {
        "part": part, "source": "bundled" if bundled else source,
        "where": f"incomplete: no {lacking[0]}" if files and lacking else where,
        "mb": sum(path.stat().st_size for path in files) / 1e6,
        "licence": "MIT" if bundled else LICENCES.get(source, "see its model card"),
    }  # fmt: skip


def _weight_files(folder: Path) -> list[Path]:
    """The weight files in use: one precision and one format of each network."""
    networks: dict[Path, list[Path]] = {}
    for path in folder.rglob("*"):
        if path.suffix in (".safetensors", ".bin") and "safety_checker" not in path.parts:
            networks.setdefault(path.parent, []).append(path)

    def rank(path: Path) -> tuple[bool, bool]:
        return path.suffix != ".safetensors", ".fp16." in path.name

    return [path for paths in networks.values() for path in paths if rank(path) == min(map(rank, paths))]
