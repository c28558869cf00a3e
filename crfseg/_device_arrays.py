# SPDX-License-Identifier: MIT
"""Arrays in the memory of CUDA devices: where they are, and results of the same library.

No library of arrays is imported here: an array can only arrive when its owner has been imported.
Work is put on the stream that the owner works on: torch's and CuPy's current one, else the legacy
default stream, which waits for what the producer says.
"""

import mmap
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from . import _device as device
from . import _fault as fault
from . import _fault_device as fault_device
from . import _native as native
from ._device import Place

_LEGACY: Final = 1  # what protocols call the default stream, whose handle is 0
_ON_CUDA: Final = (2, 13)  # DLPack's device types: CUDA, and its managed memory
_BFLOAT16: Final = 9  # csrc/cuda/convert.h
TYPES: Final = {
    np.dtype(name): code
    for name, code in (
        *(("bool", 0), ("uint8", 0), ("int8", 1), ("uint16", 2), ("int16", 3), ("uint32", 4)),
        *(("int32", 5), ("uint64", 6), ("int64", 7), ("float16", 8), ("float32", 10)),
        ("float64", 11),
    )
}
_DLPACK_KINDS: Final = {"i": 0, "u": 1, "f": 2, "b": 6}  # DLPack's codes of types
_DLPACK_BFLOAT: Final = 4


@dataclass(frozen=True, slots=True)
class Remote:
    """Memory that a `Shadow` stands for."""

    address: int  # of the shadow's first byte
    start: int  # where the shadow itself begins
    is_bfloat16: bool  # numpy has no such type: the shadow says float16
    place: Place
    owner: object


class Shadow(NDArray[Any]):
    """An array on a device, as numpy sees it: shape, type and strides, and no values.

    Views of it stand for views of the array. Its own memory is never touched: it is what tells
    views apart.
    """

    remote: Remote

    def __array_finalize__(self, other: Any) -> None:
        """Views have the same memory behind them."""
        remote = getattr(other, "remote", None)
        if remote is not None:
            self.remote = remote

    def __array_ufunc__(self, ufunc: Any, *_: Any, **__: Any) -> Any:
        """Nothing is computed with what is not here."""
        raise TypeError(f"{ufunc.__name__} of an array on a device")

    @property
    def address(self) -> int:
        """Where its first element lies on the device."""
        return self.remote.address + int(self.ctypes.data) - self.remote.start

    @property
    def steps(self) -> tuple[int, ...]:
        """Strides in elements."""
        return tuple(stride // self.itemsize for stride in self.strides)

    def backwards(self) -> "Shadow":
        """The last axis from its end on."""
        view: Any = self[..., ::-1]
        found: Shadow = view
        return found

    @property
    def code(self) -> int:
        """The type of its elements, as `convert` knows it."""
        return _BFLOAT16 if self.remote.is_bfloat16 else TYPES[self.dtype]


def is_on_device(value: Any) -> bool:
    """Whether it is an array in the memory of a CUDA device."""
    if isinstance(value, np.ndarray):
        return False
    tensor_type = getattr(sys.modules.get("torch"), "Tensor", None)
    if tensor_type is not None and isinstance(value, tensor_type):
        return bool(value.device.type == "cuda")
    if hasattr(value, "__dlpack_device__"):
        return int(value.__dlpack_device__()[0]) in _ON_CUDA
    return hasattr(value, "__cuda_array_interface__")


def open_on_device(where: str, name: str, value: Any) -> Shadow:
    """See where an array on a device lies; nothing is copied.

    Raises:
        CudaError: if there is no device that can be used.
        TypeError, ValueError: if it is no dense array of numbers.
    """
    device.require(where)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return open_tensor(where, name, torch, value)
    if hasattr(value, "__dlpack__"):
        return _open_dlpack(where, name, value)
    return _open_interface(where, name, value)


def beside(where: str, name: str, value: Any, place: Place) -> Any:
    """An argument that may lie on the device of another: opened if it does, else as it is.

    Raises:
        ValueError: if it is on another device.
    """
    if isinstance(value, list | tuple):
        return [beside(where, f"{name}[{i}]", one, place) for i, one in enumerate(value)]
    if not is_on_device(value):
        return value
    opened = open_on_device(where, name, value)
    if opened.remote.place.device != place.device:
        found, expected = opened.remote.place.device, place.device
        raise fault_device.other_device(where, name, found, expected)
    return opened


def to_host(array: NDArray[Any]) -> NDArray[Any]:
    """The values in the host's memory; bfloat16 as float32. Waits for them."""
    if not isinstance(array, Shadow):
        return array
    place = array.remote.place
    target = np.dtype(np.float32) if array.remote.is_bfloat16 else array.dtype
    values = np.empty(array.shape, target)
    if array.size == 0:
        return values
    address, owner = array.address, array.remote.owner
    if target != array.dtype or not array.flags.c_contiguous:
        address, owner = place.memory(values.nbytes)
        convert(array, address, TYPES[target])
    native.cuda.download(address, values, place.device, place.stream)
    del owner  # not before this
    return values


Maps = Sequence[NDArray[np.float32]]
"""(scale, offset, low, high, slack), each one number or one per index of the last axis."""


def convert(array: Shadow, target: int, code: int, maps: Maps | None = None) -> None:
    """Pack an array into device memory as another type, and map its values.

    v = value * scale + offset, taken for a bound where it is beyond one by no more than slack, less
    low: see csrc/cuda/convert.h.
    """
    place = array.remote.place
    native.cuda.convert(
        array.address,
        array.code,
        array.shape,
        array.steps,
        None if maps is None else tuple(maps),  # type: ignore[arg-type]
        target,
        code,
        place.device,
        place.stream,
    )


# --- opening --------------------------------------------------------------------------------------


def _shadow(
    where: str,
    name: str,
    address: int,
    shape: Sequence[int],
    strides: Sequence[int] | None,
    dtype: "np.dtype[Any] | None",
    place: Place,
    owner: object,
) -> Shadow:
    """``strides`` in bytes, None: packed; ``dtype`` None: bfloat16."""
    stands_for = np.dtype(np.float16) if dtype is None else dtype
    if stands_for.kind not in "biuf" or stands_for not in TYPES or not stands_for.isnative:
        raise fault.wrong_dtype(where, name, stands_for, "real numbers")
    if strides is None:
        strides = _packed(shape, stands_for.itemsize)
    if any(stride % stands_for.itemsize for stride in strides):
        raise fault_device.odd_strides(where, name)
    reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True) if n > 0]
    before = -sum(r for r in reach if r < 0)
    extent = before + sum(r for r in reach if r > 0) + stands_for.itemsize
    array: Shadow = Shadow(tuple(shape), stands_for, _untouched(extent), before, tuple(strides))
    start = int(array.ctypes.data)
    array.remote = Remote(address, start, dtype is None, place, owner)
    return array


