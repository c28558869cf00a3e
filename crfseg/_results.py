# SPDX-License-Identifier: MIT
"""What refine() hands back: the form of the result and the array that inference writes into."""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check as check
from ._containers import store
from ._scores import Scores, batch_first, with_label_axis
from ._thin import most_probable

Grid = tuple[int, ...]

RETURNS: Final = ("same", "probs", "labels")
_LEAST: Final = np.float32(np.finfo(np.float32).tiny)


class Unsure(NamedTuple):
    """Labels that are not believed, and what stands in their place."""

    below: float  # of the label's marginal
    mark: int


class Form(NamedTuple):
    """What each item of the result holds."""

    holds: str  # "probs", "log-probs", "foreground" (label 1 of two), "labels" or "mask"
    dtype: np.dtype[Any]
    unsure: Unsure | None = None

    @property
    def needs_labels(self) -> bool:
        """Whether MAP labels suffice and Q need not be written at all."""
        return self.holds in ("labels", "mask") and self.unsure is None

    @property
    def is_soft(self) -> bool:
        """Whether it changes smoothly with the scores."""
        return self.holds in ("probs", "log-probs", "foreground")

    @property
    def has_label_axis(self) -> bool:
        """Whether there is a value for every label."""
        return self.holds in ("probs", "log-probs")

    def bytes_of(self, n_items: int, size: Grid, n_labels: int) -> int:
        """Size of the result."""
        values = n_labels if self.has_label_axis else 1
        return n_items * math.prod(size) * values * self.dtype.itemsize


def checked_unsure(
    where: str, min_confidence: Any, ignore_index: Any, scores: Scores, returns: str, n_labels: int
) -> Unsure | None:
    """The ``min_confidence`` argument, and the mark that no label has."""
    if min_confidence is None:
        return None
    below = check.between(where, "min_confidence", min_confidence, zero=True)
    if returns == "probs" or (returns == "same" and scores.kind != "labels"):
        raise check.invalid(
            where, f"min_confidence is {check.show(below)}; expected returns='labels' with it"
        )
    mark = 255 if ignore_index is None else check.any_integer(where, "ignore_index", ignore_index)
    # Of label maps refine() makes the mark a label that no pixel has.
    if 0 <= mark < n_labels and (ignore_index is None or scores.kind != "labels"):
        raise check.invalid(
            where,
            f"min_confidence needs a mark for labels that are not sure, and {mark} is one of "
            f"{n_labels} labels; expected another ignore_index",
        )
    most = np.iinfo(scores.array.dtype if scores.kind == "labels" else np.int32)
    if not most.min <= mark <= most.max:
        raise check.invalid(
            where,
            f"ignore_index is {mark}; expected a number that {most.dtype} labels can have, to mark "
            "those below min_confidence",
        )
    return Unsure(below, mark)


def form_of(scores: Scores, returns: str, n_labels: int, unsure: Unsure | None) -> Form:
    """The form of the result for what came in and what was asked for."""
    given = scores.array.dtype
    floating = given if given.kind == "f" else np.dtype(np.float32)
    if returns == "labels" or (returns == "same" and scores.kind == "labels"):
        is_small = n_labels <= 256 and (unsure is None or 0 <= unsure.mark <= 255)
        few = np.dtype(np.uint8 if is_small else np.int32)
        return Form("labels", given if scores.kind == "labels" else few, unsure)
    if scores.kind == "mask":
        is_hard = returns == "same" and given.kind != "f"
        return Form("mask", given) if is_hard else Form("foreground", floating)
    return Form("log-probs" if (scores.kind, returns) == ("logits", "same") else "probs", floating)


def laid_out(form: Form, scores: Scores, size: Grid, n_labels: int) -> tuple[str, Grid]:
    """The layout and shape of the result; a mask may keep its label axis of length 1."""
    layout = with_label_axis(scores.layout) if form.has_label_axis else scores.layout
    if not form.has_label_axis and (form.holds == "labels" or not scores.has_mask_axis):
        layout = layout.replace("C", "")
    sizes = {"N": scores.sizes.get("N", 1), "C": n_labels if form.has_label_axis else 1}
    sizes |= dict(zip(scores.grid, size, strict=True))
    return layout, tuple(sizes[axis] for axis in layout)


class Result:
    """The result array, in the caller's layout."""

    def __init__(self, form: Form, scores: Scores, size: Grid, n_labels: int) -> None:
        sizes = {"N": scores.sizes.get("N", 1), "C": n_labels}
        sizes |= dict(zip(scores.grid, size, strict=True))
        self._form, self._sizes, self._size = form, sizes, size
        self._one = with_label_axis(scores.layout).replace("N", "")
        layout, shape = laid_out(form, scores, size, n_labels)
        self.array = np.empty(shape, form.dtype)
        items = batch_first(self.array, layout)
        self._items = items if form.has_label_axis or "C" not in layout else items[:, 0]

    def writer(self) -> "Writer":
        """What fills it item by item, on one thread."""
        return Writer(self._form, self._items, self._one, self._sizes, self._size)


class Writer:
    """Fills items of a result, one after the other.

    Float32 results are written in place by the native core; others go through one item's worth of
    float32 or of int32 labels.
    """

    def __init__(
        self, form: Form, items: NDArray[Any], one: str, sizes: dict[str, int], size: Grid
    ) -> None:
        self._form, self._items = form, items
        self._direct = form.has_label_axis and form.dtype == np.float32 and form.dtype.isnative
        self._labels = np.empty(size if form.needs_labels else 0, np.int32)
        needs_q = not self._direct and not form.needs_labels
        self._q = batch_first(_empty(one, sizes, np.dtype(np.float32)), one)[0] if needs_q else None

    def targets(self, i: int) -> tuple[NDArray[np.float32] | None, NDArray[np.int32] | None]:
        """Where the native core writes item ``i``: Q (C, N), or MAP labels (N,)."""
        if self._form.needs_labels:
            return None, self._labels.reshape(-1)
        q = self._marginals(i)
        return q.reshape(len(q), -1), None

    def finish(self, i: int, foreground: int) -> None:
        """Turn what the native core wrote into item ``i`` of the result."""
        holds = self._form.holds
        if self._form.unsure is not None:
            self._items[i] = _sure_labels(self._marginals(i), self._form.unsure)
        elif holds == "labels":
            self._items[i] = self._labels
        elif holds == "mask":
            self._items[i] = self._labels * foreground
        elif holds == "foreground":
            store(self._items[i], self._marginals(i)[1])
        else:
            q = self._marginals(i)
            if holds == "log-probs":
                np.log(np.maximum(q, _LEAST, out=q), out=q)
            if not self._direct:
                store(self._items[i], q)

    def _marginals(self, i: int) -> NDArray[np.float32]:
        """Q of item ``i`` as (C, *spatial)."""
        q: NDArray[np.float32] = self._items[i] if self._q is None else self._q
        return q


def _sure_labels(q: NDArray[np.float32], unsure: Unsure) -> NDArray[np.int32]:
    """(H, W) most probable labels of (C, H, W), where they are probable enough."""
    labels = most_probable(q.reshape(len(q), -1)).reshape(q.shape[1:])
    labels[q.max(axis=0) < unsure.below] = unsure.mark
    return labels


def _empty(layout: str, sizes: dict[str, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.empty([sizes[axis] for axis in layout], dtype)
