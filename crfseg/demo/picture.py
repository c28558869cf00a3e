# SPDX-License-Identifier: MIT
"""The before/after picture of the demo: three panels, and below them edges seen close."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crfseg.overlay import overlay

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

GAP = 8  # between tiles, and around them
CAPTION = 26  # height of the strip above a tile
ZOOM = 3
TEXT_SIZE = 16
BACKGROUND, TEXT = (255, 255, 255), (20, 20, 20)

Classes = Mapping[str, tuple[int, int, int]]


def compose(
    photo: NDArray[np.uint8],
    before: NDArray[Any],
    after: NDArray[Any],
    classes: Classes,
    corners: tuple[tuple[int, int], ...],
) -> "Picture":
    """Lay out the picture.

    Args:
        photo: (H, W, 3) uint8 RGB.
        before: (H, W) labels of the coarse scores.
        after: (H, W) refined labels.
        classes: name and colour of each label.
        corners: x, y of the upper left corner of each region to show close, before beside after.

    Returns:
        A Pillow picture, three panels wide.
    """
    from PIL import Image

    height, width = photo.shape[:2]
    side = ((3 * width + 2 * GAP) - (2 * len(corners) - 1) * GAP) // (2 * len(corners))
    sheet = Image.new(
        "RGB",
        (3 * width + 4 * GAP, height + side + 3 * CAPTION + 3 * GAP),
        BACKGROUND,
    )
    colors = list(classes.values())
    panels = (photo, overlay(photo, before, colors), overlay(photo, after, colors))
    captions = ("photograph", "class scores of stride 8, upsampled", "refined")
    for column, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        _place(sheet, Image.fromarray(panel), caption, GAP + column * (width + GAP), 0)
    for column, corner in enumerate(corners):
        for half, (labels, caption) in enumerate(((before, "coarse"), (after, "refined"))):
            tile = _close_up(photo, labels, colors, corner, side)
            left = GAP + (2 * column + half) * (side + GAP)
            _place(sheet, tile, f"{caption}, x {ZOOM}", left, CAPTION + height + GAP)
    _legend(sheet, classes, 2 * CAPTION + height + side + 2 * GAP)
    return sheet


def _close_up(
    photo: NDArray[np.uint8],
    labels: NDArray[Any],
    colors: list[tuple[int, int, int]],
    corner: tuple[int, int],
    side: int,
) -> "Picture":
    """Enlarge a square region ZOOM times, its labels without smoothing."""
    from PIL import Image

    extent = -(-side // ZOOM)
    region = np.s_[corner[1] : corner[1] + extent, corner[0] : corner[0] + extent]
    enlarged = Image.fromarray(photo[region]).resize((extent * ZOOM, extent * ZOOM))
    blocks = labels[region].repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    tile = overlay(np.asarray(enlarged), blocks, colors, opacity=0.35)
    return Image.fromarray(tile[:side, :side])


def _place(sheet: "Picture", tile: "Picture", caption: str, left: int, top: int) -> None:
    """Paste a tile with its caption above it."""
    _write(sheet, caption, left, top)
    sheet.paste(tile, (left, top + CAPTION))


def _legend(sheet: "Picture", classes: Classes, top: int) -> None:
    """Draw one row of colour swatches with the names of the classes."""
    from PIL import Image

    step = (sheet.width - 2 * GAP) // len(classes)
    swatch = TEXT_SIZE
    for place, (name, color) in enumerate(classes.items()):
        left = GAP + place * step
        sheet.paste(
            Image.new("RGB", (swatch, swatch), color), (left, top + (CAPTION - swatch) // 2)
        )
        _write(sheet, name, left + swatch + GAP, top)


def _write(sheet: "Picture", text: str, left: int, top: int) -> None:
    """Write one line of text, centred in a strip of height CAPTION."""
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(size=TEXT_SIZE)
    place = (left, top + CAPTION // 2)
    ImageDraw.Draw(sheet).text(place, text, fill=TEXT, font=font, anchor="lm")
