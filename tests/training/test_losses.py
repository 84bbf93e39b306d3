"""Scores from coordinates agree with scores from whole targets."""

import numpy as np
import pytest
import torch

from neurocanvas.encoders.target_pca import TargetPCA
from neurocanvas.training.losses import (
    contrastive_error,
    cosine_error,
    mse_per_element,
    squared_error,
    two_way_of_trials,
)


@pytest.fixture
def world():
    """12 targets, a basis of 4 axes from the first 8, predictions near the truth."""
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(12, 4, 16)).astype(np.float32)
    basis = TargetPCA.fit(targets, np.r_[np.ones(8, int), np.zeros(4, int)], 4)
    predicted = basis.transform(targets) + rng.normal(size=(12, 4)).astype(np.float32)
    return targets, basis, predicted


def test_mse_from_coordinates_is_the_mse_of_the_targets(world):
    targets, basis, predicted = world
    expected = np.mean((basis.inverse(predicted) - targets) ** 2)
    found = mse_per_element(predicted, basis.transform(targets), basis.squared_distance(targets), basis)
    assert found == pytest.approx(expected, rel=1e-5)


def test_two_way_from_coordinates_is_two_way_by_cosine_in_the_whole_space(world):
    targets, basis, predicted = world
    a = (basis.inverse(predicted) - basis.mean).reshape(12, -1)
    b = (targets - basis.mean).reshape(12, -1)
    cosine = a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    wins = [np.mean([cosine[i, i] > cosine[i, j] for j in range(12) if j != i]) for i in range(12)]
    distance = basis.squared_distance(targets)
    found = two_way_of_trials(predicted, basis.transform(targets), distance, np.arange(12)).mean()
    assert found == pytest.approx(np.mean(wins))
    assert 0.5 < found < 1


def test_ties_count_half_and_repeated_trials_are_no_distractors():
    true = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    nothing = np.zeros(4)
    assert two_way_of_trials(np.zeros((4, 2)), true, nothing, np.arange(4)).mean() == 0.5
    assert two_way_of_trials(true, true, nothing, np.arange(4)).mean() == pytest.approx((1 + 1 + 0.5) / 3)
    assert two_way_of_trials(true, true, nothing, np.array([5, 5, 7, 7])).mean() == 1.0
    assert np.isnan(two_way_of_trials(true, true, nothing, np.zeros(4, int))).all()


def test_the_loss_is_the_squared_distance():
    assert squared_error(torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [0.0, 2.0]])).item() == 3.0


def test_cosine_error_is_the_angle_around_the_mean_target_whatever_the_length(world):
    targets, basis, predicted = world
    true = basis.transform(targets)
    around = [basis.inverse(part).reshape(12, -1) - basis.mean.reshape(-1) for part in (predicted, true)]
    angles = np.sum(around[0] * around[1], axis=1) / np.prod([np.linalg.norm(part, axis=1) for part in around], axis=0)
    for scale in (1, 9):
        found = cosine_error(torch.from_numpy(scale * predicted), torch.from_numpy(true))
        assert float(found) == pytest.approx(1 - np.mean(angles), rel=1e-4)


def test_contrastive_error_is_the_cross_entropy_of_finding_ones_own_target():
    rng = np.random.default_rng(1)
    predicted, true = rng.normal(size=(2, 5, 3)).astype(np.float32)
    true[4] = 2 * true[1]  # one target shown twice: directions cannot tell them apart, and either one is right

    logits = np.array([[a @ b / np.linalg.norm(b) / 0.5 for b in true] for a in predicted])
    right = [[0], [1, 4], [2], [3], [1, 4]]

    def cross_entropy(rows):
        shares = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
        return np.mean([-np.mean(np.log(share[own])) for share, own in zip(shares, right, strict=True)])

    found = contrastive_error(torch.from_numpy(predicted), torch.from_numpy(true), 0.5)
    assert float(found) == pytest.approx((cross_entropy(logits) + cross_entropy(logits.T)) / 2, rel=1e-5)
