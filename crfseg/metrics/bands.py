# SPDX-License-Identifier: MIT
"""Scores near label boundaries, by distance: trimaps of every width from one pass over an image.

The distance is the chessboard's, max(|dy|, |dx|): pixels within w of a seed are what a square of
2 w + 1 pixels dilates the seeds to. A histogram over (distance, target, prediction) then holds the
confusion matrix of every band at once.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg import _check as check

from . import _arguments as arguments
from .confusion import Confusion

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
SEEDS = ("void", "labels")
_MOST = 10_000
_STEPS = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, -1), (1, 0), (1, 1))}


def distance_to(seeds: Any, limit: int) -> NDArray[np.integer[Any]]:
    """(H, W) chessboard distance to the nearest seed; ``limit + 1`` stands for all beyond it.

    ``distance_to(seeds, w) <= w`` dilates by a square of 2 w + 1 pixels and
    ``distance_to(~seeds, w) > w`` erodes by it; nothing lies outside the image. Rows first, then
    columns, both as minima of whole rows or images.

    Args:
        seeds: (H, W) bool.
        limit: the largest distance that matters.
    """
    where = "distance_to"
    mask = arguments.mask_of_pixels(where, "seeds", seeds)
    limit = check.integer(where, "limit", limit, at_least=0, at_most=_MOST)
    dtype = np.uint8 if limit < 254 else np.uint16
    along_rows = np.where(mask.T, 0, limit + 1).astype(dtype, order="C")
    _spread(along_rows)
    found = along_rows.T.copy()
    nearest = found.copy()
    # Seen from ``shift`` rows away a seed is at least that far: max(|dy|, |dx|).
    for shift in range(1, min(limit, len(found) - 1) + 1):
        further = np.maximum(nearest, shift)
        np.minimum(found[shift:], further[:-shift], out=found[shift:])
        np.minimum(found[:-shift], further[shift:], out=found[:-shift])
    return np.asarray(found)


def _spread(distance: NDArray[Any]) -> None:
    """Along the first axis, in place: what is 0 at seeds becomes the distance to them."""
    for before, here in itertools.pairwise(distance):
        np.minimum(here, before + 1, out=here)
    for before, here in itertools.pairwise(distance[::-1]):
        np.minimum(here, before + 1, out=here)


def label_boundaries(target: Any, ignore_index: int | None = 255, neighbours: int = 8) -> Mask:
    """(H, W) bool: pixels with a label that see another label next to them.

    Ignored pixels are no label: the seams between them and labels are not boundaries.

    Args:
        target: (H, W) integers.
        ignore_index: the mark of ignored pixels; None where there are none.
        neighbours: 8, the 3 x 3 neighbourhood, or 4, without its corners.
    """
    where = "label_boundaries"
    labels = arguments.map_of_labels(where, "target", target)
    ignore_index = arguments.ignored_index(where, ignore_index)
    steps = _STEPS[check.choice(where, "neighbours", neighbours, tuple(_STEPS))]
    return sees_another(labels, ignore_index, steps)


def sees_another(
    labels: NDArray[Any], ignore_index: int | None, steps: Iterable[tuple[int, int]]
) -> Mask:
    """Pixels with a label whose neighbour at one of the (dy, dx), or at minus it, has another.

    Steps have dy >= 0, or dy = 0 and dx > 0.
    """
    ignored = None if ignore_index is None else labels == ignore_index
    found = np.zeros(labels.shape, bool)
    height, width = labels.shape
    for dy, dx in steps:
        columns = max(0, -dx), width - max(0, dx)
        here = np.s_[: max(0, height - dy), slice(*columns)]
        there = np.s_[dy:, columns[0] + dx : columns[1] + dx]
        differ = labels[here] != labels[there]
        if ignored is not None:
            differ &= ~(ignored[here] | ignored[there])
        found[here] |= differ
        found[there] |= differ
    return found


class BandConfusion:
    """Confusion matrices of the pixels within 1, 2, ... of where labels meet.

    ======== =======================================================================================
    around   band of width w
    ======== =======================================================================================
    "void"   labelled pixels within w of an ignored one: DeepLab's trimap (MyVOCevalsegBoundary) on
             PASCAL VOC, whose annotators left the seams between objects unlabelled. Large areas of
             void have such bands around them as well.
    "labels" labelled pixels within w of `label_boundaries`, whose own pixels are at distance 0:
             for ground truth without seams
    function labelled pixels within w of the pixels where ``function(target)``, (H, W) bool, is true
    ======== =======================================================================================

    Args:
        num_classes: C; labels are 0 .. C - 1.
        widths: of the bands, in pixels, DeepLab's 1 .. 40 unless given.
        around: one of the above.
        ignore_index: pixels whose target has this label do not count.

    Attributes:
        widths: tuple of int, in ascending order.
        rings: (len(widths), C, C) int64, counts within a width but not within the one before.
    """

    def __init__(
        self,
        num_classes: int,
        widths: Iterable[int] = range(1, 41),
        *,
        around: str | Callable[[NDArray[Any]], Mask] = "void",
        ignore_index: int | None = 255,
    ) -> None:
        where = "BandConfusion"
        self.num_classes = arguments.n_classes(where, num_classes)
        self.widths = _widths(where, widths)
        self.around = around if callable(around) else check.choice(where, "around", around, SEEDS)
        self.ignore_index = arguments.ignored_index(where, ignore_index)
        if around == "void" and self.ignore_index is None:
            raise check.invalid(
                where,
                "around is 'void' but ignore_index is None; expected the label of void",
            )
        self.rings = np.zeros((len(self.widths), self.num_classes, self.num_classes), np.int64)

    def add(self, prediction: Any, target: Any) -> "BandConfusion":
        """Count the pixels of one image.

        Args:
            prediction: (H, W) integers.
            target: (H, W) integers.

        Returns:
            Itself.

        Raises:
            TypeError: for dtypes that are no integers.
            ValueError: if the shapes differ, or a label that counts is not one of 0 .. C - 1.
        """
        where = "BandConfusion.add"
        predicted, true, counts = arguments.pair_of_maps(
            where, prediction, target, self.num_classes, self.ignore_index
        )
        furthest = self.widths[-1]
        distance = distance_to(self._seeds(true), furthest)
        near = distance <= furthest if counts is None else counts & (distance <= furthest)
        rings = np.searchsorted(self.widths, np.arange(furthest + 1))[distance[near]]
        codes = (rings * self.num_classes + true[near]) * self.num_classes + predicted[near]
        self.rings += np.bincount(codes, minlength=self.rings.size).reshape(self.rings.shape)
        return self

    def merge(self, other: "BandConfusion") -> "BandConfusion":
        """Count what another has counted; returns itself."""
        arguments.of_type("BandConfusion.merge", "other", other, BandConfusion)
        if (other.num_classes, other.widths) != (self.num_classes, self.widths):
            raise check.invalid(
                "BandConfusion", "bands of other widths or classes cannot be added to these"
            )
        self.rings += other.rings
        return self

    def at(self, width: int) -> Confusion:
        """The confusion matrix of one of the widths."""
        found = check.choice("BandConfusion.at", "width", width, self.widths)
        rings = self.rings[: self.widths.index(found) + 1]
        return Confusion.of(rings.sum(0), self.ignore_index)

    def pixel_accuracies(self) -> Floats:
        """One number per width; 1 minus it is the error in percent of the trimap literature."""
        return np.array([self.at(width).pixel_accuracy() for width in self.widths])

    def mean_ious(self, absent: str = "fcn") -> Floats:
        """One number per width; ``absent`` as for ``Confusion``."""
        return np.array([self.at(width).mean_iou(absent) for width in self.widths])

    def _seeds(self, target: NDArray[Any]) -> Mask:
        if callable(self.around):
            seeds = arguments.mask_of_pixels(
                "BandConfusion.add", "around(target)", self.around(target)
            )
            arguments.same_shape("BandConfusion.add", "around(target)", seeds, target)
            return seeds
        if self.around == "void":
            return np.asarray(target == self.ignore_index)
        return label_boundaries(target, self.ignore_index)


def _widths(where: str, widths: Any) -> tuple[int, ...]:
    if not isinstance(widths, Iterable):
        raise check.mistyped(
            where, f"widths is {check.show(widths)}; expected several, such as range(1, 41)"
        )
    found = sorted(
        {check.integer(where, "widths", width, at_least=0, at_most=_MOST) for width in widths}
    )
    if not found:
        raise check.invalid(where, "widths is empty; expected at least one width in pixels")
    return tuple(found)
