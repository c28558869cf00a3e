# SPDX-License-Identifier: MIT
"""refine() of arrays on a CUDA device: what ``_items`` does on the CPU, whole batches at once."""

import math
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _fault_device as fault
from . import _native as native
from ._device import Place, explained
from ._device_arrays import BFLOAT16, FLOAT16, FLOAT32, INT32, TYPES, UINT8
from ._device_kernels import DeviceKernels
from ._device_results import empty_result
from ._device_unaries import FLOATS, DeviceUnaries, Typed
from ._results import Form, laid_out
from ._scores import Scores
from ._thin import TRUST
from .graphs import current_room

if TYPE_CHECKING:
    from ._native import cuda

_MOST_CORNERS = 2**31  # of a group of items, of each of their lattices


class _Target(NamedTuple):
    """The result, packed, items first."""

    address: int
    code: int  # of its elements
    itemsize: int
    layout: str
    shape: tuple[int, ...]

    @property
    def item_size(self) -> int:
        """Elements of an item."""
        n_items = self.shape[0] if "N" in self.layout else 1
        return math.prod(self.shape) // max(n_items, 1)

    def at(self, item: int) -> int:
        """Where an item begins."""
        return self.address + item * self.item_size * self.itemsize

    @property
    def lengths(self) -> list[tuple[str, int]]:
        """Of every axis, by its letter."""
        return list(zip(self.layout, self.shape, strict=True))

    def steps(self) -> tuple[int, int, int]:
        """Between items, labels and points."""
        after = {axis: math.prod(self.shape[i + 1 :]) for i, axis in enumerate(self.layout)}
        return self.item_size, after.get("C", 0), after[self.layout.replace("C", "")[-1]]


def require_size(where: str, n_labels: int) -> None:
    """Raise if a device takes no model of so many labels."""
    most = native.cuda.MOST_LABELS
    if n_labels > most:
        raise fault.not_there(where, f"a model of {n_labels} labels", f"at most {most}")


