# SPDX-License-Identifier: MIT
"""Refining files: reading an image and its scores, one call, writing the result.

What ``refine`` says of wrong input gets the file's name in front, and the words of whoever called.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _memory as memory
from ._room import Room, side_by_side
from .io import read_array, read_image, read_labels, write_array, write_labels, write_mask
from .pairs import PICTURES, SCORES
from .refine import refine

Reword = Callable[[str], str]
_VOID = (255, 65535)  # what marks pixels without a label in maps of 8 and of 16 bits


class Job(NamedTuple):
    """One image to refine."""

    image: Path
    scores: Path
    out: Path


class Loaded(NamedTuple):
    """What the files of an image hold."""

    name: str
    """What errors about the scores begin with."""
    image: Any
    x: Any
    palette: NDArray[np.uint8] | None
    """Of scores that are a palette PNG."""
    is_mask: bool


class Reading(NamedTuple):
    """How files are read."""

    array: str | None = None
    """See ``crfseg.io.read_array``."""
    exif: str | None = None
    """See ``crfseg.io.read_image``."""


def plainly(sentence: str) -> str:
    """An error of ``refine`` without the name of the function."""
    return sentence.removeprefix("[refine] ")


# --- many images ----------------------------------------------------------------------------------


def refine_files(
    jobs: Sequence[Job],
    threads: int,
    refine_one: Callable[[Job, Room], str],
    tell: Callable[[int, str | Exception], None],
) -> None:
    """Refine many images, as many at a time as there are threads.

    Args:
        jobs: the images.
        threads: how many threads there are for all of them.
        refine_one: refines one and returns the line about it.
        tell: is told of every image, in their order, that line or what went wrong.
    """
    reports = _InOrder(tell)

    def work(numbered: tuple[int, Job], room: Room) -> None:
        number, job = numbered
        try:
            outcome: str | Exception = refine_one(job, room)
        except Exception as error:  # the others are refined all the same
            outcome = error
        reports.add(number, outcome)

    side_by_side(enumerate(jobs), len(jobs), work, threads=threads, workers=threads)


class _InOrder:
    """Passes on what comes in any order in the order of its numbers."""

    def __init__(self, tell: Callable[[int, str | Exception], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._waiting: dict[int, str | Exception] = {}
        self._next = 0

    def add(self, i: int, outcome: str | Exception) -> None:
        with self._lock:
            self._waiting[i] = outcome
            while self._next in self._waiting:
                self._tell(self._next, self._waiting.pop(self._next))
                self._next += 1


# --- one image ------------------------------------------------------------------------------------


def refine_file(
    job: Job,
    arguments: Mapping[str, Any],
    *,
    reading: Reading,
    reword: Reword = plainly,
    compare: bool = True,
    room: Room | None = None,
) -> str:
    """Refine one image and write the result.

    Args:
        job: the files. ``out`` ending in .png gets labels (a mask as 0 and 255), in .npy
            probabilities.
        arguments: keyword arguments of ``refine``.
        reading: how files are read.
        reword: puts errors of ``refine`` into the caller's words.
        compare: say how many labels changed, which takes a look at the labels before.
        room: shared by images that are refined side by side.

    Returns:
        One line: what was refined, how many labels changed, how long that took without reading
        and writing, and where to.

    Raises:
        OSError: if a file cannot be read or written.
        ValueError, TypeError: if a file holds something else than expected, or as ``refine`` does.
    """
    check_out(job.out, job.image, job.scores)
    with nullcontext() if room is None else room.keep(size_of(job.scores)):
        loaded = load(job.image, job.scores, "", arguments, reading, reword)
        returns = "probs" if job.out.suffix.lower() == ".npy" else "labels"
        start = time.perf_counter()
        result = refine_loaded(loaded, arguments, returns, reword, room)
        seconds = time.perf_counter() - start
        write_result(job.out, result, loaded, arguments, loaded.palette)
        share = share_changed(loaded, result, arguments) if compare else None
    height, width = loaded.image.shape[:2]
    changes = "" if share is None else f", {share:.1%} of the labels changed"
    took = f"{seconds * 1000:.0f} ms"
    return f"{job.image.name}: {width} x {height}{changes} in {took} -> {job.out}"


def size_of(source: Any) -> int:
    """Bytes that an input takes, as far as that is known without reading it."""
    return source.stat().st_size if isinstance(source, Path) and source.exists() else 0


def load(
    image: Any,
    scores: Any,
    name: str,
    arguments: Mapping[str, Any],
    reading: Reading,
    reword: Reword = plainly,
) -> Loaded:
    """Read what is given by its path; arrays stay what they are, and go by ``name``.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a file holds something else than expected.
    """
    if isinstance(image, Path):
        if image.suffix.lower() in SCORES - PICTURES:
            raise ValueError(f"{image}: is not a picture by its name; expected IMAGE before SCORES")
        image = read_image(image, exif=reading.exif)
    where, x, palette = name, scores, None
    if isinstance(scores, Path):
        where = str(scores)
        x, palette = _read_scores(scores, reading.array)
    is_bool = str(getattr(x, "dtype", "")).endswith("bool")
    is_mask = is_bool or arguments.get("kind") == "mask"
    if isinstance(scores, Path):
        if is_mask and palette is None:
            x = _foreground(x)
        if not is_mask:
            _check_void(where, x, arguments, reword)
    return Loaded(where, image, x, palette, is_mask)


def refine_loaded(
    loaded: Loaded,
    arguments: Mapping[str, Any],
    returns: str,
    reword: Reword = plainly,
    room: Room | None = None,
) -> NDArray[Any]:
    """Refine an image: "probs", or "labels" without axes of length 1 in front.

    Raises:
        MemoryError, TypeError, ValueError: as ``refine`` does, with the name in front.
    """
    turn = nullcontext() if room is None else room.refine(_bytes_of(loaded, arguments))
    with turn as threads:
        mine = arguments if threads is None else {**arguments, "threads": threads}
        try:
            result = np.asarray(refine(loaded.x, loaded.image, returns=returns, **mine))
        except (MemoryError, TypeError, ValueError) as error:  # refine() does not know the files
            raise reworded(error, f"{loaded.name}: {reword(str(error))}") from error
    is_batch = returns == "labels" and result.ndim == 3
    return _only_item(loaded.name, result) if is_batch else result


def write_result(
    out: Path,
    result: NDArray[Any],
    loaded: Loaded,
    arguments: Mapping[str, Any],
    palette: NDArray[np.uint8] | str | None,
) -> None:
    """Write probabilities to a .npy, labels to a .png; the colours are as for ``write_labels``."""
    if out.suffix.lower() == ".npy":
        write_array(out, result)
    elif loaded.is_mask and not _has_marks(arguments):
        write_mask(out, result)
    else:
        write_labels(out, result, palette)


def labels_before(loaded: Loaded, arguments: Mapping[str, Any], returns: str) -> Any:
    """What is refined, at the image's size: without pairwise terms ``refine`` only upsamples."""
    if np.asarray(loaded.x).dtype.kind != "f":
        return loaded.x
    about_results = ("min_confidence", "ignore_index")  # of scores both are
    alone = {name: value for name, value in arguments.items() if name not in about_results}
    alone |= {"spatial": None, "bilateral": None, "keep_thin": 0, "iterations": 0}
    return refine(loaded.x, loaded.image, returns=returns, **alone)


