# SPDX-License-Identifier: MIT
"""mean_field and filter: the ops with their arguments checked."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from crfseg import _check as check
from crfseg import _fault as fault
from crfseg._native import NORMALIZATIONS
from crfseg.lattice import ACCURACIES

from . import _arguments as arguments
from . import _refusals as refusals
from . import ops as _ops  # noqa: F401 - registers what is called below

FORMS = ("exact", "smooth")


def mean_field(
    logits: Tensor,
    features: Sequence[Tensor],
    couplings: Sequence[Tensor],
    iterations: int = 5,
    *,
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
    """Mean field with Gaussian kernels over any features, differentiable by every tensor.

    From Q = softmax(logits), ``iterations`` times Z = logits + sum_k M_k K~_k Q, Q = softmax(Z)
    (Krähenbühl & Koltun, NIPS 2011, algorithm 1). The native core works in float32, whatever the
    dtype; results have the dtype of ``logits``, under autocast float32.

    Args:
        logits: (B, C, *spatial), minus the unary energies.
        features: for each kernel (B, N, d), N being the product of the spatial lengths, or
            (1, N, d) for all items of the batch alike.
        couplings: for each kernel M = -mu diag(w), what filtered Q of label b adds to the logit of
            label a: (C,), its diagonal, or (C, C).
        iterations: mean-field steps.
        sigmas: for each kernel (G,) positive standard deviations that features are divided by;
            None: they are divided already.
        groups: for each kernel d numbers, which of its sigmas divides a feature. None: the first.
        output: "logits" Z or "marginals" Q.
        normalization: of the kernels: "symmetric", "after", "before" or "none".
        accuracy: "fast" or "fine", as for ``crfseg.refine``.
        last: differentiate through so many last steps alone; None: through all.
        recompute: keep the marginals of every third step alone for the way back.
        implicit: run until no marginal changes by ``tolerance``, at most ``iterations`` steps, and
            differentiate the fixed point: memory does not grow with the steps.
        tolerance: see ``implicit``.
        feature_gradient: how features get their gradient where asked for: "exact", of the lattice,
            or "smooth", of the Gaussian that it stands for; see ``crfseg.gradients``.
        sigma_step: sigmas get difference quotients over lattices whose sigma is this share larger
            and smaller; 0 takes the chain rule through ``feature_gradient`` instead.

    Raises:
        TypeError, ValueError: if an argument is not as described.
        NotImplementedError: for double backward and for ``torch.func`` transforms.
    """
    where = "mean_field"
    features = arguments.sequence(where, "features", features, "a list of a tensor per kernel")
    couplings = arguments.sequence(where, "couplings", couplings, "a list of a tensor per kernel")
    arguments.count(where, "couplings", len(couplings), len(features), "one for each kernel")
    _check_logits(where, logits, features, couplings)
    sigmas, flat_groups = _checked_sigmas(where, logits, features, sigmas, groups)
    iterations = check.integer(where, "iterations", iterations, at_least=int(implicit))
    steps = iterations if last is None else check.integer(where, "last", last, at_most=iterations)
    check.flag(where, "recompute", recompute)
    check.flag(where, "implicit", implicit)
    check.choice(where, "output", output, ("logits", "marginals"))
    _check_kernel_options(where, normalization, accuracy, feature_gradient)
    tolerance = check.non_negative(where, "tolerance", tolerance)
    step = 0.0 if sigma_step == 0 else check.between(where, "sigma_step", sigma_step, zero=False)
    refusals.check_transforms(where, logits, *features, *sigmas, *couplings)
    result: Tensor
    result, _ = torch.ops.crfseg.mean_field(
        logits,
        features,
        sigmas,
        couplings,
        flat_groups,
        iterations,
        steps,
        recompute,
        implicit,
        tolerance,
        output,
        normalization,
        accuracy,
        feature_gradient,
        step,
        _is_differentiated(logits, *features, *sigmas, *couplings),
    )
    return result


def filter(  # noqa: A001 - what the field calls it
    values: Tensor,
    features: Tensor,
    *,
    normalization: str = "none",
    accuracy: str = "fast",
    exclude_self: bool = False,
    feature_gradient: str = "exact",
) -> Tensor:
    """Gaussian filter over any features: out_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j, differentiable.

    Args:
        values: (B, C, *spatial).
        features: (B, N, d), N being the product of the spatial lengths, divided by the kernel's
            standard deviations; or (1, N, d) for all items of the batch alike.
        normalization: as for ``crfseg.Lattice``.
        accuracy: "fast" or "fine", as for ``crfseg.refine``.
        exclude_self: leave out the term j = i; features then get no gradient.
        feature_gradient: as for ``mean_field``.

    Raises:
        TypeError, ValueError: if an argument is not as described.
        NotImplementedError: for double backward and for ``torch.func`` transforms.
    """
    where = "filter"
    arguments.same_device(where, ("values", values), ("features", features))
    arguments.tensor(where, "values", values)
    fits = values.ndim >= 3
    arguments.shape(where, "values", values, fits, "(B, C, *spatial)")
    if values.shape[1] == 0 or prod(values.shape[2:]) == 0:
        raise fault.empty(where, "values", tuple(values.shape))
    _check_features(where, "features", features, values)
    _check_kernel_options(where, normalization, accuracy, feature_gradient)
    if check.flag(where, "exclude_self", exclude_self) and features.requires_grad:
        raise check.invalid(
            where,
            "features requires a gradient, which a filter with exclude_self=True has not; expected "
            "features.detach()",
        )
    refusals.check_transforms(where, values, features)
    keep = _is_differentiated(values, features)
    flat = values.flatten(2)
    result, _ = torch.ops.crfseg.filter(
        flat, features, normalization, accuracy, feature_gradient, exclude_self, keep
    )
    filtered: Tensor = result.reshape(values.shape)
    return filtered


def _is_differentiated(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _check_kernel_options(where: str, normalization: Any, accuracy: Any, form: Any) -> None:
    check.choice(where, "normalization", normalization, tuple(NORMALIZATIONS))
    check.choice(where, "accuracy", accuracy, tuple(ACCURACIES))
    check.choice(where, "feature_gradient", form, FORMS)


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
        _check_features(where, name, one, logits)
    n_labels = logits.shape[1]
    for name, one in named_couplings:
        arguments.tensor(where, name, one)
        fits = one.ndim in (1, 2) and all(length == n_labels for length in one.shape)
        arguments.shape(where, name, one, fits, f"({n_labels},) or ({n_labels}, {n_labels})")


def _check_features(where: str, name: str, features: Tensor, values: Tensor) -> None:
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
) -> tuple[list[Tensor], list[int]]:
    """Sigmas of each kernel, and which of them each feature of each kernel is divided by."""
    if sigmas is None:
        if groups is not None:
            raise check.invalid(where, "groups is given but sigmas is None; expected both")
        return [logits.new_ones(1) for _ in features], [0] * sum(one.shape[2] for one in features)
    sigmas = arguments.sequence(where, "sigmas", sigmas, "a list of a tensor per kernel")
    if groups is None:
        groups = [[0] * one.shape[2] for one in features]
    groups = arguments.sequence(where, "groups", groups, "a list of numbers per kernel")
    for name, given in (("sigmas", sigmas), ("groups", groups)):
        arguments.count(where, name, len(given), len(features), "one for each kernel")
    flat: list[int] = []
    for k, (sigma, group) in enumerate(zip(sigmas, groups, strict=True)):
        name = f"sigmas[{k}]"
        arguments.same_device(where, ("logits", logits), (name, sigma))
        arguments.tensor(where, name, sigma)
        arguments.shape(where, name, sigma, sigma.ndim == 1 and sigma.shape[0] > 0, "(G,)")
        flat += _checked_group(where, k, group, features[k].shape[2], sigma.shape[0])
    return sigmas, flat


def _checked_group(where: str, k: int, group: Any, dim: int, n_sigmas: int) -> list[int]:
    name = f"groups[{k}]"
    numbers = arguments.sequence(where, name, group, f"{dim} numbers of sigmas")
    arguments.count(where, name, len(numbers), dim, "one for each feature")
    return [check.integer(where, name, g, at_most=n_sigmas - 1) for g in numbers]
