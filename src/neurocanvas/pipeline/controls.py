"""The verb controls: what other than the brain's response to images could explain the accuracy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.artifacts import read_csv, read_json
from neurocanvas.audit.controls.inputs import ControlInputs
from neurocanvas.audit.controls.registry import COLUMNS, CONTROLS, control_row, correct_for_many, over_subjects, overall
from neurocanvas.config import FeatureSettings
from neurocanvas.data.splits import blocked_trials, groups
from neurocanvas.data.trials import Trials, ranks
from neurocanvas.encoders.target_pca import TargetPCA
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.features.differential_entropy import METHODS, extract, usable_bands
from neurocanvas.features.window import Window
from neurocanvas.parallel import process_cache
from neurocanvas.pipeline.run import RunFolder, write_table
from neurocanvas.pipeline.train import read_inputs

# Windows in which the image cannot have been seen: before onset; or, where trials begin there, at once after it.
BEFORE, WEAK = (-0.2, 0.0), (0.0, 0.04)

# Arms that know nothing of the trial (the first three), or of its prediction only which training image or which name
# is nearest.
NULL_ARMS = ("shuffled", "mean", "random", "retrieval", "class-name")

# Side of images that serve as low-level descriptors, px.
SIDE = 16

# Principal coordinates of the concepts' mean embeddings.
COMPONENTS = 32


def controls(run: RunFolder) -> list[Path]:
    """Compute the controls for every subject, under the protocol of the settings."""
    settings = run.settings.controls
    names = settings.names or tuple(CONTROLS)
    units = [(subject, name) for subject in run.subjects for name in names]
    results = run.spread("controls", partial(_control, names), units)
    rows: dict[str, list[dict[str, Any]]] = {subject: [] for subject in run.subjects}
    for (subject, _), row in zip(units, results, strict=True):
        rows[subject].append(row)
    for of_subject in rows.values():
        correct_for_many(of_subject)
    table = over_subjects(rows, rng=np.random.default_rng(settings.seed))
    folder = run.folder / "scores"
    artifacts.write_json(folder / "controls.json", {
        "made_from": run.settings.of_trials, "overall": asdict(overall(table)),
        "protocol": run.settings.split.protocol, "rows": table, "subjects": rows,
    })  # fmt: skip
    lines = [(subject, *(row[name] for name in COLUMNS)) for subject, of_subject in rows.items() for row in of_subject]
    columns = zip(("subject", *COLUMNS), zip(*lines, strict=True), strict=True)
    write_table(folder / "controls.csv", {name: np.array(column, dtype=object) for name, column in columns})
    return [folder / "controls.json", folder / "controls.csv"]


def _control(names: Sequence[str], run: RunFolder, unit: tuple[str, str]) -> dict[str, Any]:
    """One control of one subject; the inputs of all controls are read once in each worker."""
    subject, name = unit
    used = {field for control in names for field in (*CONTROLS[control].needs, *CONTROLS[control].may_use)}
    inputs = process_cache("controls", "inputs", (run, subject), lambda: _inputs(run, subject, used))
    return control_row(inputs, name, seed=run.settings.controls.seed)


def _inputs(run: RunFolder, subject: str, used: Collection[str]) -> ControlInputs:
    """Inputs of the controls for one subject; those that not all controls need are made only if they are used."""
    pool, settings = run.pool(subject), run.settings.features
    sidecar = artifacts.read_sidecar(run.path("features", subject))
    # the method of imported features is unknown: that of the settings stands in
    method = METHODS.get(str(sidecar.get("method")), METHODS[settings.method])
    folds = [fold.joined() for fold in run.split(subject).folds]
    splits = [(np.sort(np.concatenate([fold.train, fold.validation])), fold.test) for fold in folds]
    concept = pool.column("concept")
    unseen = any(not np.isin(concept[test], concept[train]).all() for train, test in splits)
    return ControlInputs(
        features=read_inputs(run, subject), concept=concept, block=pool.column("block"),
        stimulus=pool.column("image") if "image" in pool.metadata else pool.names,
        run=ranks(pool.column("run")) if "run" in pool.metadata else np.zeros(len(pool), np.int64),
        session=groups(pool, *(name for name in ("subject", "session") if name in pool.metadata)),
        order=pool.column("order"),
        splits=splits, baseline=_before_the_picture(pool, settings) if "baseline" in used else None,
        signal=Window([pool], pool.spec, (settings.tmin, settings.tmax)) if "signal" in used else None,
        extract=lambda signal: method(signal, pool.spec.sfreq, usable_bands(settings.bands, pool.spec)),
        embeddings=_concept_embeddings(run, pool) if unseen or "embeddings" in used else None,
        low_level=_low_level(run, pool) if "low_level" in used else None,
        **_arm_scores(run, subject) if "arms" in used else {},
        permutations=run.settings.controls.permutations, repeats=run.settings.controls.repeats,
    )  # fmt: skip


def _before_the_picture(trials: Trials, settings: FeatureSettings) -> np.ndarray | None:
    """Features of the time in which the image cannot have been seen; None where that is too short for them."""
    window = (max(BEFORE[0], trials.spec.tmin), 0.0) if trials.spec.tmin <= BEFORE[0] / 2 else WEAK
    try:
        return extract(trials, settings.model_copy(update=dict(zip(("tmin", "tmax"), window, strict=True))))
    except NeuroCanvasError:
        return None


def _concept_embeddings(run: RunFolder, trials: Trials) -> np.ndarray | None:
    """Mean embedding of every trial's concept, in a few coordinates; None before `embed`."""
    if not run.path("embeddings", "clip-text").is_file():
        return None
    embeddings = run.targets("clip-text")
    basis = TargetPCA.fit(embeddings, np.ones(len(embeddings), np.int64), COMPONENTS)
    concept = np.unique(trials.column("concept"), return_inverse=True)[1]
    coordinates = basis.transform(embeddings)[np.searchsorted(run.stimuli, trials.column("image"))]
    means = np.stack([coordinates[concept == number].mean(axis=0) for number in range(concept.max() + 1)])
    return np.asarray(means[concept])


