"""What predictions are like and rest on: retrieval, diversity, and the importance of bands and electrodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neurocanvas import store
from neurocanvas.datasets.splits import is_blocked, make_splits
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.importance import KINDS, importance
from neurocanvas.evaluation.retrieval import ASSIGNMENT_RULES, CENTRINGS, centred, retrieve
from neurocanvas.evaluation.statistics import bootstrap_interval
from neurocanvas.evaluation.summary import MANY_SUBJECTS
from neurocanvas.families import batches
from neurocanvas.models import Mapper
from neurocanvas.stages.mapping import asked, prediction_print, read_pooled_features
from neurocanvas.stages.run import Run, write_table
from neurocanvas.training.losses import two_way_of_trials

# Of a gallery in which the five best are a score.
FEWEST_PICTURES = 6

# Targets that are read at once.
AT_ONCE = 64


@dataclass(frozen=True)
class Fold:
    """One subject's test trials of one fold, as the mapper sees them."""

    mapper: Mapper
    features: np.ndarray
    training_mean: np.ndarray
    targets: np.ndarray
    coordinates: np.ndarray
    distance: np.ndarray
    true: np.ndarray
    concepts: np.ndarray
    units: np.ndarray
    subject: int


def explain(run: Run) -> tuple[list[Path], dict[str, Any]]:
    """Say what the run's predictions are like and rest on."""
    rng = np.random.default_rng(run.settings.evaluate.seed)
    retrieved, diverse, whose, exchanged = [], [], [], []
    lost: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for fold in _folds(run):  # one mapper in memory at a time
        n_trials = len(fold.true)
        retrieved.append((_retrieved(fold, run.settings.embed.target), n_trials))
        diverse.append((_diversity(fold), n_trials))
        whose.append(np.full(n_trials, fold.subject))
        exchanged.append(fold.units)
        for what, drops in _lost(fold, rng):
            lost.setdefault(what, []).append(drops)
    said = {"retrieval": _averaged(retrieved), "diversity": _averaged(diverse)}
    if not whose:
        return [], said
    subject, units = np.concatenate(whose), np.concatenate(exchanged)
    strata = subject
    if len(np.unique(subject)) >= MANY_SUBJECTS:
        units, strata = subject, np.zeros(len(subject), np.int64)
    lines = []
    for what, parts in lost.items():
        drops = np.concatenate(parts)
        interval = bootstrap_interval(drops, units, strata=strata, rng=np.random.default_rng(0))
        lines.append((*what, float(drops.mean()), *(interval or (np.nan, np.nan))))
    columns = ("kind", "group", "name", "drop", "low", "high")
    path = run.folder / "scores" / "importance.csv"
    write_table(path, {name: np.array([line[at] for line in lines]) for at, name in enumerate(columns)})
    return [path], said


def _folds(run: Run) -> Iterator[Fold]:
    """Every fold whose predictions come from the mapper and the features that are there."""
    from neurocanvas.models.checkpoint import load_mapper

    first = 0
    for subject in run.subjects:
        pool = run.pool(subject)
        splits = make_splits(pool, run.settings.split, subject)
        if not _current(run, subject, splits):
            continue
        values, _ = read_pooled_features(run, subject)
        shown, blocked = run.stimulus_rows(pool), is_blocked(pool)
        for fold, split in enumerate(splits):
            mapper = load_mapper(run.model_path(subject, fold))
            features, rows, _ = asked(values, pool, split.test, run.settings.split.average_test)
            of_test, true = np.unique(shown[rows], return_inverse=True)
            targets = run.targets()[of_test]
            if len(of_test) < 2 or mapper.basis.mean.shape != targets.shape[1:]:
                continue
            stimuli = run.dataset[1]
            units = np.unique(pool.column("block")[rows], return_inverse=True)[1] if blocked else np.arange(len(rows))
            yield Fold(
                mapper, np.asarray(features), values[split.joined().train].mean(axis=0),
                targets, mapper.basis.transform(targets), mapper.basis.squared_distance(targets), true,
                np.array([stimuli.concepts[run.stimuli[row]] for row in of_test]), first + units, subject,
            )  # fmt: skip
            first += len(rows)


def _current(run: Run, subject: int, splits: list[Any]) -> bool:
    """Tell whether a subject's predictions were made by what is there now."""
    path = run.folder / "predictions" / f"s{subject}.npy"
    try:
        made_from: object = store.read_card(path)["fingerprint"]
        return made_from == prediction_print(run, subject, splits)
    except (NeuroCanvasError, KeyError):
        return False


