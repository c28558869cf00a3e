# SPDX-License-Identifier: MIT
"""Which inputs an output depends on, found by watching a network run on the meta device.

A field says, for every point along the last axis of a tensor, the first and the last column of the
input that it depends on. Every operation makes the field of its result from those of its arguments,
exactly, borders included: padding depends on nothing. Meta tensors hold no values, so any size is
free.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

_aten: Final = torch.ops.aten
_NOWHERE: Final = 2**40  # first > last: depends on nothing
Field = NDArray[np.int64]  # (2, n): first and last


def whole(n: int) -> Field:
    """The input's own: every point is itself."""
    return np.stack([np.arange(n), np.arange(n)])


def nothing(n: int) -> Field:
    """Of what does not depend on the input."""
    return np.stack([np.full(n, _NOWHERE), np.full(n, -_NOWHERE)])


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the fields of tensors through everything that is run inside."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fields = WeakTensorKeyDictionary()  # type: ignore[no-untyped-call]
        self._fields[image] = whole(image.shape[-1])

    def field(self, tensor: Tensor) -> Field | None:
        """Of a tensor; None if it does not depend on the input."""
        found: Field | None = self._fields.get(tensor)  # type: ignore[no-untyped-call]
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [a for a in _flat(args) if isinstance(a, Tensor) and a in self._fields]
        first = result[0] if isinstance(result, tuple | list) else result
        if tensors and isinstance(first, Tensor) and first.ndim == 4:
            rule = _RULES.get(func, _elementwise)
            self._fields[first] = rule([self._fields[t] for t in tensors], args, first.shape[-1])
        return result


def _flat(args: Any) -> list[Any]:
    return [b for a in args for b in (a if isinstance(a, list | tuple) else [a])]


def _joined(fields: list[Field]) -> Field:
    return np.stack(
        [np.min([f[0] for f in fields], axis=0), np.max([f[1] for f in fields], axis=0)]
    )


def _elementwise(fields: list[Field], _args: Any, n: int) -> Field:
    """Also of what is joined along channels, and of tensors stretched from one point."""
    return _joined([f if f.shape[1] == n else np.repeat(f[:, :1], n, axis=1) for f in fields])


def _gathered(field: Field, sources: NDArray[np.int64]) -> Field:
    """The union over (taps, n) sources; those outside are padding."""
    n = field.shape[1]
    is_inside = (sources >= 0) & (sources < n)
    padded = np.concatenate([field, nothing(1)], axis=1)
    taken = padded[:, np.where(is_inside, sources, n)]
    return np.stack([taken[0].min(axis=0), taken[1].max(axis=0)])


def _windows(
    field: Field, n: int, kernel: int, stride: int, padding: int, dilation: int = 1
) -> Field:
    taps = np.arange(kernel)[:, None] * dilation - padding
    return _gathered(field, taps + np.arange(n) * stride)


def _last(value: Any, default: int) -> int:
    """Of a parameter with one entry per axis, or one for all, or none."""
    return int(value[-1]) if value else default


def _convolution(fields: list[Field], args: Any, n: int) -> Field:
    _, weight, _, stride, padding, dilation, is_transposed = args[:7]
    kernel, stride = weight.shape[-1], _last(stride, 1)
    padding, dilation = _last(padding, 0), _last(dilation, 1)
    if not is_transposed:
        return _windows(fields[0], n, kernel, stride, padding, dilation)
    offsets = np.arange(n) + padding - np.arange(kernel)[:, None] * dilation
    return _gathered(fields[0], np.where(offsets % stride == 0, offsets // stride, -1))


def _pooling(fields: list[Field], args: Any, n: int) -> Field:
    kernel = _last(args[1], 1)
    stride = _last(args[2] if len(args) > 2 else None, kernel)
    padding = _last(args[3] if len(args) > 3 else None, 0)
    return _windows(fields[0], n, kernel, stride, padding)


def _unpooling(fields: list[Field], _args: Any, n: int) -> Field:
    """Windows of 2 x 2: each value is put somewhere in its own."""
    return _gathered(fields[0], (np.arange(n) // 2)[None])


def _slice(fields: list[Field], args: Any, n: int) -> Field:
    tensor, dim = args[0], args[1] if len(args) > 1 else 0
    if dim % tensor.ndim != tensor.ndim - 1:
        return fields[0]
    start = args[2] if len(args) > 2 and args[2] is not None else 0
    return fields[0][:, start : start + n]


_RULES: Final[dict[Any, Callable[[list[Field], Any, int], Field]]] = {
    _aten.convolution.default: _convolution,
    _aten.max_pool2d_with_indices.default: _pooling,
    _aten.avg_pool2d.default: _pooling,
    _aten.max_unpool2d.default: _unpooling,
    _aten.slice.Tensor: _slice,
}
