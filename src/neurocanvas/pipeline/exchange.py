"""The verbs export and import: files of the released EEG-ImageNet code, made from a run folder and taken into one."""

from __future__ import annotations

import copy
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.artifacts import atomic_write, read_torch, write_torch
from neurocanvas.config import ARCHITECTURES
from neurocanvas.data.eeg_imagenet import SPEC
from neurocanvas.data.montage import BANDS, CH_NAMES
from neurocanvas.decoder import Decoder, assemble, load_decoder
from neurocanvas.encoders.mlp import MLPSD
from neurocanvas.errors import NeuroCanvasError, check_file, check_folder, check_inside
from neurocanvas.findings import finding, listed
from neurocanvas.pipeline.run import RunFolder
from neurocanvas.pipeline.train import write_trials
from neurocanvas.targets.captions import read_captions, write_captions

if TYPE_CHECKING:
    import torch

SHAPE = (1, 77, 768)  # of an image's embedding in the released file
# Input and output of the released decoder: 62 channels, 5 bands, (77, 768).
TARGET_SHAPE = SHAPE[1:]
N_FEATURES, N_OUTPUTS = len(CH_NAMES) * len(BANDS), math.prod(TARGET_SHAPE)

ROWS_AT_ONCE = 4096
SMALLEST_SHARE = 1e-12  # of the largest squared length: what is below is rounding
NORMS = ("weight", "bias", "running_mean", "running_var")

# Where `import_files` looks, below the folder it is given: the released code's own layout.
FOLDERS = (".", "output", "de_feat", "data/de_feat")

# Names of the files that `import_files` takes.
KNOWN = re.compile(r"caption\.txt|clip_embeddings\.pth|\d+_\w+_de\.npy|mlpsd_s\d+_\d+\.pth|mlp_sd_s\d+_model\.pth")

# Folder of a run where imported files wait until all of them are good; what a killed call left there is deleted.
STAGED = ".part-import"


def read_released(path: Path | str, n_chans: int = 62) -> np.ndarray:
    """Read a released feature file, band-major (n_trials, n_bands·n_chans), as (n_trials, n_chans, n_bands) float64."""
    path, n_bands = check_file(path, "released features"), len(BANDS)
    try:
        columns = np.lib.format.open_memmap(path, mode="r")  # never unpickles
    except Exception as error:  # NumPy's header parser raises much more than ValueError
        raise NeuroCanvasError(
            f"{path}: allowed is an undamaged .npy array of numbers; this one is truncated, pickled or something else. "
            "Copy or make it again."
        ) from error
    if columns.ndim != 2 or columns.shape[1] != n_bands * n_chans:
        raise NeuroCanvasError(
            f"{path}: allowed is the shape (n_trials, {n_bands * n_chans}), {n_bands} bands of {n_chans} channels; "
            f"got {columns.shape}. Say how many channels it has, or make it again."
        )
    if columns.dtype.kind not in "iuf":
        raise NeuroCanvasError(f"{path}: allowed are real numbers; got the type {columns.dtype}. Make it again.")
    bad = ~np.isfinite(columns).all(axis=1)
    if bad.any():
        raise NeuroCanvasError(
            f"{path}: allowed are finite numbers; {bad.sum()} of {len(columns)} trials hold others, the first is "
            f"trial {bad.argmax()}. Leave them out or make the features again."
        )
    return columns.reshape(len(columns), n_bands, n_chans).transpose(0, 2, 1).astype(np.float64, order="C")


def write_released(path: Path | str, features: np.ndarray) -> None:
    """Write (n_trials, n_chans, n_bands) atomically; channel c of band b is column b·n_chans + c."""
    columns = features.transpose(0, 2, 1).reshape(len(features), features.shape[1] * features.shape[2])
    with atomic_write(Path(path)) as temporary, temporary.open("wb") as stream:
        np.save(stream, columns.astype(np.float64), allow_pickle=False)


def write_released_embeddings(path: Path, stimuli: Sequence[str], embeddings: np.ndarray) -> None:
    """Write embeddings, (n_stimuli, 77, 768), as the released code reads them."""
    import torch

    rows = zip(stimuli, embeddings, strict=True)
    write_torch(path, {name: torch.from_numpy(np.array(row, np.float32).reshape(SHAPE)) for name, row in rows})


