# SPDX-License-Identifier: MIT
"""Arrays in, the same kind of array out: numpy, torch on the CPU, ``__array__``, DLPack.

torch is never imported here: a tensor can only arrive when its owner has imported torch already.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _fault as fault
from ._device_arrays import Shadow, is_on_device

Restore = Callable[[NDArray[Any]], Any]
_DLPACK_CPU = 1


def open_array(where: str, name: str, value: Any) -> tuple[NDArray[Any], Restore]:
    """View a caller's array as numpy, and say how a result becomes what the caller gave.

    Nothing is copied unless numpy has no such dtype (bfloat16) or ``value`` is a nested list.

    Raises:
        TypeError: if it is no array of numbers, or a masked array.
        ValueError: if it is on an accelerator.
    """
    if type(value) is np.ndarray:
        return _numeric(where, name, value), _unchanged
    if _is_tensor(value):
        return _open_tensor(where, name, value)
    if isinstance(value, Shadow):
        return value, _unchanged
    if isinstance(value, np.ma.MaskedArray):
        raise fault.masked_array(where, name)
    return _numeric(where, name, _as_numpy(where, name, value)), _unchanged


def as_array(where: str, name: str, value: Any) -> NDArray[Any]:
    """Only the numpy view of ``open_array``, of what gets no gradient.

    Raises:
        ValueError: also if it is a tensor that requires one.
    """
    if requires_gradient(value):
        raise fault.no_gradient(where, name)
    return open_array(where, name, value)[0]


def requires_gradient(value: Any) -> bool:
    """Whether it is a tensor that autograd follows here and now."""
    if not _is_tensor(value):
        return False
    return bool(value.requires_grad and sys.modules["torch"].is_grad_enabled())


def float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """The values as float32; what does not fit becomes infinite.

    Copied only if they are not, or if the native core could not step through them: it counts
    strides in whole floats.
    """
    steps_in_floats = all(stride % 4 == 0 for stride in array.strides)
    if (
        array.dtype == np.float32
        and array.dtype.isnative
        and array.flags.aligned
        and steps_in_floats
    ):
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def is_flat(array: NDArray[Any]) -> bool:
    """Whether (C, *spatial) can be seen as (C, N): what is written to a copy would be lost."""
    return np.may_share_memory(array, array.reshape(len(array), -1))


def store(target: NDArray[Any], values: NDArray[np.float32]) -> None:
    """Write finite float32 values into an array of any float dtype."""
    target[...] = float16(values) if target.dtype == np.float16 else values


def float16(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Finite float32 values rounded as ``astype`` rounds them, many times faster.

    numpy's cast raises a floating-point flag for every subnormal (below 2^-14), and most marginals
    are subnormals. Here their bits are written: the multiple of 2^-24 that they are.
    """
    is_subnormal = np.abs(values) < np.float32(2.0**-14)
    result = np.where(is_subnormal, values * np.float32(0), values).astype(np.float16)
    multiples = np.rint(np.abs(values) * np.float32(2.0**24))
    result.view(np.uint16)[...] |= np.where(is_subnormal, multiples, 0).astype(np.uint16)
    return result


def _unchanged(result: NDArray[Any]) -> NDArray[Any]:
    return result


def _numeric(where: str, name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "biuf":
        raise fault.wrong_dtype(where, name, array.dtype, "real numbers")
    return array


def _is_tensor(value: Any) -> bool:
    tensor_type = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor_type is not None and isinstance(value, tensor_type)


def _open_tensor(where: str, name: str, tensor: Any) -> tuple[NDArray[Any], Restore]:
    torch = sys.modules["torch"]
    if tensor.device.type != "cpu":
        raise fault.on_a_device(where, name, tensor.device)
    if tensor.layout is not torch.strided:
        raise fault.wrong_dtype(where, name, f"{tensor.dtype} ({tensor.layout})", "a dense tensor")
    dense = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype is torch.bfloat16:
        return dense.float().numpy(), lambda result: _tensor(torch, result, tensor.dtype)
    return _numeric(where, name, dense.numpy()), lambda result: _tensor(torch, result, None)


def _tensor(torch: Any, result: NDArray[Any], dtype: Any) -> Any:
    tensor = torch.from_numpy(result)
    # Only floating results go back to bfloat16: labels keep their integers.
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def _as_numpy(where: str, name: str, value: Any) -> NDArray[Any]:
    if value is None or isinstance(value, str | bytes | dict | set):
        raise fault.not_an_array(where, name, value)
    if is_on_device(value) and not hasattr(value, "__dlpack_device__"):
        raise fault.on_a_device(where, name, "CUDA")
    device = getattr(value, "__dlpack_device__", None)
    if device is not None and int(device()[0]) != _DLPACK_CPU:
        raise fault.on_a_device(where, name, tuple(int(part) for part in device()))
    takes_dlpack = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
    try:
        array = np.from_dlpack(value) if takes_dlpack else np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise fault.not_an_array(where, name, value, error) from error
    if array.dtype == object:
        raise fault.not_an_array(where, name, value)
    return array
