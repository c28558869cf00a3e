# SPDX-License-Identifier: MIT
"""The lattice's structure: vertices, filled-in vertices, exact keys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crfseg import Lattice
from native import lattice_matrix
from reference_lattice import Fill, ReferenceLattice, clear_of_ties
from strategies import FILLS, Array, clouds

WRAP_OF_INT16 = 65536  # elevated units after which 16-bit keys repeat


def unit_of_first_axis(dim: int) -> float:
    """Elevated units per sigma along the first feature (passes = 1): sqrt(2/3) (d + 1) / sqrt 2."""
    return float(np.sqrt(2 / 3) * (dim + 1) / np.sqrt(2))


@given(st.data(), FILLS, st.integers(1, 3))
def test_vertices_are_the_reference_s(data: st.DataObject, fill: Fill, passes: int) -> None:
    """Touched vertices and those that fill adds: the same number, not one more or less."""
    features = data.draw(clouds(passes=passes, max_points=40))
    lattice = Lattice(features, fill=fill, passes=passes)
    reference = ReferenceLattice(features, fill=fill, passes=passes)
    assert lattice.n_vertices == reference.n_vertices
    assert (lattice.n_points, lattice.dim) == features.shape


@pytest.mark.parametrize("dim", [10, 13, 16])
@pytest.mark.parametrize("spread", [0.1, 2.0, 20.0])
def test_vertices_are_the_reference_s_in_many_dimensions(dim: int, spread: float) -> None:
    """Keys of d = 16 over +-50 sigma need about 120 bits: two machine words, still exact."""
    features = np.random.default_rng(dim).normal(scale=spread, size=(60, dim)).astype(np.float32)
    features = clear_of_ties(features)
    assert Lattice(features).n_vertices == ReferenceLattice(features).n_vertices


@pytest.mark.parametrize("dim", range(1, 17))
def test_a_point_on_a_lattice_vertex_touches_one_simplex(dim: int) -> None:
    """At the origin all offsets are equal; the lower index ranks first: the simplex is defined."""
    origin = np.zeros((3, dim), np.float32)
    assert Lattice(origin).n_vertices == dim + 1 == ReferenceLattice(origin).n_vertices


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8])
def test_ties_go_the_reference_s_way(dim: int) -> None:
    """The origin lies in many simplices: which one it takes shows in what it shares with others."""
    rng = np.random.default_rng(dim)
    for _ in range(10):
        near = clear_of_ties(rng.normal(scale=0.2, size=(2, dim)).astype(np.float32))
        features = np.vstack([near, np.zeros((1, dim), np.float32)])
        assert Lattice(features).n_vertices == ReferenceLattice(features).n_vertices


@pytest.mark.parametrize("dim", [1, 2, 5, 8])
def test_fill_adds_vertices_and_never_removes_any(dim: int) -> None:
    """The more neighbours asked for, the fewer vertices are added."""
    features = np.random.default_rng(dim).normal(size=(200, dim)).astype(np.float32)
    counts = [Lattice(features, fill=fill).n_vertices for fill in range(1, 2 * dim + 3)]
    touched = Lattice(features).n_vertices
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > touched
    assert counts[-1] >= touched  # hardly any position has all 2 (d + 1)


def two_clusters(dim: int, apart: float) -> tuple[Array, Array]:
    """20 + 20 points around 0 and around ``apart`` elevated units along the first axis."""
    rng = np.random.default_rng(dim)
    features = rng.normal(scale=0.5, size=(40, dim))
    is_far = np.arange(40) >= 20
    features[is_far, 0] += apart / unit_of_first_axis(dim)
    return features.astype(np.float32), is_far


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("wraps", [1, 2, 3, 4])
def test_clusters_where_16_bit_keys_wrap_do_not_meet(dim: int, wraps: int) -> None:
    """65536 units apart 16-bit keys coincide (d = 1, 3, 7: at every wrap) and clusters mix."""
    features, is_far = two_clusters(dim, wraps * WRAP_OF_INT16)
    matrix = lattice_matrix(features)
    assert np.all(matrix[np.ix_(is_far, ~is_far)] == 0)
    assert np.all(matrix[np.ix_(~is_far, is_far)] == 0)
    near = lattice_matrix(features[~is_far])
    # Alone or not, the near cluster is filtered alike; only the order of summation may differ.
    np.testing.assert_allclose(matrix[np.ix_(~is_far, ~is_far)], near, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bits", [17, 18, 19])
def test_clusters_at_other_powers_of_two_do_not_meet(bits: int) -> None:
    """Wherever a narrower packed field would wrap, as far out as float32 resolves the lattice."""
    for dim in (1, 2, 3, 5):
        features, is_far = two_clusters(dim, float(2**bits))
        matrix = lattice_matrix(features)
        assert np.all(matrix[np.ix_(is_far, ~is_far)] == 0)


def corners_of_a_box(dim: int, half_width: float, seed: int) -> Array:
    """Pairs of near points at random corners of a box: wide keys that must find their pair."""
    rng = np.random.default_rng(seed)
    corners = rng.choice([-half_width, half_width], size=(20, dim))
    pairs = np.repeat(corners, 2, axis=0) + rng.normal(scale=0.2, size=(40, dim))
    return clear_of_ties(pairs.astype(np.float32))


@pytest.mark.parametrize(
    ("dim", "half_width"), [(3, 3e4), (5, 100.0), (5, 2000.0), (6, 800.0), (8, 300.0), (16, 20.0)]
)
def test_keys_wider_than_64_bits_are_exact(dim: int, half_width: float) -> None:
    """Vertices and their neighbours are found whatever the width of the key."""
    features = corners_of_a_box(dim, half_width, seed=dim)
    assert Lattice(features).n_vertices == ReferenceLattice(features).n_vertices
    reference = ReferenceLattice(features).matrix()
    matrix = lattice_matrix(features)
    # The pattern of who meets whom is exact; the values lose what float32 loses at this distance.
    meets = reference > 1e-6 * reference.max()
    assert np.all(matrix[meets] > 0)
    assert np.all(matrix[reference == 0] == 0)


@pytest.mark.parametrize("dim", [1, 3, 5, 16])
@pytest.mark.parametrize("axis", ["first", "last"])
def test_features_too_wide_for_exact_keys_are_an_error(dim: int, axis: str) -> None:
    """Where float32 cannot tell points a sigma apart, or keys overflow: an error, never a wrap."""
    column = 0 if axis == "first" else dim - 1
    features = np.zeros((4, dim), np.float32)
    features[1, column] = 1e12
    with pytest.raises(ValueError, match=r"sigma"):
        Lattice(features)


def test_features_that_are_all_huge_but_close_are_an_error_or_exact() -> None:
    """A large offset is no large range, yet float32 has no digits left at 1e12."""
    with pytest.raises(ValueError, match=r"sigma"):
        Lattice(np.full((4, 3), 1e12, np.float32))


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_the_first_bad_feature_is_named_on_any_number_of_threads(threads: int) -> None:
    features = np.zeros((60_000, 2), np.float32)
    features[[4990, 5001, 20_000, 59_999], 1] = np.nan
    with pytest.raises(ValueError, match="4990"):
        Lattice(features, threads=threads)


def test_filling_beyond_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In many dimensions a ring has far more vertices than points."""
    monkeypatch.setattr("crfseg._memory.available", lambda: 10_000_000)
    features = np.random.default_rng(7).uniform(0, 40, (2000, 12))
    with pytest.raises(MemoryError, match=r"\[Lattice\] filling a lattice of 12 dimensions needs"):
        Lattice(features, fill=1)
    assert Lattice(features, fill=0).n_vertices > 2000
