# SPDX-License-Identifier: MIT
"""Class activation maps: the background that they lack, and the classes of the image alone.

A map of weakly supervised segmentation says how much a pixel looks like each class that the image
is known to have, in 0..1. It becomes ``refine``'s ``kind="scores"`` with a background before it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import _check as check
from . import _explain as explain
from . import _fault as fault
from ._containers import as_array, open_array
from .compatibility import Potts
from .presets import spelt_out
from .refine import refine

_Array = TypeVar("_Array")
_PRESENT = "cams.refine_present"
_MARK = -1  # of pixels without a label, while labels are numbered anew
_LEAST_LOG = float(np.log(np.finfo(np.float32).tiny))  # what refine() makes of a marginal of 0


def with_background(
    cams: _Array, *, alpha: float | None = None, threshold: float | None = None
) -> _Array:
    """Put a background before class activation maps.

    Its score is (1 - largest of the maps) ** alpha, the larger alpha the less of it (PSA: 4 and 32,
    CLIP-ES: 1), or the same everywhere, which makes ``.argmax(0)`` a threshold (IRN: 0.3 for a sure
    foreground, 0.05 for a sure background).

    Args:
        cams: (K, H, W) or (N, K, H, W) floats in 0..1, K classes without background.
        alpha: a positive number.
        threshold: a number in 0..1. One of the two has to be given.

    Returns:
        (K + 1, H, W) or (N, K + 1, H, W) scores in the container and dtype of ``cams``; label 0 is
        the background.

    Raises:
        TypeError, ValueError: if an argument is not as described.
    """
    where = "cams.with_background"
    array = as_array(where, "cams", cams)
    _, restore = open_array(where, "cams", cams)
    if array.dtype.kind != "f":
        raise fault.wrong_dtype(where, "cams", array.dtype, "floats")
    if array.ndim not in (3, 4) or array.size == 0:
        raise fault.wrong_shape(where, "cams", array.shape, "(K, H, W) or (N, K, H, W), none 0")
    low, high = float(array.min()), float(array.max())  # NaN if there is one
    if not (low >= 0 and high <= 1 + explain.NEGATIVE_TOLERANCE):
        found = f"cams ranges from {check.show(low)} to {check.show(high)}"
        raise check.invalid(where, f"{found}; expected 0 to 1 (each map over its maximum)")
    if (alpha is None) == (threshold is None):
        raise check.invalid(where, "expected one of alpha and threshold")
    most = array.max(axis=-3, keepdims=True)
    if alpha is not None:
        background = np.maximum(1 - most, 0) ** check.positive(where, "alpha", alpha)
    else:
        level = check.non_negative(where, "threshold", threshold)
        if level > 1:
            raise check.invalid(where, f"threshold is {level:.7g}; expected a number in 0..1")
        background = np.full_like(most, level)
    both = np.concatenate([background.astype(array.dtype, copy=False), array], axis=-3)
    result: _Array = restore(both)
    return result


def refine_present(x: Any, image: Any, *, classes: Any = None, **options: Any) -> Any:
    """``refine`` with the classes of the image alone, the others restored.

    A class that is not there takes no part, and no time. Probabilities of the others are 0 in the
    result, and labels are the numbers that they were.

    Args:
        x: scores (C, H, W) or (N, C, H, W), floats; or label maps (H, W) or (N, H, W), integers.
        image: as for ``refine``; in a batch every item has classes of its own.
        classes: the classes that are there, for all items. None finds them: those with a score
            above 0 somewhere, or that occur in the label map.
        options: keywords of ``refine``, but for ``layout``. A ``compatibility`` is one of all
            classes. Where it is said which ``classes`` there are, probabilities need not sum to 1
            over them.

    Returns:
        What ``refine`` returns for all C classes; C of label maps is ``n_labels``, or one more than
        the largest.

    Raises:
        TypeError, ValueError: as ``refine``, or if no class is there.
    """
    array = as_array(_PRESENT, "x", x)
    _, restore = open_array(_PRESENT, "x", x)
    options = spelt_out(_PRESENT, refine, options)
    if "layout" in options:
        raise check.mistyped(_PRESENT, "layout is given; expected x as (C, H, W) or (N, C, H, W)")
    if array.dtype.kind == "b" or options.get("kind") == "mask":
        raise check.invalid(_PRESENT, "x is a mask, whose two classes are always there")
    is_labels = array.dtype.kind in "iu"
    n_axes = array.ndim + is_labels
    if n_axes not in (3, 4):
        expected = "(C, H, W) or (N, C, H, W), labels without C"
        raise fault.wrong_shape(_PRESENT, "x", array.shape, expected)
    refine_one = _refine_labels if is_labels else _refine_scores
    if n_axes == 3:
        return restore(refine_one(array, image, classes, options))
    if len(array) == 0:
        return refine(x, image, **options)
    pairs = zip(array, _images(image, len(array)), strict=True)
    return restore(np.stack([refine_one(item, own, classes, options) for item, own in pairs]))


def _images(image: Any, n_items: int) -> Iterator[Any]:
    """The image of every item."""
    is_many = isinstance(image, list | tuple) or len(getattr(image, "shape", ())) == 4
    if is_many and len(image) not in (1, n_items):
        raise fault.wrong_batch(_PRESENT, n_items, len(image))
    for i in range(n_items):
        yield image[min(i, len(image) - 1)] if is_many else image


class _Restore(NamedTuple):
    """From a result over some classes to one over all."""

    present: NDArray[np.intp]
    n_classes: int
    mark: int  # of labels that are not sure, in the end
    absent: float  # what a class has that is not there

    def scores(self, found: NDArray[Any]) -> NDArray[Any]:
        whole = np.full((self.n_classes, *found.shape[1:]), self.absent, found.dtype)
        whole[self.present] = found
        return whole

    def labels(self, found: NDArray[Any], dtype: Any) -> NDArray[Any]:
        labels = np.full(found.shape, self.mark, dtype)
        is_sure = found != _MARK
        labels[is_sure] = self.present[found[is_sure]]
        return labels


def _refine_scores(
    scores: NDArray[Any], image: Any, classes: Any, options: dict[str, Any]
) -> NDArray[Any]:
    """One item, (C, H, W)."""
    n_classes = len(scores)
    kind = options.get("kind", "auto")
    if classes is not None:
        present = _checked_classes(classes, n_classes)
        kind = "scores" if kind in ("auto", "probs") else kind
    elif kind == "logits":
        raise check.invalid(
            _PRESENT, "kind is 'logits', of which none is absent; expected classes="
        )
    else:
        present = np.flatnonzero((scores > 0).any(axis=(1, 2)))
    if len(present) == 0:
        raise check.invalid(_PRESENT, f"x of shape {scores.shape} has no score above 0")
    those = scores[present]
    if len(present) == 1 and kind != "logits":
        those, kind = np.ones_like(those), "probs"  # there is nothing to tell apart
    mark = _checked_mark(options, n_classes, np.int32)
    is_log = kind == "logits" and options.get("returns", "same") == "same"
    whole = _Restore(present, n_classes, mark, _LEAST_LOG if is_log else 0.0)
    own = {**_among(options, present, n_classes), "kind": kind, "layout": "CHW"}
    if options.get("min_confidence") is not None:
        own["ignore_index"] = _MARK
    found = refine(those, image, **own)
    if found.ndim == 3:
        return whole.scores(found)
    is_small = n_classes <= 256 and 0 <= mark <= 255
    return whole.labels(found.astype(np.intp), np.uint8 if is_small else np.int32)


def _refine_labels(
    labels: NDArray[Any], image: Any, classes: Any, options: dict[str, Any]
) -> NDArray[Any]:
    """One item, (H, W)."""
    ignored, n_classes = options.get("ignore_index"), options.get("n_labels")
    occurring = np.unique(labels[labels != ignored] if ignored is not None else labels)
    if occurring.min(initial=0) < 0:
        found = f"x has label {occurring.min()}"
        raise check.invalid(_PRESENT, f"{found}; expected labels of at least 0, or ignore_index=")
    if n_classes is None:
        n_classes = 1 + int(
            max(occurring.max(initial=0), np.max(0 if classes is None else classes))
        )
    n_classes = check.integer(_PRESENT, "n_labels", n_classes, at_least=1)
    if occurring.max(initial=0) >= n_classes:
        found = f"x has label {occurring.max()}"
        raise check.invalid(_PRESENT, f"{found} and n_labels is {n_classes}; expected more of them")
    present = occurring if classes is None else _checked_classes(classes, n_classes)
    if len(present) == 0:
        raise check.invalid(_PRESENT, f"x of shape {labels.shape} has no label but ignore_index")
    if not np.isin(occurring, present).all():
        odd = occurring[~np.isin(occurring, present)][0]
        raise check.invalid(
            _PRESENT, f"x has label {odd}; expected one of classes, or ignore_index"
        )
    anew = np.searchsorted(present, labels).astype(np.int32)
    if ignored is not None:
        anew[labels == ignored] = _MARK
    own = _among(options, present.astype(np.intp), n_classes)
    own |= {"kind": "labels", "layout": "HW", "n_labels": len(present), "ignore_index": _MARK}
    found = refine(anew, image, **own)
    # The mark of a label map may be one of its numbers, but is no class then.
    mark = _checked_mark(options, n_classes if ignored is None else 0, labels.dtype)
    whole = _Restore(present.astype(np.intp), n_classes, mark, 0.0)
    return whole.scores(found) if found.ndim == 3 else whole.labels(found, labels.dtype)


def _among(options: Mapping[str, Any], present: NDArray[np.intp], n_classes: int) -> dict[str, Any]:
    """The options, of whose compatibility of all classes those that are there take their part."""
    given = options.get("compatibility")
    if given is None or isinstance(given, Potts):
        return dict(options)
    values = as_array(_PRESENT, "compatibility", given)
    if values.ndim in (1, 2) and set(values.shape) == {n_classes}:
        values = values[np.ix_(*[present] * values.ndim)]
    return {**options, "compatibility": values}


def _checked_classes(classes: Any, n_classes: int) -> NDArray[np.intp]:
    given = np.unique(as_array(_PRESENT, "classes", classes))
    if given.dtype.kind not in "iu" or given.size == 0:
        raise check.mistyped(
            _PRESENT, f"classes is {check.show(classes)}; expected the numbers of classes"
        )
    if given[0] < 0 or given[-1] >= n_classes:
        found = f"classes has {given[0] if given[0] < 0 else given[-1]}"
        raise check.invalid(_PRESENT, f"{found}; expected 0 to {n_classes - 1}")
    return given.astype(np.intp)


def _checked_mark(options: dict[str, Any], n_taken: int, dtype: Any) -> int:
    """What marks labels below ``min_confidence``: none of all classes, not of those there alone."""
    given = options.get("ignore_index")
    mark = 255 if given is None else check.any_integer(_PRESENT, "ignore_index", given)
    if options.get("min_confidence") is None:
        return mark
    if 0 <= mark < n_taken or not np.iinfo(dtype).min <= mark <= np.iinfo(dtype).max:
        raise check.invalid(
            _PRESENT,
            f"ignore_index is {mark}, beside min_confidence; expected a number that no class has "
            f"and {np.dtype(dtype)} labels can have",
        )
    return mark
