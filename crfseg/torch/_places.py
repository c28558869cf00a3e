# SPDX-License-Identifier: MIT
"""Where tensors on a device lie and are worked on, in the words of the native module."""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from crfseg import _native as native
from crfseg._device import require
from crfseg._device_arrays import tensor_place

from . import _refusals as refusals

NOWHERE: Final = (0, 0, 0, 0)  # in the place of what ``strided`` gives: nothing is written


class Home:
    """A device and the stream of what is kept there: all work on it is done in that order."""

    def __init__(self, where: str, device: torch.device) -> None:
        require(where)
        self.device = device
        self._stream = torch.cuda.current_stream(device)
        # PyTorch's allocator gives what is let go to the next on the same stream.
        self.place = tensor_place(torch, torch.empty(0, device=device))
        if native.cuda.is_capturing(self.place.stream):
            raise refusals.capture(where)

    def run(self, given: Sequence[Tensor], work: Callable[[], list[Tensor]]) -> list[Tensor]:
        """The tensors that ``work`` makes of ``given``, in turn whatever the current stream."""
        here = torch.cuda.current_stream(self.device)
        if here == self._stream:
            return work()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            found = work()
        here.wait_stream(self._stream)
        for tensor in given:
            tensor.record_stream(self._stream)
        for tensor in found:
            tensor.record_stream(here)
        return found


def target(tensor: Tensor) -> Tensor:
    """(B, C, N) float32 where a (B, C, *spatial) result is written: itself, where that is so."""
    flat = tensor.flatten(2)
    return flat if flat.dtype == torch.float32 else torch.empty_like(flat, dtype=torch.float32)


def finish(tensor: Tensor, written: Tensor) -> Tensor:
    """The tensor, once its ``target`` has been written."""
    if written.data_ptr() != tensor.data_ptr():
        tensor.copy_(written.reshape(tensor.shape))
    return tensor


def strided(array: Tensor) -> tuple[int, int, int, int]:
    """A (B, C, N) float32 tensor as the native module takes it."""
    item, label, point = array.stride()
    return array.data_ptr(), item, label, point
