# SPDX-License-Identifier: MIT
"""Solvers of the dense CRF's energy in float64 on dense kernels, as their papers write them."""

from typing import Any, NamedTuple

import numpy as np

from crfseg import FrankWolfe, MeanField
from reference import softmax
from reference_gradients import Model, step

Array = np.ndarray[Any, Any]


class Solved(NamedTuple):
    """What a solver ends with."""

    marginals: Array
    logits: Array
    state: Array
    """Where it would go on: z of mean field, x of Frank-Wolfe."""
    steps: list[float]
    """Of Frank-Wolfe."""


def solve(
    model: Model,
    solver: MeanField | FrankWolfe,
    iterations: int,
    *,
    start: Array | None = None,
    first: int = 0,
) -> Solved:
    """From softmax of the logits, or at step ``first`` from a state that is a constant."""
    if isinstance(solver, FrankWolfe):
        return _frank_wolfe(model, solver, iterations, start, first)
    z = model.logits if start is None else start
    for _ in range(first, iterations):
        z = solver.damping * z + (1 - solver.damping) * step(model, softmax(z))
    return Solved(softmax(z), z, z, [])


def _frank_wolfe(
    model: Model, solver: FrankWolfe, iterations: int, start: Array | None, first: int
) -> Solved:
    x = softmax(model.logits) if start is None else start
    steps = []
    for k in range(first, iterations):
        scores = step(model, x) / solver.strength
        s = softmax(scores) if solver.regularizer == "entropy" else projected(scores)
        if solver.step == "line-search":
            share = best_share([relaxed_energy(model, x + t * (s - x)) for t in (0, 0.5, 1)])
        else:
            share = 2 / (k + 2) if solver.step == "diminishing" else float(solver.step)
        x = x + share * (s - x)
        steps.append(share)
    return Solved(x, np.log(x + 1e-9), x, steps)


def relaxed_energy(model: Model, x: Array) -> float:
    """<U, x> + 1/2 <x, P x>, U = -logits."""
    messages = step(model, x) - model.logits
    return float(-(model.logits * x).sum() - (messages * x).sum() / 2)


def best_share(energies: list[float]) -> float:
    """Where in [0, 1] the parabola through its values at 0, 1/2 and 1 is least."""
    low, middle, high = energies
    half = 2 * (low - 2 * middle + high)  # of its curvature
    slope = high - low - half
    if half <= 0:
        return float(high <= low)
    return float(np.clip(-slope / (2 * half), 0, 1))


def projected(scores: Array) -> Array:
    """Each point's next one of the simplex: max(v - t, 0), t found by bisection."""
    low, high = scores.max(axis=0) - 1, scores.max(axis=0)
    for _ in range(54):
        middle = (low + high) / 2
        is_low = np.maximum(scores - middle, 0).sum(axis=0) > 1
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    return np.maximum(scores - (low + high) / 2, 0)
