"""EEG-ImageNet as Trials: the released files or a converted store, and which trials are asked for."""

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
    """Open a converted store or the released files, and the pictures beside them.

    Parameters
    ----------
    root : path-like
        The folder with what `convert` wrote; or with `EEG-ImageNet.pth`, or `EEG-ImageNet_1.pth` and/or `_2.pth`, and
        the `EEG-ImageNet_stage2.pth` of CrossPT-EEG beside them or alone.
    settings : DataSettings
        `subjects` (empty = all) and `granularity` (as `granularity_rows` has it) say which trials; `unit` what the
        file's numbers are; `pictures` names the folder of `imageNet_images/<wnid>/<image id>` (empty = `root`).

    Returns
    -------
    trials : Trials
        In µV, all 501 samples at 1000 Hz, the first at picture onset. Stage 2 is session 1 of the subject who came
        back (16 to 20 are `STAGE2_SUBJECTS`), its pass of 30 pictures of every concept run 0 and that of 20 run 1.
        `order` and `block` are counted in the subject's whole recording, before `granularity` selects; the files do
        not say where else runs begin, so `run` is 0.
    stimuli : Stimuli
        The pictures that these trials showed; a missing file is an error when it is asked for.

    Raises
    ------
    NeuroCanvasError
        If the folder or file is missing, truncated, not an EEG-ImageNet file or would run code; if a subject is
        unknown or in two files; if no trial has the granularity; if a trial is not (62, 501) or its label unknown;
        and, for nine trials of every file on opening and for the others when they are read, if signal is flat or not
        finite; if a file's unit is doubtful; if a converted store was made with another unit or from other files than
        those beside it.
    """
    folder = check_folder(root, f"{WHOLE}, or {' and '.join(HALVES)}, or a converted store")
    opener = open_converted if is_converted(folder) else open_released
    source = opener(folder, settings.unit)
    rows = _choose(source, settings)
    source.check_unit(rows)
    trials = Trials(source.table, CH_NAMES, SFREQ, 0.0, source.read, source.print_of_files).select(rows)
    return trials, Stimuli.from_folder(settings.pictures or root, trials.column("stimulus").tolist())


def fine_groups(concepts: np.ndarray, granularities: np.ndarray) -> dict[str, int]:
    """Number the groups of eight that the fine concepts form.

    Parameters
    ----------
    concepts, granularities : array of str, shape (n_trials,)
        Columns of a trial table.

    Returns
    -------
    dict of str to int
        Fine concept -> its group. Where all fine concepts are among the 40 released ones these are the released
        groups (dogs, fish, fruits, vehicles, instruments), also in copies that hold fewer concepts, so that fine1 is
        fish everywhere. Of other concepts every eight in the order of their wnids, where relatives are neighbours.
    """
    fine = np.unique(concepts[granularities == "fine"]).tolist()
    released = list(IMAGENET_CONCEPTS)[:N_FINE]
    order = released if set(fine) <= set(released) else fine
    return {concept: order.index(concept) // FINE_GROUP for concept in fine}


def granularity_rows(concepts: np.ndarray, granularities: np.ndarray, granularity: str) -> np.ndarray:
    """Tell which trials a granularity has.

    Parameters
    ----------
    concepts, granularities : array of str, shape (n_trials,)
        Columns of a trial table.
    granularity : str
        "coarse", "fine0" to "fine4" (`fine_groups`), or "all".

    Returns
    -------
    array of bool, shape (n_trials,)

    Examples
    --------
    >>> granularity_rows(np.array(["n02099601", "n01443537"]), np.array(["fine", "fine"]), "fine1").tolist()
    [False, True]
    """
    if granularity in ("all", "coarse"):
        return (granularities == granularity) | (granularity == "all")
    group = int(granularity.removeprefix("fine"))
    chosen = [concept for concept, number in fine_groups(concepts, granularities).items() if number == group]
    return (granularities == "fine") & np.isin(concepts, chosen)


def _choose(source: Source, settings: DataSettings) -> np.ndarray:
    """Rows of the subjects and the granularity that are asked for."""
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
    """What to do about a subject who is not there, where that is known."""
    if subject in STAGE2_SUBJECTS:
        return f"; {subject} in {STAGE2} is session 1 of subject {STAGE2_SUBJECTS[subject]}"
    half = HALVES[subject >= 8]
    if path.name in (*HALVES, STAGE2) and 0 <= subject < 16 and not (path.parent / half).is_file():
        return f"; {half} holds {'8-15' if subject >= 8 else '0-7'}, put it beside"
    return ""
