"""What tools/fuzz_targets.py lets read files of PyTorch and safetensors, converted stores and recordings."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

import fuzz_seeds as seeds
import numpy as np

from neurocanvas.errors import NeuroCanvasError


class Violation(Exception):
    """A reader gave what it does not promise, or an error that is not one line with the name of the file."""


def put(path: Path, content: bytes) -> Path:
    """Write a file anew: one that is still mapped must not change under its reader."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def need(holds: bool, what: str) -> None:
    """Raise unless a promise is kept."""
    if not holds:
        raise Violation(what)


def texts(values: object) -> bool:
    """Tell whether a mapping is of text to text."""
    return isinstance(values, dict) and all(isinstance(one, str) for one in (*values, *values.values()))


def repacked(archive: bytes, pickled: bytes) -> bytes:
    """A PyTorch file with other pickled data in it."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(made, "w") as new:
        for one in old.infolist():
            new.writestr(one, pickled if one.filename.endswith("data.pkl") else old.read(one))
    return made.getvalue()


def read_plain_torch(folder: Path, content: bytes) -> None:
    """Any PyTorch file."""
    from neurocanvas.torch_files import read_torch

    read_torch(put(folder / "any.pth", content), "tensors")


def read_pickle(folder: Path, content: bytes) -> None:
    """The pickled part of any PyTorch file."""
    read_plain_torch(folder, repacked(seeds.tensors(), content))


def read_eeg_imagenet(folder: Path, content: bytes) -> None:
    """A released data file: table, signal, stimuli and inspection."""
    from neurocanvas.config import DataSettings
    from neurocanvas.datasets.eeg_imagenet import open_eeg_imagenet
    from neurocanvas.datasets.inspection import describe, inspect_dataset
    from neurocanvas.datasets.released import STAGE2, WHOLE

    name, other = (STAGE2, WHOLE) if b"stage" in content else (WHOLE, STAGE2)
    (folder / other).unlink(missing_ok=True)
    put(folder / name, content)
    settings = DataSettings(root=str(folder), unit="uV")
    trials, _ = open_eeg_imagenet(folder, settings)
    signal = trials.signal(slice(20))
    need(signal.shape[1:] == (62, 501) and bool(np.isfinite(signal).all()), "signal of 62 channels, finite")
    trials.fingerprint()
    json.dumps(describe(inspect_dataset(settings))).encode()


def read_eeg_imagenet_pickle(folder: Path, content: bytes) -> None:
    """The pickled part of a released data file."""
    read_eeg_imagenet(folder, repacked(seeds.released(), content))


@lru_cache
def converted_folder(parent: Path) -> Path:
    """A converted store of four trials."""
    from neurocanvas.config import DataSettings
    from neurocanvas.datasets.converted import convert

    put(parent / "source" / "EEG-ImageNet.pth", seeds.released())
    convert(DataSettings(root=str(parent / "source"), unit="uV"), parent / "converted")
    return parent / "converted"


def converted_tables() -> list[bytes]:
    """The table of a converted store of four trials."""
    from neurocanvas.datasets.converted import TABLE

    with tempfile.TemporaryDirectory() as folder:
        return [(converted_folder(Path(folder)) / TABLE).read_bytes()]


def _open_converted(folder: Path, **changed: bytes) -> None:
    """Read a converted store with another array, table or card; what is not changed says what fits."""
    from neurocanvas.datasets.converted import ARRAY, TABLE, open_converted
    from neurocanvas.store import card_path, sha256

    whole, here = converted_folder(folder), folder / "changed"
    for part, name in (("array", ARRAY), ("table", TABLE)):
        put(here / name, changed.get(part, (whole / name).read_bytes()))
    card = json.loads(card_path(whole / ARRAY).read_text(encoding="utf-8"))
    card |= {"table": sha256(here / TABLE), "sha256": sha256(here / ARRAY)}
    with contextlib.suppress(Exception):
        card["shape"] = list(np.lib.format.open_memmap(here / ARRAY, mode="r").shape)
    put(card_path(here / ARRAY), changed.get("card", json.dumps(card).encode()))
    source = open_converted(here, "uV")
    n = len(source.table["subject"])
    need({len(column) for column in source.table.values()} == {n} == {len(source.file)}, "columns of one length")
    need(source.read(np.arange(min(n, 5))).shape[1:] == (62, 501), "signal of 62 channels")


def read_converted_array(folder: Path, content: bytes) -> None:
    """The beginning of the array of a converted store; the rest is as it was written."""
    from neurocanvas.datasets.converted import ARRAY

    whole = (converted_folder(folder) / ARRAY).read_bytes()
    _open_converted(folder, array=content + whole[len(content) :])


def read_converted_table(folder: Path, content: bytes) -> None:
    """The table of a converted store."""
    _open_converted(folder, table=content)


def read_converted_card(folder: Path, content: bytes) -> None:
    """The card of a converted store; hashes that only say 0 are the right ones."""
    from neurocanvas.datasets.converted import ARRAY
    from neurocanvas.store import card_path

    card = json.loads(card_path(converted_folder(folder) / ARRAY).read_text(encoding="utf-8"))
    for name in ("table", "sha256"):
        content = content.replace(f'"{name}": "0"'.encode(), f'"{name}": "{card[name]}"'.encode())
    _open_converted(folder, card=content)


def read_embeddings(folder: Path, content: bytes) -> None:
    """The pickled part of clip_embeddings.pth."""
    from neurocanvas.targets.released_files import read_released_embeddings

    path, out = put(folder / "clip_embeddings.pth", repacked(seeds.embeddings(), content)), np.empty((1, 77, 768))
    read_released_embeddings(path, ["a.png"], out)
    need(bool(np.isfinite(out).all()), "finite embeddings")


def read_released_mapper(folder: Path, content: bytes) -> None:
    """The pickled part of a mapper of the released code, of which the layers are made small here."""
    from neurocanvas.models import released_files as module
    from neurocanvas.models.base import EEGSpec

    path = put(folder / "mlpsd_s0_0.pth", repacked(seeds.released_mapper(), content))
    with (
        patch.object(module, "SPEC", EEGSpec(module.CH_NAMES, tuple(module.BANDS), (2, 3))),
        patch.object(module, "TARGET_SHAPE", (2, 3)),
        patch.object(module, "ARCHITECTURES", {"released": ((4, 3), "relu")}),
    ):
        predicted = module.read_released_mapper(path).predict(np.zeros((1, 62, 5)))
    need(predicted.shape == (1, 2, 3), "targets of the spec's shape")


def read_checkpoint(folder: Path, content: bytes) -> None:
    """A mapper of ours."""
    from neurocanvas.models.checkpoint import load_mapper
    from neurocanvas.store import card_path

    path = put(folder / "mapper.safetensors", content)
    card_path(path).unlink(missing_ok=True)
    mapper = load_mapper(path)
    predicted = mapper.predict(np.zeros((1, len(mapper.spec.ch_names), len(mapper.spec.bands))))
    need(predicted.shape == (1, *mapper.spec.target_shape), "targets of the spec's shape")


def read_checkpoint_head(folder: Path, content: bytes) -> None:
    """The header of a mapper of ours."""
    whole = seeds.checkpoints()[0]
    length = struct.unpack("<Q", whole[:8])[0]
    read_checkpoint(folder, struct.pack("<Q", len(content)) + content + whole[8 + length :])


def read_checkpoint_card(folder: Path, content: bytes) -> None:
    """The card of a mapper of ours."""
    from neurocanvas.models.checkpoint import load_mapper
    from neurocanvas.stages.records import read_mapper_card
    from neurocanvas.store import card_path

    path = put(folder / "mapper.safetensors", seeds.checkpoints()[0])
    put(card_path(path), content)
    load_mapper(path)
    read_mapper_card(path)


def read_network(folder: Path, content: bytes) -> None:
    """Weights of a feature network."""
    import torch

    from neurocanvas.evaluation.weights import _fill

    _fill(torch.nn.Linear(3, 2), put(folder / "network.pth", content), ("head",))


def read_lpips_heads(folder: Path, content: bytes) -> None:
    """The linear heads of LPIPS."""
    from neurocanvas.evaluation.networks import NotComputed
    from neurocanvas.evaluation.weights import load_lpips_heads

    put(folder / "alex.pth", repacked(seeds.lpips_heads(), content))
    found = load_lpips_heads(str(folder))
    if isinstance(found, NotComputed):
        raise NeuroCanvasError(str(found))
    need([head.shape for head in found] == [(n,) for n in (64, 192, 384, 256, 256)], "heads of AlexNet's channels")


def _open_recording(folder: Path, name: str, content: bytes, recording: Mapping[str, object]) -> None:
    """Read one recording with its trials."""
    from neurocanvas.config import DataSettings, RecordingSettings
    from neurocanvas.datasets.recordings import open_recordings

    path = put(folder / name, content)
    settings = RecordingSettings.model_validate({"files": path.name, "tmin": -0.1, "tmax": 0.2, **recording})
    trials, _ = open_recordings(folder, DataSettings(name="recordings", recording=settings))
    signal = trials.signal(slice(20))
    need(signal.shape[1] == len(trials.ch_names) and bool(np.isfinite(signal).all()), "finite signal of the channels")


def read_muse(folder: Path, content: bytes) -> None:
    """A Muse CSV."""
    events = {"Marker0": {"1": "low", "2": "high"}}
    _open_recording(folder, "muse.csv", content, {"events": events, "stimulus": "grating_{Marker0}_0"})


def _annotated(folder: Path, name: str, content: bytes) -> None:
    """A file that MNE reads, with annotations that name gratings."""
    _open_recording(folder, name, content, {"events": {"annotations": {"Stimulus/S  1": "0", "0": "0", "1": "45"}},
                                            "stimulus": "grating_low_{annotations}"})  # fmt: skip


def read_edf(folder: Path, content: bytes) -> None:
    """An EDF+ file."""
    _annotated(folder, "recording.edf", content)


def read_fif(folder: Path, content: bytes) -> None:
    """A FIF file."""
    _annotated(folder, "recording_raw.fif", content)


def read_brainvision(folder: Path, content: bytes) -> None:
    """The header of a BrainVision recording."""
    for name, beside in seeds.beside_brainvision().items():
        put(folder / name, beside)
    _annotated(folder, "recording.vhdr", content)


def read_markers(folder: Path, content: bytes) -> None:
    """The markers of a BrainVision recording."""
    for name, beside in {**seeds.beside_brainvision(), "recording.vmrk": content}.items():
        put(folder / name, beside)
    _annotated(folder, "recording.vhdr", seeds.brainvision()[0])
