# SPDX-License-Identifier: MIT
"""The Gaussian filter over a batch of arrays, its adjoint, and its gradients by features.

What the CPU kernels of the filter's ops do. Features are (B, N, d), or (1, N, d) for all items;
values (B, C, N).
"""

import numpy as np
from numpy.typing import NDArray

from crfseg._coupled import Kernel
from crfseg._native import NORMALIZATIONS
from crfseg.gradients import Plan, Tape

from ._batches import each_item

Floats = NDArray[np.float32]
_LEAST = np.float32(1e-30)  # of a probability whose logarithm is taken


def kernels_of(
    where: str, features: Floats, n_items: int, normalization: str, accuracy: str
) -> list[Kernel]:
    """A kernel for every item; the same one for all if the features are."""
    made: list[Kernel | None] = [None] * len(features)

    def work(i: int, threads: int) -> None:
        made[i] = Kernel.named(
            where, "features", features[i], None, normalization, accuracy, threads
        )

    each_item(len(features), work)
    kernels = [kernel for kernel in made if kernel is not None]
    return kernels if len(kernels) == n_items else kernels * n_items


def self_responses(kernels: list[Kernel]) -> list[Floats]:
    """The diagonal of each filter, which takes longer than many filters: it is kept."""
    found: dict[int, Floats] = {id(kernel): np.zeros(0, np.float32) for kernel in kernels}
    distinct = {id(kernel): kernel for kernel in kernels}
    keys = list(distinct)

    def work(i: int, threads: int) -> None:
        found[keys[i]] = _self_response(distinct[keys[i]], threads)

    each_item(len(keys), work)
    return [found[id(kernel)] for kernel in kernels]


def apply(
    kernels: list[Kernel],
    values: Floats,
    out: Floats,
    *,
    without: list[Floats] | None,
    transpose: bool,
) -> None:
    """Filter every item's values into ``out``, ``without`` its diagonal if that is given."""

    def work(i: int, threads: int) -> None:
        rows = np.ascontiguousarray(values[i].T)
        how = NORMALIZATIONS[kernels[i].normalization]
        out[i] = kernels[i].lattice.filter(rows, how, transpose, threads).T
        if without is not None:
            out[i] -= without[i] * values[i]

    each_item(len(values), work)


def _self_response(kernel: Kernel, threads: int) -> Floats:
    """Any normalisation divides it by n."""
    diagonal = kernel.lattice.self_response(threads)
    if kernel.normalization == "none":
        return diagonal
    normalized: Floats = diagonal / kernel.lattice.normalizer(threads)
    return normalized


def by_features(
    where: str, kernels: list[Kernel], gradient: Floats, values: Floats, form: str, out: Floats
) -> None:
    """DLoss by features of what ``apply`` did, ``gradient`` being dLoss by its result."""
    found: list[Floats | None] = [None] * len(values)

    def work(i: int, threads: int) -> None:
        found[i] = _by_features(where, kernels[i], gradient[i], values[i], form, threads)

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
