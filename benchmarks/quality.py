# SPDX-License-Identifier: MIT
"""What refining does to real segmentations: mIoU, accuracy, both near boundaries, Dice of volumes.

    python benchmarks/quality.py --data DIR

DIR holds the data sets (see `segmentations.py`). Every contender refines the same probabilities
with one thread; "none" is their most probable label. The exact model runs on crops. At the end
stand the gains that the data's README states, and whether they were found again: if one was not,
the exit status is 1.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

import exact
import volumes
from crfseg import refine, set_num_threads, unary_from_probs
from crfseg.metrics import Confusion, distance_to, label_boundaries
from parameters import CUSTOMARY, ITERATIONS, Parameters, in_words
from peers import contender
from qualities import BASELINE, DEFAULTS, EXACT, PEER, Quality
from references import gains
from scores import Floats
from segmentations import SETS, TRUSTED, VOID, Segmentation
from table import median, read_machine, write_csv

REFERENCE_ITERATIONS = 5
WIDTHS = (1, 2, 4, 8)
LIBRARIES = (PEER, "crfseg fast", "crfseg fine")
VOLUMES = "brats3d"
FOUND = {
    "camvid": ((1, 1, 10, 5, 3), (1, 1, 30, 5, 3), (3, 3, 30, 5, 4)),
    "msrc21": ((1, 1, 10, 10, 2), (3, 3, 40, 10, 5)),
    "msrc21-hq": ((1, 1, 40, 10, 10), (3, 3, 60, 20, 10)),
    "camvid-crops": ((1, 1, 30, 5, 3),),
    "msrc21-hq-crops": ((1, 1, 40, 10, 10),),
    "voc": (),
}
VOLUME_PARAMETERS = Parameters((1.0, 1.0), (5.0, 25.0, 3.0))

Labels = NDArray[np.integer]
Masks = dict[str, NDArray[np.bool_] | None]
Refine = Callable[[Segmentation], Labels]


class Meter:
    """Confusion matrices of a set: all pixels, and bands around the boundaries."""

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self.regions: dict[str, Confusion] = {}
        self.seconds: list[float] = []

    def add(self, prediction: Labels, target: Labels, masks: Masks, seconds: float) -> None:
        """Count an image in the regions of its target."""
        self.seconds.append(seconds)
        for name, mask in masks.items():
            confusion = self.regions.setdefault(name, Confusion(self.n_classes, VOID))
            confusion.add(prediction, target, mask)

    def scores(self) -> dict[str, float]:
        """Columns of a `Quality`."""
        found = {"ms": 1e3 * median(self.seconds)}
        for name, confusion in self.regions.items():
            found[f"miou{name}"] = 100 * confusion.mean_iou("skip")
            found[f"accuracy{name}"] = 100 * confusion.pixel_accuracy()
        found["seam_accuracy"] = found.pop("accuracy_seam")
        del found["miou_seam"]
        return found


def regions(target: Labels) -> Masks:
    """Masks by the end of a column's name; None is all of the image."""
    distance = distance_transform_edt(~label_boundaries(target, VOID, neighbours=4))
    bands = {f"_{width}": distance <= width for width in WIDTHS}
    seams = label_boundaries(np.where(target == VOID, 0, target), None)
    return {"": None, **bands, "_seam": distance_to(seams, 4) <= 4}


def baseline(item: Segmentation) -> Labels:
    """Nothing done."""
    return item.probs.argmax(0)


def library(name: str, parameters: Parameters, iterations: int) -> Refine:
    """One of `LIBRARIES`."""
    run = contender(name, threads=1, isa=None).refine
    return lambda item: run(item.probs, item.image, parameters, iterations).argmax(0)


def by_default(item: Segmentation) -> Labels:
    """`refine` as it is, of hard labels where there are such."""
    options: dict[str, Any] = {"returns": "labels", "threads": 1}
    if item.labels is None:
        return np.asarray(refine(item.probs, item.image, kind="probs", **options))
    options |= {"n_labels": len(item.probs), "confidence": TRUSTED}
    return np.asarray(refine(item.labels, item.image, **options))


def exact_model(item: Segmentation, parameters: Parameters, iterations: int) -> Labels:
    """Every pair of pixels."""
    (sigma, weight), (sigma_xy, sigma_rgb, bilateral_weight) = parameters
    features = exact.bilateral_features(item.image, sigma_xy, sigma_rgb)
    kernels = [
        (weight, exact.ExactSpatial(*item.target.shape, sigma)),
        (bilateral_weight, exact.ExactBilateral(features)),
    ]
    n_labels = len(item.probs)
    unary: Floats = np.ascontiguousarray(unary_from_probs(item.probs).reshape(n_labels, -1).T)
    q = exact.mean_field(unary, kernels, iterations)
    return q.argmax(1).reshape(item.target.shape)


