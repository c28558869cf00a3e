# SPDX-License-Identifier: MIT
"""Gradients of features and sigmas, in both forms."""

import numpy as np
import pytest

from crfseg.gradients import Kernel, fixed_point, unroll
from native import calibration, lattice_matrix
from reference import NORMALIZATIONS, gaussian_kernel, normalize, softmax
from reference_gradients import (
    Model,
    assert_slopes,
    gaussian_change,
    logits_after,
    mu_of,
    slope,
)
from reference_lattice import ReferenceLattice, elevate, simplex

T = 3
ACCURACIES = {"fast": (0, 1), "fine": ((1, 4), 2)}
LABELS = 3


def clear_of_faces(features, passes=1):
    """Points whose simplex does not change where features move as far as quotients step."""
    inside = [min(simplex(position)[1]) > 1e-3 for position in elevate(features, passes)]
    return features[np.array(inside)]


class Moving:
    """One kernel whose features move, one that stays."""

    def __init__(self, rng, normalization, *, accuracy="fast", dim=2, mu=None, n=20):
        fill, passes = ACCURACIES[accuracy]
        cloud = rng.normal(size=(20 * n, dim)).astype(np.float32)
        self.features = clear_of_faces(cloud, passes)[:n]
        self.other = rng.normal(size=(n, 1)).astype(np.float32)
        self.unary = rng.normal(size=(LABELS, n)).astype(np.float32)
        self.gradient = rng.normal(size=(LABELS, n)).astype(np.float32)
        self.normalization, self.mu = normalization, mu
        self.weight = rng.uniform(0.5, 2.0, LABELS) * (0.1 if normalization == "none" else 1.0)
        self.kernels = [
            Kernel(self.features, self.weight, mu, normalization=normalization, accuracy=accuracy),
            Kernel(self.other, 0.8),
        ]
        self.still = lattice_matrix(self.other, normalization="symmetric")
        self.gain = calibration(dim, fill, passes)
        self.options = {"fill": fill, "passes": passes}

    def tape(self, **how):
        return unroll(self.unary, self.kernels, T, output="marginals", **how)

    def loss(self, kernel):
        """From the unnormalised matrix of the first kernel."""
        kernels = [normalize(kernel, self.normalization), self.still]
        mus = [mu_of(self.mu, LABELS), mu_of(None, LABELS)]
        model = Model(self.unary.astype(float), kernels, [self.weight, np.array(0.8)], mus)
        return float((softmax(logits_after(model, T)) * self.gradient).sum())

    def matrix(self, features):
        """Of the slow lattice in float64, as the library scales it."""
        return ReferenceLattice(features, **self.options).matrix() / self.gain


@pytest.mark.parametrize(
    "mu", [None, np.array([[0.0, 1.0, 2.0], [0.5, 0.0, 1.0], [1.0, 3.0, 0.1]])]
)
@pytest.mark.parametrize("dim", [1, 2, 3, 5])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_exact_gradients_are_the_lattice_s(rng, normalization, dim, mu):
    moving = Moving(rng, normalization, dim=dim, mu=mu)
    found = moving.tape().backward(moving.gradient, features="exact").kernels[0].features
    check_directions(rng, moving, found)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_exact_gradients_of_a_fine_lattice(rng, normalization):
    moving = Moving(rng, normalization, accuracy="fine")
    found = moving.tape().backward(moving.gradient, features="exact").kernels[0].features
    check_directions(rng, moving, found)


def check_directions(rng, moving, found, n_directions=4):
    for _ in range(n_directions):
        direction = rng.normal(size=found.shape)
        expected = slope(
            lambda features: moving.loss(moving.matrix(features)),
            moving.features.astype(np.float64),
            direction,
        )
        # Relative to the norms: along some directions next to nothing happens.
        size = np.linalg.norm(found) * np.linalg.norm(direction) / np.sqrt(found.size)
        assert (found * direction).sum() == pytest.approx(expected, abs=1e-4 * size)


@pytest.mark.parametrize(
    "mu", [None, np.array([[0.0, 1.0, 2.0], [0.5, 0.0, 1.0], [1.0, 3.0, 0.1]])]
)
@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_smooth_gradients_are_a_gaussian_s_with_the_lattice_for_its_values(
    rng, normalization, dim, mu
):
    """dk_ij = -k_ij (f_i - f_j) (df_i - df_j), k_ij being what the lattice says."""
    moving = Moving(rng, normalization, dim=dim, mu=mu)
    found = moving.tape().backward(moving.gradient, features="smooth").kernels[0].features
    kernel = lattice_matrix(moving.features)
    expected = np.empty(found.shape)
    for index in np.ndindex(found.shape):
        direction = np.zeros(found.shape)
        direction[index] = 1.0
        change = gaussian_change(kernel, moving.features.astype(float), direction)
        expected[index] = slope(moving.loss, kernel, change)
    assert_slopes(found, expected)


