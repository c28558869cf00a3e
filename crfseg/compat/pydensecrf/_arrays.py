# SPDX-License-Identifier: MIT
"""Callers' arrays: which kinds are taken as they are, copied or refused."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg import _check as check
from crfseg import _fault as fault
from crfseg._containers import as_array


def float32_array(where: str, name: str, value: Any) -> NDArray[np.float32]:
    """A float32 array of any strides; programs rely on the ValueError that others get."""
    if isinstance(value, list | tuple):
        raise fault.not_an_array(where, name, value)
    array = as_array(where, name, value)
    if array.dtype != np.float32:
        raise check.invalid(
            where, f"{name} has dtype {array.dtype}; expected float32 (.astype(np.float32))"
        )
    return array


def own_matrix(where: str, name: str, value: Any) -> NDArray[np.float32]:
    """A copy, lest what the caller does with his changes the model; in the caller's layout."""
    array = as_array(where, name, value)
    if array.dtype.kind not in "iuf":
        raise fault.wrong_dtype(where, name, array.dtype, "floats")
    if array.ndim != 2:
        hint = f": {name}.reshape({len(array)}, -1)" if array.ndim > 2 else ""
        raise fault.wrong_shape(where, name, array.shape, f"2 axes, labels first{hint}")
    with np.errstate(over="ignore"):  # what becomes infinite is reported as that
        return np.array(array, np.float32, order="K")
