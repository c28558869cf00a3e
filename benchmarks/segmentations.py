# SPDX-License-Identifier: MIT
"""Real segmentations with ground truth, from a folder of data sets: what `quality.py` measures on.

A set has photographs, probabilities (C, H, W) and labels (H, W) with 255 for void. Labels are
complete (camvid), coarse with wide unlabelled seams (msrc21) or pixel-accurate (msrc21-hq); ``voc``
has one hard result of a network, made into probabilities.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from photos import Photo, read_photo
from scores import Floats, probabilities

VOID = 255
CROP = (120, 160)
CROP_EVERY = 20  # of camvid: the exact model takes seconds for one crop
TRUSTED = 0.7  # what a hard label is worth, pydensecrf's example


@dataclass(frozen=True)
class Segmentation:
    """One image of a set."""

    name: str
    image: Photo
    probs: Floats  # (C, H, W)
    target: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None = None  # that probs are made of


def read_labels(path: Path) -> NDArray[np.uint8]:
    """(H, W) indices of a palette picture."""
    with Image.open(path) as image:
        return np.asarray(image, np.uint8)


def scored(folder: Path, name: str, scores: NDArray[np.float16], labels: str) -> Segmentation:
    """A photograph with a network's stride-8 scores."""
    image = np.array(read_photo(folder / f"images/{name}.jpg"))  # the peer takes no read-only one
    probs = probabilities(scores.astype(np.float32), *image.shape[:2])
    return Segmentation(name, image, probs, read_labels(folder / labels / f"{name}.png"))


def camvid(data: Path, every: int) -> Iterator[Segmentation]:
    """CamVid's validation images, 11 classes."""
    folder = data / "camvid"
    logits = np.load(folder / "logits/val.npy", mmap_mode="r")
    names = (folder / "val.txt").read_text().split()
    for row in range(0, len(names), every):
        yield scored(folder, names[row], logits[row], "labels")


def msrc21(data: Path, every: int) -> Iterator[Segmentation]:
    """MSRC-21 with its coarse labels, 21 classes."""
    return _msrc21(data / "msrc21", "dev.txt", "labels", every)


def msrc21_hq(data: Path, every: int) -> Iterator[Segmentation]:
    """The images of MSRC-21 with pixel-accurate labels."""
    return _msrc21(data / "msrc21", "hq.txt", "labels_hq", every)


def _msrc21(folder: Path, names: str, labels: str, every: int) -> Iterator[Segmentation]:
    logits = np.load(folder / "logits/dev.npz")
    for name in (folder / names).read_text().split()[::every]:
        yield scored(folder, name, logits[name], labels)


def voc(data: Path, every: int) -> Iterator[Segmentation]:
    """The images of PASCAL VOC with a hard result of FCN-8s, 21 classes."""
    for path in sorted((data / "voc/fcn8s").glob("*.png"))[::every]:
        image = np.array(read_photo(data / f"voc/images/{path.stem}.jpg"))
        target = read_labels(data / f"voc/labels/{path.stem}.png")
        labels = read_labels(path)
        yield Segmentation(path.stem, image, trusted(labels, 21), target, labels)


def trusted(labels: NDArray[np.uint8], n_labels: int) -> Floats:
    """Probabilities of hard labels: `TRUSTED` for the given one, the rest shared by the others."""
    is_given = np.arange(n_labels)[:, None, None] == labels
    return np.where(is_given, TRUSTED, (1 - TRUSTED) / (n_labels - 1)).astype(np.float32)


def crops(
    load: Callable[[Path, int], Iterator[Segmentation]], times: int
) -> Callable[[Path, int], Iterator[Segmentation]]:
    """The middle of every ``times``-th image, small enough for the exact model."""

    def cut(data: Path, every: int) -> Iterator[Segmentation]:
        for whole in load(data, every * times):
            height, width = whole.target.shape
            y, x = (height - CROP[0]) // 2, (width - CROP[1]) // 2
            middle = np.s_[y : y + CROP[0], x : x + CROP[1]]
            probs = np.ascontiguousarray(whole.probs[(np.s_[:], *middle)])
            image = np.ascontiguousarray(whole.image[middle])
            yield Segmentation(whole.name, image, probs, whole.target[middle])

    return cut


SETS: dict[str, Callable[[Path, int], Iterator[Segmentation]]] = {
    "camvid": camvid,
    "msrc21": msrc21,
    "msrc21-hq": msrc21_hq,
    "voc": voc,
    "camvid-crops": crops(camvid, CROP_EVERY),
    "msrc21-hq-crops": crops(msrc21_hq, 1),
}
