# SPDX-License-Identifier: MIT
"""Skipping: leaving points alone whose marginals cannot have moved changes next to nothing.

What is promised after ten iterations, forced or not, against the evaluation of every point in every
iteration: no marginal off by more than 5e-4, 1e-5 in the mean, and the same label at 99.99 % of the
points.
"""

import re
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bad_input import put
from crfseg import Bilateral, DenseCRF, Features, Gaussian, refine, unary_from_probs
from native import ISAS, crf_of, instruction_set, terms_of
from photos import photo_problem, recorded_problem
from reference import NORMALIZATIONS, mean_field, softmax
from strategies import SEEDS, Array, Problem, problems

LARGEST, MEAN, LABELS = 5e-4, 1e-5, 0.9999
TOLERANCE = 1e-5  # what a point that is left alone may be off by (csrc/cpu/skipping.h)
CONFIDENT_LABELS = 21  # photographs' probabilities of more labels leave "auto" little to skip
SKIPS: tuple[Any, ...] = ("auto", True)
COMPATIBILITIES: dict[str, Any] = {
    "potts": lambda n, _: None,
    "vector": lambda n, rng: rng.uniform(0.3, 1.0, n),
    "matrix": lambda n, rng: 1 - np.eye(n) - 0.4 * rng.random((n, n)),
}


def assert_close(found: Array, full: Array) -> None:
    """Marginals (C, *spatial) within what is promised."""
    off = np.abs(found.astype(np.float64) - full)
    assert off.max() <= LARGEST
    assert off.mean() <= MEAN
    assert (found.argmax(axis=0) == full.argmax(axis=0)).mean() >= LABELS


def assert_skips(crf: DenseCRF, iterations: int = 10, *, most: float) -> None:
    """Close to full evaluation, with at most ``most`` of its evaluations where forced to skip."""
    full = crf.infer(iterations, skip=False)
    assert full.evaluations == iterations
    for skip in SKIPS:
        found = crf.infer(iterations, skip=skip)
        assert_close(found.q, full.q)
        assert found.evaluations <= iterations
        if skip is True:
            assert found.evaluations <= most * iterations


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


# --- what a point may spare, by itself ------------------------------------------------------------


def logit(p: Array) -> Array:
    return np.log(p) - np.log1p(-p)


def limit_of(q: Array) -> Array:
    """(N,) how far messages of a (C, N) marginal may move, as csrc/cpu/kernels/skipping.cpp has."""
    rest = np.clip(1 - q.max(axis=0), 1.2e-7, 0.5)
    return logit(rest + TOLERANCE) - logit(rest)


def moved_by(q: Array, messages: Array) -> Array:
    """(C, N) marginals after ``messages`` have been added to their logarithms."""
    return softmax(np.log(q) + messages)


@given(SEEDS, st.sampled_from([2, 3, 5, 21]), st.floats(0.05, 20))
def test_messages_of_a_range_move_log_odds_by_no_more(seed: int, n_labels: int, scale: float):
    """For every label against all others together; written so that nothing cancels."""
    rng = np.random.default_rng(seed)
    others = 1 - np.eye(n_labels)
    q = np.exp(rng.normal(scale=4, size=(n_labels, 200)))
    messages = rng.uniform(-scale, scale, q.shape)
    moved = q * np.exp(messages)
    change = np.log(moved / (others @ moved)) - np.log(q / (others @ q))
    assert (np.abs(change) <= np.ptp(messages, axis=0) + 1e-12).all()


@given(SEEDS, st.sampled_from([2, 3, 5, 21]), st.floats(0.01, 3))
def test_a_marginal_within_its_limit_moves_by_no_more_than_the_tolerance(
    seed: int, n_labels: int, spread: float
):
    """Random messages, and the worst there are: all labels of a set up, all others down."""
    rng = np.random.default_rng(seed)
    q = softmax(rng.normal(scale=4 * spread, size=(n_labels, 300)))
    limit = limit_of(q)
    some = rng.random(q.shape) < 0.5
    one = np.arange(n_labels)[:, None] == rng.integers(0, n_labels, q.shape[1])
    best = q == q.max(axis=0)
    for up in (rng.random(q.shape), some, one, best, ~best):
        messages = (up - up.min(axis=0).astype(float)) * limit
        assert np.abs(moved_by(q, messages) - q).max() <= TOLERANCE * (1 + 1e-6)