def share_changed(loaded: Loaded, result: NDArray[Any], arguments: Mapping[str, Any]) -> float:
    """Share of the pixels whose label is another one than before."""
    layout, size = arguments.get("layout"), loaded.image.shape[:2]
    before = labels_before(loaded, arguments, "probs" if result.dtype.kind == "f" else "labels")
    old = _labels_of(before, loaded.is_mask, layout, size)
    has_marks = _has_marks(arguments)  # which are neither of a mask's two
    new = result if has_marks else _labels_of(result, loaded.is_mask, layout, size)
    return float(np.mean(old.ravel() != new.ravel()))  # a label axis of length 1 may differ


def _has_marks(arguments: Mapping[str, Any]) -> bool:
    """Whether labels that are not sure are marked: 255 of a mask's labels 0 and 1, say."""
    return arguments.get("min_confidence") is not None


def reworded(error: Exception, sentence: str) -> Exception:
    """The same kind of error with another sentence; a subclass may want other arguments."""
    kinds = (MemoryError, OSError, TypeError, ValueError)
    return next(kind for kind in kinds if isinstance(error, kind))(sentence)


def _bytes_of(loaded: Loaded, arguments: Mapping[str, Any]) -> int:
    """About what it takes to refine this; labels are the shortest axis of scores."""
    x, image = np.asarray(loaded.x), np.asarray(loaded.image)
    if x.dtype.kind == "f":
        n_labels = min(x.shape, default=1)
    else:
        n_labels = arguments.get("n_labels") or max(2, int(x.max(initial=0)) + 1)
    n_points = image.shape[0] * image.shape[1] if image.ndim > 1 else 0
    n_channels = image.shape[2] if image.ndim > 2 else 1
    return memory.PEAK * memory.mean_field_bytes(n_points, n_labels, (2, 2 + n_channels))


