# SPDX-License-Identifier: MIT
"""How good a segmentation is: plain numpy, streaming over a data set.

``Confusion`` counts pixels over a whole data set, ``BandConfusion`` those near label boundaries, by
their distance; ``BoundaryIoU``, ``mean_boundary_accuracy`` and ``Calibration`` are what they are
named after. Everything takes label maps of integers, numpy arrays or torch CPU tensors.
"""

from .bands import BandConfusion, distance_to, label_boundaries
from .boundaries import BoundaryIoU, boundary_iou, mean_boundary_accuracy
from .calibration import Calibration
from .confusion import ABSENT, Confusion

__all__ = [
    "ABSENT",
    "BandConfusion",
    "BoundaryIoU",
    "Calibration",
    "Confusion",
    "boundary_iou",
    "distance_to",
    "label_boundaries",
    "mean_boundary_accuracy",
]