def read_released_embeddings(path: Path | str, stimuli: Sequence[str], out: np.ndarray) -> None:
    """Read the embeddings of some images into `out`, (n_stimuli, 77, 768), which may be memory-mapped."""
    import torch

    content = read_torch(path, "CLIP embeddings by image name")
    for row, name in enumerate(stimuli):
        tensor = content.get(name) if isinstance(content, dict) else None
        if not isinstance(tensor, torch.Tensor) or tensor.numel() != out[row].size or tensor.shape[-2:] != SHAPE[1:]:
            came = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else "none"
            raise NeuroCanvasError(
                f"{path}: {name} should have an embedding of shape {SHAPE}; got {came}. Choose the data that the file "
                "was made for, or run `neurocanvas embed`."
            )
        out[row] = tensor.detach().float().numpy().reshape(SHAPE[1:])
        if not np.isfinite(out[row]).all():
            raise NeuroCanvasError(f"{path}: the embedding of {name} is not finite; make the file again.")


def read_released_mapper(path: Path | str, family: str = "sd14") -> Decoder:
    """Read a decoder that the released code trained; it takes *released* features, (n, 62, 5), not standardised."""
    # The axes span the last layer's columns: predictions are the released module's up to rounding. `target_sd` is
    # unknown and 0.
    import torch

    (hidden, activation), content = ARCHITECTURES["released"], read_torch(path, "the released decoder's state dict")
    wide, narrow = hidden
    shapes = {
        "fc1.weight": (wide, N_FEATURES), "fc1.bias": (wide,), "fc2.weight": (narrow, wide), "fc2.bias": (narrow,),
        "fc3.weight": (N_OUTPUTS, narrow), "fc3.bias": (N_OUTPUTS,),
    }  # fmt: skip
    shapes |= {f"bn{number}.{name}": (width,) for number, width in ((1, wide), (2, narrow)) for name in NORMS}
    state = {}
    for name, shape in shapes.items():
        tensor = content.get(name) if isinstance(content, dict) else None
        if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape:
            came = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else "none"
            raise NeuroCanvasError(
                f"{path}: not the released decoder: {name} should have shape {shape}; got {came}. Such files are made "
                "by `image_generation.py` or `neurocanvas export`."
            )
        state[name] = tensor.detach().float().resolve_neg()
        if not torch.isfinite(state[name]).all():
            raise NeuroCanvasError(f"{path}: {name} holds NaN or infinite values; train again.")
    axes, last = _factors(state["fc3.weight"])
    first = state["fc1.weight"].reshape(-1, len(BANDS), len(CH_NAMES)).transpose(1, 2).reshape(-1, N_FEATURES)
    layers = {"1.weight": first, "1.bias": state["fc1.bias"], "5.weight": state["fc2.weight"]}
    layers |= {"5.bias": state["fc2.bias"], "9.weight": last, "9.bias": torch.zeros(len(axes))}
    for number, layer in ((1, 2), (2, 6)):
        layers |= {f"{layer}.{name}": state[f"bn{number}.{name}"] for name in NORMS}
        layers[f"{layer}.num_batches_tracked"] = torch.tensor(0)
    sidecar = {
        "encoder": "mlp_sd", "class": "MLPSD", "module": True, "spec": asdict(SPEC), "classes": None, "chosen": None,
        "space": {"name": "clip-text", "shape": TARGET_SHAPE, "network": family, "layer": "last hidden state"},
        "parameters": {
            "target": f"clip-text@{family}", "features": "eeg-imagenet", "encoder__hidden": hidden,
            "encoder__activation": activation, "contrastive": 0.0,
        },
        "unit": 1.0, "findings": [],
    }  # fmt: skip
    unknown, shape = np.zeros(len(axes), np.float32), (len(CH_NAMES), len(BANDS))
    return assemble(sidecar, {
        "input_mean": np.zeros(shape, np.float32), "input_sd": np.ones(shape, np.float32),
        "target_mean": state["fc3.bias"].numpy().reshape(TARGET_SHAPE), "target_axes": axes.numpy(),
        "target_sd": unknown, "prediction_sd": unknown,
        **{f"module.{name}": tensor.numpy() for name, tensor in layers.items()},
    })  # fmt: skip


