"""Scalp maps: where electrodes sit, and what is interpolated."""

import numpy as np
import pytest

from neurocanvas.data.montage import CH_NAMES
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.report.figures import electrode_positions, scalp_map

MUSE = ("TP9", "AF7", "AF8", "TP10", "POz")


def test_electrode_positions_of_any_cap() -> None:
    cap = electrode_positions(CH_NAMES)
    assert cap.shape == (62, 3) and np.isfinite(cap).all()
    muse = electrode_positions(("tp9", *MUSE[1:], "nowhere"))
    assert np.isnan(muse[-1]).all()
    left, front_left, _, right, back = muse[:5]
    assert left[0] < 0 < right[0] and front_left[1] > 0 > back[1]


def test_scalp_map_interpolates_only_between_many_electrodes() -> None:
    assert scalp_map(np.arange(5.0), MUSE, (0.0, 4.0)).count('class="dot"') == 5
    assert scalp_map(np.arange(5.0), (*MUSE[:4], "nowhere"), (0.0, 4.0)).count('class="dot"') == 4
    assert scalp_map(np.ones(62), CH_NAMES, (1.0, 1.0)).startswith("<img")
    with pytest.raises(NeuroCanvasError, match="one per channel"):
        scalp_map(np.ones(4), MUSE, (0.0, 1.0))