def test_the_limit_is_reached():
    """Two labels use all of it: nothing is given away."""
    top = np.linspace(0.5, 0.9999, 50)
    q = np.stack((1 - top, top))
    moved = moved_by(q, np.stack((limit_of(q), np.zeros(50))))
    np.testing.assert_allclose(moved[0] - q[0], TOLERANCE, rtol=1e-6)


# --- full evaluation ------------------------------------------------------------------------------


@given(problems(), st.integers(0, 8))
def test_full_evaluation_is_the_reference_s_mean_field(problem: Problem, iterations: int):
    expected = mean_field(problem.unary, terms_of(problem), iterations).qs[-1]
    found = crf_of(problem).infer(iterations, skip=False)
    np.testing.assert_allclose(found.q, expected, rtol=0, atol=1e-5)
    assert found.evaluations == iterations


@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_what_watches_every_point_evaluates_every_point(iterations: int):
    """A trace and a tolerance that is never met see the bits that full evaluation writes."""
    energies, image = generated(5)
    crf = DenseCRF(energies, [Gaussian(), Bilateral(image)])
    full = crf.infer(iterations, skip=False)
    for options in ({"trace": True}, {"tolerance": 1e-30}):
        found = crf.infer(iterations, **options)
        assert found.evaluations == iterations
        np.testing.assert_array_equal(found.q, full.q)


# --- what is promised -----------------------------------------------------------------------------


@given(problems(max_points=300), st.integers(0, 15))
def test_small_problems_of_every_kind(problem: Problem, iterations: int):
    """So few points that the mean is no more than one of them."""
    crf = crf_of(problem)
    full = crf.infer(iterations, skip=False).q
    for skip in SKIPS:
        np.testing.assert_allclose(crf.infer(iterations, skip=skip).q, full, rtol=0, atol=LARGEST)


@pytest.mark.parametrize("n_labels", [2, 3, 5, 21, 40])
@pytest.mark.parametrize("name", COMPATIBILITIES)
def test_confident_maps_of_any_compatibility(name: str, n_labels: int):
    energies, image = generated(n_labels)
    mu = COMPATIBILITIES[name](n_labels, np.random.default_rng(n_labels))
    assert_skips(DenseCRF(energies, [Gaussian(), Bilateral(image)], compatibility=mu), most=0.7)


