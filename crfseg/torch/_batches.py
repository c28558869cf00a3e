# SPDX-License-Identifier: MIT
"""Mean field over a batch of arrays, forth and back: what the CPU kernels of the ops do."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crfseg import _check as check
from crfseg import _explain as explain
from crfseg import _fault as fault
from crfseg._containers import is_flat
from crfseg._coupled import Kernel
from crfseg._crew import n_side_by_side, share_out
from crfseg._native import get_num_threads
from crfseg.gradients import Gradients, KernelGradients, Plan, Tape

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class How(NamedTuple):
    """What a mean field is told by other things than tensors."""

    iterations: int
    last: int
    recompute: bool
    implicit: bool
    tolerance: float
    output: str
    normalization: str
    accuracy: str
    feature_gradient: str
    sigma_step: float

    @property
    def plan(self) -> Plan:
        """How much of it is remembered."""
        if self.implicit:
            return Plan.to_rest(self.iterations, self.tolerance)
        return Plan.of_steps(self.iterations, self.last, recompute=self.recompute)


class Model(NamedTuple):
    """The pairwise kernels of all items: float32 arrays, or tensors on a device."""

    features: list[Any]
    """(B, N, d) of each kernel, or (1, N, d), which all items share."""
    sigmas: list[Any]
    """(G) of each kernel."""
    groups: list[list[int]]
    """Which of its sigmas divides a feature, for each feature of each kernel."""
    couplings: list[Any]
    """(C) or (C, C): what filtered Q of label b adds to the logit of a."""

    @staticmethod
    def of(
        seen: Callable[[Any], Any],
        features: Sequence[Any],
        sigmas: Sequence[Any],
        couplings: Sequence[Any],
        groups: Sequence[int],
    ) -> "Model":
        """Of an op's tensors, as ``seen`` shows each; the groups of all kernels are in a row."""
        ends = [0, *accumulate(one.shape[-1] for one in features)]
        of_kernels = [list(groups[first:last]) for first, last in pairwise(ends)]
        shown, scales, coupled = (
            [seen(one) for one in each] for each in (features, sigmas, couplings)
        )
        return Model(shown, scales, of_kernels, coupled)

    def sigmas_of_features(self, k: int) -> Any:
        """(d) what a kernel's features are divided by."""
        return self.sigmas[k][self.groups[k]]

    def features_by_sigma(self, k: int) -> list[list[int]]:
        """The features that each sigma of a kernel divides."""
        return [
            [i for i, g in enumerate(self.groups[k]) if g == group]
            for group in range(len(self.sigmas[k]))
        ]

    def kernel(self, where: str, k: int, item: int, how: How, threads: int) -> Kernel:
        """A kernel for an item, its lattice built."""
        features = self.features[k][item if len(self.features[k]) > 1 else 0]
        coupling = self.couplings[k]
        return Kernel.named(
            where,
            f"features[{k}]",
            features / self.sigmas_of_features(k),
            # One number for each label stands for mu = -diag, and a matrix for mu itself.
            -coupling if coupling.ndim == 2 else coupling,
            how.normalization,
            how.accuracy,
            threads,
        )


class Wanted(NamedTuple):
    """Which gradients a way back is for."""

    features: list[bool]
    sigmas: list[bool]

    def moving(self, how: How) -> list[int]:
        """The kernels whose features need a gradient: their sigmas' may come by the chain rule."""
        is_chained = how.sigma_step == 0.0
        of_kernels = enumerate(zip(self.features, self.sigmas, strict=True))
        return [k for k, (itself, sigma) in of_kernels if itself or (is_chained and sigma)]

    def groups(self, model: Model) -> list[list[list[int]]]:
        """The features that each sigma divides, where there are any; none if it is not wanted."""
        return [
            [group for group in model.features_by_sigma(k) if group] if is_wanted else []
            for k, is_wanted in enumerate(self.sigmas)
        ]


class Found(NamedTuple):
    """Gradients of a batch, shaped as what they belong to: arrays, or tensors on a device."""

    features: list[Any]
    """None where it is not wanted; and so for sigmas."""
    sigmas: list[Any]
    couplings: list[Any]
    converged: bool


def each_item(
    n_items: int, work: Callable[[int, int], None], *, spares_memory: bool = False
) -> None:
    """Call ``work(item, threads)`` for all: side by side where there are enough, else in turn."""
    threads = get_num_threads()
    workers = 0 if spares_memory else min(n_items, threads)
    first = n_side_by_side(n_items, workers) if 2 * workers > threads else 0
    if first:
        share_out(first, workers, lambda: lambda i: work(i, 1))
    for i in range(first, n_items):
        work(i, threads)


