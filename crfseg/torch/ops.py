# SPDX-License-Identifier: MIT
"""The ops ``crfseg::mean_field`` and ``crfseg::filter``: PyTorch's side of the native core.

They have kernels for the CPU, which are here, and for CUDA devices (``_device_ops``), fake kernels
for ``torch.compile`` and ``torch.export``, gradients, and float32 under autocast; ``functional``
checks and completes their arguments. Each op returns a token beside its result (``_tapes``): the
way back finds there what the way forth left, and goes it again where it does not.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op, register_autocast, register_vmap

from . import _batches as batches
from . import _device_ops as device
from . import _filters as filters
from . import _refusals as refusals
from ._batches import How, Model, Wanted
from ._tapes import kept_by, token_of
from ._views import finish, like, target, view

_MEAN_FIELD, _FILTER = "mean_field", "filter"
# How large a lattice is has to be known on the host: compiled code leaves them out of CUDA graphs.
_op_for_cpu = partial(
    custom_op, mutates_args=(), device_types="cpu", tags=(torch.Tag.cudagraph_unsafe,)
)


@_op_for_cpu("crfseg::mean_field")
def mean_field_op(
    logits: Tensor,
    features: Sequence[Tensor],
    sigmas: Sequence[Tensor],
    couplings: Sequence[Tensor],
    groups: Sequence[int],
    iterations: int,
    last: int,
    recompute: bool,
    implicit: bool,
    tolerance: float,
    output: str,
    normalization: str,
    accuracy: str,
    feature_gradient: str,
    sigma_step: float,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """Logits or marginals of a batch, and the token for the way back if it is to be kept."""
    how = How(
        iterations,
        last if keep else 0,
        recompute,
        implicit,
        tolerance,
        output,
        normalization,
        accuracy,
        feature_gradient,
        sigma_step,
    )
    result = torch.empty_like(logits)
    written = target(result)
    tapes = batches.forth(
        _MEAN_FIELD, view(logits), Model.of(view, features, sigmas, couplings, groups), how, written
    )
    return finish(result, written), token_of(tapes if keep else None)


@_op_for_cpu("crfseg::mean_field_backward")
def mean_field_backward_op(
    gradient: Tensor,
    token: Tensor,
    logits: Tensor,
    features: Sequence[Tensor],
    sigmas: Sequence[Tensor],
    couplings: Sequence[Tensor],
    groups: Sequence[int],
    iterations: int,
    last: int,
    recompute: bool,
    implicit: bool,
    tolerance: float,
    output: str,
    normalization: str,
    accuracy: str,
    feature_gradient: str,
    sigma_step: float,
    by_features: Sequence[bool],
    by_sigmas: Sequence[bool],
) -> list[Tensor]:
    """DLoss by logits, features, sigmas and couplings; without elements where not wanted."""
    how = How(
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
    model = Model.of(view, features, sigmas, couplings, groups)
    tapes = kept_by(token) or batches.forth(_MEAN_FIELD, view(logits), model, how, None)
    by_logits = torch.empty_like(logits)
    written = target(by_logits)
    wanted = Wanted(list(by_features), list(by_sigmas))
    found = batches.back(tapes, view(gradient), model, how, wanted, written)
    if not found.converged:
        warnings.warn(refusals.NOT_CONVERGED, RuntimeWarning, stacklevel=2)
    return [
        finish(by_logits, written),
        *map(_like_or_nothing, found.features, features),
        *map(_like_or_nothing, found.sigmas, sigmas),
        *map(_like_or_nothing, found.couplings, couplings),
    ]


@mean_field_op.register_fake
def _(logits: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    refusals.check_level(_MEAN_FIELD)
    return torch.empty_like(logits), logits.new_empty(1, dtype=torch.uint8)


@mean_field_backward_op.register_fake
def _(
    _: Tensor,
    __: Tensor,
    logits: Tensor,
    features: Sequence[Tensor],
    sigmas: Sequence[Tensor],
    couplings: Sequence[Tensor],
    *how: Any,
) -> list[Tensor]:
    by_features, by_sigmas = how[-2:]
    wanted = [*by_features, *by_sigmas, *(True for _ in couplings)]
    given = [*features, *sigmas, *couplings]
    return [
        torch.empty_like(logits),
        *(
            tensor.new_empty(tensor.shape if is_wanted else 0)
            for tensor, is_wanted in zip(given, wanted, strict=True)
        ),
    ]


def _keep_mean_field(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, features, sigmas, couplings, *how = inputs
    ctx.n_kernels = len(features)
    ctx.how = how[:-1]
    ctx.save_for_backward(output[1], logits, *features, *sigmas, *couplings)


def _mean_field_back(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    token, logits, *rest = ctx.saved_tensors
    n = ctx.n_kernels
    features, sigmas, couplings = rest[:n], rest[n : 2 * n], rest[2 * n :]
    _, by_features, by_sigmas, by_couplings, *_ = ctx.needs_input_grad
    by_logits, *found = torch.ops.crfseg.mean_field_backward(
        gradient, token, logits, features, sigmas, couplings, *ctx.how, by_features, by_sigmas
    )
    wanted = [*by_features, *by_sigmas, *by_couplings]
    of = [one if is_wanted else None for one, is_wanted in zip(found, wanted, strict=True)]
    # An empty list is no leaf to autograd, and is returned as what it is.
    by_groups: list[None] | None = None if n else []
    nothing = [None] * len(ctx.how)
    return by_logits, of[:n], of[n : 2 * n], of[2 * n :], by_groups, *nothing


@_op_for_cpu("crfseg::lattices")
def lattices_op(
    features: Tensor,
    normalization: str,
    accuracy: str,
    exclude_self: bool,
    width: int,  # noqa: ARG001 - of images, for devices, whose tiles are squares; 0: none
    where: str,
    name: str,
) -> Tensor:
    """The token of what filters over these features go through; errors call them ``name``."""
    return token_of(
        filters.lattices_of(where, name, view(features), normalization, accuracy, exclude_self)
    )


@_op_for_cpu("crfseg::filter")
def filter_op(
    values: Tensor,
    features: Tensor,
    lattices: Tensor,
    normalization: str,
    accuracy: str,
    feature_gradient: str,  # noqa: ARG001 - for the way back
    exclude_self: bool,
) -> Tensor:
    """Filtered (B, C, N) values; where ``lattices`` is no token, they are built."""
    built = _lattices(lattices, features, normalization, accuracy, exclude_self)
    result = torch.empty_like(values)
    written = target(result)
    filters.apply(built, view(values), written, transpose=False)
    return finish(result, written)


@_op_for_cpu("crfseg::filter_backward")
def filter_backward_op(
    gradient: Tensor,
    values: Tensor,
    features: Tensor,
    lattices: Tensor,
    normalization: str,
    accuracy: str,
    feature_gradient: str,
    exclude_self: bool,
    by_values: bool,
    by_features: bool,
) -> tuple[Tensor, Tensor]:
    """DLoss by values and by features; without elements where not wanted."""
    built = _lattices(lattices, features, normalization, accuracy, exclude_self)
    found = values.new_empty(0), features.new_empty(0)
    if by_values:
        result = torch.empty_like(values)
        written = target(result)
        filters.apply(built, view(gradient), written, transpose=True)
        found = finish(result, written), found[1]
    if by_features:
        result = features.new_empty(features.shape)
        written = target(result)
        filters.by_features(_FILTER, built, view(gradient), view(values), feature_gradient, written)
        found = found[0], finish(result, written)
    return found


def _lattices(token: Tensor, features: Tensor, *how: Any) -> filters.Lattices:
    kept: filters.Lattices | None = kept_by(token)
    return kept or filters.lattices_of(_FILTER, "features", view(features), *how)


@lattices_op.register_fake
def _(features: Tensor, *_: Any) -> Tensor:
    return features.new_empty(1, dtype=torch.uint8)


@filter_op.register_fake
def _(values: Tensor, *_: Any) -> Tensor:
    refusals.check_level(_FILTER)
    return torch.empty_like(values)


@filter_backward_op.register_fake
def _(_: Tensor, values: Tensor, features: Tensor, *how: Any) -> tuple[Tensor, Tensor]:
    by_values, by_features = how[-2:]
    return (
        torch.empty_like(values) if by_values else values.new_empty(0),
        features.new_empty(features.shape if by_features else 0),
    )


def _keep_filter(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.how = inputs[3:]
    ctx.save_for_backward(*inputs[:3])


def _filter_back(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    wanted = ctx.needs_input_grad[:2]
    found = torch.ops.crfseg.filter_backward(gradient, *ctx.saved_tensors, *ctx.how, *wanted)
    of = [one if is_wanted else None for one, is_wanted in zip(found, wanted, strict=True)]
    return *of, *([None] * (len(ctx.how) + 1))


mean_field_op.register_autograd(_mean_field_back, setup_context=_keep_mean_field)
filter_op.register_autograd(_filter_back, setup_context=_keep_filter)
for _op in (mean_field_op, lattices_op, filter_op):
    register_autocast(_op, "cpu", torch.float32)
    register_autocast(_op, "cuda", torch.float32)
for _op in (mean_field_backward_op, filter_backward_op):
    _op.register_autograd(refusals.double_backward)
for _op, _kernel in (
    (mean_field_op, device.mean_field),
    (mean_field_backward_op, device.mean_field_backward),
    (lattices_op, device.lattices),
    (filter_op, device.filter),
    (filter_backward_op, device.filter_backward),
):
    _op.register_kernel("cuda")(_kernel)
    register_vmap(_op, refusals.vmap)


def _like_or_nothing(found: Any, given: Tensor) -> Tensor:
    return given.new_empty(0) if found is None else like(found, given)
