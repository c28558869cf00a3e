# SPDX-License-Identifier: MIT
"""Gradients of the unrolled mean field by difference quotients in float64, from dense kernels.

What is compared with: the steps as the module's docstring writes them, on (N, N) matrices, and the
slopes of a loss entry by entry or along random directions. Nothing is differentiated by hand.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from reference import compatibility_matrix, softmax

Array = np.ndarray[Any, Any]
STEP = 1e-5  # rounding 1e-16 / 1e-5 and curvature 1e-10: slopes are good to 1e-9 or so


class Model(NamedTuple):
    """Logits (C, N); per kernel a normalised matrix (N, N), a weight () or (C,), and mu (C, C)."""

    logits: Array
    kernels: Sequence[Array]
    weights: Sequence[Array]
    mus: Sequence[Array]


def mu_of(compatibility: Any, n_labels: int) -> Array:
    """(C, C) float64; Potts as the library takes it, -1 where labels agree."""
    if compatibility is None:
        return -np.eye(n_labels)
    return compatibility_matrix(compatibility, n_labels).astype(np.float64)


def logits_after(model: Model, iterations: int, start: Array | None = None) -> Array:
    """Z^T, from the logits or from marginals that do not depend on them."""
    z = model.logits if start is None else np.log(start)
    for _ in range(iterations):
        z = step(model, softmax(z))
    return z


def step(model: Model, q: Array) -> Array:
    """Z of the next step."""
    z = model.logits.astype(np.float64)
    for kernel, weight, mu in zip(model.kernels, model.weights, model.mus, strict=True):
        z = z - (mu * weight) @ (q @ kernel.T)
    return z


def slope(loss: Callable[[Array], float], at: Array, direction: Array) -> float:
    """Central difference quotient of a loss along a direction."""
    return (loss(at + STEP * direction) - loss(at - STEP * direction)) / (2 * STEP)


def slopes(loss: Callable[[Array], float], at: Array) -> Array:
    """The gradient, one entry at a time."""
    at = np.asarray(at, np.float64)
    found = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        direction = np.zeros(at.shape)
        direction[index] = 1.0
        found[index] = slope(loss, at, direction)
    return found


def assert_slopes(found: Array, expected: Array, *, relative: float = 1e-4) -> None:
    """Entries may differ by so much of the largest: float32 sums leave no more to small ones."""
    scale = max(float(np.abs(expected).max()), 1e-6)
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * scale)


def gaussian_change(kernel: Array, features: Array, direction: Array) -> Array:
    """dK of K = exp(-|f_i - f_j|^2 / 2) along a direction of features, K being any such matrix."""
    apart = features[:, None] - features[None]
    moved = direction[:, None] - direction[None]
    return -kernel * (apart * moved).sum(axis=-1)