def forth(where: str, logits: Floats, model: Model, how: How, out: Floats | None) -> list[Tape]:
    """Mean field from (B, C, *spatial) logits into ``out``, an array of their shape."""
    for k, sigmas in enumerate(model.sigmas):
        check_sigmas(where, f"sigmas[{k}]", sigmas)
    for k, coupling in enumerate(model.couplings):
        check_coupling(where, f"couplings[{k}]", coupling)
    tapes: list[Tape | None] = [None] * len(logits)
    n_kernels = len(model.features)
    shared = {
        k: model.kernel(where, k, 0, how, get_num_threads())
        for k in range(n_kernels)
        if len(model.features[k]) == 1
    }

    def work(i: int, threads: int) -> None:
        own = [shared.get(k) or model.kernel(where, k, i, how, threads) for k in range(n_kernels)]
        place = None if out is None or not is_flat(out[i]) else out[i]
        form = ("logits", how.output)
        tapes[i] = tape = Tape(
            where, logits[i], own, how.plan, *form, threads, name=f"logits[{i}]", out=place
        )
        if out is not None and place is None:
            out[i] = tape.output

    each_item(len(logits), work)
    return [tape for tape in tapes if tape is not None]


def check_sigmas(where: str, name: str, sigmas: Floats) -> None:
    """Raise unless all are positive."""
    bad = np.flatnonzero(~(np.isfinite(sigmas) & (sigmas > 0)))
    if bad.size:
        found = f"{name} has {check.show(float(sigmas[bad[0]]))} at {bad[0]}"
        raise check.invalid(where, f"{found}; expected positive finite numbers")


def check_finite(where: str, name: str, values: Floats) -> None:
    """Raise unless all are."""
    if not np.isfinite(values).all():
        raise explain.non_finite(where, name, values)


def check_coupling(where: str, name: str, values: Floats) -> None:
    """Raise unless it is finite, and leaves something for the logits to say."""
    check_finite(where, name, values)
    strength = float(np.abs(values).max())
    if strength > fault.STRONGEST:
        found = f"{name} reaches {check.show(strength)}"
        raise check.invalid(where, f"{found}; expected at most {fault.STRONGEST:.0e}")


def back(
    tapes: list[Tape], gradient: Floats, model: Model, how: How, wanted: Wanted, out: Floats
) -> Found:
    """From dLoss by what ``forth`` wrote to dLoss by all of it; that by logits goes to ``out``."""
    found: list[Gradients | None] = [None] * len(tapes)
    moving = wanted.moving(how)
    groups = wanted.groups(model)

    def work(i: int, threads: int) -> None:
        place = out[i] if is_flat(out[i]) else None
        found[i] = gradients = tapes[i].backward(
            gradient[i],
            features=how.feature_gradient if moving else None,
            feature_kernels=moving,
            sigmas=groups if any(groups) else None,
            step=how.sigma_step or None,
            threads=threads,
            out=place,
        )
        if place is None:
            out[i] = gradients.unary

    each_item(len(tapes), work, spares_memory=how.recompute)
    # Added up in the order of the items, whoever came first.
    done = [gradients for gradients in found if gradients is not None]
    by_kernel = [[gradients.kernels[k] for gradients in done] for k in range(len(groups))]

    def each(get: Callable[..., Any], are_wanted: Sequence[bool]) -> list[Any]:
        of_kernels = enumerate(zip(by_kernel, are_wanted, strict=True))
        return [get(model, k, of) if is_wanted else None for k, (of, is_wanted) in of_kernels]

    return Found(
        each(_by_features, wanted.features),
        each(_by_sigmas, wanted.sigmas),
        each(_by_couplings, [True] * len(groups)),
        all(gradients.converged for gradients in done),
    )


def _by_features(model: Model, k: int, of_items: list[KernelGradients]) -> Floats:
    given = model.features[k]
    by_scaled = [one.features for one in of_items if one.features is not None]
    total = np.stack(by_scaled) if len(given) > 1 else sum(by_scaled, np.zeros_like(given))
    by_given: Floats = total / model.sigmas_of_features(k)
    return by_given


def _by_sigmas(model: Model, k: int, of_items: list[KernelGradients]) -> Doubles:
    by_group = np.zeros(len(model.sigmas[k]))
    divides = [g for g, features in enumerate(model.features_by_sigma(k)) if features]
    for one in of_items:
        by_group[divides] += 0.0 if one.log_sigmas is None else one.log_sigmas
    return by_group / model.sigmas[k]


def _by_couplings(model: Model, k: int, of_items: list[KernelGradients]) -> Doubles:
    coupling = model.couplings[k]
    total = np.zeros(coupling.shape)
    for one in of_items:
        total += 0.0 if one.compatibility is None else one.compatibility
    return -total if coupling.ndim == 2 else total  # mu = -M where it is a matrix
