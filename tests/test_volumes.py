# SPDX-License-Identifier: MIT
"""refine() of volumes: against the model written out, in every layout, with spacing and ranges."""

import numpy as np
import pytest

from crfseg import Bilateral, DenseCRF, Features, Gaussian, refine, unary_from_probs
from native import lattice_matrix
from reference import Term, compatibility_matrix, gaussian_kernel, mean_field, normalize

C, D, H, W, K = 3, 4, 6, 5, 2
KERNELS = {"spatial": (1.5, 2.0), "bilateral": (4.0, 30.0, 5.0), "iterations": 5}


@pytest.fixture
def probs(rng):
    """(C, D, H, W)."""
    return np.moveaxis(rng.dirichlet(np.full(C, 0.5), (D, H, W)), -1, 0).astype(np.float32)


@pytest.fixture
def volume(rng):
    """(D, H, W, K) levels."""
    return rng.integers(0, 256, (D, H, W, K), dtype=np.uint8)


@pytest.fixture
def refined(probs, volume):
    """The plain case that others are compared with; it must differ from the input."""
    result = refine(probs, volume, **KERNELS)
    assert np.abs(result - probs).max() > 0.2
    return result


def rows_of(volume, sigmas_xyz, sigmas=None):
    """(N, d) x, y, z and, with sigmas, channels over them, as the native core rounds them."""
    inverse = (1 / np.array(sigmas_xyz, float)).astype(np.float32)
    places = np.indices(volume.shape[:3], np.float32)[::-1].reshape(3, -1).T * inverse
    if sigmas is None:
        return places
    inverse = (1 / np.array(sigmas, float)).astype(np.float32)
    return np.hstack([places, volume.reshape(len(places), -1) * inverse])


def written_out(probs, features, weights, kernel_of, normalization="symmetric"):
    """Five mean-field updates in float64."""
    mu = compatibility_matrix(None, len(probs))
    kernels = [normalize(kernel_of(each), normalization) for each in features]
    terms = [Term(kernel, w, mu) for kernel, w in zip(kernels, weights, strict=True)]
    unary = -np.log(np.maximum(probs.reshape(len(probs), -1).astype(float), 1e-5))
    return mean_field(unary, terms, 5).qs[-1].reshape(probs.shape)


@pytest.mark.parametrize("normalization", ["symmetric", "after", "before", "none"])
def test_refine_is_the_mean_field_of_the_paper(probs, volume, normalization):
    features = rows_of(volume, (1.5,) * 3), rows_of(volume, (4,) * 3, (30, 30))
    expected = written_out(probs, features, (2.0, 5.0), lattice_matrix, normalization)
    found = refine(probs, volume, normalization=normalization, **KERNELS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)


def test_it_is_near_the_exact_model(probs, volume):
    """No lattice at all: every pair of voxels in float64, at reaches of several voxels."""
    volume = volume // 8  # features are further apart than a sigma otherwise: most pairs are none
    features = rows_of(volume, (1.5,) * 3), rows_of(volume, (4,) * 3, (30, 30))
    expected = written_out(probs, features, (2.0, 5.0), gaussian_kernel)
    found = refine(probs, volume, accuracy="fine", **KERNELS)
    assert np.abs(found - expected).mean() < 0.02
    assert np.abs(probs - expected).mean() > 0.1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("grid", [(1, 3, 7), (7, 1, 3), (3, 7, 1), (2, 90, 101), (40, 41, 3)])
def test_voxels_are_rows_of_features(rng, grid, dtype):
    """Bit for bit, over several strips of points and where an axis has one voxel."""
    unary = rng.normal(size=(2, *grid)).astype(np.float32)
    values = rng.integers(0, 256, (*grid, 2))
    levels = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    image = (values * levels).astype(dtype)
    scale = np.float32(255 / {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype])
    inverse = (1 / np.array([9.0, 40.0])).astype(np.float32) * scale
    rows = np.hstack([rows_of(image, (3, 2, 5)), image.reshape(-1, 2).astype(np.float32) * inverse])
    term = Bilateral(image, (3, 2, 5), (9.0, 40.0), 4.0)
    found = DenseCRF(unary, [term, Gaussian((3, 2, 5), 2.0)]).infer(3).q
    same = [Features(rows, weight=4.0), Features(rows[:, :3].copy(), weight=2.0)]
    np.testing.assert_array_equal(found, DenseCRF(unary, same).infer(3).q)


