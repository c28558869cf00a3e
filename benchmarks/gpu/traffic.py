# SPDX-License-Identifier: MIT
"""What an iteration moves between blocks and caches, counted: bytes by what they are for.

With the points' rows in their tiles (slots), a lattice's R rows of tiles and M vertices, d + 1
axes, and values of C labels padded to a multiple of four:
  unary    each slot's row is read
  slice    each tile's rows are read from the vertices
  corners  a vertex and a weight for each corner, and for the sums a slot of 16 bits and a weight
  sums     each tile's rows are written
  reduce   they are read, with their places, and the vertices are written
  blur     along each axis a vertex is read with those of its two neighbours there are, and written
"""

from dataclasses import dataclass

FLOAT, INDEX, SHORT = 4, 4, 2


@dataclass(frozen=True)
class Counts:
    """Of a built lattice; ``neighbours``: the share of the two per axis that are there."""

    dim: int
    n_points: int
    n_rows: int
    n_vertices: int
    neighbours: float


def bytes_of_iteration(lattices: list[Counts], n_slots: int, n_labels: int) -> dict[str, float]:
    """Of all lattices of a model, by what they are for."""
    row = FLOAT * -(-n_labels // 4) * 4
    found = {"unary": float(n_slots * row)}
    for one in lattices:
        corners = one.n_points * (one.dim + 1)
        per_vertex = (2 + 2 * one.neighbours) * row + 2 * INDEX
        parts = {
            "slice": one.n_rows * row,
            "corners": corners * (INDEX + FLOAT + SHORT + FLOAT),
            "sums": one.n_rows * row,
            "reduce": one.n_rows * (row + INDEX) + one.n_vertices * row,
            "blur": (one.dim + 1) * one.n_vertices * per_vertex,
        }
        for name, value in parts.items():
            found[name] = found.get(name, 0.0) + value
    return found
