"""From data to predictions: the stages simulate, features, train and predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.datasets.splits import Split, groups, is_blocked, make_splits
from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.stages.run import Advance, Run, write_table
from neurocanvas.trials import COLUMNS, Trials

MADE_BY = ("method", "window", "ch_names", "bands")
"""What the cards of features that train together must agree on."""


def simulate(run: Run) -> list[Path]:
    """Write the simulated data set into the run folder.

    Parameters
    ----------
    run : Run
        With a section `simulate`; without one nothing is done.

    Returns
    -------
    list of Path
        What is there now.
    """
    from neurocanvas.datasets.simulated import simulate as write_simulation

    if run.settings.simulate is None:
        return []
    advance = run.track("simulate", run.settings.simulate.n_trials)
    return [write_simulation(run.settings.simulate, run.folder / "data", progress=advance)]


def features(run: Run, *, keep_imported: bool = False) -> list[Path]:
    """Compute the features of every subject, and of others whose trials the protocol trains on.

    Parameters
    ----------
    run : Run
    keep_imported : bool
        Whether features that `import` took from the released code stay.

    Returns
    -------
    list of Path
        One `.npy` per subject.
    """
    from neurocanvas.features.entropy import UNITS, extract
    from neurocanvas.montage import BANDS

    advance, settings = run.track("features", len(run.opened)), run.settings.features
    for subject, trials in run.opened.items():
        path = run.features_path(subject)
        inputs = store.fingerprint("features", trials.fingerprint(), settings)
        kept = keep_imported and path.is_file() and store.read_card(path).get("imported")
        if not (kept or store.is_done(path, inputs)):
            values = extract(trials, settings)
            card = {
                "method": settings.method,
                "ch_names": list(trials.ch_names),
                "bands": list(BANDS),
                "window": [settings.tmin, settings.tmax],
                "unit": UNITS[settings.method],
            }
            store.write_array(path, values, inputs, card)
        write_trials(run, subject)
        advance(1)
    return [run.features_path(subject) for subject in run.opened]


def write_trials(run: Run, subject: int) -> None:
    """Write a subject's trial table beside the features.

    Parameters
    ----------
    run : Run
    subject : int
    """
    path, trials = run.features_path(subject).with_name(f"s{subject}_trials.csv"), run.opened[subject]
    write_table(path, {name: trials.column(name) for name in COLUMNS})


def pooled_features_paths(run: Run, subject: int) -> list[Path]:
    """Say where the features of a subject's pool are.

    Parameters
    ----------
    run : Run
    subject : int
        The one that is tested.

    Returns
    -------
    list of Path
        One file per subject of the pool.
    """
    return [run.features_path(int(one)) for one in np.unique(run.pool(subject).column("subject"))]


def read_pooled_features(run: Run, subject: int) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Read the features of a subject's pool.

    Parameters
    ----------
    run : Run
    subject : int
        The one that is tested.

    Returns
    -------
    features : array, shape (n_trials, n_chans, n_bands)
        In the order of `run.pool(subject)`.
    card : mapping
        That of the subject's own file.

    Raises
    ------
    NeuroCanvasError
        If a file is missing, damaged, made for other trials, or by another method than the subject's.
    """
    values, card = _read_features(run, subject)
    whose = run.pool(subject).column("subject")
    pooled = np.empty((len(whose), *values.shape[1:]), values.dtype)
    for one in np.unique(whose).tolist():
        part, other = _read_features(run, one)
        if any(other.get(key) != card.get(key) for key in MADE_BY):
            raise NeuroCanvasError(
                f"{run.features_path(one)}: made in another way than those of subject {subject}, for which its trials "
                "train; run `neurocanvas features` again."
            )
        pooled[whose == one] = part
    return pooled, card


def _read_features(run: Run, subject: int) -> tuple[np.ndarray, Mapping[str, Any]]:
    """A subject's features and their card."""
    path = run.features_path(subject)
    values = store.read_array(path, "features; `neurocanvas features` makes them")
    if len(values) != len(run.opened[subject]):
        raise NeuroCanvasError(f"{path}: made for other trials; run `neurocanvas features` again.")
    return np.asarray(values), store.read_card(path)


@dataclass
class _EpochLog:
    """Logs every epoch of one training, advances the progress line, and counts."""

    write: Callable[[Mapping[str, Any]], None]
    advance: Advance
    logged: int = 0

    def __call__(self, line: Mapping[str, Any]) -> None:
        self.write(line)
        self.advance(1)
        self.logged += 1


def train(run: Run) -> list[Path]:
    """Train every subject's mapper, one per fold, each beside its baselines.

    Under `pretrain-finetune` the trials that pre-train and those that train do so together, in one training: the
    mapper's axes and standardisation belong to one set of training trials.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        One safetensors file per subject and fold.
    """
    from neurocanvas.models import EEGSpec
    from neurocanvas.training.compare import train_and_save

    targets, paths = run.targets(), []
    splits = {subject: make_splits(run.pool(subject), run.settings.split, subject) for subject in run.subjects}
    advance = run.track("train", run.settings.mapper.epochs * sum(map(len, splits.values())))
    for subject in run.subjects:
        values, card = read_pooled_features(run, subject)
        target_of = run.stimulus_rows(run.pool(subject))
        spec = EEGSpec(tuple(card["ch_names"]), tuple(card["bands"]), targets.shape[1:])
        for fold, split in enumerate(splits[subject]):
            paths.append(run.model_path(subject, fold))
            epochs = _EpochLog(run.logger("train", subject=subject, fold=fold), advance)
            train_and_save(
                values, targets, target_of, split.joined(), spec, run.settings.mapper, path=paths[-1], log=epochs
            )
            advance(run.settings.mapper.epochs - epochs.logged)  # most trainings end early
    return paths


