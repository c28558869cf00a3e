# SPDX-License-Identifier: MIT
"""The NVIDIA driver through ctypes: whether there is a device, and memory without torch.

compute-sanitizer runs on a program that does without torch, whose start takes it a minute.
"""

import contextlib
import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIBRARY = "libcuda.so.1"
FOLDERS = ("", "/usr/local/nvidia/lib64/", "/usr/lib/wsl/lib/")  # "": where the loader looks

MAJOR_AND_MINOR = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


class DriverError(RuntimeError):
    """A call of the driver that failed."""


class Driver:
    """The first device's primary context, which the CUDA runtime uses as well."""

    def __init__(self) -> None:
        self._library = load_library()
        self.call("cuInit", 0)

    def n_devices(self) -> int:
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def name(self) -> str:
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, len(text), self._device())
        return text.value.decode()

    def capability(self) -> str:
        """Compute capability, ``9.0``."""
        found = [ctypes.c_int(), ctypes.c_int()]
        for number, attribute in zip(found, MAJOR_AND_MINOR, strict=True):
            self.call("cuDeviceGetAttribute", ctypes.byref(number), attribute, self._device())
        return ".".join(str(number.value) for number in found)

    def make_current(self) -> None:
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device())
        self.call("cuCtxSetCurrent", context)

    def _device(self) -> ctypes.c_int:
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        return device

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            why = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(why))
            raise DriverError(f"{name}: {(why.value or b'error').decode()} ({status})")


def load_library() -> ctypes.CDLL:
    for folder in FOLDERS:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(folder + LIBRARY)
    raise DriverError(f"there is no NVIDIA driver: {LIBRARY} is not found")


def why_no_device() -> str:
    """Why there is no device; empty if there is one."""
    try:
        return "" if Driver().n_devices() > 0 else "the driver finds none"
    except DriverError as error:
        return str(error)


@dataclass
class Block:
    """Memory of the device, with the type and shape of what was put there."""

    driver: Driver
    address: int
    dtype: Any
    shape: tuple[int, ...]

    def get(self) -> NDArray[Any]:
        there = np.empty(self.shape, self.dtype)
        self.driver.call("cuCtxSynchronize")
        to, start = ctypes.c_void_p(there.ctypes.data), ctypes.c_uint64(self.address)
        self.driver.call("cuMemcpyDtoH_v2", to, start, ctypes.c_size_t(there.nbytes))
        return there


class DriverPlace:
    """A place (``gpu.place``) of memory from the driver, never given back; the default stream."""

    stream = 0

    def __init__(self) -> None:
        self._driver = Driver()
        self._driver.make_current()

    def put(self, array: NDArray[Any]) -> Block:
        flat = np.ascontiguousarray(array)
        block = self._block(flat.nbytes, flat.dtype, flat.shape)
        start, data = ctypes.c_uint64(block.address), ctypes.c_void_p(flat.ctypes.data)
        self._driver.call("cuMemcpyHtoD_v2", start, data, ctypes.c_size_t(flat.nbytes))
        return block

    def filled(self, n_bytes: int, byte: int) -> Block:
        return self.put(np.full(n_bytes, byte, np.uint8))

    def _block(self, n_bytes: int, dtype: Any, shape: tuple[int, ...]) -> Block:
        address = ctypes.c_uint64()
        self._driver.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(n_bytes, 1)))
        return Block(self._driver, address.value, dtype, shape)
