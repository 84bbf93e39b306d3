"""Confusions of concepts, and the order by meaning."""

import numpy as np
import pytest

from neurocanvas.errors import NeuroCanvasError
from neurocanvas.evaluation.summary import confusion_counts, semantic_order


def test_confusions_are_counted():
    scores = np.array([[0.9, 0.1, 0], [0.1, 0.9, 0], [0.2, 0.8, 0], [0, 0.3, 0.7]])
    assert confusion_counts(scores, np.array([0, 0, 1, 2])).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    with pytest.raises(NeuroCanvasError, match="one column per trial"):
        confusion_counts(scores, np.array([0, 1]))


def test_like_concepts_stand_together():
    rng = np.random.default_rng(0)
    centres = 5 * rng.standard_normal((3, 20))
    kind = np.tile(np.arange(3), 4)
    places = semantic_order(centres[kind] + 0.1 * rng.standard_normal((12, 20)))
    assert sorted(places) == list(range(12))
    sorted_kinds = kind[np.argsort(places)]
    assert np.count_nonzero(np.diff(sorted_kinds)) == 2
    assert semantic_order(centres[:2]).tolist() == [0, 1]
