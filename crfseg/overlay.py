# SPDX-License-Identifier: MIT
"""Label maps laid over their photograph, for looking at."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crfseg.palette import colorize

_GAP: Final = 8  # pixels between pictures


def boundaries(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the pixels of an (H, W) label map whose right or lower neighbour differs."""
    marks = np.zeros(labels.shape, bool)
    marks[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    marks[:-1] |= labels[:-1] != labels[1:]
    return marks


def overlay(
    image: Any,
    labels: Any,
    palette: ArrayLike | None = None,
    *,
    opacity: float = 0.5,
) -> NDArray[np.uint8]:
    """Tint a photograph with the colours of its labels and draw their boundaries in white.

    Args:
        image: (H, W) grey or (H, W, 3) RGB uint8, or a Pillow picture of such a mode.
        labels: (H, W) integers.
        palette: (N, 3) RGB, one colour per label; None is the VOC colour map.
        opacity: 0 shows the photograph, 1 the colours, both with boundaries.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: if the image is another one, the sizes differ, a label has no colour or
            ``opacity`` is not in 0..1.
    """
    image, labels = np.asarray(image), np.asarray(labels)
    if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)):
        found = f"image is {image.dtype} of shape {image.shape}"
        raise ValueError(f"[overlay] {found}; expected uint8 of shape (H, W) or (H, W, 3)")
    if image.shape[:2] != labels.shape:
        raise ValueError(f"[overlay] labels are {labels.shape} but image is {image.shape[:2]}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"[overlay] opacity is {opacity}; expected 0 to 1")
    rgb = image[..., None] if image.ndim == 2 else image
    mixed = (1 - opacity) * rgb + opacity * colorize(labels, palette)
    picture: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    picture[boundaries(labels)] = 255
    return picture


def to_rgb(image: Any) -> NDArray[np.uint8]:
    """An (H, W) or (H, W, 3) photograph of 8 or 16 bits a channel as (H, W, 3) of 8 bits."""
    pixels = np.asarray(image)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels


def side_by_side(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lay (H, W, 3) pictures of one height in a row, on white."""
    gap = np.full((len(pictures[0]), _GAP, 3), 255, np.uint8)
    row = [gap]
    for picture in pictures:
        row += [picture, gap]
    return np.concatenate(row[1:-1], axis=1)
