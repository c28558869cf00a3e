# SPDX-License-Identifier: MIT
"""From what was given to refine() to the unary of a native mean field: the arrow between."""

import math
from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _check as check
from . import _explain as explain
from . import _fault as fault
from . import _memory as memory
from ._containers import float32
from ._native import core
from ._scores import Scores
from ._thin import HELD_FLOOR, held_structures, most_probable, scaled, sharpened
from .solvers import MeanField, native
from .unary import PROBABILITY_FLOOR, LabelRule, check_label_values, count_labels

_MASK_LABELS = 2  # background and foreground
_GREY_LEVELS = 128  # different bytes from which on a label map looks like a picture

Report = tuple[int, float, int, float, int]  # of core.MeanField.set_unary
Judge = Callable[[Report], None]  # raises if values are not what they should be


class Unaries:
    """The unary half of a model, for every item of x.

    Values of labels and masks are looked at here; those of scores when they are read, by the same
    pass that converts them. Nothing that has a value for every label of every pixel is made, unless
    thin structures are held.
    """

    def __init__(
        self,
        where: str,
        scores: Scores,
        size: tuple[int, ...],
        n_labels: int | None,
        confidence: float,
        ignore_index: int | None,
        keep_thin: int,
    ) -> None:
        self._where = where
        self._scores = scores
        self._size = size
        self._n_points = math.prod(size)
        self._keep_thin = keep_thin
        self._rule = _rule_of(where, scores.kind, n_labels, confidence, ignore_index)
        self._lent: NDArray[Any] = np.empty(0)
        self.foreground = 1
        if scores.array.size > 0 and not scores.is_soft:
            least = memory.mean_field_bytes(self._n_points, 1, ())
            memory.require(where, f"x of shape {scores.array.shape}", least)
            self._look_at_values()
        self.n_labels = scores.sizes["C"] if scores.is_soft else self._rule.n_labels

    def _look_at_values(self) -> None:
        if self._scores.kind == "labels":
            self._rule = settle_labels(self._where, self._scores, self._rule)
        elif self._scores.kind == "mask":
            _refuse_one_hot(self._where, self._scores)
            self.foreground = foreground_value(self._where, self._scores)

    @property
    def n_bytes(self) -> int:
        """What ``load`` needs beyond x itself and the native unary."""
        n_held = self._n_points * (self.n_labels + 2) if self._keep_thin else 0
        return 4 * n_held + self._n_loaded

    @property
    def _n_loaded(self) -> int:
        if self._scores.kind in ("labels", "mask") and self._scores.array.dtype.kind != "f":
            return 4 * self._n_points
        n_cells = math.prod(self._scores.grid.values())
        n_given = self.n_labels if self._scores.is_soft else 1
        n_converted = 0 if self._scores.array.dtype == np.float32 else n_given * n_cells
        n_kept = 0 if self._scores.alignment is None else self.n_labels * n_cells
        return 4 * (n_converted + n_kept)

    def load(self, field: core.MeanField, i: int, threads: int) -> Judge:
        """Give ``field`` the unary of item ``i``; what is returned judges what is found in it.

        The field reads the values when it infers: they are kept here until the next ``load``.
        """
        if not self._keep_thin:
            return self._load(field, i, threads)
        if self._scores.kind in ("probs", "logits") and self._scores.alignment is None:
            return self._hold_scores(field, i)
        return self._hold(field, self._load(field, i, threads), threads)

    def _load(self, field: core.MeanField, i: int, threads: int) -> Judge:
        item = self._scores.items[i]
        if self._scores.kind in ("probs", "scores"):
            return self._hand_over(field, item, core.UNARY_PROBABILITIES, threads, self._judge(i))
        if self._scores.kind == "logits":
            return self._hand_over(field, item, core.UNARY_LOGITS, threads, self._judge(i))
        if item.dtype.kind == "f":
            both = item[np.newaxis]
            return self._hand_over(field, both, core.UNARY_FOREGROUND, threads, _accept)
        self._lend_labels(field, item)
        return _accept

    def _hold_scores(self, field: core.MeanField, i: int) -> Judge:
        """A copy of full-size scores in which thin structures are believed more."""
        judge, item = self._judge(i), self._scores.items[i]
        values = float32(item).reshape(len(item), -1)
        where = self._thin(most_probable(values))
        held = values[:, where]
        if self._scores.kind == "logits":
            judge((-1 if np.isfinite(held).all() else 0, 0.0, 0, 0.0, 0))
            self._lent = values.copy()
            self._lent[:, where] = scaled(held)
            field.lend_unary(self._lent, core.UNARY_LOGITS, PROBABILITY_FLOOR)
        else:
            # The field does not see what was below the floor, nor what is held.
            judge(_looked_at(values, held))
            self._lent = np.maximum(values, np.float32(PROBABILITY_FLOOR))
            self._lend_held(field, where, held)
        return judge

    def _hold(self, field: core.MeanField, judge: Judge, threads: int) -> Judge:
        """The same for what the field has been given: its probabilities before any message."""
        probs, labels = (
            np.empty((self.n_labels, self._n_points), np.float32),
            np.empty(self._n_points, np.int32),
        )
        field.infer(
            *(None, 0, 0.0, native(MeanField()), False, False),
            *(probs, labels, judge, None, threads),
        )
        where = self._thin(labels)
        self._lent = probs
        self._lend_held(field, where, probs[:, where])
        return _accept

    def _lend_held(
        self, field: core.MeanField, where: NDArray[np.intp], held: NDArray[np.float32]
    ) -> None:
        self._lent[:, where] = sharpened(held)
        field.lend_unary(self._lent, core.UNARY_PROBABILITIES, HELD_FLOOR)

    def _thin(self, labels: NDArray[np.int32]) -> NDArray[np.intp]:
        return np.flatnonzero(held_structures(labels.reshape(self._size), self._keep_thin))

    def _judge(self, i: int) -> Judge:
        scores, where = self._scores, self._where
        item = scores.items[i]
        name = f"x[{i}]" if "N" in scores.layout else "x"

        def judge_logits(report: Report) -> None:
            if report[0] >= 0:
                raise explain.non_finite(where, name, item, f"C{''.join(scores.grid)}")
            if explain.are_probabilities(item):
                raise explain.not_logits(where, name)

        def judge_scores(report: Report) -> None:
            if report[0] >= 0 or report[1] < -explain.NEGATIVE_TOLERANCE:
                raise explain.scores(where, name, item)

        def judge_probabilities(report: Report) -> None:
            bad, low, _, off, _ = report
            if bad < 0 and low >= -explain.NEGATIVE_TOLERANCE and off <= explain.SUM_TOLERANCE:
                return
            wrong = explain.probabilities(where, name, item, guessed=scores.guessed)
            if wrong is not None:
                raise wrong

        judges = {"logits": judge_logits, "scores": judge_scores}
        return judges.get(scores.kind, judge_probabilities)

    def _hand_over(
        self, field: core.MeanField, item: NDArray[Any], kind: int, threads: int, judge: Judge
    ) -> Judge:
        """Scores (C, h, w) as they are, or for the field to upsample."""
        alignment = self._scores.alignment
        columns = item.shape[-1]
        values = float32(item).reshape(len(item), -1)
        if alignment is None:
            self._lent = values
            field.lend_unary(values, kind, PROBABILITY_FLOOR)
            return judge
        is_align_corners = alignment == "align-corners"
        height, width = self._size
        report = field.set_coarse_unary(
            values, columns, kind, PROBABILITY_FLOOR, height, width, is_align_corners, threads
        )
        judge(report)
        return _accept

    def _lend_labels(self, field: core.MeanField, item: NDArray[Any]) -> None:
        self._lent, energies = self.hard_labels(item)
        field.lend_labels(self._lent, *energies)

    def hard_labels(
        self, items: NDArray[Any]
    ) -> tuple[NDArray[np.int32], tuple[float, float, float, int]]:
        """Labels or hard masks in a row, -1 where there is none, and the energies they stand for.

        These are of a point's own label, of others, and of all where there is none; and the label
        that no point can have, or -1.
        """
        few = self._rule.constants(self._where)
        if self._scores.kind == "mask":
            items = items != 0
        labels = items.astype(np.int32).reshape(-1)
        if self._rule.ignore_index is not None:
            labels[items.reshape(-1) == self._rule.ignore_index] = -1
        forbidden = -1 if few.forbidden is None else few.forbidden
        return labels, (few.given, few.other, few.unknown, forbidden)

    def of(self, scores: Scores) -> "Unaries":
        """The same for scores that lie elsewhere."""
        other = copy(self)
        other._scores = scores  # noqa: SLF001 - its own kind
        return other

    def examine(self, i: int) -> None:
        """Raise for what is wrong with the values of scores, if anything is."""
        values = float32(self._scores.items[i])
        with np.errstate(invalid="ignore", over="ignore"):
            off = float(np.abs(values.sum(0) - 1).max())
        bad = -1 if np.isfinite(values).all() else 0
        self._judge(i)((bad, float(values.min()), 0, off, 0))


