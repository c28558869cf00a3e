# SPDX-License-Identifier: MIT
"""Mean field over a batch, forth and back, on a device: what the CUDA kernels of the ops do.

The twin of ``_batches``. All items go in one sequence of launches, so that those of an implicit
mean field stop together. The host waits for the device where it has to know a number: once for how
far features reach and whether values are finite; for how large each lattice is; and on the way back
of an implicit mean field, for whether it had come to rest.
"""

from math import exp, log1p, prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crfseg import _check as check
from crfseg import _native as native
from crfseg._device import explained
from crfseg._device_lattices import gain_of, side_for
from crfseg._native import NORMALIZATIONS, core
from crfseg.lattice import ACCURACIES

from ._batches import Found, How, Model, Wanted
from ._device_features import Features, Grid
from ._places import NOWHERE, Home, strided
from ._values import look_at
from ._views import width_of

if TYPE_CHECKING:
    from crfseg._native import cuda

FORMS = {"exact": core.FEATURES_EXACT, "smooth": core.FEATURES_SMOOTH}
MOST_TERMS, TOLERANCE = 200, 1e-6  # of the series at a fixed point, as Tape.backward has them


class Tape:
    """A batch that has been run, and what the way back needs."""

    def __init__(
        self, where: str, home: Home, logits: Tensor, model: Model, how: How, out: Tensor | None
    ) -> None:
        """From (B, C, *spatial) logits into (B, C, N) ``out``, if it is wanted."""
        n_items, n_labels, *spatial = logits.shape
        _check_count(where, "labels", n_labels, native.cuda.MOST_LABELS)
        _check_count(where, "kernels", len(model.features), native.cuda.MOST_TERMS)
        self.home, self._where, self._plan, self._accuracy = home, where, how.plan, how.accuracy
        self._what = f"a mean field of shape {tuple(logits.shape)}"
        self._features = _looked_at(where, logits, model)
        side = side_for([features.dim for features in self._features])
        self._grid = Grid(n_items, prod(spatial), width_of(logits), side)
        with explained(where, self._what):
            self._field = self._made(n_labels, model, how.normalization)
            self._run(logits.flatten(2), how.output == "logits", out)

    def _made(self, n_labels: int, model: Model, normalization: str) -> "cuda.UnrolledField":
        couplings = [coupling.contiguous() for coupling in model.couplings]
        kernels = [
            (
                self._lattice(f"features[{k}]", features),
                NORMALIZATIONS[normalization],
                self._gain(features),
                couplings[k].ndim == 2,
                couplings[k].data_ptr(),
            )
            for k, features in enumerate(self._features)
        ]
        return native.cuda.UnrolledField(*self._grid, n_labels, kernels, *self.home.place)

    def _lattice(self, name: str, features: Features) -> "cuda.Lattice":
        return features.lattice(self._where, name, self.home, self._grid, self._accuracy)

    def _gain(self, features: Features) -> float:
        return gain_of(features.dim, ACCURACIES[self._accuracy])

    def _run(self, logits: Tensor, wants_logits: bool, out: Tensor | None) -> None:
        plan = self._plan
        self._field.run(
            strided(logits),
            False,
            plan.iterations,
            plan.differentiated,
            plan.every,
            plan.is_fixed,
            plan.tolerance,
            wants_logits,
            NOWHERE if out is None else strided(out),
        )

    def back(self, gradient: Tensor, model: Model, how: How, wanted: Wanted, out: Tensor) -> Found:
        """From dLoss by the output to dLoss by all; that by logits goes to (B, C, N) ``out``."""
        moved = {k: torch.empty_like(self._features[k].values) for k in wanted.moving(how)}
        couplings = [
            torch.empty_like(one, dtype=torch.float64, memory_format=torch.contiguous_format)
            for one in model.couplings
        ]
        with explained(self._where, self._what):
            probes = _Probes(self, model, how, wanted)
            self._field.back(
                strided(gradient),
                strided(out),
                self._requests(moved, FORMS[how.feature_gradient]),
                [one.data_ptr() for one in couplings],
                probes.requests,
                MOST_TERMS,
                TOLERANCE,
            )
            converged = not self._plan.is_fixed or self._has_converged()
        return Found(
            [
                moved[k] / model.sigmas_of_features(k) if is_wanted else None
                for k, is_wanted in enumerate(wanted.features)
            ],
            [
                self._by_sigmas(model, k, moved.get(k), probes) if is_wanted else None
                for k, is_wanted in enumerate(wanted.sigmas)
            ],
            couplings,
            converged,
        )

    def _requests(self, moved: dict[int, Tensor], form: int) -> list[tuple[int, int, int] | None]:
        return [
            (one.values.data_ptr(), form, moved[k].data_ptr()) if k in moved else None
            for k, one in enumerate(self._features)
        ]

    def probed(self, k: int, group: list[int], factor: float) -> tuple["cuda.Lattice", float]:
        """A kernel's lattice with some features times a factor, and its gain."""
        features = self._features[k].stretched(group, factor)
        return self._lattice("features", features), self._gain(features)

    def _by_sigmas(self, model: Model, k: int, moved: Tensor | None, probes: "_Probes") -> Tensor:
        groups = model.features_by_sigma(k)
        divides = [g for g, group in enumerate(groups) if group]
        if moved is None or probes.requests:
            by_logs = probes.quotients(k)
        else:  # df/dlog sigma = -f
            by_axis = -(self._features[k].values.double() * moved).sum((0, 1))
            by_logs = torch.stack([by_axis[groups[g]].sum() for g in divides])
        by_all = by_logs.new_zeros(len(groups))
        by_all[divides] = by_logs
        return by_all / model.sigmas[k]

    def _has_converged(self) -> bool:
        _, max_change = self._field.unrolling()
        _, is_summed = self._field.series()
        return is_summed and max_change < self._plan.tolerance


