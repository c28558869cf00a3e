# SPDX-License-Identifier: MIT
"""mean_field and filter: the ops with their arguments checked."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from crfseg import _check as check
from crfseg import _fault as fault

from . import _arguments as arguments
from . import _refusals as refusals
from ._batches import How
from ._messages import Filter
from ._model import Model, check_features, check_kernel_options, checked_how, checked_model
from ._views import width_of


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
    dtype; results have the dtype of ``logits``, under autocast float32, and are where it is: in CPU
    memory or on a CUDA device, which takes up to 1024 labels and 8 kernels, and not inside the
    capture of a CUDA graph.

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
        tolerance: see ``implicit``. On a CUDA device the items of a batch go on together until all
            of them have come to rest.
        feature_gradient: how features get their gradient where asked for: "exact", of the lattice,
            or "smooth", of the Gaussian that it stands for; see ``crfseg.gradients``.
        sigma_step: sigmas get difference quotients over lattices whose sigma is this share larger
            and smaller; 0 takes the chain rule through ``feature_gradient`` instead.

    Raises:
        TypeError, ValueError: if an argument is not as described.
        NotImplementedError: for double backward and for ``torch.func`` transforms.
    """
    where = "mean_field"
    model = checked_model(where, logits, features, couplings, sigmas, groups)
    how = checked_how(
        where,
        iterations,
        last,
        recompute,
        implicit,
        tolerance,
        output,
        normalization,
        accuracy,
        feature_gradient,
        sigma_step,
    )
    return unrolled(where, logits, model, how)


def unrolled(where: str, logits: Tensor, model: Model, how: How) -> Tensor:
    """Mean field by the native core, of arguments that have been checked."""
    refusals.check_transforms(where, logits, *model.tensors)
    result: Tensor
    result, _ = torch.ops.crfseg.mean_field(
        logits,
        model.features,
        model.sigmas,
        model.couplings,
        [group for of_kernel in model.groups for group in of_kernel],
        *how,
        torch.is_grad_enabled() and any(t.requires_grad for t in (logits, *model.tensors)),
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

    In CPU memory or on a CUDA device, as ``mean_field``.

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
    check_features(where, "features", features, values)
    check_kernel_options(where, normalization, accuracy, feature_gradient)
    if check.flag(where, "exclude_self", exclude_self) and features.requires_grad:
        raise check.invalid(
            where,
            "features requires a gradient, which a filter with exclude_self=True has not; expected "
            "features.detach()",
        )
    refusals.check_transforms(where, values, features)
    how = (normalization, accuracy, feature_gradient)
    width = width_of(values)
    filtered = Filter(where, "features", features, *how, width=width, exclude_self=exclude_self)
    return filtered(values.flatten(2)).reshape(values.shape)
