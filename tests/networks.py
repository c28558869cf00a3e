# SPDX-License-Identifier: MIT
"""What tests of networks share: linear twins, whose outputs can be foreseen."""

import torch
from torch import nn


def on_meta(make, *args, **kwargs):
    """A network without values: shapes and counts cost nothing."""
    with torch.device("meta"):
        return make(*args, **kwargs)


def linear(model):
    """The same geometry, all weights positive and equal: average pools, no biases, no dropout.

    Every weight of a layer is the same, so that what an output sees lies symmetrically about its
    middle. Transposed convolutions with bilinear kernels stay as they are.
    """
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.MaxPool2d):
                setattr(parent, name, averaging(layer))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.fill_(1 / layer.weight[0].numel())
                if layer.bias is not None:
                    layer.bias.zero_()
    return model.double().eval()


def averaging(pool):
    return nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, ceil_mode=pool.ceil_mode)


def columns_seen(model, size, point):
    """First and last column of a strip that a score depends on."""
    strip = torch.ones(1, 3, *size, dtype=torch.float64, requires_grad=True)
    scores = model(strip)
    scores[0, 0, scores.shape[2] // 2, point].backward()
    seen = strip.grad.abs().sum(dim=(0, 1, 2)).nonzero()[:, 0]
    return int(seen.min()), int(seen.max())
