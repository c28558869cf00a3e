# SPDX-License-Identifier: MIT
"""The filter's values: equal to a slow lattice, linear, adjoint, invariant where it must be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crfseg import Lattice
from native import ISAS, calibration, instruction_set, lattice_matrix
from reference import NORMALIZATIONS, gaussian_kernel, normalize
from reference_lattice import Fill, ReferenceLattice, clear_of_ties, elevate
from strategies import FILLS, SEEDS, Array, clouds

EPS = float(np.finfo(np.float32).eps)


def rounding(features: Array, passes: int = 1) -> float:
    """Relative error of the filter that float32 explains.

    Elevated coordinates are off by a few ulp of the largest, hence every barycentric weight by a
    few eps * max |e|; splat and slice use d + 1 of them each, the blur adds (d + 1) P roundings.
    """
    size = features.shape[1] + 1
    return 8 * EPS * (size * (passes + 1) + float(np.abs(elevate(features, passes)).max()))


@given(st.data(), FILLS, st.integers(1, 3))
def test_filter_is_the_reference_s(data: st.DataObject, fill: Fill, passes: int) -> None:
    """Both directions, up to the one factor that calibrates "none" for (dim, fill, passes)."""
    features = data.draw(clouds(passes=passes, max_points=40))
    values = np.random.default_rng(data.draw(SEEDS)).normal(size=(len(features), 3))
    lattice = Lattice(features, fill=fill, passes=passes)
    reference = ReferenceLattice(features, fill=fill, passes=passes)
    gain = calibration(lattice.dim, fill, passes)
    # Relative to what the sum would be without cancellation.
    bound = rounding(features, passes) * reference.filter(np.abs(values)).max() / gain
    values32 = values.astype(np.float32)
    np.testing.assert_allclose(
        lattice.filter(values32), reference.filter(values32) / gain, rtol=0, atol=bound
    )
    bound = rounding(features, passes) * reference.filter_transpose(np.abs(values)).max() / gain
    np.testing.assert_allclose(
        lattice.filter_transpose(values32),
        reference.filter_transpose(values32) / gain,
        rtol=0,
        atol=bound,
    )


@pytest.mark.parametrize("dim", [10, 13, 16])
def test_filter_is_the_reference_s_in_many_dimensions(dim: int) -> None:
    features = np.random.default_rng(dim).normal(scale=0.3, size=(40, dim)).astype(np.float32)
    features = clear_of_ties(features)
    reference = ReferenceLattice(features).matrix() / calibration(dim, 0, 1)
    bound = rounding(features) * reference.max()
    np.testing.assert_allclose(lattice_matrix(features), reference, rtol=0, atol=bound)


def isolated_points(dim: int, n_points: int) -> Array:
    """Random positions within a simplex each, 60 sigma from one another."""
    rng = np.random.default_rng(dim)
    features = rng.uniform(-5, 5, size=(n_points, dim))
    # On a grid in up to three axes, which keeps coordinates small and keys short.
    side = int(np.ceil(n_points ** (1 / min(dim, 3))))
    for axis in range(min(dim, 3)):
        features[:, axis] += 60.0 * (np.arange(n_points) // side**axis % side)
    return features.astype(np.float32)


@pytest.mark.parametrize(("fill", "passes"), [(0, 1), (1, 1), (2, 1), (0, 2), ((1, 4), 2), (2, 3)])
@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8])
def test_an_isolated_pair_at_distance_0_has_k_1(dim: int, fill: Fill, passes: int) -> None:
    """On average over where in its simplex a point lies, with which k(0) varies."""
    features = isolated_points(dim, 300 if fill and dim == 8 else 3000)
    k0 = Lattice(features, fill=fill, passes=passes).filter(np.ones(len(features), np.float32))
    error_of_mean = k0.std() / np.sqrt(len(k0))
    assert k0.mean() == pytest.approx(1.0, abs=0.005 + 4 * error_of_mean)


@pytest.mark.parametrize(("dim", "bound"), [(1, 0.02), (2, 0.025), (3, 0.04), (5, 0.08)])
@pytest.mark.parametrize("normalization", ["before", "after", "symmetric"])
def test_normalised_filter_is_near_the_exact_gaussian(
    dim: int, bound: float, normalization: str
) -> None:
    """Relative L2 error on points that overlap well, N(0, 1) in each axis.

    The lattice replaces the Gaussian by a spline of about its width; published comparisons of this
    convention find 0.01-0.02 for d = 2, 3 and 0.02-0.04 for d = 5. The bounds are twice that.
    """
    rng = np.random.default_rng(dim)
    features = rng.normal(size=(1500, dim)).astype(np.float32)
    values = rng.uniform(size=(1500, 4)).astype(np.float32)
    exact = normalize(gaussian_kernel(features), normalization) @ values
    found = Lattice(features, normalization=normalization).filter(values)
    assert np.linalg.norm(found - exact) <= bound * np.linalg.norm(exact)


@given(st.data(), st.sampled_from(NORMALIZATIONS), FILLS, st.integers(1, 3))
def test_filter_transpose_is_the_adjoint(
    data: st.DataObject, normalization: str, fill: Fill, passes: int
) -> None:
    """<F x, y> = <x, F^T y>: gradients are right only if this holds."""
    features = data.draw(clouds())
    lattice = Lattice(features, fill=fill, passes=passes, normalization=normalization)
    rng = np.random.default_rng(data.draw(SEEDS))
    x, y = rng.normal(size=(2, len(features), 3)).astype(np.float32)
    forward, backward = lattice.filter(x), lattice.filter_transpose(y)
    # Relative to the norms, not to the product, which may be near zero. Both directions use the
    # very same weights, so features of any size cost nothing: 1e-6 is float32 summation alone.
    norm = np.linalg.norm
    norms = norm(forward) * norm(y) + norm(x) * norm(backward)
    lhs = (forward.astype(np.float64) * y).sum()
    rhs = (x.astype(np.float64) * backward).sum()
    assert lhs == pytest.approx(rhs, abs=1e-6 * float(norms))


@given(clouds(), st.sampled_from(NORMALIZATIONS), SEEDS)
def test_filter_is_linear(features: Array, normalization: str, seed: int) -> None:
    lattice = Lattice(features, normalization=normalization)
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, len(features), 2)).astype(np.float32)
    a, b = (np.float32(v) for v in rng.normal(size=2))
    scale = np.abs(lattice.filter(np.abs(a * x) + np.abs(b * y))).max()
    np.testing.assert_allclose(
        lattice.filter(a * x + b * y),
        a * lattice.filter(x) + b * lattice.filter(y),
        rtol=0,
        atol=1e-5 * scale,
    )


@given(clouds(), st.sampled_from(NORMALIZATIONS), SEEDS)
def test_order_of_points_does_not_matter(features: Array, normalization: str, seed: int) -> None:
    """Only the order of summation changes with the order of points."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(features))
    values = rng.uniform(size=(len(features), 2)).astype(np.float32)
    expected = Lattice(features, normalization=normalization).filter(values)[order]
    found = Lattice(features[order], normalization=normalization).filter(values[order])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def lattice_period(dim: int, passes: int, rng: np.random.Generator) -> Array:
    """(d,) translation of features that maps the lattice onto itself: E^-1 of a lattice vector."""
    embedding = elevate(np.eye(dim), passes).T  # (d+1, d)
    steps = np.full((dim + 1, dim + 1), -1.0) + (dim + 1) * np.eye(dim + 1)  # row j: axis j
    vector = rng.integers(-2, 3, dim + 1) @ steps
    return np.linalg.lstsq(embedding, vector, rcond=None)[0]