def _looked_at(probs: NDArray[np.float32], held: NDArray[np.float32]) -> Report:
    """What the field would report of (C, N) probabilities, but for places and sums of others."""
    bad = -1 if np.isfinite(held).all() else 0
    with np.errstate(invalid="ignore"):
        off = float(np.abs(held.sum(0) - 1).max(initial=0.0))
    return bad, float(probs.min()), 0, off, 0


def _accept(_: Report) -> None:
    """Judge what has been looked at before."""


def _rule_of(where: str, kind: str, n_labels: Any, confidence: Any, ignore_index: Any) -> LabelRule:
    """The keywords about labels, which no other kind takes. 0 labels: still to be counted."""
    for name, value in (("n_labels", n_labels), ("ignore_index", ignore_index)):
        if kind != "labels" and value is not None:
            raise fault.only_for_labels(where, name, value, kind)
    if kind == "mask":
        count = _MASK_LABELS
    else:
        count = 0 if n_labels is None else _label_count(where, n_labels)
    if ignore_index is not None:
        ignore_index = check.any_integer(where, "ignore_index", ignore_index)
    return LabelRule(
        count, check.between(where, "confidence", confidence, zero=False), ignore_index
    )


def _label_count(where: str, n_labels: Any) -> int:
    return check.integer(where, "n_labels", n_labels, at_least=1, at_most=fault.MOST_LABELS)


