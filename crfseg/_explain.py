# SPDX-License-Identifier: MIT
"""Finds out, slowly, what is wrong with an array's values, and words the error.

Called only after a fast check has failed, so these may take their time. Score arrays are
``(C, *spatial)`` here: the label axis comes first, whatever layout the caller has.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._check import invalid, show
from ._fault import MOST_DIMENSIONS

SUM_TOLERANCE = 1e-2
"""How far the probabilities of one point may add up from 1 (float16 needs most of it)."""
NEGATIVE_TOLERANCE = 1e-6
"""How far below 0 (or above 1) rounding may carry a probability."""

_AXES = {"C": "label", "H": "row", "W": "column", "K": "channel", "N": "item"}
_AXES |= {"D": "slice", "P": "point"}
_ONE_CALL = ("refine", "refine_points")


def place(index: Sequence[int], axes: str) -> str:
    """``label 2, row 3, column 7``: axes is one letter per axis, "" if they have no names."""
    if len(axes) != len(index):
        return f"index {tuple(int(i) for i in index)}"
    return ", ".join(f"{_AXES.get(a, a)} {int(i)}" for a, i in zip(axes, index, strict=True))


def _first(bad: NDArray[np.bool_]) -> tuple[int, ...]:
    return _index(bad.argmax(), bad.shape)


def _index(flat: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(flat), shape))


def _axes(array: NDArray[Any]) -> str:
    """Names of the axes of (C, *spatial) scores, where they have names."""
    return {2: "CP", 3: "CHW", 4: "CDHW"}.get(array.ndim, "")


def _label_axes(array: NDArray[Any]) -> str:
    return {2: "HW", 3: "NHW"}.get(array.ndim, "")


def non_finite(
    where: str, name: str, array: NDArray[Any], axes: str = "", expected: str = "finite values"
) -> ValueError:
    """NaN or infinity somewhere, or a number that is infinite once it is a float32."""
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(array.astype(np.float32, copy=False))
    at = _first(bad)
    value = array[at]
    what = show(value) if not np.isfinite(value) else f"{show(value)} (infinite as float32)"
    more = f" and {int(bad.sum()) - 1} more" if bad.sum() > 1 else ""
    return invalid(where, f"{name} has {what} at {place(at, axes)}{more}; expected {expected}")


def probabilities(
    where: str, name: str, probs: NDArray[Any], *, guessed: bool
) -> ValueError | None:
    """Why an array is not (C, *spatial) probabilities; None if it is.

    ``guessed``: nobody said that these are probabilities, so the other kinds are named too.
    """
    if not np.isfinite(probs).all():
        return non_finite(where, name, probs, _axes(probs))
    values = probs.astype(np.float32, copy=False)
    if where in _ONE_CALL and len(values) == 1:
        return _one_probability(where, name, values)
    if _are_log_probabilities(values):
        return invalid(
            where,
            f"{name} holds log-probabilities (none above 0, and their exp sums to 1); "
            f"expected probabilities: {_say_logits(where, name)}",
        )
    lowest = _index(values.argmin(), values.shape)
    if values[lowest] < -NEGATIVE_TOLERANCE:
        found = f"{name} has {show(values[lowest])} at {place(lowest, _axes(values))}"
        return invalid(where, f"{found}; expected {_what_else(where, guessed)}")
    return _wrong_sum(where, name, values, guessed)


def scores(where: str, name: str, values: NDArray[Any]) -> ValueError:
    """What makes (C, *spatial) scores of kind "scores" none: NaN, infinity, or one below 0."""
    if not np.isfinite(values).all():
        return non_finite(where, name, values, _axes(values))
    lowest = _index(values.argmin(), values.shape)
    found = f"{name} has {show(values[lowest])} at {place(lowest, _axes(values))}"
    return invalid(
        where, f"{found}; expected scores of at least 0 (scores before softmax need kind='logits')"
    )


def are_probabilities(logits: NDArray[Any]) -> bool:
    """Whether (C, *spatial) logits are out of a softmax; the first column nearly always tells."""
    return _is_simplex(logits[..., :1]) and _is_simplex(logits)


def _is_simplex(values: NDArray[Any]) -> bool:
    if not values.min() >= 0:
        return False
    off = np.abs(values.sum(axis=0, dtype=np.float64) - 1.0)
    return bool(off.max() <= SUM_TOLERANCE)


def not_logits(where: str, name: str) -> ValueError:
    """A softmax over probabilities leaves next to nothing of them."""
    return invalid(
        where,
        f"{name} holds probabilities (at least 0, and they sum to 1) and kind is 'logits'; "
        "expected scores before softmax, or kind='probs' (a second softmax would even them out), "
        "or for masks kind='mask' with confidence=",
    )


def _wrong_sum(where: str, name: str, values: NDArray[Any], guessed: bool) -> ValueError | None:
    total = values.sum(axis=0, dtype=np.float64)
    off = np.abs(total - 1.0)
    at = _index(off.argmax(), off.shape)
    if off[at] <= SUM_TOLERANCE:
        return None
    found = f"{name} sums to {show(total[at])} over the labels at {place(at, _axes(values)[1:])}"
    if np.abs(values.sum(axis=-1, dtype=np.float64) - 1.0).max() <= SUM_TOLERANCE:
        return invalid(
            where,
            f"{found}, but to 1 over its last axis; expected the label axis first "
            f"(np.moveaxis({name}, -1, 0))",
        )
    return invalid(where, f"{found}; expected {_what_else(where, guessed)}")


def are_swapped(x: NDArray[Any], image: NDArray[Any], kind: str) -> bool:
    """Whether floats cannot be the scores, and those in the place of the image can.

    Looks at a sample of the pixels: this is asked before anything is known to be wrong.
    """
    if kind not in ("logits", "scores"):
        return not _sum_to_one(x) and (_sum_to_one(image) or _are_logits_beside(image, x))
    # Any floats may be these, so the image must be none, whatever image_range says.
    return min(image.shape) > MOST_DIMENSIONS and _are_logits_beside(image, x)


def _sum_to_one(scores: NDArray[Any]) -> bool:
    """Whether they do so over the first or the last axis of three, and are not negative."""
    last = scores[:: _step(scores, 0), :: _step(scores, 1)]
    first = scores[:, :: _step(scores, 1), :: _step(scores, 2)]
    return any(
        values.shape[axis] > 1
        and bool(values.min() >= -NEGATIVE_TOLERANCE)
        and bool((np.abs(values.sum(axis, np.float64) - 1.0) <= SUM_TOLERANCE).all())
        for values, axis in ((last, -1), (first, 0))
    )


def _are_logits_beside(scores: NDArray[Any], picture: NDArray[Any]) -> bool:
    """Whether one has negative values and more channels than colours, the other is in 0..1."""
    few, many = (
        array[:: _step(array, 0), :: _step(array, 1), :: _step(array, 2)]
        for array in (picture, scores)
    )
    is_picture = bool(few.min() >= 0 and few.max() <= 1)
    return is_picture and min(scores.shape) not in (1, 3, 4) and bool(many.min() < 0)


def _step(array: NDArray[Any], axis: int) -> int:
    """A step that takes at most 32 of an axis."""
    return int(-(-array.shape[axis] // 32))


def _one_probability(where: str, name: str, values: NDArray[Any]) -> ValueError | None:
    off = np.abs(values[0] - 1.0)
    at = _index(off.argmax(), off.shape)
    if off[at] <= SUM_TOLERANCE:
        return None
    found = f"{name} sums to {show(values[0][at])} over its one label at {place(at, 'HW')}"
    return invalid(where, f"{found}: {_one_label(where)}")


def one_logit(where: str, name: str, shape: Sequence[int]) -> ValueError:
    """Scores for one label, whatever they are, say nothing once they are normalised."""
    return invalid(where, f"{name} has one label (shape {tuple(shape)}): {_one_label(where)}")


def _one_label(where: str) -> str:
    instead = "kind='mask'" if where in _ONE_CALL else "unary_from_probs(np.stack([1 - p, p]))"
    return (
        "a softmax over one label is always 1; expected two labels or more, or for a sigmoid's "
        f"output p, the foreground probability, {instead}"
    )


def _are_log_probabilities(values: NDArray[Any]) -> bool:
    if values.size == 0 or values.max() > NEGATIVE_TOLERANCE or values.min() >= 0:
        return False
    total = np.exp(values).sum(axis=0, dtype=np.float64)
    return bool(np.abs(total - 1.0).max() <= SUM_TOLERANCE)


def _say_logits(where: str, name: str) -> str:
    if where in _ONE_CALL:
        return "pass kind='logits'"
    return f"pass np.exp({name})" if where != "unary_from_probs" else "use unary_from_logits"


def _what_else(where: str, guessed: bool) -> str:
    expected = "probabilities of at least 0 that sum to 1 within 0.01 at every point"
    if where not in _ONE_CALL:
        return expected
    if guessed:
        return (
            f"{expected}, or kind='logits' for scores before softmax, 'mask' for foreground "
            "probabilities, as sigmoids are, 'scores' for others of at least 0"
        )
    return f"{expected} (scores before softmax need kind='logits')"


def energies(where: str, name: str, unary: NDArray[Any]) -> ValueError:
    """What makes (C, *spatial) energies unusable: NaN, -inf, or a point with +inf alone."""
    with np.errstate(over="ignore"):
        values = unary.astype(np.float32, copy=False)
    bad = np.isnan(values) | np.isneginf(values)
    expected = "finite energies (+inf forbids a label)"
    if bad.any():
        at = _first(bad)
        return invalid(
            where, f"{name} has {show(unary[at])} at {place(at, _axes(unary))}; expected {expected}"
        )
    at = _index(values.min(axis=0).argmax(), values.shape[1:])
    return invalid(
        where,
        f"{name} is inf for every label at {place(at, _axes(unary)[1:])}; "
        f"expected {expected}, with at least one label allowed at every point",
    )


def label_range(
    where: str, name: str, labels: NDArray[Any], bad: NDArray[np.bool_], n_labels: int
) -> ValueError:
    """A label that no unary has a row for."""
    at = _first(bad)
    value = int(labels[at])
    expected = f"expected 0 to {n_labels - 1}"
    if where in (*_ONE_CALL, "unary_from_labels"):
        expected += f", or ignore_index={value} if it marks points without a label"
    return invalid(
        where, f"{name} has label {value} at {place(at, _label_axes(labels))}; {expected}"
    )


def unclear_255(where: str, name: str) -> ValueError:
    """255 is the largest label by far: 256 classes, or the field's mark for 'no label'."""
    return invalid(
        where,
        f"{name} has label 255 but not 254, and 255 often marks points without a label; "
        "expected ignore_index=255, or n_labels=256",
    )


