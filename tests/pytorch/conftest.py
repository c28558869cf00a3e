# SPDX-License-Identifier: MIT
"""What tests of training may ask for."""

import pytest


@pytest.fixture
def one_thread():
    """PyTorch's own threads spin while they wait for each other, which takes long on busy cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
