"""Warnings: what a design does not let anyone conclude, and control arms that do not behave as they should."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neurocanvas.evaluation.statistics import permutation_p

# Below this many units, intervals are rough and a warning says so.
FEW_UNITS = 20

# Where no p-value can be below this, a warning says so.
LARGE_SMALLEST_P = 0.01

# An oracle arm with a lower two-way score cannot serve as ceiling.
LOW_ORACLE = 0.75


def design_warnings(blocked: bool, unit: str, n_units: int, smallest: float) -> list[str]:
    found = []
    if blocked:
        found.append(
            "Block design: each concept was shown in one stretch of time, so slow drift alone tells concepts "
            "apart. These scores, whatever their p-value, cannot be told from decoding the recording block."
        )
    if n_units < FEW_UNITS:
        found.append(f"Only {n_units} {unit}: intervals are rough.")
    if smallest > LARGE_SMALLEST_P:
        found.append(f"So few units can be exchanged that p cannot go below {smallest:.2g}.")
    return found


def arm_warnings(
    measured: Mapping[str, Mapping[str, Mapping[str, Any]]], nulls: Mapping[str, Mapping[str, np.ndarray]]
) -> list[str]:
    """Warn of an oracle arm too low to be a ceiling, and of null arms that differ from chance."""
    found = []
    oracle = measured["oracle"]["two_way"]["value"] if "oracle" in measured else 1.0
    if oracle < LOW_ORACLE:
        found.append(
            f"The oracle arm reaches only {oracle:.2f} in two-way identification: the generator cannot draw "
            "what it is told, or the judge cannot see it. A low eeg score says little here."
        )
    for arm in ("shuffled", "mean"):
        if arm in measured:
            value = measured[arm]["two_way"]["value"]
            p = permutation_p(value, nulls[arm]["two_way"], two_sided=True)
            if p <= 0.01:
                found.append(
                    f"The {arm} arm differs from chance in two-way identification ({value:.2f}, p {p:.2g}), "
                    "though it knows nothing of the trial: something else gives the pictures away."
                )
    return found