def test_defaults_are_those_of_volumes(probs, volume):
    terms = [Gaussian(1.0, 1.0), Bilateral(volume, 5.0, 25.0, 3.0)]
    expected = DenseCRF(unary_from_probs(probs), terms).infer(10, skip=False).q
    np.testing.assert_allclose(refine(probs, volume, skip=False), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("turn", "back", "layout"),
    [
        (lambda p: p, lambda q: q, None),
        (lambda p: p[None], lambda q: q[0], None),
        (lambda p: np.moveaxis(p, 0, -1)[None], lambda q: np.moveaxis(q[0], -1, 0), None),
        (lambda p: p, lambda q: q, "CDHW"),
        (lambda p: np.moveaxis(p, 0, -1), lambda q: np.moveaxis(q, -1, 0), "DHWC"),
    ],
)
@pytest.mark.parametrize(
    ("turn_image", "image_layout"),
    [
        (lambda v: v, None),
        (lambda v: np.moveaxis(v, -1, 0), None),
        (lambda v: np.moveaxis(v, -1, 0).copy(), "KDHW"),
        (lambda v: v[None], "NDHWK"),
        (lambda v: [v], None),
        (lambda v: [np.moveaxis(v, -1, 0)], "KDHW"),
    ],
)
def test_layouts_say_the_same(probs, volume, refined, turn, back, layout, turn_image, image_layout):
    given = turn(probs)
    found = refine(given, turn_image(volume), layout=layout, image_layout=image_layout, **KERNELS)
    assert found.shape == given.shape
    np.testing.assert_array_equal(back(found), refined)


def test_channels_first_tell_labels_last_from_a_batch(probs, volume, refined):
    found = refine(np.moveaxis(probs, 0, -1), np.moveaxis(volume, -1, 0), **KERNELS)
    np.testing.assert_array_equal(np.moveaxis(found, -1, 0), refined)


def test_a_grey_volume_has_three_axes(rng):
    grid = (4, 6, 15)  # as many channels no image has
    probs = np.moveaxis(rng.dirichlet(np.full(C, 0.5), grid), -1, 0)
    grey = rng.integers(0, 256, grid, dtype=np.uint8)
    expected = refine(probs, grey[..., None], layout="CDHW", **KERNELS)
    np.testing.assert_array_equal(refine(probs, grey, **KERNELS), expected)
    np.testing.assert_array_equal(refine(np.stack([probs] * 2), grey, **KERNELS)[1], expected)
    both = refine(np.stack([probs] * 2), np.stack([255 - grey, grey]), image_layout="NDHW")
    np.testing.assert_array_equal(both[1], refine(probs, grey))


def test_items_of_a_batch_are_refined_as_if_alone(probs, volume, refined):
    both = np.stack([probs, probs[::-1]])
    other = 255 - volume
    found = refine(both, np.stack([volume, other]), threads=3, **KERNELS)
    np.testing.assert_array_equal(found[0], refined)
    np.testing.assert_array_equal(found[1], refine(probs[::-1], other, **KERNELS))
    np.testing.assert_array_equal(refine(both, [volume, other], **KERNELS), found)
    np.testing.assert_array_equal(refine(both, volume, **KERNELS)[0], refined)


@pytest.mark.parametrize("kind", ["logits", "labels", "mask", "foreground"])
def test_kinds_of_volumes_come_back_as_they_are(probs, volume, kind):
    given, layout = {
        "logits": (np.log(probs) + 2, None),
        "labels": (probs.argmax(0).astype(np.int16), "DHW"),
        "mask": (probs[0] > 0.4, "DHW"),
        "foreground": (probs[0].astype(np.float64), "DHW"),
    }[kind]
    options = {"kind": "mask" if kind == "foreground" else kind, "layout": layout}
    found = refine(given, volume, **options, **KERNELS)
    assert (found.shape, found.dtype) == (given.shape, given.dtype)
    assert (found != given).mean() > 0.05
    labels = refine(given, volume, returns="labels", **options, **KERNELS)
    assert labels.shape == (D, H, W)
    soft = refine(given, volume, returns="probs", **options, **KERNELS)
    of_labels = soft > 0.5 if soft.ndim == 3 else soft.argmax(0)
    np.testing.assert_array_equal(labels, of_labels)


def test_ignored_voxels_get_labels(probs, volume):
    labels = probs.argmax(0)
    labels[1, 2:4] = 255
    found = refine(labels, volume, layout="DHW", ignore_index=255, **KERNELS)
    assert found.max() < C


def test_a_thousand_threads_change_nothing(probs, volume, refined):
    np.testing.assert_array_equal(refine(probs, volume, threads=7, **KERNELS), refined)


# --- units ----------------------------------------------------------------------------------------


def test_sigmas_are_in_the_unit_of_the_spacing(probs, volume):
    spacing = (5.0, 1.0, 0.5)  # z, y, x
    found = refine(probs, volume, spatial=(2, 2), bilateral=(6, 30, 5), spacing=spacing)
    expected = refine(
        probs, volume, spatial=((4, 2, 0.4), 2), bilateral=((12, 6, 1.2), 30, 5)
    )  # x, y, z, in voxels
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - refine(probs, volume, spatial=(2, 2), bilateral=(6, 30, 5))).max() > 0.1


def test_stretching_an_axis_changes_nothing_where_spacing_says_so(probs, volume):
    """Voxels twice as far apart, with sigmas twice as large: the same model."""
    twice = refine(probs, volume, spatial=(3, 2), bilateral=(8, 30, 5), spacing=2)
    np.testing.assert_array_equal(
        twice, refine(probs, volume, spatial=(1.5, 2), bilateral=(4, 30, 5))
    )


