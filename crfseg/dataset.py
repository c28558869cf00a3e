# SPDX-License-Identifier: MIT
"""refine_dataset(): any number of images, side by side, a file for each.

A result takes its place when it is whole, and is noted in the manifest beside it (manifest.py), so
that a run that was stopped, in whatever way, can be resumed.
"""

import errno
import json
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check as check
from . import manifest
from ._containers import open_array
from ._native import MOST_THREADS, threads_of_call
from ._room import Room, side_by_side
from .batch import (
    Loaded,
    Reading,
    Reword,
    check_arguments,
    check_out,
    load,
    plainly,
    refine_loaded,
    size_of,
    write_result,
)
from .cache import at_least
from .io import atomic_write, read_palette, remove_partials
from .manifest import Manifest
from .pairs import check_folder, pair_folders
from .palette import as_palette, voc_palette
from .presets import spelt_out
from .refine import refine

SUMMARY = "crfseg-summary.json"
_WHERE: Final = "refine_dataset"
_SUFFIX: Final = {"labels": ".png", "probs": ".npy"}
_CACHE_BYTES: Final = 256 << 20
# There is no going on without room: every image to come would end the same way.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Palette = NDArray[np.uint8] | str | None


class Item(NamedTuple):
    """An image, its scores and what the result is to be called."""

    name: str
    """Path below the folder of results, without suffix."""
    image: Any
    """Path or array."""
    scores: Any
    """Path or array."""


class Report(NamedTuple):
    """What became of one image."""

    name: str
    """Of the item, or the path of a file without its partner."""
    outcome: str
    """"refined", "unchanged" (nothing to do) or "failed"."""
    error: Exception | None = None
    """What went wrong."""
    n_items: int | None = None
    """How many images there are; None if that is not known."""


Tell = Callable[[Report], None]


@dataclass(frozen=True)
class Summary:
    """What became of a data set."""

    out: Path
    """Folder of the results."""
    refined: int
    """Images that were refined."""
    unchanged: int
    """Images whose results were there already, made of the same (``resume``)."""
    failed: Mapping[str, str]
    """Those that have no result, by name, each with a sentence on why."""
    seconds: float
    """How long that took."""

    def __str__(self) -> str:
        text = f"{self.refined} refined, {len(self.failed)} failed"
        if self.unchanged:
            text += f", {self.unchanged} done before"
        rate = f", {self.refined / self.seconds:.1f} images/s" if self.refined else ""
        return f"{text} in {self.seconds:.1f} s{rate}"


