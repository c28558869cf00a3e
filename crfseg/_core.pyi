# SPDX-License-Identifier: MIT
"""The native core as Python sees it (csrc/bindings). Only ``crfseg._native`` imports it.

Arrays are float32 unless said otherwise. ``(C, N)`` arguments may be strided views of any layout;
what is written to (``out``) must be writeable. Arguments are trusted: ``crfseg`` checks them first.
The GIL is released; ``KeyboardInterrupt`` is honoured between iterations.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

NORMALIZATION_NONE: Final[int]
NORMALIZATION_BEFORE: Final[int]
NORMALIZATION_AFTER: Final[int]
NORMALIZATION_SYMMETRIC: Final[int]

UNARY_ENERGIES: Final[int]
UNARY_PROBABILITIES: Final[int]
UNARY_LOGITS: Final[int]
UNARY_FOREGROUND: Final[int]
FEATURES_NONE: Final[int]
FEATURES_EXACT: Final[int]
FEATURES_SMOOTH: Final[int]

STEPS_FIXED: Final[int]
STEPS_DIMINISHING: Final[int]
STEPS_LINE_SEARCH: Final[int]

class Error(RuntimeError): ...

class NonFiniteFeature(ValueError):
    """``args = (point, axis, value)`` of the first feature that is NaN or infinite."""

class KeyRange(ValueError):
    """``args = (axis, lo, hi)``: features along ``axis`` span more than exact keys can hold."""

class TooLarge(MemoryError):
    """``args = (bytes,)``: filling the lattice would hold more than ``max_bytes`` (0: no limit)."""

class Lattice:
    def __init__(
        self,
        features: NDArray[np.float32],
        fill: Sequence[int],
        passes: int,
        threads: int,
        max_bytes: int,
    ) -> None: ...
    @staticmethod
    def of_pixels(
        grid: Sequence[int],
        image: NDArray[Any] | None,
        inverse_sigmas: NDArray[np.float32],
        fill: Sequence[int],
        passes: int,
        threads: int,
        max_bytes: int,
    ) -> Lattice:
        """Features x, y (, z) and channels of a C-contiguous image, times inverse sigmas.

        ``grid``: (H, W), or (D, H, W) of a volume; the image is (*grid, K).
        """
    @property
    def n_points(self) -> int: ...
    @property
    def n_vertices(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def fill(self) -> list[int]: ...
    @property
    def passes(self) -> int: ...
    @property
    def gain(self) -> float:
        """What the plain blurred sums are multiplied by where nothing else normalises them."""
    @property
    def nbytes(self) -> int: ...
    def filter(
        self, values: NDArray[np.float32], normalization: int, transpose: bool, threads: int
    ) -> NDArray[np.float32]:
        """(N, C) C-contiguous in, (N, C) out: the Gaussian filter or its exact adjoint."""
    def normalizer(self, threads: int) -> NDArray[np.float32]:
        """(N,) filter of ones, K1."""
    def self_response(self, threads: int) -> NDArray[np.float32]:
        """(N,) diagonal of the unnormalised filter matrix."""

def lattice_gain(dim: int, fill: Sequence[int], passes: int) -> float:
    """``Lattice.gain`` of a lattice that need not be there."""

class Solver:
    """How marginals are updated; mean field is (damping, False, STEPS_FIXED, 1.0, 1.0)."""

    def __init__(
        self, damping: float, euclidean: bool, steps: int, step: float, strength: float
    ) -> None: ...

class MeanField:
    def __init__(self, n_points: int, n_labels: int) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def set_unary(
        self, values: NDArray[np.float32], kind: int, clip: float, threads: int
    ) -> tuple[int, float, int, float, int]:
        """Load (C, N) values.

        Returns ``(bad, low, low_at, off, off_at)``: flat index ``label * N + point`` of the first
        non-finite value or -1 (energies: +inf is allowed unless a point has nothing else);
        the lowest value and where; for probabilities the largest
        ``|sum over labels - 1|`` and the point it belongs to (otherwise 0.0 and -1).
        """
    def lend_unary(self, values: NDArray[np.float32], kind: int, clip: float) -> None:
        """As ``set_unary``, but the caller keeps the values until ``infer`` has read them.

        ``UNARY_FOREGROUND``: (1, N) probabilities of label 1 of two, which nobody reports on.
        """
    def set_coarse_unary(
        self,
        scores: NDArray[np.float32],
        columns: int,
        kind: int,
        clip: float,
        height: int,
        width: int,
        align_corners: bool,
        threads: int,
    ) -> tuple[int, float, int, float, int]:
        """Bilinearly upsample (C, rows * columns) scores to the image wherever they are used.

        Returns what ``set_unary`` would of the scores; ``kind`` is anything but energies.
        """
    def lend_labels(
        self, labels: NDArray[np.int32], given: float, other: float, unknown: float, forbidden: int
    ) -> None:
        """Take (N,) labels, which the caller keeps, for a unary.

        The energies are those of a point's own label and of others; any other number than 0 to
        C - 1 means no label, ``unknown`` the energy of each there; ``forbidden`` is none's, or -1.
        """
    def add_kernel(
        self,
        lattice: Lattice,
        normalization: int,
        weight: float,
        compatibility: NDArray[np.float32] | None,
        exclude_self: bool,
        threads: int,
    ) -> None:
        """``compatibility``: None is Potts [a != b], (C,) v is -diag(v), (C, C) is mu(a, b)."""
    def clear_kernels(self) -> None: ...
    def infer(
        self,
        start: NDArray[np.float32] | None,
        iterations: int,
        tolerance: float,
        solver: Solver,
        trace: bool,
        skip: bool,
        out: NDArray[np.float32] | None,
        labels: NDArray[np.int32] | None,
        after_reading: Callable[[tuple[int, float, int, float, int]], None] | None,
        between_iterations: Callable[[], None] | None,
        threads: int,
    ) -> tuple[int, float, list[float], int]:
        """Inference from softmax(-unary) (or ``start``) to Q in ``out``, MAP in ``labels`` (N,).

        Returns iterations done, the last max |dQ| (NaN when neither ``tolerance`` nor ``trace``
        asked for it), the free energies of Q_0 .. Q_T when ``trace``, and how many labels of
        points were evaluated. ``skip``: leave out labels that are known to have next to no mass.
        ``after_reading`` is told what ``set_unary`` would return for a lent unary, and may raise,
        as may ``between_iterations``.
        """
    def free_energy(self, q: NDArray[np.float32], threads: int) -> float: ...
    def expected_energy(self, q: NDArray[np.float32], threads: int) -> float: ...
    def energy(self, labels: NDArray[np.int32], threads: int) -> float: ...

class UnrolledField:
    """Mean field with Z = X + sum_k M_k K~_k Q whose steps are kept to be differentiated."""

    def __init__(
        self,
        n_points: int,
        n_labels: int,
        lattices: Sequence[Lattice],
        normalizations: Sequence[int],
        couplings: Sequence[NDArray[np.float32]],
        threads: int,
    ) -> None:
        """``couplings``: what filtered Q of b adds to the logit of a, (C,) diagonal or (C, C)."""
    @property
    def nbytes(self) -> int: ...
    def run(
        self,
        unary: NDArray[np.float32],
        is_energy: bool,
        iterations: int,
        differentiated: int,
        every: int,
        fixed_point: bool,
        tolerance: float,
        wants_logits: bool,
        out: NDArray[np.float32],
        threads: int,
    ) -> tuple[int, float]:
        """(C, N) logits or energies in, (C, N) ``out``: logits Z or marginals of the last step.

        Kept are the marginals of ``every`` so manieth of the last ``differentiated`` steps, or of
        the last alone where it is to be a fixed point. Returns iterations and the last max |dQ|.
        """
    def back(
        self,
        gradient: NDArray[np.float32],
        out: NDArray[np.float32],
        features: Sequence[NDArray[np.float32]],
        form: int,
        probe_kernels: Sequence[int],
        probe_lattices: Sequence[Lattice],
        most_terms: int,
        tolerance: float,
        threads: int,
    ) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float32]], list[float], int, bool]:
        """From dLoss by ``out`` of ``run`` to dLoss by the unary, written to ``out`` here.

        ``features``: (N, d) of each kernel, or (0, d) where no gradient is wanted (``form``:
        ``FEATURES_*``). A probe is another lattice in its kernel's place. Returns dLoss by
        couplings and by features, for each probe sum over steps of <dLoss/dZ, M K~ Q>, the terms
        of the series and whether it converged.
        """

def available_isas() -> list[str]: ...
def isa() -> str: ...
def set_isa(name: str) -> None:
    """For tests and benchmarks; same names as ``CRFSEG_ISA``."""

def set_cache_limit(n_bytes: int) -> None:
    """Keep up to so much memory that is given back, for later calls; 0, as at first, keeps none."""

def clear_cache() -> None: ...
def cached_bytes() -> int: ...
