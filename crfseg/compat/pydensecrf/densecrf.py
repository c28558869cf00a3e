# SPDX-License-Identifier: MIT
"""pydensecrf.densecrf: ``DenseCRF`` over features, ``DenseCRF2D`` over images.

    Q <- softmax(-U - sum_k mu_k K~_k Q),    mu = -w, diag(v) or (A + A^T) / 2

A number w for ``compat`` rewards agreement, a vector v or a matrix A is a cost. The sums include
the point itself. ``kernel`` says what learning in C++ may change, none of which could be reached
from Python: it is checked, and inference does not depend on it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg import _check as check
from crfseg import _explain as explain
from crfseg import _fault as fault
from crfseg import _memory as memory
from crfseg._containers import as_array, float32
from crfseg._native import core, get_num_threads
from crfseg.cache import follow_environment
from crfseg.solvers import MeanField, native
from crfseg.unary import PROBABILITY_FLOOR

from ._arrays import own_matrix
from ._kinds import (
    CONST_KERNEL,
    DIAG_KERNEL,
    FULL_KERNEL,
    NO_NORMALIZATION,
    NORMALIZE_AFTER,
    NORMALIZE_BEFORE,
    NORMALIZE_SYMMETRIC,
    KernelType,
    NormalizationType,
)
from ._terms import (
    Compat,
    Term,
    lattice_of_grid,
    lattice_of_image,
    lattice_of_points,
    read_compat,
    term_of,
)
from ._unary import ConstUnary, LogisticUnary, Unary, product
from .eigen import MatrixXf

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "KernelType",
    "LogisticUnary",
    "NormalizationType",
    "Unary",
]

_MEAN_FIELD = native(MeanField())

_LEAST = 1e-20  # what klDivergence takes the logarithm of
_ANY = -(2**63)  # any number of iterations below 1 means none


class DenseCRF:
    """A fully connected CRF of ``nvar`` points.

    Args:
        nvar: N, the number of points.
        nlabels: L, the number of labels.
        _, __: what subclasses get besides, which is ignored.

    Raises:
        TypeError, ValueError: if one of them is no such number.
        MemoryError: if the model cannot fit into memory, before anything is touched.
    """

    def __init__(self, nvar: int, nlabels: int, *_: Any, **__: Any) -> None:
        where = "DenseCRF"
        n_points = check.integer(where, "nvar", nvar, at_least=1, at_most=2**63 - 1)
        self._set_up(where, n_points, nlabels)

    def _set_up(self, where: str, n_points: int, nlabels: Any) -> None:
        follow_environment(where)
        most = fault.MOST_LABELS
        self._n_labels = check.integer(where, "nlabels", nlabels, at_least=1, at_most=most)
        self._n_points = n_points
        what = f"a model of {n_points} points and {self._n_labels} labels"
        n_bytes = memory.mean_field_bytes(n_points, self._n_labels, [])
        memory.require(where, what, n_bytes + memory.unary_bytes(n_points, self._n_labels))
        with memory.explained(where, what):
            self._field = core.MeanField(n_points, self._n_labels)
        self._where = where
        self._terms: list[Term] = []
        self._take(None)

    def setUnary(self, u: Any) -> None:
        """Take the energies of a ``Unary``, which may be used again.

        Raises:
            TypeError, ValueError: if it is none, or of another shape.
        """
        where = f"{self._where}.setUnary"
        if not isinstance(u, Unary):
            expected = "expected a ConstUnary or LogisticUnary"
            raise check.mistyped(where, f"u is {check.show(u)} ({type(u).__name__}); {expected}")
        self._take(None if u.energies is None else self._fitting(where, "u", u.energies))

    def setUnaryEnergy(self, u: Any, f: Any = None) -> None:
        """Copy energies, -log p.

        Args:
            u: (L, N) numbers of any strides; with ``f`` (L, D) weights.
            f: (D, N) features, the energies being u f; or None.

        Raises:
            TypeError, ValueError: if they are something else. NaN is found by the inference.
        """
        where = f"{self._where}.setUnaryEnergy"
        energies = own_matrix(where, "u", u) if f is None else product(where, "u", u, f)
        self._take(self._fitting(where, "u" if f is None else "u f", energies))

    def _fitting(self, where: str, name: str, energies: NDArray[Any]) -> NDArray[np.float32]:
        shape = (self._n_labels, self._n_points)
        if energies.shape != shape:
            raise fault.wrong_shape(where, name, energies.shape, f"{shape}, (nlabels, points)")
        return energies

    def _take(self, energies: NDArray[np.float32] | None) -> None:
        self._energies = energies
        self._lend()

    def _lend(self) -> None:
        """The core reads energies where they are; none are one 0 for all."""
        shape = (self._n_labels, self._n_points)
        self._lent = self._energies
        if self._lent is None:
            self._lent = np.broadcast_to(np.float32(0), shape)
        self._field.lend_unary(self._lent, core.UNARY_ENERGIES, PROBABILITY_FLOOR)

    def addPairwiseEnergy(
        self,
        features: Any,
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a Gaussian kernel over features of any kind.

        Args:
            features: (D, N) numbers, divided by their standard deviations, D up to 16.
            compat: a number (Potts), or float32 of shape (L,) or (L, L).
            kernel: one of ``KernelType``, which changes nothing.
            normalization: one of ``NormalizationType``.

        Raises:
            TypeError, ValueError: if an argument is not as described.
            MemoryError: if the lattice does not fit.
        """
        where = f"{self._where}.addPairwiseEnergy"
        chosen = self._options(where, compat, kernel, normalization)
        lattice = lattice_of_points(where, features, self._n_points, get_num_threads())
        self._add(where, term_of(lattice, *chosen))

    def _options(
        self, where: str, compat: Any, kernel: Any, normalization: Any
    ) -> tuple[Compat, int]:
        last = len(KernelType) - 1
        check.integer(where, "kernel", kernel, at_most=last)
        last = len(NormalizationType) - 1
        number = check.integer(where, "normalization", normalization, at_most=last)
        return read_compat(where, compat, self._n_labels), number

    def _add(self, where: str, term: Term) -> None:
        term.connect(where, self._field, self._n_labels, get_num_threads())
        self._terms.append(term)

    def inference(self, niter: int) -> MatrixXf:
        """Q (L, N) after ``niter`` updates from softmax(-U); without any for 0 or less.

        Raises:
            TypeError, ValueError: if ``niter`` is no integer, or the energies hold NaN.
        """
        return self._run(f"{self._where}.inference", niter)

    def map(self, niter: int) -> NDArray[np.int32]:
        """(N,) most probable labels after ``niter`` updates, the lowest one of several.

        Raises:
            TypeError, ValueError: as for ``inference``.
        """
        where = f"{self._where}.map"
        labels = np.empty(self._n_points, np.int32)
        self._infer(where, None, niter, None, labels)
        return labels

    def startInference(self) -> tuple[MatrixXf, MatrixXf, MatrixXf]:
        """Q (L, N) to step on from, zeros where no unary is set, and two matrices that stay empty.

        Raises:
            ValueError: if the energies hold NaN.
        """
        if self._energies is None:
            q = np.zeros((self._n_labels, self._n_points), np.float32).view(MatrixXf)
        else:
            q = self._run(f"{self._where}.startInference", 0)
        return q, MatrixXf(), MatrixXf()

    def stepInference(self, Q: Any, tmp1: Any = None, tmp2: Any = None) -> None:  # noqa: ARG002
        """Replace Q (L, N) by the next one, in place.

        Args:
            Q: float32, what ``startInference`` gave, or any other that can be written to.
            tmp1: not looked at; nor is ``tmp2``.
            tmp2: see ``tmp1``.

        Raises:
            TypeError, ValueError: if ``Q`` is something else.
        """
        where = f"{self._where}.stepInference"
        if not isinstance(Q, np.ndarray) or Q.dtype != np.float32 or not Q.flags.writeable:
            expected = "expected the float32 matrix of startInference, to be written to"
            raise check.mistyped(where, f"Q is {check.show(Q)} ({type(Q).__name__}); {expected}")
        before = self._marginals(where, Q)
        self._infer(where, before, 1, before, None)
        if not np.shares_memory(before, Q):
            Q[...] = before

    def klDivergence(self, Q: Any) -> float:
        """What inference lowers, as pydensecrf counts it.

            sum Q log Q + sum U Q + sum_k sum_i Q_i . mu_k (K~_k Q)_i

        Pairs count twice, each point with itself as well, and log Z is left out: Potts terms make
        it negative. ``crfseg.DenseCRF.free_energy`` counts every pair once.

        Raises:
            TypeError, ValueError: if ``Q`` is not (L, N) numbers.
        """
        where = f"{self._where}.klDivergence"
        q = self._marginals(where, as_array(where, "Q", Q))
        total = float(np.sum(q * np.log(np.maximum(q, np.float32(_LEAST))), dtype=np.float64))
        if self._energies is not None:
            own = np.multiply(self._energies, q, out=np.zeros_like(q), where=q != 0)
            total += float(np.sum(own, dtype=np.float64))
        rows = np.ascontiguousarray(q.T)
        with memory.explained(where, f"Q of shape {q.shape}"):
            return total + sum(term.energy(rows, get_num_threads()) for term in self._terms)

    def _marginals(self, where: str, q: NDArray[Any]) -> NDArray[np.float32]:
        if q.dtype.kind != "f":
            raise fault.wrong_dtype(where, "Q", q.dtype, "float32")
        return np.asarray(float32(self._fitting(where, "Q", q)))

    def _run(self, where: str, niter: int) -> MatrixXf:
        with memory.explained(where, f"{self._n_labels} labels of {self._n_points} points"):
            q = np.empty((self._n_labels, self._n_points), np.float32)
        self._infer(where, None, niter, q, None)
        return q.view(MatrixXf)

    def _infer(
        self,
        where: str,
        start: NDArray[np.float32] | None,
        niter: int,
        out: NDArray[np.float32] | None,
        labels: NDArray[np.int32] | None,
    ) -> None:
        n = max(check.integer(where, "niter", niter, at_least=_ANY), 0)
        threads = get_num_threads()
        try:
            with memory.explained(where, f"{self._n_labels} labels of {self._n_points} points"):
                self._field.infer(
                    *(start, n, 0.0, _MEAN_FIELD, False, True),
                    *(out, labels, self._judge, None, threads),
                )
        except ValueError:
            self._lend()  # what was made of refused energies is not for the next call
            raise

    def _judge(self, report: tuple[int, float, int, float, int]) -> None:
        if report[0] >= 0 and self._energies is not None:
            where = f"{self._where}.setUnaryEnergy"
            raise explain.energies(where, "u", self._energies)


