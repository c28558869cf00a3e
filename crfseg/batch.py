# SPDX-License-Identifier: MIT
"""Refining files: which image belongs to which scores, and where the result goes.

Errors speak the language of the command line: options, not keyword arguments.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crfseg import _memory as memory
from crfseg import refine
from crfseg._crew import n_side_by_side, share_out
from crfseg.io import read_array, read_image, read_labels, write_array, write_labels, write_mask

PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SCORES = frozenset({".npy", ".npz", ".png"})


class Job(NamedTuple):
    """One image to refine."""

    image: Path
    scores: Path
    out: Path


def pair_folders(images: Path, scores: Path, out: Path, kind: str) -> tuple[list[Job], list[str]]:
    """Pair the files of two folders by their names without suffix.

    Args:
        images: folder of photographs.
        scores: folder of .npy, .npz and .png files.
        out: folder of the results.
        kind: suffix of the results, "png" or "npy".

    Returns:
        A job for every pair, by name, and a sentence for every file without its partner.

    Raises:
        ValueError: if one of the folders is none, holds nothing or two files of one name, or
            ``out`` is a file or is called like one.
    """
    for folder in (images, scores):
        if not folder.is_dir():
            raise ValueError(f"{folder}: is not a folder; expected two files or two folders")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; expected a folder to write the results into")
    if not out.exists() and out.suffix.lower() in PICTURES | SCORES:
        raise ValueError(
            f"{out}: is called like a file but {images} is a folder; expected a folder to write "
            "the results into"
        )
    photographs, found = _by_stem(images, PICTURES), _by_stem(scores, SCORES)
    if not found:
        raise ValueError(f"{scores}: holds no .npy, .npz or .png file")
    if not photographs:
        raise ValueError(f"{images}: holds no picture ({', '.join(sorted(PICTURES))})")
    jobs = [
        Job(photographs[stem], path, out / f"{stem}.{kind}")
        for stem, path in found.items()
        if stem in photographs
    ]
    alone = [
        f"{files[stem]}: no {what} of that name in {folder}"
        for files, others, what, folder in (
            (photographs, found, ".npy, .npz or .png", scores),
            (found, photographs, "image", images),
        )
        for stem in files.keys() - others.keys()
    ]
    return jobs, sorted(alone)


def _by_stem(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    """Return the files with these suffixes by name without suffix, in order of name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in found:
            raise ValueError(f"{path}: has the same name as {found[path.stem]}; expected only one")
        found[path.stem] = path
    return found


class Room:
    """Memory for images that are refined side by side: what does not fit waits for others."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._limit = memory.available() // 2
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, n_bytes: int) -> Iterator[int]:
        """Wait until there is room; how many threads to use: all, where no other image fits."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + n_bytes <= self._limit)
            self._held += n_bytes
        try:
            yield 1 if n_bytes <= self._limit else self._threads
        finally:
            with self._changed:
                self._held -= n_bytes
                self._changed.notify_all()


def refine_files(
    jobs: Sequence[Job],
    threads: int,
    refine_one: Callable[[Job, Room | None], str],
    tell: Callable[[int, str | Exception], None],
) -> None:
    """Refine many images, as many at a time as there are threads.

    Args:
        jobs: the images.
        threads: how many threads there are for all of them.
        refine_one: refines one and returns the line about it; not alone if it gets a room.
        tell: is told of every image, in their order, that line or what went wrong.
    """
    reports = _InOrder(tell)

    def work(i: int, room: Room | None) -> None:
        try:
            outcome: str | Exception = refine_one(jobs[i], room)
        except Exception as error:  # the others are refined all the same
            outcome = error
        reports.add(i, outcome)

    workers = min(threads, len(jobs))
    first = n_side_by_side(len(jobs), workers) if workers > 1 else 0
    if first:
        room = Room(threads)
        share_out(first, workers, lambda: lambda i: work(i, room))
    for i in range(first, len(jobs)):
        work(i, None)


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


