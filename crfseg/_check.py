# SPDX-License-Identifier: MIT
"""Words every argument error: who was called, which argument, what was found and expected.

Two kinds of functions. Those named after a good value (``positive``, ``choice``) return it,
checked. Those named after a fault (``wrong_shape``) return the exception, for the caller to raise.
``where`` is the public name that was called, ``name`` the argument. ``_explain`` does the same for
the values of arrays.
"""

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any, NoReturn

MOST_DIMENSIONS = 16
_MANY = 2**31 - 1  # what the native core counts with
_ANY_INT = -(2**63)


def invalid(where: str, sentence: str) -> ValueError:
    """The right type with a wrong value."""
    return ValueError(f"[{where}] {sentence}")


def mistyped(where: str, sentence: str) -> TypeError:
    """The wrong type."""
    return TypeError(f"[{where}] {sentence}")


def show(value: Any) -> str:
    """A value as an error quotes it: short, on one line, arrays by shape."""
    if hasattr(value, "shape") and getattr(value, "shape", ()) != ():
        return f"an array of shape {tuple(value.shape)}"
    if is_number(value):
        return str(int(value)) if isinstance(value, Integral) else f"{float(value):.7g}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_number(value: Any) -> bool:
    """An int, a float or a numpy scalar; True is none."""
    return not isinstance(value, bool) and isinstance(value, Real)


def options(choices: Iterable[Any]) -> str:
    """``'a', 'b' or 'c'``."""
    *others, last = [repr(choice) for choice in choices]
    return f"{', '.join(others)} or {last}" if others else last


# --- plain values ---------------------------------------------------------------------------------


def integer(where: str, name: str, value: Any, *, at_least: int = 0, at_most: int = _MANY) -> int:
    """An int in a range; True and 3.0 are not integers."""
    expected = "expected an integer"
    if at_least > _ANY_INT:
        expected += f" of at least {at_least}"
    if at_most < _MANY or (is_number(value) and value > at_most):
        expected += f" and at most {at_most}"
    if not is_number(value) or not isinstance(value, Integral):
        raise mistyped(where, f"{name} is {show(value)} ({type(value).__name__}); {expected}")
    if not at_least <= int(value) <= at_most:
        raise invalid(where, f"{name} is {show(value)}; {expected}")
    return int(value)


def positive(where: str, name: str, value: Any) -> float:
    """A finite number above zero: sigmas."""
    found = _number(where, name, value, "a positive finite number")
    if not 0.0 < found < math.inf:
        _wrong_number(where, name, value, "a positive finite number")
    return found


def non_negative(where: str, name: str, value: Any) -> float:
    """A finite number, zero allowed: weights and tolerances."""
    found = _number(where, name, value, "a finite number of at least 0")
    if not 0.0 <= found < math.inf:
        _wrong_number(where, name, value, "a finite number of at least 0")
    return found


def between(where: str, name: str, value: Any, *, zero: bool) -> float:
    """A number below 1 and above 0 (or 0 itself when ``zero``)."""
    expected = f"a number {'of at least' if zero else 'above'} 0 and below 1"
    found = _number(where, name, value, expected)
    if not (0.0 < found < 1.0 or (zero and found == 0.0)):
        _wrong_number(where, name, value, expected)
    return found


def _number(where: str, name: str, value: Any, expected: str) -> float:
    if type(value) is float or type(value) is int:
        return float(value)
    if not is_number(value):
        raise mistyped(
            where, f"{name} is {show(value)} ({type(value).__name__}); expected {expected}"
        )
    return float(value)


def _wrong_number(where: str, name: str, value: Any, expected: str) -> NoReturn:
    raise invalid(where, f"{name} is {show(value)}; expected {expected}")


def choice(where: str, name: str, value: Any, choices: Sequence[Any]) -> Any:
    """One of the named choices, matched by value and type (1 is not True, 0 is not False)."""
    for known in choices:
        if type(value) is type(known) and value == known:
            return known
    raise invalid(where, f"{name} is {show(value)}; expected {options(choices)}")


def flag(where: str, name: str, value: Any) -> bool:
    """True or False, nothing that merely looks so."""
    if not isinstance(value, bool):
        raise mistyped(
            where, f"{name} is {show(value)} ({type(value).__name__}); expected True or False"
        )
    return value