def unclear_mask(where: str, name: str) -> ValueError:
    """0 and 255 alone: a mask as pictures store it, or a label map with 'no label'."""
    return invalid(
        where,
        f"{name} holds 0 and 255 alone; expected kind='mask' for a foreground mask, "
        "or kind='labels' for a label map",
    )


def unclear_grey(where: str, name: str, n_levels: int) -> ValueError:
    """Bytes of so many values that they are rather a saliency map than labels."""
    return invalid(
        where,
        f"{name} has {n_levels} different values, like a grey picture; expected kind='labels' if "
        f"they are labels, or {name} / 255 and kind='mask' if they are foreground probabilities",
    )


def is_one_hot(values: NDArray[Any], axis: int) -> bool:
    """Whether every pixel has one value above 0 along an axis, the same one everywhere."""
    return bool(
        ((values == 0) | (values == values.max())).all()
        and (np.count_nonzero(values, axis=axis) == 1).all()
    )


def unclear_one_hot(where: str, name: str, shape: Sequence[int], kind: str) -> ValueError:
    """A batch of label maps or of masks, or one label map in one-hot form."""
    items, kinds = "masks", "'mask'"
    if kind == "labels":
        items, kinds = "label maps or masks", "'labels' or 'mask'"
    return invalid(
        where,
        f"{name} has shape {tuple(shape)} and marks one label per pixel, so it looks one-hot, not "
        f"like {shape[0]} {items}; expected {name}.argmax(0), or kind={kinds}",
    )


