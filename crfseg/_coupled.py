# SPDX-License-Identifier: MIT
"""Kernels of a mean field that is differentiated, what they are given, and gradients by that."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check as check
from . import _explain as explain
from . import _fault as fault
from ._containers import as_array
from ._native import NORMALIZATIONS, core, threads_of_call
from .compatibility import Compatibility, resolve
from .lattice import ACCURACIES, FeatureAxis, build_lattice, check_features, near_zero


class Kernel:
    """One pairwise kernel: a Gaussian over features, with weight and compatibility.

    Args:
        features: (N, d) floats, 1 <= d <= 16, divided by the kernel's standard deviations.
        weight: a number, or (C,) numbers w(b), one for the label b of the other point; of any sign.
        compatibility: None or ``Potts``; a (C,) vector v, mu = -diag(v); or a (C, C) matrix
            mu(own label, other's label).
        normalization: with n = K 1: "symmetric" n^-1/2 K n^-1/2, "after" n^-1 K, "before" K n^-1,
            "none" K.
        accuracy: "fast" or "fine", as for ``DenseCRF``.
        threads: None for ``get_num_threads()``.

    The lattice is built here, and kept: ``with_parameters`` gives it another weight and
    compatibility.

    Raises:
        TypeError, ValueError: if an argument is not as described. What depends on the number of
            labels is checked by ``unroll``.
    """

    def __init__(
        self,
        features: Any,
        weight: Any = 1.0,
        compatibility: Compatibility = None,
        *,
        normalization: str = "symmetric",
        accuracy: str = "fast",
        threads: int | None = None,
    ) -> None:
        called = ("Kernel", "features")
        self._fill(called, features, weight, compatibility, normalization, accuracy, threads)

    def _fill(
        self,
        called: tuple[str, str],
        features: Any,
        weight: Any,
        compatibility: Compatibility,
        normalization: str,
        accuracy: str,
        threads: int | None,
    ) -> None:
        where, name = called
        given = as_array(where, name, features)
        check_features(where, name, given, 2, "(N, d)")
        self.normalization: str = check.choice(
            where, "normalization", normalization, tuple(NORMALIZATIONS)
        )
        self.accuracy: str = check.choice(where, "accuracy", accuracy, tuple(ACCURACIES))
        self.features: NDArray[np.float32] = near_zero(given, np.ones(given.shape[1]))
        self.weight = checked_weight(where, weight)
        self.compatibility = compatibility
        n_threads = threads_of_call(where, threads)
        self.lattice = lattice_of(where, self.features, accuracy, n_threads, name)

    @classmethod
    def named(
        cls,
        where: str,
        name: str,
        features: Any,
        compatibility: Compatibility,
        normalization: str,
        accuracy: str,
        threads: int,
    ) -> "Kernel":
        """One of weight 1 whose features errors call ``name``, for who builds it out of sight."""
        kernel = object.__new__(cls)
        kernel._fill((where, name), features, 1.0, compatibility, normalization, accuracy, threads)
        return kernel

    def __repr__(self) -> str:
        n_points, dim = self.features.shape
        return f"<Kernel: {n_points} points, {dim} features, normalization {self.normalization!r}>"

    def with_parameters(self, weight: Any, compatibility: Compatibility = None) -> "Kernel":
        """The same lattice with another weight and compatibility; nothing is built.

        Raises:
            TypeError, ValueError: if ``weight`` is not as for ``Kernel``.
        """
        other = object.__new__(Kernel)
        other.__dict__.update(self.__dict__)
        other.weight = checked_weight("Kernel.with_parameters", weight)
        other.compatibility = compatibility
        return other


class KernelGradients(NamedTuple):
    """dLoss by what a kernel was given.

    Attributes:
        weight: () or (C,), as the weight.
        compatibility: as the compatibility; () by the weight of ``Potts``; None if it is None.
        features: (N, d) where asked for, else None.
        log_sigmas: by logarithms of sigmas, a number per group, where asked for, else None.
    """

    weight: NDArray[np.float64]
    compatibility: NDArray[np.float64] | None
    features: NDArray[np.float32] | None
    log_sigmas: NDArray[np.float64] | None


class Coupling:
    """M(a, b) = -mu(a, b) w(b), what filtered Q of b adds to the logit of a, and the way back."""

    def __init__(self, where: str, name: str, kernel: Kernel, n_labels: int) -> None:
        self._factor, self._mu = resolve(where, kernel.compatibility, n_labels)
        self._is_none = kernel.compatibility is None
        self._weight = kernel.weight
        if self._weight.shape not in ((), (n_labels,)):
            raise fault.wrong_shape(where, "weight", self._weight.shape, f"() or ({n_labels},)")
        coupling = np.broadcast_to(self._agreement() * self._weight, self._shape(n_labels))
        strength = float(np.abs(coupling).max())
        if strength > fault.STRONGEST:
            raise fault.too_strong(where, name, strength)
        self.values: NDArray[np.float32] = np.ascontiguousarray(coupling, np.float32)

    def _shape(self, n_labels: int) -> tuple[int, ...]:
        return (n_labels,) if self._mu is None else self._mu.shape

    def _agreement(self) -> Any:
        """-mu where it is a matrix, and its diagonal otherwise."""
        if self._mu is None:
            return self._factor
        return -self._mu.astype(float) if self._mu.ndim == 2 else self._mu.astype(float)

    def pull(
        self, gradient: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """From dLoss/dM to dLoss by weight and compatibility."""
        by_weight = gradient * self._agreement()
        if by_weight.ndim == 2:
            by_weight = by_weight.sum(axis=0)
        by_mu = gradient * self._weight
        if self._mu is None:
            by_mu = by_mu.sum()
        elif self._mu.ndim == 2:
            by_mu = -by_mu
        total = by_weight if self._weight.ndim else by_weight.sum()
        return np.asarray(total), None if self._is_none else np.asarray(by_mu)


def lattice_of(
    where: str, features: NDArray[np.float32], accuracy: str, threads: int, name: str = "features"
) -> core.Lattice:
    axes = [FeatureAxis(f"{name}[:, {i}]") for i in range(features.shape[1])]
    return build_lattice(where, features, axes, ACCURACIES[accuracy], threads)


def checked_weight(where: str, weight: Any) -> NDArray[np.float64]:
    if check.is_number(weight):
        return np.asarray(check.finite(where, "weight", weight))
    array = as_array(where, "weight", weight)
    if array.ndim > 1:
        raise fault.wrong_shape(where, "weight", array.shape, "() or (C,)")
    if not np.isfinite(array).all():
        raise explain.non_finite(where, "weight", array)
    return array.astype(np.float64)
