# SPDX-License-Identifier: MIT
"""The networks that the command line makes, and what any network is given and gives."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from crfseg import _fault as fault
from crfseg.torch.models import DeepLabV1, deeplab_v1, fcn, segnet, unet


class Kind(NamedTuple):
    """A constructor, the crops that it was trained with or that suit it, and the stage before."""

    make: Callable[..., Any]
    crop: int
    before: str | None = None


KINDS: Final[Mapping[str, Kind]] = {
    "deeplab-largefov": Kind(deeplab_v1, 321),
    "deeplab-4x4": Kind(partial(deeplab_v1, "4x4"), 306),
    "deeplab-7x7": Kind(partial(deeplab_v1, "7x7"), 306),
    "deeplab-4x4-dilated": Kind(partial(deeplab_v1, "4x4-dilated"), 306),
    "deeplab-msc-largefov": Kind(partial(deeplab_v1, msc=True), 321, "deeplab-largefov"),
    "fcn-32": Kind(partial(fcn, 32), 321),
    "fcn-16": Kind(partial(fcn, 16), 321, "fcn-32"),
    "fcn-8": Kind(partial(fcn, 8), 321, "fcn-16"),
    "fcn-8-at-once": Kind(partial(fcn, 8, at_once=True), 321),
    "segnet": Kind(segnet, 320),
    "unet": Kind(partial(unet, padding=True), 320),
}


def network_input(model: nn.Module, levels: Tensor) -> Tensor:
    """RGB levels (N, 3, H, W) as a network takes them: by its ``preprocess``, or as DeepLab."""
    own = getattr(model, "preprocess", None)
    if own is not None:
        result: Tensor = own(levels)
        return result
    parameter = next(model.parameters())
    bgr = levels.to(parameter.device, parameter.dtype).flip(1)
    return bgr - bgr.new_tensor(DeepLabV1.means)[:, None, None]


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters are; the CPU if it has none."""
    parameter = next(module.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def is_centred(model: nn.Module) -> bool:
    """Whether scores are those of the input's middle, as a valid U-Net's are."""
    return getattr(model, "is_padded", True) is False


def full_scores(model: nn.Module, levels: Tensor) -> Tensor:
    """Scores at every pixel of levels (N, 3, H, W), by the network's ``full_scores`` if it has one.

    Raises:
        ValueError: if the network gives scores of another size.
    """
    own: Any = getattr(model, "full_scores", model)
    scores: Tensor = own(network_input(model, levels))
    if scores.shape[-2:] != levels.shape[-2:]:
        raise fault.wrong_shape(
            "fit",
            "scores",
            tuple(scores.shape),
            f"one at every pixel, {tuple(levels.shape[-2:])}; validation needs a network that "
            "gives them, or has a method full_scores",
        )
    return scores
