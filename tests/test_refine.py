# SPDX-License-Identifier: MIT
"""refine() against the model written out: features, kernels, mean field; and upsampling."""

import tracemalloc

import numpy as np
import pytest

import crfseg
from crfseg import (
    Bilateral,
    DenseCRF,
    Features,
    FrankWolfe,
    Gaussian,
    Potts,
    refine,
    unary_from_probs,
)
from native import lattice_matrix
from photos import recorded_problem
from reference import Term, bilinear, compatibility_matrix, mean_field, normalize
from small import H, W


def features_of(image, sigma_xy, sigma_rgb=None):
    """(N, d) x, y and, with sigma_rgb, channels, rounded as the native core does."""
    y, x = np.indices(image.shape[:2], np.float32)
    xy = np.stack([x.ravel(), y.ravel()], axis=1) * np.float32(1 / sigma_xy)
    if sigma_rgb is None:
        return xy
    return np.hstack([xy, image.reshape(len(xy), -1) * np.float32(1 / sigma_rgb)])


def reference_refine(probs, image, *, normalization, compatibility, iterations):
    """3/3 + 20/30/5 in float64, on the kernels that the lattice yields."""
    mu = compatibility_matrix(compatibility, len(probs))
    terms = [
        Term(normalize(lattice_matrix(features), normalization), weight, mu)
        for features, weight in (
            (features_of(image, 3.0), 3.0),
            (features_of(image, 20.0, 30.0), 5.0),
        )
    ]
    unary = -np.log(np.maximum(probs.reshape(len(probs), -1).astype(float), 1e-5))
    return mean_field(unary, terms, iterations).qs[-1].reshape(probs.shape)


@pytest.mark.parametrize("normalization", ["symmetric", "after", "before", "none"])
@pytest.mark.parametrize(
    "compatibility", [None, np.array([1.0, 0.2, 3.0, 0.5]), np.triu(np.full((4, 4), 0.7), 1)]
)
def test_refine_is_the_mean_field_of_the_paper(probs, image, normalization, compatibility):
    options = {"normalization": normalization, "compatibility": compatibility, "iterations": 5}
    found = refine(probs, image, spatial=(3, 3), bilateral=(20, 30, 5), **options)
    expected = reference_refine(probs, image, **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)


