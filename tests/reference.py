# SPDX-License-Identifier: MIT
"""Brute force in float64: the model as the papers write it, O(N^2), no lattice.

Fully connected CRF with Gaussian edge potentials (Krähenbühl & Koltun, NIPS 2011, eq. 1-3 and
Algorithm 1; normalised kernels and the free energy: ICML 2013). Everything takes kernel
*matrices*, so that the same lines judge two things: the model itself (matrices from
``gaussian_kernel``) and the mean field alone (matrices that the lattice under test yields when it
filters the identity).

Shapes: features (N, d), kernel (N, N), unary and Q (C, N), mu (C, C) with mu[own, other].
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

NORMALIZATIONS = ("none", "before", "after", "symmetric")
Array = np.ndarray[Any, Any]


def gaussian_kernel(features: Array, *, dtype: Any = np.float64) -> Array:
    """k(i, j) = exp(-|f_i - f_j|^2 / 2), the features being divided by sigma already."""
    f = np.asarray(features, np.float64)
    f = f - f.mean(axis=0)  # distances do not change, the cancellation below gets harmless
    squares = (f * f).sum(axis=1)
    kernel = np.empty((len(f), len(f)), dtype)
    for first in range(0, len(f), 512):  # in strips: the distances alone would double the memory
        rows = slice(first, first + 512)
        exponents = f[rows] @ f.T - squares[rows, None] / 2 - squares / 2
        np.exp(exponents.astype(dtype), out=kernel[rows])
    return kernel


def normalize(kernel: Array, normalization: str) -> Array:
    """K~ from K with n = K 1: K n^-1 (before), n^-1 K (after), n^-1/2 K n^-1/2 (symmetric)."""
    n = kernel.sum(axis=1)
    rows = {"none": 0.0, "before": 0.0, "after": -1.0, "symmetric": -0.5}[normalization]
    columns = {"none": 0.0, "before": -1.0, "after": 0.0, "symmetric": -0.5}[normalization]
    scaled = kernel * n[None, :] ** columns
    scaled *= n[:, None] ** rows
    return scaled


def without_self(kernel: Array) -> Array:
    """The sum over j != i: the diagonal of the normalised kernel is left out."""
    return kernel - np.diag(np.diag(kernel))


def compatibility_matrix(compatibility: Any, n_labels: int) -> Array:
    """None or a number w: Potts w [a != b]; (C,) v: -diag(v); (C, C): as it is."""
    if compatibility is None or np.ndim(compatibility) == 0:
        weight = 1.0 if compatibility is None else float(compatibility)
        return weight * (1.0 - np.eye(n_labels))
    given = np.asarray(compatibility, np.float64)
    return -np.diag(given) if given.ndim == 1 else given


class Term(NamedTuple):
    """One pairwise term: normalised kernel (N, N), weight, mu (C, C)."""

    kernel: Array
    weight: float
    mu: Array


def pairwise(terms: Sequence[Term], q: Array) -> Array:
    """(C, N) expected pairwise energy of each label: sum_k w_k mu_k K~_k q."""
    total = np.zeros(q.shape)
    for term in terms:
        messages = q.astype(term.kernel.dtype) @ term.kernel.T
        total += term.weight * (term.mu @ messages)
    return total


def softmax(scores: Array) -> Array:
    """Along the label axis; -inf scores give exactly zero."""
    e = np.exp(scores - scores.max(axis=0))
    return e / e.sum(axis=0)


class MeanField(NamedTuple):
    """Q_0 .. Q_T and the free energy of each."""

    qs: list[Array]
    trace: list[float]


def mean_field(
    unary: Array,
    terms: Sequence[Term],
    iterations: int,
    *,
    damping: float = 0.0,
    start: Array | None = None,
    traced: bool = True,
) -> MeanField:
    """Q = softmax(Z) in parallel, Z' = damping Z + (1 - damping) (-U - sum_k w_k mu_k K~_k Q)."""
    with np.errstate(divide="ignore"):  # a forbidden label has log 0 = -inf
        z = -np.asarray(unary, np.float64) if start is None else np.log(start)
    qs = [softmax(z)]
    for _ in range(iterations):
        update = -unary - pairwise(terms, qs[-1])
        z = update if damping == 0 else damping * z + (1 - damping) * update
        qs.append(softmax(z))
    return MeanField(qs, [free_energy(unary, terms, q) for q in qs] if traced else [])


