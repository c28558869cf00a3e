# SPDX-License-Identifier: MIT
"""Mean-field inference against brute force: tightly on the lattice's own matrix, loosely on the
exact Gaussian; damping, early stop, step-by-step use, self terms, degenerate problems."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crfseg import DenseCRF, Features, MeanField
from crfseg.lattice import ACCURACIES
from native import ISAS, crf_of, instruction_set, lattice_matrix, terms_of
from reference import (
    NORMALIZATIONS,
    Term,
    compatibility_matrix,
    gaussian_kernel,
    mean_field,
    normalize,
    softmax,
)
from strategies import SEEDS, Array, Problem, problems

# Energies here are below about 20, where a float32 ulp is 2e-6; a few of them get into Z in every
# iteration, and softmax has slope at most 1/4. Amplification over iterations is small for the
# weights that ``problems`` draws.
TIGHT = 1e-5


@given(problems(), st.integers(0, 6))
def test_mean_field_is_the_reference_s(problem: Problem, iterations: int) -> None:
    found = crf_of(problem).infer(iterations)
    expected = mean_field(problem.unary, terms_of(problem), iterations).qs[-1]
    assert found.iterations == iterations
    assert found.q.shape == problem.unary.shape
    assert found.q.dtype == np.float32
    np.testing.assert_allclose(found.q, expected, rtol=0, atol=TIGHT)
    np.testing.assert_allclose(found.q.sum(axis=0), 1, rtol=0, atol=1e-6)


@given(problems(max_dim=4, max_points=25))
def test_fine_is_the_same_mean_field_on_finer_lattices(problem: Problem) -> None:
    expected = mean_field(problem.unary, terms_of(problem, **ACCURACIES["fine"]._asdict()), 3)
    found = crf_of(problem, accuracy="fine").infer(3).q
    np.testing.assert_allclose(found, expected.qs[-1], rtol=0, atol=TIGHT)


@given(problems(), st.sampled_from([0.1, 0.5, 0.9]))
def test_damping_acts_in_log_space(problem: Problem, damping: float) -> None:
    found = crf_of(problem).infer(5, solver=MeanField(damping)).q
    expected = mean_field(problem.unary, terms_of(problem), 5, damping=damping).qs[-1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=TIGHT)


@given(problems(), SEEDS)
def test_inference_goes_on_from_a_given_start(problem: Problem, seed: int) -> None:
    start = softmax(np.random.default_rng(seed).normal(size=problem.unary.shape))
    start = start.astype(np.float32)
    for damping in (0.0, 0.5):
        found = crf_of(problem).infer(3, start=start, solver=MeanField(damping)).q
        expected = mean_field(
            problem.unary, terms_of(problem), 3, damping=damping, start=start.astype(np.float64)
        ).qs[-1]
        np.testing.assert_allclose(found, expected, rtol=0, atol=TIGHT)


@given(problems(), st.sampled_from([0.0, 0.5]))
def test_steps_make_an_inference(problem: Problem, damping: float) -> None:
    """Z of a step is log Q: the Z of inference but for a constant, which softmax ignores."""
    crf, solver = crf_of(problem), MeanField(damping)
    q = crf.infer(0).q
    for iterations in range(1, 4):
        q = crf.step(q, solver=solver)
        np.testing.assert_allclose(q, crf.infer(iterations, solver=solver).q, rtol=0, atol=TIGHT)


@given(problems())
def test_no_iterations_give_softmax_of_minus_unary(problem: Problem) -> None:
    np.testing.assert_allclose(
        crf_of(problem).infer(0).q, softmax(-problem.unary.astype(np.float64)), rtol=1e-5, atol=1e-7
    )


@given(problems())
def test_self_term_is_the_diagonal_of_the_normalised_kernel(problem: Problem) -> None:
    """With and without it, one after the other, on the same lattice."""
    for exclude_self in (True, False):
        one = replace(problem, exclude_self=exclude_self)
        expected = mean_field(one.unary, terms_of(one), 3).qs[-1]
        np.testing.assert_allclose(crf_of(one).infer(3).q, expected, rtol=0, atol=TIGHT)


def smooth_problem(dim: int, normalization: str) -> tuple[Array, Array, float]:
    """600 points, unary that varies smoothly over feature space, weight that matters."""
    rng = np.random.default_rng(dim)
    features = rng.normal(size=(600, dim)).astype(np.float32)
    directions = rng.normal(size=(dim, 4))
    unary = (features @ directions + rng.normal(size=(600, 4))).T.astype(np.float32)
    weight = 3.0 if normalization != "none" else 0.03
    return unary, features, weight


@pytest.mark.parametrize("normalization", ["before", "after", "symmetric"])
@pytest.mark.parametrize(("dim", "bound"), [(1, 0.003), (2, 0.005), (3, 0.005), (5, 0.01)])
def test_mean_field_is_near_the_exact_model(dim: int, bound: float, normalization: str) -> None:
    """Mean |dQ| against exact Gaussian kernels.

    A filter error of relative size e moves Z by up to weight * e and Q by at most a quarter of
    that: 0.75 e of sums that are themselves below 1; e is 0.01 for d <= 2 and up to 0.04 for d = 5
    (test_filter). The mean over labels and points is a few times smaller, iterations add up.
    """
    unary, features, weight = smooth_problem(dim, normalization)
    kernel = normalize(gaussian_kernel(features), normalization)
    exact = mean_field(unary, [Term(kernel, weight, compatibility_matrix(None, 4))], 5).qs[-1]
    crf = DenseCRF(unary, [Features(features, weight=weight)], normalization=normalization)
    q = crf.infer(5).q
    assert np.abs(q - exact).mean() <= bound
    # The unary alone is much further away: the comparison above is not one of nothing happening.
    assert np.abs(softmax(-unary) - exact).mean() >= 4 * bound


@given(problems(), st.sampled_from([1e-2, 1e-4]))
def test_tolerance_stops_at_the_first_small_change(problem: Problem, tolerance: float) -> None:
    crf = crf_of(problem)
    solver = "damped"  # a matrix that repels may oscillate for ever without
    found = crf.infer(200, tolerance=tolerance, solver=solver)
    # Stopping is the only thing that tolerance does: the same iterations give the same bits.
    again = crf.infer(found.iterations, solver=solver).q
    np.testing.assert_array_equal(found.q, again)
    if found.converged:
        assert found.max_change < tolerance
    else:
        assert found.iterations == 200
    qs = [crf.infer(i, solver=solver).q for i in range(min(found.iterations, 12) + 1)]
    changes = [float(np.abs(b - a).max()) for a, b in pairwise(qs)]
    if found.iterations <= 12:
        assert changes[-1] == pytest.approx(found.max_change, abs=1e-7)
        changes = changes[:-1]
    assert all(change >= tolerance for change in changes)


def test_zero_tolerance_never_stops_early() -> None:
    """Not even where nothing changes any more."""
    crf = DenseCRF(np.zeros((2, 9), np.float32), [Features(np.zeros((9, 2), np.float32))])
    found = crf.infer(25)
    assert found.iterations == 25
    assert not found.converged
    assert crf.infer(25, tolerance=1e-6).iterations == 1


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_uniform_unary_stays_uniform_under_potts(normalization: str) -> None:
    """No label is preferred anywhere: every label gets the same message, whatever the kernel."""
    features = np.random.default_rng(3).normal(size=(80, 3)).astype(np.float32)
    crf = DenseCRF(
        np.full((5, 80), 1.7, np.float32),
        [Features(features, weight=2.0)],
        normalization=normalization,
    )
    np.testing.assert_allclose(crf.infer(10).q, 0.2, rtol=0, atol=1e-6)


@given(problems(), SEEDS)
def test_a_constant_per_point_in_the_unary_changes_nothing(problem: Problem, seed: int) -> None:
    shift = np.random.default_rng(seed).uniform(-4, 4, problem.unary.shape[1])
    shifted = replace(problem, unary=(problem.unary + shift).astype(np.float32))
    np.testing.assert_allclose(
        crf_of(shifted).infer(4).q, crf_of(problem).infer(4).q, rtol=0, atol=TIGHT
    )


@given(problems(), SEEDS)
def test_order_of_points_does_not_matter(problem: Problem, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(problem.unary.shape[1])
    permuted = replace(
        problem, unary=problem.unary[:, order], features=tuple(f[order] for f in problem.features)
    )
    np.testing.assert_allclose(
        crf_of(permuted).infer(4).q, crf_of(problem).infer(4).q[:, order], rtol=0, atol=TIGHT
    )


def test_one_label_is_certain() -> None:
    features = np.random.default_rng(4).normal(size=(30, 2)).astype(np.float32)
    crf = DenseCRF(
        np.random.default_rng(5).normal(size=(1, 30)).astype(np.float32), [Features(features)]
    )
    np.testing.assert_array_equal(crf.infer(5).q, np.ones((1, 30), np.float32))


def test_a_forbidden_label_never_comes_back() -> None:
    """+inf in the unary is probability zero, in every iteration, with damping or without."""
    rng = np.random.default_rng(6)
    unary = rng.normal(size=(3, 60)).astype(np.float32)
    forbidden = rng.uniform(size=(3, 60)) < 0.3
    forbidden[:, forbidden.all(axis=0)] = False
    unary[forbidden] = np.inf
    features = rng.normal(size=(60, 2)).astype(np.float32)
    crf = DenseCRF(unary, [Features(features, weight=3.0)])
    kernel = normalize(lattice_matrix(features), "symmetric")
    terms = [Term(kernel, 3.0, compatibility_matrix(None, 3))]
    for damping in (0.0, 0.5):
        q = crf.infer(5, solver=MeanField(damping)).q
        assert np.all(q[forbidden] == 0)
        expected = mean_field(unary, terms, 5, damping=damping).qs[-1]
        np.testing.assert_allclose(q, expected, rtol=0, atol=TIGHT)


def test_energies_of_hundreds_do_not_overflow() -> None:
    """Unnormalised sums of many points: softmax must take the maximum off before exp."""
    rng = np.random.default_rng(7)
    features = np.zeros((400, 2), np.float32)
    unary = (300 * rng.normal(size=(4, 400))).astype(np.float32)
    q = DenseCRF(unary, [Features(features, weight=5.0)], normalization="none").infer(5).q
    assert np.isfinite(q).all()
    np.testing.assert_allclose(q.sum(axis=0), 1, rtol=0, atol=1e-6)


def test_no_pairwise_terms_leave_the_unary() -> None:
    unary = np.random.default_rng(8).normal(size=(4, 6, 5)).astype(np.float32)
    found = DenseCRF(unary, []).infer(5)
    np.testing.assert_allclose(found.q, softmax(-unary), rtol=0, atol=1e-6)
    assert found.q.shape == (4, 6, 5)


@pytest.mark.parametrize("n_labels", [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 21, 32, 33, 64, 150, 257])
@pytest.mark.parametrize("isa", ISAS)
def test_any_number_of_labels(isa: str, n_labels: int) -> None:
    """Kernels work on groups of labels: each remainder has its own last group."""
    rng = np.random.default_rng(n_labels)
    features = rng.normal(size=(90, 3)).astype(np.float32)
    unary = rng.normal(scale=2, size=(n_labels, 90)).astype(np.float32)
    kernel = normalize(lattice_matrix(features), "symmetric")
    expected = mean_field(unary, [Term(kernel, 2.0, compatibility_matrix(None, n_labels))], 4).qs[
        -1
    ]
    with instruction_set(isa):
        found = DenseCRF(unary, [Features(features, weight=2.0)]).infer(4).q
    np.testing.assert_allclose(found, expected, rtol=0, atol=TIGHT)


def test_a_common_offset_of_the_energies_changes_nothing() -> None:
    """Messages must not drown in it: 2^20 leaves energies of multiples of 1/8 exact in float32."""
    rng = np.random.default_rng(5)
    unary = rng.integers(0, 40, (4, 60)) / 8.0
    features = [Features(rng.normal(size=(60, 2)), weight=2.0)]
    near = DenseCRF(unary, features)
    far = DenseCRF(unary + 2.0**20, features)
    q = near.infer(5).q
    np.testing.assert_array_equal(far.infer(5).q, q)
    # The sum of offsets is 6e7, of which a double resolves 1e-8.
    assert far.free_energy(q) == pytest.approx(near.free_energy(q) + 60 * 2.0**20, abs=1e-4)


def test_no_iteration_is_no_convergence() -> None:
    found = DenseCRF(np.zeros((2, 4)), []).infer(0, tolerance=1e-3)
    assert np.isnan(found.max_change)
    assert not found.converged


def test_damping_that_float32_takes_for_1_is_refused() -> None:
    """With it nothing would ever move, and look converged."""
    with pytest.raises(ValueError, match="damping"):
        DenseCRF(np.zeros((2, 4)), []).infer(2, solver=MeanField(1.0 - 1e-9))


def test_strides_that_are_no_whole_floats_are_read_right() -> None:
    """A float32 field of packed records: five bytes from one value to the next."""
    rng = np.random.default_rng(6)
    unary = rng.random((3, 50)).astype(np.float32)
    records = np.zeros(unary.shape, dtype=[("mark", "u1"), ("value", "<f4")])
    records["value"] = unary
    terms = [Features(rng.normal(size=(50, 2)))]
    expected = DenseCRF(unary, terms).infer(3).q
    np.testing.assert_array_equal(DenseCRF(records["value"], terms).infer(3).q, expected)
