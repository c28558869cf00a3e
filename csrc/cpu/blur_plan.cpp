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

Chains find_shared(const Lattice& lattice) {
  const std::uint32_t* begin = lattice.gather_begin.data();
  std::int64_t n_entries = 0;
  for (std::int64_t v = 0; v < lattice.n_vertices; ++v) {
    n_entries += begin[v + 1] - begin[v] > 1 ? begin[v + 1] - begin[v] : 0;
  }
  Chains chains(n_entries);
  std::uint32_t* entry = chains.data();
  for (std::int64_t v = 0; v < lattice.n_vertices; ++v) {
    if (begin[v + 1] - begin[v] < 2) continue;
    for (std::uint32_t i = begin[v]; i < begin[v + 1]; ++i) {
      *entry++ = lattice.gather_row[i] | (i + 1 < begin[v + 1] ? linked : 0);
    }
  }
  chains.cut();
  return chains;
}

// Chains along an axis in the order of their first vertices, which keeps what lies close together
// in images close together in time.
Chains find_chains(const Lattice& lattice, std::int64_t axis,
                   const std::vector<std::uint32_t>& homes) {
  const std::int64_t n = lattice.n_vertices;
  const auto none = static_cast<std::uint32_t>(n);
  const std::uint32_t* next = lattice.neighbours.data() + axis * n * 2;
  std::int64_t n_entries = 0, n_chains = 0;
  for (std::int64_t v = 0; v < n; ++v) {
    n_entries += static_cast<std::int64_t>((next[2 * v] != none) | (next[2 * v + 1] != none));
    n_chains += static_cast<std::int64_t>((next[2 * v] != none) & (next[2 * v + 1] == none));
  }
  Chains chains(n_entries);
  // The first vertices wait at the end of the list, found without a jump: each vertex is written
  // there and stays if it is one. Chains, of two vertices or more, do not overtake them.
  std::uint32_t* first = chains.data() + n_entries - n_chains;
  std::int64_t found = 0;
  for (std::int64_t v = 0; v < n; ++v) {
    first[found] = static_cast<std::uint32_t>(v);
    found += static_cast<std::int64_t>((next[2 * v] != none) & (next[2 * v + 1] == none));
  }
  std::uint32_t* entry = chains.data();
  for (std::int64_t i = 0; i < n_chains; ++i) {
    std::int64_t v = first[i];
    for (; next[2 * v] != none; v = next[2 * v]) *entry++ = homes[v] | linked;
    *entry++ = homes[v];
  }
  chains.cut();
  return chains;
}

}  // namespace

Chains::Chains(std::int64_t n_entries) : entries_(n_entries + kernels::lookahead) {
  std::fill(entries_.end() - kernels::lookahead, entries_.end(), 0U);
}

void Chains::cut() {
  const std::int64_t n = entries_.size() - kernels::lookahead, grain = 2048;
  for (std::int64_t at = 0; at < n;) {
    at = std::min(at + grain, n);
    while ((entries_[at - 1] & linked) != 0) ++at;
    cuts_.push_back(at);
  }
}

BlurPlan::BlurPlan(const Lattice& lattice, int threads)
    : axes(static_cast<std::size_t>(lattice.dim) + 1) {
  const std::vector<std::uint32_t> homes = find_homes(lattice, &n_rows);
  parallel_for(lattice.dim + 2, threads, [&](std::int64_t i) {
    if (i <= lattice.dim) {
      axes[i] = find_chains(lattice, i, homes);
    } else {
      shared = find_shared(lattice);
    }
  });
}

std::int64_t BlurPlan::nbytes() const {
  std::int64_t sum = shared.nbytes();
  for (const Chains& axis : axes) sum += axis.nbytes();
  return sum;
}

}  // namespace crfseg
