# SPDX-License-Identifier: MIT
"""Real photographs and class scores such as a network of output stride 8 gives for them.

``recorded`` cases lie in tests/data and need nothing but numpy; ``photo`` reads scikit-image's
bundled pictures (astronaut: NASA, public domain; chelsea: Stefan van der Walt, CC0; coffee: Rachel
Michetti, CC0; rocket: SpaceX, CC0).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]
DATA = Path(__file__).parent / "data"
STRIDE = 8


def photo(name: str, height: int, width: int) -> Array:
    """(height, width, 3) uint8: the middle of the picture in that proportion, resized."""
    data = pytest.importorskip("skimage.data", reason="needs scikit-image's bundled photographs")
    image_module = pytest.importorskip("PIL.Image")
    full = image_module.fromarray(getattr(data, name)())
    share = min(full.width / width, full.height / height)
    left, top = (full.width - share * width) / 2, (full.height - share * height) / 2
    box = (left, top, left + share * width, top + share * height)
    return np.asarray(full.resize((width, height), image_module.Resampling.BICUBIC, box=box))


def region_distances(cells: Array, n_regions: int, rng: np.random.Generator) -> Array:
    """(n_regions, cells) squared distances to the centres that 10 steps of k-means find."""
    centres = cells[rng.choice(len(cells), n_regions, replace=False)]
    for _ in range(10):
        distances = ((cells[:, None] - centres) ** 2).sum(axis=2)
        nearest = distances.argmin(axis=1)
        for k in np.unique(nearest):
            centres[k] = cells[nearest == k].mean(axis=0)
    return distances.T


def stride_8_logits(image: Array, n_labels: int, seed: int) -> Array:
    """(n_labels, ceil(H/8), ceil(W/8)) float32 logits: confident inside regions, blurred at edges.

    Regions are k-means clusters of the cells' mean colour and position; neighbouring cells are
    mixed, as large receptive fields do, and noise misplaces some boundaries. The last power leaves
    a tail of labels that are unlikely but not impossible, as networks do.
    """
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // STRIDE, padded.shape[1] // STRIDE
    colours = padded.reshape(rows, STRIDE, columns, STRIDE, 3).mean(axis=(1, 3)) / 40
    y, x = np.indices((rows, columns)) * (8 / max(rows, columns))
    cells = np.dstack([colours, y, x]).reshape(-1, 5)
    logits = -n_labels / 4 * region_distances(cells, n_labels, rng).reshape(n_labels, rows, columns)
    logits += rng.normal(scale=2.0, size=logits.shape)
    mixed = np.pad(logits, ((0, 0), (1, 1), (1, 1)), mode="edge")
    mixed = (mixed[:, :-2] + 2 * mixed[:, 1:-1] + mixed[:, 2:]) / 4
    mixed = (mixed[:, :, :-2] + 2 * mixed[:, :, 1:-1] + mixed[:, :, 2:]) / 4
    return (-1.8 * (mixed.max(axis=0) - mixed) ** 0.5).astype(np.float32)


def upsample(scores: Array, height: int, width: int) -> Array:
    """(C, h, w) -> (C, height, width), bilinear, half-pixel centres, 8 pixels per cell."""
    for axis, size in ((1, height), (2, width)):
        cells = scores.shape[axis]
        position = np.clip((np.arange(size) + 0.5) / STRIDE - 0.5, 0, cells - 1)
        weights = np.clip(1 - np.abs(position[:, None] - np.arange(cells)), 0, None)
        scores = np.moveaxis(np.tensordot(weights, scores, (1, axis)), 0, axis)
    return scores


def probabilities(logits: Array, height: int, width: int) -> Array:
    """(C, height, width) float32 softmax of the upsampled logits."""
    full = upsample(logits.astype(np.float64), height, width)
    e = np.exp(full - full.max(axis=0))
    return (e / e.sum(axis=0)).astype(np.float32)


def photo_problem(
    name: str, height: int, width: int, n_labels: int, seed: int = 0
) -> tuple[Array, Array]:
    """Photograph (height, width, 3) and probabilities (n_labels, height, width) for it."""
    image = photo(name, height, width)
    return image, probabilities(stride_8_logits(image, n_labels, seed), height, width)


def recorded_problem(name: str) -> tuple[Array, Array]:
    """The same from tests/data: image (120, 160, 3) uint8, probabilities (8, 120, 160)."""
    with np.load(DATA / f"{name}.npz") as stored:
        image, logits = stored["image"], stored["logits"]
    return image, probabilities(logits, *image.shape[:2])
