"""Dropout."""

import pytest

from neurocanvas.models.dropout import drop_units


def test_a_share_is_left_out_and_the_mean_stays(random_state):
    import torch

    x = torch.full((400, 300), 2.0, requires_grad=True)
    found = drop_units(x, 0.25, training=True)
    assert found.unique().tolist() == pytest.approx([0, 2 / 0.75])
    assert (found == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    found.sum().backward()
    assert torch.equal(x.grad, found.detach() / 2)


@pytest.mark.parametrize(("share", "training"), [(0.5, False), (0.0, True)])
def test_nothing_is_left_out_otherwise(share, training):
    import torch

    x = torch.ones(50)
    assert drop_units(x, share, training) is x
