# SPDX-License-Identifier: MIT
"""Activation maps: their background, the classes of the image alone, and two maps merged."""

import numpy as np
import pytest

from crfseg import refine
from crfseg.cams import refine_present, with_background
from crfseg.labels import merge_confident
from small import C, H, W

PRESENT = np.array([1, 4, 6])
N = 8  # classes, of which three are there


@pytest.fixture
def cams(rng):
    """(3, H, W), each with its maximum at 1."""
    values = rng.random((3, H, W)).astype(np.float32)
    return values / values.max((1, 2), keepdims=True)


@pytest.fixture
def scores(cams):
    """(N, H, W), zeros where a class is not there."""
    whole = np.zeros((N, H, W), np.float32)
    whole[PRESENT] = cams
    return whole


# --- backgrounds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1, 4, 32.0])
def test_the_background_is_what_the_maps_leave(cams, alpha):
    found = with_background(cams, alpha=alpha)
    np.testing.assert_array_equal(found[1:], cams)
    np.testing.assert_allclose(found[0], (1 - cams.max(0)) ** alpha, rtol=1e-6)
    assert found.dtype == cams.dtype
    both = with_background(np.stack([cams, cams[::-1]]), alpha=alpha)
    np.testing.assert_array_equal(both, np.stack([found, found[[0, 3, 2, 1]]]))


def test_a_threshold_decides_by_argmax(cams):
    labels = with_background(cams, threshold=0.7).argmax(0)
    np.testing.assert_array_equal(labels == 0, cams.max(0) <= 0.7)


@pytest.mark.parametrize(
    ("change", "options", "error", "words"),
    [
        (lambda c: c, {}, ValueError, "expected one of alpha and threshold"),
        (lambda c: c, {"alpha": 1, "threshold": 0.3}, ValueError, "expected one of alpha and thr"),
        (lambda c: c, {"alpha": 0}, ValueError, "alpha is 0; expected a positive finite number"),
        (
            lambda c: c,
            {"threshold": 1.5},
            ValueError,
            "threshold is 1.5; expected a number in 0..1",
        ),
        (lambda c: 3 * c, {"alpha": 1}, ValueError, "cams ranges from .* to 3; expected 0 to 1"),
        (lambda c: c - 1, {"alpha": 1}, ValueError, "cams ranges from -"),
        (lambda c: c * np.nan, {"alpha": 1}, ValueError, "cams ranges from nan"),
        (lambda c: c[0], {"alpha": 1}, ValueError, "cams has shape .*; expected .K, H, W."),
        (lambda c: c > 0.5, {"alpha": 1}, TypeError, "cams has dtype bool; expected floats"),
    ],
)
def test_maps_that_are_none_are_refused(cams, change, options, error, words):
    with pytest.raises(error, match=rf"^\[cams.with_background\] {words}"):
        with_background(change(cams), **options)


# --- the classes of the image alone ---------------------------------------------------------------


def test_absent_classes_take_no_part_and_come_back(scores, image):
    found = refine_present(scores, image, kind="scores", preset="psa")
    assert found.shape == scores.shape
    np.testing.assert_array_equal(
        found[PRESENT], refine(scores[PRESENT], image, kind="scores", preset="psa")
    )
    assert not np.delete(found, PRESENT, 0).any()
    labels = refine_present(scores, image, kind="scores", preset="psa", returns="labels")
    np.testing.assert_array_equal(labels, found.argmax(0))
    assert labels.dtype == np.uint8


def test_classes_can_be_named(rng, probs, image):
    """Their probabilities need not sum to 1 then."""
    found = refine_present(probs, image, classes=[2, 0])
    np.testing.assert_array_equal(found[[0, 2]], refine(probs[[0, 2]], image, kind="scores"))
    logits = rng.normal(size=(C, H, W)).astype(np.float32)
    found = refine_present(logits, image, classes=[0, 2], kind="logits")
    np.testing.assert_array_equal(found[[0, 2]], refine(logits[[0, 2]], image, kind="logits"))
    np.testing.assert_allclose(np.exp(found[1]), 0, atol=1e-37)


