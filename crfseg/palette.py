# SPDX-License-Identifier: MIT
"""Colours for label maps: the PASCAL VOC colour map and its use."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def voc_palette(n_colors: int = 256) -> NDArray[np.uint8]:
    """Return the colour map of PASCAL VOC, continued to any number of labels.

    Bits 0, 1, 2 of a label become the top bits of red, green and blue, bits 3, 4, 5 the next lower
    ones, and so on (Everingham et al., VOC development kit), so neighbouring labels look different
    and no two labels below 2^24 share a colour.

    Args:
        n_colors: number of labels, 1 to 2^24.

    Returns:
        (n_colors, 3) uint8 RGB.

    Raises:
        ValueError: if ``n_colors`` is out of range.
    """
    if not 1 <= n_colors <= 1 << 24:
        raise ValueError(f"[voc_palette] n_colors is {n_colors}; expected 1 to {1 << 24}")
    labels = np.arange(n_colors)
    colors = np.zeros((n_colors, 3), np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = (labels >> (3 * level + channel)) & 1
            colors[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return colors


def as_palette(colors: ArrayLike) -> NDArray[np.uint8]:
    """Check and convert colours: (N, 3), or flat r, g, b, r, g, b ... as Pillow gives them.

    Raises:
        ValueError: if they are not triples of integers in 0..255.
    """
    array = np.asarray(colors)
    if array.ndim == 1 and array.size % 3 == 0:
        array = array.reshape(-1, 3)
    if array.ndim != 2 or array.shape[1] != 3 or array.shape[0] == 0:
        raise ValueError(f"[palette] colours have shape {array.shape}; expected (N, 3) RGB, N >= 1")
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise ValueError("[palette] colours must be integers in 0..255")
    return array.astype(np.uint8)


def extend_palette(palette: NDArray[np.uint8] | None, n_colors: int) -> NDArray[np.uint8]:
    """Return ``palette`` with at least ``n_colors`` rows, VOC colours where it has none."""
    if palette is None:
        return voc_palette(n_colors)
    if len(palette) >= n_colors:
        return palette
    return np.concatenate([palette, voc_palette(n_colors)[len(palette) :]])


def colorize(labels: NDArray[Any], palette: ArrayLike | None = None) -> NDArray[np.uint8]:
    """Paint a label map.

    Args:
        labels: integers of any shape, 0 <= label < number of colours.
        palette: (N, 3) RGB; None is the VOC colour map.

    Returns:
        ``labels.shape + (3,)`` uint8 RGB.

    Raises:
        TypeError: if ``labels`` are not integers.
        ValueError: if a label has no colour.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iub":
        raise TypeError(f"[colorize] labels are {labels.dtype}; expected integers")
    index = labels.astype(np.intp)
    low, high = (int(index.min()), int(index.max())) if index.size else (0, 0)
    colors = voc_palette(max(high, 0) + 1) if palette is None else as_palette(palette)
    if low < 0 or high >= len(colors):
        raise ValueError(
            f"[colorize] labels span {low} to {high}; expected 0 to {len(colors) - 1}, "
            "one colour for each"
        )
    return colors[index]
