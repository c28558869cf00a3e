# SPDX-License-Identifier: MIT
"""The native module driven by hand, lattices of pixels and mean field; and the CPU's lattices."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg._native import NORMALIZATIONS, core
from gpu.place import Held, Place

Allocate = Callable[[int], tuple[int, Any]]
Kernel = tuple[float, float | None, float]  # sigma_xy, sigma_rgb, weight
SYMMETRIC = NORMALIZATIONS["symmetric"]
SIDE = 16  # of the tiles of lattices of up to 7 dimensions
LOGITS = 2  # UnaryKind::logits
FLOAT_TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}  # FloatType, csrc/cuda/views.h


@dataclass(frozen=True)
class Bound:
    """What features are multiplied by, and between which they lie."""

    inverse_sigmas: NDArray[np.float32]
    hi: NDArray[np.float32]

    @classmethod
    def of(cls, size: tuple[int, int], sigma_xy: float, sigma_rgb: float | None) -> "Bound":
        sigmas = [sigma_xy, sigma_xy] + ([] if sigma_rgb is None else [sigma_rgb] * 3)
        inverse = np.array([1.0 / sigma for sigma in sigmas], np.float32)
        height, width = size
        most = np.array([width - 1, height - 1, 255, 255, 255][: len(sigmas)], np.float32)
        return cls(inverse, most * inverse)


@dataclass
class Native:
    """The module at a place; ``allocate`` gives its workspace, None leaves that to the runtime."""

    module: ModuleType
    place: Place
    allocate: Allocate | None = None

    def lattice(
        self,
        images: Held | None,
        n_items: int,
        size: tuple[int, int],
        sigma_xy: float,
        sigma_rgb: float | None,
        room: tuple[int, int] = (0, 0),
    ) -> Any:
        """Of (n_items, H, W, 3) uint8, or of positions alone, the same for all items."""
        bound = Bound.of(size, sigma_xy, sigma_rgb)
        dim = len(bound.hi)
        built = self.module.Lattice.of_pixels(
            channels=0 if images is None else images.address,
            channel_type=0,
            n_channels=dim - 2,
            n_items=1 if images is None else n_items,
            height=size[0],
            width=size[1],
            depth=0,
            inverse_sigmas=bound.inverse_sigmas,
            lo=np.zeros(dim, np.float32),
            hi=bound.hi,
            side=self.module.side_for(dim),
            fill=[],
            passes=1,
            max_bytes=0,
            room_for_rows=room[0],
            room_for_vertices=room[1],
            device=0,
            stream=self.place.stream,
            allocate=self.allocate,
        )
        return built.repeated(n_items) if images is None and n_items > 1 else built

    def filter(
        self, lattice: Any, values: NDArray[np.float32], how: int, gain: float, *, transpose: bool
    ) -> NDArray[np.float32]:
        """(n_items, H W, C) filtered."""
        given, out = self.place.put(values), self.place.put(np.full_like(values, np.nan))
        lattice.filter(
            values=given.address,
            n_channels=values.shape[-1],
            out=out.address,
            normalization=how,
            gain=gain,
            transpose=transpose,
            device=0,
            stream=self.place.stream,
            allocate=self.allocate,
        )
        return out.get()

    def field(
        self,
        logits: Held,
        shape: tuple[int, int, int, int],
        lattices: list[tuple[Any, float, float]],
        dtype: str = "float32",
    ) -> Any:
        """With (lattice, gain, weight) for kernels; logits are (N, C, H, W)."""
        n_items, n_labels, height, width = shape
        n_points = height * width
        field = self.module.MeanField(
            n_items=n_items,
            n_points=n_points,
            width=width,
            side=SIDE,
            n_labels=n_labels,
            storage=FLOAT_TYPES["float32"],
            device=0,
            stream=self.place.stream,
            allocate=self.allocate,
        )
        strides = (n_labels * n_points, n_points, 1)
        field.set_unary((logits.address, FLOAT_TYPES[dtype], *strides), LOGITS, 0.0)
        for lattice, gain, weight in lattices:
            field.add_kernel(lattice, SYMMETRIC, gain, weight, None, False)
        return field

    def infer(
        self, field: Any, out: Held, shape: tuple[int, int, int, int], iterations: int
    ) -> None:
        """Marginals (N, C, H, W) float32 into ``out``."""
        _, n_labels, height, width = shape
        n_points = height * width
        to = (out.address, 0, n_labels * n_points, n_points, 1)
        field.infer(
            start=None,
            iterations=iterations,
            tolerance=0.0,
            damping=0.0,
            trace=False,
            out=to,
            first_label=0,
            are_logs=False,
            labels=None,
            narrow_labels=False,
            least=0.0,
            mark=0,
        )

    def marginals(
        self,
        logits: NDArray[Any],
        images: NDArray[np.uint8],
        kernels: list[Kernel],
        iterations: int,
        dtype: str = "float32",
    ) -> NDArray[np.float32]:
        """Q of logits (N, C, H, W), whose bits ``dtype`` tells the meaning of."""
        n_items, _, height, width = shape = logits.shape
        held = self.place.put(images)
        lattices = []
        for sigma_xy, sigma_rgb, weight in kernels:
            given = None if sigma_rgb is None else held
            lattice = self.lattice(given, n_items, (height, width), sigma_xy, sigma_rgb)
            lattices.append((lattice, gain_of(lattice.dim), weight))
        scores = self.place.put(logits)
        out = self.place.put(np.full(shape, np.nan, np.float32))
        field = self.field(scores, shape, lattices, dtype)
        self.infer(field, out, shape, iterations)
        return out.get()


def cpu_lattice(image: NDArray[np.uint8], sigma_xy: float, sigma_rgb: float | None) -> Any:
    """The CPU's of one (H, W, 3) image."""
    inverse = Bound.of(image.shape[:2], sigma_xy, sigma_rgb).inverse_sigmas
    channels = None if sigma_rgb is None else np.ascontiguousarray(image)
    return core.Lattice.of_pixels(image.shape[:2], channels, inverse, (), 1, 1, 0)


def gain_of(dim: int) -> float:
    return float(core.lattice_gain(dim, (), 1))


def poisoned(place: Place, byte: int) -> Allocate:
    """Memory every byte of which is ``byte``; four of 0xFF are a NaN."""

    def allocate(n_bytes: int) -> tuple[int, Any]:
        held = place.filled(max(n_bytes, 1), byte)
        return held.address, held

    return allocate
