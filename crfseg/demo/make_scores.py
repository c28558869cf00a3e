# SPDX-License-Identifier: MIT
"""Make the demo's class scores: coarse outlines, seen through a wide field at stride 8.

The outlines were marked by hand, a few points per object and 5 to 25 pixels off on purpose. Each is
averaged over a field of 40 x 40 pixels and sampled every 8 pixels, as the last feature map of a
stride-8 network would be: right in the large, blocky and wrong along the edges. The photograph's
colours are never looked at, so every edge in the refined result comes from the refinement.

    python -m crfseg.demo.make_scores scores.npz
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crfseg.demo import CLASSES
from crfseg.io import atomic_write

STRIDE = 8
HEIGHT, WIDTH = 384, 512

# (class, corners as x, y), painted one over the other.
OUTLINES: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = (
    ("flag", ((0, 0), (62, 0), (85, 110), (100, 200), (60, 260), (40, 384), (0, 384))),
    (
        "shuttle",
        ((385, 0), (445, 0), (462, 60), (470, 270), (365, 285), (348, 200), (376, 150)),
    ),
    ("table", ((375, 268), (512, 268), (512, 384), (366, 384))),
    (
        "suit",
        (
            *((30, 384), (30, 300), (90, 220), (125, 150), (290, 160)),
            *((320, 230), (375, 300), (360, 384)),
        ),
    ),
    ("helmet", ((330, 384), (345, 345), (410, 330), (490, 384))),
    ("hair", ((145, 110), (158, 30), (230, 5), (300, 30), (312, 115), (270, 140), (180, 135))),
    ("face", ((170, 74), (280, 74), (272, 150), (240, 190), (195, 185))),
)

# Weights of a triangle over 5 x 5 cells: the share of what a cell's field of 40 pixels covers.
FIELD = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9.0
# The least share a class is given: a network is never quite certain.
FLOOR = 1e-3


def paint_outlines() -> NDArray[np.uint8]:
    """Return the (HEIGHT, WIDTH) label map of the outlines."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (WIDTH, HEIGHT), 0)
    draw = ImageDraw.Draw(picture)
    names = list(CLASSES)
    for name, corners in OUTLINES:
        draw.polygon(corners, fill=names.index(name))
    return np.asarray(picture)


def spread(shares: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Average ``shares`` with FIELD along ``axis``, the border cells repeated outward."""
    reach = len(FIELD) // 2
    pad = [(reach, reach) if a == axis else (0, 0) for a in range(shares.ndim)]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(shares, pad, "edge"), len(FIELD), axis
    )
    average: NDArray[np.float64] = windows @ FIELD
    return average


def make_scores() -> NDArray[np.float16]:
    """Return the (C, HEIGHT / 8, WIDTH / 8) logits."""
    labels = paint_outlines()
    one_hot = labels == np.arange(len(CLASSES))[:, None, None]
    cells = one_hot.reshape(len(CLASSES), HEIGHT // STRIDE, STRIDE, WIDTH // STRIDE, STRIDE)
    shares = spread(spread(cells.mean(axis=(2, 4)), axis=1), axis=2)
    return np.log(shares + FLOOR).astype(np.float16)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the score file the demo ships."""
    parser = argparse.ArgumentParser(prog="python -m crfseg.demo.make_scores")
    parser.add_argument("out", type=Path, help="the .npz file to write")
    out: Path = parser.parse_args(arguments).out
    with atomic_write(out) as file:
        np.savez_compressed(file, scores=make_scores())


if __name__ == "__main__":
    main()
