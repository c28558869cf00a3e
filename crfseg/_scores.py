# SPDX-License-Identifier: MIT
"""What ``x`` of refine() is: its kind, its layout, and how it lies on the image."""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _explain as explain
from . import _fault as fault
from ._device_arrays import Shadow
from ._image import Images
from .upsample import Size, alignments

KINDS: Final = ("auto", "probs", "logits", "scores", "labels", "mask")
LAYOUTS: Final = ("CHW", "HWC", "NCHW", "NHWC", "HW", "NHW")

SOFT_KINDS: Final = ("probs", "logits", "scores")
_SOFT_LAYOUTS: Final = LAYOUTS[:4]
_HARD_LAYOUTS: Final = LAYOUTS[4:]
_PICTURE_DTYPES: Final = (np.dtype(np.uint8), np.dtype(np.uint16))
_COLOURS: Final = (3, 4)  # channels that a picture in colours has
_MOST_CHANNELS: Final = fault.MOST_DIMENSIONS - 2


class Scores(NamedTuple):
    """x, understood: nothing but its shape and dtype has been looked at."""

    array: NDArray[Any]
    kind: str
    guessed: bool  # the kind follows from the dtype, nobody said it
    layout: str
    alignment: str | None  # how it is upsampled to the image, None if it has the image's size
    is_batch_said: bool  # the layout was given, or an image for each item

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every axis by its letter."""
        return dict(zip(self.layout, self.array.shape, strict=True))

    @property
    def grid(self) -> dict[str, int]:
        """Length of every spatial axis by its letter: H and W, D too of volumes, or P of points."""
        return {axis: n for axis, n in self.sizes.items() if axis not in "NC"}

    @property
    def is_soft(self) -> bool:
        """Whether it holds scores for every label, not hard labels or a mask of either kind."""
        return self.kind in SOFT_KINDS

    @property
    def items(self) -> NDArray[Any]:
        """A view with the batch axis first, then the label axis of scores for every label."""
        items = batch_first(self.array, self.layout)
        return items[:, 0] if self.has_mask_axis else items

    @property
    def has_mask_axis(self) -> bool:
        """Whether a mask has a label axis, of length 1."""
        return self.kind == "mask" and "C" in self.layout


def batch_first(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """View an array in a layout as (N, C, *spatial), or (N, *spatial) without label axis."""
    if "C" in layout:
        array = np.moveaxis(array, layout.index("C"), int(layout[0] == "N"))
    return array if layout[0] == "N" else array[np.newaxis]


def with_label_axis(layout: str) -> str:
    """The layout of scores for what may have none: "NHW" becomes "NCHW", points' "P" "PC"."""
    if "C" in layout:
        return layout
    if layout == "P":
        return "PC"
    n_before = int(layout[0] == "N")
    return f"{layout[:n_before]}C{layout[n_before:]}"


def read_scores(
    where: str,
    array: NDArray[Any],
    kind: str,
    layout: str | None,
    upsample: str | bool,
    images: Images,
) -> Scores:
    """Settle the kind, layout and upsampling of x from dtype, shape and the image's (H, W).

    Raises:
        TypeError: if the kind needs another dtype.
        ValueError: if the sizes do not fit, or more than one reading is possible.
    """
    _refuse_swapped_arguments(where, array, kind, images)
    kind, guessed = settle_kind(where, array, kind)
    found, alignment = _settle_layout(where, array, kind, layout, upsample, images)
    is_batch_said = layout is not None or len(images.arrays) > 1
    return checked(where, Scores(array, kind, guessed, found, alignment, is_batch_said))


def _settle_layout(
    where: str,
    array: NDArray[Any],
    kind: str,
    layout: str | None,
    upsample: str | bool,
    images: Images,
) -> tuple[str, str | None]:
    """The layout, and how x is upsampled to the image."""
    known = _layouts_of(where, array, kind, layout)
    size = images.size
    if size is None:
        if len(known) > 1:
            raise fault.ambiguous_layout(where, array.shape, known, has_image=False)
        return known[0], None
    exact = distinct(array.shape, [one for one in known if _size_in(array, one) == size])
    if not exact:
        _refuse_last_axis(where, array, kind, images)
        _refuse_grey_batch(where, array, known, images)
    _refuse_channels_first(where, array, known, images, fits=bool(exact))
    if exact:
        return _only(where, array, exact), None
    if layout is not None:
        _refuse_layout(where, array, kind, layout, upsample, size)
    for one in known:
        if _size_in(array, one) == size[::-1]:
            raise fault.swapped_sizes(where, array.shape, one, size)
    if array.dtype.kind != "f":
        raise fault.not_upsampled(where, array.shape, kind, size)
    return _stretch(where, array, known, upsample, size)


