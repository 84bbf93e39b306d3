"""Small valid files of every kind, for tools/fuzz_targets.py; made of random numbers of a fixed seed."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

IMAGE = "n02106662_1.JPEG"
COLUMNS = "subject,session,run,block,order,stimulus,concept,granularity"
CONVERTED_CARD = (
    b'{"fingerprint": "print", "sha256": "0", "table": "0", "source": "0", "unit": "uV", "shape": [4, 62, 501]}'
)


def npy(array: np.ndarray) -> bytes:
    """An array as .npy."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def arrays() -> list[bytes]:
    """Arrays of the store, and released features of two channels."""
    random = np.random.default_rng(0)
    return [npy(random.normal(size=(3, 10))), npy(np.arange(6, dtype=np.float16)), npy(np.array(["a", "b"]))]


def array_files() -> list[bytes]:
    """Arrays as others keep them: .npy, .npz, pickled dictionaries, and a dictionary in an .npy."""
    value = {"a": np.arange(4.0), "b": ["x", 1, None], "c": {"d": np.float32(1)}}
    packed, held = io.BytesIO(), io.BytesIO()
    np.savez_compressed(packed, a=np.arange(4), b=np.zeros((2, 2)))
    np.save(held, np.array(value, dtype=object))
    pickled = [pickle.dumps(value, protocol) for protocol in (0, 2, 4)]
    return [npy(np.arange(6.0)), packed.getvalue(), held.getvalue(), *pickled]


