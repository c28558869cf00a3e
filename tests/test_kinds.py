# SPDX-License-Identifier: MIT
"""The kinds of x: probabilities, logits, labels and masks, and the forms of the result."""

import itertools

import numpy as np
import pytest

from crfseg import refine, unary_from_probs
from reference import softmax
from small import C, H, W


def test_logits_are_probs_before_softmax(rng, image):
    logits = rng.normal(scale=1.5, size=(C, H, W)).astype(np.float32)
    expected = refine(softmax(logits), image)
    found = refine(logits, image, kind="logits", returns="probs")
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)
    log_probs = refine(logits, image, kind="logits")
    np.testing.assert_allclose(np.exp(log_probs), found, rtol=1e-5, atol=1e-30)
    assert np.isfinite(log_probs).all()
    assert log_probs.max() <= 0


def test_refined_logits_can_be_refined_again(rng, image):
    """log of a marginal that is exactly 0 would be -inf."""
    logits = rng.normal(scale=60, size=(C, H, W)).astype(np.float16)
    once = refine(logits, image, kind="logits")
    assert once.dtype == np.float16
    assert once.min() >= -87.5
    assert np.isfinite(refine(once, image, kind="logits")).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint16])
def test_labels_come_back_as_labels(rng, image, dtype):
    labels = rng.integers(0, 3, (H, W)).astype(dtype)
    result = refine(labels, image, confidence=0.6)
    assert result.dtype == dtype
    assert result.shape == labels.shape
    probs = np.where(np.arange(3)[:, None, None] == labels, 0.6, 0.2)
    np.testing.assert_array_equal(result, refine(probs, image, returns="labels"))
    marginals = refine(labels, image, confidence=0.6, returns="probs")
    assert marginals.dtype == np.float32
    np.testing.assert_allclose(marginals, refine(probs, image), rtol=0, atol=1e-4)


def test_label_maps_of_many_bytes_are_labels_where_it_is_said():
    """Otherwise they may be a saliency map."""
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16) % 200
    image = np.repeat(labels[..., None], 3, axis=2)
    expected = refine(labels.astype(np.int32), image)
    for options in ({"kind": "labels"}, {"n_labels": 200}):
        np.testing.assert_array_equal(refine(labels, image, **options), expected)


def test_labels_without_a_label_get_one(rng, image):
    labels = rng.integers(0, 3, (H, W)).astype(np.uint8)
    labels[2:5, 3:9] = 255
    result = refine(labels, image, ignore_index=255)
    assert result.max() < 3
    np.testing.assert_array_equal(result, refine(labels, image, ignore_index=255, n_labels=3))
    unsure = refine(np.where(labels == 255, 0, labels + 1), image, ignore_index=0)
    np.testing.assert_array_equal(unsure, result + 1)


def test_more_labels_than_occur_can_be_asked_for(rng, image):
    labels = rng.integers(0, 3, (H, W)).astype(np.uint8)
    assert refine(labels, image, n_labels=7, returns="probs").shape == (7, H, W)
    assert refine(labels, image, n_labels=256).dtype == np.uint8
    assert refine(labels[None], image, returns="probs").shape == (1, 3, H, W)


@pytest.mark.parametrize("n_labels", [256, 257])
def test_labels_of_scores_are_as_small_as_they_can_be(n_labels, rng):
    probs = rng.dirichlet(np.ones(n_labels), (3, 4))
    image = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    labels = refine(probs, image, returns="labels")
    assert labels.dtype == (np.uint8 if n_labels <= 256 else np.int32)
    np.testing.assert_array_equal(labels, refine(probs, image).argmax(-1))


@pytest.mark.parametrize(
    ("dtype", "foreground"),
    [(bool, 1), (np.uint8, 1), (np.uint8, 255), (np.int64, 255), (np.int32, 1)],
)
def test_masks_come_back_as_masks(rng, image, dtype, foreground):
    truth = rng.random((H, W)) < 0.4
    mask = (truth * foreground).astype(dtype)
    result = refine(mask, image, kind="mask")
    assert result.dtype == dtype
    assert set(np.unique(result)) <= {0, foreground}
    probs = np.where([~truth, truth], 0.7, 0.3)
    labels = refine(probs, image, returns="labels")
    np.testing.assert_array_equal(result, labels * foreground)
    np.testing.assert_array_equal(refine(mask, image, kind="mask", returns="labels"), labels)
    soft = refine(mask, image, kind="mask", returns="probs")
    assert soft.shape == (H, W)
    np.testing.assert_allclose(soft, refine(probs, image)[1], rtol=0, atol=1e-4)


