# SPDX-License-Identifier: MIT
"""Pairwise terms as pydensecrf means them, in the form that the native core takes."""

import math
from numbers import Number
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crfseg import _check as check
from crfseg import _explain as explain
from crfseg import _fault as fault
from crfseg import _memory as memory
from crfseg import cache
from crfseg._containers import as_array
from crfseg._native import core
from crfseg.lattice import (
    ACCURACIES,
    FeatureAxis,
    PixelFeatures,
    build_lattice,
    check_features,
    near_zero,
)
from crfseg.pairwise import inverse_sigmas

from ._arrays import float32_array

_ACCURACY = ACCURACIES["fast"]
_LEVELS = 255
# What pydensecrf's numbers 0 to 3 are to the native core.
NORMALIZATIONS = (
    core.NORMALIZATION_NONE,
    core.NORMALIZATION_BEFORE,
    core.NORMALIZATION_AFTER,
    core.NORMALIZATION_SYMMETRIC,
)


class Compat(NamedTuple):
    """What a label's filtered marginals X add to the energy: -weight X, or weight mu of X."""

    weight: float
    mu: NDArray[np.float32] | None  # None is Potts; (C,) v adds -weight v X; (C, C) weight mu X


class Term(NamedTuple):
    """A kernel and its compatibility."""

    lattice: core.Lattice
    normalization: int  # the native core's number
    weight: float
    mu: NDArray[np.float32] | None

    def connect(self, where: str, field: core.MeanField, n_labels: int, threads: int) -> None:
        """Add the term to a mean field, which keeps the order of terms."""
        n_bytes = memory.vertex_bytes(self.lattice.n_vertices, n_labels)
        what = f"a model of {n_labels} labels at {self.lattice.n_vertices} lattice vertices"
        memory.require(where, what, n_bytes)
        with memory.explained(where, what):
            field.add_kernel(self.lattice, self.normalization, self.weight, self.mu, False, threads)

    def energy(self, q: NDArray[np.float32], threads: int) -> float:
        """Sum of Q . mu (K~ Q) over (N, C) marginals: every pair twice, and each point's own."""
        filtered = self.lattice.filter(q, self.normalization, False, threads)
        if self.mu is None:
            message = -filtered
        elif self.mu.ndim == 1:
            message = -filtered * self.mu
        else:
            message = filtered @ self.mu.T
        return self.weight * float(np.einsum("nc,nc->", q, message, dtype=np.float64))


def term_of(lattice: core.Lattice, compat: Compat, normalization: int) -> Term:
    """Without normalisation pydensecrf's sums have a gain of their own.

    Its blur is [1/2 1 1/2] along d + 1 axes, twice ours each, and its result is divided by
    1 + 2^-d; ours is multiplied by ``lattice.gain``.
    """
    gain = 1.0
    if NORMALIZATIONS[normalization] == core.NORMALIZATION_NONE:
        gain = 2.0 ** (lattice.dim + 1) / (1 + 2.0**-lattice.dim) / lattice.gain
    return Term(lattice, NORMALIZATIONS[normalization], gain * compat.weight, compat.mu)


def read_compat(where: str, compat: Any, n_labels: int) -> Compat:
    """A number is Potts, which rewards agreement; a vector or a matrix costs what it says."""
    if isinstance(compat, Number):
        weight = check.finite(where, "compat", compat)
        _refuse_strong(where, abs(weight))
        return Compat(weight, None)
    values = float32_array(where, "compat", compat)
    if values.shape not in ((n_labels,), (n_labels, n_labels)):
        expected = f"a number, ({n_labels},) or ({n_labels}, {n_labels}) for {n_labels} labels"
        raise fault.wrong_shape(where, "compat", values.shape, expected)
    if not np.isfinite(values).all():
        raise explain.non_finite(where, "compat", values)
    _refuse_strong(where, float(np.abs(values).max()))
    # The native core's vector rewards, and its matrix need not be symmetric.
    mu = -values if values.ndim == 1 else (values + values.T) / 2
    return Compat(1.0, np.ascontiguousarray(mu, np.float32))