def torch_file(value: Any) -> bytes:
    """A value as PyTorch saves it."""
    import torch

    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def pickle_of(archive: bytes) -> bytes:
    """The pickled part of a PyTorch file."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return next(opened.read(one) for one in opened.infolist() if one.filename.endswith("data.pkl"))


@lru_cache
def tensors() -> bytes:
    """A PyTorch file of plain values and a tensor."""
    import torch

    return torch_file({"a": torch.arange(4.0), "b": [1, "two", None], "c": torch.nn.Parameter(torch.ones(2))})


@lru_cache
def released(*, stage2: bool = False) -> bytes:
    """A data file of four trials; rows of a signal overlap in memory, so that the file is small."""
    import torch

    numbers = torch.from_numpy(np.random.default_rng(0).normal(0, 10, 562).astype(np.float16))
    subject, stage = (16, {"stage": 30}) if stage2 else (0, {})
    records = [
        {
            "eeg_data": numbers.as_strided((62, 501), (1, 1)), "granularity": "coarse", "subject": subject,
            "label": label, "image": f"{label}_{number}.JPEG", **stage,
        }
        for label in ("n02106662", "n02124075") for number in (1, 2)
    ]  # fmt: skip
    return torch_file({"dataset": records, "labels": ["n02106662", "n02124075"], "images": []})


@lru_cache
def embeddings() -> bytes:
    """Embeddings of one picture, of one number."""
    import torch

    return torch_file({"a.png": torch.zeros(1).expand(1, 77, 768)})


@lru_cache
def released_mapper() -> bytes:
    """A state dict of the released mapper, of layers of 4 and 3 and of targets of (2, 3)."""
    import torch

    random = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "fc1.weight": (4, 310), "fc1.bias": (4,), "fc2.weight": (3, 4), "fc2.bias": (3,), "fc3.weight": (6, 3),
        "fc3.bias": (6,),
    }  # fmt: skip
    shapes |= {f"bn{n}.{name}": (width,) for n, width in ((1, 4), (2, 3))
               for name in ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
    return torch_file({name: torch.rand(shape, generator=random) for name, shape in shapes.items()})


@lru_cache
def lpips_heads() -> bytes:
    """Linear heads of LPIPS, every weight the same."""
    import torch

    widths = (64, 192, 384, 256, 256)
    return torch_file({f"lin{n}.model.1.weight": torch.ones(1).expand(1, k, 1, 1) for n, k in enumerate(widths)})


def networks() -> list[bytes]:
    """Weights of a layer of 3 to 2, as PyTorch saves them now and before 1.6."""
    import torch

    state, stream = torch.nn.Linear(3, 2).state_dict(), io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=False)
    return [torch_file(state), stream.getvalue()]


@lru_cache
def checkpoints() -> tuple[bytes, ...]:
    """Mappers of ours, of two channels, two bands and targets of (2, 3)."""
    from neurocanvas.models import EEGSpec, TargetBasis
    from neurocanvas.models.checkpoint import save_mapper
    from neurocanvas.models.linear import RidgeMapper
    from neurocanvas.models.mlp import MLPMapper, build_network

    spec = EEGSpec(("O1", "O2"), ("alpha", "beta"), (2, 3))
    basis = TargetBasis(np.zeros((2, 3), np.float32), np.eye(2, 6, dtype=np.float32), np.ones(2, np.float32))
    scale = np.zeros(4, np.float32), np.ones(4, np.float32)
    ridge, perceptron = RidgeMapper(spec, basis, *scale), MLPMapper(spec, basis, *scale)
    ridge.load_weights({"coefficients": np.ones((4, 2), np.float32), "penalty": np.ones(1, np.float32)})
    state = build_network(4, (3, 3), 2).state_dict()
    perceptron.load_weights({f"network.{name}": tensor.numpy() for name, tensor in state.items()})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mapper.safetensors"
        made = []
        for mapper in (ridge, perceptron):
            save_mapper(mapper, path, "print", {"split": {"fingerprint": "print"}})
            made.append(path.read_bytes())
    return tuple(made)


def checkpoint_heads() -> list[bytes]:
    """The header of a mapper of ours."""
    whole = checkpoints()[0]
    return [whole[8 : 8 + struct.unpack("<Q", whole[:8])[0]]]


def checkpoint_cards() -> list[bytes]:
    """The card of a mapper of ours."""
    import hashlib

    digest = hashlib.sha256(checkpoints()[0]).hexdigest()
    return [json.dumps({"sha256": digest, "split": {"fingerprint": "print"}, "warnings": []}).encode()]


def settings() -> list[bytes]:
    """Settings as TOML: few, and all of them."""
    import tomli_w

    from neurocanvas.config import RunSettings

    whole = RunSettings.model_validate({"simulate": {}}).model_dump(mode="json", exclude_none=True)
    return [b'name = "a"\n[data]\nsubjects = [0, 3]\n[generate]\nguidance = 5.0\n', tomli_w.dumps(whole).encode()]


def trial_table() -> bytes:
    """The table of four trials."""
    rows = [f"0,0,0,{n // 2},{n},n0210666{n // 2}_{n}.JPEG,n0210666{n // 2},coarse" for n in range(4)]
    return "\n".join([COLUMNS, *rows, ""]).encode()


def converted_arrays() -> list[bytes]:
    """The beginning of the array of a converted store, and arrays of other shapes."""
    whole = npy(np.zeros((4, 62, 501), np.float32))
    return [whole[:128], npy(np.zeros((4, 2, 3), np.float32)), npy(np.zeros((), np.float32))]


def muse() -> bytes:
    """A second of a Muse recording at 64 Hz, with two onsets."""
    noise = np.random.default_rng(0).normal(20, 15, size=(64, 2))
    rows = [f"{1 + n / 64:.6f},{a:.2f},{b:.2f},{ {20: 1, 40: 2}.get(n, 0)}" for n, (a, b) in enumerate(noise)]
    return "\n".join(["timestamps,TP9,TP10,Marker0", *rows, ""]).encode()


def edf() -> bytes:
    """A second of two channels at 64 Hz as EDF+, with one annotation."""
    signals = (("EEG O1", "uV", "-200", "200", 64), ("EEG O2", "uV", "-200", "200", 64),
               ("EDF Annotations", "", "-1", "1", 32))  # fmt: skip
    fixed = (("0", 8), ("X X X X", 80), ("Startdate X X X X", 80), ("01.01.20", 8), ("00.00.00", 8),
             (str(256 * 4), 8), ("EDF+C", 44), ("1", 8), ("1", 8), ("3", 4))  # fmt: skip
    columns = (
        *((name, 16) for name, *_ in signals), *(("", 80) for _ in signals), *((one[1], 8) for one in signals),
        *((one[2], 8) for one in signals), *((one[3], 8) for one in signals), *(("-32768", 8) for _ in signals),
        *(("32767", 8) for _ in signals), *(("", 80) for _ in signals), *((str(one[4]), 8) for one in signals),
        *(("", 32) for _ in signals),
    )  # fmt: skip
    head = "".join(text.ljust(width) for text, width in (*fixed, *columns)).encode()
    numbers = np.random.default_rng(0).normal(0, 3000, (2, 64)).astype("<i2").tobytes()
    return head + numbers + b"+0\x14\x14\x00+0.5\x140\x14\x00".ljust(64, b"\0")


@lru_cache
def fif() -> bytes:
    """Half a second of two channels at 64 Hz as FIF, with one annotation."""
    import mne

    info = mne.create_info(["O1", "O2"], 64.0, "eeg")
    raw = mne.io.RawArray(np.random.default_rng(0).normal(0, 1e-5, (2, 40)), info, verbose="error")
    raw.set_annotations(mne.Annotations([0.2], [0.1], ["0"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording_raw.fif"
        raw.save(path, verbose="error")
        return path.read_bytes()


def brainvision() -> list[bytes]:
    """The header of a second of two channels at 64 Hz."""
    return [
        b"Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=recording.eeg\n"
        b"MarkerFile=recording.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels=2\n"
        b"SamplingInterval=15625\n[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\nCh1=O1,,0.1,\xc2\xb5V\n"
        b"Ch2=O2,,0.1,\xc2\xb5V\n"
    ]


def beside_brainvision() -> Mapping[str, bytes]:
    """The numbers and markers that belong to it."""
    numbers = np.random.default_rng(0).normal(0, 100, (64, 2)).astype("<i2").tobytes()
    marks = (
        b"Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        b"DataFile=recording.eeg\n[Marker Infos]\nMk1=Stimulus,S  1,20,1,0\n"
    )
    return {"recording.eeg": numbers, "recording.vmrk": marks}


def summaries() -> list[bytes]:
    """What `evaluate` scored."""
    scored = {"value": 0.6, "chance": 0.5, "low": 0.5, "high": 0.7, "p": None}
    whole = {"arms": {"eeg": {"two_way": scored}}, "n_trials": 4, "warnings": ["w"], "subjects": {},
             "retrieval": {"greedy": {"transductive": False}, "csls": {"transductive": True}}}  # fmt: skip
    return [json.dumps(whole).encode()]


def predictions() -> list[bytes]:
    """Tables of predictions: what must be there, and what may be."""
    head = "true,predicted,split,subject,session,run,block,order,stimulus,transductive\n"
    rows = [f"{'dog' if n % 2 else 'cat'},{'dog' if n % 3 else 'cat'},{part},0,0,0,{n // 2},{n},s{n},0\n"
            for n, part in enumerate(["train"] * 4 + ["test"] * 4)]  # fmt: skip
    return [b"true,predicted\ndog,cat\ncat,cat\n", (head + "".join(rows)).encode()]


def parquet() -> list[bytes]:
    """A table of predictions as parquet."""
    import pyarrow
    from pyarrow import parquet as files

    stream = io.BytesIO()
    files.write_table(pyarrow.table({"true": ["dog", "cat"], "predicted": ["cat", "cat"], "order": [1, 2]}), stream)
    return [stream.getvalue()]


@lru_cache
def pictures() -> tuple[bytes, ...]:
    """A picture in several formats."""
    from PIL import Image

    made = []
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        stream = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)).save(stream, format=kind)
        made.append(stream.getvalue())
    return tuple(made)


def tars() -> Sequence[bytes]:
    """A tar with a picture, and one that is compressed and holds tars."""

    def packed(name: str, content: bytes, mode: str) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as archive:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        return stream.getvalue()

    plain = packed(f"n02106662/{IMAGE}", b"picture", "w")
    return [plain[:2048], packed("n02106662.tar", plain, "w:gz")]
