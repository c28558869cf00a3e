# SPDX-License-Identifier: MIT
"""Brain volumes with several channels: a CRF over points in space, of any library.

The kernels are those of images with a third axis: positions over sigma_xyz, and positions with the
channels' intensities (levels of 0..255) over theirs. The volume is cut to the brain's box.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parameters import Parameters
from scores import Floats

REGIONS = {"whole": (1, 2, 3, 4), "core": (1, 3, 4), "enhancing": (4,)}


@dataclass(frozen=True)
class Volume:
    """Voxels in the brain's box."""

    name: str
    channels: NDArray[np.uint8]  # (K, D0, D1, D2)
    probs: Floats  # (C, D0, D1, D2)
    target: NDArray[np.uint8]


def paths(data: Path) -> list[Path]:
    """Of all volumes in a folder with ``brats3d``."""
    return sorted((data / "brats3d").glob("*.npz"))


def read_volume(path: Path) -> Volume:
    """From an archive with image, prob (of all classes but the first), label and mask."""
    with np.load(path) as arrays:
        image, prob, label, mask = (arrays[n] for n in ("image", "prob", "label", "mask"))
    others = prob.astype(np.float32) / 255
    probs = np.concatenate([np.maximum(1 - others.sum(0, keepdims=True), 0), others])
    places = np.argwhere(mask)
    box = tuple(map(slice, places.min(0), places.max(0) + 1))
    every = np.s_[:]
    name = f"brats3d-{path.stem.rsplit('_', 1)[1]}"
    probs = np.ascontiguousarray(probs[(every, *box)] / probs[(every, *box)].sum(0))
    return Volume(name, image[(every, *box)], probs, label[box])


def features(volume: Volume, parameters: Parameters) -> tuple[Floats, Floats]:
    """(N, 3) and (N, 3 + K): x, y, z, and x, y, z with intensities, over their sigmas."""
    (sigma, _), (sigma_xyz, sigma_level, _) = parameters
    positions = np.indices(volume.target.shape, np.float32)[::-1].reshape(3, -1).T
    levels = volume.channels.reshape(len(volume.channels), -1).T.astype(np.float32)
    both = np.hstack([positions / np.float32(sigma_xyz), levels / np.float32(sigma_level)])
    return np.ascontiguousarray(positions / np.float32(sigma)), both


def crfseg(
    volume: Volume, parameters: Parameters, iterations: int, accuracy: str, threads: int | None
) -> Floats:
    """(C, D0, D1, D2) marginals."""
    import crfseg as library

    q: Floats = library.refine(
        volume.probs,
        volume.channels,
        kind="probs",
        spatial=parameters.spatial,
        bilateral=parameters.bilateral,
        iterations=iterations,
        accuracy=accuracy,
        threads=threads,
    )
    return q


def pydensecrf2(
    volume: Volume, parameters: Parameters, iterations: int, given: tuple[Floats, Floats]
) -> Floats:
    """(C, D0, D1, D2) marginals, the ``features`` being there already."""
    densecrf = import_module("pydensecrf.densecrf")
    unary_from_softmax = import_module("pydensecrf.utils").unary_from_softmax
    spatial, both = (np.ascontiguousarray(each.T) for each in given)
    crf = densecrf.DenseCRF(volume.target.size, len(volume.probs))
    crf.setUnaryEnergy(unary_from_softmax(volume.probs))
    crf.addPairwiseEnergy(spatial, compat=parameters.spatial[1])
    crf.addPairwiseEnergy(both, compat=parameters.bilateral[2])
    q = np.array(crf.inference(iterations))
    return q.reshape(volume.probs.shape)


def dice(prediction: NDArray[Any], target: NDArray[np.uint8]) -> dict[str, float]:
    """2 |P & T| / (|P| + |T|) of the regions, in per cent."""
    scores = {}
    for region, labels in REGIONS.items():
        ours, theirs = np.isin(prediction, labels), np.isin(target, labels)
        scores[region] = 200 * float((ours & theirs).sum() / (ours.sum() + theirs.sum()))
    return scores