def sparsemax(scores: Array) -> Array:
    """Nearest point of the simplex along the label axis, by sorting (Martins & Astudillo 2016)."""
    ordered = -np.sort(-scores, axis=0)
    ranks = np.arange(1, len(scores) + 1)[:, None]
    with np.errstate(invalid="ignore"):  # scores of -inf are behind the others
        held = (1 + ranks * ordered > ordered.cumsum(axis=0)).sum(axis=0)
    tau = (np.where(ranks <= held, ordered, 0).sum(axis=0) - 1) / held
    return np.maximum(scores - tau, 0)


def frank_wolfe(
    unary: Array,
    terms: Sequence[Term],
    iterations: int,
    *,
    regularizer: str,
    step: float | str,
    strength: float = 1.0,
    start: Array | None = None,
    first: int = 0,
) -> list[Array]:
    """x of iteration ``first`` and those after: x += step (s - x), s = argmin <U + P x, s> + r(s).

    r is ``strength`` times the regulariser.
    """
    u = np.asarray(unary, np.float64)
    xs = [softmax(-u) if start is None else np.asarray(start, np.float64)]
    for k in range(first, first + iterations):
        x = xs[-1]
        scores = -(u + pairwise(terms, x)) / strength
        s = softmax(scores) if regularizer == "entropy" else sparsemax(scores)
        along = [expected_energy(u, terms, x + part * (s - x)) for part in (0, 0.5, 1)]
        share = {"line-search": least_of_parabola(*along), "diminishing": 2 / (k + 2)}
        xs.append(x + (share[step] if isinstance(step, str) else step) * (s - x))
    return xs


def least_of_parabola(begin: float, middle: float, end: float) -> float:
    """Where on [0, 1] the parabola through its values at 0, 1/2 and 1 is least."""
    curvature = 4 * (begin - 2 * middle + end)
    slope = end - begin - curvature / 2
    if curvature > 0:
        return float(np.clip(-slope / curvature, 0, 1))
    return float(end < begin)


def expected_energy(unary: Array, terms: Sequence[Term], q: Array) -> float:
    """sum U q + 1/2 sum q (sum_k w_k mu_k K~_k q), 0 inf counting as 0."""
    held = q > 0
    return float((unary[held] * q[held]).sum() + (q * pairwise(terms, q)).sum() / 2)


def free_energy(unary: Array, terms: Sequence[Term], q: Array) -> float:
    """sum q log q + sum U q + 1/2 sum q (sum_k w_k mu_k K~_k q); 0 log 0 and 0 inf count as 0."""
    held = q > 0
    return float((q[held] * np.log(q[held])).sum()) + expected_energy(unary, terms, q)


def energy(unary: Array, terms: Sequence[Term], labels: Array) -> float:
    """Gibbs energy of one labelling (N,): sum_i U + 1/2 sum_k w_k sum_ij K~_ij mu(l_i, l_j)."""
    total = float(unary[labels, np.arange(len(labels))].sum())
    for term in terms:
        total += term.weight * (term.kernel * term.mu[labels[:, None], labels[None, :]]).sum() / 2
    return total


def bilinear(scores: Array, height: int, width: int, alignment: str) -> Array:
    """(C, h, w) -> (C, height, width) in float64: the two conventions, written out per axis."""
    for axis, size in ((1, height), (2, width)):
        cells = scores.shape[axis]
        if alignment == "half-pixel":
            position = (np.arange(size) + 0.5) * cells / size - 0.5
        else:
            position = np.arange(size) * ((cells - 1) / max(size - 1, 1))
        position = np.clip(position, 0, cells - 1)
        weights = np.clip(1 - np.abs(position[:, None] - np.arange(cells)), 0, None)
        scores = np.moveaxis(np.tensordot(weights, scores.astype(float), (1, axis)), 0, axis)
    return scores
