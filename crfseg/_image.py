# SPDX-License-Identifier: MIT
"""What an image is: channels last, in levels of 0..255, whatever dtype it was stored in."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check as check
from . import _explain as explain
from . import _fault as fault
from . import _fault_grids as fault_grids
from ._containers import as_array

Range = tuple[float, float]
Ranges = Range | tuple[Range, ...]  # one for all channels, or one for each

# Full range of the dtypes that say it themselves; floats are 0..1 by convention.
RANGES: dict[np.dtype[Any], Range] = {
    np.dtype(np.uint8): (0.0, 255.0),
    np.dtype(np.uint16): (0.0, 65535.0),
}
_FLOAT_RANGE: Range = (0.0, 1.0)
# Modes of Pillow whose every channel is a colour; I;16 has variants.
_MODES = frozenset({"RGB", "L", "I", "F"})
ROUNDING = 1e-5  # of the range: what interpolation in float32 may overshoot


class Levels(NamedTuple):
    """An image whose differences, times ``scale`` (by channel), are in levels of 0..255."""

    values: NDArray[Any]  # (*spatial, K), C-contiguous, uint8, uint16 or float32
    scale: float | NDArray[np.float32]


class Preparation(NamedTuple):
    """What a network's input has to go through to be a picture again."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    is_bgr: bool
    range: Ranges | None  # of what mean and std lead to; None where there are none

    def undo(self, name: str, array: NDArray[Any]) -> tuple[str, NDArray[Any]]:
        """The picture in RGB, and what errors call it."""
        if self.range is not None:
            name, array = f"{name} * std + mean", self._denormalized(array, self.range)
        return name, array[..., ::-1] if self.is_bgr else array

    def _denormalized(self, array: NDArray[Any], ranges: Ranges) -> NDArray[np.float32]:
        low, high = np.array(ranges, np.float32).T
        values: NDArray[np.float32] = array.astype(np.float32) * self.std + self.mean
        # Half precision has steps of almost a level.
        level = (high - low) / 255
        if (values >= low - level).all() and (values <= high + level).all():
            np.clip(values, low, high, out=values)
        return values


class Images(NamedTuple):
    """The images of one call: one for all items of a batch, or one for each."""

    arrays: list[NDArray[Any]]  # each (*spatial, K), as stored
    size: tuple[int, ...] | None  # unknown where an empty list was given
    n_channels: int
    is_shared: bool = False  # one for all, said by giving no list
    preparation: Preparation | None = None

    def for_item(self, i: int) -> tuple[str, NDArray[Any]]:
        """The image of the i-th item, and its name."""
        name, i = ("image", 0) if len(self.arrays) == 1 else (f"image[{i}]", i)
        if self.preparation is None:
            return name, self.arrays[i]
        return self.preparation.undo(name, self.arrays[i])


def open_image(where: str, name: str, image: Any, ndim: int) -> NDArray[Any]:
    """View a grey (*spatial) or many-channel (*spatial, K) image as (*spatial, K).

    Values are not looked at. ``ndim`` is the number of spatial axes.
    """
    mode = _pillow_mode(image)
    if mode is not None and mode not in _MODES and not mode.startswith("I;16"):
        raise fault.wrong_mode(where, name, mode)
    array = as_array(where, name, image)
    if array.ndim == ndim:
        array = array[..., np.newaxis]
    if array.ndim != ndim + 1:
        shapes = "(H, W) or (H, W, channels)" if ndim == 2 else f"{ndim} or {ndim + 1} axes"
        raise fault.wrong_shape(where, name, array.shape, shapes)
    if array.size == 0:
        raise fault.empty(where, name, array.shape)
    return array


def _pillow_mode(image: Any) -> str | None:
    """The mode of a Pillow picture, None of anything else."""
    mode = getattr(image, "mode", None)
    return mode if isinstance(mode, str) and hasattr(image, "convert") else None


