# SPDX-License-Identifier: MIT
"""What values tensors have, on any device: the host waits for numbers once, and for no more."""

from collections.abc import Sequence
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from crfseg import _fault as fault

from ._batches import check_coupling, check_finite, check_sigmas

Ends = tuple[list[float], list[float]]
"""The least and the largest of each column; NaN wherever one is among them."""


def numbers_of(ends: Sequence[Sequence[Tensor]]) -> list[Ends]:
    """What ``aminmax`` gave for several tensors."""
    pairs = [torch.stack(list(both)).reshape(2, -1) for both in ends]
    widths = [both.shape[1] for both in pairs]
    rows = torch.cat(pairs, dim=1) if pairs else torch.empty(2, 0)
    lows, highs = (row.split(widths) for row in rows.cpu())
    return [(low.tolist(), high.tolist()) for low, high in zip(lows, highs, strict=True)]


def columns_of(features: Tensor) -> Sequence[Tensor]:
    """The ends of (B, N, d) features, for each of the d."""
    ends: Sequence[Tensor] = features.flatten(0, 1).aminmax(dim=0)
    return ends


def look_at(
    where: str,
    logits: Tensor,
    sigmas: Sequence[Tensor],
    couplings: Sequence[Tensor],
    features: Sequence[Tensor] = (),
) -> list[Ends]:
    """Refuse values of float32 tensors that nothing good comes of; how far the features reach."""
    n = len(sigmas)
    of_logits, *of_tensors = numbers_of(
        [
            *(one.aminmax() for one in (logits, *sigmas, *couplings)),
            *map(columns_of, features),
        ]
    )
    for k, ((low,), (high,)) in enumerate(of_tensors[:n]):
        if not 0.0 < low <= high < inf:
            check_sigmas(where, f"sigmas[{k}]", on_host(sigmas[k]))
    for k, ((low,), (high,)) in enumerate(of_tensors[n : 2 * n]):
        if not -fault.STRONGEST <= low <= high <= fault.STRONGEST:
            check_coupling(where, f"couplings[{k}]", on_host(couplings[k]))
    if not all(isfinite(end) for (end,) in of_logits):
        for i, item in enumerate(logits):
            check_finite(where, f"logits[{i}]", on_host(item))
    return of_tensors[2 * n :]


def on_host(tensor: Tensor) -> Any:
    """A copy as an array, for what errors say of it."""
    return tensor.cpu().numpy()
