# SPDX-License-Identifier: MIT
"""Lattices on CUDA devices. A batch is one lattice; what all items share is built once."""

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _fault_device as fault
from . import _native as native
from ._device import Place, explained
from .graphs import current_room
from .lattice import Accuracy, FeatureAxis, too_wide

if TYPE_CHECKING:
    from ._native import cuda

Bounds = tuple[NDArray[np.float32], NDArray[np.float32]]
"""The lowest and the highest of every feature, divided by its sigma."""


class Rows(NamedTuple):
    """Features (n_items, n_points, d) float32 in device memory, divided by their sigmas."""

    address: int
    n_items: int
    n_points: int
    width: int
    """Of images, or of the slices of volumes; 0: points in no order."""
    bounds: Bounds


class Pixels(NamedTuple):
    """Images (n_items, (D,) H, W, K) in device memory, whose pixels have features x, y (, z), K."""

    address: int
    channel_type: int
    n_items: int
    grid: tuple[int, ...]
    inverse_sigmas: NDArray[np.float32]
    """One per feature."""
    bounds: Bounds

    @property
    def n_points(self) -> int:
        """Of an item."""
        return math.prod(self.grid)

    @property
    def depth(self) -> int:
        """D of volumes, 0 of images."""
        return self.grid[0] if len(self.grid) == 3 else 0


def side_for(dims: list[int]) -> int:
    """The side of tiles that lattices of all these dimensions can have."""
    return min((native.cuda.side_for(dim) for dim in dims), default=native.cuda.side_for(1))


def build(
    where: str,
    place: Place,
    points: Rows | Pixels,
    axes: list[FeatureAxis],
    accuracy: Accuracy,
    side: int,
) -> "cuda.Lattice":
    """Build the lattice of a batch, its complaints in terms of the caller's axes and sigmas.

    Points out of their bounds raise ``_cuda.OutOfBounds``, which only the caller can explain.
    """
    room = current_room()
    rows, vertices = _room_for(where, place, points, accuracy)
    lo, hi = points.bounds
    with explained(where, "the lattice of a batch"):
        try:
            if isinstance(points, Pixels):
                lattice = native.cuda.Lattice.of_pixels(
                    points.address,
                    points.channel_type,
                    len(axes) - len(points.grid),
                    points.n_items,
                    points.grid[-2],
                    points.grid[-1],
                    points.depth,
                    points.inverse_sigmas,
                    lo,
                    hi,
                    *(side, accuracy.fill, accuracy.passes, 0, rows, vertices),
                    *place,
                )
            else:
                lattice = native.cuda.Lattice.of_features(
                    points.address,
                    points.n_items,
                    points.n_points,
                    len(axes),
                    points.width,
                    lo,
                    hi,
                    *(side, accuracy.fill, accuracy.passes, 0, rows, vertices),
                    *place,
                )
        except native.cuda.KeyRange as error:
            raise too_wide(where, axes, *error.args) from None
    if room is not None:
        room.watch(partial(_check, where, lattice, place))
    return lattice


def _room_for(
    where: str, place: Place, points: Rows | Pixels, accuracy: Accuracy
) -> tuple[int, int]:
    """Room for rows and vertices; 0 for as many as there are."""
    room = current_room()
    if room is None:
        if native.cuda.is_capturing(place.stream):
            raise fault.bare_capture(where)
        return 0, 0
    if accuracy.fill:
        raise fault.not_there(where, "accuracy='fine' with a graphs.Room", "accuracy='fast'")
    n_corners = points.n_items * points.n_points * (len(points.bounds[0]) + 1)
    n_rows = n_corners if room.max_rows is None else min(room.max_rows, n_corners)
    return n_rows, min(room.max_vertices, n_rows)


def _check(where: str, lattice: "cuda.Lattice", place: Place) -> None:
    try:
        with explained(where, "a lattice in a graph"):
            native.cuda.synchronize(place.device)  # a graph may be replayed on any stream
            lattice.check(place.device, place.stream)
    except native.cuda.OutOfBounds:
        raise fault.bad_in_graph(where) from None


def gain_of(dim: int, accuracy: Accuracy) -> float:
    """What the plain sums of such a lattice are multiplied by."""
    return native.core.lattice_gain(dim, accuracy.fill, accuracy.passes)
