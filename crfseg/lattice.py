# SPDX-License-Identifier: MIT
"""Lattice: a Gaussian filter over arbitrary features, built once and applied many times.

Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check as check
from . import _explain as explain
from . import _fault as fault
from . import _memory as memory
from ._containers import as_array, float32
from ._native import NORMALIZATIONS, core, threads_of_call
from .cache import follow_environment


class Accuracy(NamedTuple):
    """How closely a lattice follows the exact Gaussian: the two knobs of ``Lattice``."""

    fill: tuple[int, ...]
    passes: int


# "fine" is the cheapest of the choices measured that at least halves the number of labels that
# differ from the exact model's, against "fast", on every image (benchmarks/bench_accuracy.py).
ACCURACIES: Final = {
    "fast": Accuracy(fill=(), passes=1),
    "fine": Accuracy(fill=(1, 4), passes=2),
}
_MOST_PASSES: Final = 8


class Lattice:
    """Gaussian filter: out_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j, in time linear in the points.

    Args:
        features: (N, d) floats, 1 <= d <= 16, already divided by the kernel's standard deviations.
            Distant coordinates (time stamps, map projections) keep their precision in float64.
        fill: 0 keeps the lattice vertices that points touch; m >= 1 adds every vertex with at least
            m of its 2 (d + 1) lattice neighbours among them, so that the blur loses less (1 adds a
            full ring). A tuple or list fills in as many rounds: (1, 4) is what ``accuracy="fine"``
            does.
        passes: blur passes along each lattice axis, 1 to 8, on a lattice that is finer the more
            there are. More than one pays only with ``fill``.
        normalization: with n = K 1: ``"none"`` K, calibrated so that an isolated pair of points at
            distance 0 has weight 1; ``"before"`` K n^-1; ``"after"`` n^-1 K; ``"symmetric"``
            n^-1/2 K n^-1/2.
        threads: None for ``get_num_threads()``. Results do not depend on it.

    Without normalisation, sums over dense points come out too large: what is calibrated is the
    isolated pair. K 1 measured against the exact sum: 500 points of N(0, 1) in 3-D +37 %; bilateral
    features (80 pixels, 13 levels) of two 100 x 75 photographs +23 and +29 %. With
    ``fill=(1, 4), passes=2``: +2 %; +13 and +15 %. With more passes but no ``fill``: three to five
    times too large. The other normalisations divide by the same sums, so most of this cancels:
    "after" filtered random values from 0 to 1 within 1.4 % of the exact weighted mean at 95 % of
    those points, either way.

    Raises:
        TypeError, ValueError: if features are not finite (N, d) numbers, spread further than exact
            lattice keys can hold, or an option is wrong.
        MemoryError: if the lattice cannot fit, before anything is built.
    """

    def __init__(
        self,
        features: Any,
        *,
        fill: int | Sequence[int] = 0,
        passes: int = 1,
        normalization: str = "none",
        threads: int | None = None,
    ) -> None:
        where = "Lattice"
        follow_environment(where)
        given = as_array(where, "features", features)
        check_features(where, "features", given, 2, "(N, d)")
        rounds = tuple(fill) if isinstance(fill, tuple | list) else (fill,)
        rounds = tuple(check.integer(where, "fill", m) for m in rounds)
        passes = check.integer(where, "passes", passes, at_least=1, at_most=_MOST_PASSES)
        check.choice(where, "normalization", normalization, tuple(NORMALIZATIONS))
        self._normalization = normalization
        self._threads = None if threads is None else threads_of_call(where, threads)
        n_points, dim = given.shape
        n_bytes = n_points * (memory.lattice_bytes(dim) + 4 * dim)
        memory.require(where, f"a lattice over features of shape {given.shape}", n_bytes)
        axes = [FeatureAxis(f"features[:, {i}]") for i in range(dim)]
        self._lattice = build_lattice(
            where,
            near_zero(given, np.ones(dim)),
            axes,
            Accuracy(tuple(m for m in rounds if m > 0), passes),
            self._n_threads(),
        )

    def __repr__(self) -> str:
        return (
            f"<Lattice: {self.n_points} points, {self.dim} features, {self.n_vertices} vertices, "
            f"normalization {self._normalization!r}>"
        )

    @property
    def n_points(self) -> int:
        """N, the number of points."""
        return self._lattice.n_points

    @property
    def n_vertices(self) -> int:
        """The number of lattice vertices that hold values."""
        return self._lattice.n_vertices

    @property
    def dim(self) -> int:
        """d, the number of features of a point."""
        return self._lattice.dim

    @property
    def normalizer(self) -> NDArray[np.float32]:
        """(N,) K 1: the calibrated filter, applied to ones."""
        return self._lattice.normalizer(self._n_threads())

    def filter(self, values: Any) -> NDArray[np.float32]:
        """Filter values at the points.

        Args:
            values: (N,) or (N, C) finite numbers.

        Returns:
            float32 array of the same shape.

        Raises:
            TypeError, ValueError: if ``values`` is something else.
        """
        return self._apply("Lattice.filter", values, transpose=False)

    def filter_transpose(self, values: Any) -> NDArray[np.float32]:
        """Apply the exact adjoint of ``filter``, normalisation included; takes the same values.

        It differs from ``filter`` beyond rounding: blurs along different axes do not commute where
        the lattice ends. Gradients through the filter need it.
        """
        return self._apply("Lattice.filter_transpose", values, transpose=True)

    def _apply(self, where: str, values: Any, *, transpose: bool) -> NDArray[np.float32]:
        given = as_array(where, "values", values)
        if given.ndim not in (1, 2) or given.shape[0] != self.n_points:
            n = self.n_points
            raise fault.wrong_shape(where, "values", given.shape, f"({n},) or ({n}, C)")
        if given.size == 0:
            raise fault.empty(where, "values", given.shape)
        columns = np.ascontiguousarray(float32(given).reshape(self.n_points, -1))
        # One pass, no temporary: NaN and infinity survive a sum. So may an overflow: look again.
        with np.errstate(over="ignore", invalid="ignore"):
            total = columns.sum()
        if not np.isfinite(total) and not np.isfinite(columns).all():
            raise explain.non_finite(where, "values", given)
        how = NORMALIZATIONS[self._normalization]
        with memory.explained(where, f"filtering values of shape {given.shape}"):
            filtered = self._lattice.filter(columns, how, transpose, self._n_threads())
        return filtered.reshape(given.shape)

    def _n_threads(self) -> int:
        return threads_of_call("Lattice", self._threads)


class FeatureAxis(NamedTuple):
    """What errors call one axis of a feature space, and the sigma it was divided by."""

    name: str
    sigma_name: str | None = None
    sigma: float = 1.0


def check_features(where: str, name: str, array: NDArray[Any], ndim: int, shape: str) -> None:
    """Raise unless there are ``ndim`` axes, none of length 0, and 1 to 16 features at the end."""
    if array.dtype.kind not in "iuf":
        raise fault.wrong_dtype(where, name, array.dtype, "floats")
    if array.ndim != ndim:
        raise fault.wrong_shape(where, name, array.shape, shape)
    if array.size == 0:
        raise fault.empty(where, name, array.shape)
    if array.shape[-1] > fault.MOST_DIMENSIONS:
        raise fault.too_many_dimensions(where, name, array.shape[-1], array.shape)


def near_zero(features: NDArray[Any], inverse_sigmas: NDArray[Any]) -> NDArray[np.float32]:
    """(N, d) features times inverse sigmas as C-contiguous float32.

    float32 cannot tell neighbours apart far from zero, so axes of wider types whose values lie far
    out are moved to zero first: only differences matter to a Gaussian.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if features.dtype == np.float32:
            scaled = features * inverse_sigmas.astype(np.float32)
        else:
            scaled = features * inverse_sigmas
            nearest = np.clip(0.0, scaled.min(axis=0), scaled.max(axis=0))
            far = np.isfinite(nearest) & (np.abs(nearest) > _FAR)
            if far.any():
                scaled -= np.where(far, nearest, 0.0)
        return np.ascontiguousarray(scaled, np.float32)


