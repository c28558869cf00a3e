# SPDX-License-Identifier: MIT
"""What filtered marginals add to the logits, through lattices that are built once."""

from functools import partial
from math import log1p

import torch
from torch import Tensor

from . import ops as _ops  # noqa: F401 - registers what is called below
from ._batches import How
from ._model import Model


class Filter:
    """A Gaussian filter over (B, N, d) features, or (1, N, d), of (B, C, N) values.

    The width is that of images, or of the slices of volumes; 0: points in no order.
    """

    def __init__(
        self,
        where: str,
        name: str,
        features: Tensor,
        normalization: str,
        accuracy: str,
        feature_gradient: str,
        *,
        width: int,
        exclude_self: bool = False,
    ) -> None:
        self._features = features
        self._lattices = torch.ops.crfseg.lattices(
            features.detach(), normalization, accuracy, exclude_self, width, where, name
        )
        self._how = (normalization, accuracy, feature_gradient, exclude_self)

    def __call__(self, values: Tensor) -> Tensor:
        """Filter."""
        filtered: Tensor = torch.ops.crfseg.filter(
            values, self._features, self._lattices, *self._how
        )
        return filtered


class Messages:
    """X + sum_k M_k K~_k x of (B, N, C) logits X and marginals x: X - P x.

    Labels come last, as the lattices filter them.
    """

    def __init__(self, where: str, model: Model, how: How, width: int) -> None:
        of_kernels = zip(model.features, model.sigmas, model.groups, strict=True)
        self._kernels = [
            _Kernel(where, f"features[{k}]", *one, how, width) for k, one in enumerate(of_kernels)
        ]
        self._couplings = [coupling.to(torch.float32) for coupling in model.couplings]

    def __call__(self, logits: Tensor, marginals: Tensor) -> Tensor:
        """Filter, couple and add."""
        total = logits
        for kernel, coupling in zip(self._kernels, self._couplings, strict=True):
            filtered = kernel(marginals.mT).mT
            if coupling.ndim == 2:
                total = torch.baddbmm(total, filtered, coupling.T.expand(len(total), -1, -1))
            else:
                total = torch.addcmul(total, filtered, coupling)
        return total


class _Kernel:
    """Features over their sigmas, and what filters change by with the sigmas.

    ``How.sigma_step`` says how those get a gradient: 0 through the features, else by difference
    quotients of each filter. These are added times log sigma minus itself: that is 0, but for the
    gradient.
    """

    def __init__(
        self,
        where: str,
        name: str,
        features: Tensor,
        sigmas: Tensor,
        group: list[int],
        how: How,
        width: int,
    ) -> None:
        self._step = log1p(how.sigma_step)
        is_probed = how.sigma_step > 0 and sigmas.requires_grad and torch.is_grad_enabled()
        logs = sigmas.to(torch.float32).log()
        self._moved = logs - logs.detach()
        scaled = features.to(torch.float32) / (sigmas.detach() if is_probed else sigmas)[group]
        filter_of = partial(
            Filter,
            where,
            name,
            normalization=how.normalization,
            accuracy=how.accuracy,
            feature_gradient=how.feature_gradient,
            width=width,
        )
        self._filter = filter_of(scaled)
        self._probes = []
        for g in sorted(set(group)) if is_probed else ():
            steps = torch.tensor([self._step * (own == g) for own in group], device=features.device)
            ends = [(sign * steps).exp() * scaled.detach() for sign in (-1, 1)]
            self._probes.append((g, [filter_of(end) for end in ends]))

    def __call__(self, values: Tensor) -> Tensor:
        filtered = self._filter(values)
        if not torch.is_grad_enabled():
            return filtered
        for g, (larger, smaller) in self._probes:
            with torch.no_grad():
                slope = (larger(values) - smaller(values)) / (2 * self._step)
            filtered = filtered + self._moved[g] * slope
        return filtered
