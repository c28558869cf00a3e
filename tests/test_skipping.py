# SPDX-License-Identifier: MIT
"""Leaving labels out at points where they have next to no mass changes next to nothing.

What is promised against the evaluation of every label at every point: no marginal off by more than
5e-4, 1e-5 in the mean, and the same label at 99.99 % of the points. Labels are left out in groups
of 16 (csrc/cpu/slab_field.h), so that only more than 16 of them can be; with a tolerance that is
never met, inference takes another path through the library, on which nothing is ever left out.
"""

import re
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bad_input import put
from crfseg import CUSTOMARY, Bilateral, DenseCRF, Features, Gaussian, refine, unary_from_probs
from native import ISAS, crf_of, instruction_set, terms_of
from photos import photo_problem, recorded_problem
from reference import NORMALIZATIONS, mean_field
from strategies import Array, Problem, problems

LARGEST, MEAN, LABELS = 5e-4, 1e-5, 0.9999
TOLERANCE = 1e-5  # of a point's mass, for each group left out (csrc/cpu/slab_field.h)
TOGETHER = 10 * TOLERANCE
GROUP = 16
UNMET = 1e-30  # a tolerance for which every point has to be watched


def assert_close(found: Array, full: Array) -> None:
    """Marginals (C, *spatial) within what is promised."""
    off = np.abs(found.astype(np.float64) - full)
    assert off.max() <= LARGEST
    assert off.mean() <= MEAN
    assert (found.argmax(axis=0) == full.argmax(axis=0)).mean() >= LABELS


def assert_skips(crf: DenseCRF, iterations: int = 10, *, most: float) -> None:
    """Close to full evaluation, with at most ``most`` of its evaluations."""
    watched = crf.infer(iterations, tolerance=UNMET)
    full = crf.infer(iterations, skip=False)
    found = crf.infer(iterations)
    assert watched.evaluations == watched.iterations
    assert full.evaluations == iterations
    assert found.evaluations <= most * (iterations - 1) + 1  # all in the last one
    np.testing.assert_allclose(full.q, watched.q, rtol=0, atol=1e-5)
    assert_close(found.q, full.q)


