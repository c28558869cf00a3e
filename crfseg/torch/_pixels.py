# SPDX-License-Identifier: MIT
"""Images as tensors, and the features of their pixels: x, y and channels."""

import torch
from torch import Tensor

from crfseg import _check as check
from crfseg import _fault as fault

from . import _arguments as arguments
from . import _refusals as refusals

_MOST_CHANNELS = fault.MOST_DIMENSIONS - 2


def coordinates(like: Tensor) -> Tensor:
    """(1, H * W, 2) x and y of the pixels of a (N, C, H, W) tensor."""
    height, width = like.shape[2:]
    y = torch.arange(height, device=like.device, dtype=torch.float32)
    x = torch.arange(width, device=like.device, dtype=torch.float32)
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
    return grid.reshape(1, height * width, 2)


def bilateral_features(like: Tensor, image: Tensor) -> Tensor:
    """(N, H * W, 2 + K) x, y and channels of (N, K, H, W) images."""
    channels = image.to(torch.float32).flatten(2).transpose(1, 2)
    places = coordinates(like).expand(image.shape[0], -1, -1)
    return torch.cat([places, channels], dim=2)


def check_image(
    where: str, image: Tensor, n_items: int, size: tuple[int, int] | None = None
) -> None:
    """Refuse images that do not go with N scores of H x W, or are not levels of 0..255.

    Without values shapes alone are looked at.
    """
    is_batch = image.ndim == 4 and image.shape[0] == n_items
    expected = f"({n_items}, 3, H, W)"
    fits = is_batch
    if size is not None:
        height, width = size
        expected = f"({n_items}, 3, {height}, {width})"
        fits = is_batch and image.shape[2] == height and image.shape[3] == width
        is_last = is_batch and image.shape[1] == height and image.shape[2] == width
        if is_last and not fits:
            expected += ": image.permute(0, 3, 1, 2) has the channels first"
        elif is_batch and not fits:
            expected += ", the size of the scores (torch.nn.functional.interpolate stretches them)"
    if image.ndim == 3:
        expected += ": image[None] is a batch of one"
    arguments.shape(where, "image", image, fits, expected)
    if not 1 <= image.shape[1] <= _MOST_CHANNELS:
        raise fault.too_many_dimensions(where, "image", 2 + image.shape[1])
    if size is None and image.numel() == 0:
        raise fault.empty(where, "image", tuple(image.shape))
    refusals.check_transforms(where, image)  # which cannot say what values there are
    if arguments.has_values(image) and image.dtype != torch.uint8 and image.numel() > 0:
        _check_levels(where, image)


def _check_levels(where: str, image: Tensor) -> None:
    """Floats that are not finite, or that look scaled to another range than 0..255."""
    low, high = (float(bound) for bound in image.detach().aminmax())
    if not low - low == high - high == 0.0:
        raise check.invalid(
            where, "image has values that are not finite; expected levels of 0..255"
        )
    is_unit = low >= 0.0 and 0.0 < high <= 1.0
    is_whitened = low < 0.0 and high <= 10.0
    if is_unit or is_whitened:
        raise check.invalid(
            where, f"image has values from {low:.3g} to {high:.3g}; expected levels of 0..255"
        )
