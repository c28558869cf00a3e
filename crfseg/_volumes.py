# SPDX-License-Identifier: MIT
"""Whether x of refine() lies on images or on volumes, and how a volume's axes are ordered.

Letters: N items, C labels of x, K channels of an image, D, H and W. Volumes are read where x and
the image agree in three lengths, whatever comes first or last; images are read by `_scores` and
`_image`. Where both readings fit, the caller must say which.
"""

from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from . import _fault as fault
from . import _fault_grids as fault_grids
from ._image import Images
from ._scores import LAYOUTS, Scores, checked, distinct, settle_kind

VOLUME_LAYOUTS: Final = ("CDHW", "DHWC", "NCDHW", "NDHWC", "DHW", "NDHW")
IMAGE_LAYOUTS: Final = (
    *("HW", "HWK", "KHW", "NHW", "NHWK", "NKHW"),
    *("DHW", "DHWK", "KDHW", "NDHW", "NDHWK", "NKDHW"),
)
_AXES: Final = 3
_MOST_CHANNELS: Final = fault.MOST_DIMENSIONS - _AXES
_MOST_OF_IMAGES: Final = fault.MOST_DIMENSIONS - 2
_COLOURS: Final = (1, 3, 4)
_PHOTOGRAPHS: Final = (1, 3)  # channels that four axes (N, H, W, K) of photographs have

Shape = tuple[int, ...]
Reading = tuple[str, str | None]  # a layout of x, and one of the image if there is one


class Axes(NamedTuple):
    """How a call's arrays are read."""

    is_volume: bool
    layout: str | None  # of x; None of images: still to be found
    image_layout: str | None  # of the image, or of every one in a list; None of images: the usual


class _Given(NamedTuple):
    """What is known of a call's arrays."""

    shape: Shape
    is_soft: bool  # scores for every label
    is_mask: bool
    layout: str | None
    has_image: bool
    in_list: int | None  # images that were given one by one
    of_image: Shape  # or of the first in the list
    image_layout: str | None


def read_axes(
    where: str,
    array: NDArray[Any],
    kind: str,
    layout: str | None,
    image: Any,
    image_layout: str | None,
    spacing: Any,
) -> Axes:
    """Tell volumes from images by shapes alone, and order a volume's axes.

    Raises:
        ValueError: if the layouts contradict each other, a volume fits no image, or more than one
            reading is possible.
    """
    said = {"D" in one for one in (layout, image_layout) if one is not None}
    if len(said) == 2:
        raise fault_grids.contrary_layouts(where, str(layout), str(image_layout))
    images = Axes(False, layout, image_layout)
    if said == {False}:
        return images
    given = _given(array, kind, layout, image, image_layout)
    readings = _readings(given)
    n_steps = len(spacing) if isinstance(spacing, list | tuple) else 0
    if said or _is_surely_volume(given) or (image is None and n_steps == _AXES):
        return _only(where, given, readings)
    # Three steps say that it is a volume, unless it has too few axes for one and fits an image.
    is_flat = n_steps != _AXES or (len(given.shape) <= _AXES and _fits_images(given))
    if image is None or (not readings and is_flat):
        return images
    if n_steps != _AXES and _fits_images(given):
        if n_steps == 2 or _are_photographs(given) or _are_refused(given):
            return images
        raise fault_grids.image_or_volume(where, given.shape, given.of_image, readings[0][0])
    return _only(where, given, readings)


def read_volumes(
    where: str, array: NDArray[Any], kind: str, axes: Axes, upsample: str | bool, images: Images
) -> Scores:
    """Read x on volumes: nothing but its shape and dtype is looked at.

    Raises:
        TypeError: if the kind needs another dtype.
        ValueError: if lengths cannot be those of scores, or something is asked that images have
            alone.
    """
    if upsample not in ("auto", False):
        raise fault_grids.only_for_images(where, "upsample", upsample)
    kind, guessed = settle_kind(where, array, kind)
    is_batch_said = len(images.arrays) > 1
    return checked(where, Scores(array, kind, guessed, str(axes.layout), None, is_batch_said))


def _given(
    array: NDArray[Any], kind: str, layout: str | None, image: Any, image_layout: str | None
) -> _Given:
    is_list = isinstance(image, list | tuple)
    first = image if not is_list else image[0] if image else None
    return _Given(
        shape=array.shape,
        is_soft=array.dtype.kind == "f" and kind != "mask",
        is_mask=kind == "mask" or (kind == "auto" and array.dtype.kind == "b"),
        layout=layout,
        has_image=image is not None,
        in_list=len(image) if is_list else None,
        of_image=tuple(getattr(first, "shape", ())),
        image_layout=image_layout,
    )


