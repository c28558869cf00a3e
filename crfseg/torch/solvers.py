# SPDX-License-Identifier: MIT
"""infer: any solver of the dense CRF's energy, step by step over the differentiable filter.

With x marginals and P = -sum_k M_k K~_k all go down E(x) = -<logits, x> + 1/2 <x, P x> from
x = softmax(logits). What a step does is plain PyTorch, so autograd differentiates it; only mean
field without damping is an op of its own.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from crfseg import _check as check
from crfseg.solvers import FrankWolfe, MeanField, Solver, resolve

from . import _arguments as arguments
from . import _refusals as refusals
from ._batches import How
from ._messages import Messages
from ._model import Model, checked_how, checked_model
from ._values import look_at
from ._views import floats, width_of
from .functional import unrolled

_LEAST: Final = 1e-9  # added to marginals whose logarithm is taken, as Frank-Wolfe's authors do
State: TypeAlias = tuple[Tensor, ...]


def infer(
    logits: Tensor,
    features: Sequence[Tensor],
    couplings: Sequence[Tensor],
    iterations: int = 5,
    *,
    solver: Solver = "mean-field",
    sigmas: Sequence[Tensor] | None = None,
    groups: Sequence[Sequence[int]] | None = None,
    output: str = "logits",
    normalization: str = "symmetric",
    accuracy: str = "fast",
    last: int | None = None,
    recompute: bool = False,
    implicit: bool = False,
    tolerance: float = 1e-6,
    feature_gradient: str = "exact",
    sigma_step: float = 0.05,
) -> Tensor:
    """Inference with Gaussian kernels over any features, differentiable by every tensor.

    Args:
        logits: as for ``mean_field``, and so is what is not said here.
        features: as there.
        couplings: as there.
        iterations: steps of the solver.
        solver: ``MeanField``, ``FrankWolfe`` or "mean-field", "damped", "frank-wolfe",
            "euclidean-frank-wolfe". Line search is differentiated with its steps.
        sigmas: as there.
        groups: as there.
        output: "logits" or "marginals" x; logits of Frank-Wolfe are log(x + 1e-9).
        normalization: as there.
        accuracy: as there.
        last: as there.
        recompute: keep what each step begins with alone, and do it again on the way back.
        implicit: for mean field without damping alone.
        tolerance: see ``implicit``.
        feature_gradient: as there.
        sigma_step: as there, but for the time it takes: other solvers than mean field without
            damping filter for the quotients on the way forth.

    Raises:
        TypeError, ValueError: if an argument is not as described.
        NotImplementedError: for double backward and for ``torch.func`` transforms.
    """
    where = "infer"
    chosen = resolve(where, solver)
    model = checked_model(where, logits, features, couplings, sigmas, groups)
    how = checked_how(
        where,
        iterations,
        last,
        recompute,
        implicit,
        tolerance,
        output,
        normalization,
        accuracy,
        feature_gradient,
        sigma_step,
    )
    if chosen == MeanField():
        return unrolled(where, logits, model, how)
    if implicit:
        raise not_implicit(where, chosen)
    if how.last == 0 and how.iterations > 0:
        raise check.invalid(
            where, f"last is 0 but solver is {chosen}, whose every step counts; expected at least 1"
        )
    refusals.check_transforms(where, logits, *model.tensors)
    if arguments.has_values(logits) and len(logits):
        each = (model.sigmas, model.couplings)
        look_at(where, floats(logits), *([floats(one) for one in tensors] for tensors in each))
    return _solved(where, logits, model, how, chosen)


def not_implicit(where: str, solver: MeanField | FrankWolfe) -> ValueError:
    """A fixed point that nobody differentiates."""
    return check.invalid(
        where, f"implicit is True but solver is {solver}; expected solver='mean-field'"
    )


def _solved(
    where: str, logits: Tensor, model: Model, how: How, solver: MeanField | FrankWolfe
) -> Tensor:
    kind = "cpu" if logits.device.type == "meta" else logits.device.type
    # As ops under autocast: float64 stays.
    is_cast = torch.is_autocast_enabled(kind) and logits.dtype != torch.float64
    dtype = torch.float32 if is_cast else logits.dtype
    with torch.autocast(kind, enabled=False):
        given = logits.to(torch.float32).flatten(2).mT.contiguous()
        messages = Messages(where, model, how, width_of(logits))
        method = (
            _Damped(given, messages, solver)
            if isinstance(solver, MeanField)
            else _FrankWolfe(given, messages, solver, how.iterations)
        )
        state = _iterated(method, how)
        found = method.logits(*state) if how.output == "logits" else method.marginals(*state)
    return found.mT.reshape(logits.shape).to(dtype)


def _iterated(method: "_Damped | _FrankWolfe", how: How) -> State:
    """All steps, of which the last ones are differentiated."""
    n_constant = how.iterations - how.last
    if n_constant:
        with torch.no_grad():
            state = method.start()
            for k in range(n_constant):
                state = method.step(k, *state)
        state = method.resumed(*state)
    else:
        state = method.start()
    is_recomputed = how.recompute and torch.is_grad_enabled()
    for k in range(n_constant, how.iterations):
        if is_recomputed:
            state = checkpoint(
                method.step, k, *state, use_reentrant=False, preserve_rng_state=False
            )
        else:
            state = method.step(k, *state)
    return state


class _Damped:
    """z' = damping z + (1 - damping) (logits - P softmax(z)): Baqué et al., CVPR 2016."""

    def __init__(self, logits: Tensor, messages: Messages, solver: MeanField) -> None:
        self._logits, self._messages, self._damping = logits, messages, solver.damping

    def start(self) -> State:
        return (self._logits,)

    def resumed(self, z: Tensor) -> State:
        return (z,)

    def step(self, _: int, z: Tensor) -> State:
        return (self._messages(self._logits, z.softmax(2)).lerp(z, self._damping),)

    def logits(self, z: Tensor) -> Tensor:
        return z

    def marginals(self, z: Tensor) -> Tensor:
        return z.softmax(2)


