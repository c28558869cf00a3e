# SPDX-License-Identifier: MIT
"""The named workloads: size, number of labels, photograph, class scores.

Every case is a photograph with stride-8 class scores, upsampled bilinearly and put through a
softmax; ``random`` alone has noise for probabilities. ``--data DIR`` takes the photographs from
``DIR/photos`` and adds the real network outputs of ``DIR/camvid`` and ``DIR/msrc21``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photos import Photo, fit, load_photo, read_photo
from scores import probabilities, softmax, synthetic_scores


class Problem(NamedTuple):
    """What every contender is given."""

    probs: NDArray[np.float32]  # (C, H, W)
    image: Photo  # (H, W, 3) uint8
    scores: NDArray[np.float32] | None = None  # (C, h, w) that probs were made of


@dataclass(frozen=True)
class Case:
    """A synthetic workload; ``confidence`` is the mean over pixels of the largest probability."""

    name: str
    height: int
    width: int
    n_labels: int
    n_live: int  # labels that own a region
    confidence: float
    photo: str  # bundled with scikit-image
    data_photo: str  # used instead with --data: large enough not to be enlarged

    @property
    def group(self) -> str:
        """What it is judged with: itself."""
        return self.name

    def source(self, data: Path | None = None) -> str:
        """Name of the photograph."""
        return self.data_photo if data else self.photo

    def load(self, data: Path | None = None) -> Problem:
        """The same arrays in every run."""
        photo = load_photo(self.source(data), data / "photos" if data else None)
        image = fit(photo, self.height, self.width)
        scores = synthetic_scores(image, self.n_labels, self.n_live, self.confidence, seed=7)
        return Problem(probabilities(scores, self.height, self.width), image, scores)


class NoiseCase(Case):
    """The photograph with probabilities that say nothing of it: every pixel on its own."""

    def load(self, data: Path | None = None) -> Problem:
        """The same arrays in every run."""
        image = super().load(data).image
        noise = np.random.default_rng(7).normal(size=(self.n_labels, self.height, self.width))
        return Problem(softmax(np.asarray(2 * noise, np.float32)), image)


CASES = {
    case.name: case
    for case in (
        Case("voc", 375, 500, 21, 6, 0.93, "astronaut", "dogs"),  # the headline
        Case("msrc", 213, 320, 21, 5, 0.93, "coffee", "dog"),
        Case("large", 768, 1024, 21, 7, 0.93, "motorcycle", "truck"),
        Case("cityscapes", 1024, 2048, 19, 9, 0.93, "rocket", "saw"),
        Case("ade20k", 512, 683, 150, 14, 0.90, "coffee", "shelf"),
        Case("binary", 375, 500, 2, 2, 0.97, "chelsea", "china"),
        Case("soft", 213, 320, 21, 5, 0.42, "coffee", "dog"),
        NoiseCase("random", 213, 320, 21, 5, 0.93, "coffee", "dog"),
        Case("tiny", 32, 32, 5, 3, 0.93, "coffee", "dog"),
    )
}
HEADLINE, TINY = "voc", "tiny"


@dataclass(frozen=True)
class RealCase:
    """A photograph with the output of a real network."""

    name: str
    group: str  # the set it belongs to, which is judged as a whole
    image_file: Path
    logits_file: Path
    entry: int | str  # row of an .npy array, or name in an .npz archive

    def source(self, _: Path | None = None) -> str:
        """Name of the photograph."""
        return self.image_file.stem

    def load(self, _: Path | None = None) -> Problem:
        """Half-pixel bilinear upsampling by 8, cut to the image, softmax."""
        image = read_photo(self.image_file)
        logits = np.load(self.logits_file)[self.entry].astype(np.float32)
        return Problem(probabilities(logits, *image.shape[:2]), image, logits)


def real_cases(data: Path, every_camvid: int = 20, every_msrc21: int = 10) -> Iterator[RealCase]:
    """Every so manieth image of CamVid (480 x 360, 11 labels) and of MSRC-21 (320 x 213, 21)."""
    camvid = (data / "camvid/val.txt").read_text().split()
    for row in range(0, len(camvid), every_camvid):
        image = data / f"camvid/images/{camvid[row]}.jpg"
        yield RealCase(f"camvid-{row}", "camvid", image, data / "camvid/logits/val.npy", row)
    for name in (data / "msrc21/dev.txt").read_text().split()[::every_msrc21]:
        image = data / f"msrc21/images/{name}.jpg"
        yield RealCase(f"msrc21-{name}", "msrc21", image, data / "msrc21/logits/dev.npz", name)


def all_cases(data: Path | None = None) -> dict[str, Case | RealCase]:
    """Every case by name: the synthetic ones and, with a data folder, the real ones."""
    real = {case.name: case for case in real_cases(data)} if data else {}
    return {**CASES, **real}


def find_cases(words: list[str], data: Path | None = None) -> list[Case | RealCase]:
    """The cases of these names, every one of a set for the name of the set; KeyError otherwise."""
    cases = all_cases(data)
    groups: dict[str, list[Case | RealCase]] = {}
    for case in cases.values():
        groups.setdefault(case.group, []).append(case)
    return [case for word in words for case in groups.get(word) or [cases[word]]]


def describe(problem: Problem) -> str:
    """Labels, size, mean largest probability, labels above 1e-3 per pixel."""
    n_labels, height, width = problem.probs.shape
    confidence = problem.probs.max(0).mean()
    live = (problem.probs > 1e-3).sum(0).mean()
    return f"{width}x{height}x{n_labels}, mean max p {confidence:.3f}, {live:.1f} labels above 1e-3"
