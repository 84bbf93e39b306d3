"""Controls of several subjects in one table, and their joint verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neurocanvas.evaluation.controls import CANNOT, CONTROLS, correct_for_many, sentence
from neurocanvas.evaluation.measured import SIGNIFICANT
from neurocanvas.evaluation.statistics import bootstrap_interval


def over_subjects(rows: Mapping[Any, Sequence[Mapping[str, Any]]], *, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Join the rows of several subjects: mean effect, bootstrap over subjects, Fisher's p, median share."""
    # Fires where more than half of the subjects do and the joined p is at most .05, as one subject alone could fire by
    # accident. A control without `by_p` claims something by staying silent, and fires where that is not shown.
    per_subject = list(rows.values())
    if len(per_subject) == 1:
        return [dict(row) for row in per_subject[0]]
    joined = [_join([own[place] for own in per_subject], rng) for place in range(len(per_subject[0]))]
    correct_for_many(joined)
    return joined


def _join(rows: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    from scipy.stats import combine_pvalues

    computed, decisive = [row for row in rows if row["fired"] is not None], _decisive(rows)
    if not computed:
        return {**rows[0], "decisive": decisive, "verdict": f"{CANNOT}{decisive}" if decisive else rows[0]["verdict"]}
    name = rows[0]["control"]
    effects, p_values, shares = (
        np.array([row[key] for row in computed if row[key] is not None], dtype=float)
        for key in ("effect", "p", "share")
    )
    # Fisher's method [Fisher1932]
    p = float(combine_pvalues(p_values).pvalue) if len(p_values) else None
    times, is_shown = sum(row["fired"] for row in computed), p is not None and p <= SIGNIFICANT
    if CONTROLS[name].by_p:
        fired = 2 * times > len(computed) and is_shown
    else:
        fired = 2 * times > len(computed) or not is_shown
    share = float(np.median(shares)) if len(shares) else None
    interval = bootstrap_interval(effects, np.arange(len(effects)), rng=rng) if len(effects) > 1 else None
    low, high = interval or (None, None)
    notes = {row["note"] for row in computed}
    aside = f"; {decisive}" if decisive else ""
    return {
        **computed[0], "effect": float(effects.mean()) if len(effects) else None, "low": low, "high": high, "p": p,
        "p_holm": None, "fired": fired, "share": share, "note": notes.pop() if len(notes) == 1 else "",
        "verdict": f"{sentence(name, fired=fired, share=share)} (fired in {times} of {len(computed)} subjects){aside}",
        "decisive": decisive, "bound": all(row.get("bound", False) for row in computed if row["fired"]) and fired,
        "details": {},
    }  # fmt: skip


def _decisive(rows: Sequence[Mapping[str, Any]]) -> str:
    """Reasons, with their number of subjects, for which no control is needed to judge the accuracy."""
    said = Counter(row["decisive"] for row in rows if row.get("decisive"))
    return "; ".join(
        words if times == len(rows) else f"in {times} of {len(rows)} subjects {words}" for words, times in said.items()
    )


def overall_verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Sum up the controls: decisive reasons first, then the fired one with the largest share that survives Holm."""
    decisive = dict.fromkeys(row["decisive"] for row in rows if row.get("decisive"))
    said = [f"{words[0].upper()}{words[1:]}." for words in decisive]
    return " ".join([*said, _what_fired([row for row in rows if row["fired"] is not None or not row.get("decisive")])])


def _what_fired(rows: Sequence[Mapping[str, Any]]) -> str:
    """The verdict without the decisive reasons."""
    computed = [row for row in rows if row["fired"] is not None]
    missing = f" {len(rows) - len(computed)} could not be computed." if len(rows) > len(computed) else ""
    if not computed:
        return "No control could be computed."
    fired = [row for row in computed if row["fired"]]
    if not fired:
        return f"No control fired ({len(computed)} computed).{missing}"
    counted = f"{len(fired)} of {len(computed)} controls fired ({', '.join(row['control'] for row in fired)})."
    corrected = [row for row in fired if row["p_holm"] is not None]
    firm = [row for row in corrected if row["p_holm"] <= SIGNIFICANT]
    loose = [row["control"] for row in corrected if row["p_holm"] > SIGNIFICANT]
    if len(loose) == len(fired):
        return f"{counted} None of them survives Holm's correction for their number.{missing}"
    weak = f" Without Holm's correction only: {', '.join(loose)}." if loose else ""
    if corrected and not firm:
        return f"{counted}{weak}{missing}"
    worst = max(firm or fired, key=_weight)["verdict"]
    return f"{worst[0].upper()}{worst[1:]}. {counted}{weak}{missing}"


def _weight(row: Mapping[str, Any]) -> tuple[bool, bool, float]:
    """Sort key for the worst finding: controls with a share first, those that were bound to fire last."""
    return not row.get("bound", False), row["share"] is not None, row["share"] or 0.0