def open_images(where: str, image: Any) -> Images:
    """Tell one image from a batch, which is a list or an array with four axes. None is no image.

    One image alone is for all items, and so is, as numpy broadcasts, an array (1, H, W, K). A list
    names them one by one.
    """
    if image is None:
        return Images([], None, 0)
    if isinstance(image, list | tuple):
        return _same_size(
            where, [open_image(where, f"image[{i}]", one, 2) for i, one in enumerate(image)]
        )
    if len(getattr(image, "shape", ())) == 4:
        batch = as_array(where, "image", image)
        if batch[:1].size == 0 and len(batch):
            raise fault.empty(where, "image", batch.shape)
        return Images(list(batch), batch.shape[1:3], batch.shape[3], len(batch) == 1)
    array = open_image(where, "image", image, 2)
    return Images([array], array.shape[:2], array.shape[2], is_shared=True)


def _same_size(where: str, arrays: list[NDArray[Any]]) -> Images:
    for i, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            expected = f"{arrays[0].shape}, like image[0]"
            raise fault.wrong_shape(where, f"image[{i}]", array.shape, expected)
    if not arrays:
        return Images([], None, 0)
    return Images(arrays, arrays[0].shape[:-1], arrays[0].shape[-1])


def prepared(
    where: str, images: Images, mean: Any, std: Any, bgr: Any, image_range: Ranges | None
) -> tuple[Images, Ranges | None]:
    """Take note of ``mean``, ``std`` and ``bgr``, and of the range that they lead to."""
    check.flag(where, "bgr", bgr)
    is_normalized = mean is not None or std is not None
    if not images.arrays or not (bgr or is_normalized):
        return images, image_range
    if bgr and images.n_channels != 3:
        shape = (*(images.size or ()), images.n_channels)
        raise fault.wrong_shape(where, "image", shape, "three channels for bgr=True")
    means = _per_channel(where, "mean", 0.0 if mean is None else mean, images)
    stds = _per_channel(where, "std", 1.0 if std is None else std, images)
    if not (stds > 0).all():
        raise check.invalid(where, f"std is {check.show(std)}; expected positive numbers")
    if is_normalized:
        for one in images.arrays:
            if one.dtype.kind != "f":
                raise fault.wrong_dtype(
                    where, "image", one.dtype, "floats, normalised with mean and std"
                )
        # No mean of a picture in 0..1 is larger.
        image_range = image_range or ((0.0, 255.0) if means.max() > 1 else (0.0, 1.0))
    undone = Preparation(means, stds, bgr, image_range if is_normalized else None)
    if image_range is not None and isinstance(image_range[0], tuple):
        if len(image_range) != images.n_channels:
            raise fault_grids.range_count(where, "image", len(image_range), images.n_channels)
        if bgr:
            image_range = image_range[::-1]  # they are red first once that is undone
    return images._replace(preparation=undone), image_range


def _per_channel(where: str, name: str, value: Any, images: Images) -> NDArray[np.float32]:
    values = as_array(where, name, value)
    size, n_channels = images.size or (), images.n_channels
    if values.size not in (1, n_channels) or values.ndim > 1:
        if len(size) == 2 and values.shape == size[:1]:
            expected = f"(H, W, channels), as {name} has {values.size} numbers"
            raise fault.wrong_shape(where, "image", (*size, n_channels), expected)
        expected = f"one number, or {n_channels}, one for each channel of image"
        raise fault.wrong_shape(where, name, values.shape, expected)
    numbers: NDArray[np.float32] = values.astype(np.float32).reshape(-1)
    if not np.isfinite(numbers).all():
        raise check.invalid(where, f"{name} is {check.show(value)}; expected finite numbers")
    return numbers


def open_laid_images(where: str, image: Any, layout: str) -> Images:
    """The images of a call in a layout of the letters N, K and those of the spatial axes.

    Items of a list have no N of their own.
    """
    if isinstance(image, list | tuple):
        named = [(f"image[{i}]", one) for i, one in enumerate(image)]
        return _same_size(where, [_laid(where, name, one, layout) for name, one in named])
    array = _laid(where, "image", image, layout)
    if "N" not in layout:
        return Images([array], array.shape[:-1], array.shape[-1], is_shared=True)
    return Images(list(array), array.shape[1:-1], array.shape[-1], len(array) == 1)


