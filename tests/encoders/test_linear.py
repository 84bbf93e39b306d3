"""Ridge: the closed form, checked against scikit-learn, with the penalty that validation trials choose."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Reference
from tiny import trial_spec

from neurocanvas.encoders.linear import PENALTIES, Mean, Ridge
from neurocanvas.targets import TargetSpace


@pytest.mark.parametrize("n_train", [40, 5], ids=["more trials than inputs", "fewer"])
def test_ridge_is_the_best_of_the_closed_forms(n_train):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(90, 3, 2)).astype(np.float32)
    y = (x.reshape(90, 6) @ rng.normal(size=(6, 5)) + 4 * rng.normal(size=(90, 5))).astype(np.float32)
    y -= y[:n_train].mean(axis=0)
    ridge = Ridge(trial_spec(3, n_bands=2), TargetSpace("clip-text", (5,)))
    ridge.fit_closed_form(*map(torch.from_numpy, (x[:n_train], y[:n_train], x[50:], y[50:])))
    flat = x.reshape(90, 6)
    centred = flat[:n_train] - flat[:n_train].mean(axis=0)
    tried = PENALTIES * np.mean(np.linalg.svd(centred.astype(np.float64))[1] ** 2)
    models = [Reference(alpha=penalty).fit(flat[:n_train], y[:n_train]) for penalty in tried]
    errors = [np.sum((model.predict(flat[50:]) - y[50:]) ** 2) for model in models]
    best = int(np.argmin(errors))
    assert ridge.penalty.item() == pytest.approx(tried[best], rel=1e-4)
    np.testing.assert_allclose(ridge(torch.from_numpy(x)).numpy(), models[best].predict(flat), atol=1e-4)


def test_mean_says_nothing_of_the_trial():
    mean = Mean(trial_spec(3, n_bands=2), TargetSpace("clip-text", (5,)))
    assert torch.equal(mean(torch.ones(4, 3, 2)), torch.zeros(4, 5))
