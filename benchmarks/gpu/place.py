# SPDX-License-Identifier: MIT
"""Where arrays of the native module lie: on a device through torch, or on the host, emulated."""

import importlib.util
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu.driver import DriverPlace
from gpu.report import LeftOut
from gpu.sections import REPOSITORY, Context

EMULATED = REPOSITORY / "build/benchmarks/tests/emulation"
ALIGNMENT = 256


class Held(Protocol):
    """An array that was put somewhere."""

    @property
    def address(self) -> int: ...

    def get(self) -> NDArray[Any]: ...


class Place(Protocol):
    """Puts arrays somewhere, and says on which stream things are done there."""

    @property
    def stream(self) -> int: ...

    def put(self, array: NDArray[Any]) -> Held: ...

    def filled(self, n_bytes: int, byte: int) -> Held: ...


@dataclass(frozen=True)
class OnHost:
    """Bytes at an aligned place, as an allocator for devices would give them."""

    array: NDArray[Any]

    @property
    def address(self) -> int:
        return int(self.array.ctypes.data)

    def get(self) -> NDArray[Any]:
        return self.array.copy()


class HostPlace:
    """The emulation's: addresses of the device are addresses of the host."""

    stream = 0

    def put(self, array: NDArray[Any]) -> OnHost:
        there = self._room(array.nbytes).view(array.dtype).reshape(array.shape)
        there[...] = array
        return OnHost(there)

    def filled(self, n_bytes: int, byte: int) -> OnHost:
        there = self._room(n_bytes)
        there[...] = byte
        return OnHost(there)

    @staticmethod
    def _room(n_bytes: int) -> NDArray[np.uint8]:
        room = np.empty(n_bytes + ALIGNMENT, np.uint8)
        begin = -room.ctypes.data % ALIGNMENT
        return room[begin : begin + n_bytes]


@dataclass(frozen=True)
class OnDevice:
    """A tensor."""

    tensor: Any

    @property
    def address(self) -> int:
        return int(self.tensor.data_ptr())

    def get(self) -> NDArray[Any]:
        found: NDArray[Any] = self.tensor.cpu().numpy()
        return found


class TorchPlace:
    """The first device, memory from torch's caching allocator, its current stream."""

    def __init__(self) -> None:
        import torch

        self._torch = torch

    @property
    def stream(self) -> int:
        return int(self._torch.cuda.current_stream().cuda_stream)

    def put(self, array: NDArray[Any]) -> OnDevice:
        return OnDevice(self._torch.from_numpy(np.ascontiguousarray(array)).to("cuda"))

    def filled(self, n_bytes: int, byte: int) -> OnDevice:
        return OnDevice(self._torch.full((n_bytes,), byte, dtype=self._torch.uint8, device="cuda"))


def native_module(context: Context) -> ModuleType:
    """``crfseg._cuda``, or the emulated one in its place."""
    if not context.emulated:
        from crfseg import _cuda

        module: ModuleType = _cuda
        return module
    paths = sorted(EMULATED.glob("_cuda*.so"))
    if not paths:
        raise LeftOut("there is no emulated module: make emulated")
    return load_module("_cuda", str(paths[0]))


def load_module(name: str, path: str) -> ModuleType:
    """A module from its file."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there for their module
    spec.loader.exec_module(module)
    return module


def place_of(context: Context) -> Place:
    if context.emulated:
        return HostPlace()
    return TorchPlace() if has_cuda_torch() else DriverPlace()


def has_cuda_torch() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def torch_device(context: Context) -> str:
    """Where tensors go: without a device, the CPU's ops stand in for those that are checked."""
    return "cpu" if context.emulated else "cuda"
