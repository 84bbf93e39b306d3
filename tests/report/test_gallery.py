"""Which trials the page shows."""

import numpy as np

from neurocanvas.report.gallery import choose_trials


def test_trials_are_chosen_by_rank() -> None:
    scores = {("0", trial): trial / 99 for trial in range(100)}
    groups = choose_trials(scores)
    assert groups[0][1] == [("0", 99), ("0", 98), ("0", 97), ("0", 96)]
    assert groups[1][1] == [("0", 51), ("0", 50), ("0", 49), ("0", 48)]
    assert groups[2][1] == [("0", 3), ("0", 2), ("0", 1), ("0", 0)]
    shown = [key for _, keys in groups for key in keys]
    assert len(set(shown)) == len(shown) == 24
    spaced = [scores[key] for key in groups[3][1]]
    assert np.ptp(np.diff(spaced)) < 0.06  # even, but for the gap that the middle leaves
    assert choose_trials({("0", 1): 0.2, ("1", 0): 0.9}) == [("All 2 trials, best first", [("1", 0), ("0", 1)])]