def _refuse_strong(where: str, strength: float) -> None:
    if strength > fault.STRONGEST:
        raise fault.too_strong(where, "the pairwise", strength)


def lattice_of_points(where: str, features: Any, n_points: int, threads: int) -> core.Lattice:
    """Of features (D, N), divided by their sigmas already."""
    given = as_array(where, "features", features)
    if given.ndim != 2 or given.shape[1] != n_points:
        raise fault.wrong_shape(where, "features", given.shape, f"(D, {n_points}), one per point")
    check_features(where, "features", given.T, 2, f"(D, {n_points})")
    axes = [FeatureAxis(f"features[{i}]") for i in range(len(given))]
    what = f"a lattice over features of shape {given.shape}"
    n_bytes = n_points * (memory.lattice_bytes(len(given)) + 4 * len(given))
    memory.require(where, what, n_bytes)
    with memory.explained(where, what):
        rows = near_zero(given.T, np.ones(len(given)))
    return build_lattice(where, rows, axes, _ACCURACY, threads)


def lattice_of_grid(where: str, size: tuple[int, int], sxy: Any, threads: int) -> core.Lattice:
    """Of the coordinates x, y of (H, W) pixels; kept for other images where that is asked for."""
    axes = _axes(where, "sxy", sxy, ("x", "y"))
    features = PixelFeatures(size, None, inverse_sigmas(where, axes))
    key = (size, tuple(axis.sigma for axis in axes), _ACCURACY)
    return cache.shared(key, lambda: build_lattice(where, features, axes, _ACCURACY, threads))


def lattice_of_image(
    where: str, size: tuple[int, int], sxy: Any, srgb: Any, rgbim: Any, threads: int
) -> core.Lattice:
    """Of x, y and the three channels of an image (H, W, 3)."""
    axes = _axes(where, "sxy", sxy, ("x", "y"))
    axes += _axes(where, "srgb", srgb, ("red", "green", "blue"))
    image = _levels(where, as_array(where, "rgbim", rgbim), size)
    features = PixelFeatures(size, image, inverse_sigmas(where, axes))
    return build_lattice(where, features, axes, _ACCURACY, threads)


def _axes(where: str, name: str, sigmas: Any, features: tuple[str, ...]) -> list[FeatureAxis]:
    """One number for all features, or one each."""
    if np.ndim(sigmas) == 0:
        sigmas = (sigmas,) * len(features)
    if len(sigmas) != len(features):
        raise fault.sigma_count(where, name, len(sigmas), len(features), "feature")
    return [
        FeatureAxis(feature, name, _sigma(where, name, sigma))
        for feature, sigma in zip(features, sigmas, strict=True)
    ]


def _sigma(where: str, name: str, value: Any) -> float:
    """Infinity leaves the feature out."""
    is_infinite = check.is_number(value) and value == math.inf
    return math.inf if is_infinite else check.positive(where, name, value)


def _levels(where: str, image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """(H, W, 3) levels of 0..255 as uint8, or as float32 where they were floats."""
    if image.shape != (*size, 3):
        expected = f"{(*size, 3)}, (height, width, 3)"
        if image.shape == (size[1], size[0], 3):
            expected += "; DenseCRF2D takes the width first"
        elif image.ndim == 3 and image.shape[:2] == size:
            expected += " (for other channels, utils.create_pairwise_bilateral makes features)"
        raise fault.wrong_shape(where, "rgbim", image.shape, expected)
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    if image.dtype.kind not in "iuf":
        raise fault.wrong_dtype(where, "rgbim", image.dtype, "uint8")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= _LEVELS) or (image.dtype.kind == "f" and 0 < high <= 1):
        raise check.invalid(
            where,
            f"rgbim has values from {check.show(low)} to {check.show(high)}; expected levels of "
            "0..255 as they are in the picture, neither normalised nor within 0..1",
        )
    return np.ascontiguousarray(image, np.float32 if image.dtype.kind == "f" else np.uint8)
