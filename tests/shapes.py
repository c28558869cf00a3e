# SPDX-License-Identifier: MIT
"""Generated pictures of textured shapes on a textured ground, with their labels."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
# Levels of ground, discs, bars and boxes: apart by little more than the texture within them.
COLOURS = np.array([[90, 110, 100], [130, 120, 90], [100, 150, 120], [120, 100, 150]])
N_CLASSES = len(COLOURS)
_TEXTURE = 22.0


def labels_of(rng: np.random.Generator, size: int) -> Array:
    """(size, size) labels of shapes that may hide each other."""
    y, x = np.indices((size, size))
    labels = np.zeros((size, size), np.int64)
    for label in rng.permutation([1, 2, 3, 1, 2, 3])[:4]:
        cx, cy = rng.uniform(0.15, 0.85, 2) * size
        half = rng.uniform(0.1, 0.22) * size
        if label == 1:
            inside = (x - cx) ** 2 + (y - cy) ** 2 < half**2
        elif label == 2:
            inside = np.abs(x - cx + 0.5 * (y - cy)) < 0.4 * half
        else:
            inside = np.maximum(np.abs(x - cx), np.abs(y - cy)) < half
        labels[inside] = label
    return labels


def textured(rng: np.random.Generator, labels: Array) -> Array:
    """(3, size, size) levels: each shape in a colour of its own, with noise and stripes."""
    y, x = np.indices(labels.shape)
    shifts = rng.normal(0, 8, (N_CLASSES, 3))
    colours = (COLOURS + shifts)[labels]
    stripes = _TEXTURE / 2 * np.sin(0.9 * x + 0.7 * labels * y)[..., None]
    image = colours + stripes + _TEXTURE * rng.normal(size=colours.shape)
    return image.clip(0, 255).astype(np.float32).transpose(2, 0, 1)


def some_shapes(rng: np.random.Generator, n: int, size: int) -> tuple[Array, Array]:
    """Images (n, 3, size, size) and labels (n, size, size)."""
    labels = np.stack([labels_of(rng, size) for _ in range(n)])
    return np.stack([textured(rng, one) for one in labels]), labels
