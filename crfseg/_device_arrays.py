# SPDX-License-Identifier: MIT
"""Arrays in the memory of CUDA devices: where they are, and how they are packed.

No library of arrays is imported here: an array can only arrive when its owner has been imported.
Work is put on the stream that the owner works on: torch's and CuPy's current one, else the legacy
default stream, which waits for what the producer says.
"""

import mmap
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from . import _device as device
from . import _fault as fault
from . import _fault_device as fault_device
from . import _native as native
from ._device import Place

LEGACY: Final = 1  # what protocols call the default stream, whose handle is 0
ON_CUDA: Final = (2, 13)  # DLPack's device types: CUDA, and its managed memory
# The codes of csrc/cuda/convert.h.
BFLOAT16: Final = 9
TYPES: Final = {
    np.dtype(name): code
    for name, code in (
        *(("bool", 0), ("uint8", 0), ("int8", 1), ("uint16", 2), ("int16", 3), ("uint32", 4)),
        *(("int32", 5), ("uint64", 6), ("int64", 7), ("float16", 8), ("float32", 10)),
        ("float64", 11),
    )
}
UINT8, INT32, FLOAT16, FLOAT32 = (
    TYPES[np.dtype(name)] for name in ("uint8", "int32", "float16", "float32")
)
DLPACK_KINDS: Final = {"i": 0, "u": 1, "f": 2, "b": 6}  # DLPack's codes of types
DLPACK_BFLOAT: Final = 4


