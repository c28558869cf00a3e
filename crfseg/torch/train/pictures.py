# SPDX-License-Identifier: MIT
"""Pictures with labels in folders: PASCAL VOC's layout, or images and labels side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from crfseg import _check as check
from crfseg import io

from .draws import Sample

VOC_CLASSES: Final = 21
_SUFFIXES: Final = (".jpg", ".jpeg", ".png")


class Layout(NamedTuple):
    """Where things lie; ``lists`` holds train.txt and val.txt."""

    images: Path
    labels: Path
    lists: Path
    is_voc: bool


class Pictures(Dataset[Sample]):
    """RGB levels and labels of the pictures that a list names.

    Two layouts are known:

        JPEGImages/NAME.jpg, SegmentationClassAug/NAME.png (or SegmentationClass),
        ImageSets/Segmentation/train.txt and val.txt (PASCAL VOC)

        images/NAME.jpg (or .png), labels/NAME.png, and, where wanted, train.txt and val.txt;
        without train.txt all pictures that val.txt does not name are for training

    Args:
        root: the folder.
        part: of the list: "train", "val", or another's name.
        num_classes: labels are 0 .. num_classes - 1, or ``ignore_index``.
        ignore_index: the label of pixels that do not count.

    Raises:
        OSError: if a folder, a list or a file is missing.
        ValueError: if the list is empty; from an item, if labels are out of range or of another
            size.
    """

    def __init__(
        self, root: str | Path, part: str = "train", *, num_classes: int, ignore_index: int = 255
    ) -> None:
        self._layout = layout_of(Path(root))
        self.names = _names(self._layout, part)
        self._images = [_image_of(self._layout, name) for name in self.names]
        self._num_classes = check.integer("Pictures", "num_classes", num_classes, at_least=1)
        self._ignore_index = ignore_index
        for name in self.names:
            _existing(self._labels_of(name))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Read a picture."""
        path = self._labels_of(self.names[index])
        image = _levels(self._images[index])
        labels = io.read_labels(path).labels
        _check_labels(path, labels, self._num_classes, self._ignore_index)
        if labels.shape != image.shape[:2]:
            raise ValueError(
                f"{path}: is {_size(labels)}, but {self._images[index].name} is {_size(image)}; "
                "expected labels of the picture's size"
            )
        return Sample(
            torch.from_numpy(image.transpose(2, 0, 1).copy()),
            torch.from_numpy(labels.astype(np.int64)),
        )

    def _labels_of(self, name: str) -> Path:
        return self._layout.labels / f"{name}.png"


def layout_of(root: Path) -> Layout:
    """Which of the layouts a folder has."""
    if (root / "JPEGImages").is_dir():
        augmented = root / "SegmentationClassAug"
        labels = augmented if augmented.is_dir() else root / "SegmentationClass"
        found = Layout(root / "JPEGImages", labels, root / "ImageSets" / "Segmentation", True)
    else:
        found = Layout(root / "images", root / "labels", root, False)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: is no folder")
    if not found.images.is_dir():
        raise FileNotFoundError(
            f"{root}: has neither JPEGImages nor images; expected one of these folders"
        )
    if not found.labels.is_dir():
        raise FileNotFoundError(f"{found.labels}: is no folder; expected the labels of {root}")
    return found


def has_list(root: Path, part: str) -> bool:
    """Whether the folder says which pictures belong to a part."""
    return (layout_of(root).lists / f"{part}.txt").is_file()


def count_classes(root: Path) -> int:
    """From classes.txt, a class in a line, or the 21 of VOC.

    Raises:
        ValueError: if neither says.
    """
    path = root / "classes.txt"
    if path.is_file():
        return len(_lines(path))
    if layout_of(root).is_voc:
        return VOC_CLASSES
    raise ValueError(f"{root}: has no classes.txt; expected --classes, how many there are")


def _names(layout: Layout, part: str) -> list[str]:
    path = layout.lists / f"{part}.txt"
    if path.is_file() or part != "train" or layout.is_voc:
        names = _lines(_existing(path))
    else:
        kept = layout.lists / "val.txt"
        others = set(_lines(kept)) if kept.is_file() else set()
        found = (file.stem for file in layout.images.iterdir() if file.suffix in _SUFFIXES)
        names = sorted(set(found) - others)
        path = layout.images
    if not names:
        raise ValueError(f"{path}: names no picture; expected one at least")
    return names


def _lines(path: Path) -> list[str]:
    lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _image_of(layout: Layout, name: str) -> Path:
    for suffix in _SUFFIXES:
        path = layout.images / f"{name}{suffix}"
        if path.is_file():
            return path
    return _existing(layout.images / f"{name}.jpg")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is no file")
    return path


def _levels(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3), as stored: labels belong to those pixels."""
    image = io.read_image(path, exif="ignore")
    if image.dtype != np.uint8:
        raise ValueError(f"{path}: has {image.dtype} levels; expected 8 bits a channel")
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _check_labels(path: Path, labels: NDArray[Any], n_classes: int, ignore_index: int) -> None:
    is_wrong = (labels >= n_classes) & (labels != ignore_index)
    if is_wrong.any():
        row, column = np.argwhere(is_wrong)[0]
        raise ValueError(
            f"{path}: has label {labels[row, column]} at row {row}, column {column}; expected 0 to "
            f"{n_classes - 1}, or {ignore_index} where there is none"
        )


def _size(array: NDArray[Any]) -> str:
    height, width = array.shape[:2]
    return f"{width} x {height}"
