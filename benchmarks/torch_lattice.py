# SPDX-License-Identifier: MIT
"""The permutohedral lattice in plain PyTorch: what a library without kernels of its own can do.

Vertices are the distinct keys of all corners (``torch.unique``), splatting adds to them
(``index_add_``), and neighbours are looked up once, by ``searchsorted``. A batch is one lattice,
the item the highest digit of a key. ``refine`` is mean field over a spatial and a bilateral
lattice, as ``crfseg.refine`` computes it with Potts' model. Products and sums are rounded one by
one, as the native core does it: both find the same vertices.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Simplices(NamedTuple):
    """Of every point: quotients and ranks of the coordinates, weights of the corners."""

    quotient: Tensor  # (P, d + 1) int64
    rank: Tensor  # (P, d + 1) int64
    weight: Tensor  # (P, d + 1) float32, by the corner's remainder


def scales(dim: int) -> Tensor:
    """(d,) what features are multiplied by before they are elevated."""
    deviation = (dim + 1) * math.sqrt(2.0 * 0.25 + 1.0 / 6.0)
    axes = torch.arange(dim, dtype=torch.float64)
    return (deviation / ((axes + 1) * (axes + 2)).sqrt()).float()


def elevate(features: Tensor) -> Tensor:
    """(P, d) -> (P, d + 1), on the plane where coordinates add up to 0."""
    dim = features.shape[1]
    scaled = features * scales(dim).to(features.device)
    elevated = torch.empty(len(features), dim + 1, device=features.device)
    total = torch.zeros_like(scaled[:, 0])
    for j in range(dim, 0, -1):
        elevated[:, j] = total - scaled[:, j - 1] * float(j)
        total = total + scaled[:, j - 1]
    elevated[:, 0] = total
    return elevated


def find_simplices(elevated: Tensor) -> Simplices:
    """The simplex around every elevated point."""
    corners = elevated.shape[1]
    inverse = torch.tensor(1.0) / corners
    rounded = torch.round(elevated * inverse.to(elevated.device))
    quotient = rounded.long()
    difference = elevated - rounded * float(corners)
    order = difference.sort(dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order)
    places = torch.arange(corners, device=elevated.device).expand_as(order)
    rank.scatter_(1, order, places)
    # Rounding may leave the plane: the ranks tell which coordinates to move back.
    rank += quotient.sum(dim=1, keepdim=True)
    turn = (rank < 0).long() - (rank >= corners).long()
    rank += corners * turn
    quotient += turn
    difference = difference - turn.float() * float(corners)
    sorted_ = torch.empty_like(difference).scatter_(1, rank, difference)
    sorted_ = sorted_ * inverse.to(elevated.device)
    weight = sorted_.flip(1)
    weight[:, 1:] = weight[:, 1:] - sorted_.flip(1)[:, :-1]
    weight[:, 0] = weight[:, 0] - sorted_[:, 0] + 1.0
    return Simplices(quotient, rank, weight)


class TorchLattice:
    """Built once for (B, N, d) features divided by their sigmas; filters (B N, C) rows."""

    def __init__(self, features: Tensor) -> None:
        self.n_items, n_points, self.dim = features.shape
        rows = features.reshape(-1, self.dim).float()
        simplices = find_simplices(elevate(rows))
        item = torch.arange(self.n_items, device=rows.device).repeat_interleave(n_points)
        strides, lowest = self._digits(simplices.quotient)
        keys = self._keys(simplices, item, strides, lowest)
        self.keys, self.corner = torch.unique(keys, return_inverse=True)
        self.weight = simplices.weight
        self.n_vertices = len(self.keys)
        self.neighbours = self._neighbours(strides)
        self._strides, self._lowest = strides, lowest

    def _digits(self, quotient: Tensor) -> tuple[Tensor, Tensor]:
        """How coordinates 0 .. d - 1 are packed: their weights in a key, and what they begin at."""
        corners = self.dim + 1
        # Corners lie up to d from the first one, their neighbours another d.
        lowest = corners * quotient.amin(0)[:-1] - 2 * corners
        span = corners * quotient.amax(0)[:-1] + 3 * corners - lowest
        sizes = [int(size) for size in span.tolist()]
        if math.prod(sizes) * self.n_items >= 2**63:
            raise ValueError("these features are too wide for keys of 63 bits")
        strides = [math.prod(sizes[:i]) for i in range(corners)]
        return torch.tensor(strides, device=quotient.device), lowest

    def _keys(self, simplices: Simplices, item: Tensor, strides: Tensor, lowest: Tensor) -> Tensor:
        """(P, d + 1) the key of every corner."""
        corners = self.dim + 1
        digits, top = strides[:-1], strides[-1]
        from_lowest = corners * simplices.quotient[:, :-1] - lowest
        first = (from_lowest * digits).sum(1) + item * top
        keys = []
        for k in range(corners):
            is_behind = (simplices.rank[:, :-1] > self.dim - k).long()
            keys.append(first + k * digits.sum() - corners * (is_behind * digits).sum(1))
        return torch.stack(keys, dim=1)

    def _neighbours(self, strides: Tensor) -> Tensor:
        """(d + 1, 2, M) vertices a step forth and back along every axis; M where there is none."""
        found = []
        digits = strides[:-1]
        for axis in range(self.dim + 1):
            step = digits.sum()
            if axis < self.dim:
                step = step - (self.dim + 1) * digits[axis]
            found += [self._find(self.keys + step), self._find(self.keys - step)]
        return torch.stack(found).reshape(self.dim + 1, 2, self.n_vertices)

    def _find(self, keys: Tensor) -> Tensor:
        at = torch.searchsorted(self.keys, keys).clamp_(max=self.n_vertices - 1)
        return torch.where(self.keys[at] == keys, at, self.n_vertices)

    def repeated(self, n_items: int) -> "TorchLattice":
        """The same for a batch of items that all have the features it was built for."""
        other = object.__new__(TorchLattice)
        other.n_items, other.dim, m = n_items, self.dim, self.n_vertices
        other.n_vertices = n_items * m
        first = m * torch.arange(n_items, device=self.corner.device)
        other.corner = (self.corner[None] + first[:, None, None]).reshape(-1, self.dim + 1)
        other.weight = self.weight.repeat(n_items, 1)
        moved = self.neighbours[:, :, None] + first[:, None]
        is_absent = (self.neighbours == m)[:, :, None]
        other.neighbours = torch.where(is_absent, other.n_vertices, moved).flatten(2)
        return other

    def coordinates(self) -> Tensor:
        """(M, d + 1) of every vertex, of one item."""
        digits, rest = [], self.keys
        for stride in reversed(self._strides[:-1].tolist()):
            digits.insert(0, rest // stride)
            rest = rest % stride
        found = torch.stack(digits, dim=1) + self._lowest
        return torch.cat([found, -found.sum(1, keepdim=True)], dim=1)

    def filter(self, values: Tensor) -> Tensor:
        """Splat, blur, slice; without normalisation or gain."""
        sums = values.new_zeros(self.n_vertices + 1, values.shape[1])  # the last one stays 0
        for k in range(self.dim + 1):
            sums.index_add_(0, self.corner[:, k], self.weight[:, k, None] * values)
        for forth, back in self.neighbours:
            sums[:-1] = 0.5 * sums[:-1] + 0.25 * (sums[forth] + sums[back])
        out = torch.zeros_like(values)
        for k in range(self.dim + 1):
            out += self.weight[:, k, None] * sums[self.corner[:, k]]
        return out


class Kernel:
    """A symmetrically normalised lattice: n^-1/2 K n^-1/2 with n = K 1."""

    def __init__(self, lattice: TorchLattice) -> None:
        self.lattice = lattice
        ones = torch.ones(len(lattice.corner), 1, device=lattice.weight.device)
        self.scale = lattice.filter(ones).rsqrt()

    def filter(self, values: Tensor) -> Tensor:
        return self.scale * self.lattice.filter(self.scale * values)


def features_of(image: Tensor, sigma_xy: float, sigma_rgb: float | None) -> Tensor:
    """(N, H, W, 3) -> (N, H W, 5) x, y and colours over their sigmas; or (1, H W, 2) without."""
    n_items, height, width, _ = image.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=image.device),
        torch.arange(width, device=image.device),
        indexing="ij",
    )
    places = torch.stack([x, y], dim=-1).reshape(1, -1, 2).float() * inverse(sigma_xy)
    if sigma_rgb is None:
        return places
    colours = image.reshape(n_items, -1, 3).float() * inverse(sigma_rgb)
    return torch.cat([places.expand(n_items, -1, -1), colours], dim=2)


def inverse(sigma: float) -> float:
    """1 / sigma as float32 has it."""
    return float(torch.tensor(1.0 / sigma, dtype=torch.float32))


def refine(
    logits: Tensor,
    image: Tensor,
    *,
    spatial: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> Tensor:
    """(N, C, H, W) logits, (N, H, W, 3) images -> marginals (N, C, H, W); builds the lattices."""
    n_items, n_labels, height, width = logits.shape
    places = TorchLattice(features_of(image, spatial[0], None)).repeated(n_items)
    colours = TorchLattice(features_of(image, bilateral[0], bilateral[1]))
    kernels = [(spatial[1], Kernel(places)), (bilateral[2], Kernel(colours))]
    rows = logits.float().permute(0, 2, 3, 1).reshape(-1, n_labels).contiguous()
    q = rows.softmax(1)
    for _ in range(iterations):
        z = rows.clone()
        for weight, kernel in kernels:
            z += weight * kernel.filter(q)
        q = z.softmax(1)
    return q.reshape(n_items, height, width, n_labels).permute(0, 3, 1, 2)
