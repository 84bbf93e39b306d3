"""Every reader of a file that a user may bring, with valid files: for tests/properties and tools/fuzz.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import fuzz_readers as readers
import fuzz_seeds as seeds
import numpy as np
from fuzz_readers import Violation, need, put, texts

from neurocanvas.errors import NeuroCanvasError

PLAIN = (
    np.ndarray, np.generic, dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, complex, type(None),
)  # fmt: skip
Reader = Callable[[Path, bytes], None]


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


def read_array_file(folder: Path, content: bytes) -> None:
    """Arrays in a file of somebody else; what comes of it is as plain as it is said to be."""
    from neurocanvas.array_files import read_arrays

    left = [read_arrays(put(folder / "arrays.npy", content), "arrays")]
    while left:
        one = left.pop()
        need(isinstance(one, PLAIN), f"arrays and plain values; got {type(one)}")
        if isinstance(one, dict | list | tuple | set | frozenset):
            left += [*one, *one.values()] if isinstance(one, dict) else one


def read_store_card(folder: Path, content: bytes) -> None:
    """A card of the store."""
    from neurocanvas.store import card_path, is_done, read_card

    path = put(folder / "s0.npy", b"data")
    put(card_path(path), content)
    need(isinstance(is_done(path, "print"), bool), "done or not")
    need(isinstance(read_card(path), dict), "a card is a mapping")


def read_growing(folder: Path, content: bytes) -> None:
    """The state of an array that a killed run left half written."""
    from neurocanvas.large_arrays import growing_array
    from neurocanvas.store import card_path

    path = folder / "grown.npy"
    growing = path.with_name(f".growing-{path.name}")
    put(growing, seeds.npy(np.zeros((4, 3), np.float16)))
    put(card_path(growing), content)
    with growing_array(path, (4, 3), "print", [[0], [1], [2], [3]]) as (array, done, _):
        need(array.shape == (4, 3) and isinstance(done, int) and 0 <= done <= 4, f"done {done} of 4")


def read_features(folder: Path, content: bytes) -> None:
    """A feature file of the released code."""
    from neurocanvas.features.released_files import read_released

    found = read_released(put(folder / "0_all_de.npy", content), 2)
    need(found.shape[1:] == (2, 5) and found.dtype == np.float64 and bool(np.isfinite(found).all()), "features")


def read_manifest(folder: Path, content: bytes) -> None:
    """manifest.jsonl, as the audit reads it."""
    from neurocanvas.stages.records import drawn_stimuli

    put(folder / "images" / "manifest.jsonl", content)
    need(all(isinstance(one, str) for one in drawn_stimuli(folder)), "stimuli are texts")


def read_summary(folder: Path, content: bytes) -> None:
    """scores/summary.json, as the audit reads it."""
    from neurocanvas.stages.records import read_summary, transductive_rules, two_way

    put(folder / "scores" / "summary.json", content)
    found = read_summary(folder)
    if found is not None:
        transductive_rules(found)
        two_way(folder, found, "eeg", model="m", selection="unknown")


def read_trial_table(folder: Path, content: bytes) -> None:
    """The trial table of a run folder."""
    from neurocanvas.stages.records import kept_tables

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
    "array-file": (read_array_file, seeds.array_files),
    "card": (read_store_card, lambda: [b'{"fingerprint": "print", "sha256": "0", "stimuli": ["a"]}']),
    "growing": (read_growing, lambda: [b'{"fingerprint": "print", "done": 2}']),
    "features": (read_features, seeds.arrays),
    "torch": (readers.read_plain_torch, lambda: [seeds.tensors()]),
    "torch-pickle": (readers.read_pickle, lambda: [seeds.pickle_of(seeds.tensors())]),
    "eeg-imagenet": (readers.read_eeg_imagenet, lambda: [seeds.released(), seeds.released(stage2=True)]),
    "eeg-imagenet-pickle": (
        readers.read_eeg_imagenet_pickle,
        lambda: [seeds.pickle_of(seeds.released()), seeds.pickle_of(seeds.released(stage2=True))],
    ),
    "converted-array": (readers.read_converted_array, seeds.converted_arrays),
    "converted-table": (readers.read_converted_table, readers.converted_tables),
    "converted-card": (readers.read_converted_card, lambda: [seeds.CONVERTED_CARD]),
    "embeddings": (readers.read_embeddings, lambda: [seeds.pickle_of(seeds.embeddings())]),
    "released-mapper": (readers.read_released_mapper, lambda: [seeds.pickle_of(seeds.released_mapper())]),
    "checkpoint": (readers.read_checkpoint, seeds.checkpoints),
    "checkpoint-head": (readers.read_checkpoint_head, seeds.checkpoint_heads),
    "checkpoint-card": (readers.read_checkpoint_card, seeds.checkpoint_cards),
    "network": (readers.read_network, seeds.networks),
    "lpips-heads": (readers.read_lpips_heads, lambda: [seeds.pickle_of(seeds.lpips_heads())]),
    "muse": (readers.read_muse, lambda: [seeds.muse()]),
    "edf": (readers.read_edf, lambda: [seeds.edf()]),
    "fif": (readers.read_fif, lambda: [seeds.fif()]),
    "brainvision": (readers.read_brainvision, seeds.brainvision),
    "brainvision-markers": (readers.read_markers, lambda: [seeds.beside_brainvision()["recording.vmrk"]]),
    "manifest": (read_manifest, lambda: [b'{"subject": 0, "trial": 1, "stimulus": "a.png", "file": "s0/a.png"}\n']),
    "summary": (read_summary, seeds.summaries),
    "trial-table": (read_trial_table, lambda: [seeds.trial_table()]),
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


def here() -> list[str]:
    """Targets whose optional packages are installed."""
    missing = {"audit-parquet"} if importlib.util.find_spec("pyarrow") is None else set()
    return [name for name in TARGETS if name not in missing]
