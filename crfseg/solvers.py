# SPDX-License-Identifier: MIT
"""Solvers: how inference goes down the energy of a dense CRF.

All look for marginals x of low energy E(x) = <U, x> + 1/2 <x, P x>, P = sum_k w_k mu_k K~_k, and
begin with x = softmax(-U).
"""

from dataclasses import dataclass
from typing import TypeAlias

from . import _check as check
from . import _fault as fault
from ._native import core


@dataclass(frozen=True)
class MeanField:
    """Mean field: x = softmax(z), z = -U - P x, damped in log space (Baqué et al., CVPR 2016).

    Args:
        damping: 0 <= damping < 1; z' = damping z + (1 - damping) (-U - P x). It calms updates that
            oscillate, as those of labels that repel do.

    Raises:
        TypeError, ValueError: if ``damping`` is not such a number.
    """

    damping: float = 0.0

    def __post_init__(self) -> None:
        damping = check.between("MeanField", "damping", self.damping, zero=True)
        object.__setattr__(self, "damping", damping)


@dataclass(frozen=True)
class FrankWolfe:
    """Regularised Frank-Wolfe (Lê-Huu & Alahari, NeurIPS 2021): x += step (s - x).

    Here s minimises <U + P x, s> + strength r(s), which are softmax and the projection on the
    simplex (sparsemax) of -(U + P x) / strength. Entropy with a step and a strength of 1 is mean
    field.

    Args:
        regularizer: r, "entropy" (sum s log s) or "euclidean" (|s|^2 / 2; improbable labels come
            out as exact zeros).
        step: above 0 and at most 1; "diminishing", 2 / (k + 2) in iteration k = 0, 1, ...; or
            "line-search", the step of least E. That one alone suits every model: it is whole steps
            where labels attract and settles where they repel. It takes twice the time of the others
            and keeps three more numbers per label and point: where labels attract, 1.0 is faster.
        strength: of the regulariser, above 0; the higher, the softer s.

    Raises:
        TypeError, ValueError: if an argument is something else.
    """

    regularizer: str = "entropy"
    step: float | str = "line-search"
    strength: float = 1.0

    def __post_init__(self) -> None:
        where = type(self).__name__
        check.choice(where, "regularizer", self.regularizer, REGULARIZERS)
        object.__setattr__(self, "step", check.step(where, "step", self.step, STEPS))
        object.__setattr__(self, "strength", check.positive(where, "strength", self.strength))


REGULARIZERS = ("entropy", "euclidean")
STEPS = ("diminishing", "line-search")

Solver: TypeAlias = MeanField | FrankWolfe | str
"""``MeanField``, ``FrankWolfe``, or one of the names in ``SOLVERS``."""

SOLVERS: dict[str, MeanField | FrankWolfe] = {
    "mean-field": MeanField(),
    "damped": MeanField(damping=0.5),
    "frank-wolfe": FrankWolfe(),
    "euclidean-frank-wolfe": FrankWolfe("euclidean"),
}


def resolve(where: str, solver: Solver) -> MeanField | FrankWolfe:
    """The solver that is meant.

    Args:
        where: the public name that errors speak for.
        solver: one of the classes above or a name.

    Raises:
        TypeError, ValueError: if it is something else.
    """
    if isinstance(solver, MeanField | FrankWolfe):
        return solver
    if not isinstance(solver, str):
        raise fault.wrong_solver(where, solver, tuple(SOLVERS))
    name: str = check.choice(where, "solver", solver, tuple(SOLVERS))
    return SOLVERS[name]


def native(solver: MeanField | FrankWolfe) -> core.Solver:
    """The form that the native core takes."""
    if isinstance(solver, MeanField):
        return core.Solver(solver.damping, False, core.STEPS_FIXED, 1.0, 1.0)
    rule, step = core.STEPS_FIXED, solver.step
    if isinstance(step, str):
        rule, step = _RULES[step], 1.0
    return core.Solver(0.0, solver.regularizer == "euclidean", rule, step, solver.strength)


def rows_kept(solver: MeanField | FrankWolfe) -> int:
    """How many numbers of its own an inference keeps for every label of every point."""
    if solver == MeanField():
        return 0  # it leaves the unary where it is
    return 5 if isinstance(solver, FrankWolfe) and solver.step == "line-search" else 2


_RULES = dict(zip(STEPS, (core.STEPS_DIMINISHING, core.STEPS_LINE_SEARCH), strict=True))