def test_an_empty_mask_stays_empty(image):
    assert not refine(np.zeros((H, W), np.uint8), image, kind="mask").any()
    assert not refine(np.zeros((H, W), bool), image).any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_soft_masks_are_foreground_probabilities(probs, image, dtype):
    soft = probs[0].astype(dtype)
    result = refine(soft, image, kind="mask")
    assert result.dtype == dtype
    both = np.stack([1 - soft, soft]).astype(np.float32)
    expected = refine(both, image)[1]
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-3 if dtype == np.float16 else 1e-6)


@pytest.mark.parametrize("layout", ["CHW", "HWC", "NCHW", "NHWC"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool, np.uint8])
def test_masks_may_have_a_label_axis(rng, image, layout, named, dtype):
    """As the output of a sigmoid over one channel does. Its shape comes back."""
    n_items = 3 if "N" in layout else 1
    masks = rng.random((n_items, H, W))
    masks = masks.astype(dtype) if np.dtype(dtype).kind == "f" else (masks > 0.5).astype(dtype)
    shape = [{"N": n_items, "C": 1, "H": H, "W": W}[axis] for axis in layout]
    given = masks.reshape(shape)
    options = {"kind": "mask", "layout": layout if named else None}
    for returns in ("same", "probs"):
        expected = refine(masks, image, kind="mask", returns=returns)
        found = refine(given, image, returns=returns, **options)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected.reshape(shape))
    labels = refine(given, image, returns="labels", **options)
    expected = refine(masks, image, kind="mask", returns="labels")
    np.testing.assert_array_equal(labels.reshape(masks.shape), expected)
    if named:
        assert labels.ndim == len(layout) - 1


@pytest.mark.parametrize("n_items", [1, 2])
def test_boolean_masks_need_no_kind_beside_a_label_axis(rng, image, n_items):
    masks = rng.random((n_items, 1, H, W)) > 0.5
    np.testing.assert_array_equal(refine(masks, image), refine(masks[:, 0], image)[:, None])


@pytest.mark.parametrize("shape", [(), (1,), (2,), (1, 1), (2, 1)])
@pytest.mark.parametrize(
    ("size", "upsample"),
    [((2 * H, 2 * W), "auto"), ((2 * H - 1, 2 * W - 1), "auto"), ((31, 50), "half-pixel")],
)
def test_soft_masks_are_stretched_like_probabilities(rng, shape, size, upsample):
    soft = rng.random((*shape, H, W)).astype(np.float32)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    found = refine(soft, image, kind="mask", upsample=upsample)
    assert found.shape == (*shape, *size)
    flat = soft.reshape(-1, H, W)
    for one, given in zip(found.reshape(-1, *size), flat, strict=True):
        both = np.stack([1 - given, given])
        expected = refine(both, image, upsample=upsample, layout="CHW")[1]
        np.testing.assert_allclose(one, expected, rtol=0, atol=5e-4)
    labels = refine(soft, image, kind="mask", upsample=upsample, returns="labels")
    np.testing.assert_array_equal(labels.reshape(-1, *size), found.reshape(-1, *size) > 0.5)


@pytest.mark.parametrize("said", ["kind", "layout", "images", "n_labels"])
def test_several_label_maps_of_one_image_are_a_batch_where_it_is_said(rng, image, said):
    """One-hot ones too: otherwise they may be scores of as many labels."""
    labels = np.stack([rng.random((H, W)) < 0.5] * 2).astype(np.uint8)
    labels[1] = 1 - labels[0]
    images = [image, image] if said == "images" else image
    options = {"kind": {"kind": "labels"}, "layout": {"layout": "NHW"}, "images": {}}
    result = refine(labels, images, **options.get(said, {"n_labels": 2}))
    for item, one in zip(result, labels, strict=True):
        np.testing.assert_array_equal(item, refine(one, image))