def refine_file(
    job: Job,
    arguments: Mapping[str, Any],
    *,
    array: str | None = None,
    exif: str | None = None,
    compare: bool = True,
    room: Room | None = None,
) -> str:
    """Refine one image and write the result.

    Args:
        job: the files. ``out`` ending in .png gets labels (a mask as 0 and 255), in .npy
            probabilities.
        arguments: keyword arguments of ``refine``.
        array: see ``crfseg.io.read_array``.
        exif: see ``crfseg.io.read_image``.
        compare: say how many labels changed, which takes a look at the labels before.
        room: shared by images that are refined side by side, and so are threads then.

    Returns:
        One line: what was refined, how many labels changed, how long that took without reading
        and writing, and where to.

    Raises:
        OSError: if a file cannot be read or written.
        ValueError, TypeError: if a file holds something else than expected, or as ``refine`` does.
    """
    _check_out(job)
    if job.image.suffix.lower() in SCORES - PICTURES:
        raise ValueError(f"{job.image}: is not a picture by its name; expected IMAGE before SCORES")
    image = read_image(job.image, exif=exif)
    x, palette = _read_scores(job.scores, array)
    is_mask = x.dtype == bool or arguments.get("kind") == "mask"
    if is_mask and palette is None:
        x = _foreground(x)
    if not is_mask:
        _check_void(job.scores, x, arguments)
    as_array = job.out.suffix.lower() == ".npy"
    returns = "probs" if as_array else "labels"
    with ExitStack() as stack:
        if room is not None:
            threads = stack.enter_context(room.hold(_bytes_of(x, image, arguments)))
            arguments = {**arguments, "threads": threads}
        start = time.perf_counter()
        try:
            result = refine(x, image, returns=returns, **arguments)
        except (MemoryError, TypeError, ValueError) as error:  # refine() does not know the files
            raise _reworded(error, f"{job.scores}: {in_options(str(error))}") from error
        seconds = time.perf_counter() - start
    if not as_array and result.ndim == 3:
        result = _only_item(job.scores, result)
    if as_array:
        write_array(job.out, result)
    elif is_mask:
        write_mask(job.out, result)
    else:
        write_labels(job.out, result, palette)
    height, width = image.shape[:2]
    share = _share_changed(x, image, result, arguments, is_mask) if compare else None
    changes = "" if share is None else f", {share:.1%} of the labels changed"
    took = f"{seconds * 1000:.0f} ms"
    return f"{job.image.name}: {width} x {height}{changes} in {took} -> {job.out}"


def _bytes_of(x: NDArray[Any], image: NDArray[Any], arguments: Mapping[str, Any]) -> int:
    """About what it takes to refine this; labels are the shortest axis of scores."""
    if x.dtype.kind == "f":
        n_labels = min(x.shape, default=1)
    else:
        n_labels = arguments.get("n_labels") or max(2, int(x.max(initial=0)) + 1)
    n_points = image.shape[0] * image.shape[1]
    return memory.PEAK * memory.mean_field_bytes(n_points, n_labels, (2, 2 + image[0, :1].size))


def _reworded(error: Exception, sentence: str) -> Exception:
    """The same kind of error with another sentence; a subclass may want other arguments."""
    kinds = (MemoryError, OSError, TypeError, ValueError)
    return next(kind for kind in kinds if isinstance(error, kind))(sentence)


def _share_changed(
    x: NDArray[Any],
    image: NDArray[Any],
    result: NDArray[Any],
    arguments: Mapping[str, Any],
    is_mask: bool,
) -> float:
    """Share of the pixels whose label is another one than before."""
    before, layout, size = x, arguments.get("layout"), image.shape[:2]
    if x.dtype.kind == "f":
        # Without a pairwise term refine() upsamples the scores and no more.
        returns = "probs" if result.dtype.kind == "f" else "labels"
        alone = {**arguments, "spatial": None, "bilateral": None, "keep_thin": 0, "iterations": 0}
        before = refine(x, image, returns=returns, **alone)
    old, new = (_labels_of(values, is_mask, layout, size) for values in (before, result))
    return float(np.mean(old.ravel() != new.ravel()))  # a label axis of length 1 may differ


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
    return (_only_item(path, x) if x.ndim == 4 else x), None


