# SPDX-License-Identifier: MIT
"""Solvers of one energy, step by step against brute force; projections; the line search; names."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bad_input import assert_named, case
from crfseg import Bilateral, DenseCRF, Features, FrankWolfe, Gaussian, MeanField, refine
from crfseg.solvers import REGULARIZERS, SOLVERS, resolve
from native import ISAS, crf_of, instruction_set, lattice_matrix, terms_of
from reference import (
    Term,
    compatibility_matrix,
    frank_wolfe,
    normalize,
    softmax,
    sparsemax,
)
from strategies import SEEDS, Array, Problem, problems

TIGHT = 1e-5  # as in test_mean_field
STEPS = (0.3, 1.0, "diminishing", "line-search")
FRANK_WOLFES = st.builds(
    FrankWolfe, st.sampled_from(REGULARIZERS), st.sampled_from(STEPS), st.sampled_from([0.4, 1, 3])
)


def options_of(solver: FrankWolfe) -> dict[str, Any]:
    """A solver as the reference takes it."""
    return {"regularizer": solver.regularizer, "step": solver.step, "strength": solver.strength}


def assert_steps_are_the_reference_s(
    crf: DenseCRF,
    unary: Array,
    terms: list[Term],
    solver: FrankWolfe,
    iterations: int,
    **options: Any,
) -> None:
    """Each step from where the library is: errors of those before, which may grow, do not count."""
    q = crf.infer(0, solver=solver, **options).q
    for k in range(iterations):
        expected = frank_wolfe(unary, terms, 1, start=q, first=k, **options_of(solver))[-1]
        q = crf.infer(k + 1, solver=solver, **options).q
        atol = TIGHT / min(1.0, solver.strength)
        if solver.regularizer == "euclidean":
            atol *= 4  # s has slope 1, not 1/4
        np.testing.assert_allclose(q, expected, rtol=0, atol=atol)
        np.testing.assert_allclose(q.sum(axis=0), 1, rtol=0, atol=2e-6)


@given(problems(), FRANK_WOLFES)
def test_steps_are_the_reference_s(problem: Problem, solver: FrankWolfe) -> None:
    assert_steps_are_the_reference_s(crf_of(problem), problem.unary, terms_of(problem), solver, 4)


@given(problems(), FRANK_WOLFES, SEEDS)
def test_steps_from_a_start(problem: Problem, solver: FrankWolfe, seed: int) -> None:
    start = softmax(np.random.default_rng(seed).normal(size=problem.unary.shape))
    start = start.astype(np.float32)
    crf, terms = crf_of(problem), terms_of(problem)
    np.testing.assert_array_equal(crf.infer(0, solver=solver, start=start).q, start)
    assert_steps_are_the_reference_s(crf, problem.unary, terms, solver, 2, start=start)


@given(problems(), st.integers(1, 4))
def test_whole_entropic_steps_are_mean_field(problem: Problem, iterations: int) -> None:
    crf = crf_of(problem)
    expected = crf.infer(iterations).q
    found = crf.infer(iterations, solver=FrankWolfe("entropy", 1.0)).q
    np.testing.assert_array_equal(found, expected)
    once = crf.infer(1, solver=FrankWolfe("entropy", "diminishing")).q  # whose first step is 1
    np.testing.assert_allclose(once, crf.infer(1).q, rtol=0, atol=TIGHT)


@given(problems(), FRANK_WOLFES)
def test_a_step_is_the_first_of_an_inference(problem: Problem, solver: FrankWolfe) -> None:
    crf = crf_of(problem)
    q = crf.infer(0).q
    np.testing.assert_allclose(
        crf.step(q, solver=solver), crf.infer(1, solver=solver).q, rtol=0, atol=TIGHT
    )


@pytest.mark.parametrize("n_labels", [1, 2, 3, 4, 5, 8, 9, 16, 21, 24, 25, 40])
@pytest.mark.parametrize("isa", ISAS)
def test_any_number_of_labels(isa: str, n_labels: int) -> None:
    """Kernels work on groups of labels, and of points, of which 91 leave a part."""
    rng = np.random.default_rng(n_labels)
    features = rng.normal(size=(91, 3)).astype(np.float32)
    unary = rng.normal(scale=2, size=(n_labels, 91)).astype(np.float32)
    terms = [
        Term(
            normalize(lattice_matrix(features), "symmetric"),
            2.0,
            compatibility_matrix(None, n_labels),
        )
    ]
    with instruction_set(isa):
        crf = DenseCRF(unary, [Features(features, weight=2.0)])
        for regularizer in REGULARIZERS:
            for step in STEPS:
                solver = FrankWolfe(regularizer, step, 0.7)
                assert_steps_are_the_reference_s(crf, unary, terms, solver, 2)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 1e4])
def test_sparsemax_is_the_nearest_point_of_the_simplex(isa: str, scale: float) -> None:
    """Without terms, a whole Euclidean step is the projection of -U alone."""
    rng = np.random.default_rng(8)
    for n_labels in (1, 2, 3, 5, 8, 21, 70):
        unary = (scale * rng.normal(size=(n_labels, 37))).astype(np.float32)
        unary[:, :5] = unary[0, :5]  # ties
        unary[: n_labels // 2, 5:9] = 7.0
        with instruction_set(isa):
            q = DenseCRF(unary, []).infer(1, solver=FrankWolfe("euclidean", 1.0)).q
        # A float32 ulp of the energies.
        np.testing.assert_allclose(
            q, sparsemax(-unary.astype(float)), rtol=0, atol=1e-6 + 1e-7 * scale
        )


@given(problems(), st.sampled_from(REGULARIZERS), st.sampled_from([0.2, 1.0, 5.0]))
def test_line_search_never_raises_the_energy(
    problem: Problem, regularizer: str, strength: float
) -> None:
    """Whatever P is: on a line E is a parabola, unsymmetric or not."""
    crf = crf_of(problem)
    solver = FrankWolfe(regularizer, "line-search", strength)
    energies = [crf.expected_energy(crf.infer(k, solver=solver).q) for k in range(6)]
    size = np.abs(problem.unary).sum() + sum(
        weight * np.abs(term.kernel).sum() * np.abs(term.mu).max()
        for weight, term in zip(problem.weights, terms_of(problem), strict=True)
    )
    assert np.diff(energies).max() <= 3e-6 * size


def test_line_search_stops_in_between_and_at_either_end() -> None:
    """Guards what is held to the reference above: that its steps are not all 0 or 1."""
    unary = np.array([[0.0, 0.1, 0.4], [0.3, 0.0, 0.0]], np.float32)
    features = np.zeros((3, 1), np.float32)
    steps = []
    for weight in (-3.0, 0.1, 3.0):
        mu = weight * (1 - np.eye(2))
        crf = DenseCRF(unary, [Features(features, compatibility=mu)])
        x, moved = (crf.infer(k, solver=FrankWolfe(step="line-search")).q for k in (0, 1))
        s = crf.step(x, solver=FrankWolfe(step=1.0))
        steps.append(float(((moved - x) * (s - x)).sum() / ((s - x) ** 2).sum()))
    assert 0.05 < steps[0] < 0.95
    assert steps[1] == pytest.approx(1, abs=1e-5)
    hot = DenseCRF(unary, [])  # so strong that s is uniform, which costs more than the start
    solver = FrankWolfe("entropy", "line-search", 1e6)
    np.testing.assert_array_equal(hot.infer(3, solver=solver).q, hot.infer(0).q)


def test_line_search_settles_where_mean_field_oscillates() -> None:
    """Labels that repel: whole steps go from one side to the other and back."""
    unary = np.zeros((2, 50), np.float32)
    unary[0] = 0.1
    repelling = Features(np.zeros((50, 1), np.float32), compatibility=8 * np.eye(2))
    crf = DenseCRF(unary, [repelling])
    assert crf.infer(100, tolerance=1e-3).iterations == 100
    for regularizer in REGULARIZERS:
        found = crf.infer(100, tolerance=1e-3, solver=FrankWolfe(regularizer, "line-search"))
        assert found.iterations < 20
        assert crf.expected_energy(found.q) < crf.expected_energy(crf.infer(100).q) - 10
        np.testing.assert_allclose(found.q[0], 0.5 - 0.1 / 16, atol=0.05)


@pytest.mark.parametrize("solver", [FrankWolfe(r, s) for r in REGULARIZERS for s in STEPS], ids=str)
def test_forbidden_labels_stay_without_mass(solver: FrankWolfe) -> None:
    """+inf in the unary times 0 is 0: in sums, in Q, and from a start that says otherwise."""
    rng = np.random.default_rng(6)
    unary = rng.normal(size=(5, 60)).astype(np.float32)
    forbidden = rng.uniform(size=unary.shape) < 0.4
    forbidden[:, forbidden.all(axis=0)] = False
    unary[forbidden] = np.inf
    features = rng.normal(size=(60, 2)).astype(np.float32)
    crf = DenseCRF(unary, [Features(features, weight=3.0)])
    terms = [Term(normalize(lattice_matrix(features), "symmetric"), 3.0, 1 - np.eye(5))]
    assert_steps_are_the_reference_s(crf, unary, terms, solver, 4)
    start = softmax(rng.normal(size=unary.shape)).astype(np.float32)
    for begin in ({}, {"start": start}, {"start": np.eye(5, dtype=np.float32)[:, [0] * 60]}):
        found = crf.infer(6, solver=solver, trace=True, **begin)
        assert np.all(found.q[forbidden] == 0)
        np.testing.assert_allclose(found.q.sum(axis=0), 1, rtol=0, atol=2e-6)
        assert np.isfinite(found.trace[1:]).all()
        assert np.isfinite(crf.expected_energy(found.q))


@given(problems(), FRANK_WOLFES, st.integers(0, 4))
def test_trace_is_the_free_energy_of_every_q(
    problem: Problem, solver: FrankWolfe, iterations: int
) -> None:
    crf = crf_of(problem)
    found = crf.infer(iterations, solver=solver, trace=True)
    qs = [crf.infer(k, solver=solver).q for k in range(iterations + 1)]
    np.testing.assert_allclose(found.q, qs[-1], rtol=0, atol=1e-6)
    energies = [crf.free_energy(q) for q in qs]
    np.testing.assert_allclose(found.trace, energies, rtol=1e-5, atol=1e-5 * problem.unary.size)


@given(problems(), FRANK_WOLFES)
def test_tolerance_stops_at_the_first_small_change(problem: Problem, solver: FrankWolfe) -> None:
    crf = crf_of(problem)
    found = crf.infer(12, solver=solver, tolerance=0.05)
    again = crf.infer(found.iterations, solver=solver).q
    np.testing.assert_allclose(found.q, again, rtol=0, atol=1e-6)
    qs = [crf.infer(k, solver=solver).q for k in range(found.iterations + 1)]
    changes = [float(np.abs(b - a).max()) for a, b in pairwise(qs)]
    assert found.max_change == pytest.approx(changes[-1], abs=1e-6)
    assert all(change >= 0.05 - 1e-6 for change in changes[:-1])
    assert found.converged == (found.max_change < 0.05)


@pytest.fixture(scope="module")
def scene() -> tuple[Array, Array]:
    """Energies and an image of several strips."""
    rng = np.random.default_rng(3)
    unary = rng.normal(size=(7, 120, 130)).astype(np.float32)
    image = rng.integers(0, 256, (120, 130, 3), dtype=np.uint8) // 64 * 64
    return unary, image


@pytest.mark.parametrize("solver", [FrankWolfe(r, s) for r in REGULARIZERS for s in STEPS], ids=str)
def test_threads_change_no_bit_and_instruction_sets_little(
    scene: tuple[Array, Array], solver: FrankWolfe
) -> None:
    unary, image = scene
    mu = 0.3 * np.random.default_rng(4).normal(size=(7, 7))
    expected = None
    for isa in ISAS:
        with instruction_set(isa):
            found = [
                DenseCRF(
                    unary, [Gaussian(), Bilateral(image, 40, 30)], compatibility=mu, threads=threads
                ).infer(3, solver=solver, trace=True)
                for threads in (1, 3)
            ]
        np.testing.assert_array_equal(found[0].q, found[1].q)
        np.testing.assert_array_equal(found[0].trace, found[1].trace)
        expected = found[0].q if expected is None else expected
        np.testing.assert_allclose(found[0].q, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SOLVERS)
def test_refine_takes_solvers(scene: tuple[Array, Array], name: str) -> None:
    unary, image = scene
    probs = softmax(-unary).astype(np.float32)
    terms = [Gaussian(2, 2), Bilateral(None, 30, 20, 3)]
    expected = DenseCRF(-np.log(probs), [Gaussian(2, 2), Bilateral(image, 30, 20, 3)]).infer(
        3, solver=name, skip=False
    )
    for solver in (name, SOLVERS[name]):
        q = refine(probs, image, pairwise=terms, iterations=3, solver=solver, skip=False)
        np.testing.assert_allclose(q, expected.q, rtol=0, atol=TIGHT)
    labels = refine(
        probs, image, pairwise=terms, iterations=3, solver=name, returns="labels", skip=False
    )
    np.testing.assert_array_equal(labels, q.argmax(axis=0))


def test_extreme_strengths_are_limits() -> None:
    """Next to no regulariser takes the best label, as does nothing else; much of it none."""
    unary = np.random.default_rng(9).normal(size=(4, 50)).astype(np.float32)
    unary[0, :9] = np.inf
    best = np.eye(4)[:, unary.argmin(axis=0)]
    for regularizer in REGULARIZERS:
        for strength in (1e-30, 1e-300):
            q = DenseCRF(unary, []).infer(1, solver=FrankWolfe(regularizer, 1.0, strength)).q
            np.testing.assert_allclose(q, best, rtol=0, atol=1e-6)
        q = DenseCRF(unary, []).infer(1, solver=FrankWolfe(regularizer, 1.0, 1e38)).q
        np.testing.assert_allclose(q[:, 9:], 0.25, rtol=0, atol=1e-6)
        np.testing.assert_allclose(q[1:, :9], 1 / 3, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(q[0, :9], 0)


def test_names_stand_for_solvers() -> None:
    assert resolve("here", "mean-field") == MeanField()
    assert resolve("here", "damped") == MeanField(damping=0.5)
    assert resolve("here", "frank-wolfe") == FrankWolfe("entropy")
    assert resolve("here", "euclidean-frank-wolfe") == FrankWolfe("euclidean")
    for solver in (MeanField(0.25), FrankWolfe("euclidean", 1, np.float32(0.5))):
        assert resolve("here", solver) is solver
    assert all(resolve("here", name) is solver for name, solver in SOLVERS.items())


EXPECTED_STEP = "expected a number above 0 and at most 1, 'diminishing' or 'line-search'"
BAD = [
    case("damping", lambda: MeanField(1.0), ValueError,
         "[MeanField] damping is 1; expected a number of at least 0 and below 1"),
    case("damping type", lambda: MeanField("0.5"), TypeError, "[MeanField] damping is '0.5' (str)"),
    case("regularizer", lambda: FrankWolfe("l2"), ValueError,
         "[FrankWolfe] regularizer is 'l2'; expected 'entropy' or 'euclidean'"),
    case("step 0", lambda: FrankWolfe(step=0.0), ValueError,
         f"[FrankWolfe] step is 0; {EXPECTED_STEP}"),
    case("step above 1", lambda: FrankWolfe(step=1.5), ValueError,
         f"[FrankWolfe] step is 1.5; {EXPECTED_STEP}"),
    case("step NaN", lambda: FrankWolfe(step=np.nan), ValueError, "[FrankWolfe] step is nan"),
    case("step name", lambda: FrankWolfe(step="linesearch"), ValueError,
         f"[FrankWolfe] step is 'linesearch'; {EXPECTED_STEP}"),
    case("step type", lambda: FrankWolfe(step=None), TypeError,
         f"[FrankWolfe] step is None (NoneType); {EXPECTED_STEP}"),
    case("step flag", lambda: FrankWolfe(step=True), TypeError, "[FrankWolfe] step is True (bool)"),
    case("strength", lambda: FrankWolfe(strength=0), ValueError,
         "[FrankWolfe] strength is 0; expected a positive finite number"),
    case("name", lambda: resolve("refine", "newton"), ValueError,
         "[refine] solver is 'newton'; expected 'mean-field', 'damped', 'frank-wolfe' or"),
    case("type", lambda: resolve("refine", 0.5), TypeError,
         "[refine] solver is 0.5 (float); expected MeanField, FrankWolfe, 'mean-field',"),
    case("class", lambda: resolve("refine", FrankWolfe), TypeError,
         "[refine] solver is <class 'crfseg.solvers.FrankWolfe'> (type); expected MeanField,"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "fragments"), BAD)
def test_bad_solvers_are_named(call, error, fragments) -> None:
    assert_named(call, error, fragments)