def test_labels_are_told_apart_from_those_that_occur_alone(rng, image):
    """That is another model: what the given label leaves is shared among fewer."""
    few = rng.integers(0, 3, (H, W))
    labels = PRESENT[few].astype(np.int16)
    found = refine_present(labels, image, n_labels=N, confidence=0.6)
    np.testing.assert_array_equal(found, PRESENT[refine(few, image, confidence=0.6)])
    assert found.dtype == np.int16
    probs = refine_present(labels, image, n_labels=N, returns="probs")
    np.testing.assert_array_equal(probs[PRESENT], refine(few, image, returns="probs"))
    assert probs.shape == (N, H, W)
    assert refine_present(labels, image, returns="probs").shape == (7, H, W)
    more = refine_present(labels, image, classes=[1, 2, 4, 6], n_labels=N, returns="probs")
    assert more[2].min() > 0


@pytest.mark.parametrize("mark", [255, 0, -1])
def test_pixels_without_a_label_get_one_that_is_there(mark, rng, image):
    few = rng.integers(0, 3, (H, W))
    is_unsure = rng.random((H, W)) < 0.3
    labels = np.where(is_unsure, mark, PRESENT[few])
    found = refine_present(labels, image, ignore_index=mark)
    expected = refine(np.where(is_unsure, 255, few), image, ignore_index=255)
    np.testing.assert_array_equal(found, PRESENT[expected])


def test_labels_that_are_not_sure_keep_their_mark(scores, image):
    options = {"kind": "scores", "min_confidence": 0.9, "returns": "labels"}
    q = refine(scores[PRESENT], image, kind="scores")
    for mark in (None, 99, -7):
        found = refine_present(scores, image, ignore_index=mark, **options)
        expected = np.where(q.max(0) < 0.9, 255 if mark is None else mark, PRESENT[q.argmax(0)])
        np.testing.assert_array_equal(found, expected)
        assert 0 < (found == expected.flat[q.max(0).argmin()]).mean() < 1
    with pytest.raises(
        ValueError, match="ignore_index is 7, beside min_confidence; expected a num"
    ):
        refine_present(scores, image, ignore_index=7, **options)
    labels = PRESENT[q.argmax(0)]
    weak = {"bilateral": None, "spatial": (2, 3), "confidence": 0.5}
    found = refine_present(labels, image, min_confidence=0.5, ignore_index=0, **weak)
    assert set(np.unique(found)) == {0, *PRESENT}


def test_items_of_a_batch_have_classes_of_their_own(scores, image):
    batch = np.stack([scores, np.roll(scores, 1, 0)])
    images = np.stack([image, image[::-1]])
    options = {"kind": "scores", "preset": "construct"}
    for given in (images, list(images)):
        found = refine_present(batch, given, **options)
        for one, x, own in zip(found, batch, images, strict=True):
            np.testing.assert_array_equal(one, refine_present(x, own, **options))
    shared = refine_present(batch, image, **options)
    np.testing.assert_array_equal(shared[1], refine_present(batch[1], image, **options))
    with pytest.raises(ValueError, match=r"^\[cams.refine_present\] .*2.*3"):
        refine_present(batch, [image] * 3, **options)


def test_a_compatibility_is_one_of_all_classes(rng, scores, image):
    whole = 1 - np.eye(len(scores)) + rng.random((len(scores), len(scores)))
    present = np.flatnonzero((scores > 0).any((1, 2)))
    for cut in (whole, whole[0]):
        own = cut[np.ix_(*[present] * cut.ndim)]
        expected = refine(scores[present], image, kind="scores", compatibility=own)
        found = refine_present(scores, image, kind="scores", compatibility=cut)
        np.testing.assert_array_equal(found[present], expected)
        labels = present[scores[present].argmax(0)]
        expected = refine(np.searchsorted(present, labels), image, compatibility=own)
        found = refine_present(labels, image, n_labels=len(whole), compatibility=cut)
        np.testing.assert_array_equal(found, present[expected])


