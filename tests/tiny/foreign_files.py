"""Small valid files of every kind that a user may bring, and what reads each; for tests of damaged files."""

import importlib.util
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from unittest.mock import patch

import mne
import numpy as np
import torch
from PIL import Image
from tiny import trial_spec

from neurocanvas.audit import external as pairing
from neurocanvas.audit.external import table_case
from neurocanvas.config import DataSettings, RecordingSettings
from neurocanvas.data import eeg_imagenet, imagenet
from neurocanvas.data import inspect as inspection
from neurocanvas.data.eeg_imagenet import STAGE2, WHOLE
from neurocanvas.data.images import Images
from neurocanvas.data.recordings import open_recordings
from neurocanvas.decoder import Decoder, Embeddings, load_decoder
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation import feature_networks as weights
from neurocanvas.pipeline import exchange as released_files
from neurocanvas.pipeline.exchange import read_released, read_released_embeddings
from neurocanvas.targets import TargetSpace, captions

IMAGE = "n02106662_1.JPEG"
EVENTS = {"annotations": {"Stimulus/S  1": "0", "0": "0", "1": "45"}}
ANNOTATED = {"events": EVENTS, "stimulus": "grating_low_{annotations}"}
MUSE_EVENTS = {"events": {"Marker0": {"1": "low", "2": "high"}}, "stimulus": "grating_{Marker0}_0"}


def attempt(name: str, content: bytes, folder: Path) -> bool:
    """Let a reader read a file: True if it takes it, False if it refuses it in one line that names the file."""
    try:
        READERS[name][0](folder, content)
    except NeuroCanvasError as error:
        said = str(error)
        assert len(said.splitlines()) == 1 and str(folder) in said, f"{name}: {said!r}"
        return False
    return True


