# SPDX-License-Identifier: MIT
"""Images and logits to check and to time with, from numpy alone where Pillow is missing."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]  # (N, H, W, 3)
Floats = NDArray[np.float32]
Case = tuple[str, Images, int]  # what it is, images, labels


def noise(n_items: int, height: int, width: int, seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n_items, height, width, 3)).astype(np.uint8)


def constant(n_items: int, height: int, width: int) -> Images:
    return np.full((n_items, height, width, 3), 77, np.uint8)


def blocks(n_items: int, height: int, width: int, seed: int = 0) -> Images:
    """Areas of a colour each with some noise on them."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 230, (n_items, height // 7 + 1, width // 9 + 1, 3))
    areas = colours.repeat(7, 1).repeat(9, 2)[:, :height, :width]
    return (areas + rng.integers(0, 26, areas.shape)).astype(np.uint8)


def photograph(height: int, width: int) -> tuple[Images, str]:
    """(1, H, W, 3) and what it is: the demo's picture, or one that is made up."""
    try:
        from crfseg.demo import load

        picture = load()[0]
    except ImportError:
        return made_up(height, width), "made up, Pillow is missing"
    repeats = [-(-size // have) for size, have in zip((height, width), picture.shape, strict=False)]
    # Mirrored where it is too small, so that there are no edges that no picture has.
    rows = np.concatenate([picture[:: (-1) ** i] for i in range(repeats[0])])
    tiled = np.concatenate([rows[:, :: (-1) ** i] for i in range(repeats[1])], axis=1)
    return np.ascontiguousarray(tiled[None, :height, :width]), "crfseg.demo's picture"


def made_up(height: int, width: int, seed: int = 0) -> Images:
    """Noise of all scales, the finer the weaker, as pictures have it."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for cells in (2, 4, 8, 16, 32, 64):
        coarse = rng.normal(size=(3, cells + 1, cells + 1))
        picture += stretched(coarse, height, width).transpose(1, 2, 0) * (90 / cells**0.7)
    picture += rng.normal(scale=2, size=picture.shape)
    return np.clip(120 + picture, 0, 255).astype(np.uint8)[None]


def variants(image: Images, n_items: int) -> Images:
    """Other pictures of the same kind: moved around and mirrored."""
    return np.concatenate(
        [np.roll(image[:, :, :: (-1) ** i], (37 * i, 53 * i), (1, 2)) for i in range(n_items)]
    )


def logits(n_items: int, n_labels: int, height: int, width: int, seed: int = 0) -> Floats:
    """(N, C, H, W) scores of stride 8, stretched: of a few labels in each place."""
    rng = np.random.default_rng(seed)
    cells = (n_items, n_labels, height // 8 + 2, width // 8 + 2)
    coarse = rng.normal(scale=3, size=cells)
    return np.stack([stretched(one, height, width) for one in coarse]).astype(np.float32)


def stretched(coarse: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """(C, h, w) -> (C, height, width), bilinearly from corner to corner."""
    rows, columns = hats(coarse.shape[1], height), hats(coarse.shape[2], width)
    return rows @ coarse @ columns.T


def hats(n_cells: int, size: int) -> NDArray[np.float64]:
    """(size, n_cells) weights of the cells."""
    position = np.linspace(0, n_cells - 1, size)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(n_cells)))


def odd_ones() -> Iterator[Case]:
    """Every shape with few labels."""
    yield "one pixel", noise(1, 1, 1), 3
    yield "one row", noise(1, 1, 37), 3
    yield "one column", noise(1, 37, 1), 3
    yield "constant", constant(1, 20, 18), 3
    yield "noise", noise(1, 20, 18), 3
    yield "batch of 3", blocks(3, 17, 19), 5