@dataclass(frozen=True, slots=True)
class Remote:
    """Memory that a `Shadow` stands for."""

    address: int  # of the shadow's first byte
    start: int  # where the shadow itself begins
    is_bfloat16: bool  # numpy has no such type: the shadow says float16
    place: Place
    owner: object
    is_ordered: bool
    """Whether who gets the memory after its owner works on the place's stream."""


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

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Axes may be moved, which looks at no value."""
        if function is not np.moveaxis:
            raise TypeError(f"{function.__name__} of an array on a device")
        return super().__array_function__(function, types, args, kwargs)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("values of an array on a device")

    astype = copy = tolist = item = tobytes = argmax = argmin = nonzero = _refuse

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
        return BFLOAT16 if self.remote.is_bfloat16 else TYPES[self.dtype]


def is_on_device(value: Any) -> bool:
    """Whether it is an array in the memory of a CUDA device."""
    if isinstance(value, np.ndarray):
        return False
    tensor_type = getattr(sys.modules.get("torch"), "Tensor", None)
    if tensor_type is not None and isinstance(value, tensor_type):
        return bool(value.device.type == "cuda")
    if hasattr(value, "__dlpack_device__"):
        return int(value.__dlpack_device__()[0]) in ON_CUDA
    return hasattr(value, "__cuda_array_interface__")


def open_on_device(where: str, name: str, value: Any, beside: Place | None = None) -> Shadow:
    """See where an array on a device lies; nothing is copied.

    It is worked on where its library works now, or at the place of another array: what comes to
    that stream then waits for what the array is still being made of.

    Raises:
        CudaError: if there is no device that can be used.
        TypeError, ValueError: if it is no dense array of numbers.
    """
    device.require(where)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return open_tensor(where, name, torch, value, beside)
    if hasattr(value, "__dlpack__"):
        return _open_dlpack(where, name, value, beside)
    return _open_interface(where, name, value, beside)


def beside(where: str, name: str, value: Any, place: Place) -> Any:
    """An argument that may lie on the device of another: opened if it does, else as it is.

    Raises:
        ValueError: if it is on another device.
    """
    if isinstance(value, list | tuple):
        return [beside(where, f"{name}[{i}]", one, place) for i, one in enumerate(value)]
    if not is_on_device(value):
        return value
    opened = open_on_device(where, name, value, place)
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
    *,
    is_ordered: bool,
) -> Shadow:
    """``strides`` in bytes, None: packed; ``dtype`` None: bfloat16."""
    stands_for = np.dtype(np.float16) if dtype is None else dtype
    if stands_for.newbyteorder("=") in TYPES and not stands_for.isnative:
        raise fault.wrong_dtype(where, name, stands_for, "native byte order")
    if stands_for not in TYPES:
        raise fault.wrong_dtype(where, name, stands_for, "real numbers")
    size = stands_for.itemsize
    if strides is None:
        strides = _packed(shape, size)
    long = [(n, s) for n, s in zip(shape, strides, strict=True) if n > 1]
    if address % size or any(stride % size for _, stride in long):
        raise fault_device.odd_strides(where, name)
    reach = [(n - 1) * s for n, s in long]
    before = -sum(r for r in reach if r < 0)
    extent = before + sum(r for r in reach if r > 0) + size
    steps = tuple(s if n > 1 else size for n, s in zip(shape, strides, strict=True))
    array: Shadow = Shadow(tuple(shape), stands_for, _untouched(where, name, extent), before, steps)
    start = int(array.ctypes.data)
    array.remote = Remote(address, start, dtype is None, place, owner, is_ordered)
    return array


def _untouched(where: str, name: str, n_bytes: int) -> mmap.mmap:
    """Addresses without memory behind them, until somebody looks, who finds zeros."""
    no_reserve = 0x4000  # MAP_NORESERVE of Linux
    try:
        return mmap.mmap(-1, n_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    except (OSError, OverflowError, ValueError) as error:
        raise fault.out_of_memory(where, f"the addresses of {name}, {n_bytes} bytes,") from error


def _packed(shape: Sequence[int], itemsize: int) -> list[int]:
    strides = []
    for length in reversed(shape):
        strides.append(itemsize)
        itemsize *= max(length, 1)
    return strides[::-1]


def open_tensor(
    where: str, name: str, torch: Any, tensor: Any, beside: Place | None = None
) -> Shadow:
    """The same of a tensor."""
    dtypes = {torch.bfloat16, *(getattr(torch, str(dtype)) for dtype in TYPES)}
    if tensor.layout is not torch.strided or tensor.dtype not in dtypes:
        found = f"{tensor.dtype} ({tensor.layout})"
        raise fault.wrong_dtype(where, name, found, "a dense tensor of real numbers")
    dense = tensor.detach().resolve_conj().resolve_neg()
    is_bfloat16 = dense.dtype is torch.bfloat16
    size = dense.element_size()
    own = tensor_place(torch, dense)
    place = own if beside is None else beside
    if place.stream != own.stream and place.device == own.device:
        native.cuda.order_after(place.stream, own.stream, place.device)
    return _shadow(
        *(where, name, dense.data_ptr(), tuple(dense.shape)),
        [step * size for step in dense.stride()],
        None if is_bfloat16 else torch.empty(0, dtype=dense.dtype).numpy().dtype,
        place if place.device == own.device else own,
        dense,
        is_ordered=place.stream == own.stream,
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


def _open_dlpack(where: str, name: str, value: Any, beside: Place | None) -> Shadow:
    place = beside or _place_of(value, int(value.__dlpack_device__()[1]))
    said = place.stream or LEGACY
    try:
        capsule = value.__dlpack__(stream=said, max_version=(1, 0))
    except TypeError:  # of before DLPack 1
        capsule = value.__dlpack__(stream=said)
    borrowed = native.cuda.Borrowed(capsule)
    code, bits, lanes = borrowed.type
    kinds = {number: kind for kind, number in DLPACK_KINDS.items()}
    is_bfloat16 = (code, bits, lanes) == (DLPACK_BFLOAT, 16, 1)
    if lanes != 1 or bits not in (8, 16, 32, 64) or (code not in kinds and not is_bfloat16):
        raise fault.wrong_dtype(where, name, f"type {code} of {bits} bits", "real numbers")
    dtype = None if is_bfloat16 else np.dtype(f"{kinds[code]}{bits // 8}")
    size = bits // 8
    strides = None if borrowed.strides is None else [size * step for step in borrowed.strides]
    place = place._replace(device=borrowed.device[1])
    return _shadow(
        *(where, name, borrowed.address, borrowed.shape, strides, dtype, place, borrowed),
        is_ordered=_is_ordered(value, place),
    )


def _open_interface(where: str, name: str, value: Any, beside: Place | None) -> Shadow:
    said = value.__cuda_array_interface__
    if said.get("mask") is not None:
        raise fault.masked_array(where, name)
    address = int(said["data"][0])
    place = beside or _place_of(value, 0)
    if address != 0:  # of an empty array
        place = place._replace(device=native.cuda.device_of(address))
    producer = said.get("stream")
    if producer is not None and int(producer) != (place.stream or LEGACY):
        earlier = 0 if producer == LEGACY else int(producer)
        native.cuda.order_after(place.stream, earlier, place.device)
    return _shadow(
        *(where, name, address, tuple(said["shape"]), said.get("strides")),
        *(np.dtype(said["typestr"]), place, value),
        is_ordered=_is_ordered(value, place),
    )


def is_cupys(value: Any) -> bool:
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(value, cupy.ndarray)


def _is_ordered(value: Any, place: Place) -> bool:
    """Whether its library gives its memory away in the order of the place's stream."""
    return is_cupys(value) and _place_of(value, place.device).stream == place.stream


def _place_of(value: Any, index: int) -> Place:
    """CuPy's current stream and its pool; of other libraries the default stream."""
    if not is_cupys(value):
        return Place(index, 0, None)
    cupy = sys.modules["cupy"]

    def allocate(n_bytes: int) -> tuple[int, object]:
        try:
            with value.device:
                memory = cupy.cuda.alloc(n_bytes)
        except cupy.cuda.memory.OutOfMemoryError:
            raise native.cuda.OutOfDeviceMemory(n_bytes) from None
        return int(memory.ptr), memory

    with value.device:
        return Place(index, int(cupy.cuda.get_current_stream().ptr), allocate)


def let_go(where: str, arrays: Sequence[Any], place: Place) -> None:
    """Wait until arrays have been read whose owners may give their memory to other streams."""
    shadows = [one for one in arrays if isinstance(one, Shadow)]
    if any(not one.remote.is_ordered for one in shadows):
        with device.explained(where, "what was read"):
            native.cuda.synchronize(place.device)


def device_type(array: NDArray[Any]) -> "np.dtype[Any] | None":
    """Its type, None for bfloat16."""
    is_bfloat16 = isinstance(array, Shadow) and array.remote.is_bfloat16
    return None if is_bfloat16 else array.dtype
