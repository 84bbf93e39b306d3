"""Controls of several subjects as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neurocanvas.evaluation.classification import holm
from neurocanvas.evaluation.controls import CONTROLS
from neurocanvas.evaluation.statistics import bootstrap_interval


def over_subjects(rows: Mapping[Any, Sequence[Mapping[str, Any]]], *, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Join the controls of several subjects.

    Parameters
    ----------
    rows : dict of subject to list of dict
        From `controls.run_controls`, the same controls for every subject.
    rng : numpy.random.Generator
        Resamples of the intervals.

    Returns
    -------
    list of dict
        One row per control. Of one subject they are the subject's. Of several: the mean effect with its bootstrap
        interval over subjects, p by Fisher's method [Fisher1932]_, corrected anew; a control has fired if it fired in
        at least half of the subjects in which it could be computed, and the verdict says in how many.

    References
    ----------
    .. [Fisher1932] Fisher. Statistical methods for research workers, 4th edition, 1932, section 21.1.
    """
    per_subject = list(rows.values())
    if len(per_subject) == 1:
        return [dict(row) for row in per_subject[0]]
    joined = [_join([own[place] for own in per_subject], rng) for place in range(len(per_subject[0]))]
    tested = [row for row in joined if row["p"] is not None and CONTROLS[row["control"]].by_p]
    for row, adjusted in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = adjusted
    return joined


def _join(rows: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    """One control of several subjects."""
    from scipy.stats import combine_pvalues

    computed = [row for row in rows if row["fired"] is not None]
    if not computed:
        return dict(rows[0])
    fired = [row for row in computed if row["fired"]]
    said = (fired if 2 * len(fired) >= len(computed) else [row for row in computed if not row["fired"]])[0]
    effects = np.array([row["effect"] for row in computed if row["effect"] is not None], dtype=float)
    interval = bootstrap_interval(effects, np.arange(len(effects)), rng=rng) if len(effects) > 1 else None
    p_values = [row["p"] for row in computed if row["p"] is not None]
    shares = [row["share"] for row in fired if row["share"] is not None]
    return {
        **said, "effect": float(effects.mean()) if len(effects) else None, "low": interval and interval[0],
        "high": interval and interval[1], "p": float(combine_pvalues(p_values).pvalue) if p_values else None,
        "p_holm": None, "fired": said["fired"], "share": float(np.median(shares)) if shares else None,
        "verdict": f"{said['verdict']} (fired in {len(fired)} of {len(computed)} subjects)", "note": "", "details": {},
    }  # fmt: skip