def _untouched(n_bytes: int) -> mmap.mmap:
    """Addresses without memory behind them, until somebody looks, who finds zeros."""
    no_reserve = 0x4000  # MAP_NORESERVE of Linux
    return mmap.mmap(-1, n_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)


def _packed(shape: Sequence[int], itemsize: int) -> list[int]:
    strides = []
    for length in reversed(shape):
        strides.append(itemsize)
        itemsize *= max(length, 1)
    return strides[::-1]


def open_tensor(where: str, name: str, torch: Any, tensor: Any) -> Shadow:
    if tensor.layout is not torch.strided or tensor.dtype.is_complex:
        found = f"{tensor.dtype} ({tensor.layout})"
        raise fault.wrong_dtype(where, name, found, "a dense tensor of real numbers")
    dense = tensor.detach().resolve_conj().resolve_neg()
    is_bfloat16 = dense.dtype is torch.bfloat16
    size = dense.element_size()
    return _shadow(
        *(where, name, dense.data_ptr(), tuple(dense.shape)),
        [step * size for step in dense.stride()],
        None if is_bfloat16 else torch.empty(0, dtype=dense.dtype).numpy().dtype,
        tensor_place(torch, dense),
        dense,
    )


def tensor_place(torch: Any, tensor: Any) -> Place:
    """Torch's current stream of a tensor's device, and its caching allocator."""

    def allocate(n_bytes: int) -> tuple[int, object]:
        try:
            memory = torch.empty(n_bytes, dtype=torch.uint8, device=tensor.device)
        except torch.cuda.OutOfMemoryError:
            raise native.cuda.OutOfDeviceMemory(n_bytes) from None
        return memory.data_ptr(), memory

    stream = torch.cuda.current_stream(tensor.device).cuda_stream
    return Place(tensor.device.index or 0, stream, allocate)


