# SPDX-License-Identifier: MIT
"""refine() of CUDA tensors. Without a device, the CPU's tensors say that they are on one, and the
kernels are emulated; with one, the same is asked of real ones.
"""

import numpy as np
import pytest

import crfseg
from crfseg import _device_arrays
from crfseg._device import Place
from emulated import MODULE
from test_device import scene

torch = pytest.importorskip("torch")


def compare(there, x, image, close=2e-6, **options):
    found = crfseg.refine(there(x), image, **options)
    given = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    expected = crfseg.refine(given, np.asarray(image), skip=False, **options)
    assert isinstance(found, torch.Tensor)
    assert found.device == there(x).device
    values = found.cpu()
    values = (values.float() if found.dtype == torch.bfloat16 else values).numpy()
    assert values.shape == expected.shape
    assert np.abs(values.astype(float) - expected).max() <= close
    return found


@pytest.mark.parametrize(
    ("name", "close"), [("float32", 2e-6), ("float64", 2e-6), ("float16", 1e-3), ("bfloat16", 5e-3)]
)
def test_it_comes_back_as_what_it_was(there, name, close):
    probs, image = scene()
    x = torch.from_numpy(probs).to(getattr(torch, name))
    # Half precision's sums are off by more than the check's hundredth nowhere.
    found = compare(there, x, there(torch.from_numpy(image)), close)
    assert found.dtype == x.dtype


def test_labels_and_masks(there):
    probs, image = scene(2)
    labels = torch.from_numpy(probs.argmax(0))
    assert compare(there, labels, image).dtype == torch.int64
    assert compare(there, labels.bool(), image).dtype == torch.bool
    assert compare(there, torch.from_numpy(probs), image, returns="labels").dtype == torch.uint8
    foreground = torch.from_numpy(probs[1]).bfloat16()
    found = compare(there, foreground, image, close=5e-3, kind="mask")
    assert found.dtype == torch.bfloat16


def test_views_and_batches(there):
    probs, image = scene()
    batch = torch.from_numpy(np.stack([probs, probs[::-1], probs]))
    images = torch.from_numpy(np.stack([image, image[::-1], image]))
    compare(there, batch, there(images))
    compare(there, batch[::2], there(images)[::2])
    compare(there, batch.permute(0, 2, 3, 1), there(images))
    last = there(images).permute(0, 3, 1, 2).contiguous()
    found = crfseg.refine(there(batch), last, image_layout="NKHW")
    assert torch.equal(found, crfseg.refine(there(batch), there(images)))


def test_an_image_that_requires_a_gradient(there):
    probs, image = scene()
    levels = there(torch.from_numpy(image / np.float32(255))).requires_grad_()
    with pytest.raises(ValueError, match="image requires a gradient"):
        crfseg.refine(there(torch.from_numpy(probs)), levels)


def test_memory_comes_from_torch(there, monkeypatch):
    if there(torch.zeros(1)).is_cuda:
        pytest.skip("counted where tensors are the CPU's")
    asked = []
    place = _device_arrays.tensor_place()

    def allocate(n_bytes):
        asked.append(n_bytes)
        return place.allocate(n_bytes)

    def refuse(*_):
        raise AssertionError("the device's own allocator was asked")

    monkeypatch.setattr(_device_arrays, "tensor_place", lambda *_: Place(0, 0, allocate))
    monkeypatch.setattr(MODULE, "Owned", refuse)
    probs, image = scene()
    crfseg.refine(torch.from_numpy(probs), torch.from_numpy(image))
    assert len(asked) > 10
