"""Controls of several subjects in one table."""

from __future__ import annotations

import numpy as np

from neurocanvas.evaluation.control_table import over_subjects


def row(fired, effect=0.1, p=0.01, control="leave-block-out"):
    verdict = {True: "it is the block", False: "it holds", None: "cannot be computed: why"}[fired]
    return {
        "control": control, "effect": effect, "low": 0.0, "high": 1.0, "p": p, "p_holm": p, "fired": fired,
        "share": 0.6 if fired else None, "verdict": verdict, "measures": "", "note": "", "details": {},
    }  # fmt: skip


def join(*rows):
    found = over_subjects({n: [one] for n, one in enumerate(rows)}, rng=np.random.default_rng(0))
    assert len(found) == 1
    return found[0]


def test_one_subject_is_left_as_it_is():
    assert join(row(True)) == row(True)


def test_several_are_averaged_and_counted():
    from scipy.stats import combine_pvalues

    found = join(row(True, 0.4, 0.01), row(True, 0.2, 0.02), row(False, 0.0, 0.5), row(None, None, None))
    assert found["fired"] is True and found["verdict"] == "it is the block (fired in 2 of 3 subjects)"
    assert np.isclose(found["effect"], 0.2) and found["low"] <= 0.2 <= found["high"] and found["share"] == 0.6
    assert np.isclose(found["p"], combine_pvalues([0.01, 0.02, 0.5]).pvalue)
    assert np.isclose(found["p_holm"], found["p"])
    assert join(row(True), row(False), row(False))["fired"] is False
    assert join(row(None, None, None), row(None, None, None))["fired"] is None