def _readings(given: _Given) -> list[Reading]:
    """All pairs of layouts under which x and the image are volumes of one size."""
    own = _layouts_of_x(given)
    if not given.has_image:
        return [(one, None) for one in own]
    pairs = [
        (one, other)
        for one in own
        for other in _layouts_of_image(given)
        if _lengths(given.shape, one) == _lengths(given.of_image, other)
    ]
    return [(one, other) for one, other in pairs if _is_plausible(given, one, other)]


def _is_plausible(given: _Given, one: str, other: str) -> bool:
    """Grey volumes of a batch are as many as x has items, and labels lie on no colours."""
    if given.image_layout is not None:
        return True
    if other == "NDHW":
        return _n_items(given.shape, one) == _n_items(given.of_image, other)
    is_said = given.layout is not None
    return given.is_soft or is_said or other != "DHW" or given.of_image[-1] not in _COLOURS


def _layouts_of_x(given: _Given) -> list[str]:
    """Of volumes, by the number of axes. A mask of shape (1, D, H, W) is a batch of one."""
    possible = VOLUME_LAYOUTS if given.layout is None else (given.layout,)
    return [
        one
        for one in possible
        if len(one) == len(given.shape)
        and ("C" in one or not given.is_soft)
        and (given.is_soft or "C" not in one or (given.is_mask and _n_labels(given, one) == 1))
        and not (given.is_mask and one == "CDHW" and given.layout is None)
    ]


def _layouts_of_image(given: _Given) -> list[str]:
    """By the number of axes, and by that of channels."""
    possible = IMAGE_LAYOUTS if given.image_layout is None else (given.image_layout,)
    return [
        one
        for one in possible
        if "D" in one
        and len(one) == len(given.of_image)
        and not (given.in_list is not None and "N" in one)
        and ("K" not in one or given.of_image[one.index("K")] <= _MOST_CHANNELS)
    ]


def _lengths(shape: Shape, layout: str) -> Shape:
    return tuple(shape[layout.index(axis)] for axis in "DHW")


def _n_items(shape: Shape, layout: str) -> int:
    return shape[layout.index("N")] if "N" in layout else 1


def _n_labels(given: _Given, layout: str) -> int:
    return given.shape[layout.index("C")]


def _is_surely_volume(given: _Given) -> bool:
    """Five axes, or an image none of whose axes is one of channels."""
    if len(given.shape) > _AXES + 1 or (len(given.shape) > _AXES and len(given.of_image) == 5):
        return True
    is_long = len(given.of_image) == _AXES and min(given.of_image) > _MOST_OF_IMAGES
    return given.is_soft and is_long and len(given.shape) > _AXES and not _fits_images(given)


def _fits_images(given: _Given) -> bool:
    """Whether x and the image are images of one size, batches of them or not."""
    for one in LAYOUTS:
        if len(one) != len(given.shape) or ("C" in one) != given.is_soft:
            continue
        sizes = dict(zip(one, given.shape, strict=True))
        if sizes.get("C") != 1 and any(
            (sizes["H"], sizes["W"]) == size and n in (1, sizes.get("N", 1))
            for n, size in _readings_as_images(given)
        ):
            return True
    return False


def _readings_as_images(given: _Given) -> list[tuple[int, Shape]]:
    """How many images of which size the image may be, one that is refused later among them."""
    shape = given.of_image
    if given.in_list is not None:
        return [(given.in_list, shape[:2])] if len(shape) in (2, 3) else []
    found: list[tuple[int, Shape]] = []
    if len(shape) == 3 and shape[2] <= _MOST_OF_IMAGES:
        found.append((1, shape[:2]))
    if len(shape) == 3 and shape[0] > 1:
        found.append((shape[0], shape[1:]))  # (N, H, W): grey images without channels
    if len(shape) == 4 and shape[3] <= _MOST_OF_IMAGES:
        found.append((shape[0], shape[1:3]))
    return found


def _are_photographs(given: _Given) -> bool:
    """Grey or coloured, as most arrays of four axes are."""
    is_array = given.in_list is None and len(given.of_image) == _AXES + 1
    return is_array and given.of_image[-1] in _PHOTOGRAPHS


def _are_refused(given: _Given) -> bool:
    """Whether labels lie on (N, H, W), which `_scores` refuses and names a volume's layout for."""
    return not given.is_soft and len(given.of_image) == _AXES


def _only(where: str, given: _Given, readings: list[Reading]) -> Axes:
    if not readings:
        raise fault_grids.fits_no_volume(where, given.shape, given.of_image, given.layout)
    own = distinct(given.shape, list(dict.fromkeys(one for one, _ in readings)))
    if len(own) > 1:
        raise fault.ambiguous_layout(where, given.shape, own, has_image=given.has_image)
    others = [other for one, other in readings if one == own[0] and other is not None]
    others = distinct(given.of_image, others)
    if len(others) > 1:
        raise fault_grids.ambiguous_image_layout(where, given.of_image, others)
    return Axes(True, own[0], others[0] if others else None)
