# SPDX-License-Identifier: MIT
"""Pairwise terms: Gaussian kernels over features of the points, each with weight and compatibility.

k(i, j) = exp(-|f_i - f_j|^2 / 2), the features f being divided by their sigmas (Krähenbühl &
Koltun, NIPS 2011, eq. 2-3: ``Gaussian`` is the smoothness kernel, ``Bilateral`` the appearance
kernel). The order of features is x, y (, z), then channels.
"""

from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _check as check
from . import _fault as fault
from ._containers import as_array
from ._image import Levels, Ranges, checked_range
from ._native import NORMALIZATIONS
from .compatibility import Compatibility
from .lattice import FeatureAxis, PixelFeatures, check_features, near_zero

Sigmas: TypeAlias = float | tuple[float, ...]
Grid: TypeAlias = tuple[int, ...]
"""The spatial shape of the points: (H, W) for an image."""

_AXIS_NAMES = ("x", "y", "z", "t")
_MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Options:
    """What a term may say for itself instead of taking it from the model."""

    compatibility: Compatibility = field(default=None, repr=False)
    normalization: str | None = None


@dataclass(frozen=True, eq=False)
class Gaussian(_Options):
    """Smoothness kernel: points close to each other take the same label.

    Args:
        sigma_xy: reach in pixels, positive: one number, or one per axis in the order x, y (, z).
            Distances are along the unary's axes: of one that was flattened to (C, N), all pixels
            lie on one line.
        weight: weight of the term, at least 0.
        spacing: distance of neighbouring points, in whose unit ``sigma_xy`` then is: one number, or
            one per axis in the order of the array's axes, (dy, dx) or (dz, dy, dx). None takes
            what is given to ``refine``, else 1.
        compatibility: as for ``DenseCRF``; None takes the model's.
        normalization: as for ``DenseCRF``; None takes the model's.

    Raises:
        TypeError, ValueError: if an argument is not as described.
    """

    sigma_xy: Sigmas = 3.0
    weight: float = 3.0
    spacing: Sigmas | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        where = "Gaussian"
        _check_options(where, self, self.weight)
        sigma = check.sigmas(where, "sigma_xy", self.sigma_xy)
        _assign(self, sigma_xy=sigma, spacing=checked_spacing(where, self.spacing))

    def axes(self, where: str, grid: Grid, _: int) -> list[FeatureAxis]:
        """Name and sigma of every feature; the number of channels does not matter."""
        return _spatial_axes(where, "Gaussian", self, grid)

    def point_features(
        self, where: str, grid: Grid, _: Levels | None, axes: list[FeatureAxis]
    ) -> NDArray[np.float32] | PixelFeatures:
        """(N, d) coordinates of the points, divided by the sigmas of ``axes``."""
        return _grid_features(grid, None, inverse_sigmas(where, axes))


@dataclass(frozen=True, eq=False)
class Bilateral(_Options):
    """Appearance kernel: points that are close and look alike take the same label.

    Args:
        image: (H, W) or (H, W, K) image, uint8 (0..255), uint16 (0..65535) or float (0..1); for
            volumes (*spatial) or (*spatial, K). None takes the image given to ``refine``.
        sigma_xy: reach in pixels (theta_alpha of the paper), one number or one per axis: x, y, ...
        spacing: distance of neighbouring points, as for ``Gaussian``.
        sigma_rgb: contrast that counts as an edge (theta_beta), in levels of 0..255 whatever the
            dtype of the image: one number, or one per channel.
        weight: weight of the term, at least 0.
        compatibility: as for ``DenseCRF``; None takes the model's.
        normalization: as for ``DenseCRF``; None takes the model's.
        image_range: (lo, hi), the values of the image that mean levels 0 and 255; or a list of such
            pairs, one per channel.

    Raises:
        TypeError, ValueError: if an argument is not as described.
    """

    image: Any = field(default=None, repr=False)
    sigma_xy: Sigmas = 80.0
    sigma_rgb: Sigmas = 13.0
    weight: float = 10.0
    spacing: Sigmas | None = field(default=None, kw_only=True)
    image_range: Ranges | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        where = "Bilateral"
        _check_options(where, self, self.weight)
        if self.image is None and self.image_range is not None:
            raise fault.range_without_image(where, self.image_range)
        _assign(
            self,
            sigma_xy=check.sigmas(where, "sigma_xy", self.sigma_xy),
            sigma_rgb=check.sigmas(where, "sigma_rgb", self.sigma_rgb),
            spacing=checked_spacing(where, self.spacing),
            image_range=checked_range(where, self.image_range),
        )

    def axes(self, where: str, grid: Grid, n_channels: int) -> list[FeatureAxis]:
        """Name and sigma of every feature."""
        name = "Bilateral sigma_rgb"
        sigmas = _one_per_axis(where, name, self.sigma_rgb, n_channels, "channel")
        channels = [FeatureAxis(f"channel {k}", name, sigma) for k, sigma in enumerate(sigmas)]
        return _spatial_axes(where, "Bilateral", self, grid) + channels

    def point_features(
        self, where: str, grid: Grid, image: Levels | None, axes: list[FeatureAxis]
    ) -> NDArray[np.float32] | PixelFeatures:
        """(N, d) coordinates and channels of the points, divided by the sigmas of ``axes``."""
        if image is None:
            raise fault.missing_image(where)
        inverse = inverse_sigmas(where, axes, len(grid), image.scale)
        return _grid_features(grid, image.values, inverse)


