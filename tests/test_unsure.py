# SPDX-License-Identifier: MIT
"""min_confidence: labels that are not believed get a mark."""

import numpy as np
import pytest

from crfseg import refine
from small import C, H, W

LEAST = 0.75
WEAK = {"bilateral": None, "spatial": (2, 2)}


def expected(q, mark=255):
    assert 0.1 < (q.max(0) < LEAST).mean() < 0.9
    return np.where(q.max(0) < LEAST, mark, q.argmax(0))


@pytest.mark.parametrize("kind", ["probs", "logits", "scores"])
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_labels_below_it_are_marked(kind, layout, probs, image):
    x = np.log(probs) if kind == "logits" else probs
    x = x if layout == "CHW" else x.transpose(1, 2, 0)
    options = {"kind": kind, "layout": layout, **WEAK}
    q = refine(x, image, **options | ({"returns": "probs"} if kind == "logits" else {}))
    q = q if layout == "CHW" else q.transpose(2, 0, 1)
    found = refine(x, image, returns="labels", min_confidence=LEAST, **options)
    np.testing.assert_array_equal(found, expected(q))
    assert found.dtype == np.uint8


def test_every_item_of_a_batch_and_every_thread(probs, image):
    x, images = np.stack([probs, probs[::-1], probs] * 3), np.stack([image, image[::-1], image] * 3)
    options = {"returns": "labels", "min_confidence": LEAST, **WEAK}
    found = refine(x, images, threads=2, **options)
    for one, item, own in zip(found, x, images, strict=True):
        np.testing.assert_array_equal(one, refine(item, own, **options))


def test_masks_become_labels(probs, image):
    for x in (probs[0], probs[0] > 0.4, (probs[0] > 0.4).astype(np.uint8) * np.uint8(255)):
        options = {"kind": "mask", "confidence": 0.8, **WEAK}
        p = refine(x, image, returns="probs", **options)
        found = refine(x, image, returns="labels", min_confidence=LEAST, **options)
        np.testing.assert_array_equal(found, expected(np.stack([1 - p, p])))


@pytest.mark.parametrize("mark", [255, 0, 77])
def test_label_maps_get_the_mark_that_they_came_with(mark, rng, image):
    labels = rng.integers(1, 4, (H, W)).astype(np.uint8)
    labels[::3] = mark
    options = {"ignore_index": mark, "confidence": 0.85, **WEAK}
    q = refine(labels, image, returns="probs", **options)
    found = refine(labels, image, min_confidence=LEAST, **options)
    np.testing.assert_array_equal(found, expected(q, mark))
    assert found.dtype == labels.dtype


@pytest.mark.parametrize(("mark", "dtype"), [(None, np.uint8), (100, np.uint8), (-1, np.int32)])
def test_the_mark_can_be_chosen(mark, dtype, probs, image):
    options = {"returns": "labels", "min_confidence": LEAST, **WEAK}
    found = refine(probs, image, ignore_index=mark, **options)
    np.testing.assert_array_equal(
        found, expected(refine(probs, image, **WEAK), 255 if mark is None else mark)
    )
    assert found.dtype == dtype


def test_zero_marks_nothing(probs, image):
    found = refine(probs, image, returns="labels", min_confidence=0)
    np.testing.assert_array_equal(found, refine(probs, image, returns="labels"))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ValueError, "min_confidence is 0.75; expected returns='labels' with it"),
        ({"returns": "probs"}, ValueError, "min_confidence is 0.75; expected returns='labels'"),
        (
            {"min_confidence": 1.0},
            ValueError,
            "min_confidence is 1; expected a number of at least 0",
        ),
        ({"min_confidence": "x"}, TypeError, "min_confidence is 'x'"),
        (
            {"returns": "labels", "ignore_index": 3},
            ValueError,
            "min_confidence needs a mark .* 3 is",
        ),
        ({"returns": "labels", "ignore_index": 0.5}, TypeError, "ignore_index is 0.5"),
        (
            {"returns": "labels", "ignore_index": 2**40},
            ValueError,
            "ignore_index is 1099511627776; ",
        ),
        (
            {"ignore_index": 255, "min_confidence": None},
            ValueError,
            "ignore_index is 255 but x hol",
        ),
    ],
)
def test_what_cannot_be_marked_is_refused(options, error, words, probs, image):
    with pytest.raises(error, match=rf"^\[refine\] {words}"):
        refine(probs, image, **{"min_confidence": LEAST} | options)


def test_a_mark_that_is_a_label_is_refused(rng, image):
    labels = rng.integers(0, C, (H, W))
    with pytest.raises(ValueError, match="255 is one of 256 labels; expected another ignore_index"):
        refine(labels, image, min_confidence=LEAST, n_labels=256)
    with pytest.raises(ValueError, match="ignore_index is 255; expected a number that int8 labels"):
        refine(labels.astype(np.int8), image, min_confidence=LEAST)
