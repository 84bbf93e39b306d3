"""The stage controls: what else than the brain's response to pictures could explain the accuracy."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.datasets.splits import groups, make_splits
from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.evaluation.control_inputs import ControlInputs
from neurocanvas.evaluation.control_table import over_subjects
from neurocanvas.evaluation.controls import CONTROLS, overall_verdict, run_controls
from neurocanvas.features.entropy import cut_window, extract
from neurocanvas.models import TargetBasis
from neurocanvas.stages.mapping import read_pooled_features
from neurocanvas.stages.run import Run, write_table
from neurocanvas.trials import Trials

BEFORE, WEAK = (-0.2, 0.0), (0.0, 0.04)
"""Windows in which the picture cannot have been seen: before onset; or, where trials begin there, at once after it."""

NULL_ARMS = ("shuffled", "mean", "random", "retrieval", "class-name")
"""Arms that generators draw without this trial's EEG, or with nothing of it but a name."""

SIDE = 16
"""Of pictures as low-level descriptors, px."""

COMPONENTS = 32
"""Principal coordinates of the concepts' mean embeddings."""


def controls(run: Run) -> list[Path]:
    """Compute the controls for every subject, under the protocol of the settings.

    Parameters
    ----------
    run : Run
        With features; embeddings, pictures and scores are used where they are there.

    Returns
    -------
    list of Path
        `scores/controls.json` and `controls.csv`.

    Raises
    ------
    NeuroCanvasError
        If features are missing, or a control is unknown.
    """
    settings = run.settings.controls
    names = [check_option("controls", name, CONTROLS) for name in settings.names] or list(CONTROLS)
    advance, rows = run.track("controls", len(run.subjects)), {}
    for subject in run.subjects:
        rows[subject] = run_controls(_inputs(run, subject), names, seed=settings.seed)
        advance(1)
    table = over_subjects(rows, rng=np.random.default_rng(settings.seed))
    verdict = overall_verdict(table)
    folder = run.folder / "scores"
    store.write_json(folder / "controls.json", {
        "made_from": run.settings.of_trials, "verdict": verdict, "protocol": run.settings.split.protocol,
        "rows": [{**row, "asks": CONTROLS[row["control"]].asks} for row in table],
        "subjects": {str(subject): own for subject, own in rows.items()},
    })  # fmt: skip
    columns = ("control", "effect", "low", "high", "p", "p_holm", "fired", "verdict")
    write_table(folder / "controls.csv", {
        "subject": np.array([str(subject) for subject, own in rows.items() for _ in own]),
        **{name: np.array([row[name] for own in rows.values() for row in own], dtype=object) for name in columns},
    })  # fmt: skip
    return [folder / "controls.json", folder / "controls.csv"]


def _inputs(run: Run, subject: int) -> ControlInputs:
    """What the controls need of one subject."""
    pool, (values, _) = run.pool(subject), read_pooled_features(run, subject)
    splits = [split.joined() for split in make_splits(pool, run.settings.split, subject)]
    window = run.settings.features.model_copy(update=dict(zip(("tmin", "tmax"), _baseline(pool), strict=True)))
    return ControlInputs(
        features=values, concept=pool.column("concept"), stimulus=pool.column("stimulus"),
        block=pool.column("block"), run=pool.column("run"), session=groups(pool, "subject", "session"),
        order=pool.column("order"),
        splits=[(np.sort(np.concatenate([split.train, split.val])), split.test) for split in splits],
        baseline=extract(pool, window), signal=cut_window(pool.signal(), pool, run.settings.features),
        embeddings=_concept_embeddings(run, pool), low_level=_low_level(run, pool),
        **_arm_scores(run, subject),
        permutations=run.settings.controls.permutations, repeats=run.settings.controls.repeats,
    )  # fmt: skip


def _baseline(trials: Trials) -> tuple[float, float]:
    """The window before the picture could have been seen."""
    return BEFORE if trials.tmin <= BEFORE[0] / 2 else WEAK


def _concept_embeddings(run: Run, trials: Trials) -> np.ndarray | None:
    """Mean embedding of every trial's concept, in a few coordinates; None before `embed`."""
    if not run.embeddings_path.is_file():
        return None
    embeddings = run.embeddings()
    basis = TargetBasis.fit(embeddings, np.ones(len(embeddings), np.int64), COMPONENTS)
    concept = np.unique(trials.column("concept"), return_inverse=True)[1]
    own = basis.transform(embeddings)[run.stimulus_rows(trials)]
    means = np.stack([own[concept == one].mean(axis=0) for one in range(concept.max() + 1)])
    return np.asarray(means[concept])


def _low_level(run: Run, trials: Trials) -> np.ndarray | None:
    """Every trial's picture in a few pixels; None where a picture is missing."""
    try:
        small = np.stack([run.dataset[1].picture(name, size=SIDE) for name in run.stimuli])
    except NeuroCanvasError:
        return None
    return np.asarray(small.reshape(len(small), -1)[run.stimulus_rows(trials)] / 255)


def _arm_scores(run: Run, subject: int) -> dict[str, Any]:
    """Two-way identification of the subject's pictures in the arm eeg and in null arms, if they are scored."""
    path = run.folder / "scores" / "trials.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["subject"] == str(subject)]
    arms: Mapping[str, list[dict[str, str]]] = {
        arm: [row for row in rows if row["arm"] == arm] for arm in ("eeg", *NULL_ARMS)
    }
    scores = {arm: np.array([float(row["two_way"]) for row in own]) for arm, own in arms.items() if own}
    if "eeg" not in scores or len(scores) < 2:
        return {}
    return {"arms": scores, "arm_units": np.array([row["stimulus"] for row in arms["eeg"]])}
