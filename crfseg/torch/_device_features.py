# SPDX-License-Identifier: MIT
"""Features of a batch on a device, and the lattices that are built over them."""

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from crfseg import _fault as fault
from crfseg._device_lattices import Rows, build
from crfseg.lattice import ACCURACIES, FeatureAxis

from ._places import Home
from ._values import on_host

if TYPE_CHECKING:
    from crfseg._native import cuda


class Grid(NamedTuple):
    """How points are dealt to tiles, which is the same for all lattices of a field."""

    n_items: int
    n_points: int
    width: int
    side: int


class Features(NamedTuple):
    """Features over their sigmas, and between which values they lie."""

    values: Tensor
    """(B, N, d), or (1, N, d), which all items share; contiguous float32."""
    low: Sequence[float]
    high: Sequence[float]

    @property
    def dim(self) -> int:
        """How many features a point has."""
        return self.values.shape[-1]

    def check(self, where: str, name: str) -> None:
        """Raise unless all are finite."""
        if all(map(isfinite, [*self.low, *self.high])):
            return
        values = on_host(self.values)
        item, point, axis = np.argwhere(~np.isfinite(values))[0]
        value = float(values[item, point, axis])
        raise fault.non_finite_feature(where, f"{name}[:, {axis}]", int(point), value)

    def stretched(self, axes: Sequence[int], factor: float) -> "Features":
        """Some of them times a positive factor."""
        of_axes = np.ones(self.dim, np.float32)
        of_axes[list(axes)] = factor
        low, high = (np.array(end, np.float32) * of_axes for end in (self.low, self.high))
        stretched = self.values * torch.from_numpy(of_axes).to(self.values.device)
        return Features(stretched, low.tolist(), high.tolist())

    def lattice(
        self, where: str, name: str, home: Home, grid: Grid, accuracy: str
    ) -> "cuda.Lattice":
        """Build a batch's; errors call the features ``name``."""
        bounds = np.array(self.low, np.float32), np.array(self.high, np.float32)
        n_built, n_points, dim = self.values.shape
        rows = Rows(self.values.data_ptr(), n_built, n_points, grid.width, bounds)
        axes = [FeatureAxis(f"{name}[:, {i}]") for i in range(dim)]
        lattice = build(where, home.place, rows, axes, ACCURACIES[accuracy], grid.side)
        return lattice if n_built == grid.n_items else lattice.repeated(grid.n_items)
