"""What the training tests share."""

import pytest


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are too small to share between threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