class DenseCRF2D(DenseCRF):
    """One of the pixels of an image, row by row: point y w + x.

    Args:
        w: width, first.
        h: height.
        nlabels: L, the number of labels.
        _, __: what subclasses get besides, which is ignored.

    Raises:
        TypeError, ValueError: if one of them is no such number.
        MemoryError: if the model cannot fit into memory, before anything is touched.
    """

    def __init__(self, w: int, h: int, nlabels: int, *_: Any, **__: Any) -> None:
        where = "DenseCRF2D"
        width = check.integer(where, "w", w, at_least=1)
        self._size = (check.integer(where, "h", h, at_least=1), width)
        self._set_up(where, width * self._size[0], nlabels)

    def addPairwiseGaussian(
        self,
        sxy: Any,
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel over positions.

        Args:
            sxy: standard deviation in pixels, one number or (sx, sy); infinity leaves one out.
            compat: as for ``addPairwiseEnergy``, as are ``kernel`` and ``normalization``.
            kernel: see ``compat``.
            normalization: see ``compat``.

        Raises:
            TypeError, ValueError: if an argument is not as described.
            MemoryError: if the lattice does not fit.
        """
        where = f"{self._where}.addPairwiseGaussian"
        chosen = self._options(where, compat, kernel, normalization)
        lattice = lattice_of_grid(where, self._size, sxy, get_num_threads())
        self._add(where, term_of(lattice, *chosen))

    def addPairwiseBilateral(
        self,
        sxy: Any,
        srgb: Any,
        rgbim: Any,
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel over positions and colours.

        Args:
            sxy: as for ``addPairwiseGaussian``.
            srgb: standard deviation in levels of 0..255, one number or one per channel.
            rgbim: (H, W, 3) image of any strides, uint8 or other numbers from 0 to 255.
            compat: as for ``addPairwiseEnergy``, as are ``kernel`` and ``normalization``.
            kernel: see ``compat``.
            normalization: see ``compat``.

        Raises:
            TypeError, ValueError: if an argument is not as described.
            MemoryError: if the lattice does not fit.
        """
        where = f"{self._where}.addPairwiseBilateral"
        chosen = self._options(where, compat, kernel, normalization)
        lattice = lattice_of_image(where, self._size, sxy, srgb, rgbim, get_num_threads())
        self._add(where, term_of(lattice, *chosen))