@pytest.mark.parametrize("accuracy", ["fast", "fine"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_confident_maps_of_any_normalization(normalization: str, accuracy: str):
    energies, image = generated(4, 64)
    weight = 0.03 if normalization == "none" else 3.0
    terms = [Gaussian(weight=weight), Bilateral(image, weight=3 * weight)]
    crf = DenseCRF(energies, terms, normalization=normalization, accuracy=accuracy)
    assert_skips(crf, most=0.7)


@pytest.mark.parametrize("iterations", range(1, 16))
def test_any_number_of_iterations(iterations: int):
    energies, image = generated(5)
    assert_skips(DenseCRF(energies, [Gaussian(), Bilateral(image)]), iterations, most=1)


@pytest.mark.parametrize("parameters", [(3, 3, 80, 13, 10), (3, 3, 50, 5, 10), (1, 3, 67, 3, 4)])
@pytest.mark.parametrize("n_labels", [2, 3, 5, 21, 40])
@pytest.mark.parametrize("name", ["astronaut", "coffee", "rocket"])
def test_photographs(name: str, n_labels: int, parameters: tuple[float, ...]):
    sigma, weight, *bilateral = parameters
    image, probs = photo_problem(name, 120, 160, n_labels, seed=n_labels)
    options: dict[str, Any] = {"spatial": (sigma, weight), "bilateral": tuple(bilateral)}
    full = refine(probs, image, skip=False, **options)
    for skip in SKIPS if n_labels <= CONFIDENT_LABELS else ("auto",):
        assert_close(refine(probs, image, skip=skip, **options), full)
        labels = refine(probs, image, returns="labels", skip=skip, **options)
        assert (labels == full.argmax(axis=0)).mean() >= LABELS


@pytest.mark.parametrize("iterations", [10, 23, 24, 30, 31])
def test_many_iterations_are_skipped_unasked(iterations: int):
    """From 24 to 30, as the documentation says; and labels where nothing else is asked for."""
    image, probs = recorded_problem("astronaut")
    crf = DenseCRF(unary_from_probs(probs), [Gaussian(), Bilateral(image)])
    found, full = crf.infer(iterations), crf.infer(iterations, skip=False)
    assert (found.evaluations < iterations) == (24 <= iterations <= 30)
    assert (found.labels == full.labels).mean() >= LABELS
    labels = refine(probs, image, returns="labels", iterations=iterations)
    assert (labels == full.labels).mean() >= LABELS


@pytest.mark.parametrize("n_labels", [2, 5])
def test_photographs_are_skipped(n_labels: int):
    image, probs = photo_problem("astronaut", 120, 160, n_labels, seed=n_labels)
    assert_skips(DenseCRF(unary_from_probs(probs), [Gaussian(), Bilateral(image)]), most=0.4)


@pytest.mark.parametrize("n_labels", [2, 5, 21])
@pytest.mark.parametrize("what", ["uniform", "random"])
def test_probabilities_without_information(what: str, n_labels: int, rng: np.random.Generator):
    image = recorded_problem("coffee")[0]
    probs = np.full((n_labels, *image.shape[:2]), 1 / n_labels, np.float32)
    if what == "random":
        probs = np.moveaxis(rng.dirichlet(np.ones(n_labels), image.shape[:2]), -1, 0)
    full = refine(probs, image, skip=False)
    for skip in SKIPS:
        found = refine(probs, image, skip=skip)
        off = np.abs(found - full)
        assert off.max() <= LARGEST
        assert off.mean() <= MEAN
        if what == "random":  # else all labels are equally likely, to the last bit or not
            assert (found.argmax(axis=0) == full.argmax(axis=0)).mean() >= LABELS


def test_other_features_and_grids(rng: np.random.Generator):
    """Points in no order, and a volume."""
    energies = confident(3, 64, rng)
    order = rng.permutation(64 * 64)
    features = np.indices((64, 64), np.float32).reshape(2, -1).T[order] / 3
    shuffled = DenseCRF(energies.reshape(3, -1)[:, order], [Features(features, weight=5)])
    assert_skips(shuffled, most=0.7)
    volume = energies[:, np.newaxis].repeat(3, axis=1)
    assert_skips(DenseCRF(volume, [Gaussian(2.0, 5.0)]), most=0.7)


# --- points that have to be woken -----------------------------------------------------------------


def target(size: int = 96) -> Array:
    """Energies of two labels: a disk sure of label 1 in a doubtful ring in sure surroundings of 0.

    At first the ring takes the side of the disk, which is as good as certain then; a front eats
    through the ring from outside, and at last the disk is outvoted.
    """
    y, x = np.indices((size, size)) - size // 2
    radius = np.hypot(x, y)
    odds = np.where(radius < 6, 12.0, np.where(radius < 20, 0.5, -15.0))
    return np.stack((np.maximum(odds, 0), np.maximum(-odds, 0))).astype(np.float32)


STRONG: dict[str, Any] = {"spatial": (6.0, 60.0), "bilateral": None}


@pytest.mark.parametrize("iterations", [3, 4, 5, 6, 10])
def test_points_that_were_certain_are_woken(iterations: int):
    energies = target()
    crf = DenseCRF(energies, [Gaussian(*STRONG["spatial"])])
    middle = (slice(None), 48, 48)
    assert crf.infer(1).q[middle][0] < 1e-9  # dormant
    assert crf.infer(10, skip=False).q[middle][1] < 1e-9
    assert_skips(crf, iterations, most=0.6)


@pytest.mark.parametrize("iterations", [3, 4, 5, 6, 10])
@pytest.mark.parametrize("form", ["planes", "rows"])
def test_points_that_were_certain_are_woken_where_labels_are_asked_for(form: str, iterations: int):
    logits = -target() if form == "planes" else np.ascontiguousarray(np.moveaxis(-target(), 0, -1))
    options: dict[str, Any] = {"kind": "logits", "layout": "CHW" if form == "planes" else "HWC"}
    options |= {**STRONG, "iterations": iterations}
    full = refine(logits, None, returns="labels", skip=False, **options)
    for skip in SKIPS:
        labels = refine(logits, None, returns="labels", skip=skip, **options)
        np.testing.assert_array_equal(labels, full)
        probs = refine(logits, None, returns="probs", skip=skip, **options)
        np.testing.assert_array_equal(probs.argmax(axis=0 if form == "planes" else -1), full)
    if iterations == 10:
        assert not full[40:57, 40:57].any()


# --- the same whatever it runs on -----------------------------------------------------------------


def outcomes(threads: int, skip: Any) -> list[Array]:
    """Q and labels of problems that skip, wake and fall back."""
    image, probs = recorded_problem("astronaut")
    energies, squares = generated(21)
    options: dict[str, Any] = {"threads": threads, "skip": skip}
    strong = {"kind": "logits", "layout": "CHW", **STRONG, **options}
    squared = DenseCRF(energies, [Gaussian(), Bilateral(squares)], threads=threads)
    return [
        refine(probs, image, **options),
        refine(probs, image, returns="labels", **options),
        squared.infer(10, skip=skip).q,
        np.array(squared.infer(10, skip=skip).evaluations),
        refine(-target(), None, returns="probs", **strong),
        refine(-target(), None, returns="labels", **strong),
    ]


@pytest.mark.parametrize("skip", SKIPS)
def test_number_of_threads_does_not_change_a_bit(skip: Any):
    one = outcomes(1, skip)
    for threads in (2, 3, 8):
        for found, expected in zip(outcomes(threads, skip), one, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("isa", ISAS)
def test_instruction_sets_keep_the_promise(isa: str):
    """Against full evaluation by the first of them."""
    image, probs = recorded_problem("astronaut")
    full = refine(probs, image, skip=False)
    energies, squares = generated(21)
    crf = DenseCRF(energies, [Gaussian(), Bilateral(squares)])
    full_squares = crf.infer(skip=False).q
    with instruction_set(isa):
        for skip in SKIPS:
            assert_close(refine(probs, image, skip=skip), full)
            assert_close(crf.infer(skip=skip).q, full_squares)
        assert crf.infer(skip=True).evaluations < 7


def test_an_inference_leaves_nothing_behind():
    """Full evaluation and skipping take turns on one model, and give what they gave at first."""
    energies, image = generated(5)
    crf = DenseCRF(energies, [Gaussian(), Bilateral(image)])
    kinds = (*SKIPS, False)
    first = [crf.infer(skip=skip).q for skip in kinds]
    energy = crf.free_energy(first[-1])
    for _ in range(2):
        for skip, expected in zip(kinds, first, strict=True):
            np.testing.assert_array_equal(crf.infer(skip=skip).q, expected)
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
            refine(spoiled, image, kind=kind, returns=returns, skip=False)
        for skip in SKIPS:
            with pytest.raises(ValueError, match=re.escape(str(found.value))):
                refine(spoiled, image, kind=kind, returns=returns, skip=skip)
    np.testing.assert_array_equal(refine(x, image, kind=kind, returns=returns), expected)


@pytest.mark.parametrize("skip", [1, 0, "yes", None])
def test_skip_is_one_of_three(skip: Any):
    image, probs = recorded_problem("coffee")
    with pytest.raises(ValueError, match=r"^\[refine\] skip is .* expected 'auto', True or False"):
        refine(probs, image, skip=skip)
    crf = DenseCRF(unary_from_probs(probs), [Gaussian()])
    with pytest.raises(ValueError, match=r"^\[DenseCRF.infer\] skip is "):
        crf.infer(skip=skip)