def _lost(fold: Fold, rng: np.random.Generator) -> Iterator[tuple[tuple[str, str, str], np.ndarray]]:
    """What every trial of a fold loses without each band and each electrode."""
    every, spec = slice(None), fold.mapper.spec
    groups: dict[tuple[str, str], tuple[int | slice, int | slice]] = {
        **{("electrode", name): (row, every) for row, name in enumerate(spec.ch_names)},
        **{("band", name): (every, row) for row, name in enumerate(spec.bands)},
    }
    found = importance(
        partial(_identified, fold), fold.features, {"/".join(group): where for group, where in groups.items()},
        fold.training_mean, rng=rng,
    )  # fmt: skip
    for kind in KINDS:
        for group in groups:
            yield (kind, *group), found[kind]["/".join(group)]


def _identified(fold: Fold, features: np.ndarray) -> np.ndarray:
    """Two-way identification of every trial: in coordinates, but with the whole length of targets, so it is exact."""
    predicted = fold.mapper.coordinates(features)
    return two_way_of_trials(predicted, fold.coordinates[fold.true], fold.distance[fold.true], fold.true)


def cosines(fold: Fold, centring: str) -> np.ndarray:
    """Cosine of every prediction with every target of the gallery, in the whole target space."""
    # A prediction is the mean training target plus a weighted sum of a few axes, so its products with a target are the
    # same sum of the target's products with these: exact, and no prediction is ever expanded.
    basis, predicted = fold.mapper.basis, fold.mapper.coordinates(fold.features)
    rows = np.concatenate([basis.mean.reshape(1, -1), basis.axes / basis.scale]).astype(np.float64)
    weights = centred(np.column_stack([np.ones(len(predicted)), predicted]).astype(np.float64), centring)
    flat = fold.targets.reshape(len(fold.targets), -1)
    shift = flat.mean(axis=0, dtype=np.float64) if centring != "none" else np.zeros(1)
    products, squared = np.empty((len(flat), len(rows))), np.empty(len(flat))
    for part in batches(len(flat), AT_ONCE):
        targets = flat[part] - shift
        products[part], squared[part] = targets @ rows.T, np.einsum("nd,nd->n", targets, targets)
    lengths = np.einsum("nk,kl,nl->n", weights, rows @ rows.T, weights, optimize=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(weights @ products.T / np.sqrt(lengths)[:, None] / np.sqrt(squared))


def _retrieved(fold: Fold, target: str) -> dict[str, dict[str, Any]]:
    """Scores of every centring and assignment rule that the trials allow."""
    gallery, true = fold.targets, fold.true
    if len(gallery) < FEWEST_PICTURES or not np.ptp(fold.mapper.coordinates(fold.features), axis=0).any():
        return {}
    found: dict[str, dict[str, Any]] = {}
    for centring, transductive in CENTRINGS.items():
        table = cosines(fold, centring)
        if not np.isfinite(table).all():  # all targets are equal, and nothing is left of them around their mean
            continue
        for rule, how in ASSIGNMENT_RULES.items():
            if rule == "hungarian" and len(true) > len(gallery):
                continue  # several trials of one picture cannot each have a picture of their own
            found[rule if centring == "none" else f"centred {rule}"] = {
                "transductive": transductive or how.transductive, "rule": rule, "centring": centring,
                "space": f"{target} targets, {' x '.join(map(str, gallery.shape[1:]))}",
                "n_trials": len(true), "n_pictures": len(gallery),
                **retrieve(table, true, fold.concepts[true], fold.concepts, rule=rule),
            }  # fmt: skip
    return found


def _diversity(fold: Fold) -> dict[str, dict[str, float]]:
    """Effective rank and mean cosine of predictions, and of the targets of the same trials."""
    from neurocanvas.evaluation.distributions import effective_rank, mean_pairwise_cosine

    found: dict[str, dict[str, float]] = {}
    predicted = fold.mapper.coordinates(fold.features)
    for what, rows in (("predictions", predicted), ("targets", fold.coordinates[fold.true])):
        found[what] = {"n_trials": len(rows), "effective_rank": effective_rank(rows)}
        if (np.linalg.norm(rows, axis=1) > 0).all() and len(rows) > 1:
            found[what]["mean_cosine"] = mean_pairwise_cosine(rows)
    return found


def _averaged(parts: list[tuple[dict[str, dict[str, Any]], int]]) -> dict[str, dict[str, Any]]:
    """Mean of numbers over folds, weighted by their trials; of numbers of trials the sum; the rest as it is."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for part, _ in parts for name in part):
        folds = [(part[name], n) for part, n in parts if name in part]
        found[name] = {}
        for key, first in folds[0][0].items():
            values, weights = zip(*((one[key], n) for one, n in folds if key in one), strict=True)
            if isinstance(first, str | bool):
                found[name][key] = first
            else:
                found[name][key] = sum(values) if key == "n_trials" else float(np.average(values, weights=weights))
    return found