@given(st.data(), FILLS, st.integers(1, 3))
def test_translation_by_a_period_of_the_lattice_changes_nothing(
    data: st.DataObject, fill: Fill, passes: int
) -> None:
    """Such shifts permute vertices and keep the axes: other shifts move points within simplices."""
    features = data.draw(clouds(passes=passes, max_dim=6))
    period = lattice_period(features.shape[1], passes, np.random.default_rng(data.draw(SEEDS)))
    moved = (features + period).astype(np.float32)
    if len(clear_of_ties(moved, passes)) < len(moved):
        return  # rounding put a point on a face: either of two simplices is right
    here = Lattice(features, fill=fill, passes=passes)
    there = Lattice(moved, fill=fill, passes=passes)
    assert here.n_vertices == there.n_vertices
    values = np.random.default_rng(0).uniform(size=len(features)).astype(np.float32)
    expected = here.filter(values)
    # Moving rounds the features once more, by half an ulp of the largest.
    bound = (rounding(features, passes) + rounding(moved, passes)) * expected.max()
    np.testing.assert_allclose(there.filter(values), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("isa", ISAS)
def test_one_channel_and_many_agree(isa: str) -> None:
    """(N,) and every column of (N, C) go through the same sums, for each C the kernels split."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(300, 3)).astype(np.float32)
    lattice = Lattice(features)
    values = rng.normal(size=(300, 37)).astype(np.float32)
    columns = np.stack([lattice.filter(values[:, c]) for c in range(37)], axis=1)
    for n_channels in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 37):
        with instruction_set(isa):
            found = lattice.filter(values[:, :n_channels])
        assert found.shape == (300, n_channels)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, columns[:, :n_channels], rtol=0, atol=2e-5)


def test_values_are_read_whatever_their_strides() -> None:
    rng = np.random.default_rng(2)
    lattice = Lattice(rng.normal(size=(50, 2)).astype(np.float32))
    wide = rng.normal(size=(6, 100)).astype(np.float32)
    view = wide[::2, ::-2].T
    np.testing.assert_array_equal(lattice.filter(view), lattice.filter(np.ascontiguousarray(view)))


def test_a_single_point_keeps_its_value_when_normalised() -> None:
    for dim in range(1, 17):
        point = np.random.default_rng(dim).normal(size=(1, dim)).astype(np.float32)
        for normalization in ("before", "after", "symmetric"):
            value = Lattice(point, normalization=normalization).filter(np.array([2.5], np.float32))
            assert value[0] == pytest.approx(2.5, rel=1e-6)


@pytest.mark.filterwarnings("error")
def test_largest_floats_are_filtered_without_a_warning() -> None:
    """Their sum, by which NaN is looked for, is infinite; they are not."""
    far_apart = 100.0 * np.arange(4.0).reshape(4, 1)
    values = np.array([3e38, 3e38, -3e38, -3e38], np.float32)
    filtered = Lattice(far_apart, normalization="after").filter(values)
    np.testing.assert_allclose(filtered, values, rtol=1e-5)


def test_fill_takes_a_list_like_a_tuple() -> None:
    points = np.random.default_rng(0).normal(size=(50, 2))
    assert Lattice(points, fill=[1, 4]).n_vertices == Lattice(points, fill=(1, 4)).n_vertices