class _Probes:
    """Lattices whose sigmas are a little larger and smaller, and what their products come to."""

    def __init__(self, tape: Tape, model: Model, how: How, wanted: Wanted) -> None:
        self._step = log1p(how.sigma_step)
        groups = wanted.groups(model) if how.sigma_step > 0 else []
        self._n_groups = [len(of_kernel) for of_kernel in groups]
        n = 2 * sum(self._n_groups)
        self._products = torch.empty(n, dtype=torch.float64, device=tape.home.device)
        each = [
            (k, group, sign)
            for k, of_kernel in enumerate(groups)
            for group in of_kernel
            for sign in (1.0, -1.0)
        ]
        self.requests = [
            (k, *tape.probed(k, group, exp(-sign * self._step)), product.data_ptr())
            for (k, group, sign), product in zip(each, self._products, strict=True)
        ]

    def quotients(self, k: int) -> Tensor:
        """Central differences of what the kernel's probes came to."""
        first = 2 * sum(self._n_groups[:k])
        own = self._products[first : first + 2 * self._n_groups[k]].reshape(-1, 2)
        return (own[:, 0] - own[:, 1]) / (2 * self._step)


def _looked_at(where: str, logits: Tensor, model: Model) -> list[Features]:
    """Features over sigmas, once everything has been found to be good."""
    scaled = [
        (features / model.sigmas_of_features(k)).contiguous()
        for k, features in enumerate(model.features)
    ]
    ends = look_at(where, logits, model.sigmas, model.couplings, scaled)
    features = [Features(values, *both) for values, both in zip(scaled, ends, strict=True)]
    for k, one in enumerate(features):
        one.check(where, f"features[{k}]")
    return features


def _check_count(where: str, what: str, found: int, most: int) -> None:
    """Refuse more of something than the kernels for devices take."""
    if found > most:
        raise check.invalid(
            where,
            f"there are {found} {what}; expected at most the {most} that a CUDA device takes, or "
            "tensors in CPU memory",
        )