def test_smooth_gradients_are_nearer_to_the_exact_model_s(rng):
    """Many points, whose lattice is near the Gaussian: the cosine of the two gradients."""
    moving = Moving(rng, "symmetric", n=400)
    kernel = gaussian_kernel(moving.features)
    directions = rng.normal(size=(40, *moving.features.shape))
    expected = np.array(
        [
            slope(moving.loss, kernel, gaussian_change(kernel, moving.features.astype(float), d))
            for d in directions
        ]
    )
    cosines = {}
    for form in ("exact", "smooth"):
        found = moving.tape().backward(moving.gradient, features=form).kernels[0].features
        along = (directions * found).sum(axis=(1, 2))
        cosines[form] = along @ expected / np.linalg.norm(along) / np.linalg.norm(expected)
    assert cosines["smooth"] > 0.97
    assert cosines["smooth"] > cosines["exact"] > 0.6


@pytest.mark.parametrize("form", ["exact", "smooth"])
@pytest.mark.parametrize("how", [{"last": 2}, {"recompute": True}])
def test_truncated_and_recomputed_steps_have_the_same_features(rng, form, how):
    moving = Moving(rng, "symmetric")
    found = moving.tape(**how).backward(moving.gradient, features=form)
    if "recompute" in how:
        expected = moving.tape().backward(moving.gradient, features=form)
        np.testing.assert_array_equal(found.kernels[0].features, expected.kernels[0].features)
        return
    # Two steps back from the same marginals: the unary before them no longer counts.
    whole = moving.tape().backward(moving.gradient, features=form)
    assert np.abs(found.kernels[0].features - whole.kernels[0].features).max() > 0


@pytest.mark.parametrize("form", ["exact", "smooth"])
def test_at_a_fixed_point_features_have_the_gradient_of_many_steps(rng, form):
    moving = Moving(rng, "symmetric")
    kernels = [k.with_parameters(0.3 * k.weight) for k in moving.kernels]
    found = fixed_point(moving.unary, kernels).backward(moving.gradient, features=form)
    assert found.converged
    expected = unroll(moving.unary, kernels, 60).backward(moving.gradient, features=form)
    for one, other in zip(found.kernels, expected.kernels, strict=True):
        assert_slopes(one.features, other.features)


def test_only_the_kernels_asked_for(rng):
    moving = Moving(rng, "symmetric")
    both = moving.tape().backward(moving.gradient, features="exact").kernels
    one = moving.tape().backward(moving.gradient, features="exact", feature_kernels=[1]).kernels
    assert one[0].features is None
    np.testing.assert_array_equal(one[1].features, both[1].features)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_sigmas_by_the_chain_rule_are_the_lattice_s(rng, normalization):
    moving = Moving(rng, normalization, dim=3)
    groups = [[[0, 2], [1]], []]
    found = moving.tape().backward(moving.gradient, features="exact", sigmas=groups)
    assert found.kernels[1].log_sigmas.shape == (0,)
    for group, by_sigma in zip(groups[0], found.kernels[0].log_sigmas, strict=True):
        direction = np.zeros(moving.features.shape)
        direction[:, group] = -moving.features[:, group]
        expected = slope(
            lambda features: moving.loss(moving.matrix(features)),
            moving.features.astype(np.float64),
            direction,
        )
        assert by_sigma == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_sigmas_by_quotients_are_those_of_two_lattices(rng, normalization, recompute):
    """The slope of the loss as the kernel moves from one lattice towards the other."""
    moving = Moving(rng, normalization, dim=3)
    tape = moving.tape(recompute=recompute)
    found = tape.backward(moving.gradient, sigmas=[[[0, 2]], []], step=0.05)
    kernels = []
    for sign in (1, -1):
        features = moving.features.copy()
        features[:, [0, 2]] *= np.float32(1.05**-sign)
        kernels.append(lattice_matrix(features, normalization=normalization))
    change = (kernels[0] - kernels[1]) / (2 * np.log(1.05))
    moving.normalization = "none"  # the matrices are normalised already
    own = lattice_matrix(moving.features, normalization=normalization)
    expected = slope(moving.loss, own, change)
    assert found.kernels[0].log_sigmas == pytest.approx([expected], rel=1e-4)
    assert found.kernels[0].features is None


def test_features_far_from_zero_are_moved_there_as_for_the_lattice(rng):
    moving = Moving(rng, "symmetric")
    far = moving.features.astype(np.float64) + 2.0**20
    near = far - far.min(axis=0)
    found, expected = (
        unroll(moving.unary, [Kernel(features, moving.weight)], T)
        .backward(moving.gradient, features="exact")
        .kernels[0]
        .features
        for features in (far, near)
    )
    np.testing.assert_array_equal(found, expected)
