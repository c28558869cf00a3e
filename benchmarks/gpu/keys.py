# SPDX-License-Identifier: MIT
"""The keys that an image's lattice has: the plain PyTorch lattice's vertices, packed likewise.

``csrc/math/key_ranges.cpp`` and ``key_layout.h`` say how. Written once more, in another way, so
that a mistake would have to be made twice.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.native import Bound
from gpu.report import LeftOut

MARGIN = 4


def keys_of(image: NDArray[np.uint8], bound: Bound) -> NDArray[np.uint64]:
    """(M, 2) words, low one first, in ascending order of the keys."""
    try:
        import torch

        from torch_lattice import TorchLattice, scales
    except ImportError:
        raise LeftOut("torch is missing") from None
    dim = len(bound.hi)
    lattice = TorchLattice(torch.from_numpy(features_of(image, bound))[None])
    lowest, highest = quotients(bound.hi, scales(dim).numpy())
    keys = sorted(pack(vertex, lowest, highest) for vertex in lattice.coordinates().tolist())
    words = [(key & (2**64 - 1), key >> 64) for key in keys]
    return np.array(words, np.uint64)


def features_of(image: NDArray[np.uint8], bound: Bound) -> NDArray[np.float32]:
    """(H W, d) of the pixels."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    levels = [x, y, *np.moveaxis(image.astype(np.float32), -1, 0)][: len(bound.hi)]
    return np.stack([level.ravel() for level in levels], axis=1) * bound.inverse_sigmas


def quotients(hi: NDArray[np.float32], scale: NDArray[np.float32]) -> tuple[list[int], list[int]]:
    """The lowest and the highest quotient of each coordinate, of features from 0 to ``hi``."""
    corners = len(hi) + 1
    reach = [float(h) * float(s) for h, s in zip(hi, scale, strict=True)]
    low = [0.0] + [-j * reach[j - 1] for j in range(1, corners)]
    high = [math.fsum(reach[j:]) for j in range(corners)]
    return (
        [math.floor(value / corners) - MARGIN for value in low],
        [math.ceil(value / corners) + MARGIN for value in high],
    )


def pack(vertex: list[int], lowest: list[int], highest: list[int]) -> int:
    """The remainder, then the quotients of all coordinates but the widest."""
    corners = len(vertex)
    spans = [high - low for low, high in zip(lowest, highest, strict=True)]
    omitted = spans.index(max(spans))
    remainder = vertex[0] % corners
    key, shift = remainder, bits_for(corners - 1)
    for i, (coordinate, low, span) in enumerate(zip(vertex, lowest, spans, strict=True)):
        if i == omitted:
            continue
        key |= ((coordinate - remainder) // corners - low) << shift
        shift += bits_for(span)
    return key


def bits_for(highest: Any) -> int:
    return max(1, int(highest).bit_length())
