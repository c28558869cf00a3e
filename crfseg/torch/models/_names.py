# SPDX-License-Identifier: MIT
"""The names that layers have in public weights, turned into Caffe's.

========================================  ============================================
file                                      conv1_1 ... conv5_3, fc6, fc7, scores
========================================  ============================================
Caffe, and ports that keep its names      conv1_1, ..., fc6, fc7, fc8 or fc8_voc12, score_fr
torchvision's vgg16                       features.0 ... 28, classifier.0, .3 and .6
one sequence (DeepLab-V1-PyTorch)         features.0 ... 28, features.32, .35 and .38
blocks (deeplab-pytorch)                  block_1.conv1 ... block_5.conv3, conv6, conv7, conv8
========================================  ============================================
"""

import re
from collections.abc import Iterable
from itertools import chain
from typing import Final

from .vgg16 import blocks

# Where convolutions stand among the layers of torchvision's vgg16.
_PLACES: Final = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_FEATURES: Final = {
    **{str(i): name for i, (name, _) in zip(_PLACES, chain(*blocks(1)), strict=True)},
    "32": "fc6",
    "35": "fc7",
    "38": "fc8",
}
_CLASSIFIER: Final = {"0": "fc6", "3": "fc7", "6": "fc8"}
_WRAPPER: Final = "module."  # DataParallel's


def unwrapped(key: str) -> str:
    """Without what DataParallel puts in front."""
    return key.removeprefix(_WRAPPER)


def caffe_names(keys: Iterable[str]) -> dict[str, str]:
    """Caffe's name for every key: ``fc6.weight`` for ``classifier.0.weight``."""
    return {key: _caffe_name(unwrapped(key)) for key in keys}


def _caffe_name(key: str) -> str:
    layer, _, part = key.rpartition(".")
    folder, _, last = layer.rpartition(".")
    if folder == "features":
        last = _FEATURES.get(last, last)
    elif folder == "classifier":
        last = _CLASSIFIER.get(last, last)
    elif block := re.fullmatch(r"block_(\d)", folder):
        last = re.sub(r"^conv(\d)$", rf"conv{block[1]}_\1", last)
    elif single := re.fullmatch(r"conv([678])", layer):
        last = f"fc{single[1]}"
    last = re.sub(r"^fc8_\w+$", "fc8", last)
    return f"{last}.{part}"
