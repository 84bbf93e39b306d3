"""From data to predictions: the stages simulate, features, train and predict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import artifacts
from neurocanvas.data.splits import Fold, groups, is_blocked, make_split
from neurocanvas.data.trials import Trials, unique_names
from neurocanvas.encoders import Mapper
from neurocanvas.errors import NeuroCanvasError, check_file
from neurocanvas.pipeline.run import Run, write_table
from neurocanvas.targets.pretrained import batches

# What the cards of features that train together must agree on.
MADE_BY = ("method", "window", "ch_names", "bands")

# Trials that are predicted at once.
AT_ONCE = 64


def simulate(run: Run) -> list[Path]:
    """Write the simulated data set into the run folder."""
    from neurocanvas.simulation.dataset import simulate as write_simulation

    if run.settings.simulate is None:
        return []
    advance = run.track("simulate", run.settings.simulate.n_trials)
    return [write_simulation(run.settings.simulate, run.folder / "data", progress=advance)]


def features(run: Run, *, keep_imported: bool = False) -> list[Path]:
    """Compute the features of every subject, and of others whose trials the protocol trains on."""
    work = partial(_extract, keep_imported=keep_imported)
    return list(run.spread("features", work, list(run.opened)))


def _extract(run: Run, subject: str, *, keep_imported: bool) -> Path:
    """Compute one subject's features, unless that is done."""
    from neurocanvas.data.montage import BANDS
    from neurocanvas.features.differential_entropy import UNITS, extract

    trials, settings, path = run.opened[subject], run.settings.features, run.features_path(subject)
    inputs = artifacts.fingerprint("features", trials.fingerprint(), settings)
    imported = keep_imported and path.is_file() and artifacts.read_card(path).get("imported")
    if not (imported or artifacts.is_done(path, inputs)):
        [values] = artifacts.cached("features", [inputs], lambda _: [extract(trials, settings)])
        card = {
            "method": settings.method,
            "ch_names": list(trials.spec.ch_names),
            "bands": list(BANDS),
            "window": [settings.tmin, settings.tmax],
            "unit": UNITS[settings.method],
        }
        artifacts.write_array(path, values, inputs, card)
    write_trials(run, subject)
    return path


def write_trials(run: Run, subject: str) -> None:
    """Write a subject's trial table beside the features."""
    path, trials = run.features_path(subject).with_name(f"s{subject}_trials.csv"), run.opened[subject]
    write_table(path, {name: trials.column(name) for name in trials.metadata})


def pooled_features_paths(run: Run, subject: str) -> list[Path]:
    """Say where the features of a subject's pool are."""
    return [run.features_path(one) for one in unique_names(run.pool(subject).column("subject"))]


def read_pooled_features(run: Run, subject: str) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Read the features of a subject's pool."""
    values, card = _read_features(run, subject)
    whose = run.pool(subject).column("subject")
    pooled = np.empty((len(whose), *values.shape[1:]), values.dtype)
    for one in np.unique(whose).tolist():
        part, other = (values, card) if one == subject else _read_features(run, one)
        if any(other.get(key) != card.get(key) for key in MADE_BY):
            raise NeuroCanvasError(
                f"{run.features_path(one)}: made in another way than those of subject {subject}, for which its trials "
                "train; run `neurocanvas features` again."
            )
        pooled[whose == one] = part
    return pooled, card


def _read_features(run: Run, subject: str) -> tuple[np.ndarray, Mapping[str, Any]]:
    """A subject's features and their card."""
    path = run.features_path(subject)
    values, card = artifacts.read_array(path, "features; `neurocanvas features` makes them"), artifacts.read_card(path)
    if len(values) != len(run.opened[subject]):
        raise NeuroCanvasError(f"{path}: made for other trials; run `neurocanvas features` again.")
    return values, card


def train(run: Run) -> list[Path]:
    """Train every subject's mapper, one per fold, each beside its baselines."""
    units = []
    for subject in run.subjects:  # what cannot be split is refused before anything is trained
        folds = len(make_split(run.pool(subject), settings=run.settings.split, subject=subject))
        units += [(subject, fold) for fold in range(folds)]
    return list(run.spread("train", _train, units))


def _train(run: Run, unit: tuple[str, int]) -> Path:
    """Train the mapper of one subject and fold, unless that is done."""
    from neurocanvas.encoders import EEGSpec
    from neurocanvas.training.compare import train_and_save

    subject, fold = unit
    pool, targets, (values, card) = run.pool(subject), run.targets(), read_pooled_features(run, subject)
    split = make_split(pool, settings=run.settings.split, subject=subject)[fold]
    spec = EEGSpec(tuple(card["ch_names"]), tuple(card["bands"]), targets.shape[1:])
    settings, path = run.settings.encoder, run.model_path(subject, fold)
    left, log = settings.epochs, run.logger("train", subject=subject, fold=fold)
    advance = run.track(f"train s{subject} fold{fold}", left)

    def note(line: Mapping[str, Any]) -> None:
        nonlocal left
        left -= 1
        log(line)
        advance(1)

    train_and_save(values, targets, run.stimulus_rows(pool), split.joined(), spec, settings, path=path, log=note)
    advance(left)  # most trainings end early
    return path


