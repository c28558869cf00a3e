# SPDX-License-Identifier: MIT
"""What ``x`` of refine() is: its kind, its layout, and how it lies on the image."""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _fault as fault
from .upsample import Size, alignments

KINDS: Final = ("auto", "probs", "logits", "labels", "mask")
LAYOUTS: Final = ("CHW", "HWC", "NCHW", "NHWC", "HW", "NHW")

# Where the axes of a layout are when the batch axis and the label axis come first.
_BATCH_FIRST: Final = {
    "CHW": (0, 1, 2),
    "HWC": (2, 0, 1),
    "NCHW": (0, 1, 2, 3),
    "NHWC": (0, 3, 1, 2),
}


class Scores(NamedTuple):
    """x, understood: nothing but its shape and dtype has been looked at."""

    array: NDArray[Any]
    kind: str
    guessed: bool  # the kind follows from the dtype, nobody said it
    layout: str
    alignment: str | None  # how it is upsampled to the image, None if it has the image's size

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every axis by its letter."""
        return dict(zip(self.layout, self.array.shape, strict=True))

    @property
    def is_soft(self) -> bool:
        """Whether it holds scores for every label, not hard labels or a mask."""
        return self.kind in ("probs", "logits")

    @property
    def items(self) -> NDArray[Any]:
        """A view with the batch axis first, then the label axis if there is one."""
        return batch_first(self.array, self.layout)


def batch_first(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """View an array in a layout as (N, C, H, W), or (N, H, W) without label axis."""
    if layout in _BATCH_FIRST:
        array = array.transpose(_BATCH_FIRST[layout])
    return array if layout[0] == "N" else array[np.newaxis]


def read_scores(
    where: str,
    array: NDArray[Any],
    kind: str,
    layout: str | None,
    upsample: str | bool,
    size: Size | None,
) -> Scores:
    """Settle the kind, layout and upsampling of x from dtype, shape and the image's (H, W).

    Raises:
        TypeError: if the kind needs another dtype.
        ValueError: if the sizes do not fit, or more than one reading is possible.
    """
    kind, guessed = _settle_kind(where, array, kind)
    known = _layouts_of(where, array, kind, layout)
    if size is None:
        if len(known) > 1:
            raise fault.ambiguous_layout(where, array.shape, known)
        return _not_empty(where, Scores(array, kind, guessed, known[0], None))
    exact = [one for one in known if _size_in(array, one) == size]
    if exact:
        return _not_empty(where, Scores(array, kind, guessed, _only(where, array, exact), None))
    if kind in ("labels", "mask"):
        raise fault.not_upsampled(where, array.shape, kind, size, known[0])
    layout, alignment = _stretch(where, array, known, upsample, size)
    return _not_empty(where, Scores(array, kind, guessed, layout, alignment))


def _settle_kind(where: str, array: NDArray[Any], kind: str) -> tuple[str, bool]:
    of_dtype = {"b": "mask", "i": "labels", "u": "labels", "f": "probs"}[array.dtype.kind]
    if kind == "auto":
        return of_dtype, True
    if kind == "mask" or kind == of_dtype or (kind == "logits" and of_dtype == "probs"):
        return kind, False
    expected = "integers" if kind == "labels" else "floats"
    raise fault.wrong_dtype(where, "x", array.dtype, f"{expected} for kind={kind!r}")


def _layouts_of(where: str, array: NDArray[Any], kind: str, layout: str | None) -> list[str]:
    with_labels = kind in ("probs", "logits")
    possible = [one for one in LAYOUTS if ("C" in one) == with_labels]
    known = [one for one in possible if len(one) == array.ndim]
    if layout is not None:
        known = [one for one in known if one == layout]
        possible = [layout] if layout in possible else possible
    if not known:
        raise fault.wrong_axes(where, array.shape, kind, possible)
    return known


def _size_in(array: NDArray[Any], layout: str) -> Size:
    return array.shape[layout.index("H")], array.shape[layout.index("W")]


def _only(where: str, array: NDArray[Any], layouts: list[str]) -> str:
    if len(layouts) > 1:
        raise fault.ambiguous_layout(where, array.shape, layouts)
    return layouts[0]


def _stretch(
    where: str, array: NDArray[Any], known: list[str], upsample: str | bool, size: Size
) -> tuple[str, str]:
    """Layout and alignment of scores that do not have the image's size."""
    for one in known:
        if _size_in(array, one) == size[::-1]:
            raise fault.mismatched_sizes(where, array.shape, one, size)
    wanted = ("half-pixel", "align-corners") if upsample == "auto" else (upsample,)
    fits = {
        one: [a for a in alignments(_size_in(array, one), size) if a in wanted] for one in known
    }
    strided = [one for one in known if fits[one]]
    likeliest = min(known, key=lambda one: _distortion(_size_in(array, one), size))
    if strided:
        layout = _only(where, array, strided)
    elif upsample in ("auto", False):
        layout = likeliest
    else:
        layout = _only(where, array, known)
    if upsample is False or not _fits_into(_size_in(array, layout), size):
        raise fault.mismatched_sizes(where, array.shape, likeliest, size)
    if upsample == "auto" and len(fits[layout]) != 1:
        raise fault.unclear_stride(where, array.shape, size, fits_both=bool(fits[layout]))
    return layout, fits[layout][0] if upsample == "auto" else str(upsample)


def _fits_into(small: Size, large: Size) -> bool:
    return small[0] <= large[0] and small[1] <= large[1]


def _distortion(small: Size, large: Size) -> float:
    """How much the aspect ratio would change: a reading that keeps it is the likeliest."""
    (height, width), (rows, columns) = small, large
    if min(height, width, rows, columns) == 0:
        return math.inf
    return abs(math.log(height * columns / (width * rows)))


def _not_empty(where: str, scores: Scores) -> Scores:
    sizes = scores.sizes
    if sizes.get("C") == 0:
        raise fault.no_labels(where, "x", scores.array.shape)
    if sizes["H"] == 0 or sizes["W"] == 0:
        raise fault.empty(where, "x", scores.array.shape)
    return scores
