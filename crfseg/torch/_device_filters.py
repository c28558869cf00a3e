# SPDX-License-Identifier: MIT
"""The Gaussian filter over a batch on a device, its adjoint, and its gradients by features.

The twin of ``_filters``: what the CUDA kernels of the filter's ops do.
"""

from math import isfinite
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crfseg import _native as native
from crfseg._device import explained
from crfseg._device_lattices import gain_of, side_for
from crfseg._native import NORMALIZATIONS
from crfseg.lattice import ACCURACIES

from ._batches import check_finite
from ._device_batches import FORMS, MOST_TERMS, TOLERANCE
from ._device_features import Features, Grid
from ._places import NOWHERE, Home, strided
from ._values import columns_of, numbers_of, on_host

if TYPE_CHECKING:
    from crfseg._native import cuda

_LEAST = 1e-30  # of a probability whose logarithm is taken


class Lattices:
    """What filters over the same features go through."""

    def __init__(
        self,
        where: str,
        name: str,
        home: Home,
        features: Tensor,
        width: int,
        normalization: str,
        accuracy: str,
        exclude_self: bool,
    ) -> None:
        """Over (B, N, d) features, or (1, N, d) for all items, of images if they have a width."""
        self.home = home
        ((low, high),) = numbers_of([columns_of(features)])
        self._features = Features(features.contiguous(), low, high)
        self._features.check(where, name)
        n_items, n_points, dim = features.shape
        self._grid = Grid(n_items, n_points, width, side_for([dim]))
        self._lattice = self._features.lattice(where, name, home, self._grid, accuracy)
        self._how = NORMALIZATIONS[normalization], gain_of(dim, ACCURACIES[accuracy])
        self._diagonal = self._found_diagonal() if exclude_self else None

    def _found_diagonal(self) -> Tensor:
        """(B or 1, N) of the filters, to be left out."""
        diagonal = torch.empty_like(self._features.values[..., 0])
        normalization, gain = self._how
        self._lattice.self_response(diagonal.data_ptr(), normalization, gain, *self.home.place)
        return diagonal

    def _of_items(self, n_items: int) -> "cuda.Lattice":
        return self._lattice if n_items == self._grid.n_items else self._lattice.repeated(n_items)

    def apply(self, where: str, values: Tensor, *, transpose: bool) -> Tensor:
        """Filtered (B, C, N) values, or what the adjoint makes of them."""
        rows = values.mT.contiguous()
        out = torch.empty_like(rows)
        with explained(where, f"filtering values of shape {tuple(values.shape)}"):
            self._of_items(len(values)).filter(
                *(rows.data_ptr(), rows.shape[2], out.data_ptr(), *self._how, transpose),
                *self.home.place,
            )
        found = out.mT
        if self._diagonal is not None:
            found = torch.addcmul(found, self._diagonal[:, None], values, value=-1)
        return found

    def by_features(self, where: str, gradient: Tensor, values: Tensor, form: str) -> Tensor:
        """DLoss by features, ``gradient`` being dLoss by what ``apply`` made of the values.

        A sum over channels, which go in turn where there are more than the kernels take at once.
        """
        (((low,), (high,)),) = numbers_of([values.aminmax()])
        if not (isfinite(low) and isfinite(high)):
            check_finite(where, "values", on_host(values))
        n_signs = 2 if low < 0.0 else 1
        at_once = (native.cuda.MOST_LABELS - 1) // n_signs
        with explained(where, f"the gradient of a filter of values of shape {tuple(values.shape)}"):
            channels = torch.split(gradient, at_once, 1), torch.split(values, at_once, 1)
            parts = [
                self._by_features(upstream, given, n_signs, form)
                for upstream, given in zip(*channels, strict=True)
            ]
        return torch.stack(parts).sum(0)

    def _by_features(self, gradient: Tensor, values: Tensor, n_signs: int, form: str) -> Tensor:
        """Ask a mean field of one step, as the CPU's twin does.

        Items have sums of their own, which scale their gradients in the place of M.
        """
        parts = torch.cat([values, -values][:n_signs], dim=1).clamp(min=0.0)
        scale = parts.sum(1, keepdim=True).amax(2, keepdim=True)
        q = parts / scale.clamp(min=torch.finfo(torch.float32).tiny)
        rest = (1.0 - q.sum(1, keepdim=True)).clamp(min=0.0)
        logits = torch.cat([q, rest], dim=1).clamp(min=_LEAST).log()
        upstream = torch.cat([gradient * scale] * n_signs + [torch.zeros_like(rest)], dim=1)
        n_each = values.shape[1]
        signs = [1.0] * n_each + [-1.0] * (n_each * (n_signs - 1)) + [0.0]
        coupling = torch.tensor(signs, device=values.device)
        field = self._field_of(len(values), coupling)
        field.run(strided(logits), False, 1, 1, 1, False, 0.0, True, NOWHERE)
        moved = torch.empty_like(self._features.values)
        by_coupling = torch.empty_like(coupling, dtype=torch.float64)
        request = (self._features.values.data_ptr(), FORMS[form], moved.data_ptr())
        # What logits get is of no use, and has to go somewhere.
        field.back(
            *(strided(upstream), strided(logits), [request], [by_coupling.data_ptr()], []),
            *(MOST_TERMS, TOLERANCE),
        )
        return moved

    def _field_of(self, n_items: int, coupling: Tensor) -> "cuda.UnrolledField":
        kernel = (self._of_items(n_items), *self._how, False, coupling.data_ptr())
        grid = self._grid._replace(n_items=n_items)
        return native.cuda.UnrolledField(*grid, len(coupling), [kernel], *self.home.place)