def _laid(where: str, name: str, image: Any, layout: str) -> NDArray[Any]:
    """View an image in a layout with its channels last, one if it has no axis for them."""
    array = as_array(where, name, image)
    if array.ndim != len(layout):
        expected = f"({', '.join(layout)}), as image_layout says"
        raise fault.wrong_shape(where, name, array.shape, expected)
    if array.size == 0:
        raise fault.empty(where, name, array.shape)
    if "K" not in layout:
        return array[..., np.newaxis]
    return np.moveaxis(array, layout.index("K"), -1)


def checked_range(where: str, image_range: Any) -> Ranges | None:
    """The ``image_range=(lo, hi)`` argument, or a list of such pairs, one per channel."""
    if image_range is None:
        return None
    if hasattr(image_range, "tolist"):
        image_range = image_range.tolist()
    is_list = isinstance(image_range, list | tuple) and len(image_range) > 0
    if is_list and all(isinstance(one, list | tuple) for one in image_range):
        named = [(f"image_range[{k}]", one) for k, one in enumerate(image_range)]
        return tuple(_pair(where, name, one) for name, one in named)
    return _pair(where, "image_range", image_range)


def _pair(where: str, name: str, value: Any) -> Range:
    low, high = check.parts(where, name, value, ("lo", "hi"))
    low = check.finite(where, f"{name} lo", low)
    high = check.finite(where, f"{name} hi", high)
    if not low < high:
        raise check.invalid(where, f"{name} is {(low, high)}; expected lo below hi")
    return low, high


def to_levels(where: str, name: str, array: NDArray[Any], image_range: Ranges | None) -> Levels:
    """Check an opened image's values against its range and convert them.

    Raises:
        TypeError: if the dtype does not say the range and ``image_range`` does not either.
        ValueError: if values are not finite or outside the range, or channels have a range each but
            there are more or fewer.
    """
    if image_range is not None and isinstance(image_range[0], tuple):
        return _levels_by_channel(where, name, array, image_range)
    low, high = image_range or range_of(where, name, array.dtype)
    if image_range is None and array.dtype in RANGES:
        return Levels(np.ascontiguousarray(array), 255.0 / (high - low))
    values = np.ascontiguousarray(array, np.float32)
    _check_values(where, name, values, (low, high), given=image_range is not None)
    if low != 0.0:
        values = values - np.float32(low)
    return Levels(values, 255.0 / (high - low))


def _levels_by_channel(
    where: str, name: str, array: NDArray[Any], ranges: tuple[Range, ...]
) -> Levels:
    if len(ranges) != array.shape[-1]:
        raise fault_grids.range_count(where, name, len(ranges), array.shape[-1])
    values = np.ascontiguousarray(array, np.float32)
    for k, wanted in enumerate(ranges):
        _check_values(where, f"{name} channel {k}", values[..., k : k + 1], wanted, given=True)
    lows, highs = np.array(ranges, np.float32).T
    return Levels(values - lows, 255.0 / (highs - lows))


def range_of(where: str, name: str, dtype: np.dtype[Any]) -> Range:
    """The values that mean levels 0 and 255 where nobody says so.

    Raises:
        TypeError: if the dtype does not say it.
    """
    if dtype.kind == "f":
        return _FLOAT_RANGE
    if dtype not in RANGES:
        raise fault.wrong_dtype(
            where, name, dtype, "uint8, uint16 or float, or image_range=(lo, hi) to scale by"
        )
    return RANGES[dtype]


def _check_values(
    where: str, name: str, values: NDArray[np.float32], wanted: Range, *, given: bool
) -> None:
    low, high = float(values.min()), float(values.max())  # NaN if there is one
    slack = ROUNDING * (wanted[1] - wanted[0])
    if low >= wanted[0] - slack and high <= wanted[1] + slack:
        return
    if not np.isfinite(low) or not np.isfinite(high):
        raise explain.non_finite(where, name, values, "DHWK"[-values.ndim :])
    raise explain.image_range(where, name, low, high, wanted, given=given)
