# SPDX-License-Identifier: MIT
"""Unary energies as objects: given, or linear in features."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg import _fault as fault

from ._arrays import own_matrix


class Unary:
    """What ``DenseCRF.setUnary`` takes; of itself without energies."""

    energies: NDArray[np.float32] | None = None
    """(L, N), or None."""


class ConstUnary(Unary):
    """Energies, -log p, of labels by points.

    Args:
        u: (L, N) floats of any strides, which are copied.

    Raises:
        TypeError, ValueError: if ``u`` is something else.
    """

    def __init__(self, u: Any) -> None:
        self.energies = own_matrix("ConstUnary", "u", u)


class LogisticUnary(Unary):
    """Energies L f.

    Args:
        L: (L, D) floats.
        f: (D, N) features of the points.

    Raises:
        TypeError, ValueError: if they are something else.
    """

    def __init__(self, L: Any, f: Any) -> None:
        self.energies = product("LogisticUnary", "L", L, f)


def product(where: str, name: str, weights: Any, f: Any) -> NDArray[np.float32]:
    """Energies (L, N) of weights (L, D) and features f (D, N)."""
    factor, features = own_matrix(where, name, weights), own_matrix(where, "f", f)
    if factor.shape[1] != len(features):
        expected = f"({factor.shape[1]}, N), as many rows as {name} has columns"
        raise fault.wrong_shape(where, "f", features.shape, expected)
    return factor @ features
