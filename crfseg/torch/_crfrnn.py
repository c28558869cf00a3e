# SPDX-License-Identifier: MIT
"""The published parameters of CRF-RNN, in the layouts of its ports.

All have Z = X +- mu (W_spatial K~_spatial Q + W_bilateral K~_bilateral Q) with (C, C) matrices. The
original and its Keras and TensorFlow ports begin with mu = -1 on the diagonal and subtract, the
PyTorch port begins with +1 and adds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from crfseg import _check as check
from crfseg import _fault as fault
from crfseg._containers import as_array

_NAMES = {
    "spatial": ("spatial_ker_weights", "spatial_weights"),
    "bilateral": ("bilateral_ker_weights", "bilateral_weights"),
    "compatibility": ("compatibility_matrix",),
}


class CRFRNNParameters(NamedTuple):
    """In this library's words: mu is what agreement costs."""

    spatial: Tensor
    bilateral: Tensor
    compatibility: Tensor


def read_parameters(
    where: str, given: Any, n_classes: int, weight_axes: int, update: str | None
) -> CRFRNNParameters:
    """Find the three matrices, and make weights of as many axes as the layer's have."""
    matrices = {name: _matrix(where, name, value, n_classes) for name, value in _find(where, given)}
    mu = matrices["compatibility"]
    adds = float(np.trace(mu)) > 0 if update is None else update == "add"
    return CRFRNNParameters(
        _weight(where, "spatial", matrices["spatial"], weight_axes),
        _weight(where, "bilateral", matrices["bilateral"], weight_axes),
        torch.tensor(-mu if adds else mu),
    )


def _find(where: str, given: Any) -> list[tuple[str, Any]]:
    if isinstance(given, Mapping):
        return [(name, _by_name(where, given, known)) for name, known in _NAMES.items()]
    if not isinstance(given, Sequence) or len(given) != len(_NAMES):
        raise check.mistyped(
            where,
            f"parameters is {check.show(given)}; expected a mapping of names to arrays, or a list "
            "of spatial weights, bilateral weights and compatibility",
        )
    return list(zip(_NAMES, given, strict=True))


def _by_name(where: str, given: Mapping[str, Any], known: tuple[str, ...]) -> Any:
    """The one entry whose name ends in a known one, TensorFlow's ":0" aside."""
    found = [key for key in given if str(key).split(":")[0].endswith(known)]
    if len(found) != 1:
        raise check.invalid(
            where,
            f"parameters has {len(found)} names that end in {check.options(known)}; expected one",
        )
    return given[found[0]]


def _matrix(where: str, name: str, value: Any, n_classes: int) -> Any:
    with torch.no_grad():
        array = as_array(where, name, value)
    if array.shape != (n_classes, n_classes):
        raise fault.wrong_shape(where, name, array.shape, f"({n_classes}, {n_classes})")
    if not np.isfinite(array).all():
        raise check.invalid(where, f"{name} has values that are not finite; expected finite ones")
    return array.astype(np.float32)


def _weight(where: str, name: str, matrix: Any, n_axes: int) -> Tensor:
    if n_axes == 2:
        return torch.tensor(matrix)
    diagonal = matrix.diagonal()
    is_diagonal = np.array_equal(np.diag(diagonal), matrix)
    if not is_diagonal or (n_axes == 0 and np.ptp(diagonal) > 0):
        form = "diagonal" if n_axes == 1 else "a multiple of the identity"
        raise check.invalid(
            where, f"{name} weights are not {form}; expected that, or CRF(weights='matrix')"
        )
    return torch.tensor(diagonal.copy() if n_axes == 1 else diagonal[0])
