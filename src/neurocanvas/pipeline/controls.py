"""The verb controls: what other than the brain's response to images could explain the accuracy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.artifacts import number_in, read_csv
from neurocanvas.audit.controls.inputs import ControlInputs
from neurocanvas.audit.controls.registry import COLUMNS, CONTROLS, control_row, correct_for_many, over_subjects, overall
from neurocanvas.config import FeatureSettings
from neurocanvas.data.splits import blocked_trials, groups
from neurocanvas.data.trials import Trials, ranks
from neurocanvas.encoders.target_pca import TargetPCA
from neurocanvas.errors import NeuroCanvasError, check_option
from neurocanvas.features.differential_entropy import METHODS, extract, window_samples
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
    names = [check_option("controls", name, CONTROLS) for name in settings.names] or list(CONTROLS)
    units = [(subject, name) for subject in run.subjects for name in names]
    found = run.spread("controls", partial(_control, tuple(names)), units)
    rows: dict[str, list[dict[str, Any]]] = {subject: [] for subject in run.subjects}
    for (subject, _), row in zip(units, found, strict=True):
        rows[subject].append(row)
    for own in rows.values():
        correct_for_many(own)
    table = over_subjects(rows, rng=np.random.default_rng(settings.seed))
    folder = run.folder / "scores"
    artifacts.write_json(folder / "controls.json", {
        "made_from": run.settings.of_trials, "overall": asdict(overall(table)),
        "protocol": run.settings.split.protocol, "rows": table, "subjects": rows,
    })  # fmt: skip
    write_table(folder / "controls.csv", {
        "subject": np.array([subject for subject, own in rows.items() for _ in own]),
        **{name: np.array([row[name] for own in rows.values() for row in own], dtype=object) for name in COLUMNS},
    })  # fmt: skip
    return [folder / "controls.json", folder / "controls.csv"]


def _control(names: Sequence[str], run: RunFolder, unit: tuple[str, str]) -> dict[str, Any]:
    """One control of one subject; the inputs of all controls are read once in each worker."""
    subject, name = unit
    used = {field for one in names for field in (*CONTROLS[one].needs, *CONTROLS[one].may_use)}
    inputs = process_cache("controls", "inputs", (run, subject), lambda: _inputs(run, subject, used))
    return control_row(inputs, name, seed=run.settings.controls.seed)


@dataclass(frozen=True)
class WindowOfTrials:
    """The feature window of trials, read when it is indexed."""

    trials: Trials
    settings: FeatureSettings

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        window = self.settings.tmin, self.settings.tmax
        return self.trials.signal(rows)[..., window_samples(self.trials.spec, *window, "features.tmin, features.tmax")]


def _inputs(run: RunFolder, subject: str, used: Collection[str]) -> ControlInputs:
    """Inputs of the controls for one subject; those that not all controls need are made only if they are used."""
    pool, values = run.pool(subject), read_inputs(run, subject)
    sidecar = artifacts.read_sidecar(run.path("features", subject))
    settings = run.settings.features
    # the method of imported features is unknown: that of the settings stands in
    method = METHODS.get(str(sidecar.get("method")), METHODS[settings.method])
    splits = [split.joined() for split in run.split(subject).folds]
    folds = [(np.sort(np.concatenate([split.train, split.validation])), split.test) for split in splits]
    concept = pool.column("concept")
    unseen = any(not np.isin(concept[test], concept[train]).all() for train, test in folds)
    return ControlInputs(
        features=values, concept=concept, stimulus=pool.column("image"), block=pool.column("block"),
        run=ranks(pool.column("run")), session=groups(pool, "subject", "session"), order=pool.column("order"),
        splits=folds, baseline=_before_the_picture(pool, settings) if "baseline" in used else None,
        signal=WindowOfTrials(pool, settings), extract=lambda signal: method(signal, pool.spec.sfreq),
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
    own = basis.transform(embeddings)[np.searchsorted(run.stimuli, trials.column("image"))]
    means = np.stack([own[concept == one].mean(axis=0) for one in range(concept.max() + 1)])
    return np.asarray(means[concept])


def _low_level(run: RunFolder, trials: Trials) -> np.ndarray | None:
    """Every trial's image in a few pixels; None where an image is missing."""
    try:
        small = np.stack([run.dataset[1].picture(name, size=SIDE) for name in run.stimuli])
    except NeuroCanvasError:
        return None
    return np.asarray(small.reshape(len(small), -1)[np.searchsorted(run.stimuli, trials.column("image"))] / 255)


def _arm_scores(run: RunFolder, subject: str) -> dict[str, Any]:
    """Two-way identification of the subject's images in the arm eeg and in null arms, if they are scored."""
    path = run.folder / "scores" / "trials.csv"
    if not path.is_file():
        return {}
    scores: dict[str, dict[int, float]] = {}
    for row in read_csv(path, "evaluate", ("subject", "trial", "arm", "two_way")):
        if row["subject"] == subject and row["arm"] in ("eeg", *NULL_ARMS):
            trial, score = (number_in(row, name, path, "evaluate") for name in ("trial", "two_way"))
            scores.setdefault(row["arm"], {})[int(trial) if np.isfinite(trial) else -1] = score
    if "eeg" not in scores or len(scores) < 2:
        return {}
    own = run.subjects[subject]
    shown = np.array(sorted(set.intersection(*(set(given) for given in scores.values()))), dtype=np.int64)
    arms = {arm: np.array([given[trial] for trial in shown.tolist()]) for arm, given in scores.items()}
    known = len(shown) and shown[0] >= 0 and shown[-1] < len(own)
    if not known or not all(np.isfinite(given).all() for given in arms.values()):
        raise NeuroCanvasError(
            f"{path}: the arms of subject {subject} need scores of the same trials of this data set; run `neurocanvas "
            "evaluate` again."
        )
    stimulus, block = groups(own, "image"), groups(own, "block")
    units = np.where(blocked_trials(own), -1 - block, stimulus)
    return {"arms": arms, "arm_units": units[shown]}