def test_masks_that_overlap_are_masks(rng, image):
    """One per object, as promptable networks give them; one-hot ones may be labels."""
    masks = rng.random((3, H, W)) < 0.5
    for item, one in zip(refine(masks, image), masks, strict=True):
        np.testing.assert_array_equal(item, refine(one, image))
    apart = np.arange(3)[:, None, None] == rng.integers(0, 3, (H, W))
    for options in ({"kind": "mask"}, {"layout": "NHW"}):
        for item, one in zip(refine(apart, image, **options), apart, strict=True):
            np.testing.assert_array_equal(item, refine(one, image))


def test_probabilities_are_taken_as_they_are(probs, image, refined):
    """kind="auto" and kind="probs" are one path; float16 sums within the tolerance pass."""
    np.testing.assert_array_equal(refine(probs, image, kind="probs"), refined)
    scaled = (probs * 1.009).astype(np.float32)
    np.testing.assert_allclose(refine(scaled, image), refined, atol=2e-3)


def test_zero_iterations_give_the_unary_back(probs, image):
    q = refine(probs, image, iterations=0)
    np.testing.assert_allclose(q, softmax(-unary_from_probs(probs).astype(float)), atol=1e-6)


def test_every_kind_and_form_of_result_is_consistent(rng, image):
    """All combinations run, and labels are where probabilities are largest."""
    scores = rng.normal(size=(C, H, W)).astype(np.float32)
    kinds = {
        "probs": softmax(scores).astype(np.float32),
        "logits": scores,
        "labels": scores.argmax(0),
        "mask": scores[0] > 0,
    }
    for kind, accuracy in itertools.product(kinds, ("fast", "fine")):
        options = {"kind": kind, "accuracy": accuracy}
        probs = refine(kinds[kind], image, returns="probs", **options)
        labels = refine(kinds[kind], image, returns="labels", **options)
        best = probs > 0.5 if kind == "mask" else probs.argmax(0)
        np.testing.assert_array_equal(labels, best)


# --- scores that need not sum to 1 ----------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"keep_thin": 0}, {"keep_thin": 0, "skip": False}])
def test_scores_are_probabilities_up_to_a_factor_per_pixel(options, rng, image, probs):
    probs = (probs + 0.01) / (1 + 0.01 * C)  # above the floor, whatever the factor
    factors = rng.uniform(0.5, 4, (H, W)).astype(np.float32)
    found = refine(probs * factors, image, kind="scores", **options)
    np.testing.assert_allclose(found, refine(probs, image, **options), atol=2e-3)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    same = refine(probs, image, kind="scores", **options)
    np.testing.assert_allclose(same, refine(probs, image, **options), atol=2e-3)


def test_a_pixel_without_any_score_knows_nothing(image, probs):
    probs[:, 3, 5] = 0
    found = refine(probs, image, kind="scores", iterations=0)
    np.testing.assert_allclose(found[:, 3, 5], 1 / C, rtol=1e-5)
    assert np.isfinite(refine(probs, image, kind="scores", keep_thin=5)).all()


def test_coarse_scores_and_batches_of_them(rng, image):
    coarse = rng.random((2, C, 3, 7)).astype(np.float16)
    options = {"kind": "scores", "upsample": "half-pixel", "keep_thin": 0}
    found = refine(coarse, image, layout="NCHW", **options)
    assert (found.shape, found.dtype) == ((2, C, H, W), np.float16)
    exact = refine(coarse[1], image, layout="CHW", **options)
    np.testing.assert_array_equal(found[1], exact)


@pytest.mark.parametrize(("value", "words"), [(-0.5, "has -0.5 at"), (np.nan, "has nan at")])
def test_scores_below_0_are_none(value, words, image, probs):
    probs[1, 3, 5] = value
    for options in ({}, {"keep_thin": 0}):
        with pytest.raises(ValueError, match=rf"^\[refine\] x {words} label 1, row 3, column 5; "):
            refine(probs, image, kind="scores", **options)
    with pytest.raises(ValueError, match="one label"):
        refine(probs[:1], image, kind="scores", layout="CHW")