class _FrankWolfe:
    """x' = x + step (s - x): Lê-Huu & Alahari, NeurIPS 2021.

    The state is x and its scores z = logits - P x, minus the gradient of the energy. Those of x'
    lie between those of x and of s as x' itself does, so that each s is filtered once and x never.
    """

    def __init__(
        self, logits: Tensor, messages: Messages, solver: FrankWolfe, iterations: int
    ) -> None:
        # What is the same for all labels of a point changes nothing but the rounding.
        self._logits = logits - logits.detach().amax(2, keepdim=True)
        self._messages, self._solver, self._iterations = messages, solver, iterations

    def start(self) -> State:
        x = self._logits.softmax(2)
        return x, self._messages(self._logits, x)

    def resumed(self, x: Tensor, _: Tensor) -> State:
        return x, self._messages(self._logits, x)

    def step(self, k: int, x: Tensor, z: Tensor) -> State:
        scores = z if self._solver.strength == 1 else z / self._solver.strength
        s = scores.softmax(2) if self._solver.regularizer == "entropy" else sparsemax(scores)
        if self._solver.step == "line-search":
            z_of_s = self._messages(self._logits, s)
            share = self._searched(x, z, s - x, z_of_s - z)
            return x.lerp(s, share), z.lerp(z_of_s, share)
        step = self._solver.step
        given = 2.0 / (k + 2.0) if isinstance(step, str) else step
        if k + 1 == self._iterations:
            return x.lerp(s, given), z
        return x.lerp(s, given), z.lerp(self._messages(self._logits, s), given)

    def _searched(self, x: Tensor, z: Tensor, r: Tensor, change: Tensor) -> Tensor:
        """(B, 1, 1) the share in [0, 1] of least E(x + share r), for each item.

        P r is minus the change of z. With P not symmetric the slope <U, r> + <x, P r + P^T r> / 2
        is -<r, logits + z> / 2 - <x, change> / 2.
        """
        slope = -(_inner(r, self._logits + z) + _inner(x, change)) / 2
        curvature = -_inner(r, change)
        is_convex = curvature > 0
        inside = (-slope / curvature.where(is_convex, 1.0)).clamp(0.0, 1.0)
        at_an_end = (slope + curvature / 2 <= 0).to(inside.dtype)
        return inside.where(is_convex, at_an_end).to(x.dtype)[:, None, None]

    def logits(self, x: Tensor, _: Tensor) -> Tensor:
        return (x + _LEAST).log()

    def marginals(self, x: Tensor, _: Tensor) -> Tensor:
        return x


def _inner(one: Tensor, other: Tensor) -> Tensor:
    """(B,) inner products; points are added up in float64, for there are many and most cancel."""
    return (one * other).sum(2).sum(1, dtype=torch.float64)


def sparsemax(scores: Tensor) -> Tensor:
    """The point of the simplex next to (..., C) scores (Martins & Astudillo, ICML 2016).

    Which labels keep some mass is found by sorting, without a gradient; given those the projection
    is affine, so that autograd has its Jacobian.
    """
    shifted = scores - scores.detach().amax(-1, keepdim=True)
    with torch.no_grad():
        # Nobody 1 or more below the highest keeps any; sums of huge numbers would overflow.
        ordered = shifted.clamp(min=-1.0).sort(-1, descending=True).values
        counts = torch.arange(1, scores.shape[-1] + 1, device=scores.device)
        sums = ordered.cumsum(-1) - 1
        n_kept = (ordered * counts > sums).sum(-1, keepdim=True)
        is_kept = shifted > sums.gather(-1, n_kept - 1) / n_kept
        n_kept = is_kept.sum(-1, keepdim=True)
    excess = (shifted.where(is_kept, 0.0).sum(-1, keepdim=True) - 1) / n_kept
    return (shifted - excess).relu()
