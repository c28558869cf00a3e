# SPDX-License-Identifier: MIT
"""The images of a call as lattices on a device read them: packed, all of a batch in one piece."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _fault_grids as fault_grids
from . import _native as native
from ._device import Place, refuse_capture
from ._device_arrays import TYPES, Shadow, convert, device_type, to_host
from ._image import RANGES, ROUNDING, Images, Ranges, range_of, to_levels

_CHANNEL_TYPES = {np.dtype(np.uint8): 0, np.dtype(np.uint16): 1, np.dtype(np.float32): 2}


class Channels(NamedTuple):
    """Images (n, *spatial, K) on a device; differences times ``scale`` are in levels of 0..255."""

    address: int
    channel_type: int
    n_items: int
    scale: NDArray[np.float32]
    """(K)"""
    lo: NDArray[np.float32]
    """(K) what values are at least, in their own unit."""
    hi: NDArray[np.float32]
    owner: object


class _Stored(NamedTuple):
    """How the images of a batch are to lie."""

    dtype: np.dtype[Any]
    low: NDArray[np.float32]
    """(K) what is taken from every value of floats."""
    span: NDArray[np.float32]
    """(K) from the lowest to the highest level."""

    @property
    def slack(self) -> NDArray[np.float32]:
        """What interpolation in floats may overshoot."""
        is_exact = self.dtype != np.float32
        return np.zeros_like(self.span) if is_exact else np.float32(ROUNDING) * self.span


def channels_of(
    where: str, place: Place, images: Images, first: int, n: int, value_range: Ranges | None
) -> Channels:
    """The images of ``n`` items from one on, which have one type.

    Values on the device are checked by their lattice.

    Raises:
        TypeError, ValueError: as ``to_levels``, of images in the host's memory.
    """
    first = 0 if len(images.arrays) == 1 else first
    stored = _settle(where, images, first, value_range)
    lo, hi = -stored.slack, stored.span + stored.slack
    scale = np.float32(255.0) / stored.span
    kind = _CHANNEL_TYPES[stored.dtype]
    direct = _as_they_are(images, first, n, stored)
    if direct is not None:
        return Channels(direct.address, kind, n, scale, lo, hi, direct.remote.owner)
    item_bytes = images.arrays[0].size * stored.dtype.itemsize
    address, owner = place.memory(n * item_bytes)
    for i in range(n):
        target = address + i * item_bytes
        array = images.arrays[first + i]
        if isinstance(array, Shadow):
            _pack(array, images, stored, target)
        else:
            name, undone = images.for_item(first + i)
            values = to_levels(where, name, undone, value_range).values
            refuse_capture(where, place)
            native.cuda.upload(values, target, place.device, place.stream)
    return Channels(address, kind, n, scale, lo, hi, owner)


def explain_image(where: str, images: Images, i: int, value_range: Ranges | None) -> None:
    """Raise for what is wrong with an image's values, if anything is."""
    at = 0 if len(images.arrays) == 1 else i
    here = [to_host(one) if k == at else one for k, one in enumerate(images.arrays)]
    to_levels(where, *images._replace(arrays=here).for_item(i), value_range)


def _settle(where: str, images: Images, first: int, value_range: Ranges | None) -> _Stored:
    n_channels, dtype = images.n_channels, images.arrays[first].dtype
    if value_range is None and dtype in RANGES:
        low, high = RANGES[dtype]
        return _Stored(dtype, *_each(n_channels, (low, high)))
    wanted = value_range or range_of(where, "image", dtype)
    is_listed = isinstance(wanted[0], tuple)
    if is_listed and len(wanted) != n_channels:
        raise fault_grids.range_count(where, "image", len(wanted), n_channels)
    return _Stored(np.dtype(np.float32), *_each(n_channels, wanted))


def _each(n_channels: int, wanted: Ranges) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(K) lowest values and spans."""
    lows, highs = np.broadcast_to(np.array(wanted, np.float32), (n_channels, 2)).T
    return np.ascontiguousarray(lows), highs - lows


def _as_they_are(images: Images, first: int, n: int, stored: _Stored) -> Shadow | None:
    """The first of the images where they lie as they should, one behind the other."""
    of_batch = images.arrays[first : first + n]
    start = of_batch[0]
    if images.preparation is not None or not isinstance(start, Shadow) or stored.low.any():
        return None
    is_packed = all(
        isinstance(one, Shadow)
        and device_type(one) == stored.dtype
        and one.flags.c_contiguous
        and one.address == start.address + i * start.nbytes
        for i, one in enumerate(of_batch)
    )
    return start if is_packed else None


def _pack(array: Shadow, images: Images, stored: _Stored, target: int) -> None:
    """Undo what a network's input went through, and put the values where they belong."""
    n_channels, code = images.n_channels, TYPES[stored.dtype]
    scale, offset, slack = (np.full(n_channels, value, np.float32) for value in (1, 0, 0))
    undone = images.preparation
    if undone is not None and undone.range is not None:
        scale, offset = scale * undone.std, offset + undone.mean
        slack = stored.span / np.float32(255)  # half precision has steps of almost a level
    if undone is not None and undone.is_bgr:
        scale, offset = scale[::-1].copy(), offset[::-1].copy()
        array = array.backwards()
    is_exact = stored.dtype != np.float32
    maps = (scale, offset, stored.low, stored.low + stored.span, slack)
    convert(array, target, code, None if is_exact else maps)
