# SPDX-License-Identifier: MIT
"""Photographs for the benchmarks: scikit-image's bundled ones, or a folder of files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data

Photo = NDArray[np.uint8]

# Only photographs that ship inside the scikit-image wheel: nothing is downloaded.
BUNDLED = ("astronaut", "chelsea", "coffee", "motorcycle", "rocket", "hubble")


def bundled_photo(name: str) -> Photo:
    """(H, W, 3) uint8 photograph ``name`` of `BUNDLED`, at its own size."""
    if name == "motorcycle":
        return read_photo(Path(data.__file__).with_name("motorcycle_left.png"))
    loader = data.hubble_deep_field if name == "hubble" else getattr(data, name)
    return np.asarray(loader(), np.uint8)


def photo_files(folder: Path) -> dict[str, Path]:
    """Photographs of ``folder`` by name: the file's name up to the size that follows ``_``."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png"))
    return {path.stem.rsplit("_", 1)[0]: path for path in files}


def read_photo(path: Path) -> Photo:
    """(H, W, 3) uint8 pixels of an image file."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def load_photo(name: str, folder: Path | None = None) -> Photo:
    """A photograph from ``folder`` where it holds one of that name, else a bundled one."""
    files = photo_files(folder) if folder else {}
    return read_photo(files[name]) if name in files else bundled_photo(name)


def fit(photo: Photo, height: int, width: int) -> Photo:
    """Centre part of ``photo`` with the wanted proportions, resampled to (height, width, 3)."""
    full_height, full_width = photo.shape[:2]
    scale = min(full_height / height, full_width / width)
    top, left = max(0.0, full_height - scale * height) / 2, max(0.0, full_width - scale * width) / 2
    box = (left, top, full_width - left, full_height - top)
    resized = Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS, box=box)
    return np.array(resized, np.uint8)


def crop(photo: Photo, height: int, width: int) -> Photo:
    """Centre (height, width, 3) pixels of ``photo`` at its own resolution."""
    top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
    return np.ascontiguousarray(photo[top : top + height, left : left + width])
