# SPDX-License-Identifier: MIT
"""refine_points(): against the model written out and DenseCRF; containers, kinds, bad input."""

import inspect

import numpy as np
import pytest

import crfseg
from bad_input import assert_named, case, giant, put
from crfseg import (
    DenseCRF,
    Features,
    FrankWolfe,
    Gaussian,
    Potts,
    refine,
    refine_points,
    unary_from_labels,
    unary_from_probs,
)
from native import lattice_matrix
from reference import Term, compatibility_matrix, gaussian_kernel, mean_field, normalize

N, C = 60, 4
SIGMAS = (2.0, 0.5, 1.0)


@pytest.fixture
def features(rng):
    return rng.normal(size=(N, 3)).astype(np.float32)


@pytest.fixture
def probs(rng):
    """(N, C)."""
    return rng.dirichlet(np.full(C, 0.5), N).astype(np.float32)


def model(unary, *terms, **options):
    """(N, C) marginals of ten updates."""
    return DenseCRF(unary, list(terms), **options).infer(10, skip=False).q.T


@pytest.mark.parametrize("normalization", ["symmetric", "after", "before", "none"])
def test_it_is_the_mean_field_of_the_paper(probs, features, normalization):
    rows = features * (1 / np.array(SIGMAS)).astype(np.float32)
    kernel = normalize(lattice_matrix(rows), normalization)
    terms = [Term(kernel, 3.0, compatibility_matrix(None, C))]
    unary = -np.log(np.maximum(probs.T.astype(float), 1e-5))
    expected = mean_field(unary, terms, 6).qs[-1].T
    options = {"sigmas": SIGMAS, "weight": 3.0, "normalization": normalization, "iterations": 6}
    found = refine_points(probs, features, **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)
    assert np.abs(found - probs).max() > 0.2


def test_it_is_near_the_exact_model(probs, features):
    sigmas = (3.0, 2.0, 2.0)
    kernel = normalize(gaussian_kernel(features / np.array(sigmas)), "symmetric")
    unary = -np.log(np.maximum(probs.T.astype(float), 1e-5))
    terms = [Term(kernel, 9.0, compatibility_matrix(None, C))]
    expected = mean_field(unary, terms, 10).qs[-1].T
    found = refine_points(probs, features, sigmas=sigmas, weight=9.0, accuracy="fine")
    assert np.abs(found - expected).mean() < 0.02
    assert np.abs(probs - expected).mean() > 0.1


def test_terms_are_those_of_a_dense_crf(probs, features, rng):
    other = rng.normal(size=(N, 2))
    terms = [Features(features, SIGMAS, 2.0), Features(other, 0.7, 4.0, normalization="after")]
    found = refine_points(probs, terms, compatibility=Potts(0.5), skip=False)
    expected = model(unary_from_probs(probs.T), *terms, compatibility=Potts(0.5))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    one = refine_points(probs, terms[:1])
    np.testing.assert_array_equal(one, refine_points(probs, features, sigmas=SIGMAS, weight=2.0))


def test_points_of_a_grid_are_its_volume(rng):
    """The same answer as refine() gives on voxels, bit for bit."""
    grid = (4, 5, 6)
    probs = np.moveaxis(rng.dirichlet(np.ones(3), grid), -1, 0).astype(np.float32)
    places = np.indices(grid, np.float32)[::-1].reshape(3, -1).T
    found = refine_points(probs.reshape(3, -1).T, places, sigmas=2.0, weight=3.0)
    expected = refine(probs, None, layout="CDHW", spatial=(2.0, 3.0), bilateral=None)
    np.testing.assert_array_equal(found.T.reshape(probs.shape), expected)