def refine_dataset(
    images: Any,
    scores: Any = None,
    *,
    out: Any,
    names: Iterable[str] | None = None,
    returns: str = "labels",
    palette: Any = None,
    resume: bool = False,
    compare: str = "time",
    workers: int | None = None,
    threads: int | None = None,
    array: str | None = None,
    exif: str | None = None,
    tell: Tell | None = None,
    reword: Reword = plainly,
    **options: Any,
) -> Summary:
    """Refine a data set, image by image, and write a file for each.

    A bad image is left out and told about; the others are refined. What is written is whole or not
    there. There are never more images in memory than a few beyond ``workers``. Where the disk is
    full, or can no longer be written to, the run ends. ``crfseg-manifest.jsonl`` beside the results
    lists them; ``crfseg-summary.json`` is written when all is done.

    Args:
        images: folder of photographs, looked into deeply; or, without ``scores``, an iterable of
            (name, image, scores): the name of the result without suffix ("a" or "a/b"), and paths
            or arrays as ``refine`` takes them. It may be a generator: each triple is asked for, on
            the thread of the call, when its time has come.
        scores: folder of .npy, .npz and label .png files, of the images' names.
        out: folder of the results, made if missing; folders inside are those of the images.
        names: of the images in the folders that are to be refined, without suffix; None for all.
        returns: "labels", a PNG each; or "probs", a .npy each.
        palette: "voc", "grey", (N, 3) RGB, or a file: a palette PNG, or text with a line "R G B"
            for each label. None keeps that of scores that are palette PNGs, else takes VOC's.
        resume: leave out what the manifest says to be made of the same inputs with the same
            parameters by the same version, and redo the rest. Without it all is made anew.
        compare: "time" takes a file for the same if its size and the time of its last change are;
            "contents" reads it. Arrays are always compared by their contents.
        workers: how many images to refine at a time; None for ``threads``.
        threads: for all images together; None for ``get_num_threads()``.
        array: which array of .npz files holds the scores; None takes the only one.
        exif: what to do with an orientation that a camera noted, "apply" or "ignore"; None is an
            error where there is one.
        tell: called with a ``Report`` about each image when it is done, one at a time, on any
            thread.
        reword: puts what ``refine`` says of wrong input into other words.
        options: of ``refine``, for all images.

    Returns:
        A ``Summary``. Without ``tell``, failures are also a warning.

    Raises:
        TypeError, ValueError: if an argument makes no sense for any image, or a folder does not.
        OSError: if ``out`` cannot be written to, or is full: what was written is valid.
        RuntimeError: if another run is writing into ``out``.
    """
    check.choice(_WHERE, "returns", returns, tuple(_SUFFIX))
    check.choice(_WHERE, "compare", compare, manifest.COMPARE)
    check.flag(_WHERE, "resume", resume)
    check.choice(_WHERE, "exif", exif, (None, "apply", "ignore"))
    n_threads = threads_of_call(_WHERE, threads)
    if workers is not None:
        check.integer(_WHERE, "workers", workers, at_least=1, at_most=MOST_THREADS)
    if not check.is_path(out):
        raise check.mistyped(_WHERE, f"out is {check.show(out)}; expected a folder")
    names = _names(names)
    options["returns"] = returns
    check_arguments(options, reword)
    # What a preset says and not what it is called is what results are made of.
    options = spelt_out("refine", refine, options)
    del options["returns"]
    folder = Path(out)
    plan = _Plan(
        *(folder, returns, _palette(palette), Reading(array, exif), options),
        *(compare, resume, reword),
    )
    inputs = _open(images, scores, folder, names)
    tally = _Tally(inputs, tell)
    began = time.perf_counter()
    with _writing_into(folder) as notes, at_least(_CACHE_BYTES):
        for path, sentence in inputs.alone:
            tally.add(str(path), "failed", ValueError(sentence))
        side_by_side(
            *(inputs.items, inputs.n_items),
            lambda triple, room: tally.add(*plan.attempt(triple, notes, room)),
            threads=n_threads,
            workers=workers or n_threads,
        )
        summary = tally.summary(folder, time.perf_counter() - began)
        _write(summary, plan.parameters)
    if summary.failed and tell is None:
        first = next(iter(summary.failed.values()))
        warnings.warn(f"[{_WHERE}] {len(summary.failed)} failed, the first: {first}", stacklevel=2)
    return summary


class _Inputs(NamedTuple):
    items: Iterable[Any]
    n_items: int | None
    alone: list[tuple[Path, str]]


def _open(images: Any, scores: Any, out: Path, names: Collection[str] | None) -> _Inputs:
    if check.is_path(images) and check.is_path(scores):
        pairs, alone = pair_folders(Path(images), Path(scores), out, deep=True, names=names)
        return _Inputs(pairs, len(pairs), alone)
    if check.is_path(images) or scores is not None or not hasattr(images, "__iter__"):
        raise check.mistyped(
            _WHERE,
            f"images is {check.show(images)} and scores {check.show(scores)}; expected two "
            "folders, or an iterable of (name, image, scores) alone",
        )
    if names is not None:
        raise check.invalid(_WHERE, "names goes with two folders; expected None with an iterable")
    check_folder(out, "there are many images")
    return _Inputs(images, len(images) if hasattr(images, "__len__") else None, [])


def _names(given: Any) -> frozenset[str] | None:
    """The names that matter, which a generator tells only once."""
    if given is None:
        return None
    if not isinstance(given, str) and hasattr(given, "__iter__"):
        names = list(given)
        if all(isinstance(name, str) for name in names):
            return frozenset(names)
    raise check.mistyped(_WHERE, f"names is {check.show(given)}; expected strings in a list")


def _palette(given: Any) -> Palette:
    if given is None or (isinstance(given, str) and given == "grey"):
        return given
    if isinstance(given, str) and given == "voc":
        return voc_palette()
    return read_palette(given) if check.is_path(given) else as_palette(given)


@contextmanager
def _writing_into(folder: Path) -> Iterator[Manifest]:
    """Hold a folder of results; what a killed run has left half done goes, the summary too."""
    folder.mkdir(parents=True, exist_ok=True)
    with manifest.opened(folder) as notes:
        remove_partials(folder)
        (folder / SUMMARY).unlink(missing_ok=True)
        yield notes