def write_released_mapper(decoder: Decoder, path: Path) -> None:
    """Write a decoder as the released code saves its own: 490 MB, standardisation and basis folded in, band-major."""
    import torch

    released, network = ARCHITECTURES["released"], decoder.encoder_
    fits = isinstance(network, MLPSD) and (network.hidden, network.activation) == released
    if not fits or decoder.posterior_ is not None or decoder.matched_ is not None:
        raise NeuroCanvasError(
            f"{path.name}: the released module has hidden layers {released[0]} with ReLU and squared error "
            "alone; train mlp_sd with --recipe released."
        )
    spec = decoder.input_spec
    if spec.ch_names != CH_NAMES or spec.bands != tuple(BANDS):
        raise NeuroCanvasError(
            f"{path.name}: the released module reads {len(CH_NAMES)} channels and {len(BANDS)} bands of EEG-ImageNet; "
            f"this decoder reads {len(spec.ch_names)} and {len(spec.bands)}, or in another order."
        )
    state: dict[str, torch.Tensor] = {}
    folded = fold(decoder)
    for kind, prefix in ((torch.nn.Linear, "fc"), (torch.nn.BatchNorm1d, "bn")):
        for number, layer in enumerate((layer for layer in folded if isinstance(layer, kind)), 1):
            state |= {f"{prefix}{number}.{name}": tensor for name, tensor in layer.state_dict().items()}
    first = state["fc1.weight"].reshape(-1, len(CH_NAMES), len(BANDS)).transpose(1, 2)
    write_torch(path, {**state, "fc1.weight": first.reshape(-1, N_FEATURES)})


def fold(decoder: Decoder) -> torch.nn.Sequential:
    """Fold standardisation and basis of an mlp_sd into its outer layers: raw (n, n_features) -> whole targets."""
    # Equals `predict` up to rounding. The last layer has 59,136 x width weights, which is why training avoids it.
    import torch

    basis, layers = decoder.basis_, list(copy.deepcopy(decoder.encoder_.eval()))
    size = len(decoder.input_spec.ch_names), len(decoder.input_spec.bands)
    sd, mean = (torch.from_numpy(np.broadcast_to(one, size).flatten()) for one in (decoder.sd_, decoder.mean_))
    axes = torch.from_numpy(basis.axes / basis.scale)
    with torch.no_grad():
        first, last = layers[1], layers[-1]
        first.weight /= sd
        first.bias -= first.weight @ mean
        outer = torch.nn.utils.skip_init(torch.nn.Linear, last.in_features, basis.mean.size)
        outer.weight.copy_(axes.T @ last.weight)
        outer.bias.copy_(axes.T @ last.bias + torch.from_numpy(basis.mean.reshape(-1)))
    return torch.nn.Sequential(*layers[:-1], outer, torch.nn.Unflatten(1, basis.mean.shape)).eval()


