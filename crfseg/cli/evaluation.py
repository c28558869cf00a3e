# SPDX-License-Identifier: MIT
"""``crfseg eval``: scores of label maps against the true ones, over a data set."""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from typer import BadParameter, Option

from crfseg.io import read_array, read_labels
from crfseg.metrics import BandConfusion, Confusion
from crfseg.pairs import by_name, only, read_names

from .options import Listing, Speech, spread
from .wording import Complaints

_SUFFIXES = frozenset({".png", ".npy"})
_MOST = 256  # classes that are counted where none are named


class Counts(NamedTuple):
    """What is counted over a data set."""

    whole: Confusion
    near: BandConfusion | None
    names: list[str] | None
    """Of the classes; None numbers those that occur."""


@spread
def evaluate(
    labels: Annotated[
        Path, Option("--labels", metavar="DIR", help="true label maps, .png or .npy")
    ],
    pred: Annotated[Path, Option("--pred", metavar="DIR", help="label maps of the same names")],
    listing: Listing = None,
    classes: Annotated[
        Path | None, Option(metavar="FILE", help="a class in each line, by its name")
    ] = None,
    ignore: Annotated[
        int, Option(metavar="LABEL", help="true label of pixels that do not count; -1 for none")
    ] = 255,
    bands: Annotated[
        str | None,
        Option(metavar="1,2,4,8", help="scores within that many pixels of boundaries as well"),
    ] = None,
    around: Annotated[
        Literal["labels", "void"],
        Option(help="boundaries: where labels meet, or pixels that do not count (VOC's seams)"),
    ] = "labels",
    masks: Annotated[
        bool, Option("--masks", help="of 0 and anything else, which is one class; all count")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="print JSON instead of a table")] = False,
    *,
    speech: Speech,
) -> int:
    """Compare label maps with the true ones: accuracy and IoU of classes, near boundaries too."""
    counts = _start(classes, None if masks or ignore < 0 else ignore, bands, around, masks)
    names = None if listing is None else read_names(listing)
    truths, predictions = only(_maps(labels), names), _maps(pred)
    complaints = Complaints(speech.debug)

    def succeeds(name: str) -> bool:
        try:
            if name not in predictions:
                raise ValueError(f"{truths[name]}: no prediction of that name in {pred}")
            _count(counts, truths[name], predictions[name], masks)
        except (OSError, TypeError, ValueError) as error:
            complaints.add(error, truths[name].name)
            return False
        return True

    n_images = sum(map(succeeds, truths))
    missing = set(names or ()) - truths.keys()
    for name in sorted(missing):
        complaints.add(ValueError(f"{name}: no label map of that name in {labels}"), name)
    complaints.list_others()
    if n_images:
        print(json.dumps(_as_json(counts, n_images), indent=1) if as_json else _table(counts))
    return 0 if n_images == len(truths) and not missing else 1


def _maps(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder; expected one of label maps")
    found = by_name(folder, _SUFFIXES, deep=True)
    if not found:
        raise ValueError(f"{folder}: holds no .png or .npy file")
    return found


def _start(
    classes: Path | None, ignore: int | None, bands: str | None, around: str, masks: bool
) -> Counts:
    names = ["background", "foreground"] if masks else None
    if classes is not None:
        names = read_names(classes)
    n_classes = _MOST if names is None else len(names)
    widths = _widths(bands)
    near = None
    if widths:
        near = BandConfusion(n_classes, widths, around=around, ignore_index=ignore)
    return Counts(Confusion(n_classes, ignore), near, names)


def _widths(bands: str | None) -> list[int]:
    try:
        return [] if bands is None else [int(width) for width in bands.split(",")]
    except ValueError:
        raise BadParameter(
            f"--bands is {bands}; expected widths in pixels, as in 1,2,4,8"
        ) from None


def _count(counts: Counts, truth: Path, prediction: Path, masks: bool) -> None:
    true, predicted = (_read(path, masks) for path in (truth, prediction))
    ignore = counts.whole.ignore_index
    if true.shape == predicted.shape and ((predicted == ignore) & (true != ignore)).any():
        raise ValueError(
            f"{prediction}: has label {ignore}, which --ignore says is none; expected a class "
            "wherever the true label is one, or --masks for masks of 0 and 255"
        )
    try:
        counts.whole.add(predicted, true)
        if counts.near is not None:
            counts.near.add(predicted, true)
    except (TypeError, ValueError) as error:
        sentence = str(error).partition("] ")[2]
        raise ValueError(f"{prediction} against {truth}: {sentence}") from error


def _read(path: Path, masks: bool) -> NDArray[Any]:
    labels = read_array(path) if path.suffix.lower() == ".npy" else read_labels(path).labels
    return (labels != 0).astype(np.uint8) if masks or labels.dtype == bool else labels


def _named(counts: Counts) -> tuple[Confusion, list[str], dict[int, Confusion]]:
    """Everything with a name for each class: those given, or all up to the last that occurs."""
    whole, near, names = counts
    n_classes = whole.num_classes
    if names is None:
        occurs = np.flatnonzero(whole.counts.sum(0) + whole.counts.sum(1))
        n_classes = int(occurs[-1]) + 1 if occurs.size else 1
    bands = {} if near is None else {width: near.at(width) for width in near.widths}
    return (
        _first(whole, n_classes),
        names or [str(i) for i in range(n_classes)],
        {width: _first(band, n_classes) for width, band in bands.items()},
    )


def _first(confusion: Confusion, n_classes: int) -> Confusion:
    return Confusion.of(confusion.counts[:n_classes, :n_classes], confusion.ignore_index)


def _table(counts: Counts) -> str:
    whole, names, bands = _named(counts)
    lines = [whole.table(names)]
    for width, band in bands.items():
        lines.append(
            f"within {width} pixel{'s' * (width != 1)} of boundaries: {band.total} pixels, pixel "
            f"accuracy {100 * band.pixel_accuracy():.2f}, mean IoU {100 * band.mean_iou():.2f}"
        )
    return "\n".join(lines)


def _as_json(counts: Counts, n_images: int) -> dict[str, Any]:
    whole, names, bands = _named(counts)
    classes = zip(
        names, whole.counts.sum(1).tolist(), whole.accuracies(), whole.ious(), strict=True
    )
    return {
        "images": n_images,
        **_scores(whole),
        "classes": {
            name: {"pixels": pixels, "accuracy": _finite(accuracy), "iou": _finite(iou)}
            for name, pixels, accuracy, iou in classes
        },
        "bands": {str(width): _scores(band) for width, band in bands.items()},
    }


def _scores(confusion: Confusion) -> dict[str, Any]:
    return {
        "pixels": confusion.total,
        "pixel_accuracy": _finite(confusion.pixel_accuracy()),
        "mean_accuracy": _finite(confusion.mean_accuracy()),
        "mean_iou": _finite(confusion.mean_iou()),
        "frequency_weighted_iou": _finite(confusion.frequency_weighted_iou()),
    }


def _finite(score: float) -> float | None:
    """What JSON has no number for is null."""
    return None if math.isnan(score) else float(score)
