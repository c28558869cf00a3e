# SPDX-License-Identifier: MIT
"""What the way forth leaves for the way back, held by a tensor among an op's outputs.

An op's outputs are tensors alone, so what is no tensor (lattices, marginals in the native core's
layout) hangs on one: its storage holds it, and lives as long as anybody keeps the tensor or a view
of it, be it autograd or compiled code, on whichever device. The token's byte is always 0: an op
with the same inputs has the same outputs. A copy of it (made by hooks that move saved tensors
elsewhere, say) has a storage of its own, which leads to nothing, and the way forth is gone again.
"""

from typing import Any

import torch

_KEPT = "_crfseg_kept"  # PyTorch keeps a storage's attributes for as long as its memory


def token_of(kept: Any, device: torch.device | str = "cpu") -> torch.Tensor:
    """A tensor that keeps something alive; None keeps nothing."""
    token = torch.zeros(1, dtype=torch.uint8, device=device)
    if kept is not None:
        setattr(token.untyped_storage(), _KEPT, kept)
    return token


def kept_by(token: torch.Tensor) -> Any:
    """What ``token_of`` was given, or None if this is not its tensor."""
    return getattr(token.untyped_storage(), _KEPT, None)
