# SPDX-License-Identifier: MIT
"""Gradients by sigmas: groups of features that share one, difference quotients, the chain rule."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _check as check
from ._coupled import Kernel, lattice_of
from ._native import core


class Probes:
    """Lattices whose sigmas are a little larger and smaller, group by group."""

    def __init__(
        self,
        where: str,
        kernels: Sequence[Kernel],
        groups: list[list[list[int]]] | None,
        share: float | None,
        threads: int,
    ) -> None:
        self.kernels: list[int] = []
        self.lattices: list[core.Lattice] = []
        self._step = np.log1p(share or 0.0)
        if groups is None or share is None:
            return
        for k, kernel in enumerate(kernels):
            for group in groups[k]:
                for sign in (1.0, -1.0):
                    features = kernel.features.copy()
                    features[:, group] *= np.float32(np.exp(-sign * self._step))
                    self.kernels.append(k)
                    self.lattices.append(lattice_of(where, features, kernel.accuracy, threads))

    def quotients(self, kernel: int, products: Sequence[float]) -> NDArray[np.float64]:
        """Central differences of what the kernel's probes came to."""
        own = [p for k, p in zip(self.kernels, products, strict=True) if k == kernel]
        larger, smaller = np.array(own[0::2]), np.array(own[1::2])
        slopes: NDArray[np.float64] = (larger - smaller) / (2 * self._step)
        return slopes


def by_chain_rule(
    features: NDArray[np.float32], gradient: NDArray[np.float32], groups: list[list[int]]
) -> NDArray[np.float64]:
    """Features are coordinates over sigma: df/dlog sigma = -f."""
    of_axes = -np.einsum("nd,nd->d", features, gradient, dtype=np.float64)
    return np.array([of_axes[group].sum() for group in groups])


def checked_groups(
    where: str, sigmas: Any, kernels: Sequence[Kernel]
) -> list[list[list[int]]] | None:
    """Groups of features of every kernel, each feature in at most one."""
    if sigmas is None:
        return None
    if not isinstance(sigmas, list | tuple) or len(sigmas) != len(kernels):
        raise check.invalid(
            where,
            f"sigmas is {check.show(sigmas)}; expected a list of groups of features for each of "
            f"the {len(kernels)} kernels",
        )
    return [
        _groups_of_kernel(where, f"sigmas[{k}]", groups, kernel.features.shape[1])
        for k, (groups, kernel) in enumerate(zip(sigmas, kernels, strict=True))
    ]


def _groups_of_kernel(where: str, name: str, groups: Any, dim: int) -> list[list[int]]:
    fault = check.invalid(
        where, f"{name} is {check.show(groups)}; expected lists of features, none of them in two"
    )
    if not isinstance(groups, list | tuple):
        raise fault
    if not all(isinstance(group, list | tuple) and group for group in groups):
        raise fault
    own = [[check.integer(where, name, i, at_most=dim - 1) for i in group] for group in groups]
    named = [i for group in own for i in group]
    if len(named) != len(set(named)):
        raise fault
    return own
