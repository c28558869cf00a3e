# SPDX-License-Identifier: MIT
"""The ops' kernels for CUDA devices, as ``ops`` registers them."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _refusals as refusals
from ._batches import How, Model, Wanted
from ._device_batches import Tape
from ._device_filters import Lattices
from ._places import Home, finish, target
from ._tapes import kept_by, token_of
from ._views import floats

_MEAN_FIELD, _FILTER = "mean_field", "filter"


def mean_field(
    logits: Tensor,
    features: Sequence[Tensor],
    sigmas: Sequence[Tensor],
    couplings: Sequence[Tensor],
    groups: Sequence[int],
    *how_and_keep: Any,
) -> tuple[Tensor, Tensor]:
    """Logits or marginals of a batch, and the token for the way back if it is to be kept."""
    *how, keep = how_and_keep
    chosen = How(*how) if keep else How(*how)._replace(last=0)
    result = torch.empty_like(logits)
    if len(logits) == 0:
        return result, token_of(None, logits.device)
    written = target(result)
    tape = _forth(logits, Model.of(floats, features, sigmas, couplings, groups), chosen, written)
    return finish(result, written), token_of(tape if keep else None, logits.device)


def mean_field_backward(
    gradient: Tensor,
    token: Tensor,
    logits: Tensor,
    features: Sequence[Tensor],
    sigmas: Sequence[Tensor],
    couplings: Sequence[Tensor],
    groups: Sequence[int],
    *how_and_wanted: Any,
) -> list[Tensor]:
    """DLoss by logits, features, sigmas and couplings; without elements where not wanted."""
    *of_how, by_features, by_sigmas = how_and_wanted
    how, wanted = How(*of_how), Wanted(list(by_features), list(by_sigmas))
    given = [*features, *sigmas, *couplings]
    by_logits = torch.empty_like(logits)
    if len(logits) == 0:
        are_wanted = [*wanted.features, *wanted.sigmas, *(True for _ in couplings)]
        pairs = zip(given, are_wanted, strict=True)
        return [by_logits, *(one.new_zeros(one.shape if is_it else 0) for one, is_it in pairs)]
    model = Model.of(floats, features, sigmas, couplings, groups)
    tape: Tape = kept_by(token) or _forth(logits, model, how, None)

    def back() -> list[Tensor]:
        written = target(by_logits)
        found = tape.back(floats(gradient).flatten(2), model, how, wanted, written)
        if not found.converged:
            warnings.warn(refusals.NOT_CONVERGED, RuntimeWarning, stacklevel=4)
        of_given = [*found.features, *found.sigmas, *found.couplings]
        pairs = zip(of_given, given, strict=True)
        return [finish(by_logits, written), *(_like_or_nothing(*pair) for pair in pairs)]

    return tape.home.run([gradient, by_logits, *given], back)


def _forth(logits: Tensor, model: Model, how: How, out: Tensor | None) -> Tape:
    home = Home(_MEAN_FIELD, logits.device)
    return Tape(_MEAN_FIELD, home, floats(logits), model, how, out)


def _like_or_nothing(found: Tensor | None, given: Tensor) -> Tensor:
    return given.new_empty(0) if found is None else found.to(given.dtype)


def lattices(
    features: Tensor,
    normalization: str,
    accuracy: str,
    exclude_self: bool,
    width: int,
    where: str,
    name: str,
) -> Tensor:
    """The token of what filters over these features go through; errors call them ``name``."""
    if len(features) == 0:
        return token_of(None, features.device)
    built = _built(where, name, features, width, normalization, accuracy, exclude_self)
    return token_of(built, features.device)


def filter(  # noqa: A001 - what the field calls it
    values: Tensor,
    features: Tensor,
    token: Tensor,
    normalization: str,
    accuracy: str,
    feature_gradient: str,  # noqa: ARG001 - for the way back
    exclude_self: bool,
) -> Tensor:
    """Filtered (B, C, N) values; where the token is none of lattices', they are built."""
    result = torch.empty_like(values)
    if len(values) == 0:
        return result
    built = _lattices(token, features, normalization, accuracy, exclude_self)

    def apply() -> list[Tensor]:
        return [result.copy_(built.apply(_FILTER, floats(values), transpose=False))]

    (found,) = built.home.run([values, result], apply)
    return found


def filter_backward(
    gradient: Tensor,
    values: Tensor,
    features: Tensor,
    token: Tensor,
    normalization: str,
    accuracy: str,
    feature_gradient: str,
    exclude_self: bool,
    by_values: bool,
    by_features: bool,
) -> tuple[Tensor, Tensor]:
    """DLoss by values and by features; without elements where not wanted."""
    result = torch.empty_like(values) if by_values else values.new_empty(0)
    if len(values) == 0:
        return result, features.new_zeros(features.shape if by_features else 0)
    built = _lattices(token, features, normalization, accuracy, exclude_self)

    def back() -> list[Tensor]:
        of_result, moved = floats(gradient), features.new_empty(0)
        if by_values:
            result.copy_(built.apply(_FILTER, of_result, transpose=True))
        if by_features:
            found = built.by_features(_FILTER, of_result, floats(values), feature_gradient)
            moved = found.to(features.dtype)
        return [result, moved]

    of_values, of_features = built.home.run([gradient, values, features, result], back)
    return of_values, of_features


def _lattices(token: Tensor, features: Tensor, *how: Any) -> Lattices:
    kept: Lattices | None = kept_by(token)
    return kept or _built(_FILTER, "features", features, 0, *how)


def _built(where: str, name: str, features: Tensor, width: int, *how: Any) -> Lattices:
    return Lattices(where, name, Home(where, features.device), floats(features), width, *how)