def confident(n_labels: int, size: int, rng: np.random.Generator) -> Array:
    """(C, size, size) energies of a map of squares, sure of itself but for a little noise."""
    odds = 7 + np.log(n_labels)
    labels = rng.integers(0, n_labels, (size // 16, size // 16)).repeat(16, 0).repeat(16, 1)
    energies = np.where(labels == np.arange(n_labels)[:, None, None], 0.0, odds)
    return (energies + rng.normal(scale=0.5, size=energies.shape)).astype(np.float32)


@lru_cache
def generated(n_labels: int, size: int = 96) -> tuple[Array, Array]:
    """Confident energies, and an image (size, size, 3) of other squares with a little noise."""
    rng = np.random.default_rng(n_labels)
    colours = rng.integers(0, 200, (size // 8, size // 8, 3)).repeat(8, 0).repeat(8, 1)
    image = (colours + rng.integers(0, 30, colours.shape)).astype(np.uint8)
    return confident(n_labels, size, rng), image


# --- full evaluation ------------------------------------------------------------------------------


@given(problems(), st.integers(0, 8))
def test_full_evaluation_is_the_reference_s_mean_field(problem: Problem, iterations: int):
    expected = mean_field(problem.unary, terms_of(problem), iterations).qs[-1]
    found = crf_of(problem).infer(iterations, skip=False)
    np.testing.assert_allclose(found.q, expected, rtol=0, atol=1e-5)
    assert found.evaluations == iterations


@pytest.mark.parametrize("n_labels", [5, 40])
def test_what_watches_every_point_evaluates_every_label(n_labels: int):
    energies, image = generated(n_labels)
    crf = DenseCRF(energies, [Gaussian(), Bilateral(image)])
    start = crf.infer(0).q
    for options in ({"trace": True}, {"tolerance": UNMET}, {"solver": "damped"}, {"start": start}):
        assert crf.infer(5, **options).evaluations == 5


@pytest.mark.parametrize("mu", [1 - np.eye(40), np.linspace(-1, 1, 40)], ids=["matrix", "vector"])
def test_messages_that_repel_leave_nothing_out(mu: Array):
    energies, image = generated(40, 48)
    crf = DenseCRF(energies, [Gaussian(), Bilateral(image)], compatibility=mu)
    found = crf.infer(5)
    assert found.evaluations == 5
    np.testing.assert_array_equal(found.q, crf.infer(5, tolerance=UNMET).q)


@pytest.mark.parametrize("weight", [5.0, 60.0, 200.0, 5000.0])
def test_messages_of_any_size(weight: float):
    """Where exponents would overflow, everything is evaluated in the usual way."""
    energies, image = generated(40)
    crf = DenseCRF(energies, [Gaussian(weight=weight), Bilateral(image, weight=2 * weight)])
    found, watched = crf.infer(10), crf.infer(10, tolerance=UNMET)
    assert np.isfinite(found.q).all()
    assert_close(found.q, watched.q)
    assert (found.evaluations == 10) == (weight > 30)


@pytest.mark.parametrize("weight", [30.0, 38.0, 60.0])
def test_a_point_that_is_sure_is_not_outvoted(weight: float):
    """Messages must not lift what p is held to be at least to something that counts."""
    energies = np.full((3, 64, 64), 50, np.float32)
    energies[1] = 0
    energies[:, 32, 32] = 0, 100, 100
    crf = DenseCRF(energies, [Gaussian(5.0, weight)])
    expected = crf.infer(5, tolerance=UNMET).q
    for skip in (True, False):
        np.testing.assert_allclose(crf.infer(5, skip=skip).q, expected, rtol=0, atol=1e-5)


# --- what is promised -----------------------------------------------------------------------------


@given(problems(max_points=300), st.integers(0, 15))
def test_small_problems_of_every_kind(problem: Problem, iterations: int):
    """So few points that the mean is no more than one of them."""
    crf = crf_of(problem)
    full = crf.infer(iterations, tolerance=UNMET).q
    np.testing.assert_allclose(crf.infer(iterations).q, full, rtol=0, atol=LARGEST)


@pytest.mark.parametrize("n_labels", [2, 3, 5, 16, 17, 21, 33, 40, 150])
@pytest.mark.parametrize("compatibility", ["potts", "vector"])
def test_confident_maps_of_any_number_of_labels(compatibility: str, n_labels: int):
    energies, image = generated(n_labels, 64)
    mu = np.random.default_rng(n_labels).uniform(0.3, 1.0, n_labels)
    crf = DenseCRF(
        energies,
        [Gaussian(), Bilateral(image)],
        compatibility=None if compatibility == "potts" else mu,
    )
    groups = -(-n_labels // GROUP)
    assert_skips(crf, most=1 if groups < 3 else 0.9 if groups < 9 else 0.5)


@pytest.mark.parametrize("accuracy", ["fast", "fine"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_confident_maps_of_any_normalization(normalization: str, accuracy: str):
    energies, image = generated(40, 64)
    weight = 0.03 if normalization == "none" else 3.0
    terms = [Gaussian(weight=weight), Bilateral(image, weight=3 * weight)]
    crf = DenseCRF(energies, terms, normalization=normalization, accuracy=accuracy)
    assert_skips(crf, most=1 if normalization == "none" else 0.9)


@pytest.mark.parametrize("iterations", [1, 2, 3, 10, 24, 30, 50])
def test_any_number_of_iterations(iterations: int):
    """Differences do not add up: nothing is carried over from one iteration to the next."""
    image, probs = recorded_problem("astronaut")
    wide = np.concatenate((probs, np.full((32, *probs.shape[1:]), 1e-4, np.float32)))
    crf = DenseCRF(unary_from_probs(wide / wide.sum(axis=0)), [Gaussian(), Bilateral(image)])
    assert_skips(crf, iterations, most=0.8)


@pytest.mark.parametrize("parameters", [(3, 3, 80, 13, 10), (3, 3, 50, 5, 10), (1, 3, 67, 3, 4)])
@pytest.mark.parametrize("n_labels", [2, 5, 21, 40])
@pytest.mark.parametrize("name", ["astronaut", "coffee", "rocket"])
def test_photographs(name: str, n_labels: int, parameters: tuple[float, ...]):
    sigma, weight, *bilateral = parameters
    image, probs = photo_problem(name, 120, 160, n_labels, seed=n_labels)
    options: dict[str, Any] = {"spatial": (sigma, weight), "bilateral": tuple(bilateral)}
    full = refine(probs, image, tolerance=UNMET, **options)
    assert_close(refine(probs, image, **options), full)
    labels = refine(probs, image, returns="labels", **options)
    assert (labels == full.argmax(axis=0)).mean() >= LABELS


@pytest.mark.parametrize("n_labels", [2, 5, 21])
@pytest.mark.parametrize("what", ["uniform", "random"])
def test_probabilities_without_information(what: str, n_labels: int, rng: np.random.Generator):
    image = recorded_problem("coffee")[0]
    probs = np.full((n_labels, *image.shape[:2]), 1 / n_labels, np.float32)
    if what == "random":
        probs = np.moveaxis(rng.dirichlet(np.ones(n_labels), image.shape[:2]), -1, 0)
    off = np.abs(refine(probs, image) - refine(probs, image, tolerance=UNMET))
    assert off.max() <= LARGEST
    assert off.mean() <= MEAN


def test_labels_are_left_out_where_they_are_not():
    """Two halves of an image with 16 labels each, of 64: everywhere the others are left out."""
    rng = np.random.default_rng(5)
    left, right = rng.permutation(64)[:32].reshape(2, 16)
    energies = np.full((64, 64, 256), 30.0, np.float32)
    energies[left, :, :128] = energies[right, :, 128:] = 0
    energies += rng.normal(scale=0.5, size=energies.shape).astype(np.float32)
    found = DenseCRF(energies, [Gaussian()]).infer()
    assert found.evaluations <= 9 * 34 / 64 + 1
    assert (found.q[left, :, :120].sum(axis=0) > 1 - TOLERANCE * 4).all()


def test_many_groups_hold_no_more_together():
    """Each of 250 groups by itself could be left out."""
    probs = np.full((4000, 16, 16), 0.9 * TOLERANCE / GROUP, np.float32)
    probs[0] = 1 - probs[1:].sum(axis=0)
    crf = DenseCRF(-np.log(probs), [Gaussian(weight=0.01)])
    full = crf.infer(2, skip=False).q
    np.testing.assert_allclose(crf.infer(2).q, full, rtol=0, atol=1.1 * TOGETHER)


def test_labels_that_had_no_mass_come_back():
    """A disk sure of one label in a doubtful ring in sure surroundings of another.

    At first the ring takes the side of the disk, which is as good as certain then; a front eats
    through the ring from outside, and at last the disk is outvoted. Stripes of sixteen other labels
    beside it take care that the two are not in one group.
    """
    y, x = np.indices((96, 96)) - 48
    radius = np.hypot(x, y)
    odds = np.where(radius < 6, 7.0, np.where(radius < 16, 0.5, -15.0))
    energies = np.full((18, 96, 96 + 16 * 20), 30.0)
    energies[:2, :, :96] = np.maximum(odds, 0), np.maximum(-odds, 0)
    for stripe in range(16):
        energies[2 + stripe, :, 96 + 20 * stripe :][:, :20] = 0
    crf = DenseCRF(energies.astype(np.float32), [Gaussian(6.0, 30.0)])
    first, last = crf.infer(1).q, crf.infer(20, tolerance=UNMET).q
    assert ((first[0] < TOLERANCE / 10) & (last[0] > 0.9)).sum() > 50
    for iterations in (2, 3, 5, 8, 20):
        assert_skips(crf, iterations, most=1)


def test_other_features_and_grids(rng: np.random.Generator):
    """Points in no order, and a volume."""
    energies = confident(40, 64, rng)
    order = rng.permutation(64 * 64)
    features = np.indices((64, 64), np.float32).reshape(2, -1).T[order] / 3
    shuffled = DenseCRF(energies.reshape(40, -1)[:, order], [Features(features, weight=5)])
    assert_skips(shuffled, most=1)
    volume = energies[:, np.newaxis].repeat(3, axis=1)
    assert_skips(DenseCRF(volume, [Gaussian(2.0, 5.0)]), most=1)


# --- whatever labels are read from ----------------------------------------------------------------


@pytest.mark.parametrize("n_labels", [3, 7, 16, 21, 40, 70])
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("kind", ["probs", "logits"])
def test_scores_of_any_kind_and_layout(kind: str, layout: str, n_labels: int):
    """Of many labels most are read again from the caller's array, whenever they matter."""
    energies, image = generated(n_labels, 48)
    image = image[:45, :43]  # batches and strips that end early
    x = -energies[:, :45, :43]
    if kind == "probs":
        x = np.exp(x) / np.exp(x).sum(axis=0)
    if layout == "HWC":
        x = np.ascontiguousarray(np.moveaxis(x, 0, -1))
    options: dict[str, Any] = {"kind": kind, "layout": layout, "iterations": 5, "returns": "probs"}
    full = refine(x, image, tolerance=UNMET, **options)
    axis = 0 if layout == "CHW" else -1
    for skip in (True, False):
        found = refine(x, image, skip=skip, **options)
        np.testing.assert_allclose(found, full, rtol=0, atol=LARGEST if skip else 1e-5)
        labels = refine(x, image, skip=skip, **{**options, "returns": "labels"})
        np.testing.assert_array_equal(labels, found.argmax(axis=axis))


def test_no_marginal_is_nothing():
    """The last iteration evaluates all labels: logarithms may be taken of what comes back."""
    energies, image = generated(40, 48)
    options: dict[str, Any] = {"kind": "logits", "layout": "CHW", **CUSTOMARY}
    found = refine(-energies, image, **options)
    full = refine(-energies, image, tolerance=UNMET, **options)
    np.testing.assert_allclose(found, full, rtol=0, atol=1e-2)
    assert DenseCRF(energies, [Gaussian()]).infer(1).evaluations == 1
    assert refine(-energies, image, returns="probs", **options).min() > 0


@pytest.mark.parametrize("n_labels", [3, 21, 40])
def test_the_order_of_labels_does_not_matter(n_labels: int, rng: np.random.Generator):
    energies, image = generated(n_labels, 48)
    order = rng.permutation(n_labels)
    terms = [Gaussian(), Bilateral(image)]
    found = DenseCRF(energies[order], terms).infer().q
    np.testing.assert_allclose(
        found, DenseCRF(energies, terms).infer().q[order], rtol=0, atol=LARGEST
    )


@pytest.mark.parametrize("n_labels", [5, 40])
def test_of_equal_labels_the_lowest_is_told(n_labels: int):
    probs = np.full((n_labels, 24, 24), 1 / n_labels, np.float32)
    image = np.zeros((24, 24, 3), np.uint8)
    found = refine(probs, image, iterations=1)
    labels = refine(probs, image, iterations=1, returns="labels")
    np.testing.assert_array_equal(labels, found.argmax(axis=0))


@pytest.mark.parametrize("n_labels", [5, 40])
@pytest.mark.parametrize("kind", ["energies", "logits"])
def test_what_is_impossible_stays_so(kind: str, n_labels: int):
    """Forbidden labels have no mass, in whichever group they are; others keep theirs."""
    energies, image = generated(n_labels, 48)
    energies = energies.copy()
    forbidden = [1, n_labels - 2]
    energies[forbidden] = np.inf if kind == "energies" else 1e30
    crf = DenseCRF(energies, [Gaussian(), Bilateral(image)])
    found = crf.infer()
    assert not found.q[forbidden].any()
    assert_close(found.q, crf.infer(tolerance=UNMET).q)


# --- the same whatever it runs on -----------------------------------------------------------------


def outcomes(threads: int, *, skip: bool) -> list[Array]:
    """Q and labels of problems that leave labels out."""
    image, probs = recorded_problem("astronaut")
    energies, squares = generated(40)
    squared = DenseCRF(energies, [Gaussian(), Bilateral(squares)], threads=threads)
    found = squared.infer(10, skip=skip)
    return [
        refine(probs, image, threads=threads, skip=skip),
        refine(probs, image, returns="labels", threads=threads, skip=skip),
        found.q,
        np.array(found.evaluations),
    ]


@pytest.mark.parametrize("skip", [True, False])
def test_number_of_threads_does_not_change_a_bit(skip: bool):
    one = outcomes(1, skip=skip)
    for threads in (2, 3, 8):
        for found, expected in zip(outcomes(threads, skip=skip), one, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("isa", ISAS)
def test_instruction_sets_keep_the_promise(isa: str):
    """Against full evaluation by the first of them."""
    image, probs = recorded_problem("astronaut")
    full = refine(probs, image, skip=False)
    energies, squares = generated(40)
    crf = DenseCRF(energies, [Gaussian(), Bilateral(squares)])
    full_squares = crf.infer(skip=False).q
    with instruction_set(isa):
        assert_close(refine(probs, image), full)
        found = crf.infer()
        assert_close(found.q, full_squares)
        assert found.evaluations < 9


def test_an_inference_leaves_nothing_behind():
    """All ways through the library take turns on one model, and give what they gave at first."""
    energies, image = generated(40)
    crf = DenseCRF(energies, [Gaussian(), Bilateral(image)])
    ways: tuple[dict[str, Any], ...] = ({}, {"skip": False}, {"tolerance": UNMET})
    first = [crf.infer(**way).q for way in ways]
    energy = crf.free_energy(first[-1])
    for _ in range(2):
        for way, expected in zip(ways, first, strict=True):
            np.testing.assert_array_equal(crf.infer(**way).q, expected)
        assert crf.free_energy(first[-1]) == energy


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["probs", "logits"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.5, 2.0])
@pytest.mark.parametrize("returns", ["probs", "labels"])
def test_bad_values_are_named_as_by_full_evaluation(kind: str, value: float, returns: str):
    image, probs = recorded_problem("coffee")
    x = probs if kind == "probs" else np.log(probs)
    expected = refine(x, image, kind=kind, returns=returns)
    spoiled = put(x, (2, 100, 31), value)
    if kind == "logits" and np.isfinite(value):
        refine(spoiled, image, kind=kind, returns=returns)
    else:
        with pytest.raises(ValueError, match=r"^\[refine\] x ") as found:
            refine(spoiled, image, kind=kind, returns=returns, tolerance=UNMET)
        for skip in (True, False):
            with pytest.raises(ValueError, match=re.escape(str(found.value))):
                refine(spoiled, image, kind=kind, returns=returns, skip=skip)
    np.testing.assert_array_equal(refine(x, image, kind=kind, returns=returns), expected)


@pytest.mark.parametrize("skip", [1, 0, "auto", None])
def test_skip_is_a_flag(skip: Any):
    image, probs = recorded_problem("coffee")
    with pytest.raises(TypeError, match=r"^\[refine\] skip "):
        refine(probs, image, skip=skip)
    crf = DenseCRF(unary_from_probs(probs), [Gaussian()])
    with pytest.raises(TypeError, match=r"^\[DenseCRF.infer\] skip "):
        crf.infer(skip=skip)
