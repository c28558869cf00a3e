# SPDX-License-Identifier: MIT
"""Gradients of the unrolled mean field by unary, weights and compatibility."""

import numpy as np
import pytest

from crfseg import DenseCRF, Features, Lattice, Potts
from crfseg.gradients import Kernel, fixed_point, unroll
from native import ISAS, instruction_set, lattice_matrix
from reference import NORMALIZATIONS, softmax
from reference_gradients import Model, assert_slopes, logits_after, mu_of, slopes, step

T = 4
SHAPES = ("potts", "vector", "matrix")


def some_compatibility(shape, n_labels, rng):
    if shape == "potts":
        return None
    return rng.normal(size=(n_labels,) if shape == "vector" else (n_labels, n_labels))


class Problem:
    """Two kernels over a cloud of points, as the library takes them and as dense matrices."""

    def __init__(
        self, rng, normalization="symmetric", shape="potts", per_label=False, n_labels=3, n=24
    ):
        # Sums over overlapping points grow with their number unless they are normalised.
        size = 0.1 if normalization == "none" else 1.0
        self.unary = rng.normal(size=(n_labels, n)).astype(np.float32) + np.float32(2.5)
        self.gradient = rng.normal(size=(n_labels, n)).astype(np.float32)
        self.features = [rng.normal(size=(n, d)).astype(np.float32) for d in (2, 3)]
        self.weights = [
            size * rng.uniform(0.3, 1.5, (n_labels,) if per_label else ()) for _ in self.features
        ]
        self.compatibilities = [some_compatibility(shape, n_labels, rng) for _ in self.features]
        self.kernels = [
            Kernel(f, w if per_label else float(w), mu, normalization=normalization)
            for f, w, mu in zip(self.features, self.weights, self.compatibilities, strict=True)
        ]
        self.model = Model(
            self.unary.astype(np.float64),
            [lattice_matrix(f, normalization=normalization) for f in self.features],
            self.weights,
            [mu_of(mu, n_labels) for mu in self.compatibilities],
        )

    def loss(self, model, output="marginals", iterations=T, start=None):
        z = logits_after(model, iterations, start)
        return float(((z if output == "logits" else softmax(z)) * self.gradient).sum())

    def slopes(self, name, k=None, **how):
        """dLoss by the logits, or by what a kernel has."""
        values = getattr(self.model, name)

        def loss(value):
            changed = value if k is None else [*values[:k], value, *values[k + 1 :]]
            return self.loss(self.model._replace(**{name: changed}), **how)

        return slopes(loss, values if k is None else values[k])


