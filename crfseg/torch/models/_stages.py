# SPDX-License-Identifier: MIT
"""Staged training: a network begins where one without its last layers has got to."""

import torch
from torch import nn

from crfseg import _check as check


@torch.no_grad()
def copy_common(where: str, name: str, source: nn.Module, target: nn.Module) -> None:
    """Copy the parameters that both have; all of them or, if shapes differ, none.

    Raises:
        ValueError: naming the first of another shape.
    """
    given = source.state_dict()
    common = {key: value for key, value in target.named_parameters() if key in given}
    for key, parameter in common.items():
        if given[key].shape != parameter.shape:
            raise check.invalid(
                where,
                f"{name} has {key} of shape {tuple(given[key].shape)}; expected "
                f"{tuple(parameter.shape)}",
            )
    for key, parameter in common.items():
        parameter.copy_(given[key])
