# SPDX-License-Identifier: MIT
"""What refine() does with each item of a batch, and on which threads."""

import math
from collections.abc import Callable
from copy import copy
from typing import NamedTuple

from . import _memory as memory
from ._crew import between_iterations, n_side_by_side, share_out
from ._image import Images, Levels, Ranges, to_levels
from ._kernels import Kernels
from ._native import core
from ._results import Result
from ._unaries import Unaries


class Items(NamedTuple):
    """The items of one call, checked as far as that goes without looking at values."""

    where: str
    size: tuple[int, ...]
    unaries: Unaries
    kernels: Kernels
    images: Images
    scale: Ranges | None
    result: Result
    iterations: int
    tolerance: float
    solver: core.Solver
    skip: bool

    def refine(self, n_items: int, threads: int, item_bytes: int) -> None:
        """Fill the result; ``item_bytes`` is what one item needs at least."""
        self.kernels.build(self._levels(0) if self._share_image else None, threads)
        workers = _with_room(min(n_items, threads), item_bytes)
        first = n_side_by_side(n_items, workers) if 2 * workers > threads else 0
        if first:
            share_out(first, workers, lambda: self._twin().worker(1))
        if first < n_items:
            work = self.worker(threads)
            for i in range(first, n_items):
                work(i)

    @property
    def _share_image(self) -> bool:
        return self.kernels.follow_image and len(self.images.arrays) == 1

    def _levels(self, i: int) -> Levels:
        return to_levels(self.where, *self.images.for_item(i), self.scale)

    def _twin(self) -> "Items":
        """The same for another Python thread."""
        return self._replace(unaries=copy(self.unaries), kernels=self.kernels.twin())

    def worker(self, threads: int) -> Callable[[int], None]:
        """What refines one item after the other."""
        unaries, kernels, writer = self.unaries, self.kernels, self.result.writer()
        field = core.MeanField(math.prod(self.size), self.unaries.n_labels)
        is_new_image = kernels.follow_image and not self._share_image
        if not is_new_image:
            kernels.connect(field, threads)

        def work(i: int) -> None:
            judge = unaries.load(field, i, threads)
            if is_new_image:
                kernels.build(self._levels(i), threads)
                kernels.connect(field, threads)
            q, labels = writer.targets(i)
            field.infer(
                None,
                self.iterations,
                self.tolerance,
                self.solver,
                False,
                self.skip,
                q,
                labels,
                judge,
                between_iterations(),
                threads,
            )
            writer.finish(i, unaries.foreground)

        return work


def _with_room(workers: int, item_bytes: int) -> int:
    """As many of the workers as half of the memory that is free has room for."""
    peak = memory.PEAK * item_bytes
    if memory.fits(2 * workers * peak):
        return workers
    return max(1, memory.available() // (2 * peak))
