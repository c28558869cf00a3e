# SPDX-License-Identifier: MIT
"""Mean field that can be differentiated: run it forward onto a tape, go back along the tape.

T steps of Krähenbühl & Koltun's update (NIPS 2011, algorithm 1), from Q^0 = softmax(X), X the
unary's logits (minus its energies):

    Z^{t+1} = X - sum_k mu_k diag(w_k) K~_k Q^t,    Q^{t+1} = softmax(Z^{t+1})

With G = dLoss/dQ^T the way back (ICML 2013) is, for t = T - 1 .. 0,

    delta  = Q^{t+1} (G - <G, Q^{t+1}>)             dLoss/dX     += delta
    R_k    = K~_k^T delta                           dLoss/dmu_k  -= w_k(b) R_k(a) Q^t(b)
    G      = -sum_k R_k mu_k diag(w_k)              dLoss/dw_k(b) -= sum_a mu_k(a, b) R_k(a) Q^t(b)

and at last delta of Q^0 is added. K~^T blurs the axes of the lattice in reverse. Gradients of
features, and so of sigmas and images, come in two forms: see ``Tape.backward``.

Potts compatibility is taken as -1 where labels agree and 0 elsewhere. That changes no marginal, and
logits of a point by the same amount for all labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check as check
from . import _explain as explain
from . import _fault as fault
from . import _memory as memory
from ._containers import as_array, float32, is_flat
from ._coupled import Coupling, Kernel, KernelGradients
from ._native import NORMALIZATIONS, core, threads_of_call
from ._sigmas import Probes, by_chain_rule, checked_groups

__all__ = ["Gradients", "Kernel", "KernelGradients", "Tape", "fixed_point", "unroll"]

_FORMS: Final = {
    None: core.FEATURES_NONE,
    "exact": core.FEATURES_EXACT,
    "smooth": core.FEATURES_SMOOTH,
}
_RECOMPUTED: Final = 3  # steps between marginals that are kept where most are found again


class Gradients(NamedTuple):
    """What ``Tape.backward`` returns.

    Attributes:
        unary: (C, *spatial), dLoss by the unary; energies have the opposite sign of logits.
        kernels: a ``KernelGradients`` for each kernel.
        terms: terms of the series that were added, at a fixed point; 0 otherwise.
        converged: False where a fixed point was not reached, or its series did not die away: what
            is here is then no gradient.
    """

    unary: NDArray[np.float32]
    kernels: tuple[KernelGradients, ...]
    terms: int
    converged: bool


def unroll(
    unary: Any,
    kernels: Sequence[Kernel],
    iterations: int = 5,
    *,
    kind: str = "logits",
    output: str = "logits",
    last: int | None = None,
    recompute: bool = False,
    threads: int | None = None,
) -> "Tape":
    """Run mean field and remember what differentiating it takes.

    Args:
        unary: (C, *spatial) finite floats of any strides; float32 is read where it lies.
        kernels: a list of ``Kernel`` over the same points; an empty one leaves the unary alone.
        iterations: steps T.
        kind: what the unary holds, "logits" or "energies".
        output: "logits" Z^T or "marginals" Q^T.
        last: differentiate through so many last steps alone (truncated backpropagation); those
            before count as constant, and only the others are remembered. None: all of them.
        recompute: keep the marginals of every third step and find the others again on the way back:
            a third of the memory, and about as much time again as the forward run took.
        threads: None for ``get_num_threads()``. Results do not depend on it.

    Raises:
        TypeError, ValueError: if an argument is not as described.
    """
    where = "unroll"
    iterations = check.integer(where, "iterations", iterations)
    steps = iterations if last is None else check.integer(where, "last", last, at_most=iterations)
    check.flag(where, "recompute", recompute)
    plan = Plan.of_steps(iterations, steps, recompute=recompute)
    return Tape(where, unary, kernels, plan, kind, output, threads)


def fixed_point(
    unary: Any,
    kernels: Sequence[Kernel],
    iterations: int = 100,
    *,
    tolerance: float = 1e-6,
    kind: str = "logits",
    output: str = "logits",
    threads: int | None = None,
) -> "Tape":
    """Run mean field until it stands still, to be differentiated implicitly.

    At Q = softmax(X - sum_k mu_k diag(w_k) K~_k Q) the gradient is a series of steps back from that
    one Q: memory does not grow with the iterations. It holds only where the marginals have come to
    rest: look at ``Tape.converged``, and at ``Gradients.converged``, which speaks of both.

    Args:
        unary: as for ``unroll``.
        kernels: as for ``unroll``.
        iterations: the most steps to do.
        tolerance: stop as soon as no marginal changes by this much.
        kind: as for ``unroll``.
        output: as for ``unroll``.
        threads: as for ``unroll``.

    Raises:
        TypeError, ValueError: if an argument is not as described.
    """
    where = "fixed_point"
    iterations = check.integer(where, "iterations", iterations, at_least=1)
    tolerance = check.non_negative(where, "tolerance", tolerance)
    plan = Plan.to_rest(iterations, tolerance)
    return Tape(where, unary, kernels, plan, kind, output, threads)


@dataclass(frozen=True)
class Plan:
    """What ``unroll`` and ``fixed_point`` ask of a tape, in one form."""

    iterations: int
    differentiated: int
    every: int
    is_fixed: bool
    tolerance: float

    @staticmethod
    def of_steps(iterations: int, differentiated: int, *, recompute: bool) -> "Plan":
        """Remember the last steps, or every so manieth of them."""
        every = _RECOMPUTED if recompute else 1
        return Plan(iterations, differentiated, every, is_fixed=False, tolerance=0.0)

    @staticmethod
    def to_rest(iterations: int, tolerance: float) -> "Plan":
        """Remember where it comes to rest."""
        return Plan(iterations, iterations, 1, is_fixed=True, tolerance=tolerance)

    def rows_kept(self, n_points: int, n_vertices: int) -> int:
        """How many rows of labels there are at once: marginals and unary, sums and messages."""
        if self.is_fixed:
            return 2 * (n_points + n_vertices)
        n_sums = self.differentiated if self.every == 1 else min(self.differentiated, 2)
        n_marginals = self.differentiated // self.every + 2
        return n_marginals * n_points + (n_sums + 1) * n_vertices


class Tape:
    """A mean field that has run; made by ``unroll`` and ``fixed_point``.

    Attributes:
        output: (C, *spatial) logits Z^T or marginals Q^T.
        iterations: steps done.
        max_change: of a marginal in the last step of ``fixed_point``; NaN after ``unroll``.
        converged: whether ``fixed_point`` came to rest; True after ``unroll``.
    """

    output: NDArray[np.float32]
    iterations: int
    max_change: float
    converged: bool

    def __init__(
        self,
        where: str,
        unary: Any,
        kernels: Sequence[Kernel],
        plan: Plan,
        kind: str,
        output: str,
        threads: int | None,
        *,
        name: str = "unary",
        out: NDArray[np.float32] | None = None,
    ) -> None:
        values = _open_unary(where, name, unary)
        check.choice(where, "kind", kind, ("logits", "energies"))
        check.choice(where, "output", output, ("logits", "marginals"))
        self._threads = threads_of_call(where, threads)
        self._n_labels, self._n_points = values.shape[0], values[0].size
        self._kernels = _check_kernels(where, kernels, self._n_points)
        self._couplings = [
            Coupling(where, f"kernels[{k}]", kernel, self._n_labels)
            for k, kernel in enumerate(self._kernels)
        ]
        self._what = f"a mean field of shape {values.shape}"
        n_vertices = sum(kernel.lattice.n_vertices for kernel in self._kernels)
        n_rows = plan.rows_kept(self._n_points, n_vertices)
        memory.require(where, self._what, memory.unary_bytes(n_rows, self._n_labels))
        with memory.explained(where, self._what):
            self._field = core.UnrolledField(
                self._n_points,
                self._n_labels,
                [kernel.lattice for kernel in self._kernels],
                [NORMALIZATIONS[kernel.normalization] for kernel in self._kernels],
                [coupling.values for coupling in self._couplings],
                self._threads,
            )
            self.output = np.empty(values.shape, np.float32) if out is None else out
            self.iterations, self.max_change = self._field.run(
                self._flat(values),
                kind == "energies",
                plan.iterations,
                plan.differentiated,
                plan.every,
                plan.is_fixed,
                plan.tolerance,
                output == "logits",
                self._flat(self.output),
                self._threads,
            )
        self.converged = not plan.is_fixed or self.max_change < plan.tolerance

    def __repr__(self) -> str:
        return f"<Tape: {self.iterations} iterations, output {self.output.shape}>"

    @property
    def nbytes(self) -> int:
        """Bytes that are kept for the way back, the output and the lattices aside."""
        return self._field.nbytes

    def backward(
        self,
        gradient: Any,
        *,
        features: str | None = None,
        feature_kernels: Sequence[int] | None = None,
        sigmas: Sequence[Sequence[Sequence[int]]] | None = None,
        step: float | None = None,
        most_terms: int = 200,
        tolerance: float = 1e-6,
        threads: int | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> Gradients:
        """Go back along the tape, as often as wanted.

        Args:
            gradient: dLoss by ``output``, of its shape. What is not finite passes through.
            features: None, or how the kernels' features get a gradient. "exact" differentiates the
                lattice, whose weights within a simplex are linear in the features: it agrees with
                difference quotients, but jumps from simplex to simplex. "smooth" differentiates the
                Gaussian that the lattice stands for, filtered by the lattice: nearer to the
                gradient of the exact model, at 2 (d + 1) filters per kernel and step.
            feature_kernels: the indices of the kernels whose features those are; None: all.
            sigmas: for each kernel a list of groups of features that share a sigma; features are
                coordinates over sigma. ``[[[0, 1]], [[0, 1], [2, 3, 4]]]`` is a spatial kernel and
                a bilateral one over x, y and colours. Gradients by the logarithms of the sigmas
                come from those of the features, or else as ``step`` says.
            step: take central difference quotients over lattices whose sigmas are larger and
                smaller by this share (0.05 is a good one): two lattices per group and a filter of
                each per step. None: by the chain rule, ``features`` being asked for.
            most_terms: of the series at a fixed point.
            tolerance: at a fixed point, stop once the largest entry of a term is below so much of
                that of the first.
            threads: None for as many as on the way forth.
            out: float32 array for dLoss by the unary, of its shape, no crop; None: a new one.

        Raises:
            TypeError, ValueError: if an argument is not as described.
        """
        where = "Tape.backward"
        upstream = self._upstream(where, gradient)
        unary = self._target(where, out)
        check.choice(where, "features", features, tuple(_FORMS))
        moving = self._moving(where, features, feature_kernels)
        groups = checked_groups(where, sigmas, self._kernels)
        share = None if step is None else check.between(where, "step", step, zero=False)
        most_terms = check.integer(where, "most_terms", most_terms, at_least=1)
        tolerance = check.positive(where, "tolerance", tolerance)
        n_threads = self._threads if threads is None else threads_of_call(where, threads)
        if groups is not None and features is None and share is None:
            raise check.invalid(
                where, "sigmas are asked for with neither features nor step; expected one of them"
            )
        with memory.explained(where, self._what):
            probes = Probes(where, self._kernels, groups, share, n_threads)
            couplings, moved, products, terms, converged = self._field.back(
                self._flat(upstream),
                self._flat(unary),
                [
                    kernel.features[: None if k in moving else 0]
                    for k, kernel in enumerate(self._kernels)
                ],
                _FORMS[features],
                probes.kernels,
                probes.lattices,
                most_terms,
                tolerance,
                n_threads,
            )
        found = []
        for k, coupling in enumerate(self._couplings):
            of_features = moved[k] if k in moving else None
            of_sigmas = None
            if groups is not None and share is not None:
                of_sigmas = probes.quotients(k, products)
            elif groups is not None and of_features is not None:
                of_sigmas = by_chain_rule(self._kernels[k].features, of_features, groups[k])
            found.append(KernelGradients(*coupling.pull(couplings[k]), of_features, of_sigmas))
        return Gradients(unary, tuple(found), terms, converged and self.converged)

    def _upstream(self, where: str, gradient: Any) -> NDArray[np.float32]:
        given = as_array(where, "gradient", gradient)
        if given.dtype.kind != "f":
            raise fault.wrong_dtype(where, "gradient", given.dtype, "floats")
        if given.shape != self.output.shape:
            expected = f"{self.output.shape}, that of the output"
            raise fault.wrong_shape(where, "gradient", given.shape, expected)
        return float32(given)

    def _target(self, where: str, out: Any) -> NDArray[np.float32]:
        if out is None:
            return np.empty(self.output.shape, np.float32)
        if not isinstance(out, np.ndarray):
            raise check.mistyped(where, f"out is {check.show(out)}; expected a numpy array")
        if out.shape != self.output.shape:
            expected = f"{self.output.shape}, that of the unary"
            raise fault.wrong_shape(where, "out", out.shape, expected)
        if float32(out) is not out:
            raise fault.wrong_dtype(where, "out", out.dtype, "aligned float32")
        if not out.flags.writeable or not is_flat(out):
            raise check.invalid(
                where, "out is read-only or a crop; expected a writeable array in one piece"
            )
        return out

    def _moving(self, where: str, features: str | None, chosen: Sequence[int] | None) -> set[int]:
        """The kernels whose features get a gradient."""
        n = len(self._kernels)
        indices = range(n) if chosen is None else chosen
        if not isinstance(indices, range | list | tuple):
            raise check.mistyped(
                where, f"feature_kernels is {check.show(chosen)}; expected a list of indices"
            )
        kernels = {check.integer(where, "feature_kernels", k, at_most=n - 1) for k in indices}
        return kernels if features is not None else set()

    def _flat(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        return array.reshape(self._n_labels, self._n_points)


def _open_unary(where: str, name: str, unary: Any) -> NDArray[np.float32]:
    array = as_array(where, name, unary)
    if array.dtype.kind != "f":
        raise fault.wrong_dtype(where, name, array.dtype, "floats")
    if array.ndim < 2:
        raise fault.wrong_shape(where, name, array.shape, "(C, *spatial), the label axis first")
    if array.size == 0:
        raise fault.empty(where, name, array.shape)
    values = float32(array)
    # One pass, no temporary: NaN and infinity survive a sum. So may an overflow: look again.
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum()
    if not np.isfinite(total) and not np.isfinite(values).all():
        raise explain.non_finite(where, name, array)
    return values


def _check_kernels(where: str, kernels: Any, n_points: int) -> list[Kernel]:
    if not isinstance(kernels, list | tuple):
        raise check.mistyped(
            where, f"kernels is {check.show(kernels)}; expected a list of crfseg.gradients.Kernel"
        )
    for k, kernel in enumerate(kernels):
        if not isinstance(kernel, Kernel):
            raise check.mistyped(
                where, f"kernels[{k}] is {check.show(kernel)}; expected a crfseg.gradients.Kernel"
            )
        if len(kernel.features) != n_points:
            name = f"kernels[{k}] features"
            expected = f"({n_points}, d), one row per point of the unary"
            raise fault.wrong_shape(where, name, kernel.features.shape, expected)
    return list(kernels)