def _low_level(run: RunFolder, trials: Trials) -> np.ndarray | None:
    """Every trial's image in a few pixels; None where an image is missing."""
    try:
        small = np.stack([run.images.picture(name, size=SIDE) for name in run.stimuli])
    except NeuroCanvasError:
        return None
    return np.asarray(small.reshape(len(small), -1)[np.searchsorted(run.stimuli, trials.column("image"))] / 255)


def _arm_scores(run: RunFolder, subject: str) -> dict[str, Any]:
    """Two-way identification of the subject's images in the arm eeg and in null arms, if they are scored."""
    import pandas as pd

    path, columns = run.folder / "scores" / "trials.csv", ["subject", "trial", "arm", "two_way"]
    summary = path.with_name("summary.json")
    if summary.is_file() and read_json(summary, "scores").get("judge", {}).get("used") is False:
        return {}
    table = pd.DataFrame(read_csv(path, "evaluate", columns) if path.is_file() else [], columns=columns)
    table = table[(table["subject"] == subject) & table["arm"].isin(["eeg", *NULL_ARMS])]
    if not {"eeg"} < {*table["arm"]}:
        return {}
    table[["trial", "two_way"]] = table[["trial", "two_way"]].apply(pd.to_numeric, errors="coerce")
    arms = table["arm"].unique()
    scores = (
        table.drop_duplicates(["trial", "arm"], keep="last").pivot(index="trial", columns="arm")["two_way"].dropna()
    )
    trials = run.subjects[subject]
    if table.isna().any(axis=None) or not scores.index.isin(range(len(trials))).all() or scores.empty:
        raise NeuroCanvasError(
            f"{path}: the arms of subject {subject} need scores of the same trials of this data set; run `neurocanvas "
            "evaluate` again."
        )
    units = np.where(blocked_trials(trials), -1 - groups(trials, "block"), groups(trials, "image"))
    return {
        "arms": {arm: scores[arm].to_numpy() for arm in arms}, "arm_units": units[scores.index.to_numpy(np.int64)],
    }  # fmt: skip