def _refuse_swapped_arguments(where: str, array: NDArray[Any], kind: str, images: Images) -> None:
    """Refuse a picture in the place of x with what could be its scores in the image's."""
    if array.ndim not in (3, 4) or array.size == 0 or not images.arrays:
        return
    item, scores = array[0] if array.ndim == 4 else array, images.arrays[0]
    if isinstance(item, Shadow) or isinstance(scores, Shadow):
        return  # values are seen when they are read
    if array.dtype.kind == "f" and scores.dtype.kind == "f":
        suspects = kind != "mask" and explain.are_swapped(item, scores, kind)
    else:
        suspects = array.dtype in _PICTURE_DTYPES and scores.dtype not in _PICTURE_DTYPES
    if suspects and _lie_on_picture(scores, item) and not _are_narrow_labels(array, images):
        raise fault.swapped_arguments(where, array, scores)


def _lie_on_picture(scores: NDArray[Any], picture: NDArray[Any]) -> bool:
    """Whether scores with a label axis, or labels, have a picture's size or lead there."""
    sizes = [picture.shape[:2]] if picture.shape[-1] in _COLOURS else []
    if picture.shape[0] in _COLOURS and picture.dtype.kind == "f":
        sizes.append(picture.shape[1:])
    grids = [scores.shape[1:]]
    if scores.shape[2] not in _COLOURS or picture.dtype.kind == "f":
        grids.append(scores.shape[:2])
    return any(_leads_to(grid, size) for grid in grids for size in sizes)


def _are_narrow_labels(array: NDArray[Any], images: Images) -> bool:
    """Whether integers are a batch of label maps as wide as a picture has colours."""
    return array.dtype.kind != "f" and array.ndim == 3 and array.shape[1:] == images.size


def settle_kind(where: str, array: NDArray[Any], kind: str) -> tuple[str, bool]:
    """The kind, and whether nobody said it."""
    of_dtype = {"b": "mask", "i": "labels", "u": "labels", "f": "probs"}[array.dtype.kind]
    if kind == "auto":
        return of_dtype, True
    if kind in ("mask", of_dtype) or (kind in SOFT_KINDS and of_dtype == "probs"):
        return kind, False
    expected = "integers" if kind == "labels" else "floats"
    raise fault.wrong_dtype(where, "x", array.dtype, f"{expected} for kind={kind!r}")


def _layouts_of(where: str, array: NDArray[Any], kind: str, layout: str | None) -> list[str]:
    known = _readings(array, kind)
    if layout is None:  # a mask of shape (1, H, W): a batch of one says the same
        known = [one for one in known if (kind, one) != ("mask", "CHW")]
    else:
        known = [one for one in known if one == layout]
    if not known:
        possible = _possible(kind)
        raise fault.wrong_axes(
            where, array.shape, kind, [layout] if layout in possible else possible
        )
    return known


def _possible(kind: str) -> tuple[str, ...]:
    if kind == "mask":
        return (*_HARD_LAYOUTS, *_SOFT_LAYOUTS)
    return _HARD_LAYOUTS if kind == "labels" else _SOFT_LAYOUTS


def _readings(array: NDArray[Any], kind: str) -> list[str]:
    """All layouts that the number of axes admits; a mask has no label axis longer than 1."""
    return [
        one
        for one in _possible(kind)
        if len(one) == array.ndim
        and (kind != "mask" or "C" not in one or array.shape[one.index("C")] == 1)
    ]


def distinct(shape: tuple[int, ...], layouts: list[str]) -> list[str]:
    """Leave out layouts that differ from an earlier one in nothing but axes of length 1."""
    readings: dict[str, str] = {}
    for one in layouts:
        long = [axis for axis, n in zip(one, shape, strict=True) if n != 1]
        readings.setdefault("".join(long), one)
    return list(readings.values())


def _size_in(array: NDArray[Any], layout: str) -> Size:
    return array.shape[layout.index("H")], array.shape[layout.index("W")]


def _only(where: str, array: NDArray[Any], layouts: list[str]) -> str:
    if len(layouts) > 1:
        raise fault.ambiguous_layout(where, array.shape, layouts)
    return layouts[0]


def _refuse_last_axis(where: str, array: NDArray[Any], kind: str, images: Images) -> None:
    """Refuse integers and masks (H, W, C), unless both could be batches of grey pictures."""
    are_grey = images.n_channels > _MOST_CHANNELS and array.shape[-1] == images.n_channels
    is_hard = array.dtype.kind != "f" and array.ndim == 3
    if is_hard and array.shape[:2] == images.size and not are_grey:
        raise explain.last_axis(where, array, kind)


