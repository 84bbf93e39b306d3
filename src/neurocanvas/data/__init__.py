"""Sources of trials and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from neurocanvas.config import DataSettings
from neurocanvas.data.eeg_imagenet import open_eeg_imagenet
from neurocanvas.data.images import Stimuli
from neurocanvas.data.recordings import open_recordings
from neurocanvas.data.trials import Trials
from neurocanvas.errors import check_option

# Name of a data set -> what opens it.
DATASETS: Mapping[str, Callable[[Path | str, DataSettings], tuple[Trials, Stimuli]]] = MappingProxyType(
    {"eeg-imagenet": open_eeg_imagenet, "recordings": open_recordings}
)


def open_dataset(settings: DataSettings) -> tuple[Trials, Stimuli]:
    """Open the data set that the settings name.

    Parameters
    ----------
    settings : DataSettings
        Name, folder and which trials.

    Returns
    -------
    trials : Trials
    stimuli : Stimuli

    Raises
    ------
    NeuroCanvasError
        If the name is not one of `DATASETS`, or as the data set's own opener says.
    """
    return DATASETS[check_option("data set", settings.name, DATASETS)](Path(settings.root), settings)
