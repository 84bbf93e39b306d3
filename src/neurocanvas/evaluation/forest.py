"""Two-way identification subject by subject: intervals, p-values, Holm's correction over subjects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neurocanvas.config import EvaluateSettings
from neurocanvas.evaluation.classification import holm
from neurocanvas.evaluation.statistics import bootstrap_interval, null_means, permutation_p

METRIC = "two_way"


def forest(
    tables: Mapping[str, Mapping[str, np.ndarray]],
    true: np.ndarray,
    subject: np.ndarray,
    units: np.ndarray,
    permuted: np.ndarray,
    settings: EvaluateSettings,
) -> list[dict[str, Any]]:
    """Two-way score of every arm and subject, from tables (n_trials, n_pictures); Holm over an arm's subjects."""
    rows = []
    for arm, given in tables.items():
        table = given[METRIC]
        values = table[np.arange(len(true)), true]
        of_arm: list[dict[str, Any]] = []
        for one in np.unique(subject):
            mine = np.flatnonzero(subject == one)
            place = np.full(len(subject), -1)
            place[mine] = np.arange(len(mine))
            interval = bootstrap_interval(
                values[mine], units[mine], resamples=settings.resamples, rng=np.random.default_rng(settings.seed)
            )
            value = float(values[mine].mean())
            null = null_means(table[mine], true[mine], place[permuted[:, mine]])
            of_arm.append({
                "subject": str(one), "arm": arm, "metric": METRIC, "n": len(mine), "value": value,
                "low": interval and interval[0], "high": interval and interval[1], "p": permutation_p(value, null),
            })  # fmt: skip
        corrected = holm([row["p"] for row in of_arm])
        rows += [{**row, "p_holm": p} for row, p in zip(of_arm, corrected, strict=True)]
    return rows