@pytest.mark.parametrize("output", ["marginals", "logits"])
@pytest.mark.parametrize("per_label", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradients_are_the_difference_quotients(rng, normalization, shape, per_label, output):
    problem = Problem(rng, normalization, shape, per_label)
    tape = unroll(problem.unary, problem.kernels, T, output=output)
    expected = logits_after(problem.model, T)
    expected = softmax(expected) if output == "marginals" else expected
    np.testing.assert_allclose(tape.output, expected, rtol=0, atol=2e-5)
    found = tape.backward(problem.gradient)
    assert_slopes(found.unary, problem.slopes("logits", output=output))
    for k, kernel in enumerate(found.kernels):
        assert_slopes(kernel.weight, problem.slopes("weights", k, output=output))
        by_mu = problem.slopes("mus", k, output=output)
        if shape == "matrix":
            assert_slopes(kernel.compatibility, by_mu)
        elif shape == "vector":  # mu = -diag(v)
            assert_slopes(kernel.compatibility, -np.diag(by_mu))
        else:
            assert kernel.compatibility is None


@pytest.mark.parametrize("n_labels", [1, 2, 4, 5, 8, 9, 16, 21, 24, 33, 40])
@pytest.mark.parametrize("shape", ["vector", "matrix"])
def test_any_number_of_labels(rng, n_labels, shape):
    problem = Problem(rng, "symmetric", shape, True, n_labels, n=11)
    found = unroll(problem.unary, problem.kernels, T, output="marginals").backward(problem.gradient)
    if n_labels == 1:  # its marginals are 1, whatever happens
        assert np.abs(found.unary).max() < 1e-12
        return
    assert_slopes(found.unary, problem.slopes("logits"))
    assert_slopes(found.kernels[1].weight, problem.slopes("weights", 1))


@pytest.mark.parametrize("kind", ["logits", "energies"])
@pytest.mark.parametrize("shape", SHAPES)
def test_marginals_are_those_of_inference(rng, shape, kind):
    problem = Problem(rng, "after", shape, n=200)
    logits = problem.unary if kind == "logits" else -problem.unary
    tape = unroll(problem.unary, problem.kernels, 5, kind=kind, output="marginals")
    terms = [
        Features(f, weight=float(w), compatibility=mu, normalization="after")
        for f, w, mu in zip(problem.features, problem.weights, problem.compatibilities, strict=True)
    ]
    expected = DenseCRF(-logits, terms).infer(5).q
    np.testing.assert_allclose(tape.output, expected, rtol=0, atol=1e-5)


def test_energies_have_the_opposite_gradient(rng):
    problem = Problem(rng)
    of_logits = unroll(problem.unary, problem.kernels).backward(problem.gradient)
    of_energies = unroll(-problem.unary, problem.kernels, kind="energies").backward(
        problem.gradient
    )
    np.testing.assert_array_equal(of_energies.unary, -of_logits.unary)


def test_the_weight_of_potts_has_a_gradient(rng):
    problem = Problem(rng)
    plain = unroll(problem.unary, problem.kernels).backward(problem.gradient).kernels[0]
    halved = [
        k.with_parameters(2 * k.weight, Potts(0.5)) if i == 0 else k
        for i, k in enumerate(problem.kernels)
    ]
    found = unroll(problem.unary, halved).backward(problem.gradient).kernels[0]
    assert found.weight == pytest.approx(plain.weight / 2)
    assert found.compatibility == pytest.approx(float(plain.weight * 2 * problem.weights[0]))


@pytest.mark.parametrize("last", range(T + 1))
@pytest.mark.parametrize("recompute", [False, True])
def test_truncated_gradients_take_earlier_steps_for_constant(rng, last, recompute):
    problem = Problem(rng, shape="matrix")
    start = softmax(logits_after(problem.model, T - last))
    how = {"iterations": last, "start": start if last < T else None}
    tape = unroll(
        problem.unary, problem.kernels, T, output="marginals", last=last, recompute=recompute
    )
    found = tape.backward(problem.gradient)
    if last == 0:
        # Q^T = softmax(Z^T), and Z^T is the unary and what is constant.
        q = softmax(logits_after(problem.model, T))
        expected = q * (problem.gradient - (q * problem.gradient).sum(axis=0))
        assert_slopes(found.unary, expected)
        assert not np.any(found.kernels[0].weight)
        return
    assert_slopes(found.unary, problem.slopes("logits", **how))
    assert_slopes(found.kernels[0].weight, problem.slopes("weights", 0, **how))
    assert_slopes(found.kernels[1].compatibility, problem.slopes("mus", 1, **how))


@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 4, 5, 6, 7, 10])
@pytest.mark.parametrize("output", ["marginals", "logits"])
def test_steps_that_are_found_again_are_the_same(rng, iterations, output):
    """Bit for bit: the same sums in the same order."""
    problem = Problem(rng, shape="matrix")
    tapes = [
        unroll(problem.unary, problem.kernels, iterations, output=output, recompute=recompute)
        for recompute in (False, True)
    ]
    np.testing.assert_array_equal(tapes[0].output, tapes[1].output)
    kept, found = (tape.backward(problem.gradient, features="exact") for tape in tapes)
    np.testing.assert_array_equal(kept.unary, found.unary)
    for one, other in zip(kept.kernels, found.kernels, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)
        np.testing.assert_array_equal(one.compatibility, other.compatibility)
        np.testing.assert_array_equal(one.features, other.features)
    if iterations > 3:
        assert tapes[1].nbytes < tapes[0].nbytes


@pytest.mark.parametrize("output", ["marginals", "logits"])
@pytest.mark.parametrize("shape", SHAPES)
def test_implicit_gradients_are_those_of_many_steps(rng, shape, output):
    problem = Problem(rng, shape=shape)
    unary = problem.unary
    kernels = [k.with_parameters(0.3 * k.weight, k.compatibility) for k in problem.kernels]
    still = fixed_point(unary, kernels, 500, tolerance=1e-7, output=output)
    assert still.max_change < 1e-6
    assert still.iterations < 500
    unrolled = unroll(unary, kernels, 60, output=output)
    np.testing.assert_allclose(still.output, unrolled.output, rtol=0, atol=1e-5)
    found = still.backward(problem.gradient, features="exact", tolerance=1e-7)
    expected = unrolled.backward(problem.gradient, features="exact")
    assert found.converged
    assert 1 < found.terms < 200
    assert_slopes(found.unary, expected.unary)
    for one, other in zip(found.kernels, expected.kernels, strict=True):
        assert_slopes(one.weight, other.weight)
        assert_slopes(one.features, other.features)
        if shape != "potts":
            assert_slopes(one.compatibility, other.compatibility)