def _factors(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal rows (k, n_outputs) and a matrix (k, width) with weight = rows.T @ matrix, largest part first."""
    import torch

    # Through the Gram matrix: unlike a QR decomposition, it leaves small numbers of a large matrix exact.
    parts = (part.double() for part in weight.split(ROWS_AT_ONCE))
    size, vectors = torch.linalg.eigh(sum(part.T @ part for part in parts))
    keep = size.flip(0) > SMALLEST_SHARE * size[-1]
    length, vectors = size.flip(0)[keep].sqrt(), vectors.flip(1)[:, keep]
    return (vectors / length).float().T @ weight.T, (vectors * length).float().T


def export(run: RunFolder, folder: Path, *, tell: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Write what a run folder holds as the files that the released code reads."""
    written: list[Path] = []
    output, captions = folder / "output", run.folder / "targets" / "caption.txt"
    for subject in run.opened:
        if run.path("features", subject).is_file():
            written.append(folder / "de_feat" / f"{subject}_{run.settings.data.granularity}_de.npy")
            write_released(written[-1], artifacts.read_array(run.path("features", subject), "features"))
    if captions.is_file():
        written.append(output / "caption.txt")
        write_captions(written[-1], read_captions(captions))
    embeddings = run.path("embeddings", "clip-text")
    if embeddings.is_file():
        written.append(output / "clip_embeddings.pth")
        # all of them, as with the captions: the run may be open for some of its subjects only, who saw fewer images
        stimuli = artifacts.read_sidecar(embeddings).get("stimuli", run.stimuli)
        write_released_embeddings(written[-1], stimuli, artifacts.read_array(embeddings, "CLIP embeddings"))
    for subject in run.subjects:
        number = 0
        while (model := run.path("decoder", subject, number)).is_file():
            path, decoder = output / f"mlpsd_s{subject}_{number}.pth", load_decoder(model)
            try:
                write_released_mapper(decoder, path)
                written.append(path)
            except NeuroCanvasError as error:
                tell(f"left out {error}")
            number += 1
    if not written:
        raise NeuroCanvasError(f"{run.folder}: holds nothing to export yet; run `neurocanvas features` first.")
    return written


def import_files(run: RunFolder, folder: Path) -> list[Path]:
    """Take files of the released code into a run folder, as artifacts whose sidecars say where they come from."""
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
            for target in (path, artifacts.sidecar_path(path)):
                os.replace(staged / target.relative_to(run.folder), target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    for subject in run.opened:
        if run.path("features", subject) in taken:
            write_trials(run, subject)
    return taken


def _take(run: RunFolder, files: Mapping[str, Path], staged: Path) -> list[Path]:
    """Check all of the files and write what is new below `staged`; return where in the run all of them belong."""
    taken: list[Path] = []

    def begin(path: Path, file: Path, *inputs: Any) -> tuple[Path, str, dict[str, Any]]:
        """Where an artifact waits, its cache key, and what its sidecar says of its origin."""
        taken.append(path)
        key = artifacts.fingerprint("import", artifacts.sha256(file))
        key = artifacts.fingerprint(key, *inputs) if inputs else key
        return staged / path.relative_to(run.folder), key, {"imported": True, "from": file.name}

    granularity = run.settings.data.granularity
    if file := files.get("caption.txt"):
        waiting, key, sidecar = begin(run.folder / "targets" / "caption.txt", file)
        write_captions(waiting, read_captions(file, run.stimuli, "choose its data set"))
        hashes = {name: run.images.file_hash(name) for name in run.stimuli}
        artifacts.write_sidecar(waiting, key, {**sidecar, "images": hashes})
    if file := files.get("clip_embeddings.pth"):  # in half precision, as `embed` writes them
        waiting, key, sidecar = begin(run.path("embeddings", "clip-text"), file, run.stimuli)
        embeddings = np.empty((len(run.stimuli), *TARGET_SHAPE), np.float16)
        read_released_embeddings(file, run.stimuli, embeddings)
        artifacts.write_array(waiting, embeddings, key, {"stimuli": run.stimuli, **sidecar})
    for subject, trials in run.opened.items():
        if file := files.get(f"{subject}_{granularity}_de.npy"):
            waiting, key, sidecar = begin(run.path("features", subject), file)
            values = read_released(file, len(trials.spec.ch_names))
            if len(values) != len(trials):
                raise NeuroCanvasError(
                    f"{file}: features of {len(values)} trials, but subject {subject} has {len(trials)} of granularity "
                    f"{granularity}; import it into a run of the data it was made for."
                )
            names = {"ch_names": list(trials.spec.ch_names), "bands": list(BANDS)}
            sidecar = {"method": "imported", **names, "unit": "as in the file", **sidecar}
            artifacts.write_array(waiting, values.astype(np.float32), key, sidecar)
    for subject in run.subjects:
        for name, file in files.items():
            if named := re.fullmatch(rf"mlpsd_s{subject}_(\d+)\.pth|mlp_sd_s{subject}_model\.pth", name):
                if run.settings.encoder.name != "mlp_sd":
                    raise NeuroCanvasError(
                        f"{file}: is an mlp_sd, but the run's encoder.name is {run.settings.encoder.name!r}."
                    )
                features = run.path("features", subject)
                method = (
                    artifacts.read_sidecar(features)["method"] if features.is_file() else run.settings.features.method
                )
                if features not in taken and method == "gaussian":
                    raise NeuroCanvasError(
                        f"{file}: the released decoder reads the released features, and the run's are 'gaussian'; "
                        "import the feature file with it, or make them by `neurocanvas features --method eeg-imagenet`."
                    )
                waiting, key, sidecar = begin(run.path("decoder", subject, int(named[1] or 0)), file)
                read_released_mapper(file, run.settings.family).save(waiting)
                artifacts.write_sidecar(waiting, key, {**sidecar, "findings": listed([finding("imported-unknown")])})
    return taken
