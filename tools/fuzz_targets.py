"""Every reader of a file that a user may bring, with valid files to start from: for tests/properties and tools/fuzz.py."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

import fuzz_seeds as seeds
import numpy as np

from neurocanvas.errors import NeuroCanvasError

Reader = Callable[[Path, bytes], None]


class Violation(Exception):
    """A reader gave what it does not promise, or an error that is not one line with the name of the file."""


def attempt(name: str, content: bytes, folder: Path) -> bool:
    """Let a target read a file.

    Parameters
    ----------
    name : str
        In `TARGETS`.
    content : bytes
        Of the file.
    folder : Path
        Where to put it; what is beside it there is made by the target.

    Returns
    -------
    bool
        Whether the file was taken; else it was refused as it should be.

    Raises
    ------
    Violation
        If what was read is not what the reader promises, or the refusal is not one line that names the file.
    Exception
        Whatever the reader raised that is no NeuroCanvasError.
    """
    try:
        TARGETS[name][0](folder, content)
    except NeuroCanvasError as error:
        said = str(error)
        if len(said.splitlines()) != 1 or str(folder) not in said:
            raise Violation(f"{name}: one line that names the file is needed; got {said!r}") from error
        return False
    return True


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


def read_settings(folder: Path, content: bytes) -> None:
    """run.toml; what is read can be written and read again."""
    from neurocanvas.config import load_settings, save_settings

    settings = load_settings(put(folder / "run.toml", content))
    save_settings(settings, folder / "again.toml")
    need(load_settings(folder / "again.toml") == settings, "settings change when they are written")


def read_caption_file(folder: Path, content: bytes) -> None:
    """caption.txt."""
    from neurocanvas.targets.captions import read_captions

    need(texts(read_captions(put(folder / "caption.txt", content))), "captions are texts")


def read_synsets(folder: Path, content: bytes) -> None:
    """synset_map_en.txt."""
    from neurocanvas.datasets.stimuli import read_names

    put(folder / "synset_map_en.txt", content)
    need(texts(read_names(folder)), "names are texts")


def read_store_array(folder: Path, content: bytes) -> None:
    """An array of the store."""
    from neurocanvas.store import read_array

    array = read_array(put(folder / "s0.npy", content), "numbers")
    need(isinstance(array, np.ndarray) and not array.dtype.hasobject, "an array without objects")
    need(array.nbytes <= len(content), "no more numbers than the file has")


def read_store_card(folder: Path, content: bytes) -> None:
    """A card of the store."""
    from neurocanvas.store import card_path, is_done, read_card

    path = put(folder / "s0.npy", b"data")
    put(card_path(path), content)
    need(isinstance(is_done(path, "print"), bool), "done or not")
    need(isinstance(read_card(path), dict), "a card is a mapping")


def read_growing(folder: Path, content: bytes) -> None:
    """The state of an array that a killed run left half written."""
    from neurocanvas.store import card_path, growing_array

    path = folder / "grown.npy"
    growing = path.with_name(f".growing-{path.name}")
    put(growing, seeds.npy(np.zeros((4, 3), np.float16)))
    put(card_path(growing), content)
    with growing_array(path, (4, 3), "print") as (array, done, _):
        need(array.shape == (4, 3) and isinstance(done, int) and 0 <= done <= 4, f"done {done} of 4")


def read_features(folder: Path, content: bytes) -> None:
    """A feature file of the released code."""
    from neurocanvas.features.released_files import read_released

    found = read_released(put(folder / "0_all_de.npy", content), 2)
    need(found.shape[1:] == (2, 5) and found.dtype == np.float64 and bool(np.isfinite(found).all()), "features")


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
    """The array of a converted store."""
    _open_converted(folder, array=content)


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
    from neurocanvas.stages.kept import read_mapper_card
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


def read_manifest(folder: Path, content: bytes) -> None:
    """manifest.jsonl, as the audit reads it."""
    from neurocanvas.stages.kept import drawn_stimuli

    put(folder / "images" / "manifest.jsonl", content)
    need(all(isinstance(one, str) for one in drawn_stimuli(folder)), "stimuli are texts")


def read_summary(folder: Path, content: bytes) -> None:
    """scores/summary.json, as the audit reads it."""
    from neurocanvas.stages.kept import read_summary, transductive_rules, two_way

    put(folder / "scores" / "summary.json", content)
    found = read_summary(folder)
    if found is not None:
        transductive_rules(found)
        two_way(folder, found, "eeg", model="m", selection="unknown")


def read_trial_table(folder: Path, content: bytes) -> None:
    """The trial table of a run folder."""
    from neurocanvas.stages.kept import kept_tables

    put(folder / "features" / "s0_trials.csv", content)
    kept_tables(folder)


def read_scores_table(folder: Path, content: bytes) -> None:
    """A table that the report reads."""
    from neurocanvas.report.tables import number_in, read_csv

    path = put(folder / "scores" / "trials.csv", content)
    for row in read_csv(path, "evaluate", ("subject", "two_way")):
        number_in(row, "two_way", path, "evaluate")


def _audit(path: Path) -> None:
    """Read a table of predictions as the audit does."""
    from neurocanvas.stages.foreign import table_case

    table_case(path)


def read_audit_table(folder: Path, content: bytes) -> None:
    """A table of predictions, CSV."""
    _audit(put(folder / "predictions.csv", content))


def read_audit_parquet(folder: Path, content: bytes) -> None:
    """A table of predictions, parquet."""
    _audit(put(folder / "predictions.parquet", content))


def read_pairs(folder: Path, content: bytes) -> None:
    """The table of pairs."""
    from neurocanvas.evaluation.pairing import choose_size, read_pairing, read_pictures

    for name in ("made/a.png", "made/b.png", "seen/a.png", "seen/b.png"):
        put(folder / name, seeds.pictures()[0])
    found = read_pairing(folder / "made", folder / "seen", put(folder / "pairs.csv", content))
    need(read_pictures(found.images, choose_size(found)[0]).shape[0] == len(found.seen), "a row for every picture")


def read_stimulus(folder: Path, content: bytes) -> None:
    """A picture that was seen."""
    from neurocanvas.datasets.stimuli import Stimuli

    put(folder / "imageNet_images" / "n02106662" / "n02106662_1.JPEG", content)
    picture = Stimuli.from_folder(folder).picture("n02106662_1.JPEG", size=16)
    need(picture.shape == (16, 16, 3) and picture.dtype == np.uint8, "16 x 16 px, RGB")


def read_made_picture(folder: Path, content: bytes) -> None:
    """A picture that was made elsewhere."""
    from neurocanvas.evaluation.pairing import read_pictures

    need(read_pictures([put(folder / "made.png", content)], (16, 16)).shape == (1, 16, 16, 3), "16 x 16 px, RGB")


def read_drawn_picture(folder: Path, content: bytes) -> None:
    """A picture of a run folder."""
    from neurocanvas.stages.run import read_picture

    need(read_picture(put(folder / "drawn.png", content)).ndim == 3, "RGB")


def read_tar(folder: Path, content: bytes) -> None:
    """A tar of ImageNet's pictures; nothing is written but the picture that is asked for."""
    from neurocanvas.datasets.imagenet import import_pictures

    name, root = "n02106662_1.JPEG", folder / "data"
    where = root / "imageNet_images" / "n02106662" / name
    where.unlink(missing_ok=True)
    import_pictures(put(folder / "pictures.tar", content), root, [name])
    need({one for one in root.rglob("*") if one.is_file()} <= {where}, "nothing else is written")


