# SPDX-License-Identifier: MIT
"""Reading and writing the files of a segmentation: photographs, score arrays, label maps.

Every error is one sentence that starts with the file's path. Pillow is imported where a picture is
read or written, so arrays alone need numpy alone.
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crfseg.palette import as_palette, extend_palette

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

StrPath = str | os.PathLike[str]

EXIF_ORIENTATION = 0x0112  # the tag's number in the EXIF standard
_PARTIAL = ".partial"


class LabelMap(NamedTuple):
    """A label map as its PNG holds it."""

    labels: NDArray[Any]
    """(H, W) bool, uint8 or uint16."""
    palette: NDArray[np.uint8] | None
    """(N, 3) RGB of a palette PNG; None of a grey one."""


@contextmanager
def atomic_write(path: StrPath) -> Iterator[IO[bytes]]:
    """Open a file to write; it takes the place of ``path`` only when the block ends well.

    Raises:
        OSError: if the folder does not exist or cannot be written to, or ``path`` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; expected the name of a file to write")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist")
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        # write() names no file, and open() one that nobody knows.
        is_ours = error.filename is None or str(error.filename) == str(partial)
        if is_ours and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        with suppress(OSError):  # it is not there, or what matters has been raised
            partial.unlink()


def remove_partials(folder: StrPath) -> None:
    """Remove what ``atomic_write`` leaves below a folder where its process is killed."""
    for partial in Path(folder).rglob(f".*.[0-9]*{_PARTIAL}"):
        partial.unlink(missing_ok=True)


def read_image(path: StrPath, *, exif: str | None = None) -> NDArray[Any]:
    """Read a photograph.

    Args:
        path: a picture file of any kind Pillow knows.
        exif: what to do with an orientation that the camera noted and viewers turn the picture by:
            "apply" turns it, "ignore" takes the pixels as stored; None is an error if there is one,
            since only the maker of the scores knows which of the two they belong to.

    Returns:
        (H, W, 3) uint8 RGB, or (H, W) uint8 or uint16 of a grey picture; without transparency, as
        loaders of photographs for networks drop it.

    Raises:
        ImportError: without Pillow.
        OSError: if the file cannot be opened.
        ValueError: if it is no picture, is damaged, or ``exif`` is needed.
    """
    with _open_picture(path) as picture:
        turn = picture.getexif().get(EXIF_ORIENTATION, 1)
        if turn in (0, 1) or exif == "ignore":
            return _photograph(picture, path)
        if exif != "apply":
            raise ValueError(
                f"{path}: has EXIF orientation {turn}, so viewers show it turned; expected exif= "
                "(--exif): 'apply' if the scores belong to the picture as shown, 'ignore' if to "
                "the pixels as stored"
            )
        from PIL import ImageOps

        return _photograph(ImageOps.exif_transpose(picture), path)


def _photograph(picture: "Picture", path: StrPath) -> NDArray[Any]:
    """Return the pixels of an opened picture: RGB, or grey of 8 or 16 bits."""
    if picture.mode.startswith("I"):
        return _sixteen_bits(picture, path)
    if picture.mode == "F":
        raise ValueError(f"{path}: is a floating point picture; expected 8 or 16 bits a channel")
    return np.array(picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB"))


def _sixteen_bits(picture: "Picture", path: StrPath) -> NDArray[np.uint16]:
    """Return 16-bit grey values; Pillow holds some kinds of them in 32 bits."""
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"{path}: has values outside 0..65535; expected at most 16 bits a pixel")
    return values.astype(np.uint16)


def read_array(path: StrPath, *, name: str | None = None) -> NDArray[Any]:
    """Read scores or labels from a .npy or .npz file, told apart by content.

    Args:
        path: the file.
        name: which array of an .npz; None takes the only one.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it is neither kind or is damaged, holds Python objects or anything else but
            real numbers, or ``name`` is missing or wrong.
    """
    with Path(path).open("rb") as file:
        start = file.read(6)
        file.seek(0)
        if start == b"\x93NUMPY":
            return _numbers(lambda: np.load(file, allow_pickle=False), str(path))
        if start[:2] == b"PK":
            return _from_archive(file, path, name)
    if start[:1] == b"\x80":
        raise _not_numbers(path, "is a pickle")
    what = f"starts with {start!r}" if start else "is empty"
    raise ValueError(f"{path}: {what}; expected a .npy or .npz file")


def _from_archive(file: IO[bytes], path: StrPath, name: str | None) -> NDArray[Any]:
    try:
        archive = np.load(file, allow_pickle=False)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: is damaged: {error}") from error
    names = archive.files
    if any(name.endswith("data.pkl") for name in names):
        raise _not_numbers(path, "is a torch file")
    listing = ", ".join(names) or "nothing"
    if name is None and len(names) != 1:
        raise ValueError(
            f"{path}: holds {listing}; expected one array, or name= (--array) to say which"
        )
    if name is not None and name not in names:
        raise ValueError(f"{path}: has no array {name!r}; it holds {listing}")
    name = name or names[0]
    return _numbers(lambda: archive[name], f"{path}[{name}]")


def _not_numbers(path: StrPath, what: str) -> ValueError:
    """A file as torch.save writes it, now or in its first years; reading it could run code."""
    return ValueError(
        f"{path}: {what}, which could run code when read; save the tensor as .npy or .npz "
        "instead: np.save('scores.npy', tensor.numpy())"
    )


