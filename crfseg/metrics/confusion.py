# SPDX-License-Identifier: MIT
"""One confusion matrix over a data set, and the scores of Long, Shelhamer & Darrell (FCN, 2015).

n_ij counts the pixels of class i that were predicted as j, t_i = sum_j n_ij those of class i and
p_i = sum_j n_ji those predicted as i. The matrix is summed over all images first and scores are
taken of the sum, as PASCAL VOC does; the mean of per-image scores is another number.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg import _check as check

from . import _arguments as arguments

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

ABSENT = ("fcn", "skip", "zero", "nan")
"""What a mean over classes does with one that does not occur, see ``Confusion``."""


class Confusion:
    """Counts of (target, prediction) pairs, added image by image.

    A class that occurs in no target (t_i = 0) has no accuracy, and no IoU either unless it was
    predicted somewhere, which makes it 0. Means over classes take one of these views of it:

    ======  ========================================================================================
    absent  classes that the mean is taken over
    ======  ========================================================================================
    "fcn"   those whose own score is defined (the authors' score.py): accuracy where t_i > 0, IoU
            where t_i + p_i > 0, so that a class predicted but not there counts as 0
    "skip"  those with t_i > 0, for the IoU too: predictions of other classes are errors of the
            classes they took the pixels from, and nothing else (scikit-learn's ``labels=present``)
    "zero"  all, with 0 where the score is undefined
    "nan"   all; NaN as soon as one is undefined (the IoU of DeepLab's MyVOCevalseg)
    ======  ========================================================================================

    Args:
        num_classes: C; labels are 0 .. C - 1.
        ignore_index: pixels whose *target* has this label do not count, whatever was predicted
            there; None counts all.

    Attributes:
        counts: (C, C) int64, n_ij.
    """

    def __init__(self, num_classes: int, ignore_index: int | None = 255) -> None:
        self.num_classes = arguments.n_classes("Confusion", num_classes)
        self.ignore_index = arguments.ignored_index("Confusion", ignore_index)
        self.counts: Counts = np.zeros((self.num_classes,) * 2, np.int64)

    @classmethod
    def of(cls, counts: Counts, ignore_index: int | None = 255) -> "Confusion":
        """From a (C, C) table of counts, rows by target."""
        table = arguments.table_of_counts("Confusion.of", counts)
        made = cls(len(table), ignore_index)
        made.counts += table
        return made

    def add(self, prediction: Any, target: Any, mask: Any = None) -> "Confusion":
        """Count the pixels of an image, or of many.

        Args:
            prediction: integers of any shape.
            target: integers of the same shape.
            mask: bool of the same shape; only where it is true do pixels count.

        Returns:
            Itself.

        Raises:
            TypeError: for dtypes that are no integers, or a mask that is not bool.
            ValueError: if the shapes differ, or a label that counts is not one of 0 .. C - 1.
        """
        where = "Confusion.add"
        predicted, true = arguments.pair(where, prediction, target)
        counts = arguments.counted(where, true, self.ignore_index, mask)
        n_classes = self.num_classes
        arguments.in_range(where, predicted, true, n_classes, self.ignore_index, counts)
        if counts is not None:
            predicted, true = predicted[counts], true[counts]
        codes = true.astype(np.intp).ravel() * n_classes + predicted.ravel()
        self.counts += np.bincount(codes, minlength=n_classes**2).reshape(self.counts.shape)
        return self

    def merge(self, other: "Confusion") -> "Confusion":
        """Count what another has counted; returns itself."""
        arguments.of_type("Confusion.merge", "other", other, Confusion)
        if other.num_classes != self.num_classes:
            raise check.invalid(
                "Confusion",
                f"a matrix of {other.num_classes} classes cannot be added to one of "
                f"{self.num_classes}",
            )
        self.counts += other.counts
        return self

    @property
    def total(self) -> int:
        """Pixels counted."""
        return int(self.counts.sum())

    def pixel_accuracy(self) -> float:
        """sum_i n_ii / sum_i t_i; NaN before anything was counted."""
        return _ratio(np.trace(self.counts), self.total)

    def accuracies(self) -> Floats:
        """(C,) n_ii / t_i, NaN where t_i = 0."""
        return _ratios(np.diag(self.counts), self._true())

    def ious(self) -> Floats:
        """(C,) n_ii / (t_i + p_i - n_ii), NaN where a class neither occurs nor was predicted."""
        hits = np.diag(self.counts)
        return _ratios(hits, self._true() + self.counts.sum(0) - hits)

    def mean_accuracy(self, absent: str = "fcn") -> float:
        """Mean over classes of n_ii / t_i."""
        return self._mean(self.accuracies(), "Confusion.mean_accuracy", absent)

    def mean_iou(self, absent: str = "fcn") -> float:
        """Mean over classes of n_ii / (t_i + p_i - n_ii)."""
        return self._mean(self.ious(), "Confusion.mean_iou", absent)

    def frequency_weighted_iou(self) -> float:
        """sum_i t_i IoU_i / sum_i t_i: classes that do not occur have no weight in it."""
        occurring = self._true() > 0
        weighted = self._true()[occurring] * self.ious()[occurring]
        return _ratio(weighted.sum(), self.total)

    def table(self, names: Sequence[str] | None = None) -> str:
        """Lines of text: share of the pixels, accuracy and IoU of each class and of all, in %.

        Args:
            names: of the classes, in order; None numbers them.
        """
        names = self._names(names)
        width = max(map(len, [*names, "all"]))
        shares = _ratios(self._true(), np.full(self.num_classes, self.total))
        rows = [
            (name, 100 * share, 100 * accuracy, 100 * iou)
            for name, share, accuracy, iou in zip(
                names, shares, self.accuracies(), self.ious(), strict=True
            )
        ]
        everything = (100.0, 100 * self.mean_accuracy(), 100 * self.mean_iou())
        lines = [f"{'class':{width}}  pixels  accuracy     IoU"]
        lines += [
            f"{name:{width}}  {_cell(share, 6)}  {_cell(accuracy, 8)}  {_cell(iou, 6)}"
            for name, share, accuracy, iou in [*rows, ("all", *everything)]
        ]
        pixel, weighted = self.pixel_accuracy(), self.frequency_weighted_iou()
        lines.append(
            f"{self.total} pixels, pixel accuracy {_cell(100 * pixel)}, "
            f"frequency-weighted IoU {_cell(100 * weighted)}"
        )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def _true(self) -> Counts:
        """(C,) t_i."""
        return np.asarray(self.counts.sum(1))

    def _mean(self, scores: Floats, where: str, absent: str) -> float:
        check.choice(where, "absent", absent, ABSENT)
        if absent == "skip":
            scores = scores[self._true() > 0]
        elif absent == "fcn":
            scores = scores[~np.isnan(scores)]
        elif absent == "zero":
            scores = np.nan_to_num(scores, nan=0.0)
        return float(scores.mean()) if scores.size else float("nan")

    def _names(self, names: Any) -> list[str]:
        if names is None:
            return [str(i) for i in range(self.num_classes)]
        is_list = isinstance(names, Sequence) and not isinstance(names, str)
        if not is_list or not all(isinstance(name, str) for name in names):
            raise check.mistyped(
                "Confusion.table", f"names is {check.show(names)}; expected a list of strings"
            )
        if len(names) != self.num_classes:
            raise check.invalid(
                "Confusion.table",
                f"names has {len(names)} entries; expected {self.num_classes}, one per class",
            )
        return list(names)


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else float("nan")


def _ratios(parts: NDArray[Any], wholes: NDArray[Any]) -> Floats:
    found = np.full(len(parts), np.nan)
    np.divide(parts, wholes, out=found, where=wholes > 0)
    return found


def _cell(value: float, width: int = 0) -> str:
    """Per cent with two digits; a dash for what is not defined."""
    text = "-" if np.isnan(value) else f"{value:.2f}"
    return f"{text:>{width}}"