@dataclass(frozen=True, eq=False)
class Features(_Options):
    """Kernel over features of the caller's own: depth, Lab colours, time, point clouds.

    Args:
        features: (N, d) or (*spatial, d) finite numbers, 1 <= d <= 16.
        sigmas: what they are divided by: one positive number, or one per feature.
        weight: weight of the term, at least 0.
        compatibility: as for ``DenseCRF``; None takes the model's.
        normalization: as for ``DenseCRF``; None takes the model's.

    Raises:
        TypeError, ValueError: if an argument is not as described.
    """

    features: Any = field(repr=False)
    sigmas: Sigmas = 1.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        where = "Features"
        _check_options(where, self, self.weight)
        _assign(self, sigmas=check.sigmas(where, "sigmas", self.sigmas))
        array = as_array(where, "features", self.features)
        check_features(where, "features", array, max(array.ndim, 2), "(N, d) or (*spatial, d)")
        _assign(self, features=array)

    def axes(self, where: str, grid: Grid, _: int) -> list[FeatureAxis]:
        """Name and sigma of every feature; the number of channels does not matter."""
        *points, dim = self.features.shape
        n_points = int(np.prod(grid))
        if tuple(points) not in (grid, (n_points,)):
            expected = f"{(n_points, dim)} or {(*grid, dim)}, like the unary"
            raise fault.wrong_shape(where, "features", self.features.shape, expected)
        sigmas = _one_per_axis(where, "Features sigmas", self.sigmas, dim, "feature")
        return [
            FeatureAxis(f"feature {i}", "Features sigmas", sigma) for i, sigma in enumerate(sigmas)
        ]

    def point_features(
        self, where: str, _: Grid, __: Levels | None, axes: list[FeatureAxis]
    ) -> NDArray[np.float32]:
        """(N, d) features of the points, divided by the sigmas of ``axes``."""
        rows = self.features.reshape(-1, len(axes))
        return near_zero(rows, inverse_sigmas(where, axes))


Term: TypeAlias = Gaussian | Bilateral | Features


def check_terms(where: str, terms: Any) -> list[Term]:
    """A list of pairwise terms; an empty one leaves the unary alone."""
    if not isinstance(terms, list | tuple):
        raise fault.not_a_term(where, None, terms)
    for i, term in enumerate(terms):
        if not isinstance(term, Gaussian | Bilateral | Features):
            raise fault.not_a_term(where, i, term)
    return list(terms)


def checked_spacing(where: str, spacing: Any) -> Sigmas | None:
    """None, one positive number, or several, one per axis."""
    return None if spacing is None else check.sigmas(where, "spacing", spacing)


def check_spacing(where: str, spacing: Sigmas | None, grid: Grid) -> None:
    """Raise unless there are as many as axes, if there are several."""
    if spacing is not None:
        _one_per_axis(where, "spacing", spacing, len(grid), "spatial axis")


def with_spacing(terms: list[Term], spacing: Sigmas | None) -> list[Term]:
    """The terms, those with positions and without a spacing of their own at this one."""
    if spacing is None:
        return terms
    return [
        term
        if isinstance(term, Features) or term.spacing is not None
        else replace(term, spacing=spacing)
        for term in terms
    ]


def _check_options(where: str, term: _Options, weight: Any) -> None:
    _assign(term, weight=check.non_negative(where, "weight", weight))
    if term.normalization is not None:
        check.choice(where, "normalization", term.normalization, tuple(NORMALIZATIONS))


def _assign(term: _Options, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(term, name, value)  # frozen for callers, not for __post_init__


def _spatial_axes(
    where: str, kind: str, term: Gaussian | Bilateral, grid: Grid
) -> list[FeatureAxis]:
    """In the order x, y (, z), sigmas in points."""
    name = f"{kind} sigma_xy"
    sigmas = _one_per_axis(where, name, term.sigma_xy, len(grid), "spatial axis")
    if term.spacing is not None:
        steps = _one_per_axis(where, "spacing", term.spacing, len(grid), "spatial axis")
        sigmas = tuple(sigma / step for sigma, step in zip(sigmas, steps[::-1], strict=True))
        name += " / spacing"
    axes = [*_AXIS_NAMES, *(f"axis {i}" for i in range(len(_AXIS_NAMES), len(grid)))]
    return [FeatureAxis(axis, name, sigma) for axis, sigma in zip(axes, sigmas, strict=False)]


def _one_per_axis(where: str, name: str, sigmas: Sigmas, n: int, axes: str) -> tuple[float, ...]:
    if not isinstance(sigmas, tuple):
        return (sigmas,) * n
    if len(sigmas) != n:
        raise fault.sigma_count(where, name, len(sigmas), n, axes)
    return sigmas


def inverse_sigmas(
    where: str,
    axes: list[FeatureAxis],
    n_positions: int = 0,
    scale: float | NDArray[np.float32] = 1.0,
) -> NDArray[np.float32]:
    """1 / sigma of every axis, which float32 must be able to hold; of channels times ``scale``."""
    worst = min(axes, key=lambda axis: axis.sigma)
    if 1.0 / worst.sigma > _MOST:
        raise fault.sigma_too_small(where, str(worst.sigma_name), worst.sigma, worst.name, np.inf)
    inverse = np.array([1.0 / axis.sigma for axis in axes], np.float32)
    inverse[n_positions:] *= np.asarray(scale, np.float32)
    return inverse


def _grid_features(
    grid: Grid, channels: NDArray[Any] | None, inverse: NDArray[np.float32]
) -> NDArray[np.float32] | PixelFeatures:
    """(N, d) coordinates x, y (, z) and channels of a grid of points, times ``inverse``."""
    if len(grid) in (2, 3):
        return PixelFeatures(grid, channels, inverse)
    coordinates = np.indices(grid, np.float32)[::-1].reshape(len(grid), -1).T
    if channels is not None:
        coordinates = np.hstack((coordinates, channels.reshape(len(coordinates), -1)))
    return np.ascontiguousarray(coordinates * inverse)
