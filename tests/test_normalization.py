# SPDX-License-Identifier: MIT
"""The four normalisations: what they are made of, and the identities that define them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crfseg import Lattice
from native import lattice_matrix
from reference import NORMALIZATIONS, gaussian_kernel, normalize
from strategies import SEEDS, Array, clouds


@given(clouds(), st.sampled_from(NORMALIZATIONS), SEEDS)
def test_normalisation_divides_by_the_filter_of_ones(
    features: Array, normalization: str, seed: int
) -> None:
    """Tight, as the reference normalises the library's own matrix: float32 rounding is left."""
    matrix = lattice_matrix(features)
    values = np.random.default_rng(seed).uniform(size=(len(features), 2)).astype(np.float32)
    lattice = Lattice(features, normalization=normalization)
    expected = normalize(matrix, normalization)
    np.testing.assert_allclose(lattice.filter(values), expected @ values, rtol=1e-5)
    np.testing.assert_allclose(lattice.filter_transpose(values), expected.T @ values, rtol=1e-5)


@given(clouds(), st.sampled_from(NORMALIZATIONS))
def test_normalizer_is_k1_under_every_normalisation(features: Array, normalization: str) -> None:
    expected = lattice_matrix(features).sum(axis=1)
    found = Lattice(features, normalization=normalization).normalizer
    assert found.shape == (len(features),)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@given(clouds())
def test_what_each_normalisation_keeps(features: Array) -> None:
    """n = K 1, so: after keeps constants, before keeps n, symmetric keeps n^1/2."""
    n = Lattice(features).normalizer
    for normalization, kept in (("after", np.ones_like(n)), ("before", n), ("symmetric", n**0.5)):
        found = Lattice(features, normalization=normalization).filter(kept)
        np.testing.assert_allclose(found, kept, rtol=1e-5, err_msg=normalization)


@given(clouds(), SEEDS)
def test_symmetric_normalisation_never_amplifies(features: Array, seed: int) -> None:
    """|F x| <= sqrt(max m / n) |x| with n = K 1 and m = K^T 1.

    Schur's test: n^-1/2 K m^-1/2 has norm at most 1 for any K >= 0. On a lattice with all its
    neighbours m = n and the bound is 1; missing vertices make K slightly unsymmetric.
    """
    ones = np.ones(len(features), np.float32)
    raw = Lattice(features)
    n, m = raw.filter(ones), raw.filter_transpose(ones)
    x = np.random.default_rng(seed).normal(size=len(features)).astype(np.float32)
    found = Lattice(features, normalization="symmetric").filter(x)
    bound = np.sqrt((m / n).max()) * np.linalg.norm(x)
    assert np.linalg.norm(found) <= bound * (1 + 1e-5)


@given(clouds(), st.sampled_from(NORMALIZATIONS))
def test_filter_of_nothing_negative_is_nothing_negative(
    features: Array, normalization: str
) -> None:
    """Splat, blur and slice only ever add non-negative numbers."""
    found = Lattice(features, normalization=normalization).filter(
        np.eye(len(features), dtype=np.float32)
    )
    # Barycentric weights may round to -1e-7 or so near a face; nothing else may.
    assert found.min() >= -1e-6 * max(1.0, found.max())


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_far_outlier_is_not_lost(normalization: str) -> None:
    """A point on its own has n > 0: normalising it divides by no zero."""
    features = np.zeros((5, 5), np.float32)
    features[4] = 300.0
    found = Lattice(features, normalization=normalization).filter(np.ones(5, np.float32))
    assert np.isfinite(found).all()
    assert found[4] > 0.1


def test_only_normalised_sums_over_dense_points_are_close_to_exact() -> None:
    """An isolated pair is calibrated; a cloud sums up too much unless the lattice is filled."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 3))
    kernel = gaussian_kernel(features)
    exact = kernel.sum(axis=1)
    fine = {"fill": (1, 4), "passes": 2}
    assert 1.3 < Lattice(features).normalizer.sum() / exact.sum() < 1.45
    assert 0.97 < Lattice(features, **fine).normalizer.sum() / exact.sum() < 1.05
    assert Lattice(features, passes=2).normalizer.sum() / exact.sum() > 3
    values = rng.random(500)
    for options in ({}, fine):
        found = Lattice(features, normalization="after", **options).filter(values)
        error = np.abs(found / (kernel @ values / exact) - 1)
        assert np.quantile(error, 0.95) < 0.014
