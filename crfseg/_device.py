# SPDX-License-Identifier: MIT
"""Arrays in the memory of CUDA devices: where they are, and results of the same library.

No library of arrays is imported here: an array can only arrive when its owner has been imported.
Everything runs on the stream that the owner says: torch's and CuPy's current one, else what the
interface gives (``__cuda_array_interface__`` version 3), else the legacy default stream.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _fault as fault

Allocate = Callable[[int], tuple[int, object]]
_LEGACY_STREAM = 1  # cudaStreamLegacy


@dataclass(frozen=True, slots=True)
class Place:
    """Where work goes, and what gives memory to it."""

    device: int
    stream: int
    allocate: Allocate | None  # None: the device's own, in the order of the stream


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """An array on a device. ``dtype`` is None for bfloat16, which numpy does not know."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    dtype: np.dtype[Any] | None
    place: Place
    owner: Any
    """Keeps the memory."""

    @property
    def is_contiguous(self) -> bool:
        """Whether it lies in one piece, the last axis fastest."""
        expected = 1
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if length != 1 and stride != expected:
                return False
            expected *= length
        return True


def is_on_device(value: Any) -> bool:
    """Whether it is an array in the memory of a CUDA device."""
    tensor_type = getattr(sys.modules.get("torch"), "Tensor", None)
    if tensor_type is not None and isinstance(value, tensor_type):
        return bool(value.device.type == "cuda")
    return hasattr(value, "__cuda_array_interface__")


def open_device(where: str, name: str, value: Any) -> DeviceArray:
    """See where an array on a device lies; nothing is copied.

    Raises:
        TypeError: if it is no dense array of numbers.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _open_tensor(where, name, torch, value)
    return _open_interface(where, name, value)


def _open_tensor(where: str, name: str, torch: Any, tensor: Any) -> DeviceArray:
    if tensor.layout is not torch.strided:
        raise fault.wrong_dtype(where, name, f"{tensor.dtype} ({tensor.layout})", "a dense tensor")
    dense = tensor.detach().resolve_conj().resolve_neg()
    device = dense.device

    def allocate(n_bytes: int) -> tuple[int, object]:
        memory = torch.empty(n_bytes, dtype=torch.uint8, device=device)
        return memory.data_ptr(), memory

    stream = torch.cuda.current_stream(device).cuda_stream
    dtype = None if dense.dtype is torch.bfloat16 else torch.empty(0, dtype=dense.dtype).numpy().dtype
    return DeviceArray(
        dense.data_ptr(),
        tuple(dense.shape),
        tuple(dense.stride()),
        dtype,
        Place(device.index, stream, allocate),
        dense,
    )


def _open_interface(where: str, name: str, value: Any) -> DeviceArray:
    said = value.__cuda_array_interface__
    dtype = np.dtype(said["typestr"])
    if dtype.kind not in "biuf":
        raise fault.wrong_dtype(where, name, dtype, "real numbers")
    shape = tuple(said["shape"])
    strides = said.get("strides")
    if strides is None:
        strides = np.empty(0, dtype).strides if not shape else _packed(shape, dtype.itemsize)
    if any(stride % dtype.itemsize for stride in strides):
        raise fault.wrong_dtype(where, name, dtype, "strides of whole elements")
    stream = _LEGACY_STREAM if said.get("stream") is None else int(said["stream"])
    device = int(getattr(getattr(value, "device", None), "id", 0))
    return DeviceArray(
        int(said["data"][0]),
        shape,
        tuple(stride // dtype.itemsize for stride in strides),
        dtype,
        Place(device, stream, None),
        value,
    )


def _packed(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides = []
    for length in reversed(shape):
        strides.append(itemsize)
        itemsize *= max(length, 1)
    return tuple(reversed(strides))
