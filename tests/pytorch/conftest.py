# SPDX-License-Identifier: MIT
"""What tests of tensors may ask for."""

import pytest

import crfseg
from crfseg import _device_arrays
from crfseg._device import Place
from emulated import emulated, needs_emulation

__all__ = ["emulated"]


@pytest.fixture
def one_thread():
    """PyTorch's own threads spin while they wait for each other, which takes long on busy cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[pytest.param("emulated", marks=needs_emulation), "cuda"])
def there(request, monkeypatch):
    """Puts tensors on a device, where there is none on an emulated one."""
    import torch

    if request.param == "cuda":
        if not torch.cuda.is_available() or not crfseg.info()["cuda"]:
            pytest.skip("there is no CUDA device")
        return lambda tensor: tensor.cuda()
    request.getfixturevalue("emulated")

    def is_on_device(value):
        return isinstance(value, torch.Tensor)

    def allocate(n_bytes):
        memory = torch.empty(n_bytes + 256, dtype=torch.uint8)
        return memory.data_ptr() + -memory.data_ptr() % 256, memory

    monkeypatch.setattr("crfseg._job.is_on_device", is_on_device)
    monkeypatch.setattr(_device_arrays, "is_on_device", is_on_device)
    monkeypatch.setattr(_device_arrays, "tensor_place", lambda *_: Place(0, 0, allocate))
    return lambda tensor: tensor
