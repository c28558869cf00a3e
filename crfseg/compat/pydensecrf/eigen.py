# SPDX-License-Identifier: MIT
"""pydensecrf.eigen: float32 vectors and matrices that arrays are made of by ``np.array``.

Here they are arrays themselves, so that every buffer function works, and so does their arithmetic.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg import _fault as fault

from ._arrays import float32_array

__all__ = ["MatrixXf", "VectorXf", "matrixXf", "vectorXf"]


class _Buffer(np.ndarray[Any, np.dtype[np.float32]]):
    """What numpy computes from it is a plain array, as from any other buffer."""

    _empty: tuple[int, ...]

    def __new__(cls) -> Any:
        """One without values."""
        return np.empty(cls._empty, np.float32).view(cls)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _plain(super().__array_function__(func, types, args, kwargs))

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else _plain(array)


class VectorXf(_Buffer):
    """A vector of float32; without values at first."""

    _empty = (0,)


class MatrixXf(_Buffer):
    """A matrix of float32; without values at first."""

    _empty = (0, 0)


def vectorXf(arr: Any) -> VectorXf:
    """Copy a 1-D float32 array.

    Raises:
        TypeError, ValueError: if it is something else.
    """
    vector: VectorXf = _float32("eigen.vectorXf", "arr", arr, 1).copy().view(VectorXf)
    return vector


def matrixXf(arr: Any) -> MatrixXf:
    """Copy a 2-D float32 array.

    Raises:
        TypeError, ValueError: if it is something else.
    """
    matrix: MatrixXf = _float32("eigen.matrixXf", "arr", arr, 2).copy().view(MatrixXf)
    return matrix


def _float32(where: str, name: str, value: Any, ndim: int) -> NDArray[np.float32]:
    array = float32_array(where, name, value)
    if array.ndim != ndim:
        raise fault.wrong_shape(where, name, array.shape, f"{ndim} ax{'i' if ndim == 1 else 'e'}s")
    return array


def _plain(result: Any) -> Any:
    return result.view(np.ndarray) if isinstance(result, _Buffer) else result
