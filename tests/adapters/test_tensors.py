# SPDX-License-Identifier: MIT
"""What the adapters share: tensors come back to where they were, pictures have their axes."""

import numpy as np
import pytest

from crfseg.adapters import _tensors
from scene import SHARP, full_logits, photograph, truth

torch = pytest.importorskip("torch", reason="torch is not installed (make torch)")


class OnAnotherDevice:
    """A tensor on an accelerator, of which "meta" has nothing but the name."""

    device = torch.device("meta")

    def __init__(self, values):
        self._values = values

    def cpu(self):
        return self._values


def test_results_go_back_to_the_device():
    labels = truth()
    x = torch.from_numpy(full_logits(labels))
    found = _tensors.refined(OnAnotherDevice(x), photograph(labels), kind="logits", layout="CHW")
    assert (found.device.type, found.dtype, tuple(found.shape)) == ("meta", torch.uint8, (32, 48))


def test_arrays_are_taken_as_well():
    labels = truth()
    found = _tensors.refined(full_logits(labels), photograph(labels), kind="logits", **SHARP)
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "bfloat16"])
def test_tensors_have_their_channels_first(dtype):
    values = (
        torch.arange(24).reshape(3, 2, 4).to(getattr(torch, dtype)).requires_grad_(dtype != "uint8")
    )
    array = _tensors.picture(values)
    assert array.shape == (2, 4, 3)
    np.testing.assert_array_equal(array[1, 3], [7, 15, 23])
    assert _tensors.picture(values[None]).shape == (1, 2, 4, 3)
    assert _tensors.picture(values[0]).shape == (2, 4)  # grey
    assert [one.shape for one in _tensors.picture([values, values])] == [(2, 4, 3)] * 2


def test_others_are_left_as_they_are():
    photo = photograph(truth())
    assert _tensors.picture(photo) is photo
