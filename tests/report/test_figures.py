"""Plots: scales, bars and curves put things where their values are."""

import re

import numpy as np

from neurocanvas.report.figures import Scale, bar, curves


def test_scales_hold_their_values_and_stay_round() -> None:
    for values in ([0.2, 0.61], [-0.03, 0.57], [0.0], [1.0], [0.004, float("nan")], [-0.4, -0.1]):
        scale = Scale.around(values)
        finite = np.array([value for value in values if np.isfinite(value)])
        assert scale.low <= finite.min() and scale.high >= finite.max() and scale.low < scale.high
        assert 2 <= len(scale.ticks) <= 7
    assert (scale.at(-9.0), scale.at(9.0)) == ("0.00%", "100.00%")


def test_curves_mark_the_kept_epoch_where_the_validation_loss_is() -> None:
    history = [{"epoch": e, "train_loss": 5.0 - e, "val_loss": 5.0 - e / 2} for e in range(1, 5)]
    drawn = curves(history, 3, {"ridge": 2.0})
    assert 'cx="66.67%"' in drawn and drawn.count('class="ridge"') == 1 and drawn.count("<polyline") == 2
    assert "kept" not in curves(history[:1], None, {})


def test_bars_begin_at_zero_and_end_at_their_value() -> None:
    scale = Scale(-5.0, 15.0, (-5.0, 0.0, 5.0, 10.0, 15.0))
    drawn = bar(10.0, 8.0, 12.0, scale)
    assert re.search(r'class="bar-of" x="25.00%" width="50.00%"', drawn)
    assert re.search(r'class="whisker-of" x1="65.00%" x2="85.00%"', drawn)
    assert re.search(r'class="bar-of" x="15.00%" width="10.00%"', bar(-2.0, -4.0, 0.0, scale))
    nothing = bar(float("nan"), float("nan"), float("nan"), scale)
    assert "bar-of" not in nothing and "whisker-of" not in nothing
