"""Plots: scales, bars and curves put things where their values are."""

import re
from pathlib import Path

import numpy as np

from neurocanvas.report.figures import at, axis, curves
from neurocanvas.report.sections import importance


def test_scales_hold_their_values_and_stay_round() -> None:
    for values in ([0.2, 0.61], [-0.03, 0.57], [0.0], [1.0], [0.004, float("nan")], [-0.4, -0.1]):
        scale, drawn = axis(values, True)
        finite = np.array([value for value in values if np.isfinite(value)])
        assert scale[0] <= finite.min() and scale[-1] >= finite.max() and scale[0] < scale[-1]
        assert 2 <= len(scale) <= 7 and drawn.count("<text") == len(scale)
    assert (at(-9.0, scale), at(9.0, scale)) == ("0.00%", "100.00%")


def test_curves_mark_the_kept_epoch_where_the_validation_loss_is() -> None:
    history = [{"epoch": e, "train_loss": 5.0 - e, "val_loss": 5.0 - e / 2} for e in range(1, 5)]
    drawn = curves(history, 3, {"ridge": 2.0})
    assert 'cx="66.67%"' in drawn and drawn.count('class="ridge"') == 1 and drawn.count("<polyline") == 2
    assert "kept" not in curves(history[:1], None, {})


def test_bars_begin_at_zero_and_end_at_their_value(tmp_path: Path) -> None:
    path = tmp_path / "importance.csv"
    rows = ["kind,group,name,drop,low,high", "permutation,band,alpha,.1,.08,.12", "permutation,band,beta,-.02,-.05,.15",
            "permutation,band,gamma,,,"]  # fmt: skip
    path.write_text("\n".join(rows) + "\n")
    alpha, beta, gamma = importance(path)["kinds"][0]["bands"]  # the axis runs from -5 to 15 points
    assert re.search(r'class="bar-of" x="25.00%" width="50.00%"', alpha["bar"])
    assert re.search(r'class="whisker-of" x1="65.00%" x2="85.00%"', alpha["bar"])
    assert re.search(r'class="bar-of" x="15.00%" width="10.00%"', beta["bar"])
    assert "bar-of" not in gamma["bar"] and "whisker-of" not in gamma["bar"]
    assert (alpha["drop"], beta["interval"], gamma["drop"], gamma["interval"]) == ("10.0", "−5.0 – 15.0", "–", "–")
