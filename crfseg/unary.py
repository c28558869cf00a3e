# SPDX-License-Identifier: MIT
"""Unary energies: -log p, from probabilities, from scores before softmax, or from hard labels."""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check as check
from . import _explain as explain
from . import _fault as fault
from . import _memory as memory
from ._containers import as_array, float32

PROBABILITY_FLOOR: Final = 1e-5
"""Smaller probabilities count as this: no network knows that well what a point is not."""

_LEAST_FLOAT32: Final = float(np.finfo(np.float32).tiny)


def unary_from_probs(probs: Any, *, clip: float = PROBABILITY_FLOOR) -> NDArray[np.float32]:
    """Energies -log(max(p, clip)) of probabilities.

    Args:
        probs: (C, *spatial) floats, the label axis first, that sum to 1 within 0.01 at every point.
        clip: the least probability, above 0 and below 1, so that no energy is infinite.

    Returns:
        (C, *spatial) float32 energies.

    Raises:
        TypeError, ValueError: if ``probs`` are no such probabilities, or ``clip`` is out of range.
    """
    where = "unary_from_probs"
    array = _scores(where, "probs", probs)
    floor = check.between(where, "clip", clip, zero=False)
    wrong = explain.probabilities(where, "probs", array, guessed=False)
    if wrong is not None:
        raise wrong
    energies: NDArray[np.float32] = np.maximum(float32(array), max(floor, _LEAST_FLOAT32))
    np.log(energies, out=energies)
    return np.negative(energies, out=energies)


def unary_from_logits(logits: Any) -> NDArray[np.float32]:
    """Energies -log softmax(logits).

    Args:
        logits: (C, *spatial) finite floats, C >= 2, the label axis first; log-probabilities are
            logits too.

    Returns:
        (C, *spatial) float32 energies.

    Raises:
        TypeError, ValueError: if ``logits`` are not as described.
    """
    where = "unary_from_logits"
    array = _scores(where, "logits", logits)
    if len(array) == 1:
        raise explain.one_logit(where, "logits", array.shape)
    scores = float32(array)
    if not np.isfinite(scores).all():
        raise explain.non_finite(where, "logits", array)
    with np.errstate(over="ignore"):  # a difference beyond float32 is as good as infinite
        shifted = scores.max(axis=0) - scores
    energies: NDArray[np.float32] = shifted + np.log(np.exp(-shifted).sum(axis=0))
    return energies


def unary_from_labels(
    labels: Any, n_labels: int, confidence: float = 0.7, ignore_index: int | None = None
) -> NDArray[np.float32]:
    """Energies of a hard labelling that is trusted to a degree.

    A point's own label has probability ``confidence``, the other labels share the rest. Points
    marked ``ignore_index`` know nothing: all labels have the same probability. If the mark is one
    of 0..n_labels - 1 it still names no class: it is forbidden everywhere (energy +inf).

    Args:
        labels: (*spatial) integers from 0 to n_labels - 1, or ``ignore_index``.
        n_labels: C, at least 1.
        confidence: above 0 and below 1.
        ignore_index: the mark of points without a label (255 and 0 are usual), or None.

    Returns:
        (C, *spatial) float32 energies.

    Raises:
        TypeError, ValueError: if an argument is not as described.
    """
    where = "unary_from_labels"
    array = as_array(where, "labels", labels)
    check_label_array(where, "labels", array)
    rule = LabelRule(
        check.integer(where, "n_labels", n_labels, at_least=1),
        check.between(where, "confidence", confidence, zero=False),
        None if ignore_index is None else check.any_integer(where, "ignore_index", ignore_index),
    )
    what = f"labels of shape {array.shape} with {rule.n_labels} labels"
    memory.require(where, what, 4 * array.size * rule.n_labels)
    check_label_values(where, "labels", array, rule)
    return rule.energies(where, array)


class LabelRule(NamedTuple):
    """How hard labels become energies."""

    n_labels: int
    confidence: float
    ignore_index: int | None

    def constants(self, where: str) -> "LabelEnergies":
        """The few energies that there are."""
        n_labels, ignored = self.n_labels, self.ignore_index
        forbidden = ignored if ignored is not None and 0 <= ignored < n_labels else None
        n_classes = n_labels - (forbidden is not None)
        if n_classes == 0:
            raise fault.nothing_but_ignored(where, n_labels)
        if n_classes == 1:  # any constant will do
            return LabelEnergies(0.0, 0.0, 0.0, forbidden)
        return LabelEnergies(
            given=-math.log(self.confidence),
            other=-math.log((1.0 - self.confidence) / (n_classes - 1)),
            unknown=math.log(n_classes),
            forbidden=forbidden,
        )

    def energies(self, where: str, labels: NDArray[Any]) -> NDArray[np.float32]:
        """(C, *spatial) energies of labels that have been checked."""
        few = self.constants(where)
        energies = np.full((self.n_labels, labels.size), few.other, np.float32)
        flat = labels.reshape(-1)
        known = None if self.ignore_index is None else flat != self.ignore_index
        if known is None or known.all():
            energies[flat, np.arange(flat.size)] = few.given
        else:
            points = np.flatnonzero(known)
            energies[flat[points], points] = few.given
            energies[:, ~known] = few.unknown
        if few.forbidden is not None:
            energies[few.forbidden] = np.inf
        return energies.reshape(self.n_labels, *labels.shape)


class LabelEnergies(NamedTuple):
    """What hard labels are made into."""

    given: float  # of a point's own label
    other: float
    unknown: float  # of every label of a point that has none
    forbidden: int | None  # a label that no point can have


def check_label_array(where: str, name: str, labels: NDArray[Any]) -> None:
    """Raise unless these are integers, and at least one."""
    if labels.dtype.kind not in "iu":
        raise fault.wrong_dtype(where, name, labels.dtype, "integer labels")
    if labels.size == 0:
        raise fault.empty(where, name, labels.shape)


def check_label_values(where: str, name: str, labels: NDArray[Any], rule: LabelRule) -> None:
    """Raise unless every label is below ``n_labels`` or the ignored one."""
    if labels.min() >= 0 and labels.max() < rule.n_labels:
        return
    bad = (labels < 0) | (labels >= rule.n_labels)
    if rule.ignore_index is not None:
        bad &= labels != rule.ignore_index
    if bad.any():
        raise explain.label_range(where, name, labels, bad, rule.n_labels)


def count_labels(where: str, name: str, labels: NDArray[Any], ignore_index: int | None) -> int:
    """The number of labels where the caller gave none: the largest that occurs, plus one.

    Raises:
        ValueError: if every point is ignored, or if 255 may be a label or the mark of no label.
    """
    highest = int(labels.max())
    if highest == ignore_index:
        known = labels[labels != ignore_index]
        if known.size == 0:
            raise fault.nothing_but_ignored(where, None)
        highest = int(known.max())
    if highest == 255 and ignore_index is None and not (labels == 254).any():
        raise explain.unclear_255(where, name)
    return max(highest, 0) + 1


def _scores(where: str, name: str, value: Any) -> NDArray[Any]:
    array = as_array(where, name, value)
    if array.dtype.kind != "f":
        raise fault.wrong_dtype(where, name, array.dtype, "floats")
    if array.ndim < 2:
        raise fault.wrong_shape(where, name, array.shape, "(C, *spatial), the label axis first")
    if array.shape[0] == 0:
        raise fault.no_labels(where, name, array.shape)
    if array.size == 0:
        raise fault.empty(where, name, array.shape)
    memory.require(where, f"{name} of shape {array.shape}", 4 * array.size)
    return array
