# SPDX-License-Identifier: MIT
"""What the ops cannot do, said where it is tried."""

from typing import Any, Final, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from crfseg._fault_device import CudaError

NOT_CONVERGED: Final = (
    "[mean_field] implicit=True, but the marginals did not come to rest or the series of the "
    "gradient did not die away: the gradient is not that of a fixed point; expected more "
    "iterations, a larger tolerance, or smaller weights"
)


def check_transforms(where: str, *tensors: Tensor) -> None:
    """Refuse torch.func and forward-mode AD, some of which would take the ops for constants."""
    if torch.compiler.is_compiling():
        return  # the fake kernels refuse it then
    if torch._C._functorch.peek_interpreter_stack() is not None:  # noqa: SLF001 - no public name
        raise _unsupported(
            where, "torch.func transforms and torch.vmap are", "torch.autograd.grad() or backward()"
        )
    if any(_tangent(tensor) is not None for tensor in tensors):
        raise _unsupported(where, "forward-mode differentiation is", "backward()")


def check_level(where: str) -> None:
    """Refuse forward-mode AD where the tensors are fake and do not show that they are dual."""
    if forward_ad._current_level >= 0:  # noqa: SLF001 - no public name
        raise _unsupported(where, "forward-mode differentiation is", "backward()")


def double_backward(*_: Any) -> NoReturn:
    """Gradients of gradients."""
    raise _unsupported("crfseg.torch", "double backward is", "backward() without create_graph=True")


def vmap(*_: Any, **__: Any) -> NoReturn:
    """torch.vmap where nobody has refused it before."""
    raise _unsupported("crfseg.torch", "torch.vmap is", "a batch along the first axis")


def capture(where: str) -> CudaError:
    """A CUDA graph that is being recorded, in which nothing can be waited for."""
    return CudaError(
        f"[{where}] the stream is being captured into a CUDA graph, but how far features reach and "
        "how large their lattices are has to be known; expected the call outside of the capture"
    )


def _tangent(tensor: Tensor) -> Any:
    return forward_ad.unpack_dual(tensor).tangent  # type: ignore[no-untyped-call]


def _unsupported(where: str, what: str, expected: str) -> NotImplementedError:
    return NotImplementedError(f"[{where}] {what} not supported; expected {expected}")