class PixelFeatures(NamedTuple):
    """Features of pixels or voxels, which only the native core makes: x, y (, z) and channels."""

    grid: tuple[int, ...]  # (H, W) or (D, H, W)
    channels: NDArray[Any] | None  # (*grid, K), C-contiguous, uint8, uint16 or float32
    inverse_sigmas: NDArray[np.float32]  # one per feature, what all are multiplied by

    @property
    def shape(self) -> tuple[int, int]:
        """(N, d), as if they were an array."""
        return math.prod(self.grid), len(self.inverse_sigmas)


_TINY: Final = 1e-20  # a sigma that carries ordinary features beyond float32
_FAR: Final = 4096.0  # sigmas from zero; there float32 still resolves 1/2048 of a sigma


def build_lattice(
    where: str,
    features: NDArray[np.float32] | PixelFeatures,
    axes: list[FeatureAxis],
    accuracy: Accuracy,
    threads: int,
) -> core.Lattice:
    """Build the native lattice, its complaints put in terms of the caller's axes and sigmas."""
    limit = memory.available() if accuracy.fill else 0
    try:
        if isinstance(features, PixelFeatures):
            return core.Lattice.of_pixels(*features, *accuracy, threads, limit)
        return core.Lattice(features, *accuracy, threads, limit)
    except core.TooLarge as error:
        what = f"filling a lattice of {features.shape[1]} dimensions"
        raise fault.too_big(where, what, error.args[0], limit) from None
    except MemoryError as error:
        what = f"a lattice over features of shape {features.shape}"
        raise fault.out_of_memory(where, what) from error
    except core.NonFiniteFeature as error:
        raise non_finite(where, axes, *error.args) from None
    except core.KeyRange as error:
        raise too_wide(where, axes, *error.args) from None


def non_finite(
    where: str, axes: list[FeatureAxis], point: int, axis: int, value: float
) -> ValueError:
    """What native code calls ``NonFiniteFeature``, in terms of the caller's axes and sigmas."""
    name, sigma_name, sigma = axes[axis]
    if sigma_name is not None and sigma < _TINY:
        return fault.sigma_too_small(where, sigma_name, sigma, name, np.inf)
    return fault.non_finite_feature(where, name, point, value)


def too_wide(where: str, axes: list[FeatureAxis], axis: int, low: float, high: float) -> ValueError:
    """What native code calls ``KeyRange``, in terms of the caller's axes and sigmas."""
    name, sigma_name, sigma = axes[axis]
    reach = max(-low, high)
    if sigma_name is None:
        return fault.wide_features(where, name, reach)
    return fault.sigma_too_small(where, sigma_name, sigma, name, reach)
