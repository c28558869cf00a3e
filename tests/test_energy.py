# SPDX-License-Identifier: MIT
"""Energies: of one labelling, the mean-field free energy, its trace, and where it must not rise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crfseg import DenseCRF, Features, MeanField
from native import crf_of, terms_of
from reference import (
    Term,
    compatibility_matrix,
    energy,
    expected_energy,
    free_energy,
    gaussian_kernel,
    mean_field,
    normalize,
    softmax,
)
from strategies import SEEDS, Array, Problem, problems

# Sums of a few hundred float32 products: relative to the sum of their sizes, see ``scale``.
RTOL = 2e-6


def scale(problem: Problem) -> float:
    weights = sum(
        weight * np.abs(term.kernel).sum() * np.abs(term.mu).max()
        for weight, term in zip(problem.weights, terms_of(problem), strict=True)
    )
    return float(np.abs(problem.unary).sum() + weights + problem.unary.shape[1])


@given(problems(), SEEDS)
def test_free_energy_is_the_reference_s(problem: Problem, seed: int) -> None:
    """Any Q, not only one that inference passes through; the 1/2 is on the pairwise term."""
    q = softmax(np.random.default_rng(seed).normal(size=problem.unary.shape)).astype(np.float32)
    expected = free_energy(problem.unary, terms_of(problem), q.astype(np.float64))
    assert crf_of(problem).free_energy(q) == pytest.approx(expected, abs=RTOL * scale(problem))


@given(problems(), SEEDS)
def test_expected_energy_is_the_reference_s(problem: Problem, seed: int) -> None:
    q = softmax(np.random.default_rng(seed).normal(size=problem.unary.shape)).astype(np.float32)
    expected = expected_energy(problem.unary, terms_of(problem), q.astype(np.float64))
    assert crf_of(problem).expected_energy(q) == pytest.approx(expected, abs=RTOL * scale(problem))


@given(problems(), SEEDS)
def test_energy_of_a_labelling_is_the_reference_s(problem: Problem, seed: int) -> None:
    n_labels, n_points = problem.unary.shape
    labels = np.random.default_rng(seed).integers(n_labels, size=n_points)
    expected = energy(problem.unary, terms_of(problem), labels)
    assert crf_of(problem).energy(labels) == pytest.approx(expected, abs=RTOL * scale(problem))


@given(problems(), SEEDS)
def test_energy_is_the_free_energy_of_certainty(problem: Problem, seed: int) -> None:
    """A one-hot Q has no entropy: both functionals agree there."""
    n_labels, n_points = problem.unary.shape
    labels = np.random.default_rng(seed).integers(n_labels, size=n_points)
    one_hot = (np.arange(n_labels)[:, None] == labels).astype(np.float32)
    crf = crf_of(problem)
    assert crf.energy(labels) == pytest.approx(crf.free_energy(one_hot), abs=RTOL * scale(problem))


def test_potts_counts_every_unordered_pair_once() -> None:
    """Three coinciding points of labels 0, 0, 1: two pairs disagree, each costs w k."""
    unary = np.arange(6, dtype=np.float32).reshape(2, 3)
    crf = DenseCRF(
        unary, [Features(np.zeros((3, 1), np.float32), weight=0.7)], normalization="none"
    )
    k = float((crf.energy(np.array([0, 0, 1])) - (0 + 1 + 5)) / (2 * 0.7))
    assert k == pytest.approx(float(crf.energy(np.array([0, 1, 0])) - (0 + 4 + 2)) / 1.4, rel=1e-5)
    assert 0.6 < k < 1.7  # 1 on average over positions in the simplex; the origin is one position
    assert crf.energy(np.array([1, 1, 1])) == pytest.approx(3 + 4 + 5, rel=1e-6)


@given(problems(), st.integers(0, 5), st.sampled_from([0.0, 0.5]))
def test_trace_is_the_free_energy_of_every_q(
    problem: Problem, iterations: int, damping: float
) -> None:
    crf = crf_of(problem)
    found = crf.infer(iterations, solver=MeanField(damping), trace=True)
    expected = mean_field(problem.unary, terms_of(problem), iterations, damping=damping).trace
    assert len(found.trace) == iterations + 1
    # 1e-5 in every Q (test_mean_field) moves F by 1e-5 of its terms.
    np.testing.assert_allclose(found.trace, expected, rtol=0, atol=1e-5 * scale(problem))
    assert found.trace[-1] == pytest.approx(crf.free_energy(found.q), abs=RTOL * scale(problem))
    # Asking for it changes nothing else.
    plain = crf.infer(iterations, solver=MeanField(damping)).q
    np.testing.assert_allclose(found.q, plain, rtol=0, atol=1e-6)


def test_forbidden_labels_cost_nothing_where_they_are_not_used() -> None:
    unary = np.array([[0.5, 1.0], [np.inf, 0.2]], np.float32)
    crf = DenseCRF(unary, [Features(np.zeros((2, 1), np.float32))])
    q = np.array([[1.0, 0.25], [0.0, 0.75]], np.float32)
    assert np.isfinite(crf.free_energy(q))
    assert np.isfinite(crf.energy(np.array([0, 1])))
    assert crf.energy(np.array([1, 1])) == np.inf


def assert_never_rises(trace: list[float], slack: float) -> None:
    assert np.all(np.diff(trace) <= slack), np.diff(trace).max()


def dense_problem(seed: int, dim: int, n_labels: int = 4) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    unary = rng.normal(scale=2, size=(n_labels, 120)).astype(np.float32)
    return unary, rng.normal(scale=0.7, size=(120, dim)).astype(np.float32)


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("normalization", ["none", "symmetric"])
def test_reference_descends_for_psd_kernels_under_potts(dim: int, normalization: str) -> None:
    """Krähenbühl & Koltun 2013: the reference itself obeys the theory that the tests below lean on.

    With A = K~ x mu symmetric and negative semidefinite the pairwise part 1/2 q A q is concave, and
    the parallel update minimises entropy + U q + its tangent, a bound from above: F cannot rise.
    The Gaussian kernel is positive semidefinite, normalised symmetrically too; -I and Potts 1 - I
    differ by a constant on the simplex. "after" and "before" are not symmetric: no promise.
    """
    unary, features = dense_problem(dim, dim)
    kernel = normalize(gaussian_kernel(features), normalization)
    weight = 5.0 if normalization == "symmetric" else 0.3
    trace = mean_field(unary, [Term(kernel, weight, compatibility_matrix(None, 4))], 30).trace
    assert_never_rises(trace, 1e-9)
    assert trace[0] - trace[-1] > 0.1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("compatibility", ["potts", "vector"])
@pytest.mark.parametrize("normalization", ["none", "symmetric"])
def test_free_energy_never_rises_on_one_dimensional_lattices(
    seed: int, compatibility: str, normalization: str
) -> None:
    """For d = 1 both lattice axes are the same line, so the two blurs are equal.

    B is then the square of a symmetric matrix, K = S^T B S is symmetric and positive semidefinite
    whichever vertices are missing, and so is a sum of such kernels on different features: the
    theorem holds for the lattice itself. (For d > 1 the blurs of missing vertices do not commute,
    K is slightly unsymmetric, and the theorem promises nothing.)
    """
    unary, features = dense_problem(seed, 2)
    mu = None if compatibility == "potts" else np.random.default_rng(seed).uniform(0, 2, 4)
    weight = 4.0 if normalization == "symmetric" else 0.2
    terms = [Features(features[:, [k]], weight=weight, compatibility=mu) for k in range(2)]
    trace = DenseCRF(unary, terms, normalization=normalization).infer(30, trace=True).trace
    assert_never_rises(trace, slack=1e-6 * np.abs(unary).sum())  # float32 sums
    assert trace[0] - trace[-1] > 1


@pytest.mark.parametrize("seed", range(5))
def test_enough_damping_makes_repulsion_descend(seed: int) -> None:
    """Any symmetric A = K~ x mu: F never rises if damping >= L / (1 + L), L its largest eigenvalue.

    A damped update minimises the tangent plus b KL(q' | q), b = damping / (1 - damping). The true F
    exceeds the tangent by 1/2 (q' - q) A (q' - q) <= L/2 |q' - q|^2 <= L KL(q' | q) (Pinsker).
    """
    unary, features = dense_problem(seed, 1)
    rng = np.random.default_rng(seed)
    mu = rng.normal(size=(4, 4))
    mu = 2 * (mu + mu.T)
    term = Features(features, weight=2.0, compatibility=mu)
    # Symmetrically normalised K~ has eigenvalues in [0, 1], so A has none above 2 max eig(mu).
    largest = 2.0 * max(0.0, float(np.linalg.eigvalsh(mu).max()))
    crf = DenseCRF(unary, [term])
    trace = crf.infer(60, solver=MeanField(largest / (1 + largest)), trace=True).trace
    assert_never_rises(trace, slack=1e-6 * np.abs(unary).sum())
    assert trace[0] - trace[-1] > 1


def test_without_damping_strong_repulsion_oscillates() -> None:
    """Guards the test above: the damping is what makes it descend."""
    unary = np.zeros((2, 50), np.float32)
    unary[0] = 0.1
    features = np.zeros((50, 1), np.float32)
    mu = np.array([[8.0, 0], [0, 8.0]])
    crf = DenseCRF(unary, [Features(features, compatibility=mu)])
    assert np.diff(crf.infer(10, trace=True).trace).max() > 1
    assert_never_rises(crf.infer(60, solver=MeanField(8 / 9), trace=True).trace, slack=1e-4)
