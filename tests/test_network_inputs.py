# SPDX-License-Identifier: MIT
"""Images as networks and OpenCV hold them: normalised, blue first; and at another scale."""

import numpy as np
import pytest

from crfseg import Bilateral, Gaussian, refine

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CAFFE = (104.008, 116.669, 122.675)  # of blue, green and red


@pytest.fixture
def as_float(probs, image):
    return refine(probs, image / 255.0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("form", [np.array, list, tuple])
def test_normalized_images_are_brought_back(dtype, form, probs, image, as_float):
    given = ((image / 255.0 - MEAN) / STD).astype(dtype)
    found = refine(probs, given, mean=form(MEAN), std=form(STD))
    np.testing.assert_allclose(found, as_float, atol=0.05 if dtype == np.float16 else 2e-3)
    assert np.abs(found - refine(probs, image[::-1])).max() > 0.2


def test_means_of_levels_are_told_by_their_size(probs, image, refined):
    given = (image[..., ::-1] - np.array(CAFFE)).astype(np.float32)
    found = refine(probs, given, mean=CAFFE, bgr=True)
    np.testing.assert_allclose(found, refined, atol=2e-3)
    found = refine(probs, given / 50, mean=CAFFE, std=50, bgr=True)
    np.testing.assert_allclose(found, refined, atol=2e-3)


def test_one_number_serves_all_channels(probs, image, as_float):
    found = refine(probs, (image / 255.0 - 0.5) / 0.25, mean=0.5, std=0.25)
    np.testing.assert_allclose(found, as_float, atol=2e-3)
    grey = image[..., 0]
    found = refine(probs, (grey / 255.0 - 0.5) / 0.25, mean=(0.5,), std=[0.25])
    np.testing.assert_allclose(found, refine(probs, grey), atol=2e-3)


def test_image_range_says_the_unit_of_the_mean(probs, image, as_float):
    found = refine(probs, image / 127.5 - 1.0, std=1, image_range=(-1, 1))
    np.testing.assert_allclose(found, as_float, atol=2e-3)
    found = refine(probs, image / 1000.0 - 0.1, mean=0.1, image_range=(0, 0.255))
    np.testing.assert_allclose(found, as_float, atol=2e-3)


def test_channels_may_have_ranges_of_their_own(probs, image):
    """In the order of the image, which is blue first here."""
    ranges = [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)]
    low, high = np.array(ranges).T
    values = image[..., ::-1] / 255.0 * (high - low) + low
    mean, std = (0.5, 100.0, 0.1), (0.2, 60.0, 0.7)
    given = (values - mean) / std
    found = refine(probs, given, mean=mean, std=std, bgr=True, image_range=ranges)
    np.testing.assert_allclose(found, refine(probs, image / 255.0), atol=2e-3)
    with pytest.raises(ValueError, match="2"):
        refine(probs, given, mean=mean, image_range=ranges[:2])


def test_batches_and_lists_are_brought_back_one_by_one(probs, image):
    images = np.stack([image, image[::-1]]) / 255.0
    x = np.stack([probs, probs[::-1]])
    expected = refine(x, images)
    given = (images - MEAN) / STD
    for one in (given, list(given)):
        np.testing.assert_allclose(refine(x, one, mean=MEAN, std=STD), expected, atol=2e-3)


def test_blue_first_gives_what_red_first_does(probs, image, refined):
    np.testing.assert_array_equal(refine(probs, image[..., ::-1], bgr=True), refined)
    options = {"bilateral": (10, (5, 20, 60), 8), "iterations": 3}  # a sigma for each of R, G, B
    expected = refine(probs, image, **options)
    np.testing.assert_array_equal(refine(probs, image[..., ::-1], bgr=True, **options), expected)
    assert np.abs(refine(probs, image[..., ::-1], **options) - expected).max() > 0.05
    batch = np.stack([probs] * 2), np.stack([image[..., ::-1]] * 2)
    np.testing.assert_array_equal(refine(*batch, bgr=True)[1], refined)


@pytest.mark.parametrize(
    ("of_image", "options", "error", "words"),
    [
        (
            lambda i: i,
            {"mean": MEAN},
            TypeError,
            "image has dtype uint8; expected floats, normalised",
        ),
        (
            lambda i: i / 9.0,
            {"mean": MEAN, "std": STD},
            ValueError,
            r"image \* std \+ mean ranges",
        ),
        (
            lambda i: i / 255.0,
            {"mean": MEAN[:2]},
            ValueError,
            r"mean has shape \(2,\); expected one",
        ),
        (
            lambda i: i.transpose(2, 0, 1) / 255.0,
            {"mean": MEAN},
            ValueError,
            r"image has shape \(3, .*expected \(H, W, channels\), as mean has 3 numbers",
        ),
        (
            lambda i: i / 255.0,
            {"std": [1] * 4},
            ValueError,
            r"std has shape \(4,\); expected one num",
        ),
        (lambda i: i / 255.0, {"std": 0.0}, ValueError, "std is 0; expected positive numbers"),
        (lambda i: i / 255.0, {"mean": np.nan}, ValueError, "mean is nan; expected finite numbers"),
        (lambda i: i / 255.0, {"mean": "imagenet"}, TypeError, "mean is 'imagenet'"),
        (
            lambda i: i[..., 0],
            {"bgr": True},
            ValueError,
            r"image has shape .*three channels for bgr",
        ),
        (lambda i: i, {"bgr": 1}, TypeError, "bgr is 1"),
    ],
)
def test_what_cannot_be_brought_back_is_refused(of_image, options, error, words, probs, image):
    with pytest.raises(error, match=rf"^\[refine\] {words}"):
        refine(probs, of_image(image), **options)


# --- scale ----------------------------------------------------------------------------------------


def test_scale_divides_what_is_in_pixels(probs, image):
    given = {"spatial": (3, 6), "bilateral": ((30, 60), 13, 10), "keep_thin": 0}
    found = refine(probs, image, scale=12, **given)
    expected = {"spatial": (0.25, 6), "bilateral": ((2.5, 5), 13, 10), "keep_thin": 0}
    np.testing.assert_array_equal(found, refine(probs, image, **expected))
    found = refine(probs, image, scale=0.5, preset="psa")
    expected = refine(probs, image, preset="psa", spatial=(6, 3), bilateral=(160, 13, 10))
    np.testing.assert_array_equal(found, expected)


def test_the_default_kernels_are_scaled_as_well(probs, image, refined):
    found = refine(probs, image, scale=3.0)
    expected = refine(probs, image, spatial=(1, 6), bilateral=(10, 13, 10), keep_thin=21)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(refine(probs, image, scale=1), refined)


def test_scale_does_not_know_terms_of_ones_own(probs, image):
    terms = [Gaussian(3), Bilateral()]
    with pytest.raises(
        ValueError, match=r"^\[refine\] scale is 2 but pairwise was given; expected"
    ):
        refine(probs, image, pairwise=terms, scale=2)
    for scale in (0, -1, np.inf):
        with pytest.raises(
            ValueError, match=r"^\[refine\] scale is .*; expected a positive finite n"
        ):
            refine(probs, image, scale=scale)
