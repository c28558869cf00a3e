# SPDX-License-Identifier: MIT
"""Shift-and-stitch: dense scores from a network with strides, without changing it.

Long, Shelhamer & Darrell, CVPR 2015, section 3.2. The network sees the image f * f times, shifted
by every (y, x) in {0..f-1}^2, the unshifted one included; each run scores the points of one phase,
and interlaced they are the scores at every point. Dilating by f all layers after the stride, which
is then dropped, gives the same in one run (the "a-trous" trick, which DeepLab uses).
"""

from collections.abc import Callable
from typing import Final

from torch import Tensor

from crfseg import _check as check
from crfseg.torch import _arguments as arguments

_WHERE: Final = "shift_and_stitch"


def shift_and_stitch(network: Callable[[Tensor], Tensor], image: Tensor, factor: int) -> Tensor:
    """Run a network on all shifts of an image and interlace what it gives.

    Args:
        network: (N, K, H, W) to (N, C, h, w), with a stride of ``factor`` from image to scores.
        image: (N, K, H, W). Shifts drop its first rows and columns, nothing is padded.
        factor: f, the stride that is undone.

    Returns:
        (N, C, h, w) with [..., f i + y, f j + x] = network(image[..., y:, x:])[..., i, j].

    Raises:
        ValueError: if the scores of the shifts do not interlace. Those of a network with another
            stride may: their number does not tell.
    """
    factor = check.integer(_WHERE, "factor", factor, at_least=1)
    arguments.any_tensor(_WHERE, "image", image)
    arguments.shape(_WHERE, "image", image, image.ndim == 4, "(N, channels, H, W)")
    phases = range(factor)
    runs = {(y, x): network(image[..., y:, x:]) for y in phases for x in phases}
    height = sum(runs[y, 0].shape[-2] for y in phases)
    width = sum(runs[0, x].shape[-1] for x in phases)
    first = runs[0, 0]
    stitched = first.new_empty((*first.shape[:2], height, width))
    for (y, x), scores in runs.items():
        places = stitched[..., y::factor, x::factor]
        if places.shape != scores.shape:
            raise check.invalid(
                _WHERE,
                f"network gives scores of shape {tuple(scores.shape)} for the shift ({y}, {x}); "
                f"expected {tuple(places.shape)}, which the others leave room for",
            )
        places.copy_(scores)
    return stitched
