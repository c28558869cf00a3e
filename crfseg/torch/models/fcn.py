# SPDX-License-Identifier: MIT
"""Fully convolutional networks on VGG-16: FCN-32s, FCN-16s and FCN-8s.

Long, Shelhamer & Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015;
Shelhamer, Long & Darrell, PAMI 2017. Padding, crops and names are those of the authors' reference
networks.
"""

from collections.abc import Mapping
from typing import ClassVar, Final, NamedTuple

import torch
from torch import Tensor, nn

from crfseg import _check as check

from ._stages import copy_common
from .prediction import Predictor
from .vgg16 import FC_FACTOR, WIDTH, classifier, features, he, normal, trunk

_STRIDES: Final = (32, 16, 8)
_PADDING: Final = 100  # of conv1_1: even a small image leaves something for fc6's 7 x 7


class _Skip(NamedTuple):
    """Scores of a pool that are added: channels (times the width), crop, scale when all-at-once."""

    upscore: str
    pool: str
    factor: int
    crop: int
    scale: float


class _Last(NamedTuple):
    """The transposed convolution that leads to the image, and the crop behind it."""

    upscore: str
    crop: int


_SKIPS: Final = (
    _Skip("upscore2", "pool4", 8, 5, 0.01),
    _Skip("upscore_pool4", "pool3", 4, 9, 0.0001),
)
_LAST: Final = {32: _Last("upscore", 19), 16: _Last("upscore16", 27), 8: _Last("upscore8", 31)}


class FCN(Predictor):
    """VGG-16 as a convolution, its scores stretched back to the image; see ``fcn``.

    ``forward`` gives scores of the size of the image, of images less their means, in BGR.
    Transposed convolutions begin as bilinear interpolation, and scores as 0. The last one is fixed
    (it requires no gradient), those between are learned, as the CVPR paper has it; the authors'
    reference networks fix them all and note no significant difference.
    """

    means: ClassVar = (104.00699, 116.66877, 122.67892)

    def __init__(self, stride: int, *, num_classes: int, at_once: bool, width: int) -> None:
        super().__init__()
        self.stride, self.num_classes, self.at_once = stride, num_classes, at_once
        pools = [nn.MaxPool2d(2, ceil_mode=True) for _ in range(5)]
        self.trunk = trunk(pools, width=width, first_padding=_PADDING)
        he(self.trunk)
        fc6 = nn.Conv2d(8 * width, FC_FACTOR * width, 7)
        self.classifier = classifier(fc6, num_classes, "score_fr", deviation=0.0)
        self._skips = _SKIPS[: _STRIDES.index(stride)]
        for skip in self._skips:
            scores = nn.Conv2d(skip.factor * width, num_classes, 1)
            normal(scores, 0.0)
            self.add_module(f"score_{skip.pool}", scores)
            self.add_module(skip.upscore, _bilinear(num_classes, 2))
        last = _bilinear(num_classes, stride)
        self.add_module(_LAST[stride].upscore, last.requires_grad_(False))

    @property
    def constants(self) -> Mapping[str, float]:
        """Caffe's names of weights that are numbers here: what skips are scaled with."""
        skips = self._skips if self.at_once else ()
        return {f"scale_{skip.pool}.weight": skip.scale for skip in skips}

    def forward(self, image: Tensor) -> Tensor:
        """Scores before softmax, (N, num_classes, H, W)."""
        x, taps = features(self.trunk, image, [skip.pool for skip in self._skips])
        scores: Tensor = self.classifier(x)
        for skip in self._skips:
            pool = taps[skip.pool] * skip.scale if self.at_once else taps[skip.pool]
            scores = self.get_submodule(skip.upscore)(scores)
            fine = self.get_submodule(f"score_{skip.pool}")(pool)
            scores = scores + _crop(fine, skip.crop, scores)
        last = _LAST[self.stride]
        return _crop(self.get_submodule(last.upscore)(scores), last.crop, image)

    def initialize_from(self, coarser: "FCN") -> None:
        """Staged training: begin where the network of twice the stride has got to.

        All layers that both have are copied. The scores of the new pool begin with 0, and the
        transposed convolution to the image with bilinear interpolation.

        Raises:
            TypeError: if ``coarser`` is no FCN.
            ValueError: if it is not of twice the stride, or of other sizes.
        """
        where = "FCN.initialize_from"
        if not isinstance(coarser, FCN):
            raise check.mistyped(where, f"coarser is a {type(coarser).__name__}; expected an FCN")
        if coarser.stride != 2 * self.stride:
            raise check.invalid(
                where, f"coarser has stride {coarser.stride}; expected {2 * self.stride}"
            )
        copy_common(where, "coarser", coarser, self)


def fcn(
    stride: int = 32, num_classes: int = 21, *, at_once: bool = False, width: int = WIDTH
) -> FCN:
    """A fully convolutional network, its weights random: see ``load_weights``.

    Args:
        stride: 32, 16 or 8, of the finest scores that take part.
        num_classes: with the background; 21 for PASCAL VOC.
        at_once: scale pool4 by 0.01 and pool3 by 0.0001 before they are scored, so that all streams
            can be trained together from ImageNet's weights (PAMI). Else they are trained in stages:
            ``FCN.initialize_from``.
        width: channels of the first block; 64 is the paper's, others are for experiments.

    Raises:
        ValueError: if there is no such network.
    """
    stride = check.choice("fcn", "stride", stride, _STRIDES)
    n_classes = check.integer("fcn", "num_classes", num_classes, at_least=2)
    at_once = check.flag("fcn", "at_once", at_once)
    width = check.integer("fcn", "width", width, at_least=1)
    return FCN(stride, num_classes=n_classes, at_once=at_once, width=width)


def bilinear_kernel(size: int) -> Tensor:
    """The (size, size) kernel with which a transposed convolution interpolates bilinearly.

    (1 - |y - c| / f) (1 - |x - c| / f), with f = (size + 1) // 2 and c the kernel's middle.
    """
    distance = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    hat = 1 - distance.abs() / ((size + 1) // 2)
    return hat[:, None] * hat


def _bilinear(num_classes: int, stride: int) -> nn.ConvTranspose2d:
    """Each class by itself: the other kernels are 0, as in the reference networks."""
    layer = nn.ConvTranspose2d(num_classes, num_classes, 2 * stride, stride, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        for label in range(num_classes):
            layer.weight[label, label] = bilinear_kernel(2 * stride).to(layer.weight)
    return layer


def _crop(scores: Tensor, first: int, like: Tensor) -> Tensor:
    height, width = like.shape[-2:]
    return scores[..., first : first + height, first : first + width]
