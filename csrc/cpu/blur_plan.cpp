// SPDX-License-Identifier: MIT
#include "cpu/blur_plan.h"

#include <algorithm>
#include <utility>

#include "cpu/kernels/kernels.h"
#include "error.h"
#include "lattice.h"
#include "parallel.h"

namespace crfseg {
namespace {

using kernels::linked;

// The rows of each vertex, in order: the inverse of local_vertex.
struct RowsOfVertices {
  explicit RowsOfVertices(const Lattice& lattice)
      : begin(lattice.n_vertices + 1), row(lattice.n_local()) {
    std::fill(begin.begin(), begin.end(), 0U);
    const std::uint32_t* vertex = lattice.local_vertex.data();
    for (std::int64_t i = 0; i < row.size(); ++i) ++begin[vertex[i]];
    std::uint32_t sum = 0;
    for (std::uint32_t& first : begin) sum += std::exchange(first, sum);
    for (std::int64_t i = 0; i < row.size(); ++i) {
      row[begin[vertex[i]]++] = static_cast<std::uint32_t>(i);
    }
    for (std::int64_t v = lattice.n_vertices; v > 0; --v) begin[v] = begin[v - 1];
    begin[0] = 0;
  }

  std::uint32_t count(std::int64_t v) const { return begin[v + 1] - begin[v]; }

  Buffer<std::uint32_t> begin, row;
};

// The home of each vertex; counts the rows, those that filled vertices need among them.
Buffer<std::uint32_t> find_homes(const RowsOfVertices& rows, std::int64_t* n_rows) {
  Buffer<std::uint32_t> homes(rows.begin.size() - 1);
  *n_rows = rows.row.size();
  for (std::int64_t v = 0; v < homes.size(); ++v) {
    homes[v] =
        rows.count(v) > 0 ? rows.row[rows.begin[v]] : static_cast<std::uint32_t>((*n_rows)++);
  }
  if (*n_rows >= static_cast<std::int64_t>(linked)) {
    throw Error("a lattice of 2^31 vertices and more cannot be blurred");
  }
  return homes;
}

Chains find_shared(const RowsOfVertices& rows) {
  const std::int64_t n_vertices = rows.begin.size() - 1;
  std::int64_t n_entries = 0;
  for (std::int64_t v = 0; v < n_vertices; ++v) n_entries += rows.count(v) > 1 ? rows.count(v) : 0;
  Chains chains(n_entries);
  std::uint32_t* entry = chains.data();
  for (std::int64_t v = 0; v < n_vertices; ++v) {
    if (rows.count(v) < 2) continue;
    for (std::uint32_t i = rows.begin[v]; i < rows.begin[v + 1]; ++i) {
      *entry++ = rows.row[i] | (i + 1 < rows.begin[v + 1] ? linked : 0);
    }
  }
  chains.cut();
  return chains;
}

// Writes chains one behind the other. A step waits for the memory of the vertex it leads to, so
// several chains are followed at a time.
void follow(const std::uint32_t* homes, const std::uint32_t* next, std::uint32_t none,
            const std::uint32_t* first, std::int64_t n_chains, std::uint32_t* entry) {
  constexpr int together = 8;
  std::vector<std::uint32_t> walked[together];
  for (std::int64_t begin = 0; begin < n_chains; begin += together) {
    const int count = static_cast<int>(std::min<std::int64_t>(together, n_chains - begin));
    std::uint32_t at[together];
    for (int i = 0; i < count; ++i) {
      at[i] = first[begin + i];
      walked[i].clear();
    }
    for (bool goes_on = true; goes_on;) {
      goes_on = false;
      for (int i = 0; i < count; ++i) {
        if (at[i] == none) continue;
        const std::uint32_t following = next[2 * std::int64_t{at[i]}];
        walked[i].push_back(homes[at[i]] | (following != none ? linked : 0));
        at[i] = following;
        goes_on = true;
      }
    }
    for (int i = 0; i < count; ++i) entry = std::copy(walked[i].begin(), walked[i].end(), entry);
  }
}

// Chains along an axis in the order of their first vertices, which keeps what lies close together
// in images close together in time.
Chains find_chains(const Buffer<std::uint32_t>& homes, const std::uint32_t* next) {
  const std::int64_t n = homes.size();
  const auto none = static_cast<std::uint32_t>(n);
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
  follow(homes.data(), next, none, first, n_chains, chains.data());
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

BlurPlan::BlurPlan(const Lattice& lattice, const Buffer<std::uint32_t>& neighbours, int threads)
    : axes(static_cast<std::size_t>(lattice.dim) + 1) {
  const RowsOfVertices rows(lattice);
  const Buffer<std::uint32_t> homes = find_homes(rows, &n_rows);
  parallel_for(lattice.dim + 2, threads, [&](std::int64_t i) {
    if (i <= lattice.dim) {
      axes[i] = find_chains(homes, neighbours.data() + i * lattice.n_vertices * 2);
    } else {
      shared = find_shared(rows);
    }
  });
}

Buffer<std::uint32_t> BlurPlan::neighbours(const Lattice& lattice, int threads) const {
  const std::int64_t n = lattice.n_vertices;
  const auto none = static_cast<std::uint32_t>(n);
  std::int64_t rows = 0;
  const Buffer<std::uint32_t> homes = find_homes(RowsOfVertices(lattice), &rows);
  Buffer<std::uint32_t> vertex(rows), table((lattice.dim + 1) * n * 2);
  for (std::int64_t v = 0; v < n; ++v) vertex[homes[v]] = static_cast<std::uint32_t>(v);
  parallel_for(lattice.dim + 1, threads, [&](std::int64_t axis) {
    std::uint32_t* pairs = table.data() + axis * n * 2;
    std::fill_n(pairs, 2 * n, none);
    const std::uint32_t* entry = axes[axis].data();
    for (std::int64_t i = 0; i < axes[axis].size(); ++i) {
      if ((entry[i] & linked) == 0) continue;
      const std::uint32_t here = vertex[entry[i] & ~linked], next = vertex[entry[i + 1] & ~linked];
      pairs[2 * std::int64_t{here}] = next;
      pairs[2 * std::int64_t{next} + 1] = here;
    }
  });
  return table;
}

std::int64_t BlurPlan::nbytes() const {
  std::int64_t sum = shared.nbytes();
  for (const Chains& axis : axes) sum += axis.nbytes();
  return sum;
}

}  // namespace crfseg
