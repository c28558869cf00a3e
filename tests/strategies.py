# SPDX-License-Identifier: MIT
"""Random problems for hypothesis: clouds of features and whole CRFs on them.

Hypothesis draws the few numbers that matter (dimension, size, density, seed) and numpy the rest, so
that examples are cheap and shrink to small sizes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from reference import NORMALIZATIONS
from reference_lattice import clear_of_ties

Array = np.ndarray[Any, Any]

SEEDS = st.integers(0, 2**32 - 1)
# Standard deviations of the cloud in units of sigma: all points in one simplex, overlapping, apart.
SPREADS = st.sampled_from([0.02, 0.3, 1.0, 3.0, 20.0])
OFFSETS = st.sampled_from([0.0, -7.3, 250.0])
# Rounds of filling in vertices; (1, 4) is what accuracy="fine" does.
FILLS = st.sampled_from([0, 1, 2, 3, (1, 4), (3, 2)])


@st.composite
def clouds(
    draw: st.DrawFn, *, max_dim: int = 8, max_points: int = 60, passes: int | None = None
) -> Array:
    """(N, d) float32 features, some of them equal, none on a face of a simplex.

    ``passes``: of the lattice that will hold them, which decides where its faces are; None: 1.
    """
    dim = draw(st.integers(1, max_dim))
    n_points = draw(st.integers(1, max_points if dim <= 5 else min(max_points, 25)))
    rng = np.random.default_rng(draw(SEEDS))
    features = rng.normal(scale=draw(SPREADS), size=(n_points, dim)) + draw(OFFSETS)
    features = features[rng.integers(n_points, size=n_points)] if draw(st.booleans()) else features
    features = clear_of_ties(features.astype(np.float32), passes or 1)
    assume(len(features) > 0)
    return features


@dataclass(frozen=True)
class Problem:
    """A CRF on one or two kernels. unary (C, N); features, weights, compatibilities per kernel."""

    unary: Array
    features: tuple[Array, ...]
    weights: tuple[float, ...]
    compatibilities: tuple[Any, ...]
    normalization: str
    exclude_self: bool

    @property
    def n_labels(self) -> int:
        return int(self.unary.shape[0])


def _compatibility(kind: str, n_labels: int, rng: np.random.Generator) -> Any:
    if kind == "potts":
        return None
    if kind == "vector":
        return rng.uniform(0, 2, n_labels)
    return rng.normal(size=(n_labels, n_labels))  # not symmetric, attraction and repulsion mixed


@st.composite
def problems(draw: st.DrawFn, *, max_dim: int = 5, max_points: int = 40) -> Problem:
    """CRFs in which no term swamps the unary: Q stays soft enough to show an error."""
    first = draw(clouds(max_dim=max_dim, max_points=max_points))
    n_points = len(first)
    rng = np.random.default_rng(draw(SEEDS))
    features = [first]
    if draw(st.booleans()):
        features.append(rng.normal(size=(n_points, draw(st.integers(1, 3)))).astype(np.float32))
    n_labels = draw(st.integers(1, 6))
    unary = rng.normal(scale=draw(st.sampled_from([0.1, 1.0, 3.0])), size=(n_labels, n_points))
    normalization = draw(st.sampled_from(NORMALIZATIONS))
    # Unnormalised sums grow with the number of points that overlap.
    bound = 2.0 / n_points if normalization == "none" else 2.0
    kinds = draw(st.lists(st.sampled_from(["potts", "vector", "matrix"]), min_size=2, max_size=2))
    return Problem(
        unary.astype(np.float32),
        tuple(features),
        tuple(float(w) for w in rng.uniform(0, bound, len(features))),
        tuple(_compatibility(kind, n_labels, rng) for kind in kinds[: len(features)]),
        normalization,
        draw(st.booleans()),
    )