def put(path: Path, content: bytes) -> Path:
    """Write a file anew: one that is still mapped must not change under its reader."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def random(*shape: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0, scale, shape)


# Valid files.


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def torch_file(value: object, **how: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **how)
    return stream.getvalue()


def pickle_of(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return next(opened.read(one) for one in opened.infolist() if one.filename.endswith("data.pkl"))


def repacked(archive: bytes, pickled: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(made, "w") as new:
        for one in old.infolist():
            new.writestr(one, pickled if one.filename.endswith("data.pkl") else old.read(one))
    return made.getvalue()


@lru_cache
def released(*, stage2: bool = False) -> bytes:
    """A data file of four trials; rows of a signal overlap in memory, so that the file is small."""
    numbers = torch.from_numpy(random(562, scale=10).astype(np.float16))
    subject, stage = (16, {"stage": 30}) if stage2 else (0, {})
    records = [
        {"eeg_data": numbers.as_strided((62, 501), (1, 1)), "granularity": "coarse", "subject": subject,
         "label": label, "image": f"{label}_{number}.JPEG", **stage}
        for label in ("n02106662", "n02124075") for number in (1, 2)
    ]  # fmt: skip
    return torch_file({"dataset": records, "labels": ["n02106662", "n02124075"], "images": []})


@lru_cache
def embeddings() -> bytes:
    return torch_file({"a.png": torch.zeros(1).expand(1, 77, 768)})


@lru_cache
def released_mapper() -> bytes:
    """A state dict of the released decoder, with layers of 4 and 3 and targets of (2, 3)."""
    parts = {f"fc{n}": torch.nn.Linear(*sizes) for n, sizes in ((1, (310, 4)), (2, (4, 3)), (3, (3, 6)))}
    network = torch.nn.ModuleDict({**parts, "bn1": torch.nn.BatchNorm1d(4), "bn2": torch.nn.BatchNorm1d(3)})
    return torch_file(network.state_dict())


def networks() -> list[bytes]:
    """Weights of a layer of 3 to 2, as PyTorch saves them now and before 1.6."""
    state = torch.nn.Linear(3, 2).state_dict()
    return [torch_file(state), torch_file(state, _use_new_zipfile_serialization=False)]


@lru_cache
def ridge_mapper() -> bytes:
    table = np.eye(4, 6, dtype=np.float32).reshape(4, 2, 3)
    decoder = Decoder("ridge", "clip-text@none", device="cpu")
    y = Embeddings(TargetSpace("clip-text", (2, 3), "none"), [], table)
    decoder.fit_prepared(random(4, 2, 5), y, trial_spec(2), train=np.arange(3), validation=np.array([3]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decoder.safetensors"
        decoder.save(path)
        return path.read_bytes()


def muse() -> bytes:
    """A second of a Muse recording at 64 Hz, with two onsets."""
    rows = [f"{1 + n / 64:.6f},{a:.2f},{b:.2f},{ {20: 1, 40: 2}.get(n, 0)}"
            for n, (a, b) in enumerate(random(64, 2, scale=15))]  # fmt: skip
    return "\n".join(["timestamps,TP9,TP10,Marker0", *rows, ""]).encode()


def edf() -> bytes:
    """A second of two channels at 64 Hz as EDF+, with one annotation."""
    signals = (("EEG O1", "uV", "-200", "200", 64), ("EEG O2", "uV", "-200", "200", 64),
               ("EDF Annotations", "", "-1", "1", 32))  # fmt: skip
    fixed = (("0", 8), ("X X X X", 80), ("Startdate X X X X", 80), ("01.01.20", 8), ("00.00.00", 8), ("1024", 8),
             ("EDF+C", 44), ("1", 8), ("1", 8), ("3", 4))  # fmt: skip
    names, units, least, most, samples = zip(*signals)
    columns = ((names, 16), ([""] * 3, 80), (units, 8), (least, 8), (most, 8), (["-32768"] * 3, 8), (["32767"] * 3, 8),
               ([""] * 3, 80), (map(str, samples), 8), ([""] * 3, 32))  # fmt: skip
    fixed = (*fixed, *((text, width) for texts, width in columns for text in texts))
    head = "".join(text.ljust(width) for text, width in fixed).encode()
    numbers = random(2, 64, scale=3000).astype("<i2").tobytes()
    return head + numbers + b"+0\x14\x14\x00+0.5\x140\x14\x00".ljust(64, b"\0")


@lru_cache
def fif() -> bytes:
    raw = mne.io.RawArray(random(2, 40, scale=1e-5), mne.create_info(["O1", "O2"], 64.0, "eeg"), verbose="error")
    raw.set_annotations(mne.Annotations([0.2], [0.1], ["0"]))
    with tempfile.TemporaryDirectory() as folder:
        raw.save(Path(folder) / "recording_raw.fif", verbose="error")
        return (Path(folder) / "recording_raw.fif").read_bytes()


BRAINVISION = {
    "recording.vhdr": b"Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
    b"DataFile=recording.eeg\nMarkerFile=recording.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
    b"NumberOfChannels=2\nSamplingInterval=15625\n[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\n"
    b"Ch1=O1,,0.1,\xc2\xb5V\nCh2=O2,,0.1,\xc2\xb5V\n",
    "recording.vmrk": b"Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
    b"DataFile=recording.eeg\n[Marker Infos]\nMk1=Stimulus,S  1,20,1,0\n",
    "recording.eeg": random(64, 2, scale=100).astype("<i2").tobytes(),
}


def predictions() -> list[bytes]:
    """Tables of predictions: what must be there, and what may be."""
    head = "true,predicted,split,subject,session,run,block,order,stimulus,transductive\n"
    rows = [f"{'dog' if n % 2 else 'cat'},{'dog' if n % 3 else 'cat'},{part},0,0,0,{n // 2},{n},s{n},0\n"
            for n, part in enumerate(["train"] * 4 + ["test"] * 4)]  # fmt: skip
    return [b"true,predicted\ndog,cat\ncat,cat\n", (head + "".join(rows)).encode()]


@lru_cache
def pictures() -> tuple[bytes, ...]:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8))
    streams = {kind: io.BytesIO() for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP")}
    for kind, stream in streams.items():
        picture.save(stream, format=kind)
    return tuple(stream.getvalue() for stream in streams.values())


def tars() -> list[bytes]:
    """A tar with an image, and a compressed one that holds the first."""

    def packed(name: str, content: bytes, mode: str) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as archive:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        return stream.getvalue()

    plain = packed(f"n02106662/{IMAGE}", b"picture", "w")
    return [plain[:2048], packed("n02106662.tar", plain, "w:gz")]


# Readers: each writes the bytes where the file belongs, reads them, and checks what it got.


def read_captions(folder: Path, content: bytes) -> None:
    assert all(isinstance(one, str) for one in captions.read_captions(put(folder / "caption.txt", content)).values())


def read_features(folder: Path, content: bytes) -> None:
    found = read_released(put(folder / "0_all_de.npy", content), 2)
    assert found.shape[1:] == (2, 5) and np.isfinite(found).all()


def read_eeg_imagenet(folder: Path, content: bytes) -> None:
    name, other = (STAGE2, WHOLE) if b"stage" in content else (WHOLE, STAGE2)
    (folder / other).unlink(missing_ok=True)
    put(folder / name, content)
    settings = DataSettings(root=str(folder), unit="uV")
    signal = eeg_imagenet.open_eeg_imagenet(folder, settings).signal(slice(20))
    assert signal.shape[1:] == (62, 501) and np.isfinite(signal).all()
    json.dumps(inspection.describe(inspection.inspect_dataset(settings)))


def read_embeddings(folder: Path, content: bytes) -> None:
    out = np.empty((1, 77, 768))
    read_released_embeddings(put(folder / "clip_embeddings.pth", content), ["a.png"], out)
    assert np.isfinite(out).all()


def read_released_mapper(folder: Path, content: bytes) -> None:
    path = put(folder / "mlpsd_s0_0.pth", content)
    small = {"TARGET_SHAPE": (2, 3), "N_OUTPUTS": 6, "ARCHITECTURES": {"released": ((4, 3), "relu")}}
    with patch.multiple(released_files, **small):
        decoder = released_files.read_released_mapper(path)
        assert decoder.basis_.inverse(decoder.outputs(np.zeros((1, 62, 5)))).shape == (1, 2, 3)


def read_checkpoint(folder: Path, content: bytes) -> None:
    decoder = load_decoder(put(folder / "decoder.safetensors", content))
    spec = decoder.input_spec
    predicted = decoder.basis_.inverse(decoder.outputs(np.zeros((1, len(spec.ch_names), len(spec.bands)))))
    assert predicted.shape == (1, *decoder.space_.shape)


def read_network(folder: Path, content: bytes) -> None:
    weights._fill(torch.nn.Linear(3, 2), put(folder / "network.pth", content), ("head",))


def read_recording(name: str, events: dict[str, object], folder: Path, content: bytes) -> None:
    for beside, its_content in BRAINVISION.items():
        put(folder / beside, its_content)
    put(folder / name, content)
    settings = RecordingSettings.model_validate({"files": name, "tmin": -0.1, "tmax": 0.2, **events})
    trials = open_recordings(folder, DataSettings(name="recordings", recording=settings))
    signal = trials.signal(slice(20))
    assert signal.shape[1] == len(trials.spec.ch_names) and np.isfinite(signal).all()


def read_predictions(name: str, folder: Path, content: bytes) -> None:
    table_case(put(folder / name, content))


def read_pairs(folder: Path, content: bytes) -> None:
    for name in ("made/a.png", "made/b.png", "seen/a.png", "seen/b.png"):
        put(folder / name, pictures()[0])
    found = pairing.read_pairing(folder / "made", folder / "seen", put(folder / "pairs.csv", content))
    assert pairing.read_pictures(found.images, pairing.choose_size(found)[0]).shape[0] == len(found.seen)


def read_stimulus(folder: Path, content: bytes) -> None:
    put(folder / "imageNet_images" / "n02106662" / IMAGE, content)
    assert Images.from_folder(folder).picture(IMAGE, size=16).shape == (16, 16, 3)


def read_tar(folder: Path, content: bytes) -> None:
    """Nothing is written but the image that is asked for."""
    root = folder / "data"
    where = root / "imageNet_images" / "n02106662" / IMAGE
    where.unlink(missing_ok=True)
    imagenet.import_pictures(put(folder / "pictures.tar", content), root, [IMAGE])
    assert {one for one in root.rglob("*") if one.is_file()} <= {where}


def in_archive(read: Callable[[Path, bytes], None], archive: Callable[[], bytes]) -> Callable[[Path, bytes], None]:
    """A reader of the pickled part of a PyTorch file; the rest of the file stays as it is."""
    return lambda folder, content: read(folder, repacked(archive(), content))


def parquet() -> list[bytes]:
    import pyarrow
    from pyarrow import parquet as files

    stream = io.BytesIO()
    files.write_table(pyarrow.table({"true": ["dog", "cat"], "predicted": ["cat", "cat"], "order": [1, 2]}), stream)
    return [stream.getvalue()]


PAIRS = b"image,against,concept,order\na.png,a.png,dog,1\nb.png,b.png,cat,2\n"

# Kind of file -> what reads it, and what makes valid ones.
READERS: dict[str, tuple[Callable[[Path, bytes], None], Callable[[], Sequence[bytes]]]] = {
    "captions": (read_captions, lambda: [b"a.png\ta dog\nb.png\ta cat\n", "é.png\tein Hund\r\n".encode()]),
    "features": (read_features, lambda: [npy(random(3, 10))]),
    "eeg-imagenet": (read_eeg_imagenet, lambda: [released(), released(stage2=True)]),
    "eeg-imagenet-pickle": (in_archive(read_eeg_imagenet, released), lambda: [pickle_of(released())]),
    "embeddings": (read_embeddings, lambda: [embeddings()]),
    "embeddings-pickle": (in_archive(read_embeddings, embeddings), lambda: [pickle_of(embeddings())]),
    "mapper": (read_released_mapper, lambda: [released_mapper()]),
    "mapper-pickle": (in_archive(read_released_mapper, released_mapper), lambda: [pickle_of(released_mapper())]),
    "checkpoint": (read_checkpoint, lambda: [ridge_mapper()]),
    "network": (read_network, networks),
    "muse": (partial(read_recording, "muse.csv", MUSE_EVENTS), lambda: [muse()]),
    "edf": (partial(read_recording, "recording.edf", ANNOTATED), lambda: [edf()]),
    "fif": (partial(read_recording, "recording_raw.fif", ANNOTATED), lambda: [fif()]),
    "brainvision": (partial(read_recording, "recording.vhdr", ANNOTATED), lambda: [BRAINVISION["recording.vhdr"]]),
    "predictions.csv": (partial(read_predictions, "predictions.csv"), predictions),
    "predictions.parquet": (partial(read_predictions, "predictions.parquet"), parquet),
    "pairs": (read_pairs, lambda: [PAIRS]),
    "stimulus": (read_stimulus, pictures),
    "tar": (read_tar, tars),
}  # fmt: skip
if importlib.util.find_spec("pyarrow") is None:
    del READERS["predictions.parquet"]
