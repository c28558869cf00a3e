# SPDX-License-Identifier: MIT
"""Colours of label maps."""

import numpy as np
import pytest

from crfseg.overlay import boundaries, overlay
from crfseg.palette import as_palette, colorize, extend_palette, voc_palette

# Classes 0 to 7, 15 (person), 16, 20 and the 255 of unlabelled seams, as published with VOC 2012.
PUBLISHED = {
    0: (0, 0, 0),
    1: (128, 0, 0),
    2: (0, 128, 0),
    3: (128, 128, 0),
    4: (0, 0, 128),
    5: (128, 0, 128),
    6: (0, 128, 128),
    7: (128, 128, 128),
    8: (64, 0, 0),
    15: (192, 128, 128),
    16: (0, 64, 0),
    20: (0, 64, 128),
    255: (224, 224, 192),
}


def test_voc_palette_is_the_published_one():
    palette = voc_palette()
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8
    assert {label: tuple(map(int, palette[label])) for label in PUBLISHED} == PUBLISHED


def test_colours_of_many_labels_differ():
    palette = voc_palette(70_000)
    assert len(np.unique(palette, axis=0)) == 70_000
    np.testing.assert_array_equal(palette[:21], voc_palette(21))


@pytest.mark.parametrize("n_colors", [0, -1, (1 << 24) + 1])
def test_voc_palette_names_a_wrong_number(n_colors):
    with pytest.raises(ValueError, match=rf"n_colors is {n_colors}; expected 1 to 16777216"):
        voc_palette(n_colors)


def test_as_palette_takes_flat_colours():
    np.testing.assert_array_equal(as_palette([1, 2, 3, 4, 5, 6]), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("colors", "words"),
    [
        ([1, 2, 3, 4], r"shape \(4,\); expected \(N, 3\)"),
        (np.zeros((2, 4), int), r"shape \(2, 4\)"),
        ([], r"shape \(0, 3\)"),
        ([[0, 0, 256]], "integers in 0..255"),
        ([[0, -1, 0]], "integers in 0..255"),
        ([[0.5, 0, 0]], "integers in 0..255"),
    ],
)
def test_as_palette_refuses(colors, words):
    with pytest.raises(ValueError, match=words):
        as_palette(colors)


def test_extend_palette_keeps_what_is_there():
    own = np.array([[9, 9, 9], [8, 8, 8]], np.uint8)
    longer = extend_palette(own, 5)
    np.testing.assert_array_equal(longer[:2], own)
    np.testing.assert_array_equal(longer[2:], voc_palette(5)[2:])
    assert extend_palette(own, 1) is own


def test_colorize_looks_colours_up():
    labels = np.array([[0, 2], [1, 0]], np.int64)
    own = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    expected = [[[1, 2, 3], [7, 8, 9]], [[4, 5, 6], [1, 2, 3]]]
    np.testing.assert_array_equal(colorize(labels, own), expected)
    np.testing.assert_array_equal(colorize(np.array([300]))[0], voc_palette(301)[300])


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (np.array([0.0]), TypeError, "labels are float64; expected integers"),
        (np.array([0, 3]), ValueError, "labels span 0 to 3; expected 0 to 1"),
        (np.array([-1, 0]), ValueError, "labels span -1 to 0"),
    ],
)
def test_colorize_refuses(labels, error, words):
    with pytest.raises(error, match=words):
        colorize(labels, [(0, 0, 0), (1, 1, 1)])


def test_boundaries_are_where_the_right_or_lower_neighbour_differs():
    labels = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])
    expected = np.array([[0, 1, 0], [1, 1, 1], [0, 0, 0]], bool)
    np.testing.assert_array_equal(boundaries(labels), expected)


def test_overlay_mixes_colours_and_draws_boundaries():
    image = np.full((2, 3, 3), 100, np.uint8)
    labels = np.array([[0, 0, 1], [0, 0, 1]])
    picture = overlay(image, labels, [(0, 0, 0), (200, 0, 100)], opacity=0.5)
    np.testing.assert_array_equal(picture[:, 0], [[50, 50, 50]] * 2)
    np.testing.assert_array_equal(picture[:, 1], [[255, 255, 255]] * 2)
    np.testing.assert_array_equal(picture[:, 2], [[150, 50, 100]] * 2)
    np.testing.assert_array_equal(overlay(image[..., 0], labels), overlay(image, labels))


def test_overlay_takes_pillow_pictures(rng):
    pillow = pytest.importorskip("PIL.Image")
    image, labels = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), rng.integers(0, 9, (4, 5))
    np.testing.assert_array_equal(overlay(pillow.fromarray(image), labels), overlay(image, labels))


def test_overlay_refuses_other_sizes_and_opacities():
    image, labels = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), int)
    with pytest.raises(ValueError, match=r"labels are \(3, 2\) but image is \(2, 3\)"):
        overlay(image, labels.T)
    with pytest.raises(ValueError, match=r"opacity is 1.5; expected 0 to 1"):
        overlay(image, labels, opacity=1.5)
    for other in (image / 255, np.dstack([image, image])):
        with pytest.raises(ValueError, match=r"\[overlay\] image is .*; expected uint8 of shape"):
            overlay(other, labels)
