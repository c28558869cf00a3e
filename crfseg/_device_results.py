# SPDX-License-Identifier: MIT
"""Results on CUDA devices: arrays of the library that x is of, for the kernels to write."""

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _native as native
from ._device import Place
from ._device_arrays import DLPACK_BFLOAT, DLPACK_KINDS, LEGACY, ON_CUDA, is_cupys


class Result:
    """An array of ours on a device, for whoever asks by DLPack or ``__cuda_array_interface__``."""

    def __init__(self, shape: tuple[int, ...], place: Place, dtype: "np.dtype[Any] | None") -> None:
        self.shape = shape
        self._place = place
        self._dtype = dtype
        self._memory = native.cuda.Owned(max(_n_bytes(shape, dtype), 1), *self._place[:2])

    @property
    def address(self) -> int:
        """Where it lies."""
        return self._memory.address

    def __dlpack_device__(self) -> tuple[int, int]:
        """CUDA's type and the device's number."""
        return ON_CUDA[0], self._place.device

    def __dlpack__(self, *, stream: int | None = None, copy: bool | None = None, **_: Any) -> Any:
        """Make a capsule; the consumer's stream waits for ours."""
        if copy:
            raise BufferError("crfseg makes no copies; expected copy=None or False")
        if stream != -1:  # who says -1 sees to it
            consumer = 0 if stream in (None, LEGACY) else int(stream or 0)
            native.cuda.order_after(consumer, self._place.stream, self._place.device)
        if self._dtype is None:
            return self._memory.lend(self.shape, DLPACK_BFLOAT, 16)
        code = DLPACK_KINDS[self._dtype.kind]
        return self._memory.lend(self.shape, code, 8 * self._dtype.itemsize)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3, which says the stream that it is ready on."""
        if self._dtype is None:
            raise AttributeError("the interface has no bfloat16; expected DLPack")
        return {
            "shape": self.shape,
            "typestr": self._dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": self._place.stream or LEGACY,
            "version": 3,
        }


Made = tuple[int, Callable[[], Any]]
"""An address, and what gives the caller's array once it has been written."""


def empty_result(
    x: Any, place: Place, shape: tuple[int, ...], dtype: "np.dtype[Any] | None"
) -> Made:
    """A packed array of the same library and on the same device as ``x``; None: bfloat16."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        of = torch.bfloat16 if dtype is None else torch.from_numpy(np.empty(0, dtype)).dtype
        try:
            tensor = torch.empty(shape, dtype=of, device=x.device)
        except torch.cuda.OutOfMemoryError:
            raise native.cuda.OutOfDeviceMemory(_n_bytes(shape, dtype)) from None
        return tensor.data_ptr(), lambda: tensor
    if is_cupys(x) and dtype is not None:
        return _cupy_result(x, shape, dtype)
    result = Result(shape, place, dtype)
    return result.address, lambda: _handed_over(x, result)


def _n_bytes(shape: tuple[int, ...], dtype: "np.dtype[Any] | None") -> int:
    return math.prod(shape) * (2 if dtype is None else dtype.itemsize)


def _cupy_result(x: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Made:
    cupy = sys.modules["cupy"]
    try:
        with x.device:
            array = cupy.empty(shape, dtype)
    except cupy.cuda.memory.OutOfMemoryError:
        raise native.cuda.OutOfDeviceMemory(_n_bytes(shape, dtype)) from None
    return int(array.data.ptr), lambda: array


def _handed_over(x: Any, result: Result) -> Any:
    """Our array as one of the library of ``x``; as it is where that takes none."""
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().from_dlpack(result)
    if type(x).__module__.startswith("numba."):
        numba = sys.modules["numba.cuda"]
        with numba.gpus[result.__dlpack_device__()[1]]:
            return numba.as_cuda_array(result)
    return result
