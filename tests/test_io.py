# SPDX-License-Identifier: MIT
"""Files of every kind come back as written; every bad one is named in one sentence."""

import builtins
import io
import pickle
import stat
import zipfile

import numpy as np
import pytest
from PIL import Image

from crfseg.io import (
    atomic_write,
    read_array,
    read_image,
    read_labels,
    write_array,
    write_labels,
    write_mask,
    write_picture,
)
from crfseg.palette import voc_palette


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def left_over(folder):
    return [path.name for path in folder.iterdir() if "partial" in path.name]


# --- writing all or nothing -----------------------------------------------------------------------


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"old")

    def fail_half_way():
        with atomic_write(path) as file:
            file.write(b"new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert left_over(tmp_path) == []


def test_success_replaces_the_old_file(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert left_over(tmp_path) == []


def test_written_files_have_the_usual_permissions(tmp_path):
    ours, usual = tmp_path / "ours", tmp_path / "usual"
    usual.write_bytes(b"")
    with atomic_write(ours):
        pass
    assert stat.S_IMODE(ours.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


def test_writing_names_a_missing_folder_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.png: the folder .*nowhere does not exist"):
        write_mask(tmp_path / "nowhere" / "a.png", np.zeros((2, 2)))
    with pytest.raises(IsADirectoryError, match="is a folder; expected the name of a file"):
        write_array(tmp_path, np.zeros(2))


# --- photographs ----------------------------------------------------------------------------------


def test_rgb_and_grey_pictures(tmp_path, rng):
    rgb = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    write_picture(tmp_path / "rgb.png", rgb)
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), rgb)
    grey = rgb[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), grey)


def test_sixteen_bit_grey_keeps_its_bits(tmp_path, rng):
    deep = rng.integers(0, 65536, (4, 5), dtype=np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        image = read_image(tmp_path / name)
        assert image.dtype == np.uint16
        np.testing.assert_array_equal(image, deep)


def test_palette_photographs_become_their_colours(tmp_path):
    write_labels(tmp_path / "p.png", np.array([[0, 1], [2, 3]]))
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), voc_palette(4).reshape(2, 2, 3))


def test_label_maps_are_written_under_names_of_png_files(tmp_path):
    with pytest.raises(ValueError, match=r"labels\.jpg: is written as a PNG; expected a name"):
        write_labels(tmp_path / "labels.jpg", np.zeros((2, 2), int))
    assert not list(tmp_path.iterdir())


def test_two_level_pictures_become_grey(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), [[255, 0]])


def test_transparency_is_dropped(tmp_path, rng):
    """The colours beneath stay as they are, as convert("RGB") leaves them."""
    rgba = rng.integers(0, 256, (4, 5, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgba[..., :3])
    Image.fromarray(rgba[..., 2:]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), rgba[..., 2])
    picture = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8))
    picture.putpalette(voc_palette(4).tobytes())
    picture.save(tmp_path / "p.png", transparency=1)
    with Image.open(tmp_path / "p.png") as stored:
        assert stored.has_transparency_data
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), voc_palette(4).reshape(2, 2, 3))


def test_the_camera_orientation_is_asked_for(tmp_path):
    stored = np.zeros((8, 16), np.uint8)
    stored[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    with pytest.raises(ValueError, match=r"EXIF orientation 6.* \(--exif\): 'apply'.*'ignore'"):
        read_image(tmp_path / "turned.png")
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png", exif="ignore"), stored)
    shown = read_image(tmp_path / "turned.png", exif="apply")
    np.testing.assert_array_equal(shown, np.rot90(stored, -1))


def test_floating_point_pictures_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ValueError, match=r"f\.tif: is a floating point picture"):
        read_image(tmp_path / "f.tif")


def test_32_bit_values_beyond_16_bits_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(ValueError, match=r"values outside 0\.\.65535"):
        read_image(tmp_path / "i.tif")


