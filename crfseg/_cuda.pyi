# SPDX-License-Identifier: MIT
"""The native core on CUDA devices (csrc/bindings/cuda). Only ``crfseg._native`` imports it.

Arrays are given by their address in device memory, strides counted in elements; a stream by the
number behind its handle. ``allocate`` is called with a number of bytes and returns an address,
aligned to 256, and what holds the memory; None: the device's own, in the order of the stream.
Arguments are trusted: ``crfseg`` checks them first. Nothing is waited for but where a result comes
to the host. The GIL is released.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MOST_LABELS: Final[int]
MOST_TERMS: Final[int]

class Error(RuntimeError): ...

class DeviceError(Error):
    """A call of the CUDA runtime that failed: ``"call: reason"``."""

class TooManyItems(Error):
    """The items of a batch cannot be told apart by exact keys: fewer can."""

class TooCoarse(Error):
    """Rows cannot be stored as what was asked for."""

class NoRoom(Error):
    """``args = (what, lacking)``: there was no room for so many "rows" or "vertices"."""

class OutOfDeviceMemory(MemoryError):
    """``args = (bytes,)`` that were asked for."""

class OutOfBounds(ValueError):
    """``args = (point,)``, counted over all items, whose features are out of their bounds."""

class KeyRange(ValueError):
    """``args = (axis, lo, hi)``: features along ``axis`` span more than exact keys can hold."""

class TooLarge(MemoryError):
    """``args = (bytes,)``: filling the lattice would hold more than ``max_bytes`` (0: no limit)."""

class Borrowed:
    """An array of a DLPack capsule, for as long as this lives."""

    def __init__(self, capsule: Any) -> None: ...
    @property
    def address(self) -> int: ...
    @property
    def shape(self) -> list[int]: ...
    @property
    def strides(self) -> list[int] | None: ...
    @property
    def device(self) -> tuple[int, int]:
        """Type and index."""
    @property
    def type(self) -> tuple[int, int, int]:
        """Code, bits and lanes."""

class Owned:
    """Device memory that others may take over."""

    def __init__(self, n_bytes: int, device: int, stream: int) -> None: ...
    @property
    def address(self) -> int: ...
    def lend(self, shape: Sequence[int], code: int, bits: int) -> Any:
        """Make a DLPack capsule of a packed array."""

class Lattice:
    """Of a batch; ``side``: of tiles, ``side_for(dim)`` or 8; 0 ``max_bytes``: no limit.

    With room given for rows and vertices nothing is waited for, and ``check`` says later what was
    wrong.
    """

    @staticmethod
    def of_features(
        features: int,
        n_items: int,
        n_points: int,
        dim: int,
        width: int,
        lo: NDArray[np.float32],
        hi: NDArray[np.float32],
        side: int,
        fill: Sequence[int],
        passes: int,
        max_bytes: int,
        room_for_rows: int,
        room_for_vertices: int,
        device: int,
        stream: int,
        allocate: Callable[[int], tuple[int, object]] | None,
    ) -> Lattice:
        """(n_items, n_points, dim) float32, between bounds; ``width`` of images, or 0."""
    @staticmethod
    def of_pixels(
        channels: int,
        channel_type: int,
        n_channels: int,
        n_items: int,
        height: int,
        width: int,
        depth: int,
        inverse_sigmas: NDArray[np.float32],
        lo: NDArray[np.float32],
        hi: NDArray[np.float32],
        side: int,
        fill: Sequence[int],
        passes: int,
        max_bytes: int,
        room_for_rows: int,
        room_for_vertices: int,
        device: int,
        stream: int,
        allocate: Callable[[int], tuple[int, object]] | None,
    ) -> Lattice:
        """Features x, y (, z) and channels, times inverse sigmas.

        ``channel_type``: 0 uint8, 1 uint16, 2 float32, of (n_items, (depth,) height, width,
        n_channels); ``depth`` 0: images.
        """
    @property
    def n_vertices(self) -> int: ...
    @property
    def n_rows(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def fill(self) -> list[int]: ...
    @property
    def passes(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def check(self, device: int, stream: int) -> None: ...
    def repeated(self, n_items: int) -> Lattice:
        """Built for one item, the same for so many."""
    def filter(
        self,
        values: int,
        n_channels: int,
        out: int,
        normalization: int,
        gain: float,
        transpose: bool,
        device: int,
        stream: int,
        allocate: Callable[[int], tuple[int, object]] | None,
    ) -> None:
        """(n_items, n_points, n_channels) float32 in and out."""
    def self_response(
        self,
        out: int,
        normalization: int,
        gain: float,
        device: int,
        stream: int,
        allocate: Callable[[int], tuple[int, object]] | None,
    ) -> None:
        """The filter's diagonal, (n_items, n_points) float32; (1, n_points) of a repeated one."""
    def keys(self, device: int, stream: int) -> NDArray[np.uint64]:
        """(n_vertices, 2) the keys, low word first."""

