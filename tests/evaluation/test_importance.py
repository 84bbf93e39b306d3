"""Importance: what a score loses without a band or an electrode."""

import numpy as np
import pytest

from neurocanvas.pipeline.evaluate import importance

EVERY = slice(None)
GROUPS = {"O1": (0, EVERY), "O2": (1, EVERY), "alpha": (EVERY, 0), "gamma": (EVERY, 1)}


@pytest.fixture
def features():
    return np.random.default_rng(0).standard_normal((40, 2, 2))


def names_its_sign(features):
    """A decoder that reads gamma at O2 alone; the truth is the sign that is there."""
    return features[:, 1, 1]


def test_only_what_is_read_is_missed(features):
    truth = features[:, 1, 1] > 0

    def score(given):
        return ((names_its_sign(given) > 0) == truth).astype(float)

    before = features.copy()
    found = importance(score, features, GROUPS, np.full((2, 2), -1.0), rng=np.random.default_rng(0))
    np.testing.assert_array_equal(features, before)
    for kind in ("permutation", "occlusion"):
        lost = {name: values.mean() for name, values in found[kind].items()}
        assert lost["O1"] == lost["alpha"] == 0 and lost["O2"] == lost["gamma"] > 0.3
    assert found["occlusion"]["O2"].tolist() == truth.astype(float).tolist()  # replaced by -1: always "negative"
