# SPDX-License-Identifier: MIT
"""Refining files: which image belongs to which scores, and where the result goes."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crfseg import refine
from crfseg.io import read_array, read_image, read_labels, write_array, write_labels, write_mask

PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SCORES = frozenset({".npy", ".npz", ".png"})


class Job(NamedTuple):
    """One image to refine."""

    image: Path
    scores: Path
    out: Path


def pair_folders(images: Path, scores: Path, out: Path, kind: str) -> tuple[list[Job], list[Path]]:
    """Pair the files of two folders by their names without suffix.

    Args:
        images: folder of photographs; those without scores are left alone.
        scores: folder of .npy, .npz and .png files.
        out: folder of the results.
        kind: suffix of the results, "png" or "npy".

    Returns:
        A job for every file of scores that has an image, by name, and the files that have none.

    Raises:
        ValueError: if one of the folders is none, holds nothing or two files of one name.
    """
    for folder in (images, scores):
        if not folder.is_dir():
            raise ValueError(f"{folder}: is not a folder; expected two files or two folders")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; expected a folder to write the results into")
    photographs, found = _by_stem(images, PICTURES), _by_stem(scores, SCORES)
    if not found:
        raise ValueError(f"{scores}: holds no .npy, .npz or .png file")
    jobs = [
        Job(photographs[stem], path, out / f"{stem}.{kind}")
        for stem, path in found.items()
        if stem in photographs
    ]
    return jobs, [path for stem, path in found.items() if stem not in photographs]


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


def refine_file(
    job: Job, arguments: Mapping[str, Any], *, array: str | None = None, exif: str | None = None
) -> str:
    """Refine one image and write the result.

    Args:
        job: the files. ``out`` ending in .png gets labels (a mask as 0 and 255), in .npy
            probabilities.
        arguments: keyword arguments of ``refine``.
        array: see ``crfseg.io.read_array``.
        exif: see ``crfseg.io.read_image``.

    Returns:
        One line: what was refined, how long that took without reading and writing, and where to.

    Raises:
        OSError: if a file cannot be read or written.
        ValueError, TypeError: if a file holds something else than expected, or as ``refine`` does.
    """
    _check_out(job)
    image = read_image(job.image, exif=exif)
    x, palette = _read_scores(job.scores, array)
    is_mask = x.dtype == bool or arguments.get("kind") == "mask"
    if not is_mask:
        _check_void(job.scores, x, arguments)
    as_array = job.out.suffix.lower() == ".npy"
    start = time.perf_counter()
    try:
        result = refine(x, image, returns="probs" if as_array else "labels", **arguments)
    except (MemoryError, TypeError, ValueError) as error:  # refine() does not know the files
        raise type(error)(f"{job.scores}: {error}") from error
    seconds = time.perf_counter() - start
    if as_array:
        write_array(job.out, result)
    elif is_mask:
        write_mask(job.out, result)
    else:
        write_labels(job.out, result, palette)
    height, width = image.shape[:2]
    return f"{job.image.name}: {width} x {height} in {seconds * 1000:.0f} ms -> {job.out}"


def _read_scores(path: Path, array: str | None) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Return scores or labels, and the palette of a palette PNG."""
    if path.suffix.lower() == ".png":
        return read_labels(path)
    x = read_array(path, name=array)
    if x.ndim == 4 and len(x) != 1:
        raise ValueError(f"{path}: has shape {x.shape}, a batch; expected the scores of one image")
    return (x[0] if x.ndim == 4 else x), None


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