def settle_labels(where: str, scores: Scores, rule: LabelRule) -> LabelRule:
    """Look at the values of a label map: their range, and whether they are what they seem."""
    labels = scores.array
    if rule.n_labels == 0:
        if scores.guessed and rule.ignore_index is None:
            _refuse_lookalikes(where, scores)
        count = count_labels(where, "x", labels, rule.ignore_index)
        rule = rule._replace(n_labels=min(count, fault.MOST_LABELS))
    check_label_values(where, "x", labels, rule)
    if rule.n_labels - 1 > np.iinfo(labels.dtype).max:
        raise fault.wrong_dtype(where, "x", labels.dtype, f"integers up to {rule.n_labels - 1}")
    return rule


def _refuse_lookalikes(where: str, scores: Scores) -> None:
    """Refuse labels that nobody called so and that may be something else."""
    labels = scores.array
    _refuse_one_hot(where, scores)
    if int(labels.max()) == 255 and ((labels == 0) | (labels == 255)).all():
        raise explain.unclear_mask(where, "x")
    n_levels = _count_levels(labels) if labels.dtype == np.uint8 else 0
    if len(scores.layout) == len(scores.grid) and n_levels >= _GREY_LEVELS:
        raise explain.unclear_grey(where, "x", n_levels)
    if scores.layout == "NHW" and len(labels) > 1 and not scores.is_batch_said:
        raise explain.unclear_maps(where, "x", labels)


def _count_levels(labels: NDArray[Any]) -> int:
    """How many different bytes there are, 0 where they are too small to be many."""
    if labels.max() < _GREY_LEVELS - 1:
        return 0
    return int(np.count_nonzero(np.bincount(labels.reshape(-1))))


def _refuse_one_hot(where: str, scores: Scores) -> None:
    """Refuse (C, *spatial) that would be read as C label maps or masks of one image."""
    values = scores.array
    is_guess = scores.guessed and scores.layout in ("NHW", "NDHW") and not scores.is_batch_said
    if is_guess and len(values) > 1 and explain.is_one_hot(values, 0):
        raise explain.unclear_one_hot(where, "x", values.shape, scores.kind)


def foreground_value(where: str, scores: Scores) -> int:
    """Check a mask's values and return what stands for foreground: 1, or 255 in some pictures."""
    mask = scores.array
    if mask.dtype.kind == "b":
        return 1
    low, high = mask.min(), mask.max()
    if mask.dtype.kind == "f":
        slack = explain.NEGATIVE_TOLERANCE
        if not (low >= -slack and high <= 1 + slack):  # false for NaN as well
            raise explain.mask_values(where, "x", mask, scores.layout)
        return 1
    if low < 0 or high not in (0, 1, 255) or not ((mask == 0) | (mask == high)).all():
        raise explain.mask_values(where, "x", mask, scores.layout)
    return 255 if high == 255 else 1
