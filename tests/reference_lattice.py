# SPDX-License-Identifier: MIT
"""A slow and obvious permutohedral lattice in float64: integer vertices in a Python dict.

Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010), in
the convention of Krähenbühl & Koltun's code: same scale, same rounding, same order of the blur
axes, and a neighbour that does not exist reads as zero. Two variations that their code has not:

* ``passes`` P: the blur [s, 1 - 2s, s] runs P times along each axis before the next axis, on a
  lattice that is finer by as much: variance (2 s P + 1/6) (d+1)^2, times the square of a stretch.
  s = 1/4 and no stretch, so 2/3 (d+1)^2 for P = 1, except where ``BLUR`` says otherwise.
* ``fill`` m >= 1: every lattice position with at least m of its 2 (d+1) neighbours among the
  vertices touched by points becomes a vertex too; a list repeats that, round by round.

No gain is taken out: ``matrix()`` is slice @ blur @ splat as it falls.
"""

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Vertex = tuple[int, ...]
Fill = int | Sequence[int]

# (side s, stretch) by passes: two passes come closer to a Gaussian when a little less wide.
BLUR = {2: (0.24, 1.03)}
PLAIN_BLUR = (0.25, 1.0)


def elevate(features: Array, passes: int = 1) -> Array:
    """(N, d) features -> (N, d+1) positions in the hyperplane of zero sum."""
    _, d = features.shape
    i = np.arange(d)
    side, stretch = BLUR.get(passes, PLAIN_BLUR)
    scale = stretch * sqrt(2 * side * passes + 1 / 6) * (d + 1) / np.sqrt((i + 1) * (i + 2))
    c = np.asarray(features, np.float64) * scale
    elevated = np.empty((len(c), d + 1))
    for j in range(d + 1):
        elevated[:, j] = c[:, j:].sum(axis=1) - (j * c[:, j - 1] if j else 0.0)
    return elevated


def simplex(position: Array) -> tuple[list[Vertex], list[float]]:
    """The d+1 vertices around one elevated position, remainder 0 first, and its weights there."""
    d = len(position) - 1
    nearest = (d + 1) * np.rint(position / (d + 1)).astype(np.int64)
    excess = int(nearest.sum()) // (d + 1)
    offset = position - nearest
    lower_first = np.argsort(-offset, kind="stable")  # of equal offsets the lower index ranks first
    rank = [int(place) for place in np.argsort(lower_first)]
    for i in range(d + 1):  # bring the nearest remainder-0 point back into the hyperplane
        rank[i] += excess
        turn = d + 1 if rank[i] < 0 else -(d + 1) if rank[i] > d else 0
        rank[i] += turn
        nearest[i] += turn
    barycentric = [0.0] * (d + 2)
    for i in range(d + 1):
        share = (position[i] - nearest[i]) / (d + 1)
        barycentric[d - rank[i]] += share
        barycentric[d - rank[i] + 1] -= share
    barycentric[0] += 1 + barycentric[d + 1]
    vertices = [
        tuple(int(nearest[i]) + (k if rank[i] <= d - k else k - (d + 1)) for i in range(d + 1))
        for k in range(d + 1)
    ]
    return vertices, barycentric[: d + 1]


def neighbours(vertex: Vertex, axis: int) -> tuple[Vertex, Vertex]:
    """One lattice step forth and back along an axis."""
    d = len(vertex) - 1
    step = [d if i == axis else -1 for i in range(d + 1)]
    return (
        tuple(v + s for v, s in zip(vertex, step, strict=True)),
        tuple(v - s for v, s in zip(vertex, step, strict=True)),
    )


class ReferenceLattice:
    """Build once, then ``filter`` and ``filter_transpose`` like ``crfseg.Lattice``; no gain."""

    def __init__(self, features: Array, *, fill: Fill = 0, passes: int = 1) -> None:
        features = np.asarray(features)
        self.passes = passes
        self.dim = features.shape[1]
        self.elevated = elevate(features, passes)
        simplices = [simplex(position) for position in self.elevated]
        self.barycentric = np.array([weights for _, weights in simplices])
        index: dict[Vertex, int] = {}
        for vertices, _ in simplices:
            for vertex in vertices:
                index.setdefault(vertex, len(index))
        for at_least in [fill] if isinstance(fill, int) else fill:
            for vertex in self._missing(index, at_least) if at_least else []:
                index[vertex] = len(index)
        self.n_vertices = len(index)
        self._corners = np.array([[index[v] for v in vertices] for vertices, _ in simplices])
        absent = self.n_vertices  # one more row, always zero
        self._steps = [
            np.array([[index.get(n, absent) for n in neighbours(v, axis)] for v in index])
            for axis in range(self.dim + 1)
        ]

    def _missing(self, present: dict[Vertex, int], at_least: int) -> list[Vertex]:
        links = Counter(
            n for v in present for axis in range(self.dim + 1) for n in neighbours(v, axis)
        )
        return [v for v, count in links.items() if count >= at_least and v not in present]

    def _apply(self, values: Array, axes: list[int]) -> Array:
        side, _ = BLUR.get(self.passes, PLAIN_BLUR)
        vertex_values = np.zeros((self.n_vertices + 1, values.shape[1]))
        for k in range(self.dim + 1):
            np.add.at(vertex_values, self._corners[:, k], self.barycentric[:, k, None] * values)
        for axis in axes:
            forth, back = self._steps[axis].T
            for _ in range(self.passes):
                both = vertex_values[forth] + vertex_values[back]
                vertex_values[:-1] = (1 - 2 * side) * vertex_values[:-1] + side * both
        return np.einsum("nk,nkc->nc", self.barycentric, vertex_values[self._corners])

    def filter(self, values: Array) -> Array:
        """(N, C) -> (N, C): splat, blur along axes 0 .. d, slice."""
        return self._apply(np.asarray(values, np.float64), list(range(self.dim + 1)))

    def filter_transpose(self, values: Array) -> Array:
        """The adjoint: axes in reverse (the blur of an axis is symmetric, their product is not)."""
        return self._apply(np.asarray(values, np.float64), list(range(self.dim, -1, -1)))

    def matrix(self) -> Array:
        """(N, N) dense filter."""
        return self.filter(np.eye(len(self.elevated)))


def clear_of_ties(features: Array, passes: int = 1) -> Array:
    """The points that lie inside one simplex by more than float32 can blur.

    On a face the simplex, and with it the set of vertices, is decided by the last bit. Elevating
    sums d terms no larger than max |e| times the rank, so errors stay below a few (d+1) ulp of it.
    """
    elevated = elevate(features, passes)
    margin = 4 * np.finfo(np.float32).eps * elevated.shape[1] * (1 + np.abs(elevated).max())
    inside = [min(simplex(position)[1]) * elevated.shape[1] > margin for position in elevated]
    return features[np.array(inside, bool)]
