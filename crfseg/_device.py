# SPDX-License-Identifier: MIT
"""Where work on a CUDA device goes, memory for it, and its errors in the caller's words."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _fault_device as fault
from . import _native as native

Allocate = Callable[[int], tuple[int, object]]


class Memory(NamedTuple):
    """Device memory for as long as its owner lives."""

    address: int
    owner: object


class Place(NamedTuple):
    """A device, the stream that everything is put on, and what gives memory in its order."""

    device: int
    stream: int
    allocate: Allocate | None
    """From a number of bytes to an address and its owner; None: the device's own."""

    def memory(self, n_bytes: int) -> Memory:
        """So many bytes, at least one."""
        n_bytes = max(n_bytes, 1)
        if self.allocate is not None:
            return Memory(*self.allocate(n_bytes))
        owned = native.cuda.Owned(n_bytes, self.device, self.stream)
        return Memory(owned.address, owned)


def upload(where: str, place: Place, values: NDArray[Any]) -> Memory:
    """A packed copy of an array on the device.

    Raises:
        CudaError: during a capture: the graph would read the host's memory again at every replay.
    """
    refuse_capture(where, place)
    packed = np.ascontiguousarray(values)
    memory = place.memory(packed.nbytes)
    native.cuda.upload(packed, memory.address, place.device, place.stream)
    return memory


def refuse_capture(where: str, place: Place) -> None:
    """Raise if what follows goes through the host while a graph is captured."""
    if native.cuda.is_capturing(place.stream):
        raise fault.host_in_graph(where)


def require_pool(where: str, place: Place) -> None:
    """Raise where a graph is captured whose memory nobody would keep for it."""
    if place.allocate is None and native.cuda.is_capturing(place.stream):
        raise fault.graph_without_pool(where)


def require(where: str, name: str = "x") -> None:
    """Raise unless a CUDA device can be used, on which an argument is."""
    why_not = native.why_no_cuda()
    if why_not is not None:
        raise fault.cannot_use(where, name, why_not)


@contextmanager
def explained(where: str, what: str) -> Iterator[None]:
    """Turn errors of the device into sentences about ``what``."""
    cuda = native.cuda
    try:
        yield
    except cuda.OutOfDeviceMemory as error:
        raise fault.out_of_memory(where, what, error.args[0]) from error
    except cuda.NoRoom as error:
        raise fault.NoRoomError(where, *error.args) from error
    except (cuda.TooCoarse, cuda.TooManyItems):
        raise  # for who can do otherwise
    except cuda.Error as error:
        raise fault.failed(where, error) from error
