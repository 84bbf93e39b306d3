"""Scalp maps: where electrodes sit, and what is interpolated."""

import re

import numpy as np
import pytest

from neurocanvas.data.montage import CH_NAMES
from neurocanvas.errors import NeuroCanvasError
from neurocanvas.report.figures import scalp_map

MUSE = ("TP9", "AF7", "AF8", "TP10", "POz")


def test_electrodes_of_any_cap_stand_where_they_sit() -> None:
    drawn = scalp_map(np.arange(5.0), MUSE, (0.0, 4.0))
    places = [(float(x), float(y)) for x, y in re.findall(r'class="dot" cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    left, front_left, _, right, back = places  # nose up
    assert left[0] < 100 < right[0] and front_left[1] < 100 < back[1]


def test_scalp_map_interpolates_only_between_many_electrodes() -> None:
    assert scalp_map(np.arange(5.0), MUSE, (0.0, 4.0)).count('class="dot"') == 5
    assert scalp_map(np.arange(5.0), (*MUSE[:4], "nowhere"), (0.0, 4.0)).count('class="dot"') == 4
    assert scalp_map(np.ones(62), CH_NAMES, (1.0, 1.0)).startswith("<img")
    with pytest.raises(NeuroCanvasError, match="one per channel"):
        scalp_map(np.ones(4), MUSE, (0.0, 1.0))