def _open_dlpack(where: str, name: str, value: Any) -> Shadow:
    index = int(value.__dlpack_device__()[1])
    stream = _stream_of(value)
    said = stream or _LEGACY
    try:
        capsule = value.__dlpack__(stream=said, max_version=(1, 0))
    except TypeError:  # of before DLPack 1
        capsule = value.__dlpack__(stream=said)
    borrowed = native.cuda.Borrowed(capsule)
    code, bits, lanes = borrowed.type
    kinds = {number: kind for kind, number in _DLPACK_KINDS.items()}
    is_bfloat16 = (code, bits, lanes) == (_DLPACK_BFLOAT, 16, 1)
    if lanes != 1 or (code not in kinds and not is_bfloat16):
        raise fault.wrong_dtype(where, name, f"type {code} of {bits} bits", "real numbers")
    dtype = None if is_bfloat16 else np.dtype(f"{kinds[code]}{bits // 8}")
    size = bits // 8
    strides = None if borrowed.strides is None else [size * step for step in borrowed.strides]
    place = Place(index, stream, None)
    return _shadow(where, name, borrowed.address, borrowed.shape, strides, dtype, place, borrowed)


def _stream_of(value: Any) -> int:
    """The stream that an array's library works on now, as far as it has such a thing."""
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(value, cupy.ndarray):
        with value.device:
            return int(cupy.cuda.get_current_stream().ptr)
    return 0


def _open_interface(where: str, name: str, value: Any) -> Shadow:
    said = value.__cuda_array_interface__
    index = int(getattr(getattr(value, "device", None), "id", 0))
    stream = _stream_of(value)
    producer = said.get("stream")
    if producer is not None:
        native.cuda.order_after(stream, 0 if producer == _LEGACY else int(producer), index)
    return _shadow(
        *(where, name, int(said["data"][0]), tuple(said["shape"]), said.get("strides")),
        *(np.dtype(said["typestr"]), Place(index, stream, None), value),
    )


# --- results --------------------------------------------------------------------------------------


class Result:
    """An array of ours on a device, for whoever asks by DLPack or ``__cuda_array_interface__``."""

    def __init__(self, shape: tuple[int, ...], place: Place, dtype: "np.dtype[Any] | None") -> None:
        self.shape = shape
        self._place = place
        self._dtype = dtype
        itemsize = 2 if dtype is None else dtype.itemsize
        n_bytes = itemsize * int(np.prod(shape, dtype=np.int64))
        self._memory = native.cuda.Owned(max(n_bytes, 1), *self._place[:2])

    @property
    def address(self) -> int:
        """Where it lies."""
        return self._memory.address

    def __dlpack_device__(self) -> tuple[int, int]:
        """CUDA's type and the device's number."""
        return _ON_CUDA[0], self._place.device

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> Any:
        """Make a capsule; the consumer's stream waits for ours."""
        if stream != -1:  # who says -1 sees to it
            consumer = 0 if stream in (None, _LEGACY) else int(stream or 0)
            native.cuda.order_after(consumer, self._place.stream, self._place.device)
        if self._dtype is None:
            return self._memory.lend(self.shape, _DLPACK_BFLOAT, 16)
        code = _DLPACK_KINDS[self._dtype.kind]
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
            "stream": self._place.stream or _LEGACY,
            "version": 3,
        }


def device_type(array: NDArray[Any]) -> "np.dtype[Any] | None":
    """Its type, None for bfloat16."""
    is_bfloat16 = isinstance(array, Shadow) and array.remote.is_bfloat16
    return None if is_bfloat16 else array.dtype


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
            itemsize = 2 if dtype is None else dtype.itemsize
            n_bytes = itemsize * int(np.prod(shape, dtype=np.int64))
            raise native.cuda.OutOfDeviceMemory(n_bytes) from None
        return tensor.data_ptr(), lambda: tensor
    result = Result(shape, place, dtype)
    return result.address, lambda: _handed_over(x, result)


def _handed_over(x: Any, result: Result) -> Any:
    """Our array as one of the library of ``x``; as it is where that takes none."""
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().from_dlpack(result)
    if type(x).__module__.startswith("numba."):
        return sys.modules["numba.cuda"].as_cuda_array(result)
    return result
