"""Data sets: where trials and images come from, one row each, with the facts that a test recomputes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np

from neurocanvas.config import DataSettings, load_settings
from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.findings import finding

if TYPE_CHECKING:
    from neurocanvas.data.trials import Trials


@dataclass(frozen=True)
class Dataset:
    """A row of `DATASETS`: the function that opens it ("module:function"), and its declared facts."""

    open: str  # function(root: Path, settings: DataSettings) -> Trials, which reads no signal
    # facts, which a test recomputes; None where the files decide
    n_subjects: int | None = None
    n_chans: int | None = None
    sfreq: float | None = None  # Hz
    n_trials: int | None = None
    n_images: int | None = None
    n_concepts: int | None = None
    licence: str = ""
    reference: str = ""
    url: str = ""


DATASETS: Mapping[str, Dataset] = {
    "eeg-imagenet": Dataset(
        "neurocanvas.data.eeg_imagenet:open_eeg_imagenet",
        n_subjects=16,
        n_chans=62,
        sfreq=1000.0,
        n_images=4000,
        n_concepts=80,
        licence="not stated; images under ImageNet's terms",
        reference="Zhu et al. 2024, EEG-ImageNet: An Electroencephalogram Dataset and Benchmarks with Image Visual "
        "Stimuli of Multi-Granularity Labels",
        url="https://github.com/Promise-Z5Q2SQ/EEG-ImageNet-Dataset",
    ),
    "recordings": Dataset("neurocanvas.data.recordings:open_recordings"),
    "arrays": Dataset("neurocanvas.data.arrays:open_arrays"),
    "simulated": Dataset("neurocanvas.simulation.dataset:open_simulated", n_chans=62, sfreq=1000.0, licence="MIT"),
}


def open_dataset(name: str, root: Path | str, **options: Any) -> Trials:
    """Open a data set; reads no signal.

    Parameters
    ----------
    name : str
        A key of `DATASETS`.
    root : path-like
        Its folder.
    **options : object
        Fields of `DataSettings`: ``subjects=["0"]``, ``granularity="coarse"``, ``unit="uV"``, ``pictures=folder``,
        ``recording={...}``.

    Returns
    -------
    Trials
        With the images in `Trials.images`.

    Raises
    ------
    NeuroCanvasError
        If the name is not one of `DATASETS`, an option is unknown, or as the data set's own opener says.

    Examples
    --------
    >>> import neurocanvas as nc
    >>> trials = nc.open_dataset("eeg-imagenet", "data", subjects=["0"])  # doctest: +SKIP
    """
    check_option("data set", name, DATASETS)
    return open_trials(load_settings(None, data={"name": name, "root": str(root), **options}).data)


def open_trials(settings: DataSettings) -> Trials:
    """Open the data set that settings name."""
    trials: Trials = resolve_name(DATASETS[settings.name].open)(Path(settings.root), settings)
    images = trials.images
    if settings.on_missing == "error" or images is None or not images.files:
        return trials
    shown = trials.column("image")
    there = np.isin(shown, [name for name in images.ids if (path := images.files.get(name)) and path.is_file()])
    if not there.any():
        raise NeuroCanvasError(f"{settings.root}: none of the {len(images.ids)} images is there; see data.pictures.")
    if there.all():
        return trials
    found = finding("missing-images", trials=int((~there).sum()), images=len(set(shown[~there])))
    kept = replace(images, ids=tuple(name for name in images.ids if name in set(shown[there])))
    return replace(trials[there], images=kept, findings=(*trials.findings, found))
