# SPDX-License-Identifier: MIT
"""From what was given to refine() to the unary of a mean field on a device."""

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _explain as explain
from ._device import Memory, Place, upload
from ._device_arrays import BFLOAT16, FLOAT16, FLOAT32, Shadow, convert, to_host
from ._native import core
from ._scores import Scores
from ._unaries import Unaries
from .pairwise import Grid
from .unary import PROBABILITY_FLOOR

if TYPE_CHECKING:
    from ._native import cuda

Typed = tuple[int, int, int, int, int]
FLOATS = {FLOAT32: 0, FLOAT16: 1, BFLOAT16: 2}
"""From types of elements to those of scores."""
_KINDS = {
    "probs": core.UNARY_PROBABILITIES,
    "scores": core.UNARY_PROBABILITIES,
    "logits": core.UNARY_LOGITS,
    "mask": core.UNARY_FOREGROUND,
}


class DeviceUnaries:
    """The unary half of a model on a device, for any items of x.

    Scores are read where they lie. Labels and masks, which are looked at on the host, come from
    there.
    """

    def __init__(self, where: str, place: Place, scores: Scores, unaries: Unaries) -> None:
        self._where, self._place = where, place
        self._scores, self._unaries = scores, unaries

    def load(self, field: "cuda.MeanField", first: int, n: int, size: Grid) -> Memory:
        """Give ``field`` the unary of ``n`` items from one on; keep what is returned till then."""
        items = self._scores.items[first : first + n]
        if self._scores.kind == "labels" or items.dtype.kind != "f":
            return self._load_labels(field, items)
        n_labels = items.shape[1] if self._scores.is_soft else 1
        values, memory = self._floats(items, n_labels)
        kind = _KINDS[self._scores.kind]
        if self._scores.alignment is None:
            field.set_unary(values, kind, PROBABILITY_FLOOR)
        else:
            (rows, columns), (height, width) = self._scores.grid.values(), size
            is_align_corners = self._scores.alignment == "align-corners"
            field.set_coarse_unary(
                values, rows, columns, kind, PROBABILITY_FLOOR, height, width, is_align_corners
            )
        return memory

    def judge(self, found: tuple[bool, float, float], first: int, n: int) -> None:
        """Raise if what a field found in the scores of these items is none that scores have."""
        if self.is_wrong(found):
            array = to_host(self._scores.array)
            here = self._unaries.of(self._scores._replace(array=array))
            for i in range(first, first + n):
                here.examine(i)

    def is_wrong(self, found: tuple[bool, float, float]) -> bool:
        """Whether it seems to be so."""
        is_bad, low, off = found
        is_negative = low < -explain.NEGATIVE_TOLERANCE
        is_off = not off <= explain.SUM_TOLERANCE
        is_wrong = {
            "probs": is_bad or is_negative or is_off,
            "scores": is_bad or is_negative,
            "logits": is_bad or not (is_negative or is_off),
        }
        return is_wrong.get(self._scores.kind, False)

    def _load_labels(self, field: "cuda.MeanField", items: NDArray[Any]) -> Memory:
        labels, energies = self._unaries.hard_labels(items)
        memory = upload(self._where, self._place, labels)
        field.set_labels(memory.address, *energies)
        return memory

    def _floats(self, items: NDArray[Any], n_labels: int) -> tuple[Typed, Memory]:
        """Items (n, C, *grid), or (n, *grid) of one label, as the field reads them."""
        n_points = math.prod(self._scores.grid.values())
        packed = (FLOATS[FLOAT32], n_labels * n_points, n_points, 1)
        if not isinstance(items, Shadow):
            memory = upload(self._where, self._place, items.astype(np.float32))
            return (memory.address, *packed), memory
        n_axes = len(self._scores.grid)
        point = _step_of_all(items.shape[-n_axes:], items.steps[-n_axes:])
        if point is not None and items.code in FLOATS:
            label = items.steps[1] if self._scores.is_soft else 0
            strides = (items.steps[0], label, point)
            return (items.address, FLOATS[items.code], *strides), Memory(0, items)
        memory = self._place.memory(4 * items.size)
        convert(items, memory.address, FLOAT32)
        return (memory.address, *packed), memory


def _step_of_all(shape: tuple[int, ...], steps: tuple[int, ...]) -> int | None:
    """The one step between points that follow each other along several axes, if there is one."""
    long = [(n, step) for n, step in zip(shape, steps, strict=True) if n != 1]
    for (_, outer), (n, inner) in itertools.pairwise(long):
        if outer != n * inner:
            return None
    return long[-1][1] if long else 1