def asked(
    values: np.ndarray, trials: Trials, rows: np.ndarray, average: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the features that a mapper is asked about.

    Parameters
    ----------
    values : array, shape (n, n_chans, n_bands)
        Features of all trials.
    trials : Trials
        All of them.
    rows : array of int
        Which are asked about.
    average : bool
        Whether features of trials that show a subject the same picture are averaged.

    Returns
    -------
    features : array, shape (m, n_chans, n_bands)
    rows : array of int, shape (m,)
        The trial of each, or the first that was averaged.
    showings : array of int, shape (m,)
        How many were.
    """
    if not average:
        return values[rows], rows, np.ones(len(rows), dtype=np.int64)
    shown = groups(trials, "subject", "stimulus")[rows]
    _, first, own = np.unique(shown, return_index=True, return_inverse=True)
    showings = np.bincount(own)
    sums = np.zeros((len(first), *values.shape[1:]))
    np.add.at(sums, own, values[rows])
    return (sums / showings[:, None, None]).astype(values.dtype), rows[first], showings


def prediction_print(run: Run, subject: int, splits: Sequence[Split]) -> str:
    """Fingerprint everything that a subject's predictions depend on.

    Parameters
    ----------
    run : Run
    subject : int
    splits : sequence of Split
        One per fold.

    Returns
    -------
    str

    Raises
    ------
    NeuroCanvasError
        If a mapper or the features are missing.
    """
    models = [store.read_card(run.model_path(subject, fold))["sha256"] for fold in range(len(splits))]
    features = [store.read_card(path)["sha256"] for path in pooled_features_paths(run, subject)]
    of_splits = [split.fingerprint() for split in splits]
    return store.fingerprint("predict 2", models, of_splits, features, run.settings.split.average_test)


def predict(run: Run) -> list[Path]:
    """Predict every test trial by the mapper of its fold.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of Path
        `predictions/s<subject>.npy`, and beside it `s<subject>_mean.npy`, the mean training target of each fold.
    """
    from neurocanvas.generation.conditioning import gain
    from neurocanvas.models.checkpoint import load_mapper

    advance, paths = run.track("predict", len(run.subjects)), []
    for subject, trials in run.subjects.items():
        pool, (values, _) = run.pool(subject), read_pooled_features(run, subject)
        splits = make_splits(pool, run.settings.split, subject)
        models = [run.model_path(subject, fold) for fold in range(len(splits))]
        path = run.folder / "predictions" / f"s{subject}.npy"
        mean = path.with_name(f"s{subject}_mean.npy")
        cards = [store.read_card(check_file(model, "a mapper; `neurocanvas train` makes it")) for model in models]
        inputs = prediction_print(run, subject, splits)
        if not (store.is_done(path, inputs) and store.is_done(mean, inputs)):
            mappers = [load_mapper(model) for model in models]
            tests = [asked(values, pool, split.test, run.settings.split.average_test) for split in splits]
            own = np.flatnonzero(pool.column("subject") == subject)
            rows = np.searchsorted(own, np.concatenate([shown for _, shown, _ in tests]))  # in the subject's own table
            folds = np.concatenate([np.full(len(shown), fold) for fold, (_, shown, _) in enumerate(tests)])
            predicted = np.concatenate([m.predict(asked) for m, (asked, *_) in zip(mappers, tests, strict=True)])
            # by how much predictions are shrunk is read off validation trials that are averaged as the test trials are
            vals = [asked(values, pool, split.val, run.settings.split.average_test)[0] for split in splits]
            spreads = [m.coordinates(asked).std(axis=0) for m, asked in zip(mappers, vals, strict=True)]
            most = max(int(showings.max()) for *_, showings in tests)
            warnings = {warning for split in splits for warning in split.warnings}
            warnings |= {warning for model in cards for warning in model.get("warnings", ())}  # of imported ones
            if most > 1:
                warnings.add(
                    f"Features of each test picture are averaged over up to {most} showings: these are not "
                    "single-trial scores."
                )
            order = np.argsort(rows, kind="stable")
            store.write_array(mean, np.stack([m.basis.mean for m in mappers]), inputs)
            seen = run.stimulus_rows(pool)
            store.write_array(path, predicted[order], inputs, {
                "known": [np.unique(seen[split.joined().train]).tolist() for split in splits],
                "trials": rows[order].tolist(), "folds": folds[order].tolist(),
                "gains": [gain(m.basis.target_sd, sd) for m, sd in zip(mappers, spreads, strict=True)],
                "blocked": is_blocked(trials), "warnings": sorted(warnings),
            })  # fmt: skip
        paths.append(path)
        advance(1)
    return paths