TARGETS: dict[str, tuple[Reader, Callable[[], Sequence[bytes]]]] = {
    "settings": (read_settings, seeds.settings),
    "captions": (read_caption_file, lambda: [b"a.png\ta dog\nb.png\ta cat\n", "é.png\tein Hund\r\n".encode()]),
    "synsets": (read_synsets, lambda: [b"n02106662\tGerman shepherd, Alsatian\nn02124075   Egyptian_cat\n"]),
    "array": (read_store_array, seeds.arrays),
    "card": (read_store_card, lambda: [b'{"fingerprint": "print", "sha256": "0", "stimuli": ["a"]}']),
    "growing": (read_growing, lambda: [b'{"fingerprint": "print", "done": 2}']),
    "features": (read_features, seeds.arrays),
    "torch": (read_plain_torch, lambda: [seeds.tensors()]),
    "torch-pickle": (read_pickle, lambda: [seeds.pickle_of(seeds.tensors())]),
    "eeg-imagenet": (read_eeg_imagenet, lambda: [seeds.released(), seeds.released(stage2=True)]),
    "eeg-imagenet-pickle": (
        read_eeg_imagenet_pickle,
        lambda: [seeds.pickle_of(seeds.released()), seeds.pickle_of(seeds.released(stage2=True))],
    ),
    "converted-array": (read_converted_array, seeds.converted_arrays),
    "converted-table": (read_converted_table, lambda: [seeds.converted_table()]),
    "converted-card": (read_converted_card, lambda: [seeds.CONVERTED_CARD]),
    "embeddings": (read_embeddings, lambda: [seeds.pickle_of(seeds.embeddings())]),
    "released-mapper": (read_released_mapper, lambda: [seeds.pickle_of(seeds.released_mapper())]),
    "checkpoint": (read_checkpoint, seeds.checkpoints),
    "checkpoint-head": (read_checkpoint_head, seeds.checkpoint_heads),
    "checkpoint-card": (read_checkpoint_card, seeds.checkpoint_cards),
    "network": (read_network, seeds.networks),
    "lpips-heads": (read_lpips_heads, lambda: [seeds.pickle_of(seeds.lpips_heads())]),
    "muse": (read_muse, lambda: [seeds.muse()]),
    "edf": (read_edf, lambda: [seeds.edf()]),
    "fif": (read_fif, lambda: [seeds.fif()]),
    "brainvision": (read_brainvision, seeds.brainvision),
    "brainvision-markers": (read_markers, lambda: [seeds.beside_brainvision()["recording.vmrk"]]),
    "manifest": (read_manifest, lambda: [b'{"subject": 0, "trial": 1, "stimulus": "a.png", "file": "s0/a.png"}\n']),
    "summary": (read_summary, seeds.summaries),
    "trial-table": (read_trial_table, lambda: [seeds.converted_table()]),
    "scores-table": (read_scores_table, lambda: [b"subject,two_way\n0,0.5\n1,\n"]),
    "audit-table": (read_audit_table, seeds.predictions),
    "audit-parquet": (read_audit_parquet, seeds.parquet),
    "pairs": (read_pairs, lambda: [b"image,against,concept,order\na.png,a.png,dog,1\nb.png,b.png,cat,2\n"]),
    "stimulus": (read_stimulus, seeds.pictures),
    "made-picture": (read_made_picture, seeds.pictures),
    "drawn-picture": (read_drawn_picture, seeds.pictures),
    "tar": (read_tar, seeds.tars),
}
"""Name -> what reads a file of these bytes in a folder, and what gives valid files."""