def asked(
    values: np.ndarray, trials: Trials, rows: np.ndarray, average: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the features that a mapper is asked about."""
    if not average:
        return values[rows], rows, np.ones(len(rows), dtype=np.int64)
    shown = groups(trials, "subject", "image")[rows]
    _, first, own = np.unique(shown, return_index=True, return_inverse=True)
    showings = np.bincount(own)
    sums = np.zeros((len(first), *values.shape[1:]))
    np.add.at(sums, own, values[rows])
    return (sums / showings[:, None, None]).astype(values.dtype), rows[first], showings


def prediction_print(run: Run, subject: str, splits: Sequence[Fold]) -> str:
    """Fingerprint everything that a subject's predictions depend on."""
    models = [artifacts.read_card(run.model_path(subject, fold))["sha256"] for fold in range(len(splits))]
    features = [artifacts.read_card(path)["sha256"] for path in pooled_features_paths(run, subject)]
    of_splits = [split.fingerprint() for split in splits]
    return artifacts.fingerprint("predict 2", models, of_splits, features, run.settings.split.average_test)


def predict(run: Run) -> list[Path]:
    """Predict every test trial by the mapper of its fold."""
    return list(run.spread("predict", _predict, list(run.subjects)))


def _predict(run: Run, subject: str) -> Path:
    """Predict the test trials of one subject, unless that is done."""
    from neurocanvas.encoders.checkpoint import load_mapper
    from neurocanvas.generation.arms import gain

    pool, (values, _), average = run.pool(subject), read_pooled_features(run, subject), run.settings.split.average_test
    splits = make_split(pool, settings=run.settings.split, subject=subject)
    models = [run.model_path(subject, fold) for fold in range(len(splits))]
    path = run.folder / "predictions" / f"s{subject}.npy"
    mean = path.with_name(f"s{subject}_mean.npy")
    cards = [artifacts.read_card(check_file(model, "a mapper; `neurocanvas train` makes it")) for model in models]
    inputs = prediction_print(run, subject, splits)
    if artifacts.is_done(path, inputs) and artifacts.is_done(mean, inputs):
        return path
    mappers = [load_mapper(model) for model in models]
    tests = [asked(values, pool, split.test, average) for split in splits]
    own = np.flatnonzero(pool.column("subject") == subject)
    rows = np.searchsorted(own, np.concatenate([shown for _, shown, _ in tests]))  # in the subject's own table
    folds = np.concatenate([np.full(len(shown), fold) for fold, (_, shown, _) in enumerate(tests)])
    order = np.argsort(rows, kind="stable")
    # by how much predictions are shrunk is read off validation trials that are averaged as the test trials are
    vals = [asked(values, pool, split.validation, average)[0] for split in splits]
    spreads = [m.coordinates(asked).std(axis=0) for m, asked in zip(mappers, vals, strict=True)]
    most = max(int(showings.max()) for *_, showings in tests)
    warnings = {warning for split in splits for warning in split.warnings}
    warnings |= {warning for model in cards for warning in model.get("warnings", ())}  # of imported ones
    if most > 1:
        warnings.add(
            f"Features of each test picture are averaged over up to {most} showings: these are not single-trial scores."
        )
    artifacts.write_array(mean, np.stack([m.basis.mean for m in mappers]), inputs)
    seen = run.stimulus_rows(pool)
    parts = _predicted(mappers, np.concatenate([features for features, *_ in tests])[order], folds[order])
    artifacts.write_in_parts(path, (len(rows), *mappers[0].basis.mean.shape), np.float32, parts, inputs, {
        "known": [np.unique(seen[split.joined().train]).tolist() for split in splits],
        "trials": rows[order].tolist(), "folds": folds[order].tolist(),
        "gains": [gain(m.basis.target_sd, sd) for m, sd in zip(mappers, spreads, strict=True)],
        "blocked": is_blocked(run.subjects[subject]), "warnings": sorted(warnings),
    })  # fmt: skip
    return path


def _predicted(mappers: Sequence[Mapper], features: np.ndarray, folds: np.ndarray) -> Iterator[np.ndarray]:
    """Predictions of trials, each by the mapper of its fold, a few at a time: all of them can be gigabytes."""
    for part in batches(len(features), AT_ONCE):
        predicted = np.empty((part.stop - part.start, *mappers[0].basis.mean.shape), np.float32)
        for fold in np.unique(folds[part]):
            rows = folds[part] == fold
            predicted[rows] = mappers[fold].predict(features[part][rows])
        yield predicted