class DeviceJob(NamedTuple):
    """The items of one call, checked as far as that goes without looking at values."""

    where: str
    place: Place
    grid: tuple[int, ...]
    scores: Scores
    n_labels: int
    unaries: DeviceUnaries
    kernels: DeviceKernels
    form: Form
    foreground: int
    iterations: int
    tolerance: float
    damping: float
    keep_thin: int
    has_halves: bool
    """Whether rows are stored as float16 where that will do: csrc/cuda/storage.h says where."""

    def run(self, x: Any, x_type: "np.dtype[Any] | None", n_items: int, at_once: int) -> Any:
        """The result as an array of the library of ``x``; ``at_once``: so many items at most."""
        layout, shape = laid_out(self.form, self.scores, self.grid, self.n_labels)
        stays_bfloat16 = x_type is None and self.form.dtype.kind == "f"
        dtype = None if stays_bfloat16 else self.form.dtype
        with explained(self.where, f"a result of shape {shape}"):
            address, restore = empty_result(x, self.place, shape, dtype)
        code, itemsize = (BFLOAT16, 2) if dtype is None else (TYPES[dtype], dtype.itemsize)
        target = _Target(address, code, itemsize, layout, shape)
        most = min(at_once, self._most_at_once)
        for first in range(0, n_items, most):
            self._refine(target, first, min(most, n_items - first))
        return restore()

    @property
    def _most_at_once(self) -> int:
        n_corners = math.prod(self.grid) * (max(self.kernels.dims, default=0) + 1)
        return max(1, _MOST_CORNERS // n_corners)

    def _refine(self, target: _Target, first: int, n: int) -> None:
        """Refine so many items together, or as many as there is memory for."""
        if not self._has_refined(target, first, n):
            self._refine(target, first, n // 2)
            self._refine(target, first + n // 2, n - n // 2)

    def _has_refined(self, target: _Target, first: int, n: int) -> bool:
        try:
            with explained(self.where, f"{n} x {self.n_labels} labels of {self.grid} points"):
                self._infer(target, first, n)
        except native.cuda.TooCoarse:
            self._replace(has_halves=False)._refine(target, first, n)  # noqa: SLF001 - its own kind
        except (MemoryError, native.cuda.TooManyItems):
            if n == 1 or current_room() is not None:
                raise
            return False
        return True

    def _infer(self, target: _Target, first: int, n: int) -> None:
        width = self.grid[-1] if len(self.grid) > 1 else 0
        tiles = (n, math.prod(self.grid), width, self.kernels.side)
        storage = FLOATS[FLOAT16 if self.has_halves else FLOAT32]
        field = native.cuda.MeanField(*tiles, self.n_labels, storage, *self.place)
        given = self.unaries.load(field, first, n, self.grid)
        if self.keep_thin:
            field.hold_thin(self.keep_thin, TRUST)
        self.kernels.connect(field, first, n)
        room = current_room()
        if room is None:
            self.unaries.judge(field.findings(), first, n)
        else:
            room.watch(partial(self._look_again, field))
        if self.form.holds in ("labels", "mask"):
            self._write_labels(field, target, first, n)
        else:
            self._write_marginals(field, target, first, n)
        del given  # which the stream has read by then

    def _look_again(self, field: "cuda.MeanField") -> None:
        with explained(self.where, "a graph"):
            native.cuda.synchronize(self.place.device)  # it may be replayed on any stream
            found = field.findings()
        if self.unaries.is_wrong(found):
            raise fault.bad_in_graph(self.where)

    def _run(self, field: "cuda.MeanField", *targets: Any) -> None:
        field.infer(None, self.iterations, self.tolerance, self.damping, False, *targets)

    def _write_labels(self, field: "cuda.MeanField", target: _Target, first: int, n: int) -> None:
        unsure = self.form.unsure
        least, mark = (0.0, 0) if unsure is None else unsure
        is_narrow = self.n_labels <= 256 and 0 <= mark <= 255
        is_mask = self.form.holds == "mask"
        here, code = target.at(first), UINT8 if is_narrow else INT32
        if target.code == code and not (is_mask and self.foreground != 1):
            self._run(field, None, 0, False, here, is_narrow, least, mark)
            return
        n_values = n * target.item_size
        labels = self.place.memory(n_values * (1 if is_narrow else 4))
        self._run(field, None, 0, False, labels.address, is_narrow, least, mark)
        factor = None if not is_mask else _times(self.foreground)
        self._convert(labels.address, code, [n_values], [1], factor, here, target.code)

    def _write_marginals(
        self, field: "cuda.MeanField", target: _Target, first: int, n: int
    ) -> None:
        first_label = int(self.form.holds == "foreground")
        form = (first_label, self.form.holds == "log-probs", None, False, 0.0, 0)
        here = target.at(first)
        if target.code in FLOATS:
            self._run(field, (here, FLOATS[target.code], *target.steps()), *form)
            return
        n_points = math.prod(self.grid)
        of_item = n_points * (self.n_labels - first_label)
        scratch = self.place.memory(4 * n * of_item)
        packed: Typed = (scratch.address, FLOATS[FLOAT32], of_item, n_points, 1)
        self._run(field, packed, *form)
        steps = {"N": of_item, "C": n_points} | _packed(self.scores.grid, self.grid)
        shape = [n if axis == "N" else length for axis, length in target.lengths]
        of_axes = [steps[axis] for axis, _ in target.lengths]
        self._convert(scratch.address, FLOAT32, shape, of_axes, None, here, target.code)

    def _convert(self, *what: Any) -> None:
        convert: Any = native.cuda.convert
        convert(*what, *self.place[:2])


def _packed(axes: Iterable[str], grid: tuple[int, ...]) -> dict[str, int]:
    """Steps along spatial axes, the last one fastest."""
    return {axis: math.prod(grid[i + 1 :]) for i, axis in enumerate(axes)}


def _times(factor: int) -> tuple[NDArray[np.float32], ...]:
    """What multiplies values, for ``convert``: scale, offset, low, high, slack."""
    return tuple(np.array([one], np.float32) for one in (factor, 0, 0, np.inf, 0))
