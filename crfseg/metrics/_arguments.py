# SPDX-License-Identifier: MIT
"""Label maps, masks and probabilities as the metrics take them, and what is wrong with others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg import _check as check
from crfseg import _fault as fault
from crfseg._containers import open_array
from crfseg._explain import place

Labels = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]
_AXES = {2: "HW", 3: "NHW"}


def n_classes(where: str, value: Any) -> int:
    """At least one class, and few enough that a square table of them is reasonable."""
    return check.integer(where, "num_classes", value, at_least=1, at_most=4096)


def ignored_index(where: str, value: Any) -> int | None:
    """The mark of pixels that do not count; None: all do."""
    return None if value is None else check.any_integer(where, "ignore_index", value)


def labels(where: str, name: str, value: Any) -> Labels:
    """An array of integers of any shape."""
    array, _ = open_array(where, name, value)
    if array.dtype.kind not in "iu":
        raise fault.wrong_dtype(where, name, array.dtype, "integer labels")
    return array


def map_of_labels(where: str, name: str, value: Any) -> Labels:
    """An (H, W) array of integers."""
    return _two_axes(where, name, labels(where, name, value))


def mask_of_pixels(where: str, name: str, value: Any) -> Mask:
    """An (H, W) array of bool."""
    return _two_axes(where, name, _bools(where, name, value))


def table_of_counts(where: str, value: Any) -> Labels:
    """A square of integers, none below 0."""
    table = labels(where, "counts", value)
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise fault.wrong_shape(where, "counts", table.shape, "(C, C)")
    if table.size and int(table.min()) < 0:
        raise check.invalid(where, f"counts has {int(table.min())}; expected none below 0")
    return table


def same_shape(where: str, name: str, array: NDArray[Any], target: NDArray[Any]) -> None:
    """``array`` has the shape of ``target``."""
    if array.shape != target.shape:
        raise fault.wrong_shape(
            where, name, array.shape, f"{tuple(target.shape)}, the shape of target"
        )


def pair(where: str, prediction: Any, target: Any) -> tuple[Labels, Labels]:
    """Labels of one shape."""
    predicted, true = labels(where, "prediction", prediction), labels(where, "target", target)
    same_shape(where, "prediction", predicted, true)
    return predicted, true


def pair_of_maps(
    where: str, prediction: Any, target: Any, num_classes: int, ignore_index: int | None
) -> tuple[Labels, Labels, Mask | None]:
    """(H, W) labels of one shape and range, and the pixels that count; None where all do."""
    predicted = map_of_labels(where, "prediction", prediction)
    true = map_of_labels(where, "target", target)
    same_shape(where, "prediction", predicted, true)
    counts = counted(where, true, ignore_index)
    in_range(where, predicted, true, num_classes, ignore_index, counts)
    return predicted, true, counts


def counted(
    where: str, target: NDArray[Any], ignore_index: int | None, mask: Any = None
) -> Mask | None:
    """The pixels that count; None where all do."""
    found = None if ignore_index is None else target != ignore_index
    if mask is not None:
        chosen = _bools(where, "mask", mask)
        same_shape(where, "mask", chosen, target)
        found = chosen if found is None else found & chosen
    return None if found is None or found.all() else found


def in_range(
    where: str,
    prediction: Labels | None,
    target: Labels,
    num_classes: int,
    ignore_index: int | None,
    counts: Mask | None,
) -> None:
    """Every label that counts is one of 0 .. num_classes - 1, in both."""
    note = "" if ignore_index is None else f" or ignore_index ({ignore_index})"
    for name, array, more in (("prediction", prediction, ""), ("target", target, note)):
        if array is not None:
            chosen = array if counts is None else array[counts]
            if chosen.size and (int(chosen.min()) < 0 or int(chosen.max()) >= num_classes):
                raise _out_of_range(where, name, array, num_classes, counts, more)


def of_type(where: str, name: str, value: Any, expected: type) -> None:
    """Another of the same kind."""
    if not isinstance(value, expected):
        raise check.mistyped(
            where,
            f"{name} is {check.show(value)} ({type(value).__name__}); "
            f"expected a {expected.__name__}",
        )


def _out_of_range(
    where: str, name: str, array: Labels, num_classes: int, counts: Mask | None, note: str
) -> ValueError:
    bad = (array < 0) | (array >= num_classes)
    if counts is not None:
        bad &= counts
    at = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
    more = f" and {int(bad.sum()) - 1} more such" if bad.sum() > 1 else ""
    return check.invalid(
        where,
        f"{name} has label {int(array[at])} at {place(at, _AXES.get(array.ndim, ''))}{more}; "
        f"expected labels from 0 to {num_classes - 1}{note}",
    )


def _two_axes(where: str, name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 2 or array.size == 0:
        raise fault.wrong_shape(where, name, array.shape, "(H, W), not empty")
    return array


def _bools(where: str, name: str, value: Any) -> Mask:
    array, _ = open_array(where, name, value)
    if array.dtype != np.bool_:
        raise fault.wrong_dtype(where, name, array.dtype, "bool")
    return array
