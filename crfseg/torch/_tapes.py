# SPDX-License-Identifier: MIT
"""What the way forth leaves for the way back, held by a tensor among an op's outputs.

An op's outputs are tensors alone, so what is no tensor (lattices, marginals in the native core's
layout) hangs on one: its memory belongs to an object that owns the rest too, and that lives as long
as anybody keeps the tensor, be it autograd or compiled code. Where the tensor lies says what is
meant. Its bytes are always 0: an op with the same inputs has the same outputs. A copy of it (made
by hooks that move saved tensors elsewhere, say) leads to nothing, and the way forth is gone again.
"""

from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch


class _Owner(bytearray):
    """The memory of a token, and what it stands for."""

    kept: Any


_owners: WeakValueDictionary[int, _Owner] = WeakValueDictionary()


def token_of(kept: Any) -> torch.Tensor:
    """A tensor that keeps something alive; None keeps nothing."""
    if kept is None:
        return torch.zeros(1, dtype=torch.uint8)
    owner = _Owner(1)
    owner.kept = kept
    token = torch.from_numpy(np.frombuffer(owner, np.uint8))
    _owners[token.data_ptr()] = owner
    return token


def kept_by(token: torch.Tensor) -> Any:
    """What ``token_of`` was given, or None if this is not its tensor."""
    owner = _owners.get(token.data_ptr())
    return None if owner is None else owner.kept