def test_refine_is_a_dense_crf_of_two_terms(probs, image):
    terms = [Gaussian(2.0, 1.5), Bilateral(image, (9.0, 6.0), 30.0, 4.0)]
    model = DenseCRF(unary_from_probs(probs), terms, compatibility=Potts(1.2))
    expected = model.infer(7).q
    bilateral = ((9.0, 6.0), 30.0, 4.0)
    options = {"compatibility": Potts(1.2), "iterations": 7}
    found = refine(probs, image, spatial=(2.0, 1.5), bilateral=bilateral, **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    terms[1] = Bilateral(None, (9.0, 6.0), 30.0, 4.0)
    listed = refine(probs, image, pairwise=terms, **options)
    np.testing.assert_array_equal(listed, found)


def test_a_term_may_bring_its_own_image(rng, probs, image):
    depth = rng.random((H, W))
    own = refine(probs, None, layout="CHW", pairwise=[Bilateral(depth)])
    np.testing.assert_array_equal(own, refine(probs, depth, spatial=None, bilateral=(80, 13, 10)))
    both = refine(probs, image, pairwise=[Bilateral(depth), Bilateral()])
    assert np.abs(both - own).max() > 0.01
    features = features_of(depth.astype(np.float32) * 255, 80.0, 13.0)
    given = Features(features.reshape(H, W, 3), weight=10.0)
    np.testing.assert_allclose(refine(probs, image, pairwise=[given]), own, rtol=0, atol=1e-4)


def test_own_features_stay_while_the_images_of_a_batch_change(rng):
    probs = rng.dirichlet(np.ones(3), (2, H, W)).transpose(0, 3, 1, 2)
    images = rng.integers(0, 256, (2, H, W, 3), dtype=np.uint8)
    depth = rng.random((H, W))
    terms = [Bilateral(depth), Bilateral(), Gaussian()]
    together = refine(probs, images, pairwise=terms)
    for item, x, image in zip(together, probs, images, strict=True):
        np.testing.assert_array_equal(item, refine(x, image, pairwise=terms))


def test_no_terms_leave_the_unary(probs, image):
    expected = refine(probs, image, iterations=0)
    for options in ({"spatial": None, "bilateral": None}, {"pairwise": []}):
        np.testing.assert_allclose(refine(probs, image, **options), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(expected, np.maximum(probs, 1e-5), atol=1e-4)


def test_options_reach_the_model(probs, image):
    """Each of them changes the result, and weights of 0 switch terms off."""
    customary = crfseg.CUSTOMARY
    plain = refine(probs, image, **customary)
    changes = (
        {"iterations": 1},
        {"tolerance": 0.9},
        {"solver": "damped"},
        {"solver": FrankWolfe("entropy", "diminishing")},
        {"solver": "euclidean-frank-wolfe"},
        {"normalization": "after"},
        {"accuracy": "fine"},
        {"compatibility": Potts(0.3)},
        {"spatial": (1.0, 3.0)},
        {"spatial": (3.0, 0.5)},
        {"bilateral": (80.0, 40.0, 10.0)},
        {"bilateral": None},
        {"image_range": (0, 1000)},
    )
    for options in changes:
        found = refine(probs, image, **(customary | options))
        assert np.abs(found - plain).max() > 1e-4, options
    without = refine(probs, image, bilateral=(80.0, 13.0, 0.0))
    np.testing.assert_array_equal(without, refine(probs, image, bilateral=None))


def test_tolerance_stops_at_the_iteration_that_reached_it(probs, image):
    model = DenseCRF(unary_from_probs(probs), [Gaussian(), Bilateral(image)])
    result = model.infer(50, tolerance=0.02)
    assert result.converged
    assert 0 < result.iterations < 50
    assert result.max_change < 0.02
    unwatched = model.infer(result.iterations).q
    np.testing.assert_allclose(unwatched, result.q, rtol=0, atol=1e-5)
    assert not model.infer(result.iterations - 1, tolerance=0.02).converged
    assert not model.infer(50).converged
    found = refine(probs, image, iterations=50, tolerance=0.02, **crfseg.CUSTOMARY)
    np.testing.assert_allclose(found, result.q, rtol=0, atol=1e-5)


def test_labels_are_where_marginals_are_largest():
    image, probs = recorded_problem("astronaut")
    q = refine(probs, image)
    np.testing.assert_array_equal(refine(probs, image, returns="labels"), q.argmax(0))
    model = DenseCRF(unary_from_probs(probs), [Gaussian(), Bilateral(image)])
    result = model.infer()
    np.testing.assert_array_equal(result.labels, result.q.argmax(0))
    assert model.energy(result.labels) < model.energy(probs.argmax(0))


def test_refinement_follows_the_edges_of_the_image(rng):
    """A square in a picture, marked a bit too small and noisily, comes back as the square."""
    truth = np.zeros((40, 50), bool)
    truth[10:30, 12:38] = True
    image = np.where(truth[..., None], (200, 60, 40), (40, 90, 160))
    image = np.clip(image + rng.normal(scale=4, size=(40, 50, 3)), 0, 255).astype(np.uint8)
    coarse = np.zeros_like(truth)
    coarse[12:28, 15:35] = True
    coarse ^= rng.random(truth.shape) < 0.05
    assert (coarse != truth).mean() > 0.08
    np.testing.assert_array_equal(refine(coarse, image), truth)


# --- upsampling -----------------------------------------------------------------------------------

UPSAMPLED = [
    ((5, 7), (40, 56), "half-pixel", "auto"),
    ((5, 7), (33, 49), "align-corners", "auto"),
    ((2, 3), (4, 6), "half-pixel", "auto"),
    ((1, 3), (1, 9), "align-corners", "align-corners"),
    ((5, 7), (31, 52), "half-pixel", "half-pixel"),
    ((5, 7), (31, 52), "align-corners", "align-corners"),
    ((5, 7), (5, 20), "half-pixel", "half-pixel"),
]


@pytest.mark.parametrize(("small", "large", "alignment", "upsample"), UPSAMPLED)
@pytest.mark.parametrize("kind", ["probs", "logits"])
@pytest.mark.parametrize("layout", ["CHW", "HWC", "NCHW"])
def test_scores_are_stretched_to_the_image(rng, small, large, alignment, upsample, kind, layout):
    """Logits before softmax, probabilities as they are; the size of the image comes back."""
    logits = rng.normal(size=(6, *small)).astype(np.float32)
    scores = np.exp(logits) / np.exp(logits).sum(0) if kind == "probs" else logits
    image = rng.integers(0, 256, (*large, 3), dtype=np.uint8)
    full = bilinear(scores, *large, alignment).astype(np.float32)
    options = {"kind": kind, "returns": "probs"}
    expected = refine(full, image, layout="CHW", **options)
    axes = (1, 2, 0) if layout == "HWC" else (0, 1, 2)
    given = scores.transpose(axes)[(np.newaxis,) * (layout == "NCHW")]
    found = refine(given, image, layout=layout, upsample=upsample, **options)
    placed = expected.transpose(axes)
    assert found.shape == ((1, *placed.shape) if layout == "NCHW" else placed.shape)
    np.testing.assert_allclose(found.reshape(placed.shape), placed, rtol=0, atol=1e-3)


def test_stretched_layouts_are_found_by_the_stride(rng):
    scores = rng.normal(size=(5, 7, 9)).astype(np.float16)
    image = rng.integers(0, 256, (56, 72, 3), dtype=np.uint8)
    expected = refine(scores, image, kind="logits", layout="CHW")
    np.testing.assert_array_equal(refine(scores, image, kind="logits"), expected)
    last = refine(scores.transpose(1, 2, 0), image, kind="logits")
    np.testing.assert_array_equal(last, expected.transpose(1, 2, 0))


def test_a_layout_too_large_for_the_image_is_none(rng):
    """Where upsample is named: 30 labels of 7 x 9, for the image has not 30 rows."""
    scores = rng.normal(size=(30, 7, 9)).astype(np.float32)
    image = rng.integers(0, 256, (19, 22, 3), dtype=np.uint8)
    options = {"kind": "logits", "upsample": "half-pixel"}
    expected = refine(scores, image, layout="CHW", **options)
    np.testing.assert_array_equal(refine(scores, image, **options), expected)


def test_equal_sizes_are_never_stretched(probs, image):
    expected = refine(probs, image)
    for upsample in (False, "half-pixel", "align-corners"):
        np.testing.assert_array_equal(refine(probs, image, upsample=upsample), expected)


# --- what a call costs ----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_float32_scores_are_neither_copied_nor_converted(rng, layout):
    """Beyond the result, numpy allocates only what the image and its features need."""
    height, width, n_labels = 90, 110, 40
    probs = rng.dirichlet(np.ones(n_labels), (height, width)).astype(np.float32)
    if layout == "CHW":
        probs = np.ascontiguousarray(probs.transpose(2, 0, 1))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    options = {"iterations": 1, "keep_thin": 0}
    refine(probs, image, **options)
    tracemalloc.start()
    refine(probs, image, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    n_points = height * width
    assert peak < probs.nbytes + 4 * n_points * (3 + 5) + 100_000
    tracemalloc.start()
    refine(probs, image, returns="labels", **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < probs.nbytes


# --- the settings of the process ------------------------------------------------------------------


def test_the_environment_sets_the_number_of_threads(monkeypatch):
    monkeypatch.setenv("CRFSEG_NUM_THREADS", "3")
    assert crfseg.get_num_threads() == 3
    for wrong in ("0", "-1", "two", "3.5", "99999"):
        monkeypatch.setenv("CRFSEG_NUM_THREADS", wrong)
        with pytest.raises(ValueError, match=f"CRFSEG_NUM_THREADS is '{wrong}'; expected"):
            crfseg.get_num_threads()
    monkeypatch.setenv("CRFSEG_NUM_THREADS", "")
    assert crfseg.get_num_threads() >= 1


@pytest.mark.parametrize("wrong", [0, -2, 1.5, "4", True, 5000])
def test_wrong_numbers_of_threads_change_nothing(wrong):
    before = crfseg.get_num_threads()
    with pytest.raises((ValueError, TypeError), match=r"\[set_num_threads\] threads is"):
        crfseg.set_num_threads(wrong)
    assert crfseg.get_num_threads() == before


def test_models_and_lattices_describe_themselves(probs, image):
    model = DenseCRF(unary_from_probs(probs), [Gaussian(), Bilateral(image)])
    assert repr(model) == "<DenseCRF: 4 labels, 9 x 14 points, terms [Gaussian, Bilateral]>"
    lattice = crfseg.Lattice(np.zeros((6, 2)), normalization="after")
    assert repr(lattice) == "<Lattice: 6 points, 2 features, 3 vertices, normalization 'after'>"


def test_info_describes_the_installation():
    found = crfseg.info()
    assert found["version"] == crfseg.__version__
    assert found["isa"] in found["isas"]
    assert found["threads"] >= 1
