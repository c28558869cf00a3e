// SPDX-License-Identifier: MIT
// The rows that hold a lattice's values, and the order in which the blur walks them.
//
// A vertex has a row in every strip that touches it; the first of them, or one of its own where
// filling added it, is its home. Values are blurred in their homes, where they lie: no other copy
// of them is needed. Vertices that are neighbours along an axis form chains, and a walk along a
// chain holds the values it overwrites in registers. Vertices on their own are in no chain: most
// are, in lattices that have about as many vertices as points.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"

namespace crfseg {

class Lattice;

// Rows, chain after chain: kernels::linked marks all but the last of each.
class Chains {
 public:
  Chains() = default;
  explicit Chains(std::int64_t n_entries);

  std::uint32_t* data() { return entries_.data(); }
  void cut();  // once all entries are there

  // Pieces that end where a chain ends, for threads to share.
  std::int64_t n_pieces() const { return static_cast<std::int64_t>(cuts_.size()) - 1; }
  const std::uint32_t* piece(std::int64_t i) const { return entries_.data() + cuts_[i]; }
  std::int64_t length(std::int64_t i) const { return cuts_[i + 1] - cuts_[i]; }
  std::int64_t nbytes() const { return entries_.nbytes(); }

 private:
  Buffer<std::uint32_t> entries_;
  std::vector<std::int64_t> cuts_{0};
};

struct BlurPlan {
  BlurPlan(const Lattice& lattice, int threads);

  std::int64_t nbytes() const;

  std::int64_t n_rows = 0;   // those of the strips, then the homes of filled vertices
  Chains shared;             // the rows of each vertex that has several, its home first
  std::vector<Chains> axes;  // homes of neighbours, walked forth along each axis
};

}  // namespace crfseg
