# SPDX-License-Identifier: MIT
"""Label compatibilities: Potts, one number per label, any matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crfseg import DenseCRF, Features, Potts
from native import ISAS, instruction_set, lattice_matrix
from reference import Term, compatibility_matrix, mean_field, normalize
from strategies import SEEDS, Array, clouds

TIGHT = 1e-5  # as in test_mean_field


def infer(features: Array, unary: Array, compatibility: object, weight: float = 1.5) -> Array:
    term = Features(features, weight=weight, compatibility=compatibility)
    return DenseCRF(unary, [term]).infer(5).q


def unary_for(features: Array, n_labels: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(n_labels, len(features))).astype(np.float32)


@given(clouds(max_dim=4, max_points=30), st.integers(1, 9), SEEDS)
def test_every_spelling_of_potts_gives_the_same_q(
    features: Array, n_labels: int, seed: int
) -> None:
    """1 - I and -I differ by sum_b K~ Q_b, the same for every label of a point."""
    unary = unary_for(features, n_labels, seed)
    expected = infer(features, unary, None)
    eye = np.eye(n_labels, dtype=np.float32)
    for same in (Potts(), Potts(1.0), 1 - eye, -eye, np.ones(n_labels, np.float32)):
        np.testing.assert_allclose(infer(features, unary, same), expected, rtol=0, atol=TIGHT)


@given(clouds(max_dim=4, max_points=30), SEEDS, st.sampled_from(["after", "symmetric"]))
def test_matrix_is_read_as_own_label_by_other_label(
    features: Array, seed: int, normalization: str
) -> None:
    """mu[a, b]: energy of label a next to b; transposing or symmetrising it would be noticed."""
    rng = np.random.default_rng(seed)
    mu = rng.normal(size=(4, 4))
    unary = unary_for(features, 4, seed)
    term = Features(features, weight=0.8, compatibility=mu)
    found = DenseCRF(unary, [term], normalization=normalization).infer(4).q
    kernel = normalize(lattice_matrix(features), normalization)
    expected = mean_field(unary, [Term(kernel, 0.8, mu)], 4).qs[-1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=TIGHT)


def test_the_transposed_matrix_is_another_model() -> None:
    """Guards the test above: the asymmetry it relies on does show in Q."""
    features = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    unary, mu = unary_for(features, 3, 1), np.array([[0.0, 2, 0], [0, 0, 1], [0, 0, 0]])
    q, transposed = infer(features, unary, mu), infer(features, unary, mu.T)
    assert np.abs(q - transposed).max() > 0.05


@given(clouds(max_dim=3, max_points=30), SEEDS)
def test_potts_weight_multiplies_the_weight_of_the_term(features: Array, seed: int) -> None:
    unary = unary_for(features, 3, seed)
    np.testing.assert_allclose(
        infer(features, unary, Potts(2.0), weight=0.75),
        infer(features, unary, None, weight=1.5),
        rtol=0,
        atol=TIGHT,
    )


def test_compatibility_of_the_crf_is_the_default_of_its_terms() -> None:
    """A term's own compatibility goes first."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(40, 2)).astype(np.float32)
    unary, mu = unary_for(features, 3, 3), rng.normal(size=(3, 3))
    inherited = DenseCRF(unary, [Features(features)], compatibility=mu).infer(3).q
    own = DenseCRF(unary, [Features(features, compatibility=mu)]).infer(3).q
    overridden = DenseCRF(unary, [Features(features, compatibility=Potts())], compatibility=mu)
    np.testing.assert_array_equal(inherited, own)
    np.testing.assert_array_equal(
        overridden.infer(3).q, DenseCRF(unary, [Features(features)]).infer(3).q
    )


@pytest.mark.parametrize("n_labels", [2, 5, 8, 17, 21])
@pytest.mark.parametrize("kind", ["vector", "matrix"])
@pytest.mark.parametrize("isa", ISAS)
def test_any_number_of_labels(isa: str, kind: str, n_labels: int) -> None:
    rng = np.random.default_rng(n_labels)
    features = rng.normal(size=(60, 2)).astype(np.float32)
    unary = unary_for(features, n_labels, n_labels)
    given_mu = (
        rng.uniform(-1, 1, n_labels) if kind == "vector" else rng.normal(size=(n_labels, n_labels))
    )
    kernel = normalize(lattice_matrix(features), "symmetric")
    mu = compatibility_matrix(given_mu, n_labels)
    expected = mean_field(unary, [Term(kernel, 1.5, mu)], 5).qs[-1]
    with instruction_set(isa):
        found = infer(features, unary, given_mu)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TIGHT)