def test_a_series_that_does_not_die_away_is_told(rng):
    """Two labels that repel their like, just so strongly that they neither settle nor swing."""
    problem = Problem(rng, n_labels=2, n=40)
    kernels = [k.with_parameters(-1.0) for k in problem.kernels]
    tape = fixed_point(0.01 * problem.unary, kernels, 300, tolerance=1e-3)
    found = tape.backward(problem.gradient, most_terms=25)
    assert tape.converged
    assert (found.terms, found.converged) == (26, False)


def test_marginals_that_do_not_come_to_rest_are_told(rng):
    """Repelled more strongly they swing between two states; the series may well die away there."""
    problem = Problem(rng, n_labels=2, n=40)
    kernels = [k.with_parameters(-5.0) for k in problem.kernels]
    tape = fixed_point(0.01 * problem.unary, kernels, 30)
    assert (tape.iterations, tape.converged) == (30, False)
    assert tape.max_change > 0.9
    assert not tape.backward(problem.gradient).converged


def test_a_gradient_of_zero_ends_the_series(rng):
    problem = Problem(rng)
    found = fixed_point(problem.unary, problem.kernels).backward(0 * problem.gradient)
    assert found.converged
    assert not np.any(found.unary)


def blocky(rng, n_labels, side):
    """Logits and features of a picture with more points than a strip has."""
    y, x = np.indices((side, side), np.float32).reshape(2, -1)
    colours = rng.normal(size=(side // 8 + 1, side // 8 + 1, 3)).astype(np.float32)
    colour = colours[(y // 8).astype(int), (x // 8).astype(int)]
    noisy = colour + 0.1 * rng.normal(size=colour.shape)
    features = [np.stack([x, y], 1) / 3, np.concatenate([np.stack([x, y], 1) / 20, noisy], 1)]
    unary = rng.normal(size=(n_labels, side, side)).astype(np.float32)
    return unary, [f.astype(np.float32) for f in features]


def back_by_filters(unary, kernels, lattices, couplings, iterations, gradient):
    """The module's equations with ``Lattice.filter`` and ``filter_transpose`` for K~ and K~^T."""
    qs = [softmax(unary)]
    for _ in range(iterations):
        z = unary.copy()
        for lattice, coupling in zip(lattices, couplings, strict=True):
            z += coupling @ lattice.filter(qs[-1].T).T
        qs.append(softmax(z))
    total, moments = 0.0, [0.0 for _ in kernels]
    for t in range(iterations, -1, -1):
        delta = qs[t] * (gradient - (gradient * qs[t]).sum(axis=0))
        total = total + delta
        if t == 0:
            return total, moments
        gradient = 0.0
        for k, (lattice, coupling) in enumerate(zip(lattices, couplings, strict=True)):
            back = lattice.filter_transpose(delta.T).T.astype(np.float64)
            moments[k] = moments[k] + back @ qs[t - 1].T
            gradient = gradient + coupling.T @ back
    return None


@pytest.mark.parametrize("n_labels", [3, 21])
def test_pictures_of_several_strips(rng, n_labels):
    unary, features = blocky(rng, n_labels, 100)
    gradient = rng.normal(size=unary.shape).astype(np.float32)
    mu = rng.normal(size=(n_labels, n_labels))
    kernels = [Kernel(features[0], 2.0), Kernel(features[1], 0.7, mu, normalization="after")]
    lattices = [Lattice(features[0], normalization="symmetric")]
    lattices += [Lattice(features[1], normalization="after")]
    flat = unary.reshape(n_labels, -1).astype(np.float64)
    expected, moments = back_by_filters(
        flat,
        kernels,
        lattices,
        [2.0 * np.eye(n_labels), -0.7 * mu],
        3,
        gradient.reshape(flat.shape),
    )
    found = unroll(unary, kernels, 3, output="marginals").backward(gradient)
    assert found.unary.shape == unary.shape
    assert_slopes(found.unary.reshape(flat.shape), expected)
    assert_slopes(found.kernels[0].weight, np.trace(moments[0]))
    assert_slopes(found.kernels[1].compatibility, -0.7 * moments[1])


def test_results_do_not_depend_on_threads(rng):
    unary, features = blocky(rng, 5, 100)
    gradient = rng.normal(size=unary.shape).astype(np.float32)
    kernels = [Kernel(features[0], 2.0), Kernel(features[1], 1.0, rng.normal(size=(5, 5)))]
    groups = [[[0, 1]], [[0, 1], [2, 3, 4]]]
    results = []
    for threads in (1, 2, 5):
        tape = unroll(unary, kernels, 3, recompute=True, threads=threads)
        found = [
            tape.backward(gradient, features=form, sigmas=groups, step=step)
            for form, step in (("exact", None), ("smooth", 0.05))
        ]
        results.append([tape.output, *(flat_gradients(each) for each in found)])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def flat_gradients(found):
    parts = [found.unary.ravel()]
    for kernel in found.kernels:
        parts += [np.ravel(part) for part in kernel if part is not None]
    return np.concatenate([part.astype(np.float64) for part in parts])


@pytest.mark.parametrize("n_labels", [2, 7, 21])
@pytest.mark.parametrize("shape", ["vector", "matrix"])
def test_instruction_sets_agree(rng, n_labels, shape):
    problem = Problem(rng, "after", shape, True, n_labels, n=70)
    found = []
    for isa in ISAS:
        with instruction_set(isa):
            tape = unroll(problem.unary, problem.kernels, T, output="marginals")
            found.append((tape.output, tape.backward(problem.gradient, features="exact")))
    for output, gradients in found[1:]:
        np.testing.assert_allclose(output, found[0][0], rtol=0, atol=2e-6)
        assert_slopes(gradients.unary, found[0][1].unary, relative=1e-5)
        for one, other in zip(gradients.kernels, found[0][1].kernels, strict=True):
            assert_slopes(one.weight, other.weight)
            assert_slopes(one.compatibility, other.compatibility)
        # By features terms of either sign nearly cancel in one kernel and not in the other: what
        # float32 leaves is a share of both kernels' largest.
        parts = [np.hstack([k.features for k in g.kernels]) for g in (gradients, found[0][1])]
        assert_slopes(*parts)


def test_a_tape_can_be_gone_back_along_twice(rng):
    problem = Problem(rng)
    for recompute in (False, True):
        tape = unroll(problem.unary, problem.kernels, 7, recompute=recompute)
        before = tape.nbytes
        first = flat_gradients(tape.backward(problem.gradient, features="exact"))
        np.testing.assert_array_equal(
            flat_gradients(tape.backward(problem.gradient, features="exact")), first
        )
        assert tape.nbytes == before


def test_layouts_and_dtypes_do_not_matter(rng):
    problem = Problem(rng, n=24)
    expected = unroll(problem.unary, problem.kernels).backward(problem.gradient).unary
    for dtype in (np.float32, np.float64):
        rows = np.ascontiguousarray(problem.unary.reshape(3, 4, 6).transpose(1, 2, 0), dtype)
        back = np.ascontiguousarray(problem.gradient.reshape(3, 4, 6).transpose(1, 2, 0), dtype)
        tape = unroll(rows.transpose(2, 0, 1), problem.kernels)
        found = tape.backward(back.transpose(2, 0, 1))
        assert found.unary.shape == (3, 4, 6)
        assert found.unary.dtype == np.float32
        np.testing.assert_array_equal(found.unary.reshape(3, -1), expected)


def test_without_kernels_the_unary_passes(rng):
    problem = Problem(rng)
    tape = unroll(problem.unary, [])
    np.testing.assert_allclose(tape.output, problem.unary, rtol=1e-6)
    np.testing.assert_array_equal(tape.backward(problem.gradient).unary, problem.gradient)


def test_without_steps_there_is_the_softmax(rng):
    problem = Problem(rng)
    tape = unroll(problem.unary, problem.kernels, 0, output="marginals")
    np.testing.assert_allclose(tape.output, softmax(problem.unary), atol=1e-6)
    assert_slopes(tape.backward(problem.gradient).unary, problem.slopes("logits", iterations=0))


def test_a_common_offset_of_a_point_passes_to_its_logits(rng):
    """1000 more for all labels: the same differences, to the rounding of what is read."""
    problem = Problem(rng)
    offset = rng.integers(-1000, 1000, problem.unary.shape[1]).astype(np.float32)
    unary = np.round(problem.unary * 64) / np.float32(64)
    plain, lifted = unroll(unary, problem.kernels), unroll(unary + offset, problem.kernels)
    np.testing.assert_allclose(lifted.output - offset, plain.output, rtol=0, atol=2e-4)
    np.testing.assert_array_equal(
        lifted.backward(problem.gradient).unary, plain.backward(problem.gradient).unary
    )


def test_a_gradient_that_is_not_finite_passes_through(rng):
    """Training with scaled losses counts on it."""
    problem = Problem(rng)
    problem.gradient[0, 0] = np.inf
    assert not np.isfinite(
        unroll(problem.unary, problem.kernels).backward(problem.gradient).unary
    ).all()
    found = fixed_point(problem.unary, problem.kernels).backward(problem.gradient)
    assert not found.converged


def test_the_fixed_point_is_one(rng):
    problem = Problem(rng)
    tape = fixed_point(problem.unary, problem.kernels, 400, output="marginals")
    after = softmax(step(problem.model, tape.output.astype(np.float64)))
    np.testing.assert_allclose(tape.output, after, rtol=0, atol=1e-5)
