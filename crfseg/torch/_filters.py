# SPDX-License-Identifier: MIT
"""The Gaussian filter over a batch of arrays, its adjoint, and its gradients by features.

What the CPU kernels of the filter's ops do. Features are (B, N, d), or (1, N, d) for all items;
values (B, C, N).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crfseg._coupled import Kernel
from crfseg._native import NORMALIZATIONS
from crfseg.gradients import Plan, Tape

from ._batches import each_item

Floats = NDArray[np.float32]
_LEAST = np.float32(1e-30)  # of a probability whose logarithm is taken


class Lattices(NamedTuple):
    """What filters over the same features go through: one of each per item, or one for all."""

    kernels: list[Kernel]
    diagonals: list[Floats]
    """Of the filters, to be left out; none if it is not. They take longer than many filters."""

    def of_item(self, i: int) -> tuple[Kernel, Floats | None]:
        """A kernel, and what is left out of it."""
        own = i if len(self.kernels) > 1 else 0
        return self.kernels[own], self.diagonals[own] if self.diagonals else None


def lattices_of(
    where: str, name: str, features: Floats, normalization: str, accuracy: str, exclude_self: bool
) -> Lattices:
    """Build them; errors call the features ``name``."""
    kernels: dict[int, Kernel] = {}
    diagonals: dict[int, Floats] = {}

    def work(i: int, threads: int) -> None:
        kernels[i] = Kernel.named(where, name, features[i], None, normalization, accuracy, threads)
        if exclude_self:
            diagonals[i] = _self_response(kernels[i], threads)

    each_item(len(features), work)
    return Lattices(
        [kernels[i] for i in sorted(kernels)], [diagonals[i] for i in sorted(diagonals)]
    )


def apply(lattices: Lattices, values: Floats, out: Floats, *, transpose: bool) -> None:
    """Filter every item's values into ``out``."""

    def work(i: int, threads: int) -> None:
        kernel, diagonal = lattices.of_item(i)
        rows = np.ascontiguousarray(values[i].T)
        how = NORMALIZATIONS[kernel.normalization]
        out[i] = kernel.lattice.filter(rows, how, transpose, threads).T
        if diagonal is not None:
            out[i] -= diagonal * values[i]

    each_item(len(values), work)


def _self_response(kernel: Kernel, threads: int) -> Floats:
    """Any normalisation divides it by n."""
    diagonal = kernel.lattice.self_response(threads)
    if kernel.normalization == "none":
        return diagonal
    normalized: Floats = diagonal / kernel.lattice.normalizer(threads)
    return normalized


def by_features(
    where: str, lattices: Lattices, gradient: Floats, values: Floats, form: str, out: Floats
) -> None:
    """DLoss by features of what ``apply`` did, ``gradient`` being dLoss by its result."""
    found: list[Floats | None] = [None] * len(values)

    def work(i: int, threads: int) -> None:
        found[i] = _by_features(
            where, lattices.of_item(i)[0], gradient[i], values[i], form, threads
        )

    each_item(len(values), work)
    out[...] = 0.0
    for i, one in enumerate(found):
        out[i if len(out) > 1 else 0] += 0.0 if one is None else one


def _by_features(
    where: str, kernel: Kernel, gradient: Floats, values: Floats, form: str, threads: int
) -> Floats | None:
    """Ask a mean field of one step, whose messages are the filtered values.

    They are taken for probabilities: of what is positive in each channel, of what is negative
    there, and of one more label for the rest, all over the largest sum S of a point. Logits
    Z^1 = X + M K~ Q^0 with M = S, -S and 0 then hold the filtered values.
    """
    positive, negative = np.maximum(values, 0), np.maximum(-values, 0)
    parts = [positive, negative] if negative.any() else [positive]
    scale = sum(part.sum(axis=0) for part in parts).max()
    if scale == 0.0:
        return None  # a filter of nothing but zeros does not depend on where they are
    q = np.concatenate([part / scale for part in parts])
    q = np.concatenate([q, np.maximum(1 - q.sum(axis=0, keepdims=True), 0)])
    signs = np.array([1.0, -1.0, 0.0])[[*range(len(parts)), 2]]
    n_each = [len(values)] * len(parts) + [1]
    coupling = np.repeat(signs * scale, n_each).astype(np.float32)
    upstream = np.concatenate([*([gradient] * len(parts)), np.zeros_like(gradient[:1])])
    plan = Plan.of_steps(1, 1, recompute=False)
    coupled = kernel.with_parameters(1.0, coupling)
    logits = np.log(np.maximum(q, _LEAST))
    tape = Tape(where, logits, [coupled], plan, "logits", "logits", threads, name="values")
    return tape.backward(upstream, features=form).kernels[0].features
