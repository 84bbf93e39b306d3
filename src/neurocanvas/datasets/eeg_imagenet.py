"""EEG-ImageNet as Trials: the released files or a converted store, by subject and granularity."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neurocanvas.config import STAGE2_SUBJECTS, DataSettings
from neurocanvas.datasets.converted import is_converted, open_converted
from neurocanvas.datasets.released import HALVES, SFREQ, STAGE2, WHOLE, Source, open_released
from neurocanvas.datasets.stimuli import FINE_GROUP, IMAGENET_CONCEPTS, N_FINE, Stimuli
from neurocanvas.errors import NeuroCanvasError, check_folder
from neurocanvas.montage import CH_NAMES
from neurocanvas.trials import Trials


def open_eeg_imagenet(root: Path | str, settings: DataSettings) -> tuple[Trials, Stimuli]:
    """Open a converted store or the released files, and the pictures beside them."""
    # All 501 samples at 1000 Hz, the first at picture onset. `order` and `block` count in the subject's whole
    # recording, before `granularity` selects. The files do not say where runs begin: `run` is 0 but in stage 2.
    folder = check_folder(root, f"{WHOLE}, or {' and '.join(HALVES)}, or a converted store")
    opener = open_converted if is_converted(folder) else open_released
    source = opener(folder, settings.unit)
    rows = _choose(source, settings)
    source.check_unit(rows)
    trials = Trials(source.table, CH_NAMES, SFREQ, 0.0, source.read, source.print_of_files).select(rows)
    return trials, Stimuli.from_folder(settings.pictures or root, trials.column("stimulus").tolist())


def fine_groups(concepts: np.ndarray, granularities: np.ndarray) -> dict[str, int]:
    """Fine concept -> the number of its group of eight."""
    # Copies with fewer concepts get the released groups too, so that fine1 is fish everywhere. Other concepts are
    # grouped by eights in the order of their wnids, where relatives are neighbours.
    fine = np.unique(concepts[granularities == "fine"]).tolist()
    released = list(IMAGENET_CONCEPTS)[:N_FINE]
    order = released if set(fine) <= set(released) else fine
    return {concept: order.index(concept) // FINE_GROUP for concept in fine}


def granularity_rows(concepts: np.ndarray, granularities: np.ndarray, granularity: str) -> np.ndarray:
    """Which trials belong to "coarse", "fine0" to "fine4" or "all": bool, (n_trials,)."""
    if granularity in ("all", "coarse"):
        return (granularities == granularity) | (granularity == "all")
    group = int(granularity.removeprefix("fine"))
    chosen = [concept for concept, number in fine_groups(concepts, granularities).items() if number == group]
    return (granularities == "fine") & np.isin(concepts, chosen)


def _choose(source: Source, settings: DataSettings) -> np.ndarray:
    """Rows of the settings' subjects and granularity."""
    table = source.table
    present = np.unique(table["subject"]).tolist()
    unknown = [subject for subject in settings.subjects if subject not in present]
    if unknown:
        raise NeuroCanvasError(
            f"subject: {source.paths[0]} holds {', '.join(map(str, present))}; got {', '.join(map(str, unknown))}"
            f"{_where_it_is(unknown[0], source.paths[0])}."
        )
    kept = np.isin(table["subject"], settings.subjects or present)
    kept &= granularity_rows(table["concept"], table["granularity"], settings.granularity)
    if not kept.any():
        raise NeuroCanvasError(
            f"granularity: {source.paths[0]} holds no trial of {settings.granularity} for these subjects; "
            "choose another, or all."
        )
    return np.flatnonzero(kept)


def _where_it_is(subject: int, path: Path) -> str:
    """Hint for a missing subject: stage 2 renumbers subjects, and the released halves hold eight each."""
    if subject in STAGE2_SUBJECTS:
        return f"; {subject} in {STAGE2} is session 1 of subject {STAGE2_SUBJECTS[subject]}"
    half = HALVES[subject >= 8]
    if path.name in (*HALVES, STAGE2) and 0 <= subject < 16 and not (path.parent / half).is_file():
        return f"; {half} holds {'8-15' if subject >= 8 else '0-7'}, put it beside"
    return ""
