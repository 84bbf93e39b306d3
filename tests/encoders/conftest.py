"""What tests of the networks share: reference implementations, and one training step."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tools"), str(ROOT / "tests" / "golden")]


@pytest.fixture
def random_state():
    """Lend torch's global random state to a test, from a fixed seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
        yield


@pytest.fixture
def with_drawn_weights():
    """Give a network weights that depend on their names and shapes alone; return it in evaluation mode, and them."""
    import torch
    from forward_passes import draw_state

    def give(network, seed=0):
        state = draw_state({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}, seed)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        return network.eval(), state

    return give


@pytest.fixture
def same_training():
    """Check that two networks of equal weights put out the same and are the same after two training steps."""
    import torch

    def check(network, input_, other, other_input, n_outputs):
        other.load_state_dict(network.state_dict())
        target = torch.from_numpy(np.random.default_rng(5).integers(n_outputs, size=len(input_)))
        for one in (network, other):
            one.train()
        pairs = [(one, torch.optim.SGD(one.parameters(), 0.01, momentum=0.9)) for one in (network, other)]
        for _ in range(2):
            outputs = []
            for (one, optimizer), x in zip(pairs, (input_, other_input), strict=True):
                outputs.append(one(x))
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(outputs[-1], target).backward()
                optimizer.step()
            torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
        for (name, ours), theirs in zip(network.state_dict().items(), other.state_dict().values(), strict=True):
            size = max(1.0, theirs.abs().max().item())
            named = {"msg": lambda text, name=name: f"{name}: {text}"}
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * size, **named)

    return check
