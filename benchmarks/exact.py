# SPDX-License-Identifier: MIT
"""The exact model by brute force: every pair of pixels, for images of up to about 20,000 pixels.

The bilateral kernel is one N x N float32 matrix (1.5 GB for 160 x 120), its distances computed in
float64; the spatial one is separable. Sums are float32 matrix products: relative errors near 1e-6,
four orders below those of any lattice.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from photos import Photo

Floats = NDArray[np.float32]
ROWS = 1000  # of the kernel matrix, computed at a time


class Filter(Protocol):
    """A symmetrically normalised Gaussian filter of (N, C) values."""

    def filter(self, values: Floats) -> Floats: ...


def spatial_features(height: int, width: int, sigma: float) -> NDArray[np.float64]:
    """(H * W, 2) features x, y over sigma."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x.ravel(), y.ravel()], axis=1) / sigma


def bilateral_features(image: Photo, sigma_xy: float, sigma_rgb: float) -> NDArray[np.float64]:
    """(H * W, 5) features x, y, r, g, b over their sigmas."""
    height, width = image.shape[:2]
    colours = image.reshape(-1, 3) / sigma_rgb
    return np.hstack([spatial_features(height, width, sigma_xy), colours])


def gaussian_matrix(features: NDArray[np.float64]) -> Floats:
    """(N, N) exp(-|f_i - f_j|^2 / 2)."""
    matrix = np.empty((len(features), len(features)), np.float32)
    half_squares = (features**2).sum(1) / 2
    for start in range(0, len(features), ROWS):
        rows = slice(start, start + ROWS)
        exponents = features[rows] @ features.T - half_squares[rows, None] - half_squares
        np.exp(exponents.astype(np.float32), out=matrix[rows])
    return matrix


class ExactBilateral:
    """K as a dense matrix."""

    def __init__(self, features: NDArray[np.float64]) -> None:
        self.matrix = gaussian_matrix(features)
        self.scale = 1 / np.sqrt(self.matrix.sum(1, dtype=np.float64, keepdims=True))
        self.scale = self.scale.astype(np.float32)

    def filter(self, values: Floats) -> Floats:
        """n^-1/2 K n^-1/2 v."""
        return np.asarray(self.scale * (self.matrix @ (self.scale * values)), np.float32)


class ExactSpatial:
    """K over the whole image is the product of one Gaussian along y and one along x."""

    def __init__(self, height: int, width: int, sigma: float) -> None:
        features = [np.arange(n)[:, None] / sigma for n in (height, width)]
        self.along_y, self.along_x = (gaussian_matrix(axis) for axis in features)
        ones = np.ones((height * width, 1), np.float32)
        self.scale = np.float32(1) / np.sqrt(self._sums(ones))

    def _sums(self, values: Floats) -> Floats:
        grid = values.reshape(len(self.along_y), len(self.along_x), -1)
        rows = np.einsum("xv,yvc->yxc", self.along_x, grid, optimize=True)
        sums = np.einsum("yu,uxc->yxc", self.along_y, rows, optimize=True)
        return np.asarray(sums.reshape(values.shape), np.float32)

    def filter(self, values: Floats) -> Floats:
        """n^-1/2 K n^-1/2 v."""
        return np.asarray(self.scale * self._sums(self.scale * values), np.float32)


def softmax(energies: Floats) -> Floats:
    """Softmax of -energies over the last axis."""
    q = np.exp(energies.min(-1, keepdims=True) - energies)
    return np.asarray(q / q.sum(-1, keepdims=True), np.float32)


def mean_field(unary: Floats, kernels: Sequence[tuple[float, Filter]], iterations: int) -> Floats:
    """(N, C) Q after parallel updates of the Potts model, from (N, C) unary energies.

    Krähenbühl & Koltun, NIPS 2011, algorithm 1, with the self term kept as pydensecrf keeps it.
    """
    q = softmax(unary)
    for _ in range(iterations):
        messages = sum(np.float32(weight) * kernel.filter(q) for weight, kernel in kernels)
        q = softmax(unary - messages)
    return q
