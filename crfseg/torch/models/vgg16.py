# SPDX-License-Identifier: MIT
"""VGG-16, the trunk of the other networks, and classifiers turned into convolutions.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
2015 (configuration D). Layers have Caffe's names, which public weights of its offspring go by.
"""

from collections import OrderedDict
from collections.abc import Container, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from crfseg import _check as check
from crfseg.torch import _arguments as arguments

WIDTH: Final = 64  # channels of the first block, of which all others are multiples
FC_FACTOR: Final = 64  # fc6 and fc7 have 4096 units
_DEPTHS: Final = (2, 2, 3, 3, 3)
_FACTORS: Final = (1, 2, 4, 8, 8)


def blocks(width: int) -> list[list[tuple[str, int]]]:
    """Names and channels of the convolutions: conv1_1, conv1_2; ...; conv5_1, conv5_2, conv5_3."""
    return [
        [(f"conv{block}_{i}", factor * width) for i in range(1, depth + 1)]
        for block, (depth, factor) in enumerate(zip(_DEPTHS, _FACTORS, strict=True), 1)
    ]


def trunk(
    pools: Sequence[nn.Module],
    *,
    width: int = WIDTH,
    first_padding: int = 1,
    last_dilation: int = 1,
) -> nn.Sequential:
    """The 13 convolutions, each with its ReLU, and after each block the pool given for it.

    ``last_dilation`` is that of the fifth block, for when a pool before it has lost its stride.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for block, (convs, pool) in enumerate(zip(blocks(width), pools, strict=True), 1):
        dilation = last_dilation if block == len(pools) else 1
        for name, wide in convs:
            padding = first_padding if name == "conv1_1" else dilation
            layers[name] = nn.Conv2d(channels, wide, 3, padding=padding, dilation=dilation)
            layers[name.replace("conv", "relu")] = nn.ReLU(inplace=True)
            channels = wide
        layers[f"pool{block}"] = pool
    return nn.Sequential(layers)


def classifier(
    fc6: nn.Conv2d, num_classes: int, score: str = "fc8", deviation: float = 0.01
) -> nn.Sequential:
    """fc6, fc7 and the scores as convolutions; dropout takes single elements, as in Caffe.

    The weights of the scores begin normally distributed.
    """
    units = fc6.out_channels
    fc7 = nn.Conv2d(units, units, 1)
    scores = nn.Conv2d(units, num_classes, 1)
    he(fc6)
    he(fc7)
    normal(scores, deviation)
    layers = [("fc6", fc6), ("relu6", nn.ReLU(inplace=True)), ("drop6", nn.Dropout(0.5)),
              ("fc7", fc7), ("relu7", nn.ReLU(inplace=True)), ("drop7", nn.Dropout(0.5)),
              (score, scores)]  # fmt: skip
    return nn.Sequential(OrderedDict(layers))


def he(module: nn.Module) -> None:
    """Convolutions as He et al. (ICCV 2015) have them begin: N(0, 2 / inputs), biases 0.

    What trains without ImageNet's weights; those replace it.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def normal(layer: nn.Conv2d | nn.ConvTranspose2d, deviation: float) -> None:
    """Begin with weights of N(0, deviation^2) and biases of 0."""
    nn.init.normal_(layer.weight, std=deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def features(
    layers: nn.Sequential, x: Tensor, wanted: Container[str] = ()
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the last layer gives, and what those that are wanted by name give on the way."""
    found = {}
    for name, layer in layers.named_children():
        x = layer(x)
        if name in wanted:
            found[name] = x
    return x, found


class VGG16(nn.Module):
    """The image classifier as a convolution: (N, 3, H, W) to (N, num_classes, h, w) scores.

    224 x 224 gives 1 x 1, 384 x 384 gives 6 x 6: the network as it stands on a grid of stride 32
    (Long et al., CVPR 2015). It takes torchvision's weights; ``load_weights`` reshapes them.

    Args:
        num_classes: of ImageNet there are 1000.
        width: channels of the first block; 64 is the paper's, others are for experiments.
    """

    def __init__(self, num_classes: int = 1000, *, width: int = WIDTH) -> None:
        super().__init__()
        n_classes = check.integer("vgg16", "num_classes", num_classes, at_least=1)
        width = check.integer("vgg16", "width", width, at_least=1)
        self.trunk = trunk([nn.MaxPool2d(2) for _ in _DEPTHS], width=width)
        he(self.trunk)
        fc6 = nn.Conv2d(8 * width, FC_FACTOR * width, 7)
        self.classifier = classifier(fc6, n_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Scores before softmax."""
        scores: Tensor = self.classifier(self.trunk(image))
        return scores


def vgg16(num_classes: int = 1000, *, width: int = WIDTH) -> VGG16:
    """``VGG16``, its weights random: see ``load_weights``."""
    return VGG16(num_classes, width=width)


def convolutional(layers: nn.Sequential, size: tuple[int, int]) -> nn.Sequential:
    """The fully connected end of any classifier as convolutions, which take images of any size.

    The first ``Linear`` looks at all of a map of ``size`` and becomes a convolution with kernels of
    that size; the others become 1 x 1. Outputs are equal where the map has that size, and beyond it
    one per position: VGG-16's gives 1 x 1 scores at 224 pixels and 6 x 6 at 384. What shrinks maps
    to a fixed size before it (torchvision's ``avgpool``) has to be left out.

    Args:
        layers: ``Linear``, ``ReLU``, ``Dropout``, ``Identity`` and ``Flatten`` in any order.
        size: (height, width) of the map that the first ``Linear`` sees.

    Returns:
        A sequence of layers of its own; nothing is shared with ``layers``.

    Raises:
        TypeError: if a layer is of another kind.
        ValueError: if the inputs of the first ``Linear`` are no multiple of the map.
    """
    where = "convolutional"
    arguments.module(where, "layers", layers)
    found: list[nn.Module] = []
    sides = check.parts(where, "size", size, ("height", "width"))
    height, width = (check.integer(where, "size", side, at_least=1) for side in sides)
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            found.append(_convolution(where, i, layer, (height, width)))
            height = width = 1
        elif not isinstance(layer, nn.Flatten):
            found.append(_kept(where, i, layer))
    return nn.Sequential(*found)


def _convolution(where: str, i: int, layer: nn.Linear, size: tuple[int, int]) -> nn.Conv2d:
    channels, rest = divmod(layer.in_features, size[0] * size[1])
    if rest:
        raise check.invalid(
            where,
            f"layers[{i}] has {layer.in_features} inputs; expected a multiple of "
            f"{size[0]} x {size[1]}",
        )
    is_biased = layer.bias is not None
    conv = nn.Conv2d(channels, layer.out_features, size, bias=is_biased, device="meta")
    conv.weight = nn.Parameter(layer.weight.detach().clone().reshape(conv.weight.shape))
    if is_biased:
        conv.bias = nn.Parameter(layer.bias.detach().clone())
    return conv


def _kept(where: str, i: int, layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.ReLU):
        return nn.ReLU(inplace=True)
    if isinstance(layer, nn.Dropout):
        return nn.Dropout(layer.p)
    if isinstance(layer, nn.Identity):
        return nn.Identity()
    raise check.mistyped(
        where,
        f"layers[{i}] is {type(layer).__name__}; expected Linear, ReLU, Dropout, Identity or "
        "Flatten",
    )


def decimate(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Every k-th entry along every axis, so that ``shape`` results: fc6 and fc7 made smaller.

    4096 units become 1024 by taking units 0, 4, 8 ..., a kernel of 7 x 7 becomes 3 x 3 by taking
    rows and columns 0, 3 and 6, or 4 x 4 by 0, 2, 4 and 6. The DeepLab paper says "simple
    decimation"; these indices are the custom of its ports, the authors' own are not published.
    """
    where = "decimate"
    arguments.any_tensor(where, "weight", weight)
    shape = [
        check.integer(where, "shape", n)
        for n in arguments.sequence(where, "shape", shape, "an integer for each axis of weight")
    ]
    if len(shape) != weight.ndim or any(
        not 1 <= m <= n for m, n in zip(shape, weight.shape, strict=True)
    ):
        raise check.invalid(
            where, f"shape is {tuple(shape)}; expected at most {tuple(weight.shape)}"
        )
    for axis, (n, m) in enumerate(zip(weight.shape, shape, strict=True)):
        step = (n - 1) // (m - 1) if m > 1 else n
        weight = weight.index_select(axis, torch.arange(0, m, device=weight.device) * step)
    return weight
