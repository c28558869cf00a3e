# SPDX-License-Identifier: MIT
"""DeepLab, the first version: VGG-16 made dense by dilation, and a dense CRF behind it.

Chen, Papandreou, Kokkinos, Murphy & Yuille, "Semantic Image Segmentation with Deep Convolutional
Nets and Fully Connected CRFs", ICLR 2015. Layers, paddings and CRF parameters are those of the
authors' released network definitions where these say more than the paper or other than it;
docs/networks.md says where.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from crfseg import _check as check
from crfseg import presets

from .prediction import Predictor
from .vgg16 import WIDTH, classifier, features, he, normal, trunk

_STRIDE: Final = 8
_CROP: Final = 7  # what the plain network's scores, eightfold, begin before the image


class _Form(NamedTuple):
    """fc6: units (times the width), kernel, dilation (the paper's input stride) and padding."""

    factor: int
    kernel: int
    dilation: int
    padding: int


_FORMS: Final = {
    "largefov": _Form(16, 3, 12, 12),
    "4x4": _Form(64, 4, 4, 6),
    "7x7": _Form(64, 7, 4, 12),
    "4x4-dilated": _Form(64, 4, 8, 12),
}
# Of crfseg.presets, without and with MSc. For "7x7" and "4x4-dilated" none were published: they
# take those of "4x4".
_PRESETS: Final = {
    "largefov": ("deeplab-v1-largefov", "deeplab-v1-msc-largefov"),
    "4x4": ("deeplab-v1", "deeplab-v1-msc"),
}


class _Source(NamedTuple):
    """Of a branch: channels (times the width), stride to the main scores, zoom to the image."""

    factor: int
    stride: int
    zoom: int


_SOURCES: Final = {
    "data": _Source(0, 8, 1),
    "pool1": _Source(1, 4, 2),
    "pool2": _Source(2, 2, 4),
    "pool3": _Source(4, 1, 8),
    "pool4": _Source(8, 1, 8),
}


def _branch(name: str, num_classes: int, width: int) -> nn.Sequential:
    """Scores from the image or an early pool."""
    factor, stride, _ = _SOURCES[name]
    wide = 2 * width
    conv = nn.Conv2d(factor * width or 3, wide, 3, stride=stride, padding=1)
    fc, scores = nn.Conv2d(wide, wide, 1), nn.Conv2d(wide, num_classes, 1)
    normal(conv, 0.001)
    normal(fc, 0.005 if name == "pool4" else 0.001)
    normal(scores, 0.01)
    layers = [(f"{name}_conv", conv), ("relu1", nn.ReLU(inplace=True)), ("drop1", nn.Dropout(0.5)),
              (f"{name}_fc", fc), ("relu2", nn.ReLU(inplace=True)), ("drop2", nn.Dropout(0.5)),
              (f"{name}_ms", scores)]  # fmt: skip
    return nn.Sequential(OrderedDict(layers))


def _dense(branch: Any, x: Tensor) -> Tensor:
    """A branch at every point of x: the authors' test networks have no strides here."""
    x = functional.conv2d(x, branch[0].weight, branch[0].bias, padding=1)
    scores: Tensor = branch[1:](x)
    return scores


class DeepLabV1(Predictor):
    """VGG-16 with its last two strides replaced by dilation; see ``deeplab_v1``.

    ``forward`` gives the scores at stride 8 that training compares with decimated labels: 321 x
    321 gives 41 x 41, point (i, j) of which stands over pixel (8 i, 8 j). Networks with 2 x 2 pools
    (all but "largefov", without ``msc``) make 39 x 39 of 306 x 306, over pixels (8 i + 1, 8 j + 1).
    ``full_scores`` and ``predict`` take images of any size.

    Modules: ``trunk``, ``classifier`` (fc6, fc7 and fc8, which learns ten times as fast) and, with
    ``msc``, ``branches``, which the authors trained with trunk, fc6 and fc7 frozen.
    """

    means: ClassVar = (104.008, 116.669, 122.675)

    def __init__(self, variant: str, *, msc: bool, num_classes: int, width: int) -> None:
        super().__init__()
        factor, kernel, dilation, padding = _FORMS[variant]
        self.is_aligned = variant == "largefov" or msc
        pools = _aligned_pools() if self.is_aligned else _plain_pools()
        self.trunk = trunk(pools, width=width, last_dilation=2)
        he(self.trunk)
        if variant == "largefov":
            # In the released networks, and in neither the paper nor most ports.
            self.trunk.add_module("pool5a", nn.AvgPool2d(3, stride=1, padding=1))
        fc6 = nn.Conv2d(8 * width, factor * width, kernel, padding=padding, dilation=dilation)
        self.classifier = classifier(fc6, num_classes)
        branches = {name: _branch(name, num_classes, width) for name in _SOURCES if msc}
        self.branches = nn.ModuleDict(branches)
        self._preset = _PRESETS.get(variant, _PRESETS["4x4"])[msc]

    @property
    def crf_parameters(self) -> Mapping[str, Any]:
        """What ``crfseg.refine`` is called with: published, normalised as the authors' code does.

        That is the code of Krähenbühl & Koltun, NIPS 2011, which divides after filtering.
        """
        return dict(presets.get(self._preset).options)

    def forward(self, image: Tensor) -> Tensor:
        """Scores at stride 8, (N, num_classes, h, w), of images less their means, in BGR."""
        x, taps = features(self.trunk, image, list(self.branches))
        scores: Tensor = self.classifier(x)
        for name, branch in self.branches.items():
            scores = scores + branch(taps.get(name, image))
        return scores

    def full_scores(self, image: Tensor) -> Tensor:
        """Scores at every pixel of images of any size, by the authors' test networks.

        The image is padded with its mean, at the bottom and on the right, to 8 k + 1 pixels (with
        2 x 2 pools 8 k + 2), and stretched with aligned corners. Branches work at the resolution of
        their sources, without strides; 2 x 2 pools reach a row further out.
        """
        size = image.shape[-2:]
        padded = _to_multiple(image, 1 if self.is_aligned else 2)
        if self.is_aligned:
            x, taps = features(self.trunk, padded, list(self.branches))
        else:
            x, taps = self._reaching_out(padded), {}
        scores = _zoom(self.classifier(x), _STRIDE)
        for name, branch in self.branches.items():
            scores = scores + _zoom(_dense(branch, taps.get(name, padded)), _SOURCES[name].zoom)
        first = 0 if self.is_aligned else _CROP
        return scores[..., first : first + size[0], first : first + size[1]]

    def _reaching_out(self, x: Tensor) -> Tensor:
        """The trunk with pool4 padded, as the authors' plain test network has it."""
        names = [name for name, _ in self.trunk.named_children()]
        before, after = self.trunk[: names.index("pool4")], self.trunk[names.index("pool4") :]
        x = functional.pad(before(x), (1, 1, 1, 1), value=-float("inf"))
        result: Tensor = after(x)
        return result


def deeplab_v1(
    variant: str = "largefov", *, msc: bool = False, num_classes: int = 21, width: int = WIDTH
) -> DeepLabV1:
    """DeepLab, its weights random: see ``load_weights`` and ``load_imagenet_weights``.

    Args:
        variant: of fc6 and what goes with it. "largefov", 3 x 3 with dilation 12 and 1024 units;
            "4x4", the paper's plain DeepLab, dilation 4; "7x7", VGG-16's own kernel, dilation 4;
            "4x4-dilated", dilation 8; these three have 4096 units.
        msc: add the branches from the image and the first four pools (MSc). Pools are then those of
            "largefov" in every variant.
        num_classes: with the background; 21 for PASCAL VOC.
        width: channels of the first block; 64 is the paper's, others are for experiments.

    Raises:
        ValueError: if there is no such variant.
    """
    where = "deeplab_v1"
    variant = check.choice(where, "variant", variant, tuple(_FORMS))
    msc = check.flag(where, "msc", msc)
    n_classes = check.integer(where, "num_classes", num_classes, at_least=2)
    width = check.integer(where, "width", width, at_least=1)
    return DeepLabV1(variant, msc=msc, num_classes=n_classes, width=width)


def _aligned_pools() -> list[nn.Module]:
    """3 x 3 with padding: maps of 8 k + 1, 4 k + 1, 2 k + 1 and k + 1 pixels lie on one grid."""
    return [nn.MaxPool2d(3, stride, padding=1) for stride in (2, 2, 2, 1, 1)]


def _plain_pools() -> list[nn.Module]:
    halving: list[nn.Module] = [nn.MaxPool2d(2, 2, padding=1) for _ in range(3)]
    return [*halving, nn.MaxPool2d(2, 1), nn.MaxPool2d(3, 1, padding=1)]


def _to_multiple(image: Tensor, rest: int) -> Tensor:
    """Padded with zeros, the mean, to 8 k + rest pixels."""
    height, width = image.shape[-2:]
    return functional.pad(image, (0, (rest - width) % _STRIDE, 0, (rest - height) % _STRIDE))


def _zoom(scores: Tensor, factor: int) -> Tensor:
    """(n - 1) f + 1 points from n: corners stay corners."""
    size = [(n - 1) * factor + 1 for n in scores.shape[-2:]]
    return functional.interpolate(scores, size=size, mode="bilinear", align_corners=True)