def _foreground(mask: NDArray[Any]) -> NDArray[Any]:
    """A saliency map as pictures hold it, in levels, as probabilities; other masks as they are."""
    if mask.dtype not in (np.uint8, np.uint16) or mask.size == 0:
        return mask
    highest = np.iinfo(mask.dtype).max
    has_levels = mask.max() > highest // 2 and ((mask != 0) & (mask != mask.max())).any()
    return (mask / highest).astype(np.float32) if has_levels else mask


def _only_item(path: Path, batch: NDArray[Any]) -> NDArray[Any]:
    """Return the only item of a batch."""
    if len(batch) != 1:
        shape = batch.shape
        raise ValueError(f"{path}: has shape {shape}, a batch; expected the scores of one image")
    item: NDArray[Any] = batch[0]
    return item


def _check_out(job: Job) -> None:
    """Refuse an output of another kind, or one that would replace an input."""
    if job.out.suffix.lower() not in (".png", ".npy"):
        raise ValueError(
            f"{job.out}: expected a name that ends in .png (labels) or .npy (probabilities)"
        )
    for path in (job.image, job.scores):
        if job.out.exists() and path.exists() and job.out.samefile(path):
            raise ValueError(
                f"{job.out}: is one of the files to read; expected another name or folder"
            )


def check_arguments(arguments: Mapping[str, Any]) -> None:
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
        raise ValueError(f"--layout {layout} does not go with {kind}; expected another of the two")
    empty = np.empty((0, 1, 1), bool if kind == "mask" else np.int64)
    if kind not in ("labels", "mask"):
        empty = np.empty((0, 2, 1, 1), np.float32)
    others = {name: value for name, value in arguments.items() if name != "layout"}
    try:  # a batch of no images: arguments are all there is to look at
        refine(empty, np.zeros((1, 1), np.uint8), **others)
    except (TypeError, ValueError) as error:
        raise _reworded(error, in_options(str(error))) from error


_IN_OPTIONS = (
    (r"^\[refine\] (x (?=has|holds|is|ranges|sums))?", ""),
    (r"\bx holds\b", "SCORES hold"),
    (r"\bx of shape\b", "SCORES of shape"),
    (r"\bx / 255 and ", ""),  # read as that where --kind says that it is a mask
    (r"\bx\.argmax\(0\)", "their argmax over the first axis"),
    (r"np\.moveaxis\(x, -1, 0\)", "--layout HWC"),
    (r"\b(?:Gaussian|spatial) (?=sigma|weight)", "--spatial "),
    (r"\b[Bb]ilateral (?=sigma|weight)", "--bilateral "),
    (r"(?<=--spatial )\w+|(?<=--bilateral )\w+", lambda found: found[0].upper()),
    (r"^(iterations|tolerance|confidence|threads)\b", r"--\1"),
    (r"\b(kind|layout|upsample|ignore_index|n_labels)= *", r"--\1 "),
    (r"(?<!-)\b(ignore_index|n_labels|keep_thin)\b", r"--\1"),
    (r"--(ignore_index|n_labels|keep_thin)\b", lambda found: found[0].replace("_", "-")),
    # The names that an option can have are quoted in Python alone.
    (r"(--(?:kind|layout|upsample) ).*", lambda found: re.sub(r"'([\w-]+)'", r"\1", found[0])),
)


def in_options(sentence: str) -> str:
    """An error of ``refine`` as one who typed options reads it: --kind logits, --spatial WEIGHT."""
    for pattern, words in _IN_OPTIONS:
        sentence = re.sub(pattern, words, sentence)
    return sentence


def _check_void(path: Path, labels: NDArray[Any], arguments: Mapping[str, Any]) -> None:
    """Refuse label 255 unless it is said to be a class or the mark of unlabelled pixels.

    Maps in the style of PASCAL VOC mark unlabelled pixels by it; read as a class it would mean 256
    classes. A map of 0 and 255 alone is left to ``refine``, which asks whether it is a mask.
    """
    if labels.dtype.kind not in "iu" or labels.size == 0:
        return
    if arguments.keys() & {"ignore_index", "n_labels"} or labels.max() != 255:
        return
    if ((labels != 0) & (labels != 255)).any():
        raise ValueError(
            f"{path}: has label 255; say whether it marks unlabelled pixels (--ignore-index 255) "
            "or is a class (--n-labels 256)"
        )
