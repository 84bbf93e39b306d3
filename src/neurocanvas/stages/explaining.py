"""What predictions rest on: importance of bands and electrodes, over the test trials of all subjects and folds."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from neurocanvas.datasets.splits import make_splits
from neurocanvas.evaluation.importance import KINDS, importance
from neurocanvas.evaluation.statistics import bootstrap_interval
from neurocanvas.models import Mapper
from neurocanvas.stages.mapping import asked, read_pooled_features
from neurocanvas.stages.run import Run, write_table
from neurocanvas.training.losses import two_way_of_trials


def explain(run: Run) -> list[Path]:
    """Measure how much two-way identification among targets is lost without each band and each electrode.

    Parameters
    ----------
    run : Run
        With features, targets and mappers.

    Returns
    -------
    list of Path
        `scores/importance.csv`: kind, group, name, drop and its 95 % interval over trials; nothing where a mapper is
        missing, as of predictions that were made elsewhere.
    """
    from neurocanvas.models.checkpoint import load_mapper

    lost: dict[tuple[str, str, str], list[np.ndarray]] = {}
    rng = np.random.default_rng(run.settings.evaluate.seed)
    for subject in run.subjects:
        pool, (values, card) = run.pool(subject), read_pooled_features(run, subject)
        every = slice(None)
        groups: dict[tuple[str, str], tuple[int | slice, int | slice]] = {
            **{("electrode", name): (row, every) for row, name in enumerate(card["ch_names"])},
            **{("band", name): (every, row) for row, name in enumerate(card["bands"])},
        }
        shown = run.stimulus_rows(pool)
        for fold, split in enumerate(make_splits(pool, run.settings.split, subject)):
            if not run.model_path(subject, fold).is_file():
                return []
            mapper = load_mapper(run.model_path(subject, fold))
            features, rows, _ = asked(values, pool, split.test, run.settings.split.average_test)
            if len(np.unique(shown[rows])) < 2:
                continue
            of_test, target = np.unique(shown[rows], return_inverse=True)
            targets = run.targets()[of_test]
            found = importance(
                partial(
                    _identified, mapper, mapper.basis.transform(targets)[target],
                    mapper.basis.squared_distance(targets)[target], target,
                ),
                np.asarray(features), {"/".join(group): where for group, where in groups.items()},
                values[split.joined().train].mean(axis=0), rng=rng,
            )  # fmt: skip
            for kind in KINDS:
                for group in groups:
                    lost.setdefault((kind, *group), []).append(found[kind]["/".join(group)])
    if not lost:
        return []
    lines = []
    for what, parts in lost.items():
        drops = np.concatenate(parts)
        interval = bootstrap_interval(drops, np.arange(len(drops)), rng=np.random.default_rng(0))
        lines.append((*what, float(drops.mean()), *(interval or (np.nan, np.nan))))
    path = run.folder / "scores" / "importance.csv"
    columns = ("kind", "group", "name", "drop", "low", "high")
    write_table(path, {name: np.array([line[at] for line in lines]) for at, name in enumerate(columns)})
    return [path]


def _identified(
    mapper: Mapper, true: np.ndarray, distance: np.ndarray, target: np.ndarray, features: np.ndarray
) -> np.ndarray:
    """Two-way identification of every trial by what a mapper makes of its features."""
    return two_way_of_trials(mapper.coordinates(features), true, distance, target)
