# SPDX-License-Identifier: MIT
"""Checks plain arguments and words what is wrong: who was called, which one, found, expected.

A function is named after the good value that it returns. ``where`` is the public name that was
called, ``name`` the argument. Together with ``_fault`` (shapes and combinations) and ``_explain``
(values of arrays) this is the only place that words errors.
"""

import math
import os
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any, NoReturn

_MANY = 2**31 - 1  # what the native core counts with
_ANY_INT = -(2**63)
_LONG = 10**40  # integers from here on are not quoted digit by digit


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
    if isinstance(value, list | tuple) and value and all(hasattr(one, "shape") for one in value):
        shapes = list(dict.fromkeys(str(tuple(one.shape)) for one in value))
        listed = ", ".join(shapes[:3]) + (", ..." if len(shapes) > 3 else "")
        return f"{len(value)} arrays of shape {listed}"
    if is_number(value) and not isinstance(value, Integral):
        return f"{_as_float(value):.7g}"
    if is_number(value):
        value = int(value)
        if abs(value) >= _LONG:
            return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_number(value: Any) -> bool:
    """An int, a float or a numpy scalar; True is none."""
    return not isinstance(value, bool) and isinstance(value, Real)


def is_path(value: Any) -> bool:
    """The name of a file, perhaps."""
    return isinstance(value, str | os.PathLike)


def options(choices: Iterable[Any]) -> str:
    """``'a', 'b' or 'c'``."""
    *others, last = [repr(choice) for choice in choices]
    return f"{', '.join(others)} or {last}" if others else last


def integer(where: str, name: str, value: Any, *, at_least: int = 0, at_most: int = _MANY) -> int:
    """An int in a range; True and 3.0 are not integers."""
    if type(value) is int and at_least <= value <= at_most:
        return value
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


def step(where: str, name: str, value: Any, choices: Sequence[str]) -> float | str:
    """A number above 0 and at most 1, or one of the named choices."""
    expected = f"a number above 0 and at most 1, {options(choices)}"
    if isinstance(value, str):
        if value not in choices:
            _wrong_number(where, name, value, expected)
        return value
    found = _number(where, name, value, expected)
    if not 0.0 < found <= 1.0:
        _wrong_number(where, name, value, expected)
    return found


def _number(where: str, name: str, value: Any, expected: str) -> float:
    if type(value) is float:
        return value
    if not is_number(value):
        raise mistyped(
            where, f"{name} is {show(value)} ({type(value).__name__}); expected {expected}"
        )
    return _as_float(value)


def _as_float(value: Any) -> float:
    """The nearest float; infinity for what is beyond them all, like 10**400."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value > 0 or -1)


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
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if not hasattr(value, "__getitem__") or isinstance(value, str | bytes | dict):
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
