# SPDX-License-Identifier: MIT
"""DenseCRF: a unary and pairwise terms, kept with their lattices for many inferences."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check as check
from . import _explain as explain
from . import _fault as fault
from . import _memory as memory
from ._containers import as_array, float32
from ._kernels import Kernels
from ._native import NORMALIZATIONS, core, threads_of_call
from .cache import follow_environment
from .compatibility import Compatibility
from .lattice import ACCURACIES
from .pairwise import Term, check_terms
from .solvers import Solver, native, resolve
from .unary import PROBABILITY_FLOOR, LabelRule, check_label_array, check_label_values

_WHERE = "DenseCRF"


class Inference(NamedTuple):
    """What ``DenseCRF.infer`` found."""

    q: NDArray[np.float32]
    """(C, *spatial) marginals; they sum to 1 over the labels."""
    iterations: int
    """Updates done."""
    max_change: float
    """Largest change of a marginal in the last update; NaN if nothing asked for it."""
    trace: NDArray[np.float64] | None
    """Mean-field free energy of Q_0, Q_1, ... where asked for."""
    converged: bool
    """Whether ``max_change`` fell below a positive tolerance."""
    evaluations: float
    """How many times a label of a point was evaluated, on average; see ``skip``."""

    @property
    def labels(self) -> NDArray[np.intp]:
        """(*spatial) most probable label of every point, the lowest one of several."""
        labels: NDArray[np.intp] = self.q.argmax(axis=0)
        return labels


class DenseCRF:
    """Fully connected CRF with Gaussian edge potentials.

    Gibbs energy of a labelling l (Krähenbühl & Koltun, NIPS 2011, eq. 1-3), every pair once:

        E(l) = sum_i U_i(l_i) + sum_{i<j} sum_k w_k K~_k(i, j) mu_k(l_i, l_j)

    Mean field (algorithm 1) starts from Q = softmax(-U) and repeats, for all points at once,

        Z = -U - sum_k w_k mu_k K~_k Q,   Q = softmax(Z);

    other solvers of the same energy are in ``MeanField`` and ``FrankWolfe``.

    Args:
        unary: (C, *spatial) energies of any float dtype and strides; +inf forbids a label.
        pairwise: list of ``Gaussian``, ``Bilateral`` (with an image) and ``Features`` terms.
        compatibility: mu of the terms that bring none: None or ``Potts``; a (C,) vector v,
            mu = -diag(v); or a (C, C) matrix mu(own label, other's label), which need not be
            symmetric. It multiplies the term's weight.
        normalization: of the kernels that bring none; with n = K 1: "symmetric" n^-1/2 K n^-1/2,
            "after" n^-1 K, "before" K n^-1, "none" K.
        accuracy: "fast", or "fine" for filters closer to the exact Gaussian at a higher cost.
        exclude_self: leave the term j = i out of the sums, as the paper writes them; False keeps
            it, as the code that the field uses does.
        threads: None for ``get_num_threads()`` at every call. Results do not depend on it.

    Raises:
        TypeError, ValueError: if an argument is not as described.
        MemoryError: if the model cannot fit into memory, before anything is touched.
    """

    def __init__(
        self,
        unary: Any,
        pairwise: Sequence[Term],
        *,
        compatibility: Compatibility = None,
        normalization: str = "symmetric",
        accuracy: str = "fast",
        exclude_self: bool = False,
        threads: int | None = None,
    ) -> None:
        follow_environment(_WHERE)
        array = _open_unary(unary)
        terms = check_terms(_WHERE, pairwise)
        check.choice(_WHERE, "normalization", normalization, tuple(NORMALIZATIONS))
        check.choice(_WHERE, "accuracy", accuracy, tuple(ACCURACIES))
        check.flag(_WHERE, "exclude_self", exclude_self)
        self._threads = None if threads is None else threads_of_call(_WHERE, threads)
        self._terms = tuple(type(term).__name__ for term in terms)
        self._n_labels = int(array.shape[0])
        self._grid: tuple[int, ...] = array.shape[1:]
        self._n_points = int(array.size) // self._n_labels
        kernels = Kernels(
            _WHERE,
            terms,
            self._grid,
            0,
            self._n_labels,
            compatibility=compatibility,
            normalization=normalization,
            accuracy=ACCURACIES[accuracy],
            exclude_self=exclude_self,
        )
        n_bytes = memory.mean_field_bytes(self._n_points, self._n_labels, kernels.dims)
        n_bytes += memory.unary_bytes(self._n_points, self._n_labels)
        memory.require(_WHERE, f"a unary of shape {array.shape}", n_bytes)
        with memory.explained(_WHERE, f"a unary of shape {array.shape}"):
            self._field = core.MeanField(self._n_points, self._n_labels)
            self._load(array)
        kernels.build(None, self._n_threads())
        kernels.connect(self._field, self._n_threads())

    def __repr__(self) -> str:
        points = " x ".join(str(n) for n in self._grid)
        terms = ", ".join(self._terms)
        return f"<DenseCRF: {self._n_labels} labels, {points} points, terms [{terms}]>"

    def _load(self, unary: NDArray[Any]) -> None:
        values = float32(unary).reshape(self._n_labels, -1)
        kind = core.UNARY_ENERGIES
        bad, *_ = self._field.set_unary(values, kind, PROBABILITY_FLOOR, self._n_threads())
        if bad >= 0:
            raise explain.energies(_WHERE, "unary", unary)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial), the shape of the unary and of Q."""
        return (self._n_labels, *self._grid)

    @property
    def n_labels(self) -> int:
        """C."""
        return self._n_labels

    @property
    def n_points(self) -> int:
        """N, the product of the spatial lengths."""
        return self._n_points

    def infer(
        self,
        iterations: int = 10,
        *,
        tolerance: float = 0.0,
        solver: Solver = "mean-field",
        start: Any = None,
        trace: bool = False,
        skip: bool = True,
    ) -> Inference:
        """Look for marginals of low energy, by mean field or another solver.

        Args:
            iterations: the most updates to do; 0 gives the start itself.
            tolerance: stop as soon as no marginal changes by this much; 0 never stops early.
            solver: ``MeanField`` (which may be damped), ``FrankWolfe``, or a name: "mean-field",
                "damped" (by 0.5), "frank-wolfe" or "euclidean-frank-wolfe".
            start: (C, *spatial) marginals to start from; None for softmax(-U).
            trace: whether to record the free energy of every step (one more filter per step).
            skip: leave labels out of all iterations but the last at points where, all together in
                their group of 16, they are known to have less than 1e-5 of the mass. False
                evaluates every label at every point every time; so do ``tolerance``, ``start``,
                ``trace``, ``exclude_self``, a matrix for compatibility, terms that repel, and
                every solver but plain mean field.

        Raises:
            TypeError, ValueError: if an argument is not as described.
        """
        where = "DenseCRF.infer"
        iterations = check.integer(where, "iterations", iterations)
        tolerance = check.non_negative(where, "tolerance", tolerance)
        update = native(resolve(where, solver))
        check.flag(where, "trace", trace)
        check.flag(where, "skip", skip)
        first = None if start is None else self._marginals(where, "start", start)
        with self._explained(where):
            q = np.empty(self.shape, np.float32)
            out, threads = self._flat(q), self._n_threads()
            done, change, energies, evaluations = self._field.infer(
                first,
                iterations,
                tolerance,
                update,
                trace,
                skip,
                out,
                None,
                None,
                None,
                threads,
            )
        recorded = np.array(energies) if trace else None
        converged = bool(change < tolerance)
        return Inference(q, done, change, recorded, converged, evaluations / q.size)

    def step(self, q: Any, *, solver: Solver = "mean-field") -> NDArray[np.float32]:
        """Do one update from (C, *spatial) marginals ``q`` and return the next ones.

        It is the first update of that ``solver``: where steps diminish, one of 1.

        Raises:
            TypeError, ValueError: as for ``infer``.
        """
        where = "DenseCRF.step"
        update = native(resolve(where, solver))
        first = self._marginals(where, "q", q)
        with self._explained(where):
            following = np.empty(self.shape, np.float32)
            out = self._flat(following)
            threads = self._n_threads()
            self._field.infer(first, 1, 0.0, update, False, False, out, None, None, None, threads)
        return following

    def free_energy(self, q: Any) -> float:
        """Mean-field free energy, which mean field lowers; log of the partition function left out.

        F(Q) = sum_il Q log Q + sum_il U Q + 1/2 sum_k w_k sum_i Q_i . mu_k (K~_k Q)_i

        Args:
            q: (C, *spatial) marginals.

        Raises:
            TypeError, ValueError: if ``q`` is something else.
        """
        where = "DenseCRF.free_energy"
        marginals = self._marginals(where, "q", q)
        with self._explained(where):
            return self._field.free_energy(marginals, self._n_threads())

    def expected_energy(self, q: Any) -> float:
        """Mean energy of labellings whose labels are drawn from ``q``, all independently.

        E(Q) = sum_il U Q + 1/2 sum_k w_k sum_i Q_i . mu_k (K~_k Q)_i, the free energy without its
        entropy, and the energy of a labelling where Q is certain. (But that j = i, unless
        ``exclude_self``, is drawn twice.)

        Args:
            q: (C, *spatial) marginals.

        Raises:
            TypeError, ValueError: if ``q`` is something else.
        """
        where = "DenseCRF.expected_energy"
        marginals = self._marginals(where, "q", q)
        with self._explained(where):
            return self._field.expected_energy(marginals, self._n_threads())

    def energy(self, labels: Any) -> float:
        """Gibbs energy of a labelling: with Potts compatibility, every unordered pair counts once.

        U(l) + 1/2 sum_k w_k sum_ij K~_k(i, j) mu_k(l_i, l_j), without j = i if ``exclude_self``.

        Args:
            labels: (*spatial) integers from 0 to C - 1.

        Raises:
            TypeError, ValueError: if ``labels`` is something else.
        """
        where = "DenseCRF.energy"
        array = as_array(where, "labels", labels)
        check_label_array(where, "labels", array)
        if array.shape != self._grid:
            raise fault.wrong_shape(where, "labels", array.shape, f"{self._grid}, like the unary")
        check_label_values(where, "labels", array, LabelRule(self._n_labels, 0.5, None))
        flat = np.ascontiguousarray(array.reshape(-1), np.int32)
        with self._explained(where):
            return self._field.energy(flat, self._n_threads())

    def _marginals(self, where: str, name: str, q: Any) -> NDArray[np.float32]:
        """(C, N) float32 view or copy of marginals of this model's shape."""
        array = as_array(where, name, q)
        if array.dtype.kind != "f":
            raise fault.wrong_dtype(where, name, array.dtype, "floats")
        if array.shape != self.shape:
            raise fault.wrong_shape(where, name, array.shape, f"{self.shape}, like the unary")
        values = self._flat(float32(array))
        total = values.sum(axis=0)
        is_good = values.min() >= 0 and np.abs(total - 1).max() <= explain.SUM_TOLERANCE
        if not is_good:  # NaN makes either comparison false
            wrong = explain.probabilities(where, name, array, guessed=False)
            if wrong is not None:
                raise wrong
        return values

    def _explained(self, where: str) -> AbstractContextManager[None]:
        return memory.explained(where, f"a model of shape {self.shape}")

    def _flat(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        return array.reshape(self._n_labels, self._n_points)

    def _n_threads(self) -> int:
        return threads_of_call(_WHERE, self._threads)


def _open_unary(unary: Any) -> NDArray[Any]:
    array = as_array(_WHERE, "unary", unary)
    if array.dtype.kind != "f":
        raise fault.wrong_dtype(_WHERE, "unary", array.dtype, "float energies")
    if array.ndim < 2:
        raise fault.wrong_shape(_WHERE, "unary", array.shape, "(C, *spatial), the label axis first")
    if array.shape[0] == 0:
        raise fault.no_labels(_WHERE, "unary", array.shape)
    if array.size == 0:
        raise fault.empty(_WHERE, "unary", array.shape)
    return array
