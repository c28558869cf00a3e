# SPDX-License-Identifier: MIT
"""Structures that smoothing would erase: where labels form them, and how they are held.

A pairwise term strong enough to move the boundaries of large regions takes away what is thin:
poles, signs, legs. Pixels that no square of a given side with one label covers are therefore
believed more than others: their unary counts `TRUST` times. They may grow, and are hardly eaten;
what such squares cover is refined as ever.

That is for scores of networks, which are smooth. Noise has no such squares anywhere: where most of
an image is thin, nothing is held.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SQUARINGS = 5
TRUST = 2.0**_SQUARINGS
_LEAST = np.float32(1e-16)
_MOST = 0.5  # of an image; labels that form thin structures everywhere are noise
HELD_FLOOR = 1e-30
"""What the field takes for the least of probabilities some of which are held."""

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


def held_structures(labels: NDArray[Any], side: int) -> Mask:
    """(H, W) bool: `thin_structures`, or nothing where they take more than half of the image."""
    thin = thin_structures(labels, side)
    return thin if thin.mean() <= _MOST else np.zeros_like(thin)


def thin_structures(labels: NDArray[Any], side: int) -> Mask:
    """(H, W) bool: pixels that no square of ``side`` pixels with one label covers.

    Squares may hang over the image's border by half. It is a morphological opening of all labels at
    once, in O(H W log side).
    """
    if side < 2:
        return np.zeros(labels.shape, bool)
    over = side // 2
    padded = np.pad(labels, over, mode="edge")
    corner = padded[:-1, :-1]
    mixed = (corner != padded[1:, :-1]) | (corner != padded[:-1, 1:]) | (corner != padded[1:, 1:])
    squares = np.pad(~_any_in_square(mixed, side - 1), side - 1)  # by their first corner
    height, width = labels.shape
    covered = _any_in_square(squares, side)[over : over + height, over : over + width]
    return np.asarray(~covered)


def _any_in_square(mask: Mask, side: int) -> Mask:
    """Whether any is true in mask[y : y + side, x : x + side], for all squares inside."""
    along_x: Mask = _any_in_rows(mask.T, side).T
    return _any_in_rows(along_x, side)


def _any_in_rows(mask: Mask, length: int) -> Mask:
    """Whether any is true in mask[y : y + length], for all y where that is inside."""
    span = 1
    while span < length:
        step = min(span, length - span)
        mask = np.logical_or(mask[:-step], mask[step:])
        span += step
    return mask


def most_probable(values: Floats) -> NDArray[np.int32]:
    """(N,) argmax of (C, N), the first where several are largest; faster than numpy's."""
    best = values[0].copy()
    labels = np.zeros(values.shape[1], np.int32)
    for label in range(1, len(values)):
        np.copyto(labels, label, where=values[label] > best)
        np.maximum(best, values[label], out=best)
    return labels


def scaled(logits: Floats) -> Floats:
    """(C, N) logits times `TRUST`, up to a number per point, none below the log of `HELD_FLOOR`."""
    below = np.float32(TRUST) * (logits - logits.max(0))
    return np.asarray(np.maximum(below, np.float32(np.log(HELD_FLOOR))), np.float32)


def sharpened(probs: Floats) -> Floats:
    """(C, N) probabilities to the power of `TRUST`, up to a factor per point."""
    powers = np.asarray(probs / probs.max(0), np.float32)
    for _ in range(_SQUARINGS):
        np.maximum(powers, _LEAST, out=powers)  # subnormal numbers are slow
        powers *= powers
    return powers
