# SPDX-License-Identifier: MIT
"""Over which pixels scores stand: labels are brought to the scores, or scores to the labels.

Point i of an axis stands over pixel ``first + stride * i``. Labels are decimated, never resized.
"""

from typing import Final, NamedTuple

from torch import Tensor
from torch.nn import functional

from crfseg import _fault as fault

_STRIDE: Final = 8


class Axis(NamedTuple):
    """n points over pixels first, first + stride ..."""

    first: int
    stride: int
    n: int

    @property
    def points(self) -> slice:
        """The pixels that points stand over."""
        return slice(self.first, self.first + self.stride * (self.n - 1) + 1, self.stride)

    @property
    def pixels(self) -> slice:
        """These, and those between them."""
        return slice(self.points.start, self.points.stop)


class Grid(NamedTuple):
    """Of rows and columns."""

    y: Axis
    x: Axis

    def at_points(self, labels: Tensor) -> Tensor:
        """(N, H, W) labels to those at the scores' points: ``labels[:, ::8, ::8]`` for DeepLab."""
        return labels[..., self.y.points, self.x.points]

    def between(self, levels: Tensor) -> Tensor:
        """What lies between the first and the last point, at every pixel."""
        return levels[..., self.y.pixels, self.x.pixels]

    def stretched(self, scores: Tensor) -> Tensor:
        """Scores at every pixel between the first and the last point."""
        if self.y.stride == self.x.stride == 1:
            return scores
        size = [axis.stride * (axis.n - 1) + 1 for axis in self]
        return functional.interpolate(scores, size=size, mode="bilinear", align_corners=True)


def grid(scores: Tensor, labels: Tensor, *, is_centred: bool = False) -> Grid:
    """Where scores (N, C, h, w) stand over labels (N, H, W).

    Scores of the labels' size stand over every pixel; DeepLab's over every eighth, of 8 k + 1
    pixels from the first on, of 8 k + 2 (its plain variants) from the second.

    Args:
        scores: of a network.
        labels: of its input.
        is_centred: scores of every pixel of the middle, as valid convolutions leave.

    Raises:
        ValueError: if they fit in none of these ways.
    """
    sizes = zip(labels.shape[-2:], scores.shape[-2:], strict=True)
    axes = [_axis(size, n, is_centred) for size, n in sizes]
    if axes[0] is None or axes[1] is None:
        raise fault.wrong_shape(
            "fit",
            "scores",
            tuple(scores.shape),
            f"as many as there are labels, {tuple(labels.shape[-2:])}, or one at every eighth of "
            "8 k + 1 pixels (8 k + 2 in DeepLab's plain variants); another crop may fit",
        )
    return Grid(axes[0], axes[1])


def _axis(size: int, n: int, is_centred: bool) -> Axis | None:
    if is_centred and n <= size:
        return Axis((size - n) // 2, 1, n)
    if n == size:
        return Axis(0, 1, n)
    for first in (0, 1):
        if first + _STRIDE * (n - 1) + 1 == size:
            return Axis(first, _STRIDE, n)
    return None
