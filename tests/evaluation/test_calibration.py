"""A short version of docs/calibration.md: p-values on data without any link, intervals on data with a known score."""

import calibration
import numpy as np
import pytest
from scipy.stats import binom

SETS = 40
MOST = int(binom.ppf(0.9995, SETS, 0.05))  # false alarms, or misses, of one p-value or interval


@pytest.mark.parametrize(
    "design",
    ["20 images 6 times", "12 images 30 times", "5 folds", "leave-subject-out, 4 subjects", "12 concepts held out",
     "24 blocks", "part-blocked session", "5 subjects"],
)  # fmt: skip
def test_p_values_keep_their_level_and_intervals_cover(design: str) -> None:
    sets = [calibration.measure(design, 5000 + seed) for seed in range(SETS)]
    for name in sets[0]:
        assert np.sum([bool(one[name]) for one in sets]) <= MOST, name


@pytest.mark.parametrize("name", [name for name in calibration.tasks() if name not in calibration.DESIGNS])
def test_subjects_and_blocks_as_units(name: str) -> None:
    function, argument = calibration.tasks()[name]
    sets = [function(argument, 5000 + seed) for seed in range(SETS)]
    for what in sets[0]:
        flagged = np.sum([bool(one[what]) for one in sets])
        assert flagged >= 0.7 * SETS if "power" in what else flagged <= MOST, what
