# SPDX-License-Identifier: MIT
"""SegNet: a decoder that puts values back where max pooling took them from.

Badrinarayanan, Kendall & Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
Image Segmentation", PAMI 2017. The encoder is the 13 convolutions of VGG-16, the decoder their
mirror image; batch normalisation and ReLU follow every convolution but the last.
"""

from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn

from crfseg import _check as check

from .vgg16 import WIDTH, blocks, he


class _Conv(NamedTuple):
    name: str
    inputs: int
    outputs: int


class SegNet(nn.Module):
    """(N, in_channels, H, W) to scores (N, num_classes, H, W) of any size; see ``segnet``.

    Pools look at incomplete windows too, as Caffe's do, so that no pixel is unseen.
    """

    def __init__(self, num_classes: int, *, in_channels: int, width: int) -> None:
        super().__init__()
        encoder = _encoder(in_channels, width)
        decoder = [_mirrored(convs) for convs in reversed(encoder)]
        last = decoder[-1].pop()
        self.encoder = nn.ModuleList([_block(convs) for convs in encoder])
        self.pool = nn.MaxPool2d(2, ceil_mode=True, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.decoder = nn.ModuleList([_block(convs) for convs in decoder])
        scores = nn.Conv2d(last.inputs, num_classes, 3, padding=1)
        self.decoder[-1].add_module(last.name, scores)
        he(self)

    def forward(self, image: Tensor) -> Tensor:
        """Scores before softmax."""
        x, pooled = image, []
        for block in self.encoder:
            x = block(x)
            size = x.shape[-2:]
            x, indices = self.pool(x)
            pooled.append((size, indices))
        for block in self.decoder:
            size, indices = pooled.pop()
            x = block(self.unpool(x, indices, output_size=size))
        return x


def segnet(num_classes: int = 21, *, in_channels: int = 3, width: int = WIDTH) -> SegNet:
    """SegNet, its weights as He et al. have them begin; ``load_imagenet_weights`` fits the encoder.

    Args:
        num_classes: how many scores there are for each pixel.
        in_channels: of the image.
        width: channels of the first block; 64 is the paper's, others are for experiments.
    """
    n_classes = check.integer("segnet", "num_classes", num_classes, at_least=1)
    in_channels = check.integer("segnet", "in_channels", in_channels, at_least=1)
    width = check.integer("segnet", "width", width, at_least=1)
    return SegNet(n_classes, in_channels=in_channels, width=width)


def _encoder(in_channels: int, width: int) -> list[list[_Conv]]:
    found, channels = [], in_channels
    for block in blocks(width):
        convs = []
        for name, outputs in block:
            convs.append(_Conv(name, channels, outputs))
            channels = outputs
        found.append(convs)
    return found


def _mirrored(convs: list[_Conv]) -> list[_Conv]:
    return [_Conv(f"{name}_D", outputs, inputs) for name, inputs, outputs in reversed(convs)]


def _block(convs: list[_Conv]) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, inputs, outputs in convs:
        layers[name] = nn.Conv2d(inputs, outputs, 3, padding=1)
        layers[f"{name}_bn"] = nn.BatchNorm2d(outputs)
        layers[f"{name}_relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)
