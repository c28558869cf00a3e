// SPDX-License-Identifier: MIT
#include "cpu/blur_plan.h"

#include <algorithm>

#include "cpu/kernels/kernels.h"
#include "error.h"
#include "lattice.h"
#include "parallel.h"

namespace crfseg {
namespace {

using kernels::linked;

// The home of each vertex; counts the rows that filled vertices need.
std::vector<std::uint32_t> find_homes(const Lattice& lattice, std::int64_t* n_rows) {
  const std::uint32_t* begin = lattice.gather_begin.data();
  std::vector<std::uint32_t> homes(static_cast<std::size_t>(lattice.n_vertices));
  *n_rows = lattice.n_local();
  for (std::int64_t v = 0; v < lattice.n_vertices; ++v) {
    homes[v] = begin[v] < begin[v + 1] ? lattice.gather_row[begin[v]]
                                       : static_cast<std::uint32_t>((*n_rows)++);
  }
  if (*n_rows >= static_cast<std::int64_t>(linked)) {
    throw Error("a lattice of 2^31 vertices and more cannot be blurred");
  }
  return homes;
}

std::vector<std::uint32_t> find_shared(const Lattice& lattice) {
  std::vector<std::uint32_t> entries;
  for (std::int64_t v = 0; v < lattice.n_vertices; ++v) {
    const std::uint32_t begin = lattice.gather_begin[v], end = lattice.gather_begin[v + 1];
    if (end - begin < 2) continue;
    for (std::uint32_t i = begin; i < end; ++i) {
      entries.push_back(lattice.gather_row[i] | (i + 1 < end ? linked : 0));
    }
  }
  return entries;
}

// Chains in the order of their first vertices, which keeps what lies close together in images close
// together in time.
std::vector<std::uint32_t> find_chains(const Lattice& lattice, int axis,
                                       const std::vector<std::uint32_t>& homes) {
  const auto none = static_cast<std::uint32_t>(lattice.n_vertices);
  const std::uint32_t* neighbours = lattice.neighbours.data() + axis * lattice.n_vertices * 2;
  // No jumps in here: where chains begin is hard to foresee.
  std::vector<std::uint32_t> starts(static_cast<std::size_t>(none) + 1);
  std::size_t n_starts = 0, n_single = 0;
  for (std::uint32_t v = 0; v < none; ++v) {
    const bool forth = neighbours[2 * std::int64_t{v}] != none;
    const bool back = neighbours[2 * std::int64_t{v} + 1] != none;
    starts[n_starts] = v;
    n_starts += static_cast<std::size_t>(forth && !back);
    n_single += static_cast<std::size_t>(!forth && !back);
  }
  std::vector<std::uint32_t> entries;
  entries.reserve(none - n_single);
  for (std::size_t i = 0; i < n_starts; ++i) {
    std::uint32_t v = starts[i];
    for (std::uint32_t next; (next = neighbours[2 * std::int64_t{v}]) != none; v = next) {
      entries.push_back(homes[v] | linked);
    }
    entries.push_back(homes[v]);
  }
  return entries;
}

}  // namespace

Chains::Chains(const std::vector<std::uint32_t>& entries) {
  const auto n = static_cast<std::int64_t>(entries.size());
  entries_.resize(n + kernels::lookahead);
  std::fill(std::copy(entries.begin(), entries.end(), entries_.begin()), entries_.end(), 0U);
  const std::int64_t grain = 2048;
  for (std::int64_t cut = 0; cut < n;) {
    cut = std::min(cut + grain, n);
    while ((entries[cut - 1] & linked) != 0) ++cut;
    cuts_.push_back(cut);
  }
}

BlurPlan::BlurPlan(const Lattice& lattice, int threads)
    : axes(static_cast<std::size_t>(lattice.dim) + 1) {
  const std::vector<std::uint32_t> homes = find_homes(lattice, &n_rows);
  parallel_for(lattice.dim + 2, threads, [&](std::int64_t i) {
    if (i > lattice.dim) {
      shared = Chains(find_shared(lattice));
    } else {
      axes[i] = Chains(find_chains(lattice, static_cast<int>(i), homes));
    }
  });
}

std::int64_t BlurPlan::nbytes() const {
  std::int64_t sum = shared.nbytes();
  for (const Chains& axis : axes) sum += axis.nbytes();
  return sum;
}

}  // namespace crfseg