@pytest.mark.parametrize("read", [read_image, read_labels])
def test_damaged_pictures_are_named(tmp_path, rng, read):
    write_picture(tmp_path / "whole.png", rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.png: is damaged"):
        read(tmp_path / "half.png")
    (tmp_path / "text.png").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"text\.png: is not a picture"):
        read(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.png")


def test_missing_pillow_is_one_sentence_that_names_the_extra(tmp_path, monkeypatch):
    ordinary = builtins.__import__

    def without_pillow(name, *arguments, **keywords):
        if name.partition(".")[0] == "PIL":
            raise ModuleNotFoundError("No module named 'PIL'")
        return ordinary(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    for call in (
        lambda: read_image(tmp_path / "a.png"),
        lambda: read_labels(tmp_path / "a.png"),
        lambda: write_labels(tmp_path / "a.png", np.zeros((2, 2), int)),
    ):
        with pytest.raises(ImportError, match=r"a\.png: .* pip install 'dense-crfseg\[image\]'"):
            call()


# --- label maps -----------------------------------------------------------------------------------


def test_label_maps_keep_their_numbers_and_palette(tmp_path, rng):
    labels = rng.integers(0, 21, (6, 7), dtype=np.uint8)
    own = rng.integers(0, 256, (21, 3), dtype=np.uint8)
    write_labels(tmp_path / "own.png", labels, own)
    back = read_labels(tmp_path / "own.png")
    np.testing.assert_array_equal(back.labels, labels)
    np.testing.assert_array_equal(back.palette[:21], own)
    np.testing.assert_array_equal(back.palette[21:], voc_palette()[21:])


def test_labels_of_a_short_palette_and_few_bits(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    picture.putpalette([9, 9, 9, 9, 9, 9, 7, 7, 7])  # two labels of one colour stay two labels
    picture.save(tmp_path / "short.png", bits=2)
    back = read_labels(tmp_path / "short.png")
    np.testing.assert_array_equal(back.labels, [[0, 1], [2, 1]])
    np.testing.assert_array_equal(back.palette[:3], [[9, 9, 9], [9, 9, 9], [7, 7, 7]])


def test_grey_and_two_level_label_maps_have_no_palette(tmp_path):
    Image.fromarray(np.array([[0, 5]], np.uint8)).save(tmp_path / "grey.png")
    labels, palette = read_labels(tmp_path / "grey.png")
    np.testing.assert_array_equal(labels, [[0, 5]])
    assert palette is None
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "mask.png")
    labels, palette = read_labels(tmp_path / "mask.png")
    assert labels.dtype == bool
    np.testing.assert_array_equal(labels, [[False, True]])


def test_labels_above_255_are_16_bit_grey(tmp_path):
    labels = np.array([[0, 300], [65535, 1]], np.int32)
    write_labels(tmp_path / "many.png", labels)
    back = read_labels(tmp_path / "many.png")
    assert back.labels.dtype == np.uint16
    np.testing.assert_array_equal(back.labels, labels)


def test_a_colour_picture_is_no_label_map(tmp_path):
    write_picture(tmp_path / "rgb.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="mode RGB; expected a label map"):
        read_labels(tmp_path / "rgb.png")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((2, 2)), "float64"),
        (np.zeros(4, int), r"\(4,\) is no \(H, W\) map"),
        (np.zeros((0, 3), int), "no"),
        (np.array([[-1, 0]]), "span -1 to 0"),
        (np.array([[65536]]), "a PNG holds 0 to 65535"),
    ],
)
def test_write_labels_refuses(tmp_path, labels, words):
    with pytest.raises(ValueError, match=words):
        write_labels(tmp_path / "a.png", labels)


@pytest.mark.parametrize("mask", [np.array([[True, False]]), np.array([[7, 0]])])
def test_masks_are_0_and_255(tmp_path, mask):
    write_mask(tmp_path / "mask.png", mask)
    labels, palette = read_labels(tmp_path / "mask.png")
    np.testing.assert_array_equal(labels, [[255, 0]])
    assert palette is None


def test_write_picture_names_a_suffix_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match=r"a\.txt: the suffix names no kind of picture"):
        write_picture(tmp_path / "a.txt", np.zeros((2, 2, 3), np.uint8))


# --- arrays ---------------------------------------------------------------------------------------


def test_arrays_come_back(tmp_path, rng):
    scores = rng.normal(size=(3, 4, 5)).astype(np.float16)
    write_array(tmp_path / "a.npy", scores)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), scores)
    np.savez(tmp_path / "one.npz", anything=scores)
    np.testing.assert_array_equal(read_array(tmp_path / "one.npz"), scores)
    np.savez_compressed(tmp_path / "two.npz", a=scores, b=-scores)
    np.testing.assert_array_equal(read_array(tmp_path / "two.npz", name="b"), -scores)


def test_content_decides_and_not_the_suffix(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.arange(3))
    np.testing.assert_array_equal(read_array(tmp_path / "a.npz"), [0, 1, 2])


def test_names_in_an_archive(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros(2), b=np.zeros(2))
    with pytest.raises(ValueError, match=r"two\.npz: holds a, b; expected one .*\(--array\)"):
        read_array(tmp_path / "two.npz")
    with pytest.raises(ValueError, match=r"two\.npz: has no array 'c'; it holds a, b"):
        read_array(tmp_path / "two.npz", name="c")
    np.savez(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"none\.npz: holds nothing"):
        read_array(tmp_path / "none.npz")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_pickles_are_never_run(tmp_path):
    trap = np.array([Trap()], object)
    np.save(tmp_path / "trap.npy", trap, allow_pickle=True)
    with pytest.raises(ValueError, match=r"trap\.npy: holds pickled Python objects"):
        read_array(tmp_path / "trap.npy")
    np.savez(tmp_path / "trap.npz", trap)
    with pytest.raises(ValueError, match=r"trap\.npz\[arr_0\]: holds pickled Python objects"):
        read_array(tmp_path / "trap.npz")
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"bare\.npy: is a pickle, .*; save .* as \.npy or"):
        read_array(tmp_path / "bare.npy")


def damaged_archive(member):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(*member)
    return buffer.getvalue()


def bytes_of(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"is empty; expected a \.npy or \.npz file"),
        (b"hello world", "starts with b'hello '"),
        (bytes_of(np.arange(100))[:-50], "is damaged"),
        (bytes_of(np.arange(100))[:20], "is damaged"),
        (b"\x93NUMPY\x09\x00", "is damaged"),
        (b"PK\x03\x04 and no more", "is damaged"),
        (damaged_archive(("notes.txt", b"x")), r"\[notes\.txt\]: is not an array"),
        (damaged_archive(("scores/data.pkl", b"x")), r"is a torch file, .* as \.npy or \.npz inst"),
        (damaged_archive(("a.npy", bytes_of(np.arange(9))[:-5])), r"\[a\]: is damaged"),
        (bytes_of(np.array(["cat"])), "is <U3; expected an array of real numbers"),
        (bytes_of(np.array([1j])), "is complex128; expected an array of real numbers"),
    ],
)
def test_bad_files_are_one_sentence_that_names_them(tmp_path, content, words):
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.npy.*{words}"):
        read_array(path)


def test_a_flipped_bit_in_a_compressed_archive_is_found(tmp_path, rng):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, scores=rng.normal(size=500))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz\[scores\]: is damaged"):
        read_array(path)
