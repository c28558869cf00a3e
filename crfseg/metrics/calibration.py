# SPDX-License-Identifier: MIT
"""Whether probabilities mean what they say: expected calibration error (Guo et al., ICML 2017)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg import _check as check
from crfseg import _explain as explain
from crfseg import _fault as fault
from crfseg._containers import open_array

from . import _arguments as arguments

Floats = NDArray[np.float64]


class Calibration:
    """Confidence against accuracy in bins of equal width, added image by image.

    Bin m of M holds the pixels whose largest probability lies in ((m - 1) / M, m / M].

    Args:
        bins: M.
        ignore_index: pixels whose target has this label do not count; None counts all.

    Attributes:
        sums: (3, bins): pixels, sums of their confidences, hits.
    """

    def __init__(self, bins: int = 15, ignore_index: int | None = 255) -> None:
        self.bins = check.integer("Calibration", "bins", bins, at_least=1, at_most=10_000)
        self.ignore_index = arguments.ignored_index("Calibration", ignore_index)
        self.sums = np.zeros((3, self.bins))

    def add(self, probs: Any, target: Any) -> "Calibration":
        """Count one image.

        Args:
            probs: (C, *spatial) floats, probabilities of each label.
            target: (*spatial) integers.

        Returns:
            Itself.
        """
        where = "Calibration.add"
        array, _ = open_array(where, "probs", probs)
        true = arguments.labels(where, "target", target)
        if array.dtype.kind != "f":
            raise fault.wrong_dtype(where, "probs", array.dtype, "floats")
        if array.ndim == 0 or array.shape[1:] != true.shape or not len(array):
            raise fault.wrong_shape(where, "probs", array.shape, "(C, *target.shape)")
        wrong = explain.probabilities(where, "probs", array, guessed=False) if array.size else None
        if wrong:
            raise wrong
        counts = arguments.counted(where, true, self.ignore_index)
        arguments.in_range(where, None, true, len(array), self.ignore_index, counts)
        chosen = ... if counts is None else counts
        confidence = array.max(0)[chosen].ravel().astype(np.float64)
        hits = (array.argmax(0) == true)[chosen].ravel()
        bin_ = np.clip(np.ceil(confidence * self.bins).astype(np.intp) - 1, 0, self.bins - 1)
        for row, weights in enumerate((None, confidence, hits)):
            self.sums[row] += np.bincount(bin_, weights, minlength=self.bins)
        return self

    def merge(self, other: "Calibration") -> "Calibration":
        """Count what another has counted; returns itself."""
        arguments.of_type("Calibration.merge", "other", other, Calibration)
        if other.bins != self.bins:
            raise check.invalid("Calibration", f"{other.bins} bins cannot be added to {self.bins}")
        self.sums += other.sums
        return self

    def reliability(self) -> tuple[Floats, Floats, Floats]:
        """(bins,) shares of the pixels, mean confidences, accuracies; NaN in empty bins."""
        pixels, confidences, hits = self.sums
        with np.errstate(invalid="ignore"):
            return pixels / pixels.sum(), confidences / pixels, hits / pixels

    def expected_error(self) -> float:
        """ECE: sum over bins of share * |accuracy - confidence|; NaN if nothing counted."""
        n_pixels = self.sums[0].sum()
        return float(self._gaps().sum() / n_pixels) if n_pixels else float("nan")

    def largest_error(self) -> float:
        """MCE: the largest |accuracy - confidence| of a bin; NaN before anything was counted."""
        pixels = self.sums[0]
        gaps = self._gaps()[pixels > 0] / pixels[pixels > 0]
        return float(gaps.max()) if gaps.size else float("nan")

    def _gaps(self) -> Floats:
        _, confidences, hits = self.sums
        return np.asarray(np.abs(hits - confidences))
