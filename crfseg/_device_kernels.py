# SPDX-License-Identifier: MIT
"""Kernels of a model on a device: the lattices of groups of a batch's items."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import _device_lattices as lattices
from . import _fault_device as fault
from . import _native as native
from ._device import Place, explained, upload
from ._device_images import channels_of, explain_image
from ._device_lattices import Bounds, Pixels, Rows
from ._image import Images, Ranges, open_image
from ._kernels import Kernel
from .lattice import Accuracy, non_finite
from .pairwise import Bilateral, Features, Grid, inverse_sigmas

if TYPE_CHECKING:
    from ._native import cuda


class DeviceKernels:
    """The pairwise half of a model over a grid of points, for any items of a batch.

    Lattices that all items share are built once.
    """

    def __init__(
        self,
        where: str,
        place: Place,
        kernels: list[Kernel],
        grid: Grid,
        accuracy: Accuracy,
        images: Images,
        value_range: Ranges | None,
    ) -> None:
        if len(kernels) > native.cuda.MOST_TERMS:
            most = native.cuda.MOST_TERMS
            found, expected = f"a model of {len(kernels)} pairwise terms", f"at most {most}"
            raise fault.not_there(where, found, expected)
        self._where, self._place, self._grid = where, place, grid
        self._kernels, self._accuracy = kernels, accuracy
        self._images, self._range = images, value_range
        self._shared: dict[int, cuda.Lattice] = {}
        self.dims = [len(kernel.axes) for kernel in kernels]
        self.side = lattices.side_for(self.dims)

    def connect(self, field: "cuda.MeanField", first: int, n: int) -> None:
        """Give the kernels of ``n`` items from one on to their field."""
        for k, kernel in enumerate(self._kernels):
            lattice = self._lattice(k, kernel, first, n)
            gain = lattices.gain_of(self.dims[k], self._accuracy)
            of_kernel = (kernel.normalization, gain, kernel.weight, kernel.compatibility)
            with explained(self._where, "the lattices' values"):
                field.add_kernel(lattice, *of_kernel, False)

    def _lattice(self, k: int, kernel: Kernel, first: int, n: int) -> "cuda.Lattice":
        if kernel.follows_image and len(self._images.arrays) > 1:
            return self._of_image(kernel, self._images, self._range, first, n)
        if k not in self._shared:
            self._shared[k] = self._for_all(kernel)
        return self._shared[k].repeated(n)

    def _for_all(self, kernel: Kernel) -> "cuda.Lattice":
        """The lattice of what all items have in common."""
        term = kernel.term
        if isinstance(term, Features):
            rows = term.point_features(self._where, self._grid, None, kernel.axes)
            return self._of_rows(kernel, rows)
        if not isinstance(term, Bilateral):
            return self._of_positions(kernel)
        if kernel.own_image is None:
            return self._of_image(kernel, self._images, self._range, 0, 1)
        own = open_image(self._where, "Bilateral image", kernel.own_image, len(self._grid))
        images = Images([own], own.shape[:-1], own.shape[-1])
        return self._of_image(kernel, images, term.image_range, 0, 1)

    def _of_positions(self, kernel: Kernel) -> "cuda.Lattice":
        inverse = inverse_sigmas(self._where, kernel.axes)
        none = np.empty(0, np.float32)
        bounds = self._bounds(none, none, inverse)
        return self._build(kernel, Pixels(0, 0, 1, self._grid, inverse, bounds))

    def _of_image(
        self, kernel: Kernel, images: Images, value_range: Ranges | None, first: int, n: int
    ) -> "cuda.Lattice":
        with explained(self._where, "the images"):
            channels = channels_of(self._where, self._place, images, first, n, value_range)
        inverse = inverse_sigmas(self._where, kernel.axes, len(self._grid), channels.scale)
        bounds = self._bounds(channels.lo, channels.hi, inverse)
        pixels = Pixels(channels.address, channels.channel_type, n, self._grid, inverse, bounds)
        try:
            return self._build(kernel, pixels)
        except native.cuda.OutOfBounds as error:
            item = first + error.args[0] // math.prod(self._grid)
            explain_image(self._where, images, item, value_range)
            raise

    def _of_rows(self, kernel: Kernel, rows: NDArray[np.float32]) -> "cuda.Lattice":
        lo, hi = rows.min(axis=0), rows.max(axis=0)  # NaN where there is one
        if not np.isfinite([lo, hi]).all():
            point, axis = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
            value = float(rows[point, axis])
            raise non_finite(self._where, kernel.axes, point, axis, value)
        with explained(self._where, "the features"):
            memory = upload(self._where, self._place, rows)
            width = self._grid[-1] if len(self._grid) > 1 else 0
            return self._build(kernel, Rows(memory.address, 1, len(rows), width, (lo, hi)))

    def _bounds(
        self, lo: NDArray[np.float32], hi: NDArray[np.float32], inverse: NDArray[np.float32]
    ) -> Bounds:
        last = np.array(self._grid[::-1], np.float32) - 1
        lowest = np.concatenate((np.zeros_like(last), lo))
        highest = np.concatenate((last, hi))
        return lowest * inverse, highest * inverse

    def _build(self, kernel: Kernel, points: Pixels | Rows) -> "cuda.Lattice":
        return lattices.build(
            self._where, self._place, points, kernel.axes, self._accuracy, self.side
        )