def unclear_maps(where: str, name: str, labels: NDArray[Any]) -> ValueError:
    """Integers (N, H, W) for one image."""
    n = len(labels)
    has_two_values = bool(((labels == 0) | (labels == labels.max())).all())
    items, kinds = ("masks", "'mask' or 'labels'") if has_two_values else ("label maps", "'labels'")
    return invalid(
        where,
        f"{name} has shape {labels.shape}, dtype {labels.dtype} and one image, so it may be {n} "
        f"{items} or scores of {n} labels; expected kind={kinds}, or scores as floats "
        f"({name} / {name}.sum(0) of probabilities in integers)",
    )


def last_axis(where: str, array: NDArray[Any], kind: str) -> ValueError:
    """Hard values (H, W, C): one-hot labels, a picture in colours, or scores in integers."""
    shape = array.shape
    pixels = array[:: -(-shape[0] // 64), :: -(-shape[1] // 64)]
    if shape[-1] == 1 or is_one_hot(pixels, -1) or array.dtype.kind == "b":
        how = "x[..., 0]" if shape[-1] == 1 else "x.argmax(-1)"
        return invalid(
            where,
            f"x has shape {shape}, like one-hot labels (H, W, C); expected labels of shape "
            f"(H, W), here {shape[:-1]}: {how}",
        )
    if shape[-1] in (3, 4) and array.dtype.kind == "u":
        wanted = "the numbers of labels" if kind == "labels" else "a mask"
        return invalid(
            where,
            f"x has shape {shape} and dtype {array.dtype}, like a picture in colours; expected "
            f"{wanted}, of shape {shape[:-1]}, or scores as floats",
        )
    return invalid(
        where,
        f"x has shape {shape} and dtype {array.dtype}, like scores (H, W, C) in integers; expected "
        "floats (x / x.sum(-1, keepdims=True) of probabilities), or labels: x.argmax(-1)",
    )


def mask_values(where: str, name: str, mask: NDArray[Any], layout: str) -> ValueError:
    """Not two-valued, or not a foreground probability."""
    if mask.dtype.kind == "f":
        if not np.isfinite(mask).all():
            return non_finite(where, name, mask, layout)
        low, high = show(mask.min()), show(mask.max())
        return invalid(
            where,
            f"{name} ranges from {low} to {high} and kind is 'mask'; "
            f"expected foreground probabilities from 0 to 1{_from_levels(name, mask)}",
        )
    found = np.unique(mask)
    listed = ", ".join(show(v) for v in found[:6]) + (", ..." if len(found) > 6 else "")
    return invalid(
        where,
        f"{name} has values {listed} and kind is 'mask'; expected 0 and 1, or 0 and 255, or "
        f"foreground probabilities as floats{_from_levels(name, mask)}",
    )


def _from_levels(name: str, mask: NDArray[Any]) -> str:
    """How levels of 0..255 become probabilities, if they are some."""
    return f" ({name} / 255)" if mask.min() >= 0 and 3 < mask.max() <= 255 else ""


def image_range(
    where: str, name: str, low: float, high: float, wanted: tuple[float, float], *, given: bool
) -> ValueError:
    """Values outside the range that the image's dtype, or image_range, states."""
    found = f"{name} ranges from {show(low)} to {show(high)}"
    if given:
        window = "" if "std" in name else "; clip the image if that is a window of its values"
        return invalid(where, f"{found}; expected values within image_range={wanted}{window}")
    hint = "pass image_range=(lo, hi) for another range"
    if low < 0:
        hint = "it looks mean-subtracted: pass mean= and std=, or image_range=(lo, hi)"
    elif high <= 255:
        hint = "pass image_range=(0, 255) if these are levels of 0 to 255"
    return invalid(where, f"{found}; expected 0 to 1 for a float image ({hint})")
