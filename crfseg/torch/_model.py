# SPDX-License-Identifier: MIT
"""Checks logits, the pairwise kernels that go with them, and how they are to be solved."""

from math import prod
from typing import Any, Final, NamedTuple

from torch import Tensor

from crfseg import _check as check
from crfseg import _fault as fault
from crfseg._native import NORMALIZATIONS
from crfseg.lattice import ACCURACIES

from . import _arguments as arguments
from ._batches import How

FORMS: Final = ("exact", "smooth")


class Model(NamedTuple):
    """Pairwise kernels as ``mean_field`` takes them."""

    features: list[Tensor]
    sigmas: list[Tensor]
    groups: list[list[int]]
    couplings: list[Tensor]

    @property
    def tensors(self) -> list[Tensor]:
        """All that may get a gradient."""
        return [*self.features, *self.sigmas, *self.couplings]


def checked_model(
    where: str, logits: Any, features: Any, couplings: Any, sigmas: Any, groups: Any
) -> Model:
    """Logits and what goes with them, in the order of the arguments."""
    features = arguments.sequence(where, "features", features, "a list of a tensor per kernel")
    couplings = arguments.sequence(where, "couplings", couplings, "a list of a tensor per kernel")
    arguments.count(where, "couplings", len(couplings), len(features), "one for each kernel")
    _check_logits(where, logits, features, couplings)
    return Model(features, *_checked_sigmas(where, logits, features, sigmas, groups), couplings)


def _check_logits(
    where: str, logits: Tensor, features: list[Tensor], couplings: list[Tensor]
) -> None:
    named = [(f"features[{k}]", one) for k, one in enumerate(features)]
    named_couplings = [(f"couplings[{k}]", one) for k, one in enumerate(couplings)]
    arguments.same_device(where, ("logits", logits), *named, *named_couplings)
    arguments.tensor(where, "logits", logits)
    expected = "(B, C, *spatial), the batch axis first"
    arguments.shape(where, "logits", logits, logits.ndim >= 3, expected)
    if logits.shape[1] == 0 or prod(logits.shape[2:]) == 0:
        raise fault.empty(where, "logits", tuple(logits.shape))
    for name, one in named:
        check_features(where, name, one, logits)
    n_labels = logits.shape[1]
    for name, one in named_couplings:
        arguments.tensor(where, name, one)
        fits = one.ndim in (1, 2) and all(length == n_labels for length in one.shape)
        arguments.shape(where, name, one, fits, f"({n_labels},) or ({n_labels}, {n_labels})")


def check_features(where: str, name: str, features: Tensor, values: Tensor) -> None:
    arguments.tensor(where, name, features)
    n_items, n_points = values.shape[0], prod(values.shape[2:])
    expected = f"({n_items}, {n_points}, d) or (1, {n_points}, d), one row per point"
    fits = features.ndim == 3 and features.shape[1] == n_points
    fits = fits and (features.shape[0] == n_items or features.shape[0] == 1)
    arguments.shape(where, name, features, fits, expected)
    if not 1 <= features.shape[2] <= fault.MOST_DIMENSIONS:
        raise fault.too_many_dimensions(where, name, features.shape[2])


def _checked_sigmas(
    where: str, logits: Tensor, features: list[Tensor], sigmas: Any, groups: Any
) -> tuple[list[Tensor], list[list[int]]]:
    """Sigmas of each kernel, and which of them each feature of each kernel is divided by."""
    if sigmas is None:
        if groups is not None:
            raise check.invalid(where, "groups is given but sigmas is None; expected both")
        return [logits.new_ones(1) for _ in features], [[0] * one.shape[2] for one in features]
    sigmas = arguments.sequence(where, "sigmas", sigmas, "a list of a tensor per kernel")
    if groups is None:
        groups = [[0] * one.shape[2] for one in features]
    groups = arguments.sequence(where, "groups", groups, "a list of numbers per kernel")
    for name, given in (("sigmas", sigmas), ("groups", groups)):
        arguments.count(where, name, len(given), len(features), "one for each kernel")
    found = []
    for k, (sigma, group) in enumerate(zip(sigmas, groups, strict=True)):
        name = f"sigmas[{k}]"
        arguments.same_device(where, ("logits", logits), (name, sigma))
        arguments.tensor(where, name, sigma)
        arguments.shape(where, name, sigma, sigma.ndim == 1 and sigma.shape[0] > 0, "(G,)")
        found.append(_checked_group(where, k, group, features[k].shape[2], sigma.shape[0]))
    return sigmas, found


def _checked_group(where: str, k: int, group: Any, dim: int, n_sigmas: int) -> list[int]:
    name = f"groups[{k}]"
    numbers = arguments.sequence(where, name, group, f"{dim} numbers of sigmas")
    arguments.count(where, name, len(numbers), dim, "one for each feature")
    return [check.integer(where, name, g, at_most=n_sigmas - 1) for g in numbers]


def checked_how(
    where: str,
    iterations: Any,
    last: Any,
    recompute: Any,
    implicit: Any,
    tolerance: Any,
    output: Any,
    normalization: Any,
    accuracy: Any,
    feature_gradient: Any,
    sigma_step: Any,
) -> How:
    """What else ``mean_field`` is told; ``last`` may be None."""
    check.flag(where, "implicit", implicit)
    iterations = check.integer(where, "iterations", iterations, at_least=int(implicit))
    steps = iterations if last is None else check.integer(where, "last", last, at_most=iterations)
    if implicit and last is not None:
        raise check.invalid(
            where, f"last is {last} but implicit is True, which unrolls no steps; expected None"
        )
    check.flag(where, "recompute", recompute)
    check.choice(where, "output", output, ("logits", "marginals"))
    check_kernel_options(where, normalization, accuracy, feature_gradient)
    return How(
        iterations,
        steps,
        recompute,
        implicit,
        check.non_negative(where, "tolerance", tolerance),
        output,
        normalization,
        accuracy,
        feature_gradient,
        check.between(where, "sigma_step", sigma_step, zero=True),
    )


def check_kernel_options(where: str, normalization: Any, accuracy: Any, form: Any) -> None:
    check.choice(where, "normalization", normalization, tuple(NORMALIZATIONS))
    check.choice(where, "accuracy", accuracy, tuple(ACCURACIES))
    check.choice(where, "feature_gradient", form, FORMS)