def contenders(set_name: str) -> Iterator[tuple[str, str, int, Refine]]:
    """Name, parameters, iterations and function of everything that refines a set."""
    yield BASELINE, BASELINE, 0, baseline
    references = [Parameters(tuple(five[:2]), tuple(five[2:])) for five in FOUND[set_name]]
    choices = [(parameters, REFERENCE_ITERATIONS) for parameters in references]
    for parameters, iterations in (*choices, (CUSTOMARY, ITERATIONS)):
        words = in_words(parameters)
        for name in LIBRARIES:
            yield (
                name.removesuffix(" fast"),
                words,
                iterations,
                library(name, parameters, iterations),
            )
        if set_name.endswith("crops"):
            run = partial(exact_model, parameters=parameters, iterations=iterations)
            yield EXACT, words, iterations, run
    yield "crfseg", DEFAULTS, ITERATIONS, by_default


def measure(set_name: str, items: Iterable[Segmentation]) -> list[Quality]:
    """Every contender on every image, image by image."""
    entries = list(contenders(set_name))
    meters: list[Meter] = []
    n_images = 0
    for item in items:
        n_images += 1
        masks = regions(item.target)
        meters = meters or [Meter(len(item.probs)) for _ in entries]
        for (*_, run), meter in zip(entries, meters, strict=True):
            start = time.perf_counter()
            prediction = run(item)
            seconds = time.perf_counter() - start
            meter.add(prediction, item.target, masks, seconds)
    return [
        Quality(set_name, n_images, name, words, iterations, **meter.scores())
        for (name, words, iterations, _), meter in zip(entries, meters, strict=True)
    ]


def measure_volume(path: Path) -> list[Quality]:
    """The volume's baseline and the ways to refine it."""
    volume = volumes.read_volume(path)
    words = in_words(VOLUME_PARAMETERS)
    given = (volume, VOLUME_PARAMETERS, REFERENCE_ITERATIONS)
    features = volumes.features(volume, VOLUME_PARAMETERS)
    runs: dict[tuple[str, str], Callable[[], NDArray[Any]]] = {
        (BASELINE, BASELINE): lambda: volume.probs,
        (PEER, words): lambda: volumes.pydensecrf2(*given, features),
        ("crfseg", words): lambda: volumes.crfseg(*given, "fast", None),
        ("crfseg fine", words): lambda: volumes.crfseg(*given, "fine", None),
        ("crfseg", DEFAULTS): lambda: np.asarray(refine(volume.probs, volume.channels)),
    }
    rows = []
    for (name, parameters), run in runs.items():
        start = time.perf_counter()
        labels = run().argmax(0)
        ms = 1e3 * (time.perf_counter() - start)
        confusion = Confusion(len(volume.probs), None).add(labels, volume.target)
        scores = {f"dice_{k}": v for k, v in volumes.dice(labels, volume.target).items()}
        scores |= {"miou": 100 * confusion.mean_iou(), "accuracy": 100 * confusion.pixel_accuracy()}
        iterations = {BASELINE: 0, DEFAULTS: ITERATIONS}.get(parameters, REFERENCE_ITERATIONS)
        rows.append(Quality(volume.name, 1, name, parameters, iterations, ms, **scores))
    return rows


def shown(row: Quality) -> str:
    """One line."""
    what = f"{row.set} ({row.images}) {row.contender} {row.parameters} it={row.iterations}"
    scores = f"mIoU {row.miou:.2f}, accuracy {row.accuracy:.2f}"
    if row.set.startswith(VOLUMES):
        near = f"Dice {row.dice_whole:.1f} / {row.dice_core:.1f} / {row.dice_enhancing:.1f}"
    else:
        near = f"band of 4: {row.miou_4:.2f}, {row.accuracy_4:.2f}, seams {row.seam_accuracy:.2f}"
    return f"{what}: {scores}, {near}, {row.ms:.0f} ms"


def measured(set_name: str, data: Path, every: int) -> Iterator[Quality]:
    """The rows of a set."""
    if set_name == VOLUMES:
        for path in volumes.paths(data):
            yield from measure_volume(path)
    else:
        yield from measure(set_name, SETS[set_name](data, every))


def main() -> None:
    names = [*SETS, VOLUMES]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--sets", default=",".join(names), help="some of %(default)s")
    parser.add_argument("--every", type=int, default=1, help="take every so many-th image only")
    args = parser.parse_args()
    chosen = args.sets.split(",")
    if unknown := sorted({*chosen} - {*names}):
        parser.error(f"no set is called {unknown[0]}; there are {', '.join(names)}")
    set_num_threads(1)
    rows = []
    for set_name in chosen:
        for row in measured(set_name, args.data, args.every):
            rows.append(row)
            print(shown(row), flush=True)
    if args.csv:
        write_csv(args.csv, rows, read_machine())
    verdicts = list(gains(rows)) if args.every == 1 else []
    for sentence, _ in verdicts:
        print(sentence)
    sys.exit(not all(kept for _, kept in verdicts))


if __name__ == "__main__":
    main()
