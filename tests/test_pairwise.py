# SPDX-License-Identifier: MIT
"""Terms: the features they make, and that a model of terms is the model of those features."""

import numpy as np
import pytest

from crfseg import Bilateral, DenseCRF, Features, Gaussian, Potts

H, W = 5, 7


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (H, W, 3), dtype=np.uint8)


@pytest.fixture
def unary(rng):
    return rng.normal(size=(3, H, W)).astype(np.float32)


def coordinates(*grid):
    """(N, d) x, y (, z) of the points of a grid."""
    return np.indices(grid)[::-1].reshape(len(grid), -1).T.astype(float)


def q_of(unary, *terms, **options):
    return DenseCRF(unary, list(terms), **options).infer(4).q


def over(features, sigmas):
    """Features over sigmas as the native core rounds them: times the inverse, all in float32."""
    return features.astype(np.float32) * (1 / np.array(sigmas, float)).astype(np.float32)


def assert_same_model(unary, term, features, weight):
    """Bit for bit: regular grids lie on faces of the lattice, where rounding decides a lot."""
    expected = q_of(unary, Features(features, weight=weight))
    np.testing.assert_array_equal(q_of(unary, term), expected)
    assert np.abs(q_of(unary) - expected).max() > 0.01, "the term does nothing here"


@pytest.mark.parametrize(("sigma", "sigmas"), [(2.0, (2, 2)), ((1.5, 4), (1.5, 4))])
def test_gaussian_features_are_x_and_y_over_sigma(unary, sigma, sigmas):
    assert_same_model(unary, Gaussian(sigma, 2.0), over(coordinates(H, W), sigmas), 2.0)


@pytest.mark.parametrize(
    ("sigma_xy", "sigma_rgb", "sigmas"),
    [(6.0, 40.0, (6, 6, 40, 40, 40)), ((6, 3), (40, 70, 90), (6, 3, 40, 70, 90))],
)
def test_bilateral_features_are_x_y_and_channels_over_sigmas(
    unary, image, sigma_xy, sigma_rgb, sigmas
):
    features = over(np.hstack([coordinates(H, W), image.reshape(-1, 3)]), sigmas)
    assert_same_model(unary, Bilateral(image, sigma_xy, sigma_rgb, 3.0), features, 3.0)


@pytest.mark.parametrize("channels", [None, 1, 2, 4, 7, 14])
def test_images_have_any_number_of_channels(unary, rng, channels):
    shape = (H, W) if channels is None else (H, W, channels)
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    features = np.hstack([over(coordinates(H, W), 6), over(image.reshape(H * W, -1), 90)])
    assert_same_model(unary, Bilateral(image, 6.0, 90.0), features, 10.0)


def test_volumes_have_three_coordinates(rng):
    grid = (3, 4, 5)
    unary = rng.normal(size=(2, *grid)).astype(np.float32)
    assert_same_model(unary, Gaussian((3, 2, 1), 2.0), over(coordinates(*grid), (3, 2, 1)), 2.0)
    volume = rng.integers(0, 256, grid, dtype=np.uint8)
    features = np.hstack([over(coordinates(*grid), 3), over(volume.reshape(-1, 1), 50)])
    assert_same_model(unary, Bilateral(volume, 3.0, 50.0), features, 10.0)


def test_points_have_the_features_they_are_given(rng):
    unary = rng.normal(size=(2, 40)).astype(np.float32)
    features = rng.normal(size=(40, 3)).astype(np.float32)
    sigmas = (2.0, 5.0, 0.1)
    assert_same_model(unary, Features(features, sigmas, 1.5), over(features, sigmas), 1.5)
    on_a_grid = Features(features.reshape(8, 5, 3))
    shaped = q_of(unary.reshape(2, 8, 5), on_a_grid)
    np.testing.assert_array_equal(shaped.reshape(2, 40), q_of(unary, Features(features)))