def _labels_of(
    values: NDArray[Any], is_mask: bool, layout: str | None, size: tuple[int, ...]
) -> NDArray[Any]:
    """The most probable labels of probabilities; labels as they are; a mask as bool."""
    if is_mask:
        return values > 0.5
    if values.dtype.kind != "f":
        return values
    labels_first = layout != "HWC" and values.shape[-2:] == size
    labels: NDArray[np.intp] = values.argmax(axis=-3 if labels_first else -1)
    return labels


def _read_scores(path: Path, array: str | None) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Return scores or labels, and the palette of a palette PNG."""
    if path.suffix.lower() == ".png":
        return read_labels(path)
    x = read_array(path, name=array)
    return (_only_item(str(path), x) if x.ndim == 4 else x), None


def _foreground(mask: NDArray[Any]) -> NDArray[Any]:
    """A saliency map as pictures hold it, in levels, as probabilities; other masks as they are."""
    if mask.dtype not in (np.uint8, np.uint16) or mask.size == 0:
        return mask
    highest = np.iinfo(mask.dtype).max
    has_levels = mask.max() > highest // 2 and ((mask != 0) & (mask != mask.max())).any()
    return (mask / highest).astype(np.float32) if has_levels else mask


def _only_item(name: str, batch: NDArray[Any]) -> NDArray[Any]:
    """Return the only item of a batch."""
    if len(batch) != 1:
        shape = batch.shape
        raise ValueError(f"{name}: has shape {shape}, a batch; expected the scores of one image")
    item: NDArray[Any] = batch[0]
    return item


# --- what can be refused before -------------------------------------------------------------------


def check_out(out: Path, *inputs: Any) -> None:
    """Refuse an output of another kind, or one that would replace an input."""
    if out.suffix.lower() not in (".png", ".npy"):
        raise ValueError(
            f"{out}: expected a name that ends in .png (labels) or .npy (probabilities)"
        )
    for path in inputs:
        if isinstance(path, Path) and out.exists() and path.exists() and out.samefile(path):
            raise ValueError(f"{out}: is one of the files to read; expected another name or folder")


def check_arguments(arguments: Mapping[str, Any], reword: Reword = plainly) -> None:
    """Check keyword arguments of ``refine`` as far as that goes without an image.

    Raises:
        TypeError, ValueError: if one has no sense for any image.
    """
    kind, layout = arguments.get("kind", "auto"), arguments.get("layout")
    about_labels = "ignore_index" in arguments or "n_labels" in arguments
    if kind == "auto" and about_labels:
        kind = "labels"
    unfit = {"probs": ("HW",), "logits": ("HW",), "labels": ("CHW", "HWC")}
    if layout in unfit.get(kind, ()):
        sentence = f"layout={layout!r} does not go with {kind}; expected another of the two"
        raise ValueError(reword(sentence))
    empty = np.empty((0, 1, 1), bool if kind == "mask" else np.int64)
    if kind not in ("labels", "mask"):
        empty = np.empty((0, 2, 1, 1), np.float32)
    others = {name: value for name, value in arguments.items() if name != "layout"}
    try:  # a batch of no images: arguments are all there is to look at
        refine(empty, np.zeros((1, 1), np.uint8), **others)
    except (TypeError, ValueError) as error:
        raise reworded(error, reword(str(error))) from error


def _check_void(
    name: str, labels: NDArray[Any], arguments: Mapping[str, Any], reword: Reword
) -> None:
    """Refuse label 255 unless it is said to be a class or the mark of unlabelled pixels.

    Maps in the style of PASCAL VOC mark unlabelled pixels by it, those of 16 bits by 65535; read as
    a class it would mean as many classes, and one more. A map of 0 and 255 alone is left to
    ``refine``, which asks whether it is a mask.
    """
    if labels.dtype.kind not in "iu" or labels.size == 0:
        return
    highest = int(labels.max())
    if arguments.keys() & {"ignore_index", "n_labels"} or highest not in _VOID:
        return
    if ((labels != 0) & (labels != highest)).any():
        sentence = (
            f"has label {highest}; say whether it marks unlabelled pixels "
            f"(ignore_index={highest}) or is a class (n_labels={highest + 1})"
        )
        raise ValueError(f"{name}: {reword(sentence)}")
