# SPDX-License-Identifier: MIT
"""U-Net: what every level saw on the way down is joined to it on the way up.

Ronneberger, Fischer & Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015. Where the paper is silent, the authors' network definition counts: a ReLU after each
up-convolution, and dropout after the last two levels of the way down.
"""

import math
from collections import OrderedDict
from typing import Final

from torch import Tensor, cat, nn

from crfseg import _check as check
from crfseg import _fault as fault

from .vgg16 import WIDTH, he, normal

_LEVELS: Final = 4
_CELL: Final = 2**_LEVELS
_SMALLEST: Final = 188  # input that a valid network makes 4 x 4 scores of


class UNet(nn.Module):
    """(N, in_channels, H, W) to scores before softmax; see ``unet``."""

    def __init__(
        self, num_classes: int, *, padding: bool, in_channels: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.is_padded = padding
        wide = [2**level * width for level in range(_LEVELS + 1)]
        inputs = [in_channels, *wide]
        self.down = nn.ModuleList()
        for level, channels in enumerate(wide):
            block = _double(inputs[level], channels, padding)
            if level >= _LEVELS - 1:
                block.add_module("dropout", nn.Dropout(dropout))
            self.down.append(block)
        # Incomplete windows count, so that padded networks take images of any size.
        self.pool = nn.MaxPool2d(2, ceil_mode=padding)
        self.up = nn.ModuleList([_up(channels) for channels in reversed(wide[:-1])])
        self.joined = nn.ModuleList(
            [_double(2 * channels, channels, padding) for channels in reversed(wide[:-1])]
        )
        self.score = nn.Conv2d(width, num_classes, 1)
        he(self)
        for up in self.up:
            _he_transposed(up)

    def forward(self, image: Tensor) -> Tensor:
        """Scores of the image's size if padded; else of its middle, 184 pixels smaller.

        Raises:
            ValueError: if a valid network cannot halve the image's sides four times.
        """
        if not self.is_padded:
            _check_size(image)
        skips: list[Tensor] = []
        x = image
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        skips.pop()
        for up, joined in zip(self.up, self.joined, strict=True):
            skip, x = skips.pop(), up(x)
            # What is larger is cropped: the skip of a valid network in its middle, in a padded one
            # what came of an incomplete window at the end.
            skip, x = _middle(skip, x), _beginning(x, skip)
            x = joined(cat([x, skip], 1))
        scores: Tensor = self.score(x)
        return scores


def unet(
    num_classes: int = 2,
    *,
    padding: bool = False,
    in_channels: int = 3,
    dropout: float = 0.5,
    width: int = WIDTH,
) -> UNet:
    """U-Net, its weights drawn from N(0, 2 / inputs) as the paper has them begin.

    Args:
        num_classes: how many scores there are for each pixel.
        padding: False for the paper's valid convolutions, which turn 572 x 572 into the scores of
            its middle 388 x 388 and take sides of 188, 204 ... 556, 572 ... pixels; True for padded
            ones, which keep any size.
        in_channels: of the image; the paper's have 1.
        dropout: of single elements at the end of the way down.
        width: channels of the first level; 64 is the paper's, others are for experiments.
    """
    where = "unet"
    n_classes = check.integer(where, "num_classes", num_classes, at_least=1)
    padding = check.flag(where, "padding", padding)
    in_channels = check.integer(where, "in_channels", in_channels, at_least=1)
    dropout = check.between(where, "dropout", dropout, zero=True)
    width = check.integer(where, "width", width, at_least=1)
    return UNet(n_classes, padding=padding, in_channels=in_channels, width=width, dropout=dropout)


def _double(inputs: int, outputs: int, padding: bool) -> nn.Sequential:
    pad = 1 if padding else 0
    layers = [("conv1", nn.Conv2d(inputs, outputs, 3, padding=pad)),
              ("relu1", nn.ReLU(inplace=True)),
              ("conv2", nn.Conv2d(outputs, outputs, 3, padding=pad)),
              ("relu2", nn.ReLU(inplace=True))]  # fmt: skip
    return nn.Sequential(OrderedDict(layers))


def _up(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(2 * channels, channels, 2, 2), nn.ReLU(inplace=True))


def _he_transposed(up: nn.Module) -> None:
    """N(0, 2 / inputs), where one tap of each kernel meets a point: inputs are the channels."""
    for layer in up.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            normal(layer, math.sqrt(2 / layer.in_channels))


def _middle(skip: Tensor, like: Tensor) -> Tensor:
    margins = [max(n - m, 0) // 2 for n, m in zip(skip.shape[-2:], like.shape[-2:], strict=True)]
    (top, left), (height, width) = margins, like.shape[-2:]
    return skip[..., top : top + height, left : left + width]


def _beginning(x: Tensor, like: Tensor) -> Tensor:
    return x[..., : like.shape[-2], : like.shape[-1]]


def _check_size(image: Tensor) -> None:
    height, width = image.shape[-2:]
    if any(n < _SMALLEST or (n - _SMALLEST) % _CELL for n in (height, width)):
        raise fault.wrong_shape(
            "UNet.forward",
            "image",
            tuple(image.shape),
            f"sides of {_SMALLEST} pixels and multiples of {_CELL} more, or padding=True",
        )
