# SPDX-License-Identifier: MIT
"""The main job on a real photograph: ``python -m crfseg.demo``.

``data/`` holds the photograph and class scores of stride 8 that belong to it; its README says where
both come from.
"""

from importlib.resources import as_file, files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crfseg.io import read_array, read_image

CLASSES = {
    "background": (60, 60, 60),
    "flag": (66, 135, 245),
    "hair": (250, 220, 40),
    "face": (255, 120, 0),
    "suit": (60, 200, 90),
    "helmet": (220, 60, 200),
    "shuttle": (0, 220, 220),
    "table": (150, 90, 40),
}
"""Name and RGB colour of each class, in the order of the scores."""


def load() -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return the photograph, (384, 512, 3) uint8 RGB, and its (8, 48, 64) float16 logits."""
    data = files("crfseg.demo") / "data"
    with as_file(data / "astronaut.jpg") as photo, as_file(data / "scores.npz") as scores:
        return read_image(photo), read_array(scores)
