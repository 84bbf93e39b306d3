"""The principal coordinates: orthonormal, fitted on what trains, and exact about the error."""

import numpy as np
import pytest

from neurocanvas.encoders.target_pca import TargetPCA
from neurocanvas.errors import NeuroCanvasError


@pytest.fixture
def targets():
    """30 targets of the real shape that span about 29 dimensions, with unequal spread, in half precision."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(3, 0.05, 40)
    flat = (rng.normal(size=(30, 40)) * spread) @ rng.normal(size=(40, 77 * 768)) / 20 + rng.normal(size=77 * 768)
    return flat.reshape(30, 77, 768).astype(np.float16)


def test_mse_in_the_subspace_plus_the_discarded_part_is_the_whole_mse(targets):
    rng = np.random.default_rng(1)
    basis = TargetPCA.fit(targets, np.ones(30, int), 8)
    predicted = rng.normal(size=(30, 8)).astype(np.float32) * basis.target_sd
    whole = np.mean((basis.inverse(predicted).astype(np.float64) - targets) ** 2)
    inside = np.sum((predicted - basis.transform(targets).astype(np.float64)) ** 2, axis=1)
    assert whole == pytest.approx(np.mean(inside + basis.squared_distance(targets)) / (77 * 768), rel=1e-6)


@pytest.mark.parametrize("exact_up_to", [4096, 0], ids=["products", "randomised"])
def test_it_is_the_svd_of_the_trials_that_train(targets, exact_up_to, monkeypatch):
    monkeypatch.setattr("neurocanvas.encoders.target_pca.EXACT_UP_TO", exact_up_to)
    small = targets[:, :2, :50].astype(np.float64)
    counts = np.arange(30) % 4
    basis = TargetPCA.fit(small, counts, 5)
    trials = np.repeat(small, counts, axis=0).reshape(counts.sum(), -1)
    _, singular, axes = np.linalg.svd(trials - trials.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(basis.mean.reshape(-1), trials.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(basis.target_sd, singular[:5] / np.sqrt(len(trials)), rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.sum(basis.axes * axes[:5], axis=1)), 1, atol=1e-4)
    assert basis.axes.dtype == basis.mean.dtype == np.float32


def test_fewer_axes_where_the_targets_span_fewer():
    rng = np.random.default_rng(2)
    distinct = rng.normal(size=(8, 4, 16))
    repeated = distinct[np.arange(24) % 8]
    basis = TargetPCA.fit(repeated, np.ones(24, int), 64)
    assert len(basis.axes) == 7
    np.testing.assert_allclose(basis.inverse(basis.transform(repeated)), repeated, atol=1e-5)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN"), (1.0, "at least 2")])
def test_targets_that_cannot_be_used_are_refused(value, message):
    with pytest.raises(NeuroCanvasError, match=message):
        TargetPCA.fit(np.full((5, 4, 16), value), np.ones(5, int), 2)


def test_weights_of_tokens_scale_the_error_and_leave_targets_where_they_are(targets):
    counts, rng = np.ones(30, int), np.random.default_rng(3)
    basis = TargetPCA.fit(targets, counts, 8, (1.0, 3.0, 0.5))
    weight = np.array([1.0, 3.0] + [0.5] * 75)
    weight /= weight.mean()
    predicted = rng.normal(size=(30, 8)).astype(np.float32) * basis.target_sd
    errors = (basis.inverse(predicted).astype(np.float64) - targets) ** 2
    inside = np.sum((predicted - basis.transform(targets).astype(np.float64)) ** 2, axis=1)
    found = np.mean(inside + basis.squared_distance(targets)) / (77 * 768)
    assert found == pytest.approx(np.mean(errors * weight[:, None]), rel=1e-6)
    whole = TargetPCA.fit(targets, counts, 64, (1.0, 3.0, 0.5))
    np.testing.assert_allclose(whole.inverse(whole.transform(targets)), targets, atol=2e-2)
    np.testing.assert_allclose(basis.mean, TargetPCA.fit(targets, counts, 8).mean)
    first = TargetPCA.fit(targets, counts, 1, (1.0, 1e-6)).axes.reshape(77, 768)
    assert np.sum(first[0] ** 2) > 0.99, "one token outweighs the others"


def test_equal_weights_change_nothing_and_too_many_are_refused(targets):
    counts = np.ones(30, int)
    one, other = TargetPCA.fit(targets, counts, 8), TargetPCA.fit(targets, counts, 8, (7.0,))
    assert one.axes.tobytes() == other.axes.tobytes() and one.target_sd.tobytes() == other.target_sd.tobytes()
    with pytest.raises(NeuroCanvasError, match="at most one for each of the 77 tokens; got 78"):
        TargetPCA.fit(targets, counts, 8, (1.0,) * 78)
