# SPDX-License-Identifier: MIT
"""Losses that ask segmentations to follow the image's edges where no labels are given."""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from crfseg import _check as check
from crfseg.lattice import ACCURACIES

from . import _arguments as arguments
from ._pixels import bilateral_features, check_image
from .functional import filter as gaussian_filter

_MASKS: Final = (*arguments.LEVELS, torch.bool, torch.int64)
_ROUNDING: Final = 1e-2  # what probabilities in half precision may be off by


class DenseCRFLoss(nn.Module):
    """The dense CRF's energy of soft segmentations, relaxed: Tang et al., "On Regularized Losses".

    loss = -weight / N sum_c S_c^T K S_c, with S the probabilities inside the region of interest and
    K the bilateral Gaussian kernel, not normalised and j = i included (ECCV 2018, section 3.1).
    Probabilities that sum to 1 make that Potts' cost of neighbours that differ, up to a constant.
    It is a sum over pairs of pixels, so its values grow with the size of the image and with the
    area of the kernel, and useful weights are small: 1e-9 to 1e-7 as published.

    Args:
        sigma_xy: reach in pixels of the full image.
        sigma_rgb: contrast that counts as an edge, in levels of 0..255.
        weight: of the loss.
        scale: images and probabilities are shrunk to this share of their size first.
        accuracy: "fast" or "fine", as for ``crfseg.refine``.

    Raises:
        TypeError, ValueError: if an argument is not as described.
    """

    def __init__(
        self,
        sigma_xy: float = 100.0,
        sigma_rgb: float = 15.0,
        weight: float = 1e-7,
        *,
        scale: float = 0.5,
        accuracy: str = "fast",
    ) -> None:
        super().__init__()
        where = "DenseCRFLoss"
        self.sigma_xy = check.positive(where, "sigma_xy", sigma_xy)
        self.sigma_rgb = check.positive(where, "sigma_rgb", sigma_rgb)
        self.weight = check.finite(where, "weight", weight)
        self.scale = check.positive(where, "scale", scale)
        self.accuracy = check.choice(where, "accuracy", accuracy, tuple(ACCURACIES))

    def forward(self, probs: Tensor, image: Tensor, roi: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            probs: (N, C, H, W) probabilities: softmax of logits.
            image: (N, 3, H, W) levels of 0..255, float or uint8.
            roi: (N, H, W) or (N, 1, H, W), 1 where pixels count and 0 elsewhere, in padding for
                example; None: all count.

        Raises:
            TypeError, ValueError: if an argument is not as described.
        """
        where = "DenseCRFLoss"
        probs = _checked_probs(where, probs, image)
        height, width = probs.shape[2:]
        check_image(where, image, len(probs), (height, width))
        inside = None if roi is None else _mask(where, "roi", roi, probs, (height, width))
        if self.scale != 1.0:
            size = [max(1, int(length * self.scale)) for length in probs.shape[2:]]
            probs = functional.interpolate(probs, size, mode="bilinear", align_corners=False)
            image = functional.interpolate(image.to(torch.float32), size, mode="nearest")
            if inside is not None:
                inside = functional.interpolate(inside, size, mode="nearest")
        features = _scaled(probs, image, self.sigma_xy * self.scale, self.sigma_rgb)
        masked = probs if inside is None else probs * inside.to(probs.dtype)
        filtered = gaussian_filter(masked, features, accuracy=self.accuracy)
        return -self.weight / len(probs) * (masked * filtered).sum()

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return (
            f"sigma_xy={self.sigma_xy}, sigma_rgb={self.sigma_rgb}, weight={self.weight}, "
            f"scale={self.scale}"
        )


class GatedCRFLoss(nn.Module):
    """The dense CRF's energy between gated pixels: Obukhov et al., "Gated CRF Loss" (2019).

    loss = weight / D sum_i d_i sum_{j != i} k(i, j) s_j (1 - <y_i, y_j>)

    with y the probabilities, k the bilateral Gaussian kernel, d and s the gates of destinations and
    sources. D is the sum of the destinations' gate; if there is none, of the sources'; if there is
    none either, the number of pixels: values are of the order of ``weight`` times the kernel's area
    in pixels, whatever the image's size. Where the paper cuts k off at a few pixels, the lattice
    covers all of it.

    Args:
        sigma_xy: reach in pixels of ``probs``.
        sigma_rgb: contrast that counts as an edge, in levels of 0..255.
        weight: of the loss.
        accuracy: "fast" or "fine", as for ``crfseg.refine``.
        exclude_self: leave out j = i, as the paper does. What the lattice has there takes longer
            to find than all of the rest (half a second for 200,000 pixels): False leaves it in.

    Raises:
        TypeError, ValueError: if an argument is not as described.
    """

    def __init__(
        self,
        sigma_xy: float = 6.0,
        sigma_rgb: float = 25.5,
        weight: float = 0.1,
        *,
        accuracy: str = "fast",
        exclude_self: bool = True,
    ) -> None:
        super().__init__()
        where = "GatedCRFLoss"
        self.sigma_xy = check.positive(where, "sigma_xy", sigma_xy)
        self.sigma_rgb = check.positive(where, "sigma_rgb", sigma_rgb)
        self.weight = check.finite(where, "weight", weight)
        self.accuracy = check.choice(where, "accuracy", accuracy, tuple(ACCURACIES))
        self.exclude_self = check.flag(where, "exclude_self", exclude_self)

    def forward(
        self,
        probs: Tensor,
        image: Tensor,
        *,
        source: Tensor | None = None,
        destination: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            probs: (N, C, H, W) probabilities: softmax of logits.
            image: (N, 3, rows, columns) levels of 0..255, float or uint8, brought to H x W by
                averaging.
            source: (N, rows, columns) or with an axis of 1, 1 where pixels may speak to others and
                0 elsewhere; None: everywhere. Averaged pixels speak if all of theirs do.
            destination: the same of pixels that are spoken to; published practice takes those
                without a label.

        Raises:
            TypeError, ValueError: if an argument is not as described.
        """
        where = "GatedCRFLoss"
        probs = _checked_probs(where, probs, image)
        check_image(where, image, len(probs))
        if image.requires_grad:
            raise check.invalid(
                where, "image requires a gradient, which this loss has not; expected image.detach()"
            )
        rows, columns = image.shape[2:]
        height, width = probs.shape[2:]
        levels = functional.adaptive_avg_pool2d(image.to(torch.float32), (height, width))
        gates = [
            None if one is None else _gate(_mask(where, name, one, probs, (rows, columns)), probs)
            for name, one in (("source", source), ("destination", destination))
        ]
        features = _scaled(probs, levels, self.sigma_xy, self.sigma_rgb)
        return self.weight * self._energy(probs, features, *gates)

    def _energy(
        self, probs: Tensor, features: Tensor, source: Tensor | None, destination: Tensor | None
    ) -> Tensor:
        ones = torch.ones_like(probs[:, :1])
        speaking = ones if source is None else source.to(probs.dtype)
        hearing = ones if destination is None else destination.to(probs.dtype)
        # One more channel filters what 1 - <y_i, y_j> has beside the probabilities.
        given = torch.cat([speaking * probs, speaking], dim=1)
        filtered = gaussian_filter(
            given, features, accuracy=self.accuracy, exclude_self=self.exclude_self
        )
        agreeing = (probs * filtered[:, :-1]).sum(dim=1, keepdim=True)
        total = (hearing * (filtered[:, -1:] - agreeing)).sum()
        counted = speaking if destination is None else hearing
        return total / counted.sum().clamp(min=1)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"sigma_xy={self.sigma_xy}, sigma_rgb={self.sigma_rgb}, weight={self.weight}"


def _scaled(like: Tensor, image: Tensor, sigma_xy: float, sigma_rgb: float) -> Tensor:
    """(N, H * W, 2 + K) features over their sigmas."""
    features = bilateral_features(like, image)
    sigmas = [sigma_xy] * 2 + [sigma_rgb] * (features.shape[2] - 2)
    return features / features.new_tensor(sigmas)


def _gate(mask: Tensor, like: Tensor) -> Tensor:
    """Gates of averaged pixels: open where all of theirs are."""
    height, width = like.shape[2:]
    share = functional.adaptive_avg_pool2d(mask, (height, width))
    return (share > 1 - 1e-6).to(like.dtype)


def _mask(where: str, name: str, value: Any, like: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 1, H, W) float32 mask."""
    arguments.same_device(where, ("probs", like), (name, value))
    mask = arguments.tensor(where, name, value, _MASKS)
    n_items, (height, width) = len(like), size
    whole = mask[:, None] if mask.ndim == 3 else mask
    fits = whole.ndim == 4 and whole.shape[0] == n_items and whole.shape[1] == 1
    fits = fits and whole.shape[2] == height and whole.shape[3] == width
    arguments.shape(where, name, mask, fits, f"({n_items}, {height}, {width})")
    if arguments.has_values(mask) and bool(((mask != 0) & (mask != 1)).any()):
        raise check.invalid(
            where, f"{name} has other values than 0 and 1; expected a mask, such as target == 255"
        )
    return whole.to(torch.float32)


def _checked_probs(where: str, probs: Any, image: Any) -> Tensor:
    """Probabilities in float32 at least: sums over pixels are beyond half precision."""
    arguments.same_device(where, ("probs", probs), ("image", image))
    arguments.tensor(where, "probs", probs)
    arguments.tensor(where, "image", image, arguments.LEVELS)
    arguments.shape(where, "probs", probs, probs.ndim == 4 and probs.numel() > 0, "(N, C, H, W)")
    precise: Tensor = probs.to(torch.promote_types(probs.dtype, torch.float32))
    if not arguments.has_values(probs):
        return precise
    low, high = (float(bound) for bound in probs.detach().aminmax())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        found = f"probs has values from {low:.3g} to {high:.3g}"
        raise check.invalid(where, f"{found}; expected probabilities, as softmax gives them")
    return precise