class _Plan:
    """How each image is refined."""

    def __init__(
        self,
        out: Path,
        returns: str,
        palette: Palette,
        reading: Reading,
        options: Mapping[str, Any],
        compare: str,
        resume: bool,
        reword: Reword,
    ) -> None:
        from . import __version__

        self._out, self._returns, self._palette = out, returns, palette
        self._reading, self._options = reading, options
        self._compare, self._resume, self._reword = compare, resume, reword
        self.parameters = {
            "version": __version__,
            "returns": returns,
            "palette": palette if returns == "labels" else None,
            **reading._asdict(),
            **options,
        }
        self._described = manifest.describe(self.parameters)
        self._lock = threading.Lock()
        self._taken: set[Path] = set()

    def attempt(
        self, triple: Any, notes: Manifest, room: Room
    ) -> tuple[str, str, Exception | None]:
        """Refine one image: its name, what became of it, and what went wrong."""
        name = str(triple[0]) if isinstance(triple, tuple) and triple else check.show(triple)
        try:
            return name, self._refine(_item(triple), notes, room), None
        except OSError as error:
            if error.errno in _FULL:
                raise
            return name, "failed", _without_arrays(error)
        except Exception as error:  # the others are refined all the same
            return name, "failed", _without_arrays(error)

    def _refine(self, item: Item, notes: Manifest, room: Room) -> str:
        out = self._place(item)
        noted = out.relative_to(self._out).as_posix()
        check_out(out, item.image, item.scores)
        with room.keep(size_of(item.scores)):
            # Before they are read: a change while they are is a change after.
            key = manifest.key_of(self._described, item.image, item.scores, compare=self._compare)
            if self._resume and notes.holds(noted, key, out):
                return "unchanged"
            loaded = load(*item[1:], item.name, self._options, self._reading, self._reword)
            result = refine_loaded(loaded, self._options, self._returns, self._reword, room)
            notes.forget(noted)
            out.parent.mkdir(parents=True, exist_ok=True)
            write_result(out, result, loaded, self._options, self._colours(loaded))
            notes.add(noted, key, out)
        return "refined"

    def _place(self, item: Item) -> Path:
        """The file of the result, which no other image may have."""
        name = PurePosixPath(item.name)
        if not name.parts or name.is_absolute() or ".." in name.parts:
            raise ValueError(f"{item.name!r}: is no name below the folder of results")
        out = self._out / f"{name}{_SUFFIX[self._returns]}"
        with self._lock:
            if out in self._taken:
                raise ValueError(f"{item.name}: is the name of two images; expected one of each")
            self._taken.add(out)
        return out

    def _colours(self, loaded: Loaded) -> Palette:
        return loaded.palette if self._palette is None else self._palette


def _without_arrays(error: Exception) -> Exception:
    """An error whose traceback no longer holds what the functions in it have worked on."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    return error


def _item(triple: Any) -> Item:
    if not isinstance(triple, tuple) or len(triple) != 3 or not isinstance(triple[0], str):
        raise TypeError(
            f"{check.show(triple)}: expected (name, image, scores), the name being a string"
        )
    name, *sources = triple
    return Item(name, *map(_source, sources))


def _source(given: Any) -> Any:
    """A path, or an array; tensors without their gradient, and of what dtype they may be."""
    if check.is_path(given):
        return Path(given)
    return open_array(_WHERE, "tensor", given)[0] if hasattr(given, "detach") else given


class _Tally:
    """Counts what becomes of the images, and passes it on."""

    def __init__(self, inputs: _Inputs, tell: Tell | None) -> None:
        n_items = inputs.n_items
        self._n_items = None if n_items is None else n_items + len(inputs.alone)
        self._tell = tell
        self._lock = threading.Lock()
        self._counts = {"refined": 0, "unchanged": 0}
        self._failed: dict[str, str] = {}

    def add(self, name: str, outcome: str, error: Exception | None) -> None:
        """Note an image that is done."""
        with self._lock:
            if error is None:
                self._counts[outcome] += 1
            else:
                self._failed[name] = " ".join(str(error).split()) or type(error).__name__
            if self._tell is not None:
                self._tell(Report(name, outcome, error, self._n_items))

    def summary(self, out: Path, seconds: float) -> Summary:
        """When all are done."""
        return Summary(
            out, **self._counts, failed=dict(sorted(self._failed.items())), seconds=seconds
        )


def _write(summary: Summary, parameters: Mapping[str, Any]) -> None:
    """Leave the summary beside the results."""
    content = {
        **asdict(summary),
        "out": str(summary.out),
        "seconds": round(summary.seconds, 3),
        "parameters": json.loads(manifest.describe(parameters)),
    }
    with atomic_write(summary.out / SUMMARY) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")
