# SPDX-License-Identifier: MIT
"""From pairwise terms to the kernels of a native mean field: the arrow between the two rooms."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _fault as fault
from . import _memory as memory
from . import cache
from ._image import Levels, open_image, to_levels
from ._native import NORMALIZATIONS, core
from .compatibility import Compatibility, resolve
from .lattice import Accuracy, FeatureAxis, build_lattice
from .pairwise import Bilateral, Gaussian, Grid, Term


@dataclass(slots=True)
class Kernel:
    """A term with everything settled but the values of the image."""

    term: Term
    axes: list[FeatureAxis]
    weight: float
    compatibility: NDArray[np.float32] | None
    normalization: int
    own_image: NDArray[Any] | None
    lattice: core.Lattice | None = None

    @property
    def follows_image(self) -> bool:
        """Whether another image of the call means another lattice."""
        return isinstance(self.term, Bilateral) and self.own_image is None


class Kernels:
    """The pairwise half of a model over one grid of points.

    Shapes are checked here, values when ``build`` builds the lattices. Terms of weight 0 are
    checked and left out.
    """

    def __init__(
        self,
        where: str,
        terms: Sequence[Term],
        grid: Grid,
        n_channels: int,
        n_labels: int,
        *,
        compatibility: Compatibility,
        normalization: str,
        accuracy: Accuracy,
        exclude_self: bool = False,
    ) -> None:
        self._where = where
        self._grid = grid
        self._n_labels = n_labels
        self._accuracy = accuracy
        self._exclude_self = exclude_self
        resolve(where, compatibility, n_labels)  # also where no term is left to use it
        settled = [
            _settle(where, term, grid, n_channels, n_labels, compatibility, normalization)
            for term in terms
        ]
        self._kernels = [kernel for kernel in settled if kernel.weight > 0]
        # Whether another image means another ``build``.
        self.follow_image = any(kernel.follows_image for kernel in self._kernels)

    @property
    def settled(self) -> list[Kernel]:
        """All of them, whether their lattices are there or not."""
        return list(self._kernels)

    @property
    def dims(self) -> list[int]:
        """The number of features of every kernel."""
        return [len(kernel.axes) for kernel in self._kernels]

    def twin(self) -> "Kernels":
        """The same kernels for another image at the same time; lattices there are are shared."""
        other = copy(self)
        other._kernels = [replace(kernel) for kernel in self._kernels]  # noqa: SLF001 - its own kind
        return other

    def build(self, image: Levels | None, threads: int) -> None:
        """Build the lattices that ``image`` touches, and those that are not there yet.

        Without an image, lattices that need the call's are left for later.
        """
        for kernel in self._kernels:
            is_wanted = kernel.lattice is None
            if kernel.follows_image:
                is_wanted = image is not None
            if is_wanted:
                kernel.lattice = None  # its memory serves the next one
                kernel.lattice = self._build(kernel, image, threads)

    def connect(self, field: core.MeanField, threads: int) -> None:
        """Give ``field`` these kernels alone, all of which have been built."""
        field.clear_kernels()
        lattices = [kernel.lattice for kernel in self._kernels if kernel.lattice is not None]
        n_vertices = sum(lattice.n_vertices for lattice in lattices)
        what = f"a model of {self._n_labels} labels at {n_vertices} lattice vertices"
        memory.require(self._where, what, memory.vertex_bytes(n_vertices, self._n_labels))
        with memory.explained(self._where, what):
            for kernel, lattice in zip(self._kernels, lattices, strict=True):
                field.add_kernel(
                    lattice,
                    kernel.normalization,
                    kernel.weight,
                    kernel.compatibility,
                    self._exclude_self,
                    threads,
                )

    def _build(self, kernel: Kernel, image: Levels | None, threads: int) -> core.Lattice:
        if isinstance(kernel.term, Gaussian):
            sigmas = tuple(axis.sigma for axis in kernel.axes)
            key = (self._grid, sigmas, self._accuracy)
            return cache.shared(key, lambda: self._build_anew(kernel, None, threads))
        return self._build_anew(kernel, image, threads)

    def _build_anew(self, kernel: Kernel, image: Levels | None, threads: int) -> core.Lattice:
        if isinstance(kernel.term, Bilateral) and kernel.own_image is not None:
            name, given_range = "Bilateral image", kernel.term.image_range
            image = to_levels(self._where, name, kernel.own_image, given_range)
        what = f"the features of the {type(kernel.term).__name__} term"
        with memory.explained(self._where, what):
            features = kernel.term.point_features(self._where, self._grid, image, kernel.axes)
        return build_lattice(self._where, features, kernel.axes, self._accuracy, threads)


def _settle(
    where: str,
    term: Term,
    grid: Grid,
    n_channels: int,
    n_labels: int,
    compatibility: Compatibility,
    normalization: str,
) -> Kernel:
    own_image = None
    if isinstance(term, Bilateral) and term.image is not None:
        own_image = open_image(where, "Bilateral image", term.image, len(grid))
        n_channels = own_image.shape[-1]
        if own_image.shape[:-1] != grid:
            expected = f"{(*grid, n_channels)}, the size of the unary"
            raise fault.wrong_shape(where, "Bilateral image", own_image.shape, expected)
    if isinstance(term, Bilateral) and n_channels == 0:
        raise fault.missing_image(where)
    axes = term.axes(where, grid, n_channels)
    if len(axes) > fault.MOST_DIMENSIONS:
        raise fault.too_many_dimensions(where, f"the {type(term).__name__} term", len(axes))
    chosen = compatibility if term.compatibility is None else term.compatibility
    factor, mu = resolve(where, chosen, n_labels)
    strength = term.weight * factor * (1.0 if mu is None else float(np.abs(mu).max()))
    if strength > fault.STRONGEST:
        raise fault.too_strong(where, type(term).__name__, strength)
    normalized = NORMALIZATIONS[term.normalization or normalization]
    return Kernel(term, axes, term.weight * factor, mu, normalized, own_image)