@pytest.mark.parametrize(
    ("convert", "options"),
    [
        (lambda image: image.astype(np.uint16) * 257, {}),
        (lambda image: image.astype(np.float32) / 255, {}),
        (lambda image: image / 255, {}),
        (lambda image: image.astype(np.int64), {"image_range": (0, 255)}),
        (lambda image: image.astype(np.float64), {"image_range": (0, 255)}),
        (lambda image: image / 127.5 - 1, {"image_range": (-1, 1)}),
        (lambda image: image[:, ::-1][:, ::-1], {}),
        (np.asfortranarray, {}),
    ],
)
def test_sigma_rgb_is_in_levels_for_every_dtype(unary, image, convert, options):
    expected = q_of(unary, Bilateral(image, 6.0, 40.0))
    converted = q_of(unary, Bilateral(convert(image), 6.0, 40.0, **options))
    np.testing.assert_allclose(converted, expected, rtol=0, atol=1e-4)


def test_interpolation_may_overshoot_by_rounding(unary, image):
    given = image.astype(np.float32) / 255
    given[0, 0] = 1.000001
    assert np.isfinite(q_of(unary, Bilateral(given))).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_far_away_features_keep_their_precision(rng, sign):
    """Seconds since 1970 in float64: float32 would round them to multiples of 128."""
    unary = rng.normal(size=(2, 40)).astype(np.float32)
    seconds = sign * np.sort(rng.uniform(0, 10, (40, 1)), axis=0)
    seconds[0] = 0  # where far-away features are moved to, so that both lattices are the same
    near = q_of(unary, Features(seconds, weight=3.0))
    far = q_of(unary, Features(seconds + sign * 1.7e9, weight=3.0))
    np.testing.assert_allclose(far, near, rtol=0, atol=1e-4)
    assert np.abs(q_of(unary) - near).max() > 0.2


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 7])
def test_clusters_a_key_wrap_apart_do_not_meet(dim):
    """Keys of 16 bits repeat every 65,536 lattice units; what is that far apart has k = 0."""
    scale = np.sqrt(2 / 3) * (dim + 1) / np.sqrt(2)
    for wraps in (1, 2, 3):
        features = np.zeros((2, dim))
        features[1, 0] = wraps * 65536 / scale
        unary = np.array([[0.0, 0.1], [3.0, 0.0]], np.float32)
        alone = q_of(unary[:, 1:], Features(features[1:], weight=5.0))
        both = q_of(unary, Features(features, weight=5.0))
        np.testing.assert_allclose(both[:, 1:], alone, atol=1e-5)


def test_weights_multiply_and_zero_leaves_a_term_out(unary, image):
    term = Bilateral(image, weight=6.0)
    expected = q_of(unary, term)
    for same in (
        Bilateral(image, weight=2.0, compatibility=Potts(3.0)),
        Bilateral(image, weight=3.0, compatibility=2 * (1 - np.eye(3))),
    ):
        np.testing.assert_allclose(q_of(unary, same), expected, rtol=0, atol=1e-5)
    nothing = Gaussian(weight=0.0), Bilateral(image, compatibility=Potts(0.0))
    np.testing.assert_array_equal(q_of(unary, *nothing), q_of(unary))


def test_a_term_may_differ_from_the_model(unary, image):
    own = Bilateral(image, normalization="after", compatibility=[1.0, 2.0, 0.5])
    plain = Bilateral(image)
    options = {"normalization": "after", "compatibility": [1.0, 2.0, 0.5]}
    np.testing.assert_array_equal(q_of(unary, own), q_of(unary, plain, **options))
    assert np.abs(q_of(unary, own) - q_of(unary, plain)).max() > 1e-3


def test_terms_are_frozen_and_say_what_they_are(image):
    term = Bilateral(image, sigma_xy=np.array([50, 60]))
    assert term.sigma_xy == (50.0, 60.0)
    assert "array" not in repr(term)
    with pytest.raises(AttributeError):
        term.weight = 1.0


def test_a_subclass_of_the_model_is_a_model(unary, image):
    class Model(DenseCRF):
        pass

    model = Model(unary, [Bilateral(image)])
    assert model.shape == unary.shape
    assert (model.n_labels, model.n_points) == (3, H * W)
    np.testing.assert_array_equal(model.infer(4).q, q_of(unary, Bilateral(image)))