def test_an_empty_batch_comes_back_empty(scores, image):
    for x in (scores[None][:0], scores.argmax(0)[None][:0]):
        found = refine_present(x, image, kind="auto")
        assert found.shape == x.shape
        assert found.dtype == x.dtype


def test_one_class_alone_is_everywhere(scores, image):
    scores[PRESENT[1:]] = 0
    scores[PRESENT[0], 0, 0] = 0
    found = refine_present(scores, image, kind="scores")
    np.testing.assert_array_equal(found, np.arange(N)[:, None, None] == np.full((H, W), PRESENT[0]))


@pytest.mark.parametrize(
    ("change", "options", "error", "words"),
    [
        (lambda x: 0 * x, {}, ValueError, "x of shape .* has no score above 0"),
        (lambda x: x[0], {}, ValueError, r"x has shape \(9, 14\); expected \(C, H, W\) or"),
        (lambda x: x > 0, {}, ValueError, "x is a mask, whose two classes are always there"),
        (lambda x: x, {"layout": "CHW"}, TypeError, "layout is given; expected x as"),
        (lambda x: x, {"kind": "logits"}, ValueError, "kind is 'logits', of which none is absent"),
        (lambda x: x, {"classes": [8]}, ValueError, "classes has 8; expected 0 to 7"),
        (lambda x: x, {"classes": [-1]}, ValueError, "classes has -1; expected 0 to 7"),
        (lambda x: x, {"classes": []}, TypeError, "classes is"),
        (lambda x: x, {"classes": [0.5]}, TypeError, "classes is .*; expected the numbers"),
        (lambda x: x.argmax(0), {"classes": [1, 4]}, ValueError, "x has label 6; expected one of"),
        (
            lambda x: x.argmax(0),
            {"n_labels": 2},
            ValueError,
            "x has label 6 and n_labels is 2; expected more of them",
        ),
        (lambda x: x.argmax(0), {"n_labels": "a"}, TypeError, "n_labels is 'a'"),
        (
            lambda x: x.argmax(0) - 2,
            {},
            ValueError,
            "x has label -1; expected labels of at least 0",
        ),
        (
            lambda x: np.full((H, W), 255),
            {"ignore_index": 255},
            ValueError,
            "x of shape .* has no label but ignore_index",
        ),
    ],
)
def test_what_has_no_classes_is_refused(scores, image, change, options, error, words):
    with pytest.raises(error, match=rf"^\[cams.refine_present\] {words}"):
        refine_present(change(scores), image, **{"kind": "auto"} | options)


# --- two maps merged ------------------------------------------------------------------------------


def test_two_label_maps_keep_what_they_are_sure_of():
    foreground = np.array([0, 0, 7, 7, 9], np.uint8)
    background = np.array([0, 3, 0, 7, 4], np.uint8)
    found = merge_confident(foreground, background)
    np.testing.assert_array_equal(found, [0, 255, 7, 7, 9])
    assert found.dtype == np.uint8
    found = merge_confident(foreground, background, contradictions="background", ignore_index=100)
    np.testing.assert_array_equal(found, [0, 100, 0, 7, 9])
    np.testing.assert_array_equal(foreground, [0, 0, 7, 7, 9])


@pytest.mark.parametrize(
    ("foreground", "background", "options", "error", "words"),
    [
        ([0.5], [1], {}, TypeError, "foreground has dtype float64; expected integer labels"),
        ([1], [1.5], {}, TypeError, "background has dtype float64; expected integer labels"),
        ([1], [1, 2], {}, ValueError, r"background has shape \(2,\); expected \(1,\), like fore"),
        (np.zeros(1, np.int8), [1], {}, TypeError, "foreground has dtype int8; expected integers"),
        ([1], [1], {"contradictions": "x"}, ValueError, "contradictions is 'x'; expected 'foregr"),
        ([1], [1], {"ignore_index": 0.5}, TypeError, "ignore_index is 0.5"),
    ],
)
def test_maps_that_cannot_be_merged_are_refused(foreground, background, options, error, words):
    with pytest.raises(error, match=rf"^\[labels.merge_confident\] {words}"):
        merge_confident(np.array(foreground), np.array(background), **options)