def _refuse_grey_batch(where: str, array: NDArray[Any], known: list[str], images: Images) -> None:
    """Refuse images (N, H, W), read as one of W channels, for N items of x."""
    if len(images.arrays) != 1 or images.n_channels == 1:
        return
    n_items, height, width = images.arrays[0].shape
    if array.shape[0] != n_items:
        return
    for one in known:
        if one[0] == "N" and _leads_to(_size_in(array, one), (height, width)):
            raise fault.grey_batch(where, array.shape, (n_items, height, width))


def _refuse_channels_first(
    where: str, array: NDArray[Any], known: list[str], images: Images, *, fits: bool
) -> None:
    """Refuse an image (K, H, W) where x lies on its last two axes.

    ``fits``: x lies on the first two as well, so the last ones must look far better.
    """
    if images.size is None or images.size[0] > _MOST_CHANNELS or images.n_channels == 1:
        return
    shape = (*images.size, images.n_channels)
    size = shape[1:]
    too_many = images.n_channels > _MOST_CHANNELS
    for one in known:
        found = _size_in(array, one)
        if fits:
            suspect = too_many and _leads_to(found, size)
        else:
            suspect = found == size or (too_many and _fits_into(found, size))
        if suspect:
            name = "image[0]" if len(images.arrays) > 1 else "image"
            raise fault.channels_first(where, array.shape, name, shape)


def _refuse_layout(
    where: str, array: NDArray[Any], kind: str, layout: str, upsample: str | bool, size: Size
) -> None:
    """Refuse a layout under which x does not fit the image where it would under another."""
    named = _size_in(array, layout)
    for other in _readings(array, kind):
        found = _size_in(array, other)
        by_stride = upsample == "auto" and array.dtype.kind == "f" and not alignments(named, size)
        if found == size or (by_stride and alignments(found, size)):
            raise fault.other_layout(where, array.shape, layout, other, size)


def _stretch(
    where: str, array: NDArray[Any], known: list[str], upsample: str | bool, size: Size
) -> tuple[str, str]:
    """Layout and alignment of scores that do not have the image's size."""
    sizes = {one: _size_in(array, one) for one in known}
    wanted = ("half-pixel", "align-corners") if upsample == "auto" else (upsample,)
    fits = {one: [a for a in alignments(sizes[one], size) if a in wanted] for one in known}
    strided = [one for one in known if fits[one]]
    likeliest = min(known, key=lambda one: _distortion(sizes[one], size))
    if upsample == "auto" and not strided:
        for one in known:
            if alignments(sizes[one][::-1], size):
                raise fault.swapped_sizes(where, array.shape, one, size)
    if upsample is False or not (strided or _fits_into(sizes[likeliest], size)):
        raise fault.mismatched_sizes(where, array.shape, likeliest, size)
    candidates = strided or [one for one in known if _fits_into(sizes[one], size)]
    if upsample == "auto" and any(len(fits[one]) != 1 for one in candidates):
        both = bool(strided)
        raise fault.unclear_stride(where, array.shape, size, candidates, fits_both=both)
    layout = _only(where, array, candidates)
    return layout, fits[layout][0] if upsample == "auto" else str(upsample)


def _leads_to(small: Size, large: Size) -> bool:
    """Whether scores of one size are the other, or lead there by a whole stride."""
    return small == large or bool(alignments(small, large))


def _fits_into(small: Size, large: Size) -> bool:
    return small[0] <= large[0] and small[1] <= large[1]


def _distortion(small: Size, large: Size) -> float:
    """How much the aspect ratio would change: a reading that keeps it is the likeliest."""
    (height, width), (rows, columns) = small, large
    if min(height, width, rows, columns) == 0:
        return math.inf
    return abs(math.log(height * columns / (width * rows)))


def checked(where: str, scores: Scores) -> Scores:
    """Refuse lengths that no scores have: no labels, far too many, one of logits, no points."""
    sizes = scores.sizes
    if sizes.get("C") == 0:
        raise fault.no_labels(where, "x", scores.array.shape)
    if sizes.get("C", 1) > fault.MOST_LABELS:
        raise fault.too_many_labels(where, "x", scores.array.shape, sizes["C"])
    if 0 in scores.grid.values():
        raise fault.empty(where, "x", scores.array.shape)
    if sizes.get("C") == 1 and scores.kind in ("logits", "scores"):
        raise explain.one_logit(where, "x", scores.array.shape)
    return scores