def parts(where: str, name: str, value: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """A tuple (or list) with one entry per name: ``spatial=(sigma_xy, weight)``."""
    expected = f"expected ({', '.join(names)}) or None"
    if not isinstance(value, tuple | list):
        raise mistyped(where, f"{name} is {show(value)} ({type(value).__name__}); {expected}")
    if len(value) != len(names):
        raise invalid(where, f"{name} has {len(value)} entries; {expected}")
    return tuple(value)


def sigmas(where: str, name: str, value: Any) -> float | tuple[float, ...]:
    """One positive number, or several, one per axis."""
    if not hasattr(value, "__len__") or isinstance(value, str):
        return positive(where, name, value)
    if len(value) == 0:
        raise invalid(where, f"{name} is empty; expected one number, or one per axis")
    return tuple(positive(where, f"{name}[{i}]", sigma) for i, sigma in enumerate(value))


def any_integer(where: str, name: str, value: Any) -> int:
    """An int of any sign."""
    return integer(where, name, value, at_least=_ANY_INT, at_most=2**63 - 1)


def finite(where: str, name: str, value: Any) -> float:
    """Any number but NaN and infinity."""
    found = _number(where, name, value, "a finite number")
    if not math.isfinite(found):
        _wrong_number(where, name, value, "a finite number")
    return found


def sigma_count(where: str, name: str, found: int, expected: int, axes: str) -> ValueError:
    """Sigmas given one by one, but not one per axis."""
    return invalid(
        where, f"{name} has {found} entries; expected one number, or {expected}, one per {axes}"
    )


# --- what an argument is --------------------------------------------------------------------------


def not_an_array(where: str, name: str, value: Any, reason: object = None) -> TypeError:
    """No array can be made of it."""
    why = f" ({reason})" if reason else ""
    return mistyped(
        where,
        f"{name} is {show(value)} ({type(value).__name__}), which is not an array{why}; "
        "expected a numpy array, a torch CPU tensor, or anything with __array__ or __dlpack__",
    )


def on_a_device(where: str, name: str, device: object) -> ValueError:
    """The values are on an accelerator."""
    return invalid(
        where, f"{name} is on device {device}; expected it in CPU memory ({name}.cpu() copies it)"
    )


def masked_array(where: str, name: str) -> TypeError:
    """The mask of a numpy masked array would be lost without a word."""
    return mistyped(
        where, f"{name} is a masked array; expected a plain array (fill its holes with .filled())"
    )


def wrong_dtype(where: str, name: str, dtype: object, expected: str) -> TypeError:
    """The elements are of a kind that the argument cannot be."""
    return mistyped(where, f"{name} has dtype {dtype}; expected {expected}")


def wrong_shape(where: str, name: str, shape: Sequence[int], expected: str) -> ValueError:
    """The number or the lengths of the axes do not fit."""
    return invalid(where, f"{name} has shape {tuple(shape)}; expected {expected}")


def empty(where: str, name: str, shape: Sequence[int]) -> ValueError:
    """There is nothing in it."""
    return invalid(where, f"{name} is empty (shape {tuple(shape)}); expected at least one element")


def no_labels(where: str, name: str, shape: Sequence[int]) -> ValueError:
    """The label axis has length 0."""
    return invalid(where, f"{name} has 0 labels (shape {tuple(shape)}); expected at least 1")


def palette_image(where: str, name: str, mode: str) -> ValueError:
    """The values of a palette picture are indices, not colours."""
    return invalid(
        where,
        f"{name} is a palette image (mode {mode!r}), whose values are no colours; "
        f"expected {name}.convert('RGB')",
    )


def only_for_labels(where: str, name: str, value: Any, kind: str) -> ValueError:
    """A keyword that would be ignored without a word."""
    return invalid(
        where, f"{name} is {show(value)} but x holds {kind}; expected {name} with labels alone"
    )


def nothing_but_ignored(where: str, n_labels: int | None) -> ValueError:
    """No label is left to choose from."""
    found = "every point is ignored" if n_labels is None else f"n_labels is {n_labels}, all ignored"
    return invalid(where, f"{found}; expected at least one label that is not ignore_index")


# --- sizes, layouts, upsampling -------------------------------------------------------------------


def wrong_axes(where: str, shape: Sequence[int], kind: str, layouts: Iterable[str]) -> ValueError:
    """The number of axes is one that this kind of input never has."""
    named = " or ".join(f"({', '.join(layout)})" for layout in layouts)
    hint = ""
    if kind in ("probs", "logits") and len(shape) == 2:
        hint = "; a foreground probability (H, W) needs kind='mask'"
    return invalid(where, f"x has shape {tuple(shape)} and kind '{kind}'; expected {named}{hint}")


def ambiguous_layout(where: str, shape: Sequence[int], layouts: Sequence[str]) -> ValueError:
    """More than one layout fits, so the caller must say which."""
    return invalid(
        where,
        f"x has shape {tuple(shape)}, which fits more than one layout; "
        f"expected layout={options(layouts)}",
    )


def mismatched_sizes(
    where: str, shape: Sequence[int], layout: str, size: tuple[int, int]
) -> ValueError:
    """The sizes of x and image differ in a way that no upsampling explains."""
    height, width = shape[layout.index("H")], shape[layout.index("W")]
    hint = _size_hint((height, width), size)
    return invalid(
        where,
        f"x has shape {tuple(shape)} but image is {size[0]} x {size[1]}; "
        f"expected an image of shape ({height}, {width}, 3){hint}",
    )


def _size_hint(found: tuple[int, int], size: tuple[int, int]) -> str:
    if found == size[::-1]:
        return "; height and width look swapped"
    if size == (3, found[0]):
        return "; the image looks channels-first, expected (H, W, channels)"
    return ""


def unclear_stride(
    where: str, shape: Sequence[int], size: tuple[int, int], *, fits_both: bool
) -> ValueError:
    """upsample='auto' found no way, or two ways, to lay the scores over the image."""
    found = "both alignments fit" if fits_both else "no whole stride leads from one to the other"
    return invalid(
        where,
        f"x has shape {tuple(shape)} and image is {size[0]} x {size[1]}: {found}; expected "
        "upsample='half-pixel' (corners of pixels aligned), 'align-corners' (centres of corner "
        "pixels aligned), or scores of the image's size",
    )


def not_upsampled(
    where: str, shape: Sequence[int], kind: str, size: tuple[int, int], layout: str
) -> ValueError:
    """Labels and masks have no values in between."""
    height, width = shape[layout.index("H")], shape[layout.index("W")]
    hint = _size_hint((height, width), size)
    return invalid(
        where,
        f"x has shape {tuple(shape)} and kind '{kind}' but image is {size[0]} x {size[1]}; "
        f"expected the same height and width, as {kind.rstrip('s')}s are not upsampled{hint}",
    )


def wrong_batch(where: str, n_items: int, n_images: int) -> ValueError:
    """Neither one image for all nor one per item."""
    return invalid(
        where,
        f"x has {n_items} item{'s' * (n_items != 1)} but image has {n_images}; "
        f"expected {'1 image' if n_items == 1 else f'1 or {n_items} images'}",
    )


# --- pairwise terms -------------------------------------------------------------------------------


def not_a_term(where: str, index: int | None, value: Any) -> TypeError:
    """Something else where a pairwise term should be."""
    name = "pairwise" if index is None else f"pairwise[{index}]"
    what = "a list of terms" if index is None else "a term"
    return mistyped(
        where,
        f"{name} is {show(value)} ({type(value).__name__}); "
        f"expected {what}: Gaussian, Bilateral or Features",
    )


def two_models(where: str, name: str) -> ValueError:
    """pairwise= and spatial= or bilateral= in one call."""
    return invalid(
        where,
        f"pairwise replaces spatial and bilateral, but {name} was given as well; expected one",
    )


def missing_image(where: str) -> ValueError:
    """A bilateral term without an image."""
    return invalid(where, "image is None but the Bilateral term needs one; expected an image")


def range_without_image(where: str, image_range: Any) -> ValueError:
    """A range that no image of this term has."""
    return invalid(
        where,
        f"image_range is {show(image_range)} but image is None; expected an image of the term's "
        "own, or image_range in the call of refine",
    )


def too_many_dimensions(where: str, name: str, dim: int) -> ValueError:
    """The lattice would have more axes than it is built for."""
    return invalid(
        where, f"{name} has {dim} feature dimensions; expected at most {MOST_DIMENSIONS}"
    )


def sigma_too_small(where: str, name: str, sigma: float, axis: str, reach: float) -> ValueError:
    """In units of this sigma the features lie further out than exact lattice keys reach."""
    return invalid(
        where,
        f"{name} = {show(sigma)} is too small: along {axis} features reach {reach:.3g} sigmas, "
        "further than exact lattice keys hold; expected a larger sigma",
    )


def wide_features(where: str, name: str, reach: float) -> ValueError:
    """Like ``sigma_too_small``, for features that the caller has divided already."""
    return invalid(
        where,
        f"{name} reaches {reach:.3g} sigmas, further than exact lattice keys hold; "
        "expected features divided by larger sigmas, or nearer to 0",
    )


def non_finite_feature(where: str, name: str, point: int, value: float) -> ValueError:
    """NaN or infinity found while the lattice was built."""
    return invalid(where, f"{name} is {show(value)} at point {point}; expected finite values")


def wrong_compatibility(where: str, found: str, n_labels: int) -> ValueError:
    """Not one entry per label, or per pair of labels."""
    return invalid(
        where,
        f"compatibility {found}; expected Potts(weight), shape ({n_labels},) or "
        f"({n_labels}, {n_labels}) for {n_labels} labels",
    )


# --- the machine ----------------------------------------------------------------------------------


def too_big(where: str, what: str, needed: int, available: int) -> MemoryError:
    """Refused before anything is touched."""
    return MemoryError(
        f"[{where}] {what} needs about {needed / 2**30:.1f} GiB; "
        f"expected at most the {available / 2**30:.1f} GiB that this machine can give"
    )
