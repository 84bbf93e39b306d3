"""The order of concepts by meaning."""

import numpy as np

from neurocanvas.evaluation.summary import semantic_order


def test_like_concepts_stand_together():
    rng = np.random.default_rng(0)
    centres = 5 * rng.standard_normal((3, 20))
    kind = np.tile(np.arange(3), 4)
    places = semantic_order(centres[kind] + 0.1 * rng.standard_normal((12, 20)))
    assert sorted(places) == list(range(12))
    sorted_kinds = kind[np.argsort(places)]
    assert np.count_nonzero(np.diff(sorted_kinds)) == 2
    assert semantic_order(centres[:2]).tolist() == [0, 1]
