# SPDX-License-Identifier: MIT
"""Tensors as the native core sees them, and its arrays as tensors."""

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def floats(tensor: torch.Tensor) -> torch.Tensor:
    """float32 view of a tensor of any strides, without a gradient; others are converted."""
    return tensor.detach().to(torch.float32)


def width_of(values: torch.Tensor) -> int:
    """How wide (B, C, *spatial) images are, or the slices of volumes; 0 for points."""
    return values.shape[-1] if values.ndim > 3 else 0


def view(tensor: torch.Tensor) -> Floats:
    """The same of a CPU tensor, as an array."""
    array: Floats = floats(tensor).numpy()
    return array


def like(array: NDArray[np.float32] | NDArray[np.float64], given: torch.Tensor) -> torch.Tensor:
    """A result in the dtype of what it belongs to."""
    return torch.from_numpy(array).to(given.dtype)


def target(tensor: torch.Tensor) -> Floats:
    """Where a result is written: the tensor's own memory if it is float32, else an array."""
    if tensor.dtype == torch.float32:
        return view(tensor)
    return np.empty(tensor.shape, np.float32)


def finish(tensor: torch.Tensor, written: Floats) -> torch.Tensor:
    """The tensor, once its ``target`` has been written."""
    if tensor.dtype != torch.float32:
        tensor.copy_(torch.from_numpy(written))
    return tensor