def _numbers(load: Callable[[], Any], where: str) -> NDArray[Any]:
    """Call ``load`` and make sure that an array of real numbers came."""
    try:
        array = load()
    except (EOFError, SyntaxError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{where}: holds pickled Python objects, which could run code when read; "
                "expected an array of numbers"
            ) from error
        raise ValueError(f"{where}: is damaged: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        found = array.dtype if isinstance(array, np.ndarray) else "not an array"
        raise ValueError(f"{where}: is {found}; expected an array of real numbers")
    return array


def read_labels(path: StrPath) -> LabelMap:
    """Read a label map: the numbers in a palette or grey picture, not the colours they stand for.

    Raises:
        ImportError: without Pillow.
        OSError: if the file cannot be opened.
        ValueError: if it is no picture, is damaged, or holds colours.
    """
    with _open_picture(path) as picture:
        if picture.mode == "P":
            return LabelMap(np.array(picture), as_palette(picture.getpalette("RGB") or [0, 0, 0]))
        if picture.mode in ("1", "L"):
            return LabelMap(np.array(picture), None)
        if picture.mode.startswith("I"):
            return LabelMap(_sixteen_bits(picture, path), None)
        raise ValueError(
            f"{path}: is a picture of mode {picture.mode}; expected a label map, that is a palette "
            "or grey PNG whose pixel values are the labels"
        )


def read_palette(path: StrPath) -> NDArray[np.uint8]:
    """Read colours: of a palette PNG, or lines "R G B", or "R G B name", of a text file.

    Raises:
        ImportError: without Pillow, for a PNG.
        OSError: if the file cannot be opened.
        ValueError: if it holds something else.
    """
    if Path(path).suffix.lower() == ".png":
        palette = read_labels(path).palette
        if palette is None:
            raise ValueError(f"{path}: is a grey picture; expected a palette PNG")
        return palette
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        words = [line.replace(",", " ").split() for line in lines if line.strip()]
        return as_palette([[int(level) for level in row[:3]] for row in words])
    except ValueError as error:  # of which UnicodeDecodeError is one
        raise ValueError(
            f'{path}: is no list of colours; expected lines "R G B" of integers in 0..255, '
            "or a palette .png"
        ) from error


def write_labels(
    path: StrPath, labels: NDArray[Any], palette: NDArray[np.uint8] | str | None = None
) -> None:
    """Write a label map as a palette PNG; labels above 255 make it a 16-bit grey PNG.

    Args:
        path: the .png file.
        labels: (H, W) integers, 0 to 65535.
        palette: (N, 3) RGB; VOC colours continue it, None is all VOC. "grey" for a grey PNG.

    Raises:
        ImportError: without Pillow.
        OSError: if the file cannot be written.
        ValueError: if ``labels`` has another shape or other values, or ``path`` another suffix.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path}: is written as a PNG; expected a name that ends in .png")
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or labels.size == 0:
        raise ValueError(f"{path}: {labels.dtype} {labels.shape} is no (H, W) map of labels")
    high = int(labels.max())
    if labels.min() < 0 or high > 65535:
        raise ValueError(f"{path}: labels span {labels.min()} to {high}; a PNG holds 0 to 65535")
    from_array = _pillow(path).fromarray
    if high > 255:
        picture = from_array(labels.astype(np.uint16))
    else:
        picture = from_array(labels.astype(np.uint8))
        if not isinstance(palette, str):
            # 256 rows: readers disagree about what a label beyond the palette's end looks like.
            picture.putpalette(extend_palette(palette, 256).tobytes())
    with atomic_write(path) as file:
        picture.save(file, "PNG")


def write_mask(path: StrPath, mask: NDArray[Any]) -> None:
    """Write an (H, W) mask, foreground wherever it is not 0, as a grey PNG of 0 and 255.

    Raises:
        ImportError: without Pillow.
        OSError: if the file cannot be written.
    """
    picture = _pillow(path).fromarray(np.where(mask, np.uint8(255), np.uint8(0)))
    with atomic_write(path) as file:
        picture.save(file, "PNG")


def write_picture(path: StrPath, rgb: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) RGB picture, of the kind its suffix names (.png, .jpg ...).

    Raises:
        ImportError: without Pillow.
        OSError: if the file cannot be written.
        ValueError: if the suffix names no kind of picture.
    """
    pillow = _pillow(path)
    pillow.init()
    kind = pillow.EXTENSION.get(Path(path).suffix.lower())
    if kind not in pillow.SAVE:
        raise ValueError(f"{path}: the suffix names no kind of picture; expected .png or .jpg")
    with atomic_write(path) as file:
        pillow.fromarray(rgb).save(file, kind, quality=88)


def write_array(path: StrPath, array: NDArray[Any]) -> None:
    """Write a .npy file.

    Raises:
        OSError: if it cannot be written.
    """
    with atomic_write(path) as file:
        np.save(file, array, allow_pickle=False)


def _pillow(path: StrPath) -> Any:
    """Return the module PIL.Image, or say how to get it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            f"{path}: pictures need Pillow; install it with: pip install 'dense-crfseg[image]'"
        ) from error
    return Image


@contextmanager
def _open_picture(path: StrPath) -> "Iterator[Picture]":
    """Open and decode a picture, whatever Pillow raises worded as one sentence."""
    image = _pillow(path)
    with Path(path).open("rb") as file:
        try:
            picture = image.open(file)
            picture.load()
        except image.UnidentifiedImageError as error:
            raise ValueError(f"{path}: is not a picture Pillow can read") from error
        except Exception as error:  # damaged files make Pillow raise almost anything
            raise ValueError(f"{path}: is damaged or too large: {error}") from error
        with picture:
            yield picture
