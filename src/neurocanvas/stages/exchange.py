"""The verbs export and import: files of the released EEG-ImageNet code, made from a run folder and taken into one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from neurocanvas import store
from neurocanvas.errors import NeuroCanvasError, check_folder, check_inside
from neurocanvas.features.released_files import read_released, write_released
from neurocanvas.models.base import TARGET_SHAPE
from neurocanvas.models.checkpoint import load_mapper, save_mapper
from neurocanvas.models.released_files import read_released_mapper, write_released_mapper
from neurocanvas.montage import BANDS
from neurocanvas.stages.mapping import write_trials
from neurocanvas.stages.run import Run
from neurocanvas.targets.captions import read_captions, read_captions_of, write_captions
from neurocanvas.targets.released_files import read_released_embeddings, write_released_embeddings

# Where `import_files` looks, below the folder it is given: the released code's own layout.
FOLDERS = (".", "output", "de_feat", "data/de_feat")

# Names of the files that `import_files` takes.
KNOWN = re.compile(r"caption\.txt|clip_embeddings\.pth|\d+_\w+_de\.npy|mlpsd_s\d+_\d+\.pth|mlp_sd_s\d+_model\.pth")

# Folder of a run where imported files wait until all of them are good; what a killed call left there is deleted.
STAGED = ".part-import"

UNKNOWN_TRAINING = (
    "A mapper was imported, and its file does not say which trials trained it. The released code trains on the first "
    "30 of every 50 pictures and keeps the epoch that is best on the other 20: scores of any of them are too high."
)


def export(run: Run, folder: Path, *, tell: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Write what a run folder holds as the files that the released code reads."""
    written: list[Path] = []
    output, captions = folder / "output", run.folder / "targets" / "caption.txt"
    for subject in run.opened:
        if run.features_path(subject).is_file():
            written.append(folder / "de_feat" / f"{subject}_{run.settings.data.granularity}_de.npy")
            write_released(written[-1], store.read_array(run.features_path(subject), "features"))
    if captions.is_file():
        written.append(output / "caption.txt")
        write_captions(written[-1], read_captions(captions))
    embeddings = run.folder / "targets" / "clip_embeddings.npy"
    if embeddings.is_file():
        written.append(output / "clip_embeddings.pth")
        # all that there are, as of the captions: the run may be opened for some of its subjects, who saw fewer pictures
        stimuli = store.read_card(embeddings).get("stimuli", run.stimuli)
        write_released_embeddings(written[-1], stimuli, store.read_array(embeddings, "CLIP embeddings"))
    for subject in run.subjects:
        fold = 0
        while (model := run.model_path(subject, fold)).is_file():
            path, mapper = output / f"mlpsd_s{subject}_{fold}.pth", load_mapper(model)
            try:
                write_released_mapper(mapper, path)
                written.append(path)
            except NeuroCanvasError as error:
                tell(f"left out {error}")
            fold += 1
    if not written:
        raise NeuroCanvasError(f"{run.folder}: holds nothing to export yet; run `neurocanvas features` first.")
    return written


def import_files(run: Run, folder: Path) -> list[Path]:
    """Take files of the released code into a run folder, as artifacts whose cards say where they come from."""
    check_folder(folder, "files of the released code")
    files = {
        path.name: check_inside(folder, path.relative_to(folder).as_posix(), "import")
        for name in FOLDERS for path in sorted((folder / name).glob("*"))
        if KNOWN.fullmatch(path.name) and path.is_file()
    }  # fmt: skip
    staged = run.folder / STAGED
    if staged.is_symlink():
        staged.unlink()  # else files would be written to where it leads
    shutil.rmtree(staged, ignore_errors=True)
    try:
        taken = _take(run, files, staged)
        if not taken:
            raise NeuroCanvasError(
                f"{folder}: none of caption.txt, clip_embeddings.pth, <subject>_{run.settings.data.granularity}_de.npy "
                f"and mlpsd_s<subject>_0.pth of subjects {', '.join(map(str, run.opened))} in it."
            )
        for path in taken:
            path.parent.mkdir(parents=True, exist_ok=True)
            for one in (path, store.card_path(path)):
                if (waiting := staged / one.relative_to(run.folder)).is_file():  # else it was taken before
                    os.replace(waiting, one)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    for subject in run.opened:
        if run.features_path(subject) in taken:
            write_trials(run, subject)
    return taken