class MeanField:
    """Of a batch. Arrays: (address, type, item, label, point strides); types: 0 float32, 1 float16,
    2 bfloat16; those of float32 alone go without their type.
    storage: the type of rows, float32 or float16 (csrc/cuda/storage.h says what that asks for);
    TooCoarse where float16 will not do, here, in add_kernel and in set_labels.
    """

    def __init__(
        self,
        n_items: int,
        n_points: int,
        width: int,
        side: int,
        n_labels: int,
        storage: int,
        device: int,
        stream: int,
        allocate: Callable[[int], tuple[int, object]] | None,
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def set_unary(self, values: tuple[int, int, int, int, int], kind: int, clip: float) -> None: ...
    def set_coarse_unary(
        self,
        scores: tuple[int, int, int, int, int],
        rows: int,
        columns: int,
        kind: int,
        clip: float,
        height: int,
        width: int,
        align_corners: bool,
    ) -> None: ...
    def set_labels(
        self, labels: int, given: float, other: float, unknown: float, forbidden: int
    ) -> None:
        """(n_items, n_points) int32; any other number than 0 to C - 1 means no label."""
    def hold_thin(self, side: int, factor: float) -> None: ...
    def findings(self) -> tuple[bool, float, float]:
        """Whether a value is not allowed, the lowest one, and the largest |sum over labels - 1|."""
    def add_kernel(
        self,
        lattice: Lattice,
        normalization: int,
        gain: float,
        weight: float,
        compatibility: NDArray[np.float32] | None,
        exclude_self: bool,
    ) -> None: ...
    def infer(
        self,
        start: tuple[int, int, int, int] | None,
        iterations: int,
        tolerance: float,
        damping: float,
        trace: bool,
        out: tuple[int, int, int, int, int] | None,
        first_label: int,
        are_logs: bool,
        labels: int | None,
        narrow_labels: bool,
        least: float,
        mark: int,
    ) -> None:
        """Q of labels from ``first_label`` on goes to ``out``, or its logarithms.

        ``labels``: (n_items, n_points) uint8 where narrow, else int32; those whose marginal is
        below ``least`` become ``mark``.
        """
    def outcome(self) -> tuple[int, float, list[float]]:
        """Iterations, the last max |dQ|, and the trace."""
    def free_energy(self, q: tuple[int, int, int, int]) -> float: ...
    def expected_energy(self, q: tuple[int, int, int, int]) -> float: ...
    def energy(self, labels: int) -> float: ...

def side_for(dim: int) -> int:
    """The side of tiles that lattices of so many dimensions may have at most."""

def availability() -> tuple[int, str]:
    """How many devices there are, and if none, why."""

def synchronize(device: int) -> None:
    """Wait for all streams of a device."""

def device_of(address: int) -> int:
    """Whose memory it is in."""

def is_capturing(stream: int) -> bool: ...
def order_after(later: int, earlier: int, device: int) -> None:
    """Let one stream wait for what is on another."""

def convert(
    source: int,
    source_type: int,
    shape: Sequence[int],
    strides: Sequence[int],
    channel_map: tuple[
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.float32],
    ]
    | None,
    target: int,
    target_type: int,
    device: int,
    stream: int,
) -> None:
    """Pack an array, and map its values: (scale, offset, low, high, slack) by channel.

    Types: 0 uint8, 1 int8, 2 uint16, 3 int16, 4 uint32, 5 int32, 6 uint64, 7 int64, 8 float16,
    9 bfloat16, 10 float32, 11 float64.
    """

def upload(values: NDArray[Any], to: int, device: int, stream: int) -> None: ...
def download(source: int, values: NDArray[Any], device: int, stream: int) -> None:
    """Copy to a contiguous array, and wait for it."""

class UnrolledField:
    """A mean field that is differentiated, whose lattices have its points and tiles.

    ``kernels``: for each a lattice, its normalization and gain, whether its coupling is (C, C) or
    (C,), and where that is. ``(n_items, C, n_points)`` arrays are (address, strides).
    """

    def __init__(
        self,
        n_items: int,
        n_points: int,
        width: int,
        side: int,
        n_labels: int,
        kernels: Sequence[tuple[Lattice, int, float, bool, int]],
        device: int,
        stream: int,
        allocate: Callable[[int], tuple[int, object]] | None,
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def run(
        self,
        unary: tuple[int, int, int, int],
        is_energy: bool,
        iterations: int,
        differentiated: int,
        every: int,
        fixed_point: bool,
        tolerance: float,
        wants_logits: bool,
        out: tuple[int, int, int, int],
    ) -> None:
        """Go forth; nothing is written to address 0."""
    def unrolling(self) -> tuple[int, float]:
        """Steps done, and of a fixed point the last one's change; waits for one."""
    def back(
        self,
        gradient: tuple[int, int, int, int],
        out: tuple[int, int, int, int],
        features: Sequence[tuple[int, int, int] | None],
        couplings: Sequence[int],
        probes: Sequence[tuple[int, Lattice, float, int]],
        most_terms: int,
        tolerance: float,
    ) -> None:
        """Go back, as often as wanted.

        ``features``: for each kernel where they are, the form and where dLoss by them goes; or
        None. ``couplings``: where dLoss by each goes, float64. ``probes``: a kernel, the lattice
        that stands in for its own, its gain, and where <dLoss/dZ, M K~ Q> of all steps goes.
        """
    def series(self) -> tuple[int, bool]:
        """Terms added on the last way back from a fixed point, and whether they died away."""