def test_images_have_a_spacing_too(probs, volume):
    image, scores = volume[0], probs[:, 0]
    found = refine(scores, image, spatial=(3, 2), bilateral=(9, 30, 5), spacing=(3, 1.5))
    expected = refine(scores, image, spatial=((2, 1), 2), bilateral=((6, 3), 30, 5))
    np.testing.assert_array_equal(found, expected)


def test_terms_keep_a_spacing_of_their_own(probs, volume):
    terms = [Gaussian(2.0, 2.0, spacing=(5, 1, 1)), Bilateral(None, 6.0, 30.0, 5.0)]
    found = refine(probs, volume, pairwise=terms, spacing=2.0)
    same = [Gaussian((2.0, 2.0, 0.4), 2.0), Bilateral(None, 3.0, 30.0, 5.0)]
    np.testing.assert_array_equal(found, refine(probs, volume, pairwise=same))
    model = DenseCRF(unary_from_probs(probs), [terms[0]]).infer(4).q
    np.testing.assert_array_equal(model, DenseCRF(unary_from_probs(probs), [same[0]]).infer(4).q)


def test_every_channel_has_a_sigma(probs, volume):
    found = refine(probs, volume, spatial=None, bilateral=(4, (10, 80), 5), iterations=5)
    rows = rows_of(volume, (4,) * 3, (10, 80))
    expected = written_out(probs, [rows], [5.0], lattice_matrix)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)


def test_every_channel_has_a_range(probs, volume, refined):
    """Hounsfield units and a map of fractions, say."""
    lows, highs = np.array([-1000.0, 0.0]), np.array([3000.0, 1.0])
    values = lows + volume / 255 * (highs - lows)
    ranges = list(zip(lows, highs, strict=True))
    for given in (ranges, np.array(ranges)):
        found = refine(probs, values, image_range=given, **KERNELS)
        np.testing.assert_allclose(found, refined, rtol=0, atol=2e-3)
    alone = refine(probs, values[..., :1], layout="CDHW", image_range=(-1000, 3000), **KERNELS)
    expected = refine(probs, volume[..., :1], layout="CDHW", **KERNELS)
    np.testing.assert_allclose(alone, expected, rtol=0, atol=2e-3)


def test_images_may_have_their_channels_first(probs, volume):
    image, scores = volume[0], probs[:, 0]
    expected = refine(scores, image, **KERNELS)
    first = np.moveaxis(image, -1, 0)
    np.testing.assert_array_equal(refine(scores, first, image_layout="KHW", **KERNELS), expected)
    batch = refine(scores[None], first[None], image_layout="NKHW", **KERNELS)
    np.testing.assert_array_equal(batch[0], expected)


# --- images or volumes ----------------------------------------------------------------------------


def test_photographs_stay_images_where_both_fit(rng):
    """Two images of two labels are also a volume of two slices."""
    probs = rng.dirichlet(np.ones(2), (2, H, W)).transpose(0, 3, 1, 2).astype(np.float32)
    photos = rng.integers(0, 256, (2, H, W, 3), dtype=np.uint8)
    expected = np.stack([refine(p, i) for p, i in zip(probs, photos, strict=True)])
    np.testing.assert_array_equal(refine(probs, photos), expected)


def test_spacing_says_which_where_both_fit(rng):
    logits = rng.normal(size=(2, 2, H, W)).astype(np.float32)
    values = rng.integers(0, 256, (2, H, W, 2), dtype=np.uint8)
    with pytest.raises(ValueError, match="expected layout='CDHW' or 'NCHW'"):
        refine(logits, values, kind="logits")
    volume = refine(logits, values, kind="logits", layout="CDHW")
    images = refine(logits, values, kind="logits", layout="NCHW")
    assert np.abs(volume - images).max() > 0.1
    spaced = refine(logits, values, kind="logits", spacing=(1, 1, 1))
    np.testing.assert_array_equal(spaced, volume)
    np.testing.assert_array_equal(refine(logits, values, kind="logits", spacing=(1, 1)), images)


def test_cubes_of_as_many_channels_need_a_layout(rng):
    probs = rng.dirichlet(np.ones(2), (4, 4, 4)).transpose(3, 0, 1, 2).astype(np.float32)
    cube = rng.integers(0, 256, (4, 4, 4, 4), dtype=np.uint8)
    last = refine(probs, cube, layout="CDHW", image_layout="DHWK")
    first = refine(probs, np.moveaxis(cube, -1, 0), layout="CDHW", image_layout="KDHW")
    np.testing.assert_array_equal(first, last)
    with pytest.raises(ValueError, match="expected image_layout='DHWK' or 'KDHW'"):
        refine(probs, cube, layout="CDHW")


def test_volumes_without_an_image_are_smoothed(probs):
    found = refine(probs, None, layout="CDHW", spatial=(2, 3), bilateral=None)
    expected = DenseCRF(unary_from_probs(probs), [Gaussian(2, 3)]).infer(10).q
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