def test_kinds_come_back_as_they_are(probs, features):
    labels = probs.argmax(1)
    expected = model(unary_from_labels(labels, C, confidence=0.6), Features(features, SIGMAS))
    options = {"sigmas": SIGMAS, "confidence": 0.6, "n_labels": C, "skip": False}
    soft = refine_points(labels, features, returns="probs", **options)
    np.testing.assert_allclose(soft, expected, rtol=0, atol=2e-6)
    found = refine_points(labels.astype(np.uint16), features, **options)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, expected.argmax(1))
    marked = put(labels, 7, 255)
    assert refine_points(marked, features, ignore_index=255, **options)[7] < C

    logits = refine_points(np.log(probs) + 3, features, kind="logits", sigmas=SIGMAS)
    of_probs = refine_points(probs, features, sigmas=SIGMAS)
    np.testing.assert_allclose(np.exp(logits), of_probs, rtol=0, atol=1e-5)
    half = refine_points(probs.astype(np.float16), features, sigmas=SIGMAS)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, of_probs, rtol=0, atol=5e-3)


def test_scores_need_not_sum_to_1(probs, features):
    found = refine_points(3 * probs, features, sigmas=SIGMAS, kind="scores")
    np.testing.assert_allclose(found, refine_points(probs, features, sigmas=SIGMAS), atol=2e-3)
    with pytest.raises(ValueError, match=r"^\[refine_points\] x holds probabilities"):
        refine_points(probs, features, sigmas=SIGMAS, kind="logits")


