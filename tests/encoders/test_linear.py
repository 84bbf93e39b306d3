"""Ridge: the closed form, checked against scikit-learn, with the penalty that validation trials choose."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from neurocanvas.encoders import EEGSpec, MeanMapper, RidgeMapper, TargetBasis
from neurocanvas.encoders.linear import PENALTIES
from neurocanvas.errors import NeuroCanvasError


@pytest.fixture
def parts():
    """A spec of 6 features, a basis of 5 axes, no standardisation."""
    basis = TargetBasis.fit(np.random.default_rng(0).normal(size=(9, 4, 16)), np.ones(9, int), 5)
    return EEGSpec(("O1", "O2", "Oz"), ("alpha", "beta"), (4, 16)), basis, np.zeros(6, "f4"), np.ones(6, "f4")


def test_ridge_is_the_best_of_the_closed_forms(parts):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(90, 6)).astype(np.float32)
    y = x @ rng.normal(size=(6, 5)) + 4 * rng.normal(size=(90, 5))
    ridge = RidgeMapper(*parts)
    ridge.fit(x[:40], y[:40], x[40:], y[40:])
    tried = PENALTIES * np.mean(np.linalg.svd(x[:40])[1] ** 2)
    models = [Ridge(alpha=penalty, fit_intercept=False).fit(x[:40], y[:40]) for penalty in tried]
    errors = [np.sum((model.predict(x[40:]) - y[40:]) ** 2) for model in models]
    best = int(np.argmin(errors))
    assert 0 < best < len(tried) - 1
    assert ridge.penalty == pytest.approx(tried[best], rel=1e-4)
    np.testing.assert_allclose(ridge.coefficients, models[best].coef_.T, atol=1e-4)


def test_weights_that_do_not_fit_are_refused(parts):
    with pytest.raises(NeuroCanvasError, match=r"shape \(6, 5\)"):
        RidgeMapper(*parts).load_weights({"coefficients": np.zeros((6, 4)), "penalty": np.ones(1)})
    with pytest.raises(NeuroCanvasError, match="no weights"):
        MeanMapper(*parts).load_weights({"coefficients": np.zeros((6, 5))})
