# SPDX-License-Identifier: MIT
"""Checks tensors among arguments, in sentences that name them."""

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from crfseg import _check as check
from crfseg import _fault as fault
from crfseg._device import require

FLOATS: Final = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LEVELS: Final = (*FLOATS, torch.uint8)
_DEVICES: Final = ("cpu", "cuda", "meta")


def any_tensor(where: str, name: str, value: Any) -> Tensor:
    """A tensor of any dtype, on any device."""
    if not isinstance(value, Tensor):
        raise check.mistyped(
            where,
            f"{name} is {check.show(value)} ({type(value).__name__}); expected a torch tensor",
        )
    return value


def module(where: str, name: str, value: Any) -> nn.Module:
    """A network, or a part of one."""
    if not isinstance(value, nn.Module):
        raise check.mistyped(
            where,
            f"{name} is {check.show(value)} ({type(value).__name__}); expected a torch.nn.Module",
        )
    return value


def tensor(where: str, name: str, value: Any, dtypes: Iterable[torch.dtype] = FLOATS) -> Tensor:
    """A dense tensor of floats, on a device that the ops have kernels for."""
    value = any_tensor(where, name, value)
    if value.layout is not torch.strided:
        raise fault.wrong_dtype(where, name, f"{value.dtype} ({value.layout})", "a dense tensor")
    if value.dtype not in dtypes:
        *others, last = [str(dtype).removeprefix("torch.") for dtype in dtypes]
        raise fault.wrong_dtype(where, name, value.dtype, f"{', '.join(others)} or {last}")
    if value.device.type not in _DEVICES:
        raise fault.on_a_device(where, name, value.device)
    if value.device.type == "cuda" and has_values(value):
        require(where, name)
    return value


def has_values(tensor: Tensor) -> bool:
    """Whether values can be looked at: compiled code, meta and fake tensors have shapes alone."""
    if torch.compiler.is_compiling():
        return False
    return tensor.device.type != "meta" and not isinstance(tensor, FakeTensor)


def same_device(where: str, first: tuple[str, Any], *others: tuple[str, Any]) -> None:
    """Refuse tensors on several devices before anything is said about one of them alone."""
    name, value = first
    for other_name, other in others:
        if not isinstance(other, Tensor) or not isinstance(value, Tensor):
            continue
        if other.device != value.device:
            raise check.invalid(
                where,
                f"{other_name} is on device {other.device} but {name} on {value.device}; "
                "expected them on one device",
            )


def shape(where: str, name: str, value: Tensor, fits: bool, expected: str) -> Tensor:
    """A tensor whose shape is as expected."""
    if not fits:
        raise fault.wrong_shape(where, name, tuple(value.shape), expected)
    return value


def count(where: str, name: str, found: int, expected: int, like: str) -> None:
    """Refuse lists of another length than the one they go with."""
    if found != expected:
        raise check.invalid(where, f"{name} has {found} entries; expected {expected}, {like}")


def sequence(where: str, name: str, value: Any, expected: str) -> list[Any]:
    """A list or tuple, as a list."""
    if not isinstance(value, list | tuple):
        raise check.mistyped(where, f"{name} is {check.show(value)}; expected {expected}")
    return list(value)