def test_masks_come_back_as_they_are(probs, features):
    options = {"kind": "mask", "sigmas": SIGMAS, "weight": 2.0}
    foreground = probs[:, 0]
    both = np.stack([1 - foreground, foreground], axis=1)
    expected = refine_points(both, features, sigmas=SIGMAS, weight=2.0)[:, 1]
    found = refine_points(foreground, features, **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    turned = refine_points(foreground[:, None], features, **options)
    np.testing.assert_array_equal(turned, found[:, None])
    mask = refine_points(foreground > 0.4, features, sigmas=SIGMAS)
    assert (mask.dtype, mask.shape) == (bool, (N,))
    levels = refine_points((foreground > 0.4) * np.uint8(255), features, **options)
    assert set(np.unique(levels)) <= {0, 255}


def test_options_reach_the_model(probs, features):
    plain = refine_points(probs, features, sigmas=SIGMAS)
    for options in (
        {"iterations": 1},
        {"tolerance": 0.1},
        {"solver": FrankWolfe("euclidean")},
        {"accuracy": "fine"},
        {"compatibility": np.array([0.1, 2.0, 1.0, 1.0])},
        {"weight": 2.0},
    ):
        other = refine_points(probs, features, **({"sigmas": SIGMAS} | options))
        assert np.abs(other - plain).max() > 1e-3, options
    np.testing.assert_allclose(
        refine_points(probs, features, sigmas=SIGMAS, iterations=0), probs, atol=2e-5
    )
    np.testing.assert_array_equal(refine_points(probs, features, sigmas=SIGMAS, threads=5), plain)


def test_any_strides_will_do(probs, features):
    expected = refine_points(probs, features, sigmas=SIGMAS)
    found = refine_points(np.asfortranarray(probs), np.asfortranarray(features), sigmas=SIGMAS)
    np.testing.assert_array_equal(found, expected)
    lists = refine_points(probs.tolist(), features.tolist(), sigmas=list(SIGMAS))
    np.testing.assert_allclose(lists, expected, rtol=0, atol=1e-6)


RNG = np.random.default_rng(5)
POINTS = RNG.normal(size=(N, 3))
PROBS = RNG.dirichlet(np.ones(C), N)
LABELS = PROBS.argmax(1)
TERM = Features(POINTS)
BAD = [
    case("no sigmas", lambda: refine_points(PROBS, POINTS), ValueError,
         "[refine_points] sigmas is None; expected one positive number, or one per feature"),
    case("too many sigmas", lambda: refine_points(PROBS, POINTS, sigmas=(1, 2)), ValueError,
         "[refine_points] Features sigmas has 2 entries; expected one number, or 3, one per feat"),
    case("a negative sigma", lambda: refine_points(PROBS, POINTS, sigmas=(1, -2, 3)), ValueError,
         "[refine_points] sigmas[1] is -2; expected a positive finite number"),
    case("weight", lambda: refine_points(PROBS, POINTS, sigmas=1, weight=-1), ValueError,
         "[refine_points] weight is -1; expected a finite number of at least 0"),
    case("sigmas beside terms", lambda: refine_points(PROBS, [TERM], sigmas=1), ValueError,
         "[refine_points] sigmas is 1 but features are terms, which have sigmas of their own"),
    case("weight beside terms", lambda: refine_points(PROBS, [TERM], weight=1), ValueError,
         "[refine_points] weight is 1 but features are terms, which have weight of their own"),
    case("a term in no list", lambda: refine_points(PROBS, TERM), TypeError,
         "expected an (N, d) array, or a list of Features terms"),
    case("a term of grids", lambda: refine_points(PROBS, [TERM, Gaussian()]), TypeError,
         "expected an (N, d) array, or a list of Features terms"),
    case("turned", lambda: refine_points(PROBS.T, POINTS, sigmas=1), ValueError,
         "[refine_points] x has shape (4, 60) but features are of 60 points; expected (60, C): x"),
    case("fewer", lambda: refine_points(LABELS[1:], POINTS, sigmas=1), ValueError,
         "[refine_points] x has shape (59,) but features are of 60 points; expected 60 of them"),
    case("an image", lambda: refine_points(PROBS[None], POINTS, sigmas=1), ValueError,
         "[refine_points] x has shape (1, 60, 4) and kind 'probs'; expected (N, C)"),
    case("labels with an axis", lambda: refine_points(LABELS[:, None], POINTS, sigmas=1),
         ValueError, "[refine_points] x has shape (60, 1) and kind 'labels'; expected (N,)"),
    case("one foreground", lambda: refine_points(PROBS[:, 0], POINTS, sigmas=1), ValueError,
         "[refine_points] x has shape (60,) and kind 'probs'; expected (N, C)", "kind='mask'"),
    case("features of a grid", lambda: refine_points(PROBS, POINTS.reshape(6, 10, 3), sigmas=1),
         ValueError, "[refine_points] features has shape (6, 10, 3); expected (60, 3)"),
    case("flat features", lambda: refine_points(PROBS, POINTS[:, 0], sigmas=1), ValueError,
         "features has shape (60,); expected (N, d)"),
    case("nan in features", lambda: refine_points(PROBS, put(POINTS, (3, 1), np.nan), sigmas=1),
         ValueError, "[refine_points] feature 1 is nan at point 3; expected finite values"),
    case("nan in x", lambda: refine_points(put(PROBS, (3, 1), np.nan), POINTS, sigmas=1),
         ValueError, "[refine_points] x has nan at label 1, point 3"),
    case("sums", lambda: refine_points(put(PROBS, (3, 1), 5), POINTS, sigmas=1), ValueError,
         "[refine_points] x sums to", "at point 3", "kind='logits'"),
    case("logits in no kind", lambda: refine_points(np.log(PROBS), POINTS, sigmas=1), ValueError,
         "[refine_points] x holds log-probabilities", "pass kind='logits'"),
    case("labels", lambda: refine_points(put(LABELS, 5, -1), POINTS, sigmas=1), ValueError,
         "[refine_points] x has label -1 at", "ignore_index=-1"),
    case("no points", lambda: refine_points(PROBS[:0], POINTS[:0], sigmas=1), ValueError,
         "features is empty (shape (0, 3))"),
    case("memory", lambda: refine_points(giant((10**11, 3)), giant((10**11, 3)), sigmas=1),
         MemoryError, "[refine_points] x of shape (100000000000, 3) with 3 labels and 1 kernel"),
    case("kind", lambda: refine_points(PROBS, POINTS, sigmas=1, kind="points"), ValueError,
         "[refine_points] kind is 'points'; expected 'auto', 'probs', 'logits', 'scores', "),
    case("iterations", lambda: refine_points(PROBS, POINTS, sigmas=1, iterations=-1), ValueError,
         "[refine_points] iterations is -1; expected an integer of at least 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "fragments"), BAD)
def test_bad_input_is_named(call, error, fragments):
    assert_named(call, error, fragments)


def test_its_defaults_are_those_of_refine():
    ours, theirs = (
        {one.name: one.default for one in inspect.signature(function).parameters.values()}
        for function in (crfseg.refine_points, crfseg.refine)
    )
    del ours["x"], theirs["x"]
    shared = ours.keys() & theirs.keys()
    assert {"iterations", "normalization", "confidence", "returns"} <= shared
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
