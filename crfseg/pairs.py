# SPDX-License-Identifier: MIT
"""Which image belongs to which scores: files of two folders, by their names without suffix."""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SCORES = frozenset({".npy", ".npz", ".png"})


class Pair(NamedTuple):
    """An image and its scores."""

    name: str
    """Path below either folder, without suffix."""
    image: Path
    scores: Path


class Found(NamedTuple):
    """What two folders hold."""

    pairs: list[Pair]
    """By name."""
    alone: list[tuple[Path, str]]
    """Files without their partner, each with a sentence on what is missing."""


def pair_folders(
    images: Path,
    scores: Path,
    out: Path,
    *,
    deep: bool = False,
    names: Collection[str] | None = None,
) -> Found:
    """Pair the files of two folders by their names without suffix.

    Args:
        images: folder of photographs.
        scores: folder of .npy, .npz and .png files.
        out: folder of the results.
        deep: look into folders inside as well; not into hidden ones, nor into those of the others.
        names: the images that matter; None for all.

    Raises:
        ValueError: if one of the folders is none, holds nothing or two files of one name, or
            ``out`` is a file or is called like one, or is one of the two.
    """
    for folder in (images, scores):
        if not folder.is_dir():
            fault = "is a file" if folder.exists() else "does not exist"
            raise ValueError(f"{folder}: {fault}; expected a folder")
    check_folder(out, f"{images} is a folder")
    for folder in (images, scores):
        if out.resolve() == folder.resolve():
            raise ValueError(f"{out}: holds the inputs; expected another folder for the results")
    photographs = by_name(images, PICTURES, deep=deep, avoid=(scores, out))
    found = by_name(scores, SCORES, deep=deep, avoid=(images, out))
    if not found:
        raise ValueError(f"{scores}: holds no .npy, .npz or .png file")
    if not photographs:
        raise ValueError(f"{images}: holds no picture ({', '.join(sorted(PICTURES))})")
    missing = set() if names is None else set(names) - photographs.keys() - found.keys()
    photographs, found = (only(files, names) for files in (photographs, found))
    pairs = [
        Pair(name, photographs[name], path) for name, path in found.items() if name in photographs
    ]
    alone = [
        (files[name], f"{files[name]}: no {what} of that name in {folder}")
        for files, others, what, folder in (
            (photographs, found, ".npy, .npz or .png", scores),
            (found, photographs, "image", images),
        )
        for name in files.keys() - others.keys()
    ]
    alone += [(images / name, f"{name}: no image of that name in {images}") for name in missing]
    return Found(pairs, sorted(alone))


def only(files: Mapping[str, Path], names: Collection[str] | None) -> dict[str, Path]:
    """Those of the files that have one of the names; None for all."""
    wanted = files if names is None else set(names)
    return {name: path for name, path in files.items() if name in wanted}


def read_names(path: Path) -> list[str]:
    """A name in each line, as data sets list what belongs to a part of them.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it is no text or holds no name.
    """
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text; expected a name in each line") from error
    if not any(names):
        raise ValueError(f"{path}: is empty; expected a name in each line")
    return [name for name in names if name]


def check_folder(out: Path, but: str) -> None:
    """Refuse a folder for results that is a file, or called like one.

    Raises:
        ValueError: if it is.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; expected a folder to write the results into")
    if not out.exists() and out.suffix.lower() in PICTURES | SCORES:
        raise ValueError(
            f"{out}: is called like a file but {but}; expected a folder to write the results into"
        )


def by_name(
    folder: Path, suffixes: frozenset[str], *, deep: bool = False, avoid: tuple[Path, ...] = ()
) -> dict[str, Path]:
    """Files of these suffixes by their path below ``folder`` without suffix, in order of name.

    Raises:
        ValueError: if two files have one name.
    """
    found: dict[str, Path] = {}
    for path in _files(folder, deep, avoid):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise ValueError(f"{path}: has the same name as {found[name]}; expected only one")
        found[name] = path
    return dict(sorted(found.items()))


def _raise(error: OSError) -> None:
    """What cannot be looked into is not left out in silence."""
    raise error


def _files(folder: Path, deep: bool, avoid: tuple[Path, ...]) -> Iterator[Path]:
    if not deep:
        yield from sorted(path for path in folder.iterdir() if not path.is_dir())
        return
    seen = {path.resolve() for path in (folder, *avoid)}
    for root, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        here = Path(root)
        entered = {name: (here / name).resolve() for name in folders if name[0] != "."}
        # Links are followed, but not in circles.
        folders[:] = sorted(name for name, real in entered.items() if real not in seen)
        seen.update(entered.values())
        yield from (here / name for name in sorted(names))
