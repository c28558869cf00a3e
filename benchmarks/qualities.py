# SPDX-License-Identifier: MIT
"""Rows of `quality.py`, for those who read them without the data: percentages, and times in ms."""

import math
from dataclasses import dataclass

BASELINE, DEFAULTS = "none", "default"  # parameters
PEER, EXACT = "pydensecrf2", "exact"


@dataclass(frozen=True)
class Quality:
    """One way to refine one set, counted over all its images.

    Bands of width w are the labelled pixels within w (Euclidean) of a pixel whose 4-neighbour (of
    a voxel, whose neighbour across a face) has another label. ``seam_accuracy`` is of those within
    4 px, on the chessboard, of a pixel whose 3 x 3 neighbourhood has another label, void taken for
    the first class. Means over classes are over those that occur. Dice is of volumes: whole tumour,
    core, enhancing.
    """

    set: str
    images: int
    contender: str
    parameters: str
    iterations: int
    ms: float  # median per image, one thread
    miou: float
    accuracy: float
    miou_1: float = math.nan
    accuracy_1: float = math.nan
    miou_2: float = math.nan
    accuracy_2: float = math.nan
    miou_4: float = math.nan
    accuracy_4: float = math.nan
    miou_8: float = math.nan
    accuracy_8: float = math.nan
    seam_accuracy: float = math.nan
    dice_whole: float = math.nan
    dice_core: float = math.nan
    dice_enhancing: float = math.nan

    def scores(self) -> tuple[float, ...]:
        """mIoU and accuracy of all pixels and of every band, then of the seams."""
        bands = (self.miou_1, self.accuracy_1, self.miou_2, self.accuracy_2)
        wide = (self.miou_4, self.accuracy_4, self.miou_8, self.accuracy_8)
        return (self.miou, self.accuracy, *bands, *wide, self.seam_accuracy)
