# SPDX-License-Identifier: MIT
"""Published scores of boundaries: Boundary IoU (Cheng et al., 2021) and mBA (CascadePSP, 2020)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg import _check as check

from . import _arguments as arguments
from .bands import distance_to, sees_another

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
_RADII = 5


def boundary_iou(prediction: Any, target: Any, dilation_ratio: float = 0.02) -> float:
    """IoU of the inner boundary regions of two masks (Cheng et al., CVPR 2021).

    The boundary region of a mask is what erosion by d pixels takes away from it; d is
    ``dilation_ratio`` of the image's diagonal, rounded, at least 1. Where the image cuts a mask off
    counts as boundary.

    Args:
        prediction: (H, W) bool.
        target: (H, W) bool.
        dilation_ratio: of the diagonal; above 0 and below 1.

    Returns:
        |P_d & T_d| / |P_d | T_d|, NaN where both masks are empty.
    """
    where = "boundary_iou"
    predicted = arguments.mask_of_pixels(where, "prediction", prediction)
    true = arguments.mask_of_pixels(where, "target", target)
    arguments.same_shape(where, "prediction", predicted, true)
    width = _width(where, dilation_ratio, true.shape)
    ours, theirs = _inner_boundary(predicted, width), _inner_boundary(true, width)
    union = (ours | theirs).sum()
    return float((ours & theirs).sum() / union) if union else float("nan")


class BoundaryIoU:
    """Boundary IoU per class of a data set: intersections and unions summed over its images.

    Ignored pixels count for nothing; to both maps they get the predicted label, so that their seams
    are a boundary only where the prediction has one.

    Args:
        num_classes: C; labels are 0 .. C - 1.
        dilation_ratio: as for ``boundary_iou``.
        ignore_index: pixels whose target has this label do not count; None counts all.
    """

    def __init__(
        self, num_classes: int, dilation_ratio: float = 0.02, ignore_index: int | None = 255
    ) -> None:
        self.num_classes = arguments.n_classes("BoundaryIoU", num_classes)
        self.dilation_ratio = check.between(
            "BoundaryIoU", "dilation_ratio", dilation_ratio, zero=False
        )
        self.ignore_index = arguments.ignored_index("BoundaryIoU", ignore_index)
        self._overlap = np.zeros((2, self.num_classes), np.int64)

    def add(self, prediction: Any, target: Any) -> "BoundaryIoU":
        """Count one image: (H, W) integers, both."""
        where = "BoundaryIoU.add"
        predicted, true, counts = arguments.pair_of_maps(
            where, prediction, target, self.num_classes, self.ignore_index
        )
        everywhere = np.ones(true.shape, bool) if counts is None else counts
        agreeing = np.where(everywhere, true, predicted)
        width = _width(where, self.dilation_ratio, true.shape)
        for label in np.union1d(predicted[everywhere], true[everywhere]):
            ours = _inner_boundary(predicted == label, width) & everywhere
            theirs = _inner_boundary(agreeing == label, width) & everywhere
            self._overlap[:, label] += (ours & theirs).sum(), (ours | theirs).sum()
        return self

    def ious(self) -> Floats:
        """(C,), NaN where a class has no boundary in either."""
        intersections, unions = self._overlap
        found = np.full(self.num_classes, np.nan)
        np.divide(intersections, unions, out=found, where=unions > 0)
        return found

    def mean_iou(self) -> float:
        """Mean over the classes with a boundary in either; NaN if there are none."""
        found = self.ious()
        found = found[~np.isnan(found)]
        return float(found.mean()) if found.size else float("nan")


def mean_boundary_accuracy(prediction: Any, target: Any, ignore_index: int | None = 255) -> float:
    """MBA of one image (Cheng, Chung, Tai & Tang, CascadePSP, CVPR 2020).

    Pixel accuracy near boundaries of the target, averaged over five bands. Band k reaches
    1 + int(k (r - 1) / 5) pixels to either side, k = 0 .. 4, r = (H + W) / 300, in the discs of
    OpenCV's ``MORPH_ELLIPSE``. As in the authors' code, radii repeat where H + W is below 1800.

    Args:
        prediction: (H, W) integers or bool.
        target: (H, W) integers or bool.
        ignore_index: pixels whose target has this label do not count, and their seams are no
            boundaries; None counts all.

    Returns:
        The mean accuracy; NaN where the target has no boundary.
    """
    where = "mean_boundary_accuracy"
    predicted = arguments.map_of_labels(where, "prediction", _integers(prediction))
    true = arguments.map_of_labels(where, "target", _integers(target))
    arguments.same_shape(where, "prediction", predicted, true)
    ignore_index = arguments.ignored_index(where, ignore_index)
    hits = predicted == true
    largest = sum(true.shape) / 300
    radii = [1 + int((largest - 1) / _RADII * step) for step in range(_RADII)]
    bands = {radius: sees_another(true, ignore_index, _half_disc(radius)) for radius in {*radii}}
    if not all(band.any() for band in bands.values()):
        return float("nan")
    return float(np.mean([hits[bands[radius]].mean() for radius in radii]))


def _width(where: str, ratio: float, shape: tuple[int, ...]) -> int:
    ratio = check.between(where, "dilation_ratio", ratio, zero=False)
    return max(1, round(ratio * math.hypot(*shape)))


def _inner_boundary(mask: Mask, width: int) -> Mask:
    """Pixels of a mask within ``width`` of what is not in it; nothing outside the image is."""
    outside = np.pad(~mask, 1, constant_values=True)
    return np.asarray(mask & (distance_to(outside, width)[1:-1, 1:-1] <= width))


def _integers(value: Any) -> Any:
    return value.astype(np.uint8) if getattr(value, "dtype", None) == np.bool_ else value


def _half_disc(radius: int) -> list[tuple[int, int]]:
    """Steps (dy, dx) to half of a disc, whose row at dy reaches round(sqrt(r^2 - dy^2))."""
    steps = [(0, dx) for dx in range(1, radius + 1)]
    for dy in range(1, radius + 1):
        reach = round(math.sqrt(radius**2 - dy**2))
        steps += [(dy, dx) for dx in range(-reach, reach + 1)]
    return steps