def _take(run: Run, files: Mapping[str, Path], staged: Path) -> list[Path]:
    """Check all of the files and write what is new below `staged`; return where in the run all of them belong."""
    taken: list[Path] = []

    def place(path: Path) -> Path:
        """Note where an artifact belongs, and say where it waits."""
        taken.append(path)
        return staged / path.relative_to(run.folder)

    if file := files.get("caption.txt"):
        _take_captions(run, file, place(run.folder / "targets" / "caption.txt"))
    if file := files.get("clip_embeddings.pth"):
        _take_embeddings(run, file, place(run.folder / "targets" / "clip_embeddings.npy"))
    for subject in run.opened:
        if file := files.get(f"{subject}_{run.settings.data.granularity}_de.npy"):
            _take_features(run, file, subject, place(run.features_path(subject)))
    for subject in run.subjects:
        for name, file in files.items():
            named = re.fullmatch(rf"mlpsd_s{subject}_(\d+)\.pth|mlp_sd_s{subject}_model\.pth", name)
            if named:
                _check_reader(run, file, subject, run.features_path(subject) in taken)
                path = run.model_path(subject, int(named[1] or 0))
                waiting, inputs = place(path), _inputs(file)
                if not store.is_done(path, inputs):
                    card = {**_card(file), "warnings": [UNKNOWN_TRAINING]}
                    save_mapper(read_released_mapper(file), waiting, inputs, card)
    return taken


def _card(file: Path) -> dict[str, object]:
    """What the card of an imported artifact says of its origin."""
    return {"imported": True, "from": file.name}


def _inputs(file: Path) -> str:
    """Fingerprint of an imported artifact."""
    return store.fingerprint("import", store.sha256(file))


def _take_captions(run: Run, file: Path, path: Path) -> None:
    """Write the captions of caption.txt."""
    captions = read_captions_of(file, run.stimuli, "choose its data set")
    write_captions(path, captions)
    store.finish(path, _inputs(file), _card(file))


def _take_embeddings(run: Run, file: Path, path: Path) -> None:
    """Write the embeddings of clip_embeddings.pth, in half precision as `embed` writes them."""
    inputs = store.fingerprint(_inputs(file), run.stimuli)
    card = {"stimuli": run.stimuli, **_card(file)}
    if not store.is_done(path, inputs):
        embeddings = np.empty((len(run.stimuli), *TARGET_SHAPE), np.float16)
        read_released_embeddings(file, run.stimuli, embeddings)
        store.write_array(path, embeddings, inputs, card)


def _take_features(run: Run, file: Path, subject: int, path: Path) -> None:
    """Write the features of a feature file."""
    trials = run.opened[subject]
    values = read_released(file, len(trials.ch_names))
    if len(values) != len(trials):
        raise NeuroCanvasError(
            f"{file}: features of {len(values)} trials, but subject {subject} has {len(trials)} of granularity "
            f"{run.settings.data.granularity}; import it into a run of the data it was made for."
        )
    card = {"method": "imported", "ch_names": list(trials.ch_names), "bands": list(BANDS), "unit": "as in the file"}
    store.write_array(path, values.astype(np.float32), _inputs(file), {**card, **_card(file)})


def _check_reader(run: Run, file: Path, subject: int, features_come_along: bool) -> None:
    """Raise if the run's mapper or its features are not those that a released mapper is made of."""
    features = run.features_path(subject)
    if run.settings.mapper.name != "mlp_sd":
        raise NeuroCanvasError(f"{file}: is an mlp_sd, but the run's mapper.name is {run.settings.mapper.name!r}.")
    if features_come_along:
        return
    method = store.read_card(features)["method"] if features.is_file() else run.settings.features.method
    if method == "gaussian":
        raise NeuroCanvasError(
            f"{file}: the released mapper reads the released features, and the run's are 'gaussian'; import the "
            "feature file with it, or make them by `neurocanvas features --method eeg-imagenet`."
        )
